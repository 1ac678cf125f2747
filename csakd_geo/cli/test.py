"""``csakd-geo test``: a model against every method on scenes with known truth."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csakd_geo.cli import warn
from csakd_geo.errors import InputError

if TYPE_CHECKING:
    from csakd_geo.trial import Form


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), required=True, help="Folder for results."
)
@click.option("--against", multiple=True, metavar="MODEL", help="One more model; may be given several times.")
@click.option("--methods", metavar="A,B,...", help="Classical methods; all by default.")
@click.option("--ratio", type=click.IntRange(2, 64), help="Degrade cubes by it: HSI pixel over MSI pixel.")
@click.option(
    "--msi-sensor", metavar="NAME", help="Sensor that sees the MSI of cubes, such as sentinel2-10m."
)
@click.option("--snr-hsi", type=float, metavar="DB", help="Noise of the HSI made from cubes (35).")
@click.option("--snr-msi", type=float, metavar="DB", help="Noise of the MSI made from cubes (40).")
@click.option("--msi-bands", type=int, help="Which MSI of the authors' layout, 4 (default) or 6.")
@click.option(
    "--list", "names", type=click.Path(path_type=Path), help="Text file that names tiles, one a line."
)
@click.option(
    "--snr",
    metavar="DB,DB,...",
    help="Sweep the HSI's noise and draw it: cubes are simulated at each SNR; other HSIs get white Gaussian "
    "noise of that SNR per band on top of what they hold.",
)
@click.option(
    "--shift",
    "shifts",
    metavar="PX,PX,...|PX..PX",
    help="Sweep a misregistration of the HSI in MSI pixels along x and y, and draw it.",
)
@click.option("--no-align", is_flag=True, help="Do not correct a shift between HSI and MSI.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of noise and fits.")
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table of means.")
def test(
    model: str,
    data: Path,
    folder: Path,
    against: tuple[str, ...],
    methods: str | None,
    snr: str | None,
    shifts: str | None,
    no_align: bool,
    device: str,
    seed: int,
    overwrite: bool,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Score MODEL against every method on the scenes of DATA, whose truth is known.

    MODEL is a name or a file. DATA is one of:

    \b
    - a folder of the layout of CSAKD's authors (NAMEGT.npz.npy, NAMEhrmsi.npz, NAMElrhsi.npz);
    - a folder of triples: hsi.tif, msi.tif and truth.tif in it or in the folders in it, or
      NAME_hsi.tif, NAME_msi.tif and NAME_truth.tif;
    - fine hyperspectral rasters, one or a folder of them, which are degraded here (Wald's
      protocol) with --ratio and --msi-sensor.

    All methods get the same inputs and nothing is trained. Writes scores.json, scores.csv and scores.md into
    the folder, snr.png and shift.png where those are swept, and prints the means over the scenes.
    """  # noqa: D301 (click wants the backspace itself)
    from csakd_geo import trial
    from csakd_geo.cli.progress import Reporter

    levels, offsets = _levels(snr), _offsets(shifts)
    conditions = [trial.Condition(snr=value) for value in levels]
    conditions += [trial.Condition(shift=value) for value in offsets]
    classical = trial.classical_contenders(None if methods is None else _parts("--methods", methods))
    models = trial.model_contenders([model, *against])
    scenes, form, warnings = trial.find_scenes(data, trial.Wanted(**wanted))
    trial.check_folder(folder, overwrite=overwrite)
    for sentence in warnings:
        warn(sentence)
    with (
        trial.without_attention(models) if levels else nullcontext(models) as networks,
        Reporter(quiet=False, as_json=False) as report,
    ):
        rows = trial.run_trial(
            scenes,
            conditions or [trial.Condition()],
            [*networks, *classical],
            report=lambda share, words: report("Testing", share, words),
            seed=seed,
            device=device,
            shift="none" if no_align else "auto",
        )
    caption = _caption(data, form, len(scenes), levels, offsets, aligned=not no_align, **wanted)
    results = {
        "scores.json": trial.as_json(rows, str(data)).encode(),
        "scores.csv": trial.as_csv(rows).encode(),
        "scores.md": trial.as_markdown(rows, caption).encode(),
    }
    if levels:
        results["snr.png"] = trial.draw_sweep(rows, "snr", caption=caption)
    if offsets:
        results["shift.png"] = trial.draw_sweep(rows, "shift", caption=caption)
    written = trial.put_files(folder, results)
    if as_json:
        click.echo(results["scores.json"].decode(), nl=False)
        return
    click.echo(trial.table(trial.mean_rows(rows)))
    click.echo()
    for path in written:
        click.echo(str(path))


def _parts(option: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise InputError(f"{option} is '{text}'; expected names or numbers parted by single commas.")
    return list(dict.fromkeys(parts))


def _levels(text: str | None) -> list[float]:
    """The SNRs to sweep, rising."""
    if text is None:
        return []
    try:
        levels = {float(part) for part in _parts("--snr", text)}
    except ValueError:
        levels = {math.nan}
    if not all(math.isfinite(level) for level in levels):
        raise InputError(f"--snr is '{text}'; expected decibels parted by commas, such as 25,30,35.")
    return sorted(levels)


def _offsets(text: str | None) -> list[int]:
    """The shifts to sweep, rising."""
    if text is None:
        return []
    try:
        low, dots, high = text.partition("..")
        offsets = set(range(int(low), int(high) + 1) if dots else map(int, _parts("--shift", text)))
    except ValueError:
        offsets = {-1}
    if min(offsets, default=-1) < 0:
        raise InputError(f"--shift is '{text}'; expected whole MSI pixels, such as 0,1,2,3 or 0..3.")
    return sorted(offsets)


def _caption(
    data: Path,
    form: Form,
    count: int,
    levels: list[float],
    offsets: list[int],
    *,
    aligned: bool,
    **wanted: Any,
) -> str:
    """What was done, in a few sentences."""
    from csakd_geo.trial import SNR_HSI, SNR_MSI

    words = [f"{data.resolve().name}, {count} scene{'s' if count > 1 else ''}: {form.name}."]
    if wanted["ratio"] is not None:
        hsi, msi = wanted["snr_hsi"], wanted["snr_msi"]
        noise = (SNR_HSI if hsi is None else hsi, SNR_MSI if msi is None else msi)
        words.append(
            f"Ratio {wanted['ratio']}, MSI {wanted['msi_sensor']}, noise {noise[0]:g} and {noise[1]:g} dB."
        )
    if levels:
        words.append(f"SNR: {form.noise}.")
    if offsets:
        words.append(f"Shift: {form.shift}.")
    words.append("HSI and MSI aligned by the product." if aligned else "HSI and MSI not aligned.")
    return " ".join(words)
