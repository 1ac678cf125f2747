"""Commands about single images and made pairs: info, sample, simulate, evaluate."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csakd_geo.cli import common, console, warn

if TYPE_CHECKING:
    from rich.table import Table

    from csakd_geo.evaluate import Evaluation, PairEvaluation
    from csakd_geo.simulate import SimulatedPaths

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("file")
@click.option(
    "--sensor", metavar="NAME", help="Read FILE as a product of this sensor instead of detecting it."
)
@common.as_json
def info(file: str, sensor: str | None, as_json: bool) -> None:
    """Say what FILE is and what was understood of it.

    Size, position, bands and wavelengths, bands that a fusion will leave out and why, and what may go wrong.
    FILE may be anything that GDAL reads, or the product of a sensor as it is delivered: a folder, zip or file.
    A folder of images, or a pattern in quotes such as 'tiles/S2_*.tif', is one image.
    """
    from csakd_geo.io import open_source
    from csakd_geo.io.describe import describe

    facts = describe(open_source(file, sensor=sensor))
    if as_json:
        click.echo(json.dumps(facts, indent=2, allow_nan=False))
        return
    _print_table(str(facts["name"]), _info_rows(facts))
    for sentence in facts["warnings"]:
        warn(sentence)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def sample(folder: Path, overwrite: bool) -> None:
    """Write the sample pair and its truth into FOLDER: hsi.tif, msi.tif, truth.tif.

    Indian Pines (AVIRIS, 1992, 200 bands) at 80 m, four Sentinel-2 bands at 20 m, and the original as truth.
    """
    from csakd_geo.sample import write_sample

    with console().status("Writing the sample pair"):
        paths = write_sample(folder, overwrite=overwrite)
    _report(paths)


@click.command()
@click.argument("cube")
@click.option("-o", "--output", "folder", type=_FOLDER, required=True, help="Folder for the three files.")
@click.option(
    "--ratio",
    type=click.IntRange(min=2),
    required=True,
    help="HSI pixel size over MSI pixel size.",
)
@click.option("--msi-sensor", required=True, metavar="NAME", help="Sensor of the MSI, such as sentinel2-10m.")
@click.option("--snr-hsi", type=float, metavar="DB", help="Noise of the HSI; none by default.")
@click.option("--snr-msi", type=float, metavar="DB", help="Noise of the MSI; none by default.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def simulate(
    cube: str,
    folder: Path,
    ratio: int,
    msi_sensor: str,
    snr_hsi: float | None,
    snr_msi: float | None,
    seed: int,
    overwrite: bool,
) -> None:
    """Make a pair with known truth from the fine hyperspectral image CUBE (Wald's protocol)."""
    from csakd_geo.simulate import simulate as run

    with console().status(f"Degrading {cube}"):
        paths = run(
            cube,
            folder,
            ratio=ratio,
            msi_sensor=msi_sensor,
            snr_hsi=snr_hsi,
            snr_msi=snr_msi,
            seed=seed,
            overwrite=overwrite,
        )
    _report(paths)


@click.command()
@click.argument("fused")
@click.argument("truth", required=False)
@click.option(
    "--ratio", type=click.IntRange(min=1), help="With TRUTH: ratio of the fusion; ERGAS depends on it."
)
@click.option("--hsi", metavar="FILE", help="Without TRUTH: hyperspectral image that FUSED was made of.")
@click.option("--msi", metavar="FILE", help="Without TRUTH: multispectral image that FUSED was made of.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the scores of each band.")
def evaluate(
    fused: str, truth: str | None, ratio: int | None, hsi: str | None, msi: str | None, as_json: bool
) -> None:
    """Score the image FUSED against the image TRUTH where both have data.

    Without a truth, --hsi and --msi give the scores that need none: HQNR with its spectral and spatial parts,
    and how far FUSED, degraded and projected, agrees with the two images. FUSED must be what fuse wrote.
    """
    result: Evaluation | PairEvaluation
    if truth is not None and ratio is not None and hsi is None and msi is None:
        title, rows, result = _against_truth(fused, truth, ratio)
    elif truth is None and ratio is None and hsi is not None and msi is not None:
        title, rows, result = _against_inputs(fused, hsi, msi)
    else:
        raise click.UsageError("Give either TRUTH and --ratio, or --hsi and --msi.")
    for sentence in result.warnings:
        warn(sentence)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2, allow_nan=False))
    else:
        _print_table(title, rows)


