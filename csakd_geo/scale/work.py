"""What one scene takes: measured now on a pair, or told by a finished product."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import rasterio

from csakd_geo.budget import memory_of, pick_cutting, spell_bytes, spell_seconds, wide_tile
from csakd_geo.draft import draft_job
from csakd_geo.engine.store import Store
from csakd_geo.errors import InputError
from csakd_geo.io import open_source
from csakd_geo.io.formats import FORMATS, find_format
from csakd_geo.io.provenance import PREFIX
from csakd_geo.job import Job, prepare_job
from csakd_geo.options import FuseOptions
from csakd_geo.product import write_job
from csakd_geo.tiling import TilePlan

TILE_PIXELS = 10_980  # of 10 m, per side of a Sentinel-2 tile
_WRITTEN = 60e6  # bytes per second that a core encodes and writes, where it was not measured
_SIZE = 2  # bytes per stored value
_SHORT = 20.0  # seconds of CPU time below which a run is done twice


@dataclass(frozen=True, slots=True)
class Work:
    """What one scene takes.

    Parameters
    ----------
    fit, fuse, write : float
        Seconds of one core. Super-tiles share out ``fuse``; the other two have one process each.
    read, written : float
        Bytes from and to the store.
    disk : float
        Bytes of working space until the product is whole.
    tasks : int
        Super-tiles.
    memory : float or None
        Bytes of a worker at its peak, where known.
    source : str
        Where these figures come from, in words.
    """

    fit: float
    fuse: float
    write: float
    read: float
    written: float
    disk: float
    tasks: int
    memory: float | None
    source: str

    def __str__(self) -> str:
        """As lines of Markdown."""
        memory = "unknown" if self.memory is None else spell_bytes(self.memory)
        return "\n".join(
            (
                f"- one core: fit {spell_seconds(self.fit)}, fuse {spell_seconds(self.fuse)}, "
                f"write {spell_seconds(self.write)}",
                f"- reads {spell_bytes(self.read)}, writes {spell_bytes(self.written)}, {self.tasks} super-tiles",
                f"- disk {spell_bytes(self.disk)}, memory per worker {memory}",
            )
        )


def measure(
    hsi: Path,
    msi: Path,
    folder: Path,
    options: FuseOptions,
    *,
    pixels: int = TILE_PIXELS,
    bands: int | None = None,
) -> Work:
    """Fuse a pair now, and say what a scene of the same sensors takes, on one core of this machine.

    CPU time counts, so that other processes do not disturb. What takes less than some seconds is done twice, since
    the first time loads libraries and fills caches.

    Parameters
    ----------
    hsi, msi : Path
    folder : Path
        Gets the fused image, ``scale.tif``.
    options : FuseOptions
    pixels : int
        MSI pixels per side of the scene.
    bands : int, optional
        Of its HSI; those of this one by default.

    Raises
    ------
    CsakdGeoError
    """
    target = folder / "scale.tif"
    job, spent = _run(hsi, msi, target, options)
    if sum(spent) < _SHORT:
        job, again = _run(hsi, msi, target, options)
        spent = tuple(map(min, spent, again))
    levels = _levels(target)
    spent = (*spent[:2], spent[2] * levels)
    return extrapolate(job, spent, round(target.stat().st_size * levels), pixels=pixels, bands=bands)


def _run(hsi: Path, msi: Path, target: Path, options: FuseOptions) -> tuple[Job, tuple[float, ...]]:
    """Fuse a pair; seconds of CPU time for fitting, fusing and writing."""
    spent = {"fit": 0.0, "fuse": 0.0, "write": 0.0}
    stage, last = "fit", time.process_time()

    def report(now: str, _share: float, _words: str) -> None:
        nonlocal stage, last
        clock = time.process_time()
        spent[stage] += clock - last
        stage, last = now, clock

    job = prepare_job(draft_job(hsi, msi, options), report=report)
    store = Store(target)
    store.lock()
    try:
        write_job(job, target, store, report=report)
    finally:
        store.unlock()
    report("write", 1.0, "")
    return job, tuple(spent.values())


def extrapolate(
    job: Job, spent: Sequence[float], size: int, *, pixels: int = TILE_PIXELS, bands: int | None = None
) -> Work:
    """What a scene takes, from what a smaller one of the same sensors took.

    A fit is scaled by the HSI pixels that it sees, fusing by those that the tiles see with their halos, writing by
    the output, all by the number of bands.

    Parameters
    ----------
    job : Job
    spent : sequence of float
        Its seconds of CPU time for fitting, fusing and writing.
    size : int
        Bytes of its product.
    pixels, bands : int
        As for :func:`measure`.
    """
    scene, plan, options = job.scene, job.plan, job.draft.options
    own = len(scene.hsi_bands)
    bands = bands or own
    cells = -(-pixels // plan.ratio)
    side = cells * plan.ratio
    grid = replace(scene.grid, lr_height=cells, lr_width=cells, top=0, left=0, height=side, width=side)
    large = replace(scene, grid=grid, hsi_bands=tuple(range(bands)))
    cutting = pick_cutting(large, job.choice.method, options, bands=bands)
    cut = replace(plan, height=cells, width=cells, tile=cutting.tile, supertile=cutting.supertile)
    if job.fitted.near is None and options.tile is None:
        cut = replace(cut, tile=wide_tile(cut.supertile, cut.ratio))
    output = bands * side**2 / (len(job.draft.bands) * scene.grid.height * scene.grid.width)
    sampled, sample = (sum(w.height * w.width for w in s.sample_windows()) for s in (large, scene))
    seen = sum(w.height * w.width for w in (cut.seen(list(cut.tiles(a))) for a in cut.supertiles()))
    return Work(
        fit=spent[0] * bands / own * sampled / sample,
        fuse=spent[1] * bands / own * _worked(cut) / _worked(plan),
        write=spent[2] * output,
        read=seen * _SIZE * (bands + len(scene.msi_bands) * plan.ratio**2.0),
        written=size * output,
        disk=FORMATS["cog"].disk * bands * side**2 * _SIZE,
        tasks=len(cut.supertiles()),
        memory=memory_of(large, job.choice.method, cutting),
        source=f"{job.choice.method.name}, measured now on '{Path(scene.hsi.name).name}' and "
        f"'{Path(scene.msi.name).name}'",
    )


def of_product(
    path: Path, *, pixels: int = TILE_PIXELS, bands: int | None = None, cores: int | None = None
) -> Work:
    """What a scene takes, from what a finished product says of the run that made it.

    Its seconds are wall times; all cores are taken to have been busy, which is the most that it can have been. The
    time of its writing is not in it and taken from its size.

    Parameters
    ----------
    path : Path
        Written by ``csakd-geo fuse``.
    pixels, bands : int
        As for :func:`measure`.
    cores : int, optional
        Of the machine that made it; as many as this one by default.

    Raises
    ------
    InputError
        If it says nothing of its run.
    """
    tags, source = find_format(path).tags(path), open_source(path)
    try:
        fit, fuse, ratio, tile, supertile, halo = (
            json.loads(tags[PREFIX + name])
            for name in ("FIT_SECONDS", "FUSE_SECONDS", "RATIO", "TILE", "SUPERTILE", "HALO")
        )
    except (KeyError, ValueError) as error:
        raise InputError(
            f"'{path}' does not say how long it took ({error}); give a product of csakd-geo fuse."
        ) from error
    height, width = source.height, source.width
    own, bands = source.axis.size, bands or source.axis.size
    cells = -(-pixels // ratio)
    plan = TilePlan(-(-height // ratio), -(-width // ratio), ratio, tile // ratio, supertile // ratio, halo)
    cut = replace(plan, height=cells, width=cells)
    output, more = float(bands * (cells * ratio) ** 2 * _SIZE), bands / own
    written = output * _bytes(path) * _levels(path) / (own * height * width * _SIZE)
    used = cores or os.cpu_count() or 1
    return Work(
        fit=fit * used * more,
        fuse=fuse * used * more * _worked(cut) / _worked(plan),
        write=output / _WRITTEN,
        read=_worked(cut) * _SIZE * (bands + 4.0 * ratio**2),
        written=written,
        disk=FORMATS["cog"].disk * output,
        tasks=len(cut.supertiles()),
        memory=None,
        source=f"{tags.get(PREFIX + 'METHOD', 'unknown method')}, told by '{path.name}' ({used} cores)",
    )


def _levels(path: Path) -> float:
    """What coarser levels add to a COG that is too small to have any."""
    if find_format(path).name != "cog":
        return 1.0
    with rasterio.open(path) as src:
        return 1.0 if src.overviews(1) else 4 / 3


def _bytes(path: Path) -> int:
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts if part.is_file())


def _worked(plan: TilePlan) -> int:
    """LR cells that all tiles see, halos and all."""
    return sum(
        tile.window.height * tile.window.width for area in plan.supertiles() for tile in plan.tiles(area)
    )
