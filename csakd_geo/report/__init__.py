"""One page about one product: what it looks like, how far it agrees with its inputs, how it was made.

Everything is read back from the finished product and its two inputs, so a page can be made at any time.
The page carries its data, styles and scripts and loads nothing.
"""

from __future__ import annotations

from pathlib import Path

from csakd_geo.errors import OutputError
from csakd_geo.evaluate.facts import product_facts
from csakd_geo.evaluate.link import link_product
from csakd_geo.io import Source, open_source
from csakd_geo.io.placing import write_whole
from csakd_geo.report.content import gather
from csakd_geo.report.page import draw_page

__all__ = ["write_report"]


def write_report(
    target: Path,
    *,
    product: Path,
    hsi: Source | Path | str,
    msi: Source | Path | str,
    truth: Source | Path | str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the page of a product as one HTML file.

    The product is read in windows, in full for each comparison and thinned for what is shown, so memory does not
    grow with the scene; the page stays below about 10 MB.

    Parameters
    ----------
    target : Path
        The page, such as ``fused.html``.
    product : Path
        What ``csakd-geo fuse`` wrote, of any format; the page shows the layers that stand beside it.
    hsi, msi : Source, Path or str
        The two images that it was made of.
    truth : Source, Path or str, optional
        A fine hyperspectral image to compare with.
    overwrite : bool
        Whether the page may exist.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        If an image cannot be read or the product does not say how it was made.
    GridError, SpectralError
        If the images do not belong together.
    OutputError
        If the page exists or cannot be written.
    """
    check_page(target, overwrite=overwrite)
    facts = product_facts(Path(product))
    fused = open_source(product)
    link = link_product(fused, hsi, msi, facts)
    if isinstance(truth, (str, Path)):
        truth = open_source(truth)
    text = draw_page(gather(Path(product), link, facts, truth))
    write_whole(target, text.encode())
    return target


def check_page(target: Path, *, overwrite: bool) -> None:
    """Refuse a page that cannot or must not be written, before any work.

    Raises
    ------
    OutputError
    """
    if target.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"The page '{target.name}' must end in .html.")
    if target.is_dir():
        raise OutputError(f"'{target}' is a folder; give the name of an HTML file.")
    if target.exists() and not overwrite:
        raise OutputError(f"The page '{target}' exists; give --overwrite to replace it.")
    if not target.parent.is_dir():
        raise OutputError(f"The folder '{target.parent}' of the page does not exist; make it first.")