def _against_truth(fused: str, truth: str, ratio: int) -> tuple[str, list[tuple[str, ...]], Evaluation]:
    from csakd_geo.evaluate import evaluate as run

    with console().status("Comparing"):
        result = run(fused, truth, ratio=ratio)
    scores = result.scores
    rows: list[tuple[str, ...]] = [
        ("PSNR", f"{scores.psnr:.3f} dB", "higher is better"),
        ("SAM", f"{scores.sam:.4f}°", "lower is better"),
        ("ERGAS", f"{scores.ergas:.4f}", "lower is better"),
        ("RMSE", f"{scores.rmse:.6g}", "lower is better, in the data's units"),
        ("UIQI", f"{scores.uiqi:.4f}", "1 is best"),
        ("SSIM", f"{scores.ssim:.4f}", "1 is best"),
        ("CC", f"{scores.cc:.4f}", "1 is best"),
        ("Compared", f"{scores.pixels:,} pixels", f"{len(result.bands)} bands"),
    ]
    return f"{Path(fused).name} against {Path(truth).name}", rows, result


def _against_inputs(fused: str, hsi: str, msi: str) -> tuple[str, list[tuple[str, ...]], PairEvaluation]:
    from csakd_geo.evaluate import evaluate_pair

    with console().status("Comparing"):
        result = evaluate_pair(fused, hsi, msi)
    found = result.consistency
    scores, projected = found.scores, found.msi
    rows: list[tuple[str, ...]] = [("D_lambda", f"{scores.d_lambda:.4f}", "spectral distortion, 0 is best")]
    if projected is not None:
        rows = [
            ("HQNR", f"{scores.hqnr:.4f}", "1 is best"),
            *rows,
            ("D_s", f"{scores.d_s:.4f}", "spatial distortion, 0 is best"),
            *(
                (f"  {name}", f"{value:.4f}", "")
                for name, value in zip(result.link.msi_names, scores.d_s_bands, strict=True)
            ),
        ]
    rows.append(("HSI consistency", f"{100 * found.hsi.overall:.3f} %", "degraded result less HSI"))
    rows.append(
        (
            "  over its noise",
            f"{found.over_noise:.3f}",
            "about 0.9 is best",
        )
    )
    if projected is not None:
        rows.append(("MSI consistency", f"{100 * projected.overall:.3f} %", "projected result less MSI"))
    rows.append(("Spectral angle", f"{found.angle:.4f}°", "between degraded result and HSI"))
    rows.append(("Compared", f"{found.hsi.count:,} HSI pixels", f"{len(result.link.bands)} bands"))
    return f"{Path(fused).name} against {Path(hsi).name} and {Path(msi).name}", rows, result


def _report(paths: SimulatedPaths) -> None:
    for sentence in paths.warnings:
        warn(sentence)
    for path in (paths.hsi, paths.msi, paths.truth):
        click.echo(str(path))


def _info_rows(facts: dict[str, Any]) -> Iterable[tuple[str, str]]:
    unit = facts["crs_unit"] or ""
    unit = "m" if unit in ("metre", "meter") else unit
    yield "Size", f"{facts['height']} rows x {facts['width']} columns x {facts['bands']} bands"
    yield "Stored as", f"{facts['driver']}, {facts['dtype']}"
    yield "Values", _values(facts)
    yield "CRS", facts["crs"] or "none"
    yield "Pixel", f"{facts['gsd'][0]:.8g} x {facts['gsd'][1]:.8g} {unit}".strip()
    left, bottom, right, top = facts["bounds"]
    yield "Extent", f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"
    if facts["wavelength_range"]:
        low, high = facts["wavelength_range"]
        width = f", FWHM {facts['fwhm_median']:.3g} nm (median)" if facts["fwhm_median"] else ""
        yield "Wavelengths", f"{low:.6g} to {high:.6g} nm{width}"
    else:
        yield "Wavelengths", "none"
    yield "Good bands", f"{facts['good_bands']} of {facts['bands']}"
    for why, bands in facts["bad_bands"].items():
        if bands:
            yield f"  {why}", _ranges(bands)
    yield "Valid pixels", f"{facts['valid_share']:.1%} of those sampled"


def _values(facts: dict[str, Any]) -> str:
    parts = [facts["units"] or "unknown units"]
    for key, plain in (("scale", 1.0), ("offset", 0.0)):
        value = facts[key]
        if isinstance(value, list):
            parts.append(f"{key} differs by band")
        elif value != plain:
            parts.append(f"{key} {value:g}")
    nodata = facts["nodata"]
    parts.append("no nodata value" if nodata is None else f"nodata {float(nodata):g}")
    return ", ".join(parts)


def _ranges(numbers: list[int]) -> str:
    """Numbers as text, runs of them joined: 1-3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _print_table(title: str, rows: Iterable[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.text import Text

    table: Table | None = None
    for row in rows:
        table = table or _empty_table(title, len(row))
        table.add_row(*(Text(cell) for cell in row))
    if table is not None:
        Console(highlight=False, soft_wrap=False).print(table)


def _empty_table(title: str, columns: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, style="bold"), title_justify="left", show_header=False, box=box.SIMPLE)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for _ in range(columns - 2):
        table.add_column(style="dim")
    return table
