"""How much context a fit really needs: the smallest halo that keeps a patch exact."""

from __future__ import annotations

import numpy as np

from csakd_geo.methods.base import Fitted, Method
from csakd_geo.pair import Pair

TOLERANCE = 1e-5
_CORE = 8  # LR cells per side of the patch that is compared
_STEPS = (2, 3, 4, 6, 8, 10, 12, 16, 20, 24)


def measure_halo(method: Method, fitted: Fitted, pair: Pair, *, tolerance: float = TOLERANCE) -> int:
    """Smallest halo, in LR cells, whose tiles agree with a patch that sees more.

    Parameters
    ----------
    method : Method
    fitted : Fitted
    pair : Pair
        The patch is taken from the middle of its first block.
    tolerance : float
        Relative RMSE that is accepted.

    Returns
    -------
    int
        The stated halo if the block is too small to measure on, or nothing smaller does.
    """
    block, r = pair.blocks[0], pair.ratio
    height, width = block.valid.shape
    core = min(_CORE, height, width)
    y, x = (height - core) // 2, (width - core) // 2
    room = min(y, x, max(fitted.halo, _STEPS[0]) + 4)

    def cut(halo: int) -> np.ndarray:
        low = np.s_[:, y - halo : y + core + halo, x - halo : x + core + halo]
        high = np.s_[:, (y - halo) * r : (y + core + halo) * r, (x - halo) * r : (x + core + halo) * r]
        fused = method.apply(
            fitted, np.ascontiguousarray(block.hsi[low]), np.ascontiguousarray(block.msi[high])
        )
        return np.asarray(fused[:, halo * r : (halo + core) * r, halo * r : (halo + core) * r])

    if room <= _STEPS[0]:
        return fitted.halo
    whole = cut(room)
    scale = float(np.sqrt(np.square(whole).mean())) or 1.0
    for halo in (step for step in _STEPS if step < room):
        if float(np.sqrt(np.square(cut(halo) - whole).mean())) / scale <= tolerance:
            return halo
    return fitted.halo
