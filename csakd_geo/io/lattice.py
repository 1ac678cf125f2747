"""Both images on the fusion grid: windows in, arrays out, whatever the files' own grids are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from csakd_geo.grid import FusionGrid, pixel_mapping
from csakd_geo.io.source import Source
from csakd_geo.tiling import Window

FloatArray = NDArray[np.float32]

_REACH = 4  # source pixels around a warped window that a cubic kernel may touch
_TOLERANCE = 1e-6  # pixels: windows of a warp agree with the whole (DESIGN 4)


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

    The warp is cubic and windowed; where the frame reaches out of the HSI its edge is replicated.
    """
    if grid.nested:
        return _read_padded(
            source, grid.hsi_row + window.row, grid.hsi_col + window.col, window.height, window.width, bands
        )
    target = _Target(
        source.name,
        CRS.from_wkt(grid.crs) if grid.crs else None,
        grid.lr_affine * Affine.translation(window.col, window.row),
        window.height,
        window.width,
    )
    # the shift belongs to the HSI; moving the target the other way is the same
    moved = Affine.translation(-grid.shift_x, -grid.shift_y) * target.transform
    target = _Target(target.name, target.crs, moved, target.height, target.width)
    row, col, height, width = _source_window(source, target)
    data = _read_padded(source, row, col, height, width, bands)
    out = np.full((len(bands), window.height, window.width), np.nan, np.float32)
    crs = source.crs or target.crs or CRS.from_epsg(3857)
    reproject(
        data,
        out,
        src_transform=source.transform * Affine.translation(col, row),
        src_crs=crs,
        dst_transform=target.transform,
        dst_crs=target.crs or crs,
        src_nodata=np.nan,
        dst_nodata=np.nan,
        resampling=Resampling.cubic,
        tolerance=_TOLERANCE,
        XSCALE=1,
        YSCALE=1,
        UNIFIED_SRC_NODATA="NO",
    )
    return out


def covered(source: Source, grid: FusionGrid, window: Window) -> NDArray[np.bool_]:
    """HR pixels of a window whose centre lies in the HSI's footprint, ``(y * ratio, x * ratio)``."""
    r = grid.ratio
    shape = (window.height * r, window.width * r)
    if grid.nested:
        return np.ones(shape, bool)  # the output window is the footprint
    target = _Target(
        source.name,
        CRS.from_wkt(grid.crs) if grid.crs else None,
        Affine.translation(-grid.shift_x, -grid.shift_y)
        * grid.lr_affine
        * Affine.translation(window.col, window.row),
        window.height,
        window.width,
    )
    mapping = pixel_mapping(target, source)
    # cell corners are mapped exactly, pixel centres between them linearly
    y, x = np.meshgrid(np.arange(window.height + 1.0), np.arange(window.width + 1.0), indexing="ij")
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
class _Target:
    """The georeference of a warped window."""

    name: str
    crs: CRS | None
    transform: Affine
    height: int
    width: int


def _source_window(source: Source, target: _Target) -> tuple[int, int, int, int]:
    """Rows and columns of the source that a warped window touches; may reach out of it."""
    mapping = pixel_mapping(target, source)
    y, x = np.meshgrid(
        np.linspace(0, target.height, min(target.height, 32) + 1),
        np.linspace(0, target.width, min(target.width, 32) + 1),
        indexing="ij",
    )
    u, v = mapping(x.ravel(), y.ravel())
    u, v = u[np.isfinite(u)], v[np.isfinite(v)]
    if u.size == 0:
        return 0, 0, 1, 1
    # no further out than the edge that is replicated there
    left = int(np.clip(np.floor(u.min()) - _REACH, -_REACH, source.width - 1))
    top = int(np.clip(np.floor(v.min()) - _REACH, -_REACH, source.height - 1))
    right = int(np.clip(np.ceil(u.max()) + _REACH, left + 1, source.width + _REACH))
    bottom = int(np.clip(np.ceil(v.max()) + _REACH, top + 1, source.height + _REACH))
    return top, left, bottom - top, right - left


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
