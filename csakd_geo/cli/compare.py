"""``csakd-geo compare``: every method side by side on a small window, as a table and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csakd_geo.cli import common, console, warn
from csakd_geo.cli.progress import Reporter
from csakd_geo.io.placing import write_whole
from csakd_geo.target import check_target

if TYPE_CHECKING:
    from csakd_geo.compare import Comparison

_Rect = tuple[int, int, int, int]


def _window(_: click.Context, __: click.Parameter, value: str | None) -> _Rect | None:
    if value is None:
        return None
    try:
        col, row, width, height = (int(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter("expected four whole numbers COL,ROW,WIDTH,HEIGHT") from error
    return col, row, width, height


@click.command()
@common.hsi
@common.msi
@click.option(
    "--window",
    metavar="COL,ROW,WIDTH,HEIGHT",
    callback=_window,
    help="In pixels of the MSI; by default where the sample shows most detail, 64 HSI pixels a side.",
)
@click.option(
    "-o", "--output", "picture", type=click.Path(dir_okay=False, path_type=Path), help="PNG to draw."
)
@common.ratio
@click.option("--aoi", type=click.Path(path_type=Path), help="Vector file whose polygons bound the scene.")
@common.wavelengths
@common.hsi_sensor
@common.msi_sensor
@common.shift
@common.device
@common.as_json
@click.option("--overwrite", is_flag=True, help="Replace the picture if it exists.")
def compare(
    hsi: str,
    msi: str,
    window: _Rect | None,
    picture: Path | None,
    as_json: bool,
    overwrite: bool,
    **given: Any,
) -> None:
    """Fuse a small window of the images HSI and MSI with every method, before a long run.

    Every method, and every model that fits, is fitted to the scene as 'fuse' would and applied to one window.
    The table shows scores one resolution level down, where the HSI is the truth (not for scenes under 48 x 48 HSI
    pixels), agreement with the inputs, and time. The picture shows the window in true colour and two spectra.
    """
    from csakd_geo.compare import compare_methods
    from csakd_geo.options import make_options

    if picture is not None:
        check_target(picture, overwrite=overwrite, inputs=[hsi, msi], format="cog")
    options = make_options({name: value for name, value in given.items() if value is not None})
    with Reporter(quiet=as_json, as_json=False) as report:
        found = compare_methods(hsi, msi, options, window=window, report=report)
    for sentence in found.warnings:
        warn(sentence)
    if picture is not None:
        from csakd_geo.cli.compare_plot import draw_comparison

        with console().status("Drawing"):
            write_whole(picture, draw_comparison(found))
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False))
        return
    _print(found)
    if picture is not None:
        click.echo(str(picture))


_HELD = (("PSNR dB", "psnr", ".2f"), ("SAM deg", "sam", ".2f"), ("ERGAS", "ergas", ".2f"))
_INPUTS = (
    ("over noise", "hsi_over_noise", ".2f"),
    ("HQNR", "hqnr", ".4f"),
    ("HSI diff", "hsi_consistency", ".2%"),
    ("MSI diff", "msi_consistency", ".2%"),
)


def _print(found: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    col, row, width, height = found.window
    click.echo(
        f"Window: column {col}, row {row}, {width} x {height} MSI pixels "
        f"({width / found.ratio:.4g} x {height / found.ratio:.4g} HSI pixels, ratio {found.ratio})"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    held = [column for column in _HELD if found.candidates[0].held_out]
    for title, _, _ in (*held, *_INPUTS):
        table.add_column(title, justify="right")
    table.add_column("s / Mpx", justify="right")
    for c in found.candidates:
        cells = [format(c.held_out[key], form) for _, key, form in held]
        cells += [_number(c.scores[key], form) for _, key, form in _INPUTS]
        table.add_row(c.name, *cells, f"{c.megapixel_seconds:.1f}")
    Console(highlight=False).print(table)
    for line in _TRUST[bool(held)]:
        click.echo(line)


_TRUST = {
    True: (
        "Trust PSNR, SAM and ERGAS: they are of held-out blocks one level down, where the HSI is the truth.",
        "HQNR shows what failed (far below the rest), not what is best.",
    ),
    False: (
        "Leave out what HQNR puts far below the rest; it does not rank the others.",
        "Of these, 'over noise' counts: the nearer to 0.9, the better.",
    ),
}


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
