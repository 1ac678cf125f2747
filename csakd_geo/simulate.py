"""A pair with a known truth, made from one fine hyperspectral image (Wald's protocol)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from csakd_geo._version import __version__
from csakd_geo.degrade import PSF, add_noise, apply_srf, degrade
from csakd_geo.errors import GridError, InputError, OutputError, SpectralError
from csakd_geo.io import Source, open_source
from csakd_geo.io.cog import RasterSpec, write_cog
from csakd_geo.io.describe import find_bad_bands
from csakd_geo.io.encoding import Encoding, choose_encoding
from csakd_geo.io.failure import plain_errors
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis, gaussian_response

FloatArray = NDArray[np.floating]

#: Values held at a time while the cube is degraded (256 MiB as float32).
_GROUP_VALUES = 1 << 26
#: Values per band that the 99.9th percentile is taken from.
_SAMPLE = 1 << 16
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class SimulatedPaths:
    """Files of a simulated pair, and sentences on what was left out or clipped."""

    hsi: Path
    msi: Path
    truth: Path
    warnings: tuple[str, ...] = ()


def simulate(
    cube: Source | Path | str,
    folder: Path,
    *,
    ratio: int,
    msi_sensor: str,
    snr_hsi: float | None = None,
    snr_msi: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    tags: Mapping[str, str] | None = None,
) -> SimulatedPaths:
    """Degrade a hyperspectral image to a pair whose fusion is known (Wald et al. 1997).

    The cube, cropped at its right and lower edge to multiples of `ratio`, is the truth. The HSI is the truth
    blurred by the nominal PSF and decimated; the MSI is the truth seen through the Gaussian responses of
    `msi_sensor`. All three are written as COGs with wavelengths and georeference: integers where the cube
    holds integers, else float32. Noise is that of `csakd_geo.degrade.observe`, with the same generator.

    Bad bands (see `csakd_geo.io.describe.find_bad_bands`) become nodata, flagged bad. Where any good band has
    no data, the MSI has none, nor has any HSI pixel whose PSF touches that place.

    Memory: about 1 GiB, plus six times the HSI and the MSI as float32 (noise is drawn in float64). The truth
    is read in groups of bands and copied in windows, so it may be larger than memory.

    Parameters
    ----------
    cube : Source, Path or str
        Fine hyperspectral image with wavelengths.
    folder : Path
        Gets ``hsi.tif``, ``msi.tif`` and ``truth.tif``; made if missing.
    ratio : int
        HSI pixel size over MSI pixel size, 2 or more.
    msi_sensor : str
        Name known to `csakd_geo.sensors.get_sensor`; bands outside the cube's range are left out.
    snr_hsi, snr_msi : float, optional
        Signal to noise in dB, per band; no noise by default.
    seed : int
    overwrite : bool
        Whether files that exist are replaced.
    tags : mapping of str, optional
        More tags for all three files.

    Returns
    -------
    SimulatedPaths

    Raises
    ------
    InputError, GridError
        If the cube cannot be read, the ratio is below 2 or the cube is smaller than one HSI pixel.
    SpectralError
        If the sensor is unknown, the cube has no wavelengths, or no band of the sensor lies within it.
    OutputError
        If a file exists already or cannot be written.
    """
    source = open_source(cube) if isinstance(cube, (str, Path)) else cube
    height, width = _cropped(source, ratio)
    for name, snr in (("HSI", snr_hsi), ("MSI", snr_msi)):
        if snr is not None and not math.isfinite(snr):
            raise InputError(f"The {name}'s signal to noise is {snr}; give dB, or leave it out for no noise.")
    axis = source.axis.with_good(find_bad_bands(source))
    msi_axis, srf, warnings = sensor_responses(msi_sensor, axis, source.name)
    paths = SimulatedPaths(*_targets(Path(folder), overwrite))

    psf = PSF.nominal(ratio)
    hsi, msi, p999 = _observe(source, axis, srf, psf, height, width)
    rng = np.random.default_rng(seed)
    hsi_noisy, msi_noisy = add_noise(hsi.values, snr_hsi, rng), add_noise(msi.values, snr_msi, rng)
    hsi_noisy[:, hsi.masked] = np.nan
    msi_noisy[:, msi.masked] = np.nan

    kind: Literal["int16", "float32"] = "int16" if source.integer else "float32"
    encoding = choose_encoding(kind, source=source, p999=p999)
    whole = len(encoding.scale) == 1 and len(encoding.offset) == 1  # else it fits the cube's own bands only
    facts = {
        "PROTOCOL": "Wald et al. 1997: HSI and MSI are simulated from the truth",
        "SOURCE": source.name,
        "RATIO": str(ratio),
        "PSF": f"Gaussian, FWHM {psf.fwhm:g} pixels of the truth, centred on the HSI pixel",
        "MSI_SENSOR": msi_sensor,
        "MSI_RESPONSE": "Gaussians of nominal centre and FWHM",
        "SNR_HSI_DB": "none" if snr_hsi is None else f"{snr_hsi:g}",
        "SNR_MSI_DB": "none" if snr_msi is None else f"{snr_msi:g}",
        "SEED": str(seed),
        "SOFTWARE": f"csakd-geo {__version__}",
        **(tags or {}),
    }

    def write(path: Path, role: str, bands: SpectralAxis, code: Encoding, blocks: _Blocks) -> None:
        r = ratio if role == "hsi" else 1
        spec = RasterSpec(
            height=height // r,
            width=width // r,
            transform=source.transform * Affine.scale(r),
            crs=source.crs,
            axis=bands,
            encoding=code,
            units=source.units,
            tags={**facts, "ROLE": role},
        )
        clipped = 0

        def encoded() -> Iterator[tuple[int, int, NDArray[Any]]]:
            nonlocal clipped
            for row, col, values in blocks:
                stored, lost = code.encode(values)
                clipped += lost
                yield row, col, stored

        write_cog(path, spec, encoded(), workdir=path.parent)
        if clipped:
            warnings.append(f"{clipped} values of {path.name} did not fit {code.dtype} and were clipped.")

    spread = np.full((axis.size, *hsi_noisy.shape[1:]), np.nan, np.float32)
    spread[axis.good] = hsi_noisy
    write(paths.hsi, "hsi", axis, encoding, iter([(0, 0, spread)]))
    msi_code = encoding if whole else Encoding("float32")
    write(paths.msi, "msi", msi_axis, msi_code, iter([(0, 0, msi_noisy)]))
    write(paths.truth, "truth", axis, encoding, _windows(source, axis, height, width))
    return SimulatedPaths(paths.hsi, paths.msi, paths.truth, tuple(warnings))


_Blocks = Iterator[tuple[int, int, FloatArray]]


@dataclass(frozen=True, slots=True, eq=False)
class _Observed:
    """What a sensor sees without noise ``(band, y, x)``, and where it must not be used ``(y, x)``."""

    values: FloatArray
    masked: NDArray[np.bool_]


def _cropped(source: Source, ratio: int) -> tuple[int, int]:
    if ratio < 2:
        raise InputError(f"The ratio is {ratio}; it must be a whole number of 2 or more.")
    height, width = source.height // ratio * ratio, source.width // ratio * ratio
    if not (height and width):
        raise GridError(
            f"'{source.name}' has {source.height} x {source.width} pixels, less than one HSI pixel at ratio "
            f"{ratio}; choose a smaller ratio."
        )
    return height, width


def sensor_responses(
    name: str, axis: SpectralAxis, cube: str
) -> tuple[SpectralAxis, NDArray[np.float64], list[str]]:
    """Those bands of a sensor that a cube covers, their responses and a sentence on the others.

    Parameters
    ----------
    name : str
        Of the sensor.
    axis : SpectralAxis
        The cube's; bad bands cover nothing.
    cube : str
        Name of the cube, for messages.

    Returns
    -------
    bands : SpectralAxis
    srf : (msi_band, band) array
    warnings : list of str

    Raises
    ------
    SpectralError
        The cube has no wavelengths, or covers no band.
    """
    sensor = get_sensor(name)
    if not np.isfinite(axis.wavelength[axis.good]).any():
        raise SpectralError(
            f"'{cube}' records no wavelengths for its good bands, so the bands of {sensor.name} cannot be "
            "simulated; put an ENVI header beside it or write wavelength tags."
        )
    kept: list[int] = []
    rows: list[NDArray[np.float64]] = []
    for band in range(sensor.axis.size):
        try:
            rows.append(gaussian_response(sensor.axis.take(band), axis)[0])
        except SpectralError:  # outside the good bands; named below
            continue
        kept.append(band)
    known = axis.wavelength[axis.good & np.isfinite(axis.wavelength)]
    span = f"{known.min():.0f} to {known.max():.0f} nm"
    if not kept:
        raise SpectralError(
            f"No band of {sensor.name} lies within the good bands of '{cube}' ({span}); choose another sensor."
        )
    left = [sensor.axis.names[b] for b in range(sensor.axis.size) if b not in kept]
    warnings = []
    if left:
        warnings.append(
            f"{', '.join(left)} of {sensor.name} {'lies' if len(left) == 1 else 'lie'} outside the good bands "
            f"of '{cube}' ({span}) and {'was' if len(left) == 1 else 'were'} left out."
        )
    return sensor.axis.take(kept), np.stack(rows), warnings


def _targets(folder: Path, overwrite: bool) -> tuple[Path, Path, Path]:
    paths = (folder / "hsi.tif", folder / "msi.tif", folder / "truth.tif")
    there = [path.name for path in paths if path.exists()]
    if there and not overwrite:
        raise OutputError(
            f"'{folder}' already holds {', '.join(there)}; choose another folder or allow it to overwrite."
        )
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return paths


def _observe(
    source: Source, axis: SpectralAxis, srf: NDArray[np.float64], psf: PSF, height: int, width: int
) -> tuple[_Observed, _Observed, float]:
    """HSI (good bands) and MSI without noise, and the 99.9th percentile of the truth, in band groups."""
    good = np.flatnonzero(axis.good)
    r = psf.ratio
    hsi = np.empty((good.size, height // r, width // r), np.float32)
    msi = np.zeros((len(srf), height, width), np.float32)
    missing = np.zeros((height, width), bool)
    sample: list[FloatArray] = []
    step = math.isqrt(max(1, height * width // _SAMPLE))
    size = max(1, _GROUP_VALUES // (height * width))
    for start in range(0, good.size, size):
        bands = good[start : start + size]
        values = source.read(0, 0, height, width, bands=bands.tolist())
        sample.append(values[:, ::step, ::step].ravel())
        for plane in values:
            empty = ~np.isfinite(plane)
            if empty.any():
                missing |= empty
                plane[empty] = 0 if empty.all() else np.median(plane[~empty])
        hsi[start : start + size] = degrade(values, psf)
        msi += apply_srf(values, srf[:, bands])
    if missing.all():
        raise InputError(f"'{source.name}' has no pixel with data in all good bands, so there is no truth.")
    touched = degrade(missing[None].astype(np.float32), psf)[0] > 0
    seen = np.concatenate(sample)
    p999 = float(np.percentile(seen[np.isfinite(seen)], 99.9))
    return _Observed(hsi, touched), _Observed(msi, missing), p999


def _windows(source: Source, axis: SpectralAxis, height: int, width: int) -> _Blocks:
    for row in range(0, height, _BLOCK):
        for col in range(0, width, _BLOCK):
            values = source.read(row, col, min(_BLOCK, height - row), min(_BLOCK, width - col))
            values[~axis.good] = np.nan
            yield row, col, values
