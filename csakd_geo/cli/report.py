"""``csakd-geo report``: one page about one product."""

from __future__ import annotations

from pathlib import Path

import click

from csakd_geo.cli import console


@click.command()
@click.argument("fused", type=click.Path(path_type=Path))
@click.option("--hsi", required=True, metavar="FILE", help="Hyperspectral image that FUSED was made of.")
@click.option("--msi", required=True, metavar="FILE", help="Multispectral image that FUSED was made of.")
@click.option("--truth", metavar="FILE", help="Fine hyperspectral image to compare with.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The page; by default FUSED with the suffix .html.",
)
@click.option("--overwrite", is_flag=True, help="Replace a page that exists.")
def report(fused: Path, hsi: str, msi: str, truth: str | None, output: Path | None, overwrite: bool) -> None:
    """Write one HTML page about the product FUSED, which loads nothing from elsewhere.

    It shows inputs and result side by side, spectra of the pixel that is clicked, how far the result agrees
    with both inputs (and the truth, if there is one), and how it was made.
    """
    from csakd_geo.report import write_report

    target = fused.with_suffix(".html") if output is None else output
    with console().status("Reading the product and its inputs"):
        write_report(target, product=fused, hsi=hsi, msi=msi, truth=truth, overwrite=overwrite)
    click.echo(str(target))
