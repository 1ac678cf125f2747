"""A fused file against the truth: the same place, the same bands, scored part by part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import GridError, InputError, SpectralError
from csakd_geo.grid import pixel_mapping
from csakd_geo.io import Source, open_source
from csakd_geo.io.describe import band_health
from csakd_geo.metrics import UIQI_BLOCK, Scores, score_bands
from csakd_geo.tiling import Window

FloatArray = NDArray[np.floating]

#: Offset between the two pixel lattices that still counts as none, in pixels.
_LATTICE = 0.05
#: Distance in nm at which two wavelengths still mean one band (headers round to nm).
_SAME_BAND = 1.0
#: Values per part and image.
_PART_VALUES = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How close a fused cube is to the truth.

    Parameters
    ----------
    scores : Scores
        Over all compared bands.
    ratio : int
    bands : tuple of int
        Zero-based bands of the truth that were compared.
    wavelength : (band,) array
        Their centres in nm as the truth has them; NaN where unknown.
    per_band : dict of (band,) arrays
        ``psnr`` in dB, ``rmse`` in data units and ``cc``; infinite or NaN where a band leaves them undefined.
    warnings : tuple of str
        What was left out or assumed.
    """

    scores: Scores
    ratio: int
    bands: tuple[int, ...]
    wavelength: NDArray[np.float64]
    per_band: dict[str, FloatArray]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form; bands count from 1, values that are not finite are None."""
        return {
            "scores": {name: nullable(value) for name, value in self.scores.to_dict().items()},
            "ratio": self.ratio,
            "bands": [band + 1 for band in self.bands],
            "wavelength": [nullable(v) for v in self.wavelength.tolist()],
            "per_band": {
                name: [nullable(v) for v in values.tolist()] for name, values in self.per_band.items()
            },
            "warnings": list(self.warnings),
        }


def evaluate(fused: Source | Path | str, truth: Source | Path | str, *, ratio: int) -> Evaluation:
    """Score a fused image against the truth, in physical units, where both have data.

    The truth is read twice in parts of a few million values, so size does not matter. They may cover different areas as long as
    their pixels coincide. Bands that the truth has no use of (nodata, constant, flagged bad), or that the
    fused image marks bad or left empty, are left out.

    Parameters
    ----------
    fused, truth : Source, Path or str
        The fused image may hold a subset of the truth's bands; they are then matched by wavelength.
    ratio : int
        Of the fusion, for ERGAS.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If a file cannot be read, the ratio is below 1, or no pixel is valid in both.
    GridError
        If CRS, pixel size or pixel lattice differ, or nothing overlaps.
    SpectralError
        If the bands cannot be matched or none is good in both.
    """
    if ratio < 1:
        raise InputError(f"The ratio is {ratio}; it must be 1 or more.")
    a, b = (open_source(image) if isinstance(image, (str, Path)) else image for image in (fused, truth))
    warnings: list[str] = []
    common, top, left = _common_window(a, b, warnings)
    pairs = match_bands(a, b)
    health_a, health_b = band_health(a), band_health(b)
    usable = ~(health_a.flagged | health_a.empty)[pairs[0]] & health_b.good[pairs[1]]
    if not usable.any():
        raise SpectralError(
            f"No band is good in both '{a.name}' and '{b.name}', so there is nothing to score; look at both "
            "with 'csakd-geo info'."
        )
    if not usable.all():
        unused = int((~usable).sum())
        warnings.append(
            f"{unused} of {usable.size} bands are bad, constant or nodata in one image and left out."
        )
    if a.units and b.units and a.units != b.units:
        warnings.append(
            f"'{a.name}' holds {a.units} but '{b.name}' {b.units}; they are compared as they are."
        )
    bands_a, bands_b = pairs[0][usable], pairs[1][usable]

    low, high = np.full(bands_b.size, np.inf), np.full(bands_b.size, -np.inf)
    for part in _parts(common, bands_b.size):
        values = _read(b, bands_b, part).reshape(bands_b.size, -1)
        missing = np.isnan(values)
        low = np.minimum(low, np.where(missing, np.inf, values).min(1))
        high = np.maximum(high, np.where(missing, -np.inf, values).max(1))

    def blocks() -> Iterator[tuple[FloatArray, FloatArray]]:
        for part in _parts(common, bands_b.size):
            ours = _read(a, bands_a, Window(part.row - top, part.col - left, part.height, part.width))
            yield ours, _read(b, bands_b, part)

    scores, found = score_bands(blocks(), ratio=ratio, data_range=np.where(high > low, high - low, 0.0))
    return Evaluation(
        scores=scores,
        ratio=ratio,
        bands=tuple(int(band) for band in bands_b),
        wavelength=b.axis.wavelength[bands_b],
        per_band={"psnr": found.psnr, "rmse": found.rmse, "cc": found.cc},
        warnings=tuple(warnings),
    )


def match_bands(fused: Source, truth: Source) -> NDArray[np.intp]:
    """Bands that belong together.

    Parameters
    ----------
    fused, truth : Source
        As many bands in both are taken in order; fewer in the fused image are found by wavelength.

    Returns
    -------
    (2, n) array of int
        Zero-based bands of the fused image, and of the truth.

    Raises
    ------
    SpectralError
        If wavelengths are missing or disagree by more than 1 nm.
    """
    ours, theirs = fused.axis, truth.axis
    own = np.arange(ours.size)
    if ours.size == theirs.size:
        apart = np.abs(ours.wavelength - theirs.wavelength)
        if np.nanmax(apart, initial=0.0) > _SAME_BAND:
            worst = int(np.nanargmax(apart))
            raise SpectralError(
                f"Band {worst + 1} is at {ours.wavelength[worst]:.1f} nm in '{fused.name}' but at "
                f"{theirs.wavelength[worst]:.1f} nm in '{truth.name}'; the bands must be the same."
            )
        return np.stack([own, own])
    known = np.flatnonzero(np.isfinite(theirs.wavelength))
    if known.size == 0 or not np.isfinite(ours.wavelength).all():
        raise SpectralError(
            f"'{fused.name}' has {ours.size} bands but '{truth.name}' {theirs.size}, and without wavelengths in "
            "both they cannot be matched; give files with wavelengths or with the same bands."
        )
    distance = np.abs(ours.wavelength[:, None] - theirs.wavelength[known])
    nearest = distance.argmin(1)
    far = np.flatnonzero(distance[own, nearest] > _SAME_BAND)
    if far.size or np.unique(nearest).size < nearest.size:
        what = (
            f"band {far[0] + 1} of '{fused.name}' ({ours.wavelength[far[0]]:.1f} nm) has no counterpart in"
            if far.size
            else f"two bands of '{fused.name}' have the same counterpart in"
        )
        raise SpectralError(
            f"The bands do not match: {what} '{truth.name}'; compare images of the same bands."
        )
    return np.stack([own, known[nearest]])


def _common_window(fused: Source, truth: Source, warnings: list[str]) -> tuple[Window, int, int]:
    """The common part in pixels of the truth, and there the fused image's first row and column."""
    if fused.crs and truth.crs and fused.crs != truth.crs:
        raise GridError(
            f"'{fused.name}' is in {_crs(fused)} but '{truth.name}' in {_crs(truth)}; warp one of them first "
            "(gdalwarp)."
        )
    if bool(fused.crs) != bool(truth.crs):
        one = fused if truth.crs else truth
        warnings.append(f"'{one.name}' has no CRS; it is taken to be that of the other image.")
    to_truth = pixel_mapping(fused, truth)
    x, y = to_truth(
        np.array([0.0, fused.width, 0.0, fused.width]), np.array([0.0, 0.0, fused.height, fused.height])
    )
    drift = max(
        np.abs(x - x[0] - np.array([0, fused.width, 0, fused.width])).max(),
        np.abs(y - y[0] - np.array([0, 0, fused.height, fused.height])).max(),
    )
    if drift > _LATTICE:
        raise GridError(
            f"'{fused.name}' has pixels of {_gsd(fused)} but '{truth.name}' of {_gsd(truth)}; they must have the "
            "same size and direction, so fuse onto the truth's grid or resample one of them."
        )
    left, top = round(float(x[0])), round(float(y[0]))
    off = max(abs(float(x[0]) - left), abs(float(y[0]) - top))
    if off > _LATTICE:
        raise GridError(
            f"The pixels of '{fused.name}' lie {off:.2f} pixel beside those of '{truth.name}', which would "
            "change every score; fuse onto the truth's grid or resample one of them."
        )
    own = Window(top, left, fused.height, fused.width)
    common = own.intersect(Window(0, 0, truth.height, truth.width))
    if common.empty:
        raise GridError(
            f"'{fused.name}' and '{truth.name}' do not overlap: the first begins {left} columns and {top} rows "
            "from the second; check that they show the same place."
        )
    share = common.height * common.width / (truth.height * truth.width)
    if share < 1:
        warnings.append(f"'{fused.name}' covers {share:.1%} of '{truth.name}'; only that part is scored.")
    return common, top, left


