"""What a run will take: memory, disk and time, from the plan alone and a short timing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

from csakd_geo.engine.scene import Scene
from csakd_geo.errors import SpectralError
from csakd_geo.methods.base import Method
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.pair import Pair
from csakd_geo.response import estimate_response
from csakd_geo.threads import one_blas_thread
from csakd_geo.tiling import Window

_SUPERTILE = 1024  # MSI pixels
_CUBE_BYTES = 400e6  # largest float32 super-tile cube
_BASE_BYTES = 700e6  # interpreter, libraries, torch
_HALO = 16  # HSI pixels, typical
_PLANES, _NETWORK_PLANES = 150, 450  # float32 planes that a method works with
_PROBE = 16  # HSI pixels per side of the patch that is timed
_PLACES = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75), (0.25, 0.75), (0.75, 0.25), (0, 0), (1, 1), (0, 1), (1, 0))


@dataclass(frozen=True, slots=True)
class Budget:
    """Expectations.

    Parameters
    ----------
    memory, disk : float
        Bytes at the peak.
    seconds : float
        Wall time without training.
    output : float
        Bytes of the output without compression.
    """

    memory: float
    disk: float
    seconds: float
    output: float


def pick_supertile(bands: int, tile: int, ratio: int, *, wanted: int = 0) -> int:
    """LR cells per side of a super-tile: a multiple of the tile.

    Parameters
    ----------
    bands : int
        Good HSI bands.
    tile : int
        LR cells.
    ratio : int
    wanted : int
        What was asked for, in LR cells; 0 chooses the largest whose cube stays small.
    """
    if wanted:
        return -(-wanted // tile) * tile
    side = min(_SUPERTILE, int(np.sqrt(_CUBE_BYTES / (4 * bands))))
    return max(1, side // (tile * ratio)) * tile


def estimate(scene: Scene, method: Method, *, tile: int, supertile: int, bands: int, dtype: str) -> Budget:
    """Estimate a run.

    The time is that of the method on a small patch of this scene on this machine, scaled to the
    whole, plus what encoding and writing usually take.

    Parameters
    ----------
    scene : Scene
    method : Method
        The one that is expected to run.
    tile, supertile : int
        LR cells.
    bands : int
        To be written.
    dtype : str
    """
    g = scene.grid
    r, good = g.ratio, len(scene.hsi_bands)
    size = 2 if dtype == "int16" else 4
    output = float(bands * g.height * g.width * size)
    side = min(supertile, max(g.lr_height, g.lr_width)) * r
    inner = min(tile + 2 * _HALO, max(g.lr_height, g.lr_width)) * r
    sample = sum(w.height * w.width for w in scene.sample_windows())
    fit = sample * (good * 8 * 4 + r * r * (len(scene.msi_bands) * 8 + 60 * 4))
    planes = _PLANES + (_NETWORK_PLANES if isinstance(method, CSAKD) else 0)
    supertile_bytes = 4.0 * (good * (2 * side**2 + 2 * inner**2) + planes * inner**2)
    supertile_bytes += bands * side**2 * size
    tiles = -(-g.lr_height // supertile) * -(-g.lr_width // supertile)
    memory = _BASE_BYTES + max(fit, supertile_bytes * min(workers(method), tiles))
    return Budget(memory, 3.4 * output + 50e6, _seconds(scene, method) + output / 60e6, output)


def workers(method: Method) -> int:
    """Super-tiles computed at once: a network takes all cores by itself, the others take one each."""
    return 1 if isinstance(method, CSAKD) else min(4, os.cpu_count() or 1)


def _seconds(scene: Scene, method: Method) -> float:
    """Seconds of fitting and applying a method, extrapolated from a patch.

    The middle comes first; where it is masked or flat (a lake), another patch is timed.
    """
    g = scene.grid
    height, width = min(_PROBE, g.lr_height), min(_PROBE, g.lr_width)
    for y, x in _PLACES:
        window = Window(round((g.lr_height - height) * y), round((g.lr_width - width) * x), height, width)
        block, _ = scene.block(window)
        pair = Pair(
            (block,), g.ratio, scene.hsi.axis.take(scene.hsi_bands), scene.msi.axis.take(scene.msi_bands)
        )
        begun = time.perf_counter()
        try:
            with one_blas_thread():
                fitted = method.fit(pair, estimate_response(pair, phase=False))
                method.apply(fitted, block.hsi, block.msi)
        except SpectralError:
            continue
        return (time.perf_counter() - begun) * g.lr_height * g.lr_width / (height * width)
    return 0.0


def spell_bytes(value: float) -> str:
    """``1.2 GB``."""
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{max(value, 1e6) / 1e6:.0f} MB"


def spell_seconds(value: float) -> str:
    """``about 3 min``."""
    if value < 90:
        return f"about {max(1, round(value))} s"
    return f"about {value / 60:.0f} min" if value < 5400 else f"about {value / 3600:.1f} h"
