"""The rows of a trial as JSON, CSV and Markdown, and their means over the scenes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from csakd_geo._version import __version__
from csakd_geo.errors import OutputError
from csakd_geo.io.failure import plain_errors
from csakd_geo.io.placing import write_whole
from csakd_geo.trial.run import SCORES, Row

MEAN = "mean"
"""Name of the scene that stands for all of them."""
FILES = ("scores.json", "scores.csv", "scores.md", "snr.png", "shift.png")
_AVERAGED = (*SCORES, "seconds", "seconds_per_megapixel")
_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("method", "method", str),
    ("parameters", "parameters", "{:,}".format),
    ("snr", "HSI SNR dB", "{:g}".format),
    ("shift", "shift px", "{:d}".format),
    ("psnr", "PSNR dB", "{:.2f}".format),
    ("sam", "SAM deg", "{:.3f}".format),
    ("ergas", "ERGAS", "{:.3f}".format),
    ("rmse", "RMSE", "{:.4g}".format),
    ("uiqi", "UIQI", "{:.4f}".format),
    ("ssim", "SSIM", "{:.4f}".format),
    ("cc", "CC", "{:.4f}".format),
    ("seconds", "s", "{:.2f}".format),
    ("seconds_per_megapixel", "s/Mpx", "{:.1f}".format),
)


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """Means over the scenes that were fused, one row per method and condition, in the order of the rows."""
    groups: dict[tuple[str, float | None, int | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.snr, row.shift), []).append(row)
    means = []
    for group in groups.values():
        done = [row for row in group if row.failed is None]
        values: dict[str, Any] = {
            name: float(np.mean([getattr(row, name) for row in done])) if done else None for name in _AVERAGED
        }
        lost = len(group) - len(done)
        failed = f"{lost} of {len(group)} scenes failed" if lost else None
        means.append(replace(group[0], scene=MEAN, **values, failed=failed))
    return means


def as_json(rows: Sequence[Row], data: str) -> str:
    """All rows and the means; what is not finite is null."""
    listed = [
        {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in asdict(row).items()}
        for row in (*rows, *mean_rows(rows))
    ]
    return (
        json.dumps({"csakd_geo": __version__, "data": data, "rows": listed}, indent=1, allow_nan=False) + "\n"
    )


def as_csv(rows: Sequence[Row]) -> str:
    """The same rows with a heading; what is not known or not finite is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([field.name for field in fields(Row)])
    for row in (*rows, *mean_rows(rows)):
        writer.writerow(
            ["" if isinstance(v, float) and not math.isfinite(v) else v for v in asdict(row).values()]
        )
    return out.getvalue()


def as_markdown(rows: Sequence[Row], caption: str) -> str:
    """The table of the means, then one per scene."""
    scenes = list(dict.fromkeys(row.scene for row in rows))
    parts = [f"# Scores\n\n{caption}", f"## Mean of {len(scenes)} scene{'s' if len(scenes) > 1 else ''}"]
    parts.append(table(mean_rows(rows)))
    for scene in scenes:
        parts += [f"## {scene}", table([row for row in rows if row.scene == scene])]
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Row]) -> str:
    """Aligned Markdown; columns that nothing is known of are left out, reasons of failure follow."""
    columns = [c for c in _COLUMNS if any(getattr(row, c[0]) is not None for row in rows)]
    cells = [[title for _, title, _ in columns]]
    cells += [[_cell(getattr(row, name), spell) for name, _, spell in columns] for row in rows]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in cells]
    lines = [f"| {' | '.join(line)} |" for line in (aligned[0], rule, *aligned[1:])]
    reasons = dict.fromkeys(f"{row.method}: {row.failed}" for row in rows if row.failed)
    return "\n".join([*lines, *(f"\n{reason}" for reason in reasons)])


def _cell(value: Any, spell: Callable[[Any], str]) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return spell(value).replace("|", "\\|")


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Make the folder for the results.

    Raises
    ------
    OutputError
        If it is a file, cannot be made, or holds results that may not be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"'{folder}' is a file; give a folder to write the scores into.")
    there = [name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise OutputError(
            f"'{folder}' already holds {', '.join(there)}; choose another folder or give --overwrite."
        )
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def put_files(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    """Write results whole, and remove those of an earlier trial that are not among them.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    for name in FILES:
        target = folder / name
        if name in contents:
            write_whole(target, contents[name])
            continue
        with plain_errors(target):
            target.unlink(missing_ok=True)
    return [folder / name for name in FILES if name in contents]