def _parts(whole: Window, bands: int) -> Iterator[Window]:
    """Strips of a window, or pieces of strips where it is very wide; sides are multiples of UIQI's block."""
    width = min(whole.width, max(UIQI_BLOCK, _PART_VALUES // (bands * UIQI_BLOCK)))
    height = _PART_VALUES // (bands * width)
    for row, rows in _cuts(whole.height, height):
        for col, cols in _cuts(whole.width, width):
            yield Window(whole.row + row, whole.col + col, rows, cols)


def _cuts(length: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and length of pieces; a rest too short for a block of UIQI joins the piece before it."""
    step = length if size >= length else UIQI_BLOCK * max(1, size // UIQI_BLOCK)
    count = max(1, (length + step - UIQI_BLOCK) // step)
    for k in range(count):
        yield k * step, step if k < count - 1 else length - k * step


def _read(source: Source, bands: NDArray[np.intp], part: Window) -> FloatArray:
    return source.read(part.row, part.col, part.height, part.width, bands=bands.tolist())


def nullable(value: float) -> float | None:
    """A number that JSON has; None for the others."""
    return value if math.isfinite(value) else None


def _crs(source: Source) -> str:
    return str(source.crs.to_string()) if source.crs else "no CRS"


def _gsd(source: Source) -> str:
    t = source.transform
    return f"{math.hypot(t.a, t.d):.6g} x {math.hypot(t.b, t.e):.6g}"
