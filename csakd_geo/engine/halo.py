"""How much context a fit really needs: the smallest halo that keeps a patch exact."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import platformdirs
from numpy.typing import NDArray

from csakd_geo._version import __version__
from csakd_geo.engine.store import key_of
from csakd_geo.methods.base import Cut, Fitted, Method, begin
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.models import file_sha256
from csakd_geo.pair import Pair
from csakd_geo.tiling import Window

FloatArray = NDArray[np.floating]

TOLERANCE = 1e-5
_CORE = 8  # LR cells per side of the patch that is compared
_STEPS = (2, 3, 4, 6, 8, 10, 12, 16, 20, 24)


class Halos(NamedTuple):
    """LR cells of context around a super-tile and, no more than that, around a tile in it."""

    far: int
    near: int


def find_halo(method: Method, fitted: Fitted, pair: Pair, *, tolerance: float = TOLERANCE) -> Halos:
    """The halos of :func:`measure_halo`, measured once and kept in the user's cache.

    What they depend on is the key: method, model, ratio, PSF to a tenth of an HSI pixel, tolerance and
    version. A cache that cannot be read or written only costs the measurement.
    """
    psf = fitted.psf
    key = key_of(
        {
            "method": method.name,
            "model": file_sha256(method.path) if isinstance(method, CSAKD) else None,
            "ratio": psf.ratio,
            "psf": [round(v / psf.ratio, 1) for v in (psf.fwhm, abs(psf.dy), abs(psf.dx))],
            "stated": [fitted.halo, fitted.near],
            "tolerance": tolerance,
            "version": __version__,
        }
    )
    path = platformdirs.user_cache_path("csakd-geo", appauthor=False) / "halos" / key
    try:
        far, near = path.read_text(encoding="ascii").split()
        return Halos(int(far), int(near))
    except (OSError, ValueError):
        found = measure_halo(method, fitted, pair, tolerance=tolerance)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f"{key}.{os.getpid()}")
        staged.write_text(f"{found.far} {found.near}", encoding="ascii")
        os.replace(staged, path)
    return found


def measure_halo(method: Method, fitted: Fitted, pair: Pair, *, tolerance: float = TOLERANCE) -> Halos:
    """Smallest halos, in LR cells, whose tiles agree with a patch that sees more.

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
    Halos
        As stated, where the block is too small to measure on or nothing smaller does.
    """
    block, r = pair.blocks[0], pair.ratio
    height, width = block.valid.shape
    core = min(_CORE, height, width)
    y, x = (height - core) // 2, (width - core) // 2
    room = min(y, x, max(fitted.halo, _STEPS[0]) + 4)
    stated = Halos(fitted.halo, fitted.halo if fitted.near is None else fitted.near)
    bands = range(len(block.hsi))
    inside = np.ones((core * r, core * r), bool)

    def fused(far: int, near: int) -> FloatArray:
        seen = Window(y - far, x - far, core + 2 * far, core + 2 * far)
        hsi = np.ascontiguousarray(block.hsi[:, *seen.slices()])
        msi = np.ascontiguousarray(block.msi[:, *seen.scaled(r).slices()])
        kept = Window(far, far, core, core)
        work = begin(method, fitted, hsi, msi, bands)
        return next(iter(work.fuse([Cut(kept.grown(near), kept, inside)], None)))[0]

    if room <= _STEPS[0]:
        return stated
    whole = fused(room, room)
    scale = float(np.sqrt(np.square(whole).mean())) or 1.0

    def agrees(far: int, near: int) -> bool:
        return float(np.sqrt(np.square(fused(far, near) - whole).mean())) / scale <= tolerance

    steps = [step for step in _STEPS if step < room]
    far = next((step for step in steps if agrees(step, step)), stated.far)
    if fitted.near is None:
        return Halos(far, far)
    near = next((step for step in (1, *steps) if step < far and agrees(far, step)), min(far, stated.near))
    return Halos(far, near)
