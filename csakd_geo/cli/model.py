"""``csakd-geo model``: look into models, list and import them; the other commands are in modules beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from csakd_geo.cli import console, warn
from csakd_geo.cli.model_complexity import complexity
from csakd_geo.cli.model_onnx import export, verify
from csakd_geo.cli.model_show import (
    card_rows,
    cost_rows,
    list_cells,
    model_facts,
    print_facts,
    print_grid,
    read_size,
    usual_ratio,
)

_NOT_IMPORTED = "official checkpoint, not imported"


@click.group()
def model() -> None:
    """Look into models, import, export, verify and list them."""


model.add_command(export)
model.add_command(verify)
model.add_command(complexity)


@model.command("list")
@click.option("--hsi", metavar="FILE", help="With --msi: list what fits this pair alone, best first.")
@click.option("--msi", metavar="FILE", help="The pair's multispectral image.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(hsi: str | None, msi: str | None, as_json: bool) -> None:
    """List the models that come with this package and the user's.

    The user's are in the folders that the environment variable CSAKD_GEO_MODELS names, or else in the user
    data folder.
    """
    if (hsi is None) != (msi is None):
        raise click.UsageError("--hsi and --msi go together.")
    rows = list(_known() if hsi is None or msi is None else _fitting(hsi, msi))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        warn("No model fits this pair; csakd-geo train makes one, and classical methods need none.")
        return
    heads = ("Name", "Version", "Form", "Ratio", "Bands", "HSI", "MSI", "Base", "Attention", "Where")
    print_grid(heads, [list_cells(row) for row in rows])


@model.command()
@click.argument("name", metavar="MODEL")
@click.option(
    "--size", type=read_size, default="64x64", show_default=True, metavar="ROWSxCOLUMNS", help="HSI pixels."
)
@click.option(
    "--ratio", type=click.IntRange(min=1), help="HSI over MSI pixel size; the model's own by default."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(name: str, size: tuple[int, int], ratio: int | None, as_json: bool) -> None:
    """Say what MODEL is, what it was trained on, what it costs and how far it sees.

    MODEL is a name or a file. The halo is measured on random images: what a tile needs so that it differs from
    the whole by no more than 1e-5 of the standard deviation.
    """
    from csakd_geo.models import find_model, load_model
    from csakd_geo.models.complexity import complexity as count
    from csakd_geo.models.reach import measured_reach, structural_reach

    loaded = load_model(find_model(name))
    card = loaded.card
    ratio = ratio or usual_ratio(card)
    cost = count(card.network, *size, ratio=ratio)
    with console().status("Measuring how far it sees"):
        reach = {
            "structural": structural_reach(card.network, ratio),
            "measured": measured_reach(loaded.network, ratio),
        }
    if as_json:
        facts = {
            "path": str(loaded.path),
            "file_sha256": loaded.sha256,
            "card": card.model_dump(mode="json"),
            "lr_size": list(size),
            "ratio": ratio,
            "complexity": asdict(cost),
            "reach": reach,
        }
        click.echo(json.dumps(facts, indent=1))
        return
    print_facts(f"{card.name} {card.version}", [*card_rows(loaded), *cost_rows(cost, size, ratio, reach)])


@model.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A .safetensors file.")
@click.option("--name", help="Name of the model; the file's by default.")
@click.option("--ratio", type=click.IntRange(min=1), help="HSI over MSI pixel size that it was trained for.")
@click.option("--hsi-wavelengths", metavar="FILE", help="ENVI header or table of the HSI's (good) bands.")
@click.option("--msi-sensor", metavar="NAME", help="Sensor of the MSI, such as sentinel2-10m.")
@click.option("--units", metavar="TEXT", help="Units of the data that it was trained on.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
def import_model(
    file: Path,
    output: Path,
    name: str | None,
    ratio: int | None,
    hsi_wavelengths: str | None,
    msi_sensor: str | None,
    units: str | None,
    overwrite: bool,
) -> None:
    """Make a model with a card of FILE, a checkpoint of the official code (.pth).

    A checkpoint does not say which bands and ratio it was trained for; a model whose card does not say so
    either is never chosen by itself.
    """
    from csakd_geo.errors import ModelError, OutputError
    from csakd_geo.io.axes import read_wavelengths
    from csakd_geo.models import load_model, save_model
    from csakd_geo.sensors import get_sensor

    if output.exists() and not overwrite:
        raise OutputError(f"'{output}' exists; pass --overwrite to replace it, or name another file.")
    if _has_card(file):
        raise ModelError(f"'{file}' has a card already; only checkpoints of the official code are imported.")
    loaded = load_model(file)
    network = loaded.network.config
    stated: dict[str, Any] = {"name": name, "ratio": ratio, "units": units}
    if hsi_wavelengths is not None:
        axis = read_wavelengths(hsi_wavelengths)
        stated |= _bands("hsi", axis.take(axis.good.nonzero()[0]), network.bands, f"'{hsi_wavelengths}'")
    if msi_sensor is not None:
        stated |= _bands("msi", get_sensor(msi_sensor).axis, network.msi_bands, f"Sensor {msi_sensor}")
    card = loaded.card.model_copy(update={key: value for key, value in stated.items() if value is not None})
    save_model(output, loaded.network, card)
    for what, given in (
        ("its ratio", ratio),
        ("its HSI wavelengths", hsi_wavelengths),
        ("its MSI's bands", msi_sensor),
    ):
        if given is None:
            warn(f"The card does not state {what}, so this model is never chosen by itself.")
    click.echo(str(output))


def _has_card(path: Path) -> bool:
    from csakd_geo.errors import ModelError
    from csakd_geo.models import read_card

    try:
        read_card(path)
    except ModelError:
        return False
    return True


def _bands(kind: str, axis: Any, count: int, source: str) -> dict[str, Any]:
    """Wavelengths and, where all are known, widths for a card of `count` bands."""
    import numpy as np

    from csakd_geo.errors import ModelError

    if axis.size != count or not np.isfinite(axis.wavelength).all():
        known = int(np.isfinite(axis.wavelength).sum())
        raise ModelError(
            f"{source} states the wavelengths of {known} {kind.upper()} bands, but the network takes {count}; give "
            "the bands that it was trained on."
        )
    widths = tuple(axis.fwhm.tolist()) if np.isfinite(axis.fwhm).all() else None
    return {f"{kind}_wavelengths": tuple(axis.wavelength.tolist()), f"{kind}_fwhm": widths}


def _known() -> Iterator[dict[str, Any]]:
    from csakd_geo.errors import ModelError
    from csakd_geo.models import bundled_models, read_card, user_models

    for where, paths in (("user", user_models()), ("bundled", bundled_models())):
        for path in paths:
            if path.suffix != ".safetensors":
                yield {"name": path.stem, "where": where, "path": str(path), "note": _NOT_IMPORTED}
                continue
            try:
                yield model_facts(read_card(path), path, where=where)
            except ModelError as error:
                warn(f"A model was left out. {error}")


def _fitting(hsi: str, msi: str) -> Iterator[dict[str, Any]]:
    from csakd_geo.engine.scene import open_scene
    from csakd_geo.grid import lay_grid
    from csakd_geo.io import open_source
    from csakd_geo.models import bundled_models, fitting_models

    coarse, fine = open_source(hsi), open_source(msi)
    scene = open_scene(coarse, fine, lay_grid(coarse, fine))
    axes = coarse.axis.take(scene.hsi_bands), fine.axis.take(scene.msi_bands)
    bundled = bundled_models()
    for entry in fitting_models(*axes, ratio=scene.grid.ratio):
        yield model_facts(entry.card, entry.path, where="bundled" if entry.path in bundled else "user")
