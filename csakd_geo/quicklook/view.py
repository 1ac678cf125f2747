"""What a quicklook shows of an image: its usable bands, a composite of three, on the fused image's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import InputError
from csakd_geo.evaluate import match_bands
from csakd_geo.grid import pixel_mapping
from csakd_geo.io import Source
from csakd_geo.io.describe import find_bad_bands

FloatArray = NDArray[np.floating]
Extent = tuple[float, float, float, float]

#: Pixels per side that an image is drawn with at most.
SIDE = 1000
#: Values read at a time.
_CHUNK_VALUES = 1 << 23
#: Wavelengths in nm of red, green and blue, and what the composite is called; the first that fits is taken.
TRUE_COLOUR = (((650.0, 550.0, 475.0), "true colour"),)
FALSE_COLOUR = (((1650.0, 835.0, 655.0), "SWIR, NIR, red"), ((835.0, 655.0, 555.0), "NIR, red, green"))
#: Distance in nm at which a band may stand for a colour.
_REACH = 45.0


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """An image with its usable bands.

    Parameters
    ----------
    source : Source
    good : (n,) array of int
        Zero-based, in rising wavelength.
    """

    source: Source
    good: NDArray[np.intp]

    @classmethod
    def of(cls, source: Source) -> Bands:
        """Look at a sample of an image; an InputError says that no band of it is usable."""
        good = np.flatnonzero(find_bad_bands(source))
        if good.size == 0:
            raise InputError(f"'{source.name}' has no usable band to draw; look at it with 'csakd-geo info'.")
        return cls(source, good[np.argsort(source.axis.wavelength[good], kind="stable")])

    @property
    def in_nm(self) -> bool:
        """Whether every usable band has a wavelength."""
        return bool(np.isfinite(self.source.axis.wavelength[self.good]).all())

    def composite(
        self,
        wanted: Sequence[tuple[tuple[float, ...], str]],
        *,
        places: tuple[float, ...] = (0.75, 0.5, 0.25),
    ) -> tuple[list[int], str]:
        """Bands for red, green and blue (one for grey, if there are fewer than three), and their caption.

        Where no composite of `wanted` fits, bands at these `places` (0 first, 1 last) are taken.
        """
        axis = self.source.axis
        if self.good.size < 3:
            return [int(self.good[0])], f"grey: {axis.names[self.good[0]]}"
        for targets, label in wanted:
            distance = np.abs(axis.wavelength[self.good][None] - np.array(targets)[:, None])
            distance = np.where(np.isnan(distance), np.inf, distance)
            if bool((distance.min(1) <= _REACH).all()):
                found = [int(self.good[i]) for i in distance.argmin(1)]
                return found, f"{label}: {', '.join(f'{axis.wavelength[b]:.0f}' for b in found)} nm"
        if self.good.size == 3 and not self.in_nm:
            places = (0.0, 0.5, 1.0)  # a camera's bands come as red, green, blue
        found = [int(self.good[round(p * (self.good.size - 1))]) for p in places]
        return found, "bands " + ", ".join(str(b + 1) for b in found)


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """Pixels of one image on which others are shown.

    Parameters
    ----------
    source : Source
    step : int
        Every how many pixels.
    rows, cols : array
        Pixel centres, in pixels of `source`.
    """

    source: Source
    step: int
    rows: FloatArray
    cols: FloatArray

    @classmethod
    def of(cls, source: Source, *, side: int = SIDE) -> Lattice:
        """Every n-th pixel, so that neither side has more than `side`."""
        step = -(-max(source.height, source.width) // side)
        rows, cols = (np.arange(step // 2, n, step) + 0.5 for n in (source.height, source.width))
        return cls(source, step, rows, cols)

    def pick(self, other: Source, bands: Sequence[int], chunk: slice = slice(None)) -> FloatArray:
        """Nearest pixels ``(band, y, x)`` of another image, NaN outside it; `chunk` picks lattice rows."""
        x, y = np.meshgrid(self.cols, self.rows[chunk])
        u, v = pixel_mapping(self.source, other)(x, y)
        picked = np.full((len(bands), *x.shape), np.nan, np.float32)
        rows = self.chunk(other, len(bands))
        for top in range(0, len(x), rows):
            part = np.s_[top : top + rows]
            col, row = np.floor(u[part]), np.floor(v[part])
            inside = (col >= 0) & (col < other.width) & (row >= 0) & (row < other.height)
            if not inside.any():
                continue
            j, i = col[inside].astype(int), row[inside].astype(int)
            left, first = int(j.min()), int(i.min())
            window = other.read(
                first, left, int(i.max()) - first + 1, int(j.max()) - left + 1, bands=list(bands)
            )
            picked[:, part][:, inside] = window[:, i - first, j - left]
        return picked

    def chunk(self, other: Source, bands: int) -> int:
        """Lattice rows of another image that may be read at a time."""
        return max(1, _CHUNK_VALUES // (bands * other.width * self.step))

    def extent(self) -> tuple[Extent, tuple[str, str]]:
        """Left, right, bottom and top of the shown area, and what the two axes are."""
        t, crs = self.source.transform, self.source.crs
        width, height = self.cols.size * self.step, self.rows.size * self.step
        if t.b or t.d:
            return (0.0, float(width), float(height), 0.0), ("Column", "Row")
        left, right, bottom, top = t.c, t.c + t.a * width, t.f + t.e * height, t.f
        if crs is None:
            return (left, right, bottom, top), ("x", "y")
        if crs.is_geographic:
            return (left, right, bottom, top), ("Longitude (°)", "Latitude (°)")
        unit = crs.units_factor[0]
        if is_metre(unit) and max(abs(right - left), abs(top - bottom)) >= 2000:
            return (left / 1e3, right / 1e3, bottom / 1e3, top / 1e3), ("Easting (km)", "Northing (km)")
        short = "m" if is_metre(unit) else unit
        return (left, right, bottom, top), (f"Easting ({short})", f"Northing ({short})")


def is_metre(unit: str) -> bool:
    """Whether the unit of a CRS is the metre."""
    return unit in ("metre", "meter", "m")


def spectral_angles(lattice: Lattice, fused: Bands, truth: Bands) -> FloatArray:
    """Angle in degrees between fused image and truth ``(y, x)`` over the bands usable in both."""
    a, b = fused.source, truth.source
    pairs = match_bands(a, b)
    pairs = pairs[:, np.isin(pairs[0], fused.good) & np.isin(pairs[1], truth.good)]
    if pairs.shape[1] == 0:
        raise InputError(
            f"'{a.name}' and '{b.name}' have no usable band in common, so no error can be drawn."
        )
    angles = np.full((lattice.rows.size, lattice.cols.size), np.nan, np.float32)
    rows = lattice.chunk(a, pairs.shape[1])
    for start in range(0, lattice.rows.size, rows):
        part = slice(start, start + rows)
        f, t = (
            lattice.pick(s, p.tolist(), part).astype(np.float64) for s, p in zip((a, b), pairs, strict=True)
        )
        norm = np.linalg.norm(f, axis=0) * np.linalg.norm(t, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            angles[part] = np.degrees(np.arccos(np.clip((f * t).sum(0) / norm, -1, 1)))
    return angles


def limits(cube: FloatArray) -> FloatArray:
    """2nd and 98th percentile of each channel, ``(2, band)``."""
    found = np.array([[0.0, 1.0]] * len(cube)).T
    for k, plane in enumerate(cube):
        known = plane[np.isfinite(plane)]
        if known.size:
            low, high = np.percentile(known, (2, 98))
            found[:, k] = low, high if high > low else low + 1
    return found


def rgba(cube: FloatArray, stretch: FloatArray) -> FloatArray:
    """Image ``(y, x, 4)`` from 0 to 1 of one or three channels; transparent where there is no data."""
    low, high = (side[:, None, None] for side in stretch)
    known = np.asarray(np.isfinite(cube).all(axis=0))
    scaled = np.clip((np.where(known, cube, low) - low) / (high - low), 0, 1)
    colour = np.broadcast_to(scaled, (3, *known.shape))
    return np.concatenate([colour, known[None]]).transpose(1, 2, 0).astype(np.float32)
