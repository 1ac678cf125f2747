"""``csakd-geo align``: the HSI written where the MSI shows it to be."""

from __future__ import annotations

from pathlib import Path

import click

from csakd_geo.cli import common, console, warn


@click.command()
@common.hsi
@common.msi
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="GeoTIFF (COG) to write: .tif or .tiff.",
)
@click.option("--warp", is_flag=True, help="Resample onto cells of whole MSI pixels, in the MSI's CRS.")
@common.shift
@common.ratio
@common.wavelengths
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
def align(
    hsi: str,
    msi: str,
    output: Path,
    warp: bool,
    shift: str | None,
    ratio: int | None,
    wavelengths: Path | None,
    overwrite: bool,
) -> None:
    """Write the hyperspectral image HSI where the multispectral image MSI shows it to be.

    The shift is found from the pair. Pixels stay as they are, only their position changes, unless --warp
    is given. Wavelengths, units and tags are kept. Either image may be several files, given as a folder or
    as a pattern in quotes such as 'tiles/S2_*.tif'.
    """
    from csakd_geo.align import align as run
    from csakd_geo.io.axes import read_wavelengths
    from csakd_geo.target import check_target

    check_target(output, overwrite=overwrite, inputs=[hsi, msi], format="cog")
    given = None if shift in (None, "auto") else (0.0, 0.0)
    if given is not None and shift != "none":
        dx, dy = str(shift).split(",")
        given = (float(dx), float(dy))
    axis = None if wavelengths is None else read_wavelengths(wavelengths)
    with console().status("Aligning"):
        done = run(
            hsi, msi, output, shift=given, ratio=ratio, warp=warp, wavelengths=axis, overwrite=overwrite
        )
    for sentence in done.warnings:
        warn(sentence)
    x, y = done.shift
    words = f"moved by x {x:+.4g}, y {y:+.4g} in units of the MSI's CRS ({_size(done.pixels)} HSI pixels)"
    click.echo(f"aligned: {done.path}  ({words})")


def _size(pixels: tuple[float, float]) -> str:
    return f"{(pixels[0] ** 2 + pixels[1] ** 2) ** 0.5:.2f}"
