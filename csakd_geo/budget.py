"""What a run will take: memory, disk and time, from the plan alone and a short timing."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, replace

import numpy as np

from csakd_geo.engine.scene import Scene
from csakd_geo.errors import InputError, SpectralError
from csakd_geo.methods.base import Method
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.options import FuseOptions
from csakd_geo.pair import Pair
from csakd_geo.response import estimate_response
from csakd_geo.threads import one_blas_thread
from csakd_geo.tiling import Window, align

_SUPERTILE = 1024  # MSI pixels
_BARE_SUPERTILE = 512  # of a network without base, which needs less context
_TILE, _GPU_TILE = 512, 256  # MSI pixels; a GPU takes many at once
_LEAST_TILE = 64  # MSI pixels
_CUBE_BYTES = 400e6  # largest super-tile cube, as stored
_BASE_BYTES = 650e6  # interpreter, libraries, torch
_HALO = 14  # HSI pixels, typical
_FIT, _BARE_FIT = 2.0, 1.5  # what a fit takes over its inputs, of a method and of a network without base
_DRAWN = 75  # planes of a network's answers that are drawn to the images
_CUBES, _PLANES = 2.5, 60  # float32 cubes of a tile that a method works with, and planes beside them
_NEAR = 2  # HSI pixels of context that a network's tile sees, typical
_STREAMS = 22  # float32 maps per feature that a network holds at its peak, with what convolutions unfold
_GRAPH_BYTES = 800e6  # what is left of timing the graph runtimes beside torch
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


@dataclass(frozen=True, slots=True)
class Cutting:
    """How a scene is to be cut, in LR cells per side, and what is written of it.

    Parameters
    ----------
    tile, supertile : int
    bands : int
        To be written.
    size : int
        Bytes per stored value.
    blended : bool
        Super-tiles are held as float32 until they are stored.
    graph : bool
        ONNX Runtime or OpenVINO may run the network, which hold more at once.
    """

    tile: int
    supertile: int
    bands: int
    size: int
    blended: bool
    graph: bool = False


def pick_cutting(scene: Scene, method: Method, options: FuseOptions, *, bands: int) -> Cutting:
    """Tiles and super-tiles as asked for, or as large as pays and fits.

    Parameters
    ----------
    scene : Scene
    method : Method
        The one that is expected to run.
    options : FuseOptions
    bands : int
        To be written.

    Raises
    ------
    InputError
        If the smallest tiles need more memory than is allowed.
    """
    r, size = scene.grid.ratio, 2 if options.dtype == "int16" else 4
    blended = options.blend != "crop"
    network = method if isinstance(method, CSAKD) else None
    on_gpu = network is not None and network.device.startswith("cuda")
    tile = align(options.tile or (_GPU_TILE if on_gpu else _TILE), r)
    if options.supertile:
        supertile = -(-align(options.supertile, r) // tile) * tile
    else:
        bare = network is not None and network.card.base is None
        side = min(
            _BARE_SUPERTILE if bare else _SUPERTILE,
            int(np.sqrt(_CUBE_BYTES / ((4 if blended else size) * bands))),
        )
        supertile = max(1, side // (tile * r)) * tile
    graph = network is not None and not on_gpu and _may_use_graph(options)
    cutting = Cutting(tile, supertile, bands, size, blended, graph)
    if options.memory is None:
        return cutting
    allowed, least = parse_bytes(options.memory), align(_LEAST_TILE, r)
    while memory_of(scene, method, cutting) > allowed:
        if cutting.supertile > cutting.tile and not options.supertile:
            half = max(1, cutting.supertile // cutting.tile // 2) * cutting.tile
            cutting = replace(cutting, supertile=half)
        elif cutting.tile > least and not options.tile:
            tile = max(least, align(cutting.tile * r // 2, r))
            cutting = replace(cutting, tile=tile, supertile=max(tile, cutting.supertile // tile * tile))
        else:
            raise InputError(
                f"The run needs about {spell_bytes(memory_of(scene, method, cutting))} of memory at least, but "
                f"--memory allows {spell_bytes(allowed)}; allow more, or write fewer --bands."
            )
    return cutting


def _may_use_graph(options: FuseOptions) -> bool:
    from csakd_geo.models.runtime import PACKAGES, installed

    return any(name != "torch" and installed(name) and options.backend in ("auto", name) for name in PACKAGES)


def wide_tile(supertile: int, ratio: int) -> int:
    """Tile of a method that computes each from the images: the larger, the less context is done twice."""
    tile = align(_TILE, ratio)
    return tile if supertile % tile == 0 else supertile


def memory_of(scene: Scene, method: Method, cutting: Cutting) -> float:
    """Bytes of resident memory at the peak."""
    g = scene.grid
    r, good = g.ratio, len(scene.hsi_bands)
    longest = max(g.lr_height, g.lr_width)
    side = min(cutting.supertile, longest)
    seen = min(cutting.supertile + 2 * _HALO, longest)
    inner = min(cutting.tile + 2 * _HALO, longest) * r
    sample = sum(w.height * w.width for w in scene.sample_windows())
    fit: float = sample * (good * 8 * 4 + r * r * (len(scene.msi_bands) * 8 + 60 * 4))
    cube = cutting.bands * (side * r) ** 2 * (cutting.size + 4 * cutting.blended)
    read = seen**2 * 4.0 * (3 * good + r * r * 3 * len(scene.msi_bands))
    if isinstance(method, CSAKD):
        config = method.card.network
        near = min(cutting.tile + 2 * _NEAR, longest) * r
        base = (_PLANES + _DRAWN) * 4.0 * (seen * r) ** 2 if config.residual else 0.0
        fit *= _FIT if config.residual else _BARE_FIT
        work = _GRAPH_BYTES * cutting.graph + base
        work += 4.0 * near**2 * (_STREAMS * config.features + 3 * config.bands + 2 * good)
    else:
        fit *= _FIT
        work = 4.0 * inner**2 * (_CUBES * good + _PLANES)
    tiles = -(-g.lr_height // cutting.supertile) * -(-g.lr_width // cutting.supertile)
    held = min(workers(method), tiles)
    working = 1 if isinstance(method, CSAKD) else held  # a network lets in one at a time
    return float(_BASE_BYTES + max(fit, work * working + (cube + read) * held))


def estimate(scene: Scene, method: Method, cutting: Cutting, *, disk: float) -> Budget:
    """Estimate a run.

    The time is that of the method on a small patch of this scene on this machine, scaled to the
    whole, plus what encoding and writing usually take.

    Parameters
    ----------
    scene : Scene
    method : Method
        The one that is expected to run.
    cutting : Cutting
    disk : float
        Bytes on the disk at the peak of finishing, over those of the output without compression.
    """
    g = scene.grid
    output = float(cutting.bands * g.height * g.width * cutting.size)
    seconds = _seconds(scene, method) + output / 60e6
    return Budget(memory_of(scene, method, cutting), disk * output + 50e6, seconds, output)


def parse_bytes(text: str) -> float:
    """Bytes of ``4GB``, ``512 MB``, ``2GiB`` or a bare number."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([kKMGT]?)(i?)B?\s*", text)
    if found is None:
        raise InputError(f"'{text}' is no size; write one such as 4GB.")
    base = 1024 if found[3] else 1000
    return float(found[1]) * float(base ** " KMGT".index(found[2].upper() or " "))


def workers(method: Method) -> int:
    """Super-tiles in hand at once. A network takes all cores by itself, while the next one is read and the
    last one written; the others take a core each.
    """
    return 2 if isinstance(method, CSAKD) else min(4, os.cpu_count() or 1)


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
