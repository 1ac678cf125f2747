"""``csakd-geo model export`` and ``verify``: networks as ONNX."""

from __future__ import annotations

from pathlib import Path

import click

from csakd_geo.cli import console
from csakd_geo.cli.model_show import print_grid, read_size, spell_ratio


@click.command()
@click.argument("name", metavar="MODEL")
@click.option(
    "--onnx", "target", type=click.Path(path_type=Path), required=True, help="A .onnx file to write."
)
@click.option(
    "--ratio",
    type=click.IntRange(min=1),
    help="HSI over MSI pixel size, fixed in the file; not needed where the model has one.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def export(name: str, target: Path, ratio: int | None, overwrite: bool) -> None:
    """Write MODEL (a name or a file) as ONNX with free height and width, and check it against torch.

    A network that attends over the whole scene gets a second file, NAME.statistics.onnx, which takes the
    attention's sums tile by tile.
    """
    from csakd_geo.errors import ModelError
    from csakd_geo.models import find_model, load_model
    from csakd_geo.models.onnx import export_onnx

    loaded = load_model(find_model(name))
    card = loaded.card
    chosen = ratio or (card.ratio if isinstance(card.ratio, int) else None)
    if chosen is None:
        raise ModelError(
            f"An ONNX file is made for one ratio, but that of {card.name} is {spell_ratio(card)}; give --ratio."
        )
    with console().status("Exporting and checking; this takes a minute or two"):
        paths = export_onnx(loaded, target, ratio=chosen, overwrite=overwrite)
    for path in paths:
        click.echo(str(path))


@click.command()
@click.argument("name", metavar="MODEL")
@click.argument("onnx", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--size",
    "sizes",
    type=read_size,
    metavar="ROWSxCOLUMNS",
    multiple=True,
    help="HSI pixels of a random scene; may be given more than once, three odd sizes by default.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random scenes."
)
def verify(name: str, onnx: Path, sizes: tuple[tuple[int, int], ...], seed: int) -> None:
    """Hold the file ONNX against MODEL in torch, on random scenes in one piece and in tiles.

    Errors are RMSE over the standard deviation of torch's output; above 1e-5 the exit code is 1.
    """
    from csakd_geo.errors import ModelError
    from csakd_geo.models import find_model, load_model
    from csakd_geo.models.onnx import load_onnx
    from csakd_geo.models.onnx_check import SIZES, TOLERANCE, verify_onnx

    loaded = load_model(find_model(name))
    with console().status("Comparing"):
        found = verify_onnx(loaded, load_onnx(onnx), sizes=sizes or SIZES, seed=seed)
    print_grid(
        ("HSI pixels", "halo", "whole", "in tiles", "agrees"),
        [
            (
                f"{a.lr_height} x {a.lr_width}",
                str(a.halo),
                f"{a.whole:.1e}",
                f"{a.tiled:.1e}",
                "yes" if a.holds else "no",
            )
            for a in found
        ],
        right=(1, 2, 3),
    )
    worst = max(max(a.whole, a.tiled) for a in found)
    if not all(a.holds for a in found):
        raise ModelError(
            f"{onnx.name} gives another result than {loaded.card.name} in torch: relative error {worst:.1e}, "
            f"allowed {TOLERANCE:.0e}."
        )
