"""What an image is, as found: for ``csakd-geo info`` and for the bands that a fusion leaves out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.io.source import Source

#: An image of at most this many pixels is looked at whole.
_WHOLE = 1 << 18
#: Side of a sampled window in pixels.
_SIDE = 64


@dataclass(frozen=True, slots=True, eq=False)
class BandHealth:
    """Bands that cannot be used, and why; each mask is ``(band,)`` bool.

    Parameters
    ----------
    flagged : array
        Marked bad in the metadata.
    empty : array
        Without a valid pixel in the sample.
    constant : array
        With one value everywhere in the sample.
    valid_share : float
        Share of sampled pixels that are valid in every other band; 0 if all bands are bad.
    """

    flagged: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    constant: NDArray[np.bool_]
    valid_share: float

    @property
    def good(self) -> NDArray[np.bool_]:
        """Bands with none of the faults."""
        return ~(self.flagged | self.empty | self.constant)


def band_health(source: Source) -> BandHealth:
    """Look for bad bands in a bounded sample of windows.

    An image of up to 2^18 pixels is read whole, in strips. A larger one is read in 5 x 5 windows of 64 x 64
    pixels spread evenly, and bands found empty or constant there get a second look in 9 x 9 others.

    Raises
    ------
    InputError
        If reading fails.
    """
    count = source.axis.size
    whole = source.height * source.width <= _WHOLE
    windows = list(_strips(source) if whole else _spread(source, 5))
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    _extend(source, windows, range(count), low, high)
    if not whole:
        suspects = [int(b) for b in np.flatnonzero(~(low < high))]
        _extend(source, _spread(source, 9), suspects, low, high)
    empty, constant = low > high, low == high
    health = BandHealth(~source.axis.good, empty, constant, 0.0)
    used = [int(b) for b in np.flatnonzero(health.good)]
    valid, total = 0, 0
    for window in windows if used else []:
        seen = np.isfinite(source.read(*window, bands=used)).all(axis=0)
        valid, total = valid + int(seen.sum()), total + seen.size
    return BandHealth(health.flagged, empty, constant, valid / total if total else 0.0)


def find_bad_bands(source: Source) -> NDArray[np.bool_]:
    """Mask ``(band,)`` of good bands: neither flagged bad, nor nodata everywhere, nor constant.

    See `band_health` for the sample it looks at, and for the reasons.
    """
    return band_health(source).good


def describe(source: Source) -> dict[str, Any]:
    """What a source is and what was understood of it, JSON-safe.

    Band numbers count from 1, lengths are in the units of the CRS, wavelengths in nm; what is unknown is
    None. ``valid_share`` and the bad bands come from the sample of `band_health`.
    """
    axis, health = source.axis, band_health(source)
    t = source.transform
    corners = [(x, y) for x in (0, source.width) for y in (0, source.height)]
    xs = [float(t.a * x + t.b * y + t.c) for x, y in corners]
    ys = [float(t.d * x + t.e * y + t.f) for x, y in corners]
    gsd = (math.hypot(t.a, t.d), math.hypot(t.b, t.e))
    known = axis.wavelength[np.isfinite(axis.wavelength)]
    widths = axis.fwhm[np.isfinite(axis.fwhm)]
    unit = None if source.crs is None else str(source.crs.units_factor[0])
    return {
        "name": source.name,
        "driver": getattr(source, "driver", "DataArray"),
        "height": source.height,
        "width": source.width,
        "bands": axis.size,
        "dtype": source.dtype,
        "crs": None if source.crs is None else str(source.crs.to_string()),
        "crs_unit": unit,
        "gsd": list(gsd),
        "bounds": [min(xs), min(ys), max(xs), max(ys)],
        "wavelength_range": [float(known.min()), float(known.max())] if known.size else None,
        "wavelengths_known": int(known.size),
        "fwhm_median": float(np.median(widths)) if widths.size else None,
        "nominal_wavelengths": axis.nominal,
        "bad_bands": {
            "flagged": _from_one(health.flagged),
            "nodata": _from_one(health.empty),
            "constant": _from_one(health.constant),
        },
        "good_bands": int(health.good.sum()),
        "nodata": source.nodata
        if source.nodata is None or math.isfinite(source.nodata)
        else str(source.nodata),
        "scale": _distinct(source.scale),
        "offset": _distinct(source.offset),
        "units": source.units or None,
        "valid_share": round(health.valid_share, 4),
        "warnings": list(_warnings(source, health, unit)),
    }


def notes_of(source: Source) -> tuple[str, ...]:
    """What a product's reader has to say of it, one sentence each."""
    return tuple(getattr(source, "notes", ()))


