"""Which backend runs the network: the fastest of those installed, by a short timing on one tile."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from typing import Any

import numpy as np
import platformdirs

from csakd_geo._version import __version__
from csakd_geo.engine.store import key_of
from csakd_geo.memory import kept_memory
from csakd_geo.methods.base import Cut, Fitted, begin
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.models import file_sha256
from csakd_geo.pair import Pair
from csakd_geo.tiling import TilePlan, Window, align

WORTH = 60.0  # seconds of fusing below which a timing, and the tracing before it, would not pay
_TIMED = 256  # MSI pixels per side of the tile that is timed, at most


def pick_backend(
    method: CSAKD, fitted: Fitted, pair: Pair, plan: TilePlan, *, precision: str = "float32"
) -> tuple[CSAKD, dict[str, float]]:
    """The method with the fastest backend, and seconds per tile of each that was timed.

    torch is timed first; where the whole run would take less than a minute, it stays. Where bf16 is
    allowed, each backend is timed in both precisions. A choice is kept in the user's cache, so that the
    same run takes the same backend again.

    Parameters
    ----------
    method : CSAKD
        Runs in torch.
    fitted : Fitted
    pair : Pair
        The tile is taken from its first block.
    plan : TilePlan
    precision : {"float32", "bf16"}
        The least that is asked for.
    """
    from csakd_geo.models.runtime import PACKAGES, installed

    candidates = [(name, "float32") for name in PACKAGES if installed(name)]
    if precision == "bf16":
        candidates += [(name, "bf16") for name, _ in candidates if name != "onnxruntime"]
    if method.device != "cpu":
        return method.running("torch", precision), {}
    tile = min(plan.tile, align(_TIMED, plan.ratio), *pair.blocks[0].valid.shape)
    tiles = plan.height * plan.width / tile**2
    first = _seconds(method, fitted, pair, tile)
    timed = {"torch float32": round(first, 4)}
    if first * tiles < WORTH or len(candidates) == 1:
        return method, timed
    key = key_of(
        {
            "model": file_sha256(method.path),
            "ratio": plan.ratio,
            "tile": tile,
            "candidates": candidates,
            "machine": [platform.processor(), platform.machine(), os.cpu_count()],
            "version": __version__,
        }
    )
    path = platformdirs.user_cache_path("csakd-geo", appauthor=False) / "backends" / key
    with suppress(OSError, ValueError):
        backend, kind = path.read_text(encoding="ascii").split()
        if (backend, kind) in candidates:
            return method.running(backend, kind), timed
    for backend, kind in candidates[1:]:
        CSAKD.release()  # each holds weights and scratch of its own, up to 1 GB that the run has better use for
        one = method.running(backend, kind)
        timed[f"{backend} {kind}"] = round(_seconds(one, fitted, pair, tile), 4)
    CSAKD.release()
    backend, kind = min(timed, key=lambda name: timed[name]).split()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f"{key}.{os.getpid()}")
        staged.write_text(f"{backend} {kind}", encoding="ascii")
        os.replace(staged, path)
    return method.running(backend, kind), timed


def _seconds(method: CSAKD, fitted: Fitted, pair: Pair, side: int) -> float:
    """Seconds of the fine streams over one tile; what is compiled or allocated at first does not count."""
    block, r = pair.blocks[0], pair.ratio
    seen = Window(0, 0, side, side)
    hsi: Any = np.ascontiguousarray(block.hsi[:, *seen.slices()])
    msi: Any = np.ascontiguousarray(block.msi[:, *seen.scaled(r).slices()])
    cut, took = Cut(seen, seen, np.ones((side * r, side * r), bool)), []
    with kept_memory():  # as in a run
        work = begin(method, fitted, hsi, msi, range(len(hsi)))
        for _ in range(3):
            begun = time.perf_counter()
            list(work.fuse([cut], None))
            took.append(time.perf_counter() - begun)
    return min(took[1:])
