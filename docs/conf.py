"""How Sphinx builds the site: `make docs` puts it into build/docs. Nothing is fetched, and a page loads nothing."""

from __future__ import annotations

from docutils.nodes import SkipNode, math, math_block
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger
from sphinx.writers.html5 import HTML5Translator

from csakd_geo import __version__

project = "csakd_geo"
author = "The csakd-geo developers"
project_copyright = "the csakd-geo developers, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx_click"]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]  # ```math, as GitHub writes it
myst_heading_anchors = 3

smartquotes = False  # --option is no dash
default_role = "py:obj"  # `csakd_geo.fuse` in a docstring is a link, and `x` is code
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say them
autodoc_default_options = {"exclude-members": "model_config", "no-value": True}
autosummary_ignore_module_all = False
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "furo"
html_title = f"csakd_geo {__version__}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"


def _mathml(node: math | math_block, *, as_block: bool) -> str:
    try:
        return latex2mathml.tex2mathml(node.astext().strip(), as_block=as_block)
    except MathError as error:
        getLogger(__name__).warning("The formula cannot be drawn: %s", error, location=node)
        return ""


def _inline(writer: HTML5Translator, node: math) -> None:
    writer.body.append(_mathml(node, as_block=False))
    raise SkipNode


def _block(writer: HTML5Translator, node: math_block) -> None:
    writer.body.append(f'<div class="formula">{_mathml(node, as_block=True)}</div>')
    raise SkipNode


def setup(app: Sphinx) -> None:
    """Formulas become MathML, which browsers draw by themselves; MathJax would be loaded from elsewhere."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
