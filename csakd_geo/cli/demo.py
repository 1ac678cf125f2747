"""``csakd-geo demo``: the main job on the sample, scored against truth beside every method."""

from __future__ import annotations

import time
from pathlib import Path

import click

from csakd_geo.cli import console


@click.command()
@click.option("-o", "--output", default="demo", type=click.Path(path_type=Path), help="Folder to write into.")
def demo(output: Path) -> None:
    """Fuse the sample pair with the defaults, and every method on the same pair for comparison."""
    from rich.table import Table

    from csakd_geo.choose import fitting_model
    from csakd_geo.cli.fuse_run import run_fusion
    from csakd_geo.cli.progress import Reporter
    from csakd_geo.draft import draft_job
    from csakd_geo.errors import OutputError
    from csakd_geo.evaluate import evaluate
    from csakd_geo.io import open_source
    from csakd_geo.job import fuse
    from csakd_geo.methods import METHODS
    from csakd_geo.metrics import score
    from csakd_geo.options import FuseOptions
    from csakd_geo.sample import write_sample
    from csakd_geo.target import check_target

    if output.exists() and not output.is_dir():
        raise OutputError(f"'{output}' is a file; give a folder to write the demo into.")
    output.mkdir(parents=True, exist_ok=True)
    sample = write_sample(output, overwrite=True)
    fused = output / "fused.tif"
    check_target(fused, overwrite=True)
    with Reporter(quiet=False, as_json=False) as report:
        draft = draft_job(sample.hsi, sample.msi, FuseOptions())
        products = run_fusion(draft, fused, report, quicklook=True, truth=str(sample.truth))
    source = open_source(sample.truth)
    truth = source.read(0, 0, source.height, source.width)
    table = Table(title="Sample (AVIRIS Indian Pines, ratio 4, 4 MSI bands) against truth")
    for column in ("method", "PSNR dB", "SAM deg", "ERGAS", "SSIM", "seconds"):
        table.add_column(column, justify="left" if column == "method" else "right")
    pair = draft.scene.sample()
    fits = fitting_model(pair.hsi_axis, pair.msi_axis, pair.ratio) is not None
    names = [*METHODS, "csakd"] if fits else list(METHODS)
    for name in names:
        begun = time.monotonic()
        cube = fuse(sample.hsi, sample.msi, method=name, adapt_minutes=0).values
        seconds = time.monotonic() - begun
        s = score(cube, truth, ratio=4)
        table.add_row(
            name, f"{s.psnr:.2f}", f"{s.sam:.3f}", f"{s.ergas:.3f}", f"{s.ssim:.4f}", f"{seconds:.1f}"
        )
    s = evaluate(fused, sample.truth, ratio=4).scores
    table.add_row(
        "[bold]fused.tif[/bold]", f"{s.psnr:.2f}", f"{s.sam:.3f}", f"{s.ergas:.3f}", f"{s.ssim:.4f}", ""
    )
    console().print(table)
    click.echo(f"hsi: {sample.hsi}\nmsi: {sample.msi}\ntruth: {sample.truth}")
    for kind, path, words in products:
        click.echo(f"{kind}: {path}{words}")
