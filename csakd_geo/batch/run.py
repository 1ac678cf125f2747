"""Running the scenes of a batch: one after the other, on worker processes, or on a Dask cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from csakd_geo.batch.manifest import Scene
from csakd_geo.draft import draft_job
from csakd_geo.engine.run import NO_WORKERS, Crew, open_client
from csakd_geo.errors import CsakdGeoError, InputError
from csakd_geo.evaluate import evaluate
from csakd_geo.footprint import footprint
from csakd_geo.io import open_source
from csakd_geo.io.failure import plain_errors
from csakd_geo.io.formats import find_format
from csakd_geo.io.provenance import read_facts
from csakd_geo.job import Report
from csakd_geo.layers import check_layers
from csakd_geo.options import make_options
from csakd_geo.product import is_settled, make_product
from csakd_geo.stac import item_path, write_item
from csakd_geo.target import check_target

if TYPE_CHECKING:
    from distributed import Client

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for all scenes of a batch.

    Parameters
    ----------
    options : dict
        Of ``fuse``; those of a row go before them.
    resume : bool
        Skip scenes that are finished with the same settings, go on with half-done ones.
    overwrite : bool
        Replace outputs that were made with other settings.
    quicklook, stac : bool
        Also draw a PNG, write a STAC item, beside each output.
    """

    options: dict[str, Any] = field(default_factory=dict)
    resume: bool = True
    overwrite: bool = False
    quicklook: bool = False
    stac: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one scene.

    Parameters
    ----------
    scene : Scene
    status : {"done", "skipped", "failed"}
        Skipped: it was finished before with the same settings.
    seconds : float
        Wall time.
    error : str
        One sentence, where it failed.
    facts : dict
        Provenance of the output, see `csakd_geo.io.provenance.read_facts`; empty where it failed.
    scores : dict of str to float
        ``psnr`` (dB), ``sam`` (deg), ``ergas`` against the scene's truth, where it has one.
    outline : bytes or None
        WKB of the output's footprint in longitude and latitude; of the MSI's where the scene failed.
    """

    scene: Scene
    status: Status
    seconds: float
    error: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    outline: bytes | None = None


def run_batch(
    scenes: Sequence[Scene],
    settings: Settings,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    report: Report | None = None,
) -> Iterator[Outcome]:
    """Fuse scene by scene; one that fails stops no other.

    Parameters
    ----------
    scenes : sequence of Scene
    settings : Settings
    workers : int, optional
        So many worker processes on this machine, each with one scene at a time.
    scheduler : str, optional
        Address of a Dask scheduler whose workers take a scene each; they see all files under the same paths.
    report : callable, optional
        Stages of the scene that is running, where scenes run one after the other.

    Yields
    ------
    Outcome
        In the order in which scenes end.

    Raises
    ------
    InputError
        There is no scheduler at the address, or the package ``distributed`` is missing.
    OutputError
        Worker processes do not start.
    """
    if workers is None and scheduler is None:
        for scene in scenes:
            yield fuse_scene(scene, settings, report=report)
        return
    with open_client(Crew(1, workers, scheduler)) as client:
        suspects: list[Scene] = []
        for scene, outcome in _together(client, scenes, settings):
            if outcome is None:
                suspects.append(scene)
            else:
                yield outcome
        # Dask blames all scenes that wait at a worker for its death; alone, only the one that kills dies again
        why = "Workers died again and again over this scene; give them more memory."
        for suspect in suspects:
            for scene, outcome in _together(client, [suspect], settings):
                yield outcome or Outcome(scene, "failed", 0.0, why)


def _together(
    client: Client, scenes: Sequence[Scene], settings: Settings
) -> Iterator[tuple[Scene, Outcome | None]]:
    """Scenes on the workers of a cluster, as they end; None where workers died again and again."""
    from distributed import KilledWorker, as_completed
    from distributed.scheduler import NoWorkerError

    alone = {"workers": None, "scheduler": None}  # a worker starts no workers
    futures = {client.submit(fuse_scene, scene, settings, alone, pure=False): scene for scene in scenes}
    try:
        for future in as_completed(list(futures)):
            try:
                yield futures[future], future.result()
            except KilledWorker:
                yield futures[future], None
            except NoWorkerError:
                yield futures[future], Outcome(futures[future], "failed", 0.0, NO_WORKERS)
    finally:
        client.cancel(list(futures))


def fuse_scene(
    scene: Scene,
    settings: Settings,
    forced: dict[str, Any] | None = None,
    *,
    report: Report | None = None,
) -> Outcome:
    """Fuse one scene as ``csakd-geo fuse`` does; whatever goes wrong is in the outcome.

    Parameters
    ----------
    scene : Scene
    settings : Settings
    forced : dict, optional
        Options that go before all others.
    report : callable, optional
    """
    begun = time.perf_counter()
    status: Status = "failed"
    error, facts, scores = "", {}, {}
    try:
        if scene.problem:
            raise InputError(scene.problem)
        status = _fuse(scene, settings, forced or {}, report or _silent)
        scores = _add(scene, settings, status)
        facts = read_facts(scene.out)
    except CsakdGeoError as caught:
        status, error = "failed", str(caught)
    except Exception as caught:
        if os.environ.get("CSAKD_GEO_DEBUG") == "1":
            raise
        status = "failed"
        error = f"Something went wrong that should not have ({type(caught).__name__}: {caught}); please report it."
    seconds = time.perf_counter() - begun
    outline = _outline(scene.msi if status == "failed" else scene.out)
    return Outcome(scene, status, round(seconds, 2), error, facts, scores, outline)


def _fuse(scene: Scene, settings: Settings, forced: dict[str, Any], report: Report) -> Status:
    options = make_options({**settings.options, **scene.options, **forced})
    target, resume = scene.out, settings.resume
    inputs = [scene.hsi, scene.msi, *([scene.truth] if scene.truth else [])]
    with plain_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    check_target(target, overwrite=settings.overwrite or resume, inputs=inputs, format=options.format)
    check_layers(target, options, overwrite=settings.overwrite or resume)
    options = options.model_copy(update={"format": find_format(target, options.format).name})
    draft = draft_job(scene.hsi, scene.msi, options)
    if scene.truth is not None:
        open_source(scene.truth)  # a wrong name is said now, not after the work
    if resume and is_settled(target, draft, overwrite=settings.overwrite):
        return "skipped"
    make_product(draft, target, report=report, resume=resume)
    return "done"


def _add(scene: Scene, settings: Settings, status: Status) -> dict[str, float]:
    """What is made of a finished output: scores, picture, item; pictures of an earlier run are kept."""
    picture = scene.out.with_name(scene.out.stem + ".quicklook.png")
    if settings.quicklook and not (status == "skipped" and picture.exists()):
        from csakd_geo.quicklook import draw_quicklook

        truth = None if scene.truth is None else open_source(scene.truth)
        fused, hsi, msi = (open_source(path) for path in (scene.out, scene.hsi, scene.msi))
        draw_quicklook(picture, hsi=hsi, msi=msi, fused=fused, truth=truth)
    if settings.stac and not (status == "skipped" and item_path(scene.out).exists()):
        write_item(scene.out, hsi=scene.hsi, msi=scene.msi)
    if scene.truth is None:
        return {}
    found = evaluate(scene.out, scene.truth, ratio=int(read_facts(scene.out)["ratio"])).scores
    return {"psnr": float(found.psnr), "sam": float(found.sam), "ergas": float(found.ergas)}


def _outline(image: Path | str) -> bytes | None:
    try:
        found = footprint(open_source(image))
    except CsakdGeoError:
        return None  # the image is the reason why the scene failed
    return None if found is None else bytes(found.wkb)


def _silent(stage: str, share: float, words: str) -> None:
    """Report nothing."""
