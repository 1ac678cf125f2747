"""``csakd-geo model complexity``: what the published networks cost, and what the time buys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csakd_geo.cli import console, warn
from csakd_geo.cli.model_show import print_grid, read_size

if TYPE_CHECKING:
    from csakd_geo.cli.model_plot import Score

_HEADS = ("Network", "Depths", "Parameters", "Used", "GMAC", "Peak MiB")


@click.command()
@click.option("--bands", type=click.IntRange(min=1), default=172, show_default=True, help="HSI bands.")
@click.option("--msi-bands", type=click.IntRange(min=1), default=4, show_default=True, help="MSI bands.")
@click.option(
    "--size", type=read_size, default="64x64", show_default=True, metavar="ROWSxCOLUMNS", help="HSI pixels."
)
@click.option(
    "--ratio", type=click.IntRange(min=1), default=4, show_default=True, help="HSI over MSI pixel size."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", is_flag=True, help="Print a Markdown table.")
@click.option(
    "--scores",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --plot: scores.json of csakd-geo test.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path), help="With --scores: a .png of PSNR over time to write."
)
@click.option("--overwrite", is_flag=True, help="Replace the picture if it exists.")
def complexity(
    bands: int,
    msi_bands: int,
    size: tuple[int, int],
    ratio: int,
    as_json: bool,
    markdown: bool,
    scores: Path | None,
    plot: Path | None,
    overwrite: bool,
) -> None:
    """Count parameters, multiplications and memory of all published networks (86 features, growth 43).

    GMAC are counted as published; peak memory is that of all tensors but the weights in float32.
    """
    from csakd_geo.errors import OutputError
    from csakd_geo.models import VARIANTS, NetworkConfig
    from csakd_geo.models.complexity import complexity as count

    if as_json and markdown:
        raise click.UsageError("Choose one of --json and --markdown.")
    if (scores is None) != (plot is None):
        raise click.UsageError("--scores and --plot go together.")
    points: list[Score] = []
    if scores is not None and plot is not None:
        if plot.exists() and not overwrite:
            raise OutputError(f"'{plot}' exists; pass --overwrite to replace it, or name another file.")
        points = read_scores(scores)
    with console().status("Counting"):
        costs = {
            name: count(NetworkConfig.official(name, bands=bands, msi_bands=msi_bands), *size, ratio=ratio)
            for name in VARIANTS
        }
    if as_json:
        facts: dict[str, Any] = {
            "bands": bands,
            "msi_bands": msi_bands,
            "lr_size": list(size),
            "ratio": ratio,
            "networks": {
                name: {"depths": list(VARIANTS[name])} | asdict(cost) for name, cost in costs.items()
            },
        }
        click.echo(json.dumps(facts, indent=1))
    else:
        rows = [
            (
                name,
                ", ".join(map(str, VARIANTS[name])),
                f"{cost.parameters:,}",
                f"{cost.used_parameters:,}",
                f"{cost.macs / 1e9:,.2f}",
                f"{cost.peak_bytes / 2**20:,.1f}",
            )
            for name, cost in costs.items()
        ]
        if markdown:
            click.echo(_markdown(rows))
        else:
            print_grid(_HEADS, rows, right=range(2, 6))
    if plot is not None:
        from csakd_geo.cli.model_plot import draw_scores

        draw_scores(points, plot)
        console().print(f"Drawn: {plot}", markup=False)


def read_scores(path: Path) -> list[Score]:
    """Read the means over the scenes that ``csakd-geo test`` wrote, one per method.

    Where a method was tried under several conditions, the first counts. Methods that failed are named in a
    warning.

    Raises
    ------
    InputError
        The file cannot be read, is no such file, or holds no method that can be drawn.
    """
    import math

    from csakd_geo.cli.model_plot import Score
    from csakd_geo.errors import InputError

    try:
        rows = json.loads(path.read_text("utf-8"))["rows"]
        means = {row["method"]: row for row in reversed(rows) if row["scene"] == "mean"}
        found = [
            Score(
                method=str(name),
                is_model=row["kind"] == "model",
                parameters=None if row["parameters"] is None else int(row["parameters"]),
                psnr=_number(row["psnr"]),
                seconds=_number(row["seconds_per_megapixel"]),
            )
            for name, row in reversed(means.items())
        ]
    except OSError as error:
        raise InputError(f"The scores '{path}' cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{path}' holds no scores; give the scores.json that csakd-geo test writes."
        ) from error
    drawn = [score for score in found if math.isfinite(score.psnr) and 0 < score.seconds < math.inf]
    if not drawn:
        raise InputError(f"'{path}' holds no method with both PSNR and time, so there is nothing to draw.")
    lost = ", ".join(score.method for score in found if score not in drawn)
    if lost:
        warn(f"Without PSNR or time, and therefore not drawn: {lost}.")
    return drawn


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _markdown(rows: Sequence[tuple[str, ...]]) -> str:
    lines = [_HEADS, ("---", "---", *["---:"] * 4), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
