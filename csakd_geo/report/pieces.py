"""Pieces of the page: tables, lists, and words for bands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, chosen: str = "") -> str:
    """A table; the row whose first cell is `chosen` stands out."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr{' class=chosen' if row[0] == chosen else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def definitions(pairs: Iterable[tuple[str, str]], *, boxed: bool = False) -> str:
    """Names and values."""
    one = "<div><dt>{}</dt><dd>{}</dd></div>" if boxed else "<dt>{}</dt><dd>{}</dd>"
    return "<dl>" + "".join(one.format(escape(k), escape(v)) for k, v in pairs) + "</dl>"


def count_bands(flagged: BoolArray) -> str:
    """``1 band``, ``12 bands``."""
    n = int(flagged.sum())
    return f"{n} band{'s' * (n > 1)}"


def stretches(flagged: BoolArray, axis: dict[str, Any]) -> str:
    """Wavelengths (or numbers) of flagged bands, neighbours as ``900–1200``.

    Parameters
    ----------
    flagged : ndarray (band,) bool
    axis : dict
        The page's axis, see `csakd_geo.report.content`.
    """
    edges = np.flatnonzero(np.diff(flagged.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    ends = [[f"{axis['x'][k]:.0f}" for k in (first, last - 1)] for first, last in edges]
    words = ", ".join(a if a == b else f"{a}–{b}" for a, b in ends)
    return f"{words} nm" if axis["nm"] else words
