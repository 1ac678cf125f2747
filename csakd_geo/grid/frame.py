"""The fusion grid: the MSI's own pixels, with LR cells of ratio x ratio of them nested inside.

All geometry is settled here once; from then on it is integers. The *frame* is the smallest
stack of whole LR cells that covers the output; the output is a window of the frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine

from csakd_geo.errors import GridError
from csakd_geo.grid.mapping import Georeferenced, PixelMapping, pixel_mapping
from csakd_geo.grid.ratio import check_ratio

_DRIFT = 0.1  # MSI pixels that nested lattices may drift apart over the scene
_EDGE_POINTS = 33


@dataclass(frozen=True, slots=True)
class FusionGrid:
    """Where everything lies.

    Parameters
    ----------
    ratio : int
        MSI pixels per LR cell and axis.
    crs : str or None
        WKT of the MSI's CRS.
    transform : tuple of float
        Affine ``(a, b, c, d, e, f)`` of the frame's HR pixels.
    lr_height, lr_width : int
        Size of the frame in LR cells.
    msi_row, msi_col : int
        The frame's origin in the MSI's pixels; may be negative.
    top, left, height, width : int
        The output inside the frame, in HR pixels.
    nested : bool
        Whether HSI pixels are LR cells, so that the HSI is read as it is.
    hsi_row, hsi_col : int
        The frame's origin in HSI pixels, where nested; may be -1.
    phase_y, phase_x : float
        HR pixels by which nested HSI pixels lie down and right of their cells (under 0.5).
    shift_x, shift_y : float
        Added to the HSI's coordinates, in units of the MSI's CRS.
    """

    ratio: int
    crs: str | None
    transform: tuple[float, float, float, float, float, float]
    lr_height: int
    lr_width: int
    msi_row: int
    msi_col: int
    top: int
    left: int
    height: int
    width: int
    nested: bool
    hsi_row: int
    hsi_col: int
    phase_y: float
    phase_x: float
    shift_x: float
    shift_y: float

    @property
    def affine(self) -> Affine:
        """Of the frame's HR pixels."""
        return Affine(*self.transform)

    @property
    def lr_affine(self) -> Affine:
        """Of the frame's LR cells."""
        return self.affine * Affine.scale(self.ratio)

    @property
    def output_affine(self) -> Affine:
        """Of the output's pixels."""
        return self.affine * Affine.translation(self.left, self.top)

    @property
    def gsd(self) -> float:
        """Pixel size of the output in units of its CRS."""
        return math.sqrt(abs(self.transform[0] * self.transform[4]))


