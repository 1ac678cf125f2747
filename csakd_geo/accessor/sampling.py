"""Spectra of a cube under points and polygons, each part of the cube read once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import geometry_mask

from csakd_geo.errors import InputError
from csakd_geo.tiling import Window

if TYPE_CHECKING:
    import geopandas
    import xarray as xr
    from rasterio.crs import CRS

_SIDE = 256  # pixels per side that are read at once where the cube has no chunks
_KINDS = ("Point", "Polygon", "MultiPolygon")


@dataclass(slots=True, eq=False)
class Moments:
    """Count, mean and squared deviations of spectra, ``(feature, band)``, gathered part by part.

    Parts are joined by the formula of Chan et al. (1979), so no sum of squares cancels.
    """

    seen: NDArray[np.int64]
    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def empty(cls, features: int, bands: int) -> Moments:
        """Nothing seen yet."""
        shape = (features, bands)
        return cls(np.zeros(features, np.int64), np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape))

    def add(self, feature: int, spectra: NDArray[np.floating]) -> None:
        """Take in pixels ``(band, pixel)`` of one feature; NaN is no data."""
        valid = np.isfinite(spectra)
        count = valid.sum(axis=1)
        values = np.where(valid, spectra, 0).astype(np.float64)
        mean = values.sum(axis=1) / np.maximum(count, 1)
        squares = (np.where(valid, values - mean[:, None], 0) ** 2).sum(axis=1)
        total = np.maximum(self.count[feature] + count, 1)
        step = mean - self.mean[feature]
        self.squares[feature] += squares + step**2 * self.count[feature] * count / total
        self.mean[feature] += step * count / total
        self.count[feature] += count
        self.seen[feature] += int(valid.any(axis=0).sum())

    def results(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and population standard deviation ``(feature, band)``; NaN where nothing was seen."""
        none = self.count == 0
        mean = np.where(none, np.nan, self.mean)
        return mean, np.where(none, np.nan, np.sqrt(self.squares / np.maximum(self.count, 1)))


def sample_cube(
    cube: xr.DataArray,
    frame: geopandas.GeoDataFrame,
    *,
    transform: Affine,
    crs: CRS | None,
    all_touched: bool = False,
) -> geopandas.GeoDataFrame:
    """Spectra under the geometries of a frame; see `csakd_geo.accessor.CsakdAccessor.sample`."""
    import geopandas

    shapes = _shapes(frame, crs)
    bands = [str(label) for label in np.atleast_1d(cube["band"].values)]
    columns = ["count", *(f"mean_{b}" for b in bands), *(f"std_{b}" for b in bands)]
    taken = [name for name in columns if name in frame.columns]
    if taken or len(set(columns)) < len(columns):
        what = f"the column '{taken[0]}'" if taken else "band numbers that occur twice"
        raise InputError(f"The result would have {what} already; rename it before sampling.")
    moments = Moments.empty(len(frame), len(bands))
    reaches = _reaches(shapes, ~transform)
    for window in _windows(cube):
        _add_window(moments, cube, window, shapes, reaches, transform, all_touched)
    mean, std = moments.results()
    table = np.concatenate([mean, std], axis=1)
    found = geopandas.GeoDataFrame(table, columns=columns[1:], index=frame.index)
    found.insert(0, "count", moments.seen)
    return frame.join(found)


def _shapes(frame: geopandas.GeoDataFrame, crs: CRS | None) -> NDArray[Any]:
    """Geometries in the cube's CRS; None where there is none."""
    import geopandas

    if not isinstance(frame, (geopandas.GeoDataFrame, geopandas.GeoSeries)):
        raise InputError(
            f"Got a {type(frame).__name__} to sample by; expected a GeoDataFrame of points and polygons."
        )
    if isinstance(frame, geopandas.GeoSeries):
        raise InputError("Got a GeoSeries to sample by; make it a frame with .to_frame('geometry').")
    shapes = frame.geometry
    usable = np.array([shape is not None and not shape.is_empty for shape in shapes], dtype=bool)
    strange = sorted(set(shapes[usable].geom_type) - set(_KINDS))
    if strange:
        raise InputError(
            f"The frame holds a {strange[0]}; expected points and polygons, so buffer or explode it first."
        )
    if crs is not None and frame.crs is not None:
        shapes = shapes.to_crs(crs.to_wkt())
    return np.array([shape if ok else None for shape, ok in zip(shapes, usable, strict=True)], dtype=object)


def _windows(cube: xr.DataArray) -> Iterator[Window]:
    """The cube's own chunks, so that a lazy one is computed once; squares where it has none."""
    chunks = dict(cube.chunksizes)
    rows, cols = (chunks.get(dim) or _cut(cube.sizes[dim]) for dim in ("y", "x"))
    row = 0
    for height in rows:
        col = 0
        for width in cols:
            yield Window(row, col, height, width)
            col += width
        row += height


def _cut(size: int) -> tuple[int, ...]:
    return tuple(min(_SIDE, size - start) for start in range(0, size, _SIDE))


def _reaches(shapes: NDArray[Any], inverse: Affine) -> NDArray[np.int64]:
    """Pixels that each geometry may touch: first row and column, end row and column; zeros for none."""
    found = np.zeros((len(shapes), 4), np.int64)
    for k, shape in enumerate(shapes):
        if shape is None:
            continue
        x0, y0, x1, y1 = shape.bounds
        corners = np.array([inverse * corner for corner in ((x0, y0), (x0, y1), (x1, y0), (x1, y1))])
        if np.isfinite(corners).all() and np.abs(corners).max() < 2**53:
            (left, top), (right, bottom) = np.floor(corners.min(0)), np.floor(corners.max(0))
            found[k] = top, left, bottom + 1, right + 1
    return found


def _add_window(
    moments: Moments,
    cube: xr.DataArray,
    window: Window,
    shapes: NDArray[Any],
    reaches: NDArray[np.int64],
    transform: Affine,
    all_touched: bool,
) -> None:
    """Read what the geometries need of one part of the cube, once, and take it in."""
    ends = np.array([window.row + window.height, window.col + window.width])
    start = np.maximum(reaches[:, :2], (window.row, window.col))
    stop = np.minimum(reaches[:, 2:], ends)
    wanted = np.flatnonzero((start < stop).all(axis=1))
    if wanted.size == 0:
        return
    (top, left), (bottom, right) = start[wanted].min(0), stop[wanted].max(0)
    values = np.asarray(cube[:, top:bottom, left:right].values)
    for feature in wanted.tolist():
        (row, col), (end_row, end_col) = start[feature], stop[feature]
        part = values[:, row - top : end_row - top, col - left : end_col - left]
        if shapes[feature].geom_type == "Point":
            moments.add(feature, part.reshape(len(part), -1))
            continue
        inside = geometry_mask(
            [shapes[feature]],
            part.shape[1:],
            transform * Affine.translation(int(col), int(row)),
            all_touched=all_touched,
            invert=True,
        )
        if inside.any():
            moments.add(feature, part[:, inside])
