"""What a batch came to: a GeoParquet file for programs, a page for people, one row per scene."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from shapely import from_wkb

from csakd_geo.batch.frame import write_frame
from csakd_geo.batch.run import Outcome
from csakd_geo.errors import CsakdGeoError
from csakd_geo.io import open_source
from csakd_geo.io.placing import write_whole
from csakd_geo.layers import QUALITY, UNCERTAINTY, layer_path
from csakd_geo.stac import href

#: Pixels per side of a thumbnail.
_THUMBNAIL = 160
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #c0392b; --good: #1e8449; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; padding: 0 1.5rem; max-width: 76rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; }
p { margin: 0 0 1.2rem; opacity: .75; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid var(--line); padding: .4rem .7rem; }
td { border-bottom: 1px solid var(--line); padding: .5rem .7rem; vertical-align: top; }
tr.failed td { background: var(--soft); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.status, .method { white-space: nowrap; }
.status { font-weight: 600; }
.done .status, .skipped .status { color: var(--good); }
.failed .status { color: var(--bad); }
.path { opacity: .65; font-size: .85em; overflow-wrap: anywhere; }
img { display: block; max-width: 10rem; max-height: 10rem; image-rendering: pixelated; border-radius: 3px; }
"""


def summarise(outcomes: Sequence[Outcome]) -> Any:
    """One row per scene, as a GeoDataFrame in longitude and latitude.

    Columns: name, status, hsi, msi, out, method, model, ratio, psnr, sam, ergas (against the scene's truth),
    held_out_psnr, held_out_sam, held_out_ergas (of the chosen method, one resolution level down), seconds,
    fit_seconds, fuse_seconds, clipped_values, warnings, error, geometry. What does not apply is missing.

    Parameters
    ----------
    outcomes : sequence of Outcome

    Returns
    -------
    geopandas.GeoDataFrame
    """
    import geopandas

    shapes = [None if o.outline is None else from_wkb(o.outline) for o in outcomes]
    frame = geopandas.GeoDataFrame([_row(o) for o in outcomes], geometry=shapes, crs="EPSG:4326")
    numbers = [c for c in frame.columns if c in _NUMBERS]
    return frame.astype(dict.fromkeys(numbers, "float64"))


_NUMBERS = ("ratio", "psnr", "sam", "ergas", "held_out_psnr", "held_out_sam", "held_out_ergas")


def _row(outcome: Outcome) -> dict[str, Any]:
    scene, facts = outcome.scene, outcome.facts
    held_out = (facts.get("held_out_scores") or {}).get(facts.get("method"), {})
    return {
        "name": scene.name,
        "status": outcome.status,
        "hsi": scene.hsi,
        "msi": scene.msi,
        "out": str(scene.out),
        "method": facts.get("method"),
        "model": (facts.get("model") or {}).get("name"),
        "ratio": facts.get("ratio"),
        **{name: outcome.scores.get(name) for name in ("psnr", "sam", "ergas")},
        **{f"held_out_{name}": held_out.get(name) for name in ("psnr", "sam", "ergas")},
        "seconds": outcome.seconds,
        "fit_seconds": facts.get("fit_seconds"),
        "fuse_seconds": facts.get("fuse_seconds"),
        "clipped_values": facts.get("clipped_values"),
        "warnings": " ".join(facts.get("warnings") or []) or None,
        "error": outcome.error or None,
    }


def write_summary(target: Path, outcomes: Sequence[Outcome], *, title: str) -> tuple[Path, Path]:
    """Write ``<target>.parquet`` and ``<target>.html``; what is there is replaced.

    Parameters
    ----------
    target : Path
        Without a suffix.
    outcomes : sequence of Outcome
        In the order of the rows.
    title : str
        Heading of the page.

    Returns
    -------
    tuple of (Path, Path)
        The GeoParquet file and the page.

    Raises
    ------
    InputError
        pyarrow is missing.
    OutputError
        A file cannot be written.
    """
    table, page = (target.with_name(target.name + suffix) for suffix in (".parquet", ".html"))
    write_frame(summarise(outcomes), table)
    write_whole(page, draw_page(outcomes, title=title, folder=page.parent).encode())
    return table, page


