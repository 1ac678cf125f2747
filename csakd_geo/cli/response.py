"""``csakd-geo response``: what links the two sensors, found from the pair and held against nominal tables."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from csakd_geo.cli import common, console, warn
from csakd_geo.errors import OutputError, SpectralError
from csakd_geo.io.failure import plain_errors
from csakd_geo.io.placing import write_whole

if TYPE_CHECKING:
    from csakd_geo.align import Alignment
    from csakd_geo.spectral import SpectralAxis

FloatArray = NDArray[np.floating]

_MIN_EXPLAINED = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Linked:
    """A pair's response beside the nominal one.

    Parameters
    ----------
    alignment : Alignment
    nominal : ndarray (msi_band, hsi_band)
        Rows sum to 1; NaN where none is known.
    source : str
        Where the nominal responses come from; empty where none is known.
    """

    alignment: Alignment
    nominal: FloatArray
    source: str

    @property
    def signal(self) -> FloatArray:
        """Mean of each HSI band: a response to a dark band is hardly seen, and hardly found."""
        return np.asarray(np.abs(self.alignment.pair.hsi_spectra().mean(1)))

    @property
    def hsi(self) -> SpectralAxis:
        """Bands of the HSI that were used."""
        return self.alignment.pair.hsi_axis

    @property
    def msi(self) -> SpectralAxis:
        """Bands of the MSI that were used."""
        return self.alignment.pair.msi_axis


@click.command()
@common.hsi
@common.msi
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for response.png, response.json and response.csv.",
)
@click.option(
    "--msi-sensor",
    metavar="NAME",
    help="Sensor whose nominal responses are shown; by default the MSI's own bands.",
)
@common.wavelengths
@common.ratio
@common.as_json
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def response(
    hsi: str,
    msi: str,
    folder: Path | None,
    msi_sensor: str | None,
    wavelengths: Path | None,
    ratio: int | None,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Estimate what links the images HSI and MSI: responses, gains, PSF, shift and noise.

    Drawn and listed against the nominal responses of the MSI's sensor, where these are known. Either image
    may be several files, given as a folder or as a pattern in quotes such as 'tiles/S2_*.tif'.
    """
    paths = _targets(folder, overwrite)
    with console().status("Estimating"):
        linked, warnings = _estimate(hsi, msi, msi_sensor, wavelengths, ratio)
    for sentence in warnings:
        warn(sentence)
    facts = response_facts(linked)
    if paths is not None:
        from csakd_geo.cli.response_plot import draw_response

        drawn = draw_response(linked)
        contents = (drawn, json.dumps(facts, indent=2, allow_nan=False).encode(), _table(linked).encode())
        for path, content in zip(paths, contents, strict=True):
            write_whole(path, content)
    if as_json:
        click.echo(json.dumps(facts, indent=2, allow_nan=False))
        return
    _print(facts)
    for path in paths or ():
        click.echo(str(path))


def _targets(folder: Path | None, overwrite: bool) -> tuple[Path, Path, Path] | None:
    if folder is None:
        return None
    paths = (folder / "response.png", folder / "response.json", folder / "response.csv")
    there = [path.name for path in paths if path.exists()]
    if there and not overwrite:
        raise OutputError(
            f"'{folder}' already holds {', '.join(there)}; choose another folder or give --overwrite."
        )
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return paths


def _estimate(
    hsi: str, msi: str, sensor: str | None, wavelengths: Path | None, ratio: int | None
) -> tuple[Linked, list[str]]:
    from csakd_geo.align import find_shift
    from csakd_geo.engine.scene import open_scene
    from csakd_geo.grid import lay_grid
    from csakd_geo.io import open_source
    from csakd_geo.io.axes import read_wavelengths
    from csakd_geo.quality import disagreement, set_aside
    from csakd_geo.response import estimate_response
    from csakd_geo.threads import one_blas_thread

    given = None if wavelengths is None else read_wavelengths(wavelengths)
    source, other = open_source(hsi, axis=given), open_source(msi)
    axis, origin = _nominal_bands(other.axis, other.name, sensor)
    scene = open_scene(source, other, lay_grid(source, other, ratio=ratio))
    warnings = scene.outliers()
    with one_blas_thread():
        found = find_shift(scene)
        grid = found.scene.grid
        again = partial(
            estimate_response, phase=found.response.confident, centre=(grid.phase_y, grid.phase_x)
        )
        pair, response, aside = set_aside(found.pair, found.response, again)
    found = replace(found, pair=pair, response=response)
    if aside > 0:
        warnings.append(f"{disagreement(aside)}; the response is that of the rest.")
    if found.response.explained < _MIN_EXPLAINED:
        warnings.append(
            f"The MSI explains only {found.response.explained:.0%} of what varies in the HSI, so little here can "
            "be believed; check that both show the same place and season."
        )
    if not found.reach:
        warnings.append("The common area is too small to search for a shift; the files' positions are taken.")
    nominal, missing = _nominal(axis.take(scene.msi_bands), found.pair.hsi_axis)
    if not np.isfinite(nominal).any():
        origin = ""
    elif missing:
        warnings.append(
            f"The HSI's good bands do not cover {', '.join(missing)}; no nominal response is shown."
        )
    return Linked(found, nominal, origin), warnings


