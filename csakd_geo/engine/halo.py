"""How much context a fit really needs: the smallest halo that keeps a patch exact."""

from __future__ import annotations

import os
from contextlib import suppress

import numpy as np
import platformdirs

from csakd_geo._version import __version__
from csakd_geo.engine.store import key_of
from csakd_geo.methods.base import Fitted, Method
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.models import file_sha256
from csakd_geo.pair import Pair

TOLERANCE = 1e-5
_CORE = 8  # LR cells per side of the patch that is compared
_STEPS = (2, 3, 4, 6, 8, 10, 12, 16, 20, 24)


def find_halo(method: Method, fitted: Fitted, pair: Pair, *, tolerance: float = TOLERANCE) -> int:
    """The halo of :func:`measure_halo`, measured once and kept in the user's cache.

    What it depends on is the key: method, model, ratio, PSF to a tenth of an HSI pixel, tolerance and
    version. A cache that cannot be read or written only costs the measurement.
    """
    psf = fitted.psf
    key = key_of(
        {
            "method": method.name,
            "model": file_sha256(method.path) if isinstance(method, CSAKD) else None,
            "ratio": psf.ratio,
            "psf": [round(v / psf.ratio, 1) for v in (psf.fwhm, abs(psf.dy), abs(psf.dx))],
            "stated": fitted.halo,
            "tolerance": tolerance,
            "version": __version__,
        }
    )
    path = platformdirs.user_cache_path("csakd-geo", appauthor=False) / "halos" / key
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        found = measure_halo(method, fitted, pair, tolerance=tolerance)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f"{key}.{os.getpid()}")
        staged.write_text(str(found), encoding="ascii")
        os.replace(staged, path)
    return found


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
