"""One super-tile: read, fuse tile by tile, blend, mask. Pure but for reading."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from csakd_geo.engine.scene import Scene
from csakd_geo.methods.base import Fitted, Method
from csakd_geo.pair import Block
from csakd_geo.threads import one_blas_thread
from csakd_geo.tiling import Tile, TilePlan, Window

FloatArray = NDArray[np.floating]


def output_window(scene: Scene, area: Window) -> Window:
    """The part of a super-tile that is output, in HR pixels of the frame."""
    g = scene.grid
    return area.scaled(g.ratio).intersect(Window(g.top, g.left, g.height, g.width))


def fuse_supertile(scene: Scene, method: Method, fitted: Fitted, plan: TilePlan, area: Window) -> FloatArray:
    """Fuse one super-tile.

    Parameters
    ----------
    scene : Scene
    method : Method
    fitted : Fitted
    plan : TilePlan
    area : Window
        The super-tile in LR cells.

    Returns
    -------
    ndarray (hsi_band, y, x) float32
        Physical values of the good bands over :func:`output_window`, NaN where masked.
    """
    r = scene.grid.ratio
    tiles = list(plan.tiles(area))
    around = _hull([tile.window for tile in tiles])
    block, valid = scene.block(around)
    fine = area.scaled(r)
    valid = valid[fine.slices(around.scaled(r))]
    fused = np.zeros((len(scene.hsi_bands), fine.height, fine.width), np.float32)
    for tile in tiles:
        part = tile.kept.intersect(area)
        inside = valid[part.scaled(r).slices(fine)]
        if not inside.any():
            continue
        with one_blas_thread():
            result = method.apply(fitted, *_cut(block, around, tile.window, r))
        _add(fused, plan, tile, part, area, result, r)
    fused[:, ~valid] = np.nan
    window = output_window(scene, area)
    return np.ascontiguousarray(fused[:, *window.slices(fine)])


def _hull(windows: list[Window]) -> Window:
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    bottom, right = max(w.row + w.height for w in windows), max(w.col + w.width for w in windows)
    return Window(row, col, bottom - row, right - col)


def _cut(block: Block, around: Window, window: Window, r: int) -> tuple[FloatArray, FloatArray]:
    return (
        np.ascontiguousarray(block.hsi[:, *window.slices(around)]),
        np.ascontiguousarray(block.msi[:, *window.scaled(r).slices(around.scaled(r))]),
    )


def _add(
    fused: FloatArray, plan: TilePlan, tile: Tile, part: Window, area: Window, result: FloatArray, r: int
) -> None:
    """Blend a tile's result into the super-tile."""
    fine = part.scaled(r)
    target = fused[:, *fine.slices(area.scaled(r))]
    source = result[:, *fine.slices(tile.window.scaled(r))]
    if plan.blend == "crop":
        target[...] = source
        return
    wy, wx = plan.weights(tile)
    rows, columns = fine.slices(tile.kept.scaled(r))
    target += source * (wy[rows, None] * wx[None, columns])
