"""Both images on the fusion grid: windows in, arrays out, whatever the files' own grids are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from csakd_geo.degrade import cubic_weights
from csakd_geo.grid import FusionGrid, PixelMapping, pixel_mapping
from csakd_geo.io.source import Source
from csakd_geo.tiling import Window

FloatArray = NDArray[np.float32]
Positions = NDArray[np.floating]

_ON_PIXEL = 0.01  # HSI pixels off a pixel's centre that are none
_REACH = 4  # HSI pixels by which the HSI's edge is continued; there is nothing further out


def read_msi(source: Source, grid: FusionGrid, window: Window, bands: Sequence[int]) -> FloatArray:
    """MSI of a window of LR cells, ``(msi_band, y * ratio, x * ratio)``; edges are replicated.

    Parameters
    ----------
    source : Source
    grid : FusionGrid
    window : Window
        LR cells of the frame.
    bands : sequence of int
        Zero-based.
    """
    fine = window.scaled(grid.ratio)
    return _read_padded(
        source, grid.msi_row + fine.row, grid.msi_col + fine.col, fine.height, fine.width, bands
    )


def read_hsi(source: Source, grid: FusionGrid, window: Window, bands: Sequence[int]) -> FloatArray:
    """HSI of a window of LR cells, ``(hsi_band, y, x)``: as it is where it nests, else warped.

    Every cell's centre is mapped exactly and interpolated by itself, so a window has the values
    of the whole (GDAL's warps depend on the window by up to 11 in 6500). Where the frame reaches
    out of the HSI its edge is replicated.
    """
    if grid.nested:
        return _read_padded(
            source, grid.hsi_row + window.row, grid.hsi_col + window.col, window.height, window.width, bands
        )
    rows, cols = np.arange(window.height) + window.row + 0.5, np.arange(window.width) + window.col + 0.5
    y, x = np.meshgrid(rows, cols, indexing="ij")
    u, v = _to_source(source, grid)(x.ravel(), y.ravel())
    near = (np.abs(u - source.width / 2) < source.width / 2 + _REACH) & (
        np.abs(v - source.height / 2) < source.height / 2 + _REACH
    )
    out = np.full((len(bands), x.size), np.nan, np.float32)
    if near.any():
        out[:, near] = _read_cubic(source, u[near] - 0.5, v[near] - 0.5, bands)
    return out.reshape(len(bands), *x.shape)


def interpolates(source: Source, grid: FusionGrid) -> bool:
    """Whether LR cells take their values from between the HSI's pixels; those of another CRS may meet them."""
    if grid.nested:
        return False
    x, y = np.array([0.5, grid.lr_width - 0.5]), np.array([0.5, grid.lr_height - 0.5])
    u, v = _to_source(source, grid)(np.tile(x, 2), np.repeat(y, 2))
    centres = np.concatenate([u, v]) - 0.5
    return not np.abs(centres - np.rint(centres)).max() <= _ON_PIXEL


def covered(source: Source, grid: FusionGrid, window: Window) -> NDArray[np.bool_]:
    """HR pixels of a window whose centre lies in the HSI's footprint, ``(y * ratio, x * ratio)``."""
    r = grid.ratio
    shape = (window.height * r, window.width * r)
    if grid.nested:
        return np.ones(shape, bool)  # the output window is the footprint
    mapping = _to_source(source, grid)
    # cell corners are mapped exactly, pixel centres between them linearly
    rows, cols = np.arange(window.height + 1.0) + window.row, np.arange(window.width + 1.0) + window.col
    y, x = np.meshgrid(rows, cols, indexing="ij")
    u, v = mapping(x.ravel(), y.ravel())
    at = (np.arange(r) + 0.5) / r

    def fine(nodes: NDArray[np.floating]) -> NDArray[np.floating]:
        grid_ = nodes.reshape(window.height + 1, window.width + 1)
        rows = grid_[:-1, None] * (1 - at)[None, :, None] + grid_[1:, None] * at[None, :, None]
        rows = rows.reshape(shape[0], window.width + 1)
        cells = rows[:, :-1, None] * (1 - at) + rows[:, 1:, None] * at
        return cells.reshape(shape)

    fu, fv = fine(u), fine(v)
    return (fu >= 0) & (fu <= source.width) & (fv >= 0) & (fv <= source.height)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The georeference of the frame's LR cells, moved against the HSI's shift."""

    name: str
    crs: CRS | None
    transform: Affine
    height: int
    width: int


def _to_source(source: Source, grid: FusionGrid) -> PixelMapping:
    """From LR cells of the frame to pixels of an HSI that does not nest."""
    transform = Affine.translation(-grid.shift_x, -grid.shift_y) * grid.lr_affine
    crs = CRS.from_wkt(grid.crs) if grid.crs else None
    return pixel_mapping(_Frame(source.name, crs, transform, grid.lr_height, grid.lr_width), source)


def _read_cubic(source: Source, x: Positions, y: Positions, bands: Sequence[int]) -> FloatArray:
    """Cubic interpolation (Keys 1981) at columns and rows of pixel centres, ``(band, n)``.

    Edges are replicated. A value is missing where the nearest pixel is; other missing pixels
    count as that one, so a hole grows in its own band alone and by no more than half a pixel.
    """
    first_x, first_y = np.floor(x).astype(int), np.floor(y).astype(int)
    left, right = _touched(first_x, source.width)
    top, bottom = _touched(first_y, source.height)
    data = source.read(top, left, bottom - top, right - left, bands=list(bands))

    def pixels(column: NDArray[np.intp], row: NDArray[np.intp]) -> FloatArray:
        column = np.clip(column - left, 0, right - left - 1)
        row = np.clip(row - top, 0, bottom - top - 1)
        return np.take(data.reshape(len(data), -1), row * (right - left) + column, axis=1)

    hole = np.isnan(data).any()
    nearest = pixels(np.floor(x + 0.5).astype(int), np.floor(y + 0.5).astype(int))
    weights_x, weights_y = cubic_weights(x - first_x), cubic_weights(y - first_y)
    out = np.zeros((len(bands), x.size), np.float32)
    for j, weight_y in enumerate(weights_y):
        for i, weight_x in enumerate(weights_x):
            values = pixels(first_x + (i - 1), first_y + (j - 1))
            if hole:
                values = np.where(np.isnan(values), nearest, values)
            out += (weight_y * weight_x).astype(np.float32) * values
    if hole:
        out[np.isnan(nearest)] = np.nan
    return out


def _touched(first: NDArray[np.intp], size: int) -> tuple[int, int]:
    """Range of pixels along an axis that interpolation from these positions looks at."""
    low = int(np.clip(first.min() - 1, 0, size - 1))
    return low, int(np.clip(first.max() + 3, low + 1, size))


def _read_padded(
    source: Source, row: int, col: int, height: int, width: int, bands: Sequence[int]
) -> FloatArray:
    """A window that may reach out of the raster; what is outside repeats the edge."""
    top, left = max(0, min(row, source.height - 1)), max(0, min(col, source.width - 1))
    bottom, right = (
        min(max(row + height, top + 1), source.height),
        min(max(col + width, left + 1), source.width),
    )
    data = source.read(top, left, bottom - top, right - left, bands=list(bands))
    above, before = max(0, top - row), max(0, left - col)
    below, after = max(0, row + height - bottom), max(0, col + width - right)
    if above or before or below or after:
        data = np.pad(data, ((0, 0), (above, below), (before, after)), mode="edge")
        data = data[:, :height, :width]
    return data