def lay_grid(
    hsi: Georeferenced,
    msi: Georeferenced,
    *,
    ratio: int | None = None,
    shift: tuple[float, float] = (0.0, 0.0),
    bounds: tuple[float, float, float, float] | None = None,
) -> FusionGrid:
    """Lay the fusion grid of a pair.

    Parameters
    ----------
    hsi, msi : Georeferenced
    ratio : int, optional
        By default the rounded quotient of the pixel sizes, see `find_ratio`.
    shift : (float, float)
        Added to the HSI's coordinates along x and y, in units of the MSI's CRS.
    bounds : (left, bottom, right, top), optional
        Restricts the output, in the MSI's CRS.

    Returns
    -------
    FusionGrid

    Raises
    ------
    GridError
        If the MSI is rotated, the HSI is not coarser, its pixels are too long for square cells, the ratio does
        not fit, or nothing overlaps.
    """
    if msi.transform.b or msi.transform.d:
        raise GridError(f"The MSI '{msi.name}' is rotated; warp it to a north-up grid first (gdalwarp).")
    to_msi = pixel_mapping(hsi, msi, shift)
    r = check_ratio(hsi, msi, to_msi, ratio)
    footprint = _footprint(hsi, to_msi)
    box = _intersect(footprint, (0.0, 0.0, float(msi.width), float(msi.height)))
    if bounds is not None:
        box = _intersect(box, _pixel_box(bounds, msi.transform))
    col0, row0 = math.ceil(box[0] - 0.5 - 1e-6), math.ceil(box[1] - 0.5 - 1e-6)
    col1, row1 = math.floor(box[2] - 0.5 + 1e-6) + 1, math.floor(box[3] - 0.5 + 1e-6) + 1
    if col1 <= col0 or row1 <= row0:
        raise GridError(_no_overlap(hsi, msi, footprint, bounds))
    origin = to_msi(np.array([0.0]), np.array([0.0]))
    origin_x, origin_y = float(origin[0][0]), float(origin[1][0])
    nested = _is_nested(hsi, msi, to_msi, r)
    anchor_x, anchor_y = (
        (_nearest(origin_x), _nearest(origin_y))
        if nested
        else (_nearest(footprint[0]), _nearest(footprint[1]))
    )
    first_x, first_y = (col0 - anchor_x) // r, (row0 - anchor_y) // r
    last_x, last_y = -(-(col1 - anchor_x) // r), -(-(row1 - anchor_y) // r)
    msi_col, msi_row = anchor_x + first_x * r, anchor_y + first_y * r
    frame = msi.transform * Affine.translation(msi_col, msi_row)
    crs = msi.crs or hsi.crs
    return FusionGrid(
        ratio=r,
        crs=crs.to_wkt() if crs else None,
        transform=(frame.a, frame.b, frame.c, frame.d, frame.e, frame.f),
        lr_height=last_y - first_y,
        lr_width=last_x - first_x,
        msi_row=msi_row,
        msi_col=msi_col,
        top=row0 - msi_row,
        left=col0 - msi_col,
        height=row1 - row0,
        width=col1 - col0,
        nested=nested,
        hsi_row=first_y if nested else 0,
        hsi_col=first_x if nested else 0,
        phase_y=origin_y - anchor_y if nested else 0.0,
        phase_x=origin_x - anchor_x if nested else 0.0,
        shift_x=float(shift[0]),
        shift_y=float(shift[1]),
    )


def _nearest(value: float) -> int:
    return math.floor(value + 0.5)


def _footprint(hsi: Georeferenced, to_msi: PixelMapping) -> tuple[float, float, float, float]:
    """Bounding box of the HSI in MSI pixels."""
    t = np.linspace(0, 1, _EDGE_POINTS)
    zero, one = np.zeros_like(t), np.ones_like(t)
    u = np.concatenate([t, t, zero, one]) * hsi.width
    v = np.concatenate([zero, one, t, t]) * hsi.height
    x, y = to_msi(u, v)
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        raise GridError(f"The HSI '{hsi.name}' lies outside the area of use of the MSI's CRS.")
    return float(x[finite].min()), float(y[finite].min()), float(x[finite].max()), float(y[finite].max())


def _intersect(
    a: tuple[float, float, float, float], b: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _pixel_box(
    bounds: tuple[float, float, float, float], transform: Affine
) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = ~transform * (bounds[0], bounds[3]), ~transform * (bounds[2], bounds[1])
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _is_nested(hsi: Georeferenced, msi: Georeferenced, to_msi: PixelMapping, r: int) -> bool:
    """Whether HSI pixels are r x r MSI pixels all over the scene, up to a common offset."""
    if hsi.crs and msi.crs and hsi.crs != msi.crs:
        return False
    w, h = float(hsi.width), float(hsi.height)
    x, y = to_msi(np.array([0.0, w, 0.0, w]), np.array([0.0, 0.0, h, h]))
    want_x = x[0] + np.array([0, w, 0, w]) * r
    want_y = y[0] + np.array([0, 0, h, h]) * r
    return bool(np.abs(x - want_x).max() <= _DRIFT and np.abs(y - want_y).max() <= _DRIFT)


def _no_overlap(
    hsi: Georeferenced,
    msi: Georeferenced,
    footprint: tuple[float, float, float, float],
    bounds: tuple[float, float, float, float] | None,
) -> str:
    def extent(box: tuple[float, float, float, float]) -> str:
        (x0, y0), (x1, y1) = msi.transform * (box[0], box[1]), msi.transform * (box[2], box[3])
        return f"x {min(x0, x1):.6g} to {max(x0, x1):.6g}, y {min(y0, y1):.6g} to {max(y0, y1):.6g}"

    own = (0.0, 0.0, float(msi.width), float(msi.height))
    area = (
        "" if bounds is None else f" and the area of interest ({extent(_pixel_box(bounds, msi.transform))})"
    )
    return (
        f"The HSI '{hsi.name}' ({extent(footprint)}) and the MSI '{msi.name}' ({extent(own)}){area} "
        "do not overlap in the MSI's CRS; check that they show the same place."
    )
