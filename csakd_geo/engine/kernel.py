"""One super-tile: read, fuse tile by tile, blend, mask, encode. Pure but for reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.engine.scene import Scene
from csakd_geo.io.encoding import Encoding
from csakd_geo.methods.base import Cut, Fitted, Method, begin
from csakd_geo.threads import one_blas_thread
from csakd_geo.tiling import Tile, TilePlan, Window

FloatArray = NDArray[np.floating]


def output_window(scene: Scene, area: Window) -> Window:
    """The part of a super-tile that is output, in HR pixels of the frame."""
    g = scene.grid
    return area.scaled(g.ratio).intersect(Window(g.top, g.left, g.height, g.width))


def fuse_supertile(
    scene: Scene,
    method: Method,
    fitted: Fitted,
    plan: TilePlan,
    area: Window,
    *,
    rows: Sequence[int] | None = None,
    encoding: Encoding | None = None,
    seen: Callable[[int], None] | None = None,
) -> tuple[NDArray[Any], int]:
    """Fuse one super-tile.

    Parameters
    ----------
    scene : Scene
    method : Method
    fitted : Fitted
    plan : TilePlan
    area : Window
        The super-tile in LR cells.
    rows : sequence of int, optional
        Which of the good bands are wanted; all by default.
    encoding : Encoding, optional
        How values of these are stored; none leaves them physical, float32 with NaN where masked.
    seen : callable, optional
        Called with the bytes of both images once these are read.

    Returns
    -------
    values : ndarray (band, y, x)
        Over :func:`output_window`.
    clipped : int
    """
    tiles = list(plan.tiles(area))
    around = plan.seen(tiles)
    block, valid = scene.block(around)
    if seen is not None:
        seen(block.hsi.nbytes + block.msi.nbytes)
    fine = area.scaled(plan.ratio)
    valid = valid[fine.slices(around.scaled(plan.ratio))]
    rows = range(len(scene.hsi_bands)) if rows is None else rows
    shape = len(rows), fine.height, fine.width
    blended = plan.blend != "crop"
    if blended:
        fused: NDArray[Any] = np.zeros(shape, np.float32)
    else:
        fused = _empty(shape, encoding)
    cuts, parts = [], []
    for tile in tiles:
        part = tile.kept.intersect(area)
        inside = valid[part.scaled(plan.ratio).slices(fine)]
        if inside.any():
            cuts.append(Cut(_within(tile.window, around), _within(part, around), inside))
            parts.append((tile, part))
    clipped = 0
    if cuts:
        with one_blas_thread():
            work = begin(method, fitted, block.hsi, block.msi, rows)
        del block
        results = work.fuse(cuts, None if blended else encoding)
        for (tile, part), (values, beyond) in zip(parts, results, strict=True):
            target = fused[:, *part.scaled(plan.ratio).slices(fine)]
            if blended:
                target += values * _weights(plan, tile, part)
            else:
                target[...] = values
            clipped += beyond
    fused = fused[:, *output_window(scene, area).slices(fine)]
    if blended:
        fused[:, ~valid[output_window(scene, area).slices(fine)]] = np.nan
        if encoding is not None:
            return encoding.encode(fused)
    return np.ascontiguousarray(fused), clipped


def _empty(shape: tuple[int, int, int], encoding: Encoding | None) -> NDArray[Any]:
    if encoding is None:
        return np.full(shape, np.nan, np.float32)
    return np.full(shape, encoding.nodata, encoding.dtype)


def _within(window: Window, around: Window) -> Window:
    return Window(window.row - around.row, window.col - around.col, window.height, window.width)


def _weights(plan: TilePlan, tile: Tile, part: Window) -> FloatArray:
    """Blend weights of a tile over a part of what is kept of it."""
    wy, wx = plan.weights(tile)
    rows, columns = part.scaled(plan.ratio).slices(tile.kept.scaled(plan.ratio))
    return np.asarray(wy[rows, None] * wx[None, columns])