def draw_page(outcomes: Sequence[Outcome], *, title: str, folder: Path) -> str:
    """The page as HTML that loads nothing: one table, with a picture of each output in it.

    Parameters
    ----------
    outcomes : sequence of Outcome
    title : str
    folder : Path
        Where the page will be, for links to outputs.
    """
    prefix = "" if any(o.scores for o in outcomes) else "held_out_"
    heads = ["", "Scene", "Status", "Method", "Held-out scores" if prefix else "Scores", "Seconds", "Remarks"]
    rows = "\n".join(_line(o, folder, prefix) for o in outcomes)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    head = "".join(f"<th{_class(name)}>{name}</th>" for name in heads)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{escape(title)}</h1><p>{escape(count_words(outcomes))} · {now}</p>\n"
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></body></html>\n"
    )


def count_words(outcomes: Sequence[Outcome]) -> str:
    """``6 scenes: 4 done, 1 finished before, 1 failed``."""
    count = {name: sum(o.status == name for o in outcomes) for name in ("done", "skipped", "failed")}
    named = {"done": "done", "skipped": "finished before", "failed": "failed"}
    parts = [f"{n} {named[name]}" for name, n in count.items() if n]
    return f"{len(outcomes)} scene{'s' * (len(outcomes) != 1)}: {', '.join(parts)}"


def _line(outcome: Outcome, folder: Path, prefix: str) -> str:
    """One row of the page; `prefix` says which scores."""
    scene, row = outcome.scene, _row(outcome)
    link = escape(scene.name)
    if outcome.status != "failed":
        link = f'<a href="{quote(href(scene.out, folder), safe="/:")}">{link}</a>'
    options = outcome.facts.get("options") or {}
    beside = [
        f'<a href="{quote(href(layer_path(scene.out, kind), folder), safe="/:")}">{kind}</a>'
        for kind in (UNCERTAINTY, QUALITY)
        if options.get(kind)
    ]
    found = [(words, row[prefix + key]) for key, words in (("psnr", "{:.2f} dB"), ("sam", "{:.3f}°"))]
    scores = "<br>".join(words.format(value) for words, value in found if value is not None)
    method = escape(str(row["method"] or ""))
    if row["model"]:
        method += f'<div class="path">{escape(row["model"])}</div>'
    inputs = "<br>".join(escape(href(path, folder)) for path in (scene.hsi, scene.msi) if path)
    picture = _thumbnail(scene.out) if outcome.status != "failed" else ""
    status = {"skipped": "finished before"}.get(outcome.status, outcome.status)
    cells = [
        ("", f'<img alt="{escape(scene.name, quote=True)}" src="{picture}">' if picture else ""),
        ("", f'{" · ".join([link, *beside])}<div class="path">{inputs}</div>'),
        ("status", status),
        ("method", method),
        ("number", scores),
        ("number", f"{outcome.seconds:.1f}"),
        ("", escape(row["error"] or row["warnings"] or "")),
    ]
    body = "".join(f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>" for kind, text in cells)
    return f'<tr class="{outcome.status}">{body}</tr>'


def _class(head: str) -> str:
    return ' class="number"' if head in ("Scores", "Held-out scores", "Seconds") else ""


def _thumbnail(product: Path) -> str:
    """A small true-colour picture as a data address; empty where the image has none."""
    from matplotlib.image import imsave

    from csakd_geo.quicklook.view import TRUE_COLOUR, Bands, Lattice, limits, rgba

    try:
        fused = open_source(product)
        cube = Lattice.of(fused, side=_THUMBNAIL).pick(fused, Bands.of(fused).composite(TRUE_COLOUR)[0])
    except CsakdGeoError:
        return ""  # removed in the meantime, or without a usable band: the row says the rest
    buffer = io.BytesIO()
    imsave(buffer, np.asarray(rgba(cube, limits(cube))), format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