def _nominal_bands(axis: SpectralAxis, name: str, sensor: str | None) -> tuple[SpectralAxis, str]:
    """Bands whose nominal responses are shown, and where they come from."""
    from csakd_geo.sensors import get_sensor

    if sensor is None:
        return axis, f"wavelengths and widths in {name}"
    known = get_sensor(sensor)
    if known.axis.size != axis.size:
        raise SpectralError(
            f"'{name}' has {axis.size} bands but {known.title} has {known.axis.size} "
            f"({', '.join(known.axis.names)}); name the sensor whose bands these are."
        )
    return known.axis, f"{known.title} ({known.source})"


def _nominal(bands: SpectralAxis, of: SpectralAxis) -> tuple[FloatArray, list[str]]:
    """Nominal responses, NaN where there is none, and the names of bands that the HSI does not cover."""
    from csakd_geo.spectral import gaussian_response

    widths = bands.filled_fwhm()
    rows, missing = np.full((bands.size, of.size), np.nan), []
    for k in range(bands.size):
        if not (math.isfinite(bands.wavelength[k]) and widths[k] > 0 and of.has_wavelengths):
            continue
        try:
            rows[k] = gaussian_response(_one(bands, k, widths[k]), of)[0]
        except SpectralError:  # outside the HSI's good bands
            missing.append(bands.names[k])
    return rows, missing


def _one(bands: SpectralAxis, k: int, width: float) -> SpectralAxis:
    from csakd_geo.spectral import SpectralAxis

    return SpectralAxis.build([bands.wavelength[k]], fwhm=[width], names=[bands.names[k]])


def response_facts(linked: Linked) -> dict[str, Any]:
    """Everything that was found, in plain values; what is not known is None.

    Returns
    -------
    dict
        Lengths in HSI pixels unless the key says otherwise; wavelengths in nm. ``centre`` and ``overlap``
        (1 where both are the same) are of the responses times the HSI's mean signal.
    """
    found, psf = linked.alignment, linked.alignment.response.psf
    got, grid, signal = found.response, found.scene.grid, linked.signal
    bands = []
    for k, name in enumerate(linked.msi.names):
        seen = _shares(got.srf[k] * signal)
        nominal = linked.nominal[k] if np.isfinite(linked.nominal[k]).all() else None
        bands.append(
            {
                "name": name,
                "centre": _centre(seen, linked.hsi),
                "nominal_centre": None if nominal is None else _centre(_shares(nominal * signal), linked.hsi),
                "overlap": None
                if nominal is None
                else float(np.minimum(seen, _shares(nominal * signal)).sum()),
                "gain": float(got.gain[k]),
                "offset": float(got.offset[k]),
                "misfit": float(got.misfit[k]),
                "srf": [float(v) for v in got.srf[k]],
                "nominal_srf": None if nominal is None else [float(v) for v in nominal],
            }
        )
    return {
        "hsi": found.scene.hsi.name,
        "msi": found.scene.msi.name,
        "ratio": grid.ratio,
        "explained": float(got.explained),
        "shift_found": bool(found.shift != (0.0, 0.0)),
        "shift_crs_units": list(found.shift),
        "shift_pixels_xy": list(found.pixels),
        "psf_fwhm": psf.fwhm / psf.ratio,
        "psf_phase_msi_pixels_yx": [psf.dy, psf.dx],
        "nominal": linked.source or None,
        "msi_bands": bands,
        "hsi_wavelength": [float(v) if math.isfinite(v) else None for v in linked.hsi.wavelength],
        "hsi_noise": [float(v) for v in got.noise],
    }


def _shares(weights: FloatArray) -> FloatArray:
    return np.asarray(weights / max(float(weights.sum()), 1e-30))


def _centre(shares: FloatArray, axis: SpectralAxis) -> float | None:
    """Mean wavelength in nm of a response."""
    known = axis.has_wavelengths and shares.any()
    return float(shares @ axis.wavelength) if known else None


def _table(linked: Linked) -> str:
    """CSV with a row per HSI band: wavelength, noise, responses found and nominal."""
    got, buffer = linked.alignment.response, io.StringIO()
    names = linked.msi.names
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["band", "wavelength_nm", "noise", *(f"{n} found" for n in names), *(f"{n} nominal" for n in names)]
    )
    for b, name in enumerate(linked.hsi.names):
        numbers = [linked.hsi.wavelength[b], got.noise[b], *got.srf[:, b], *linked.nominal[:, b]]
        writer.writerow([name, *("" if not math.isfinite(v) else f"{v:.6g}" for v in numbers)])
    return buffer.getvalue()


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    x, y = facts["shift_crs_units"]
    size = math.hypot(*facts["shift_pixels_xy"])
    click.echo(f"Shift: x {x:+.4g}, y {y:+.4g} in units of the MSI's CRS ({size:.2f} HSI pixels)")
    click.echo(f"PSF: FWHM {facts['psf_fwhm']:.2f} HSI pixels")
    click.echo(f"Explained: {facts['explained']:.1%} of what varies in the HSI")
    table = Table(box=None, pad_edge=False)
    for title in ("MSI band", "centre nm", "nominal", "overlap", "gain", "offset", "misfit"):
        table.add_column(title, justify="left" if title == "MSI band" else "right")
    for band in facts["msi_bands"]:
        cells = [_number(band[key], form) for key, form in _CELLS]
        table.add_row(band["name"], *cells)
    Console(highlight=False).print(table)


_CELLS = (
    ("centre", ".0f"),
    ("nominal_centre", ".0f"),
    ("overlap", ".2f"),
    ("gain", ".4g"),
    ("offset", ".4g"),
    ("misfit", ".3g"),
)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