def _warnings(source: Source, health: BandHealth, unit: str | None) -> Iterator[str]:
    axis, t = source.axis, source.transform
    yield from notes_of(source)
    if source.crs is None:
        yield "There is no CRS: it can only be fused with an image whose transform lies in the same system."
    elif unit == "degree":
        yield (
            "The CRS is geographic, so sizes are in degrees: an HSI may stay so, since fuse warps it onto the MSI's "
            "grid; an MSI is better warped to a projected CRS first."
        )
    if (t.b, t.d) != (0.0, 0.0):
        yield "The image is rotated: its rows do not run along an axis of the CRS."
    elif t.e > 0 or t.a < 0:
        yield "The image is flipped: rows run northward or columns run westward."
    known = axis.wavelength[np.isfinite(axis.wavelength)]
    if known.size == 0:
        yield "There are no wavelengths: give a band list, or put an ENVI header beside the file."
    elif known.size < axis.size:
        yield f"{axis.size - known.size} of {axis.size} bands have no wavelength."
    if axis.nominal:
        yield "The wavelengths were assumed, not recorded."
    if known.size > 1 and np.any(np.diff(known) < 0):
        yield "The wavelengths are not in rising order, as where two detectors overlap; the order is kept."
    hidden = int((~health.good & ~health.flagged).sum())
    if hidden:
        yield f"{hidden} bands are empty or constant though nothing marks them bad; they will be left out."
    if not health.good.any():
        yield "No band is usable in the sample that was looked at."
    elif health.valid_share < 0.5:
        yield f"Only {health.valid_share:.0%} of the sampled pixels are valid in all good bands."


def _extend(
    source: Source,
    windows: Sequence[tuple[int, int, int, int]] | Iterator[tuple[int, int, int, int]],
    bands: Sequence[int],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> None:
    """Widen the range of values seen per band, in place."""
    if not bands:
        return
    chosen = list(bands)
    for window in windows:
        values = source.read(*window, bands=chosen).reshape(len(chosen), -1)
        missing = np.isnan(values)
        low[chosen] = np.minimum(low[chosen], np.where(missing, np.inf, values).min(axis=1))
        high[chosen] = np.maximum(high[chosen], np.where(missing, -np.inf, values).max(axis=1))


def _strips(source: Source) -> Iterator[tuple[int, int, int, int]]:
    rows = max(1, (1 << 14) // source.width)
    for row in range(0, source.height, rows):
        yield row, 0, min(rows, source.height - row), source.width


def _spread(source: Source, per_side: int) -> Iterator[tuple[int, int, int, int]]:
    height, width = min(_SIDE, source.height), min(_SIDE, source.width)
    for row in np.linspace(0, source.height - height, per_side + 2)[1:-1].astype(int):
        for col in np.linspace(0, source.width - width, per_side + 2)[1:-1].astype(int):
            yield int(row), int(col), height, width


def _from_one(mask: NDArray[np.bool_]) -> list[int]:
    return [int(i) + 1 for i in np.flatnonzero(mask)]


def _distinct(values: NDArray[np.float64]) -> float | list[float]:
    return float(values[0]) if np.all(values == values[0]) else [float(v) for v in values]
