"""The window that methods are compared on: the one asked for, or that with most detail."""

from __future__ import annotations

import math

import numpy as np

from csakd_geo.degrade import PSF
from csakd_geo.engine.scene import Scene
from csakd_geo.errors import GridError, InputError
from csakd_geo.grid import lay_grid
from csakd_geo.tiling import Window
from csakd_geo.uncertainty.law import find_detail

_SIDE, _LEAST = 64, 8  # LR cells per side of a window that is chosen, and of any
_VALUES = 1 << 27  # of a fused window, all bands


def window_scene(scene: Scene, psf: PSF, window: tuple[int, int, int, int] | None) -> Scene:
    """The scene on the grid of a window.

    Parameters
    ----------
    scene : Scene
    psf : PSF
    window : (int, int, int, int) or None
        Column, row, width and height in pixels of the MSI; None takes the part of the sample with most detail.

    Raises
    ------
    InputError
        If the window holds too little of what both images show, or is too large to be held.
    """
    grid = scene.grid
    if window is None:
        cells = _busiest(scene, psf)
        fine = cells.scaled(grid.ratio)
        window = (grid.msi_col + fine.col, grid.msi_row + fine.row, fine.width, fine.height)
    col, row, width, height = window
    own = Window(row - grid.msi_row, col - grid.msi_col, height, width)
    seen = own.intersect(Window(grid.top, grid.left, grid.height, grid.width))
    if min(seen.height, seen.width) < _LEAST * grid.ratio:
        has = "nothing" if seen.empty else f"{seen.width} x {seen.height} pixels"
        raise InputError(
            f"The window holds {has} of what both images show; at least {_LEAST * grid.ratio} x "
            f"{_LEAST * grid.ratio} MSI pixels are needed, within column {grid.msi_col + grid.left} to "
            f"{grid.msi_col + grid.left + grid.width} and row {grid.msi_row + grid.top} to "
            f"{grid.msi_row + grid.top + grid.height}."
        )
    if len(scene.hsi_bands) * seen.height * seen.width > 4 * _VALUES:
        raise InputError(
            f"A window of {seen.width} x {seen.height} pixels is too large to be held for every method; give a "
            "smaller one, about 256 pixels a side."
        )
    t = grid.affine
    corners = [t * (seen.col, seen.row), t * (seen.col + seen.width, seen.row + seen.height)]
    (left, right), (bottom, top) = (sorted(axis) for axis in zip(*corners, strict=True))
    try:
        laid = lay_grid(
            scene.hsi,
            scene.msi,
            ratio=grid.ratio,
            shift=(grid.shift_x, grid.shift_y),
            bounds=(left, bottom, right, top),
        )
    except GridError as error:
        raise InputError(f"The window cannot be laid on both images: {error}") from error
    return scene.with_grid(laid)


def _busiest(scene: Scene, psf: PSF) -> Window:
    """The part of the sampled windows whose valid cells show most detail in the MSI, in LR cells."""
    r = scene.grid.ratio
    side = min(_SIDE, max(_LEAST, math.isqrt(_VALUES // len(scene.hsi_bands)) // r))
    found = []
    for window in scene.sample_windows():
        block, _ = scene.block(window)
        detail = np.square(find_detail(block.msi, psf))
        detail /= np.maximum(block.msi.var((1, 2)), 1e-30)[:, None, None]
        cells = detail.mean(0).reshape(window.height, r, window.width, r).mean((1, 3)) * block.valid
        height, width = min(side, window.height), min(side, window.width)
        total = np.pad(cells.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        sums = (
            total[height:, width:]
            - total[:-height, width:]
            - total[height:, :-width]
            + total[:-height, :-width]
        )
        row, col = np.unravel_index(int(sums.argmax()), sums.shape)
        place = Window(window.row + int(row), window.col + int(col), height, width)
        found.append((-float(sums.max()), place.row, place.col, place))
    return min(found)[3]
