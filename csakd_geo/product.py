"""From a prepared job to a product: the target's checks, the super-tiles, the file or folder and its tags."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from csakd_geo.budget import workers
from csakd_geo.draft import Draft
from csakd_geo.engine.graph import STAGES, Written, output_axis, writing_tasks
from csakd_geo.engine.kernel import output_window
from csakd_geo.engine.run import Crew, run_tasks
from csakd_geo.engine.store import Store
from csakd_geo.errors import InputError, OutputError
from csakd_geo.io.address import address_of, is_store_at, local_place
from csakd_geo.io.cog import RasterSpec
from csakd_geo.io.encoding import Encoding
from csakd_geo.io.formats import Format, find_format
from csakd_geo.io.mosaic import Mosaic
from csakd_geo.io.provenance import PREFIX, tags_of
from csakd_geo.job import Job, Report, prepare_job
from csakd_geo.layers import has_layers, layer_paths, write_layers
from csakd_geo.resume import encoding_of, key_of_request, load_job, save_job
from csakd_geo.target import check_space
from csakd_geo.threads import one_blas_thread

_REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Product:
    """What came of a run.

    Parameters
    ----------
    clipped : int
        Values that the encoding had to clip.
    seconds : dict of str to float
        Wall time of ``fuse`` (reading, computing, staging) and ``write`` (the product itself).
    stages : dict of str to dict
        What ``fuse`` consists of, see :func:`total_stages`.
    """

    clipped: int
    seconds: dict[str, float]
    stages: dict[str, dict[str, float]]


def write_job(job: Job, target: Path, store: Store, *, report: Report, resume: bool = False) -> Product:
    """Compute all super-tiles into the store, then finish: one valid product at the target.

    Parameters
    ----------
    job : Job
    target : Path
    store : Store
        Locked by the caller.
    report : callable
    resume : bool
        The job is that of the store, whose super-tiles are kept; else the store is begun anew.

    Returns
    -------
    Product

    Raises
    ------
    InputError
        If a part of an input cannot be read; everything else has been computed then.
    OutputError
        If the disk is full or the target cannot be written. The working folder stays in both cases
        where it has a super-tile to go on with.
    """
    scene, bands, encoding = job.scene, job.draft.bands, encoding_of(job)
    options = job.draft.options
    form = find_format(target, options.format)
    if options.overviews and form.levels == "never":
        raise OutputError(
            f"A product in the format {form.name} has no coarser levels; leave --overviews out."
        )
    if not resume:
        save_job(job, store)
    store.tidy()
    begun = time.perf_counter()
    areas = {(area.row, area.col) for area in job.plan.supertiles()}
    done = {place: clipped for place, clipped in store.done().items() if place in areas}
    try:
        written = _compute(job, store, encoding, done, report)
        clipped = sum(done.values()) + sum(part.clipped for part in written)
        stages, computed = total_stages(written), time.perf_counter()
        grid = scene.grid
        spec = RasterSpec(
            height=grid.height,
            width=grid.width,
            transform=grid.output_affine,
            crs=CRS.from_wkt(grid.crs) if grid.crs else None,
            axis=output_axis(scene, bands),
            encoding=encoding,
            units=scene.hsi.units,
            tags=provenance_tags(job, clipped, computed - begun, stages),
        )
        form.write(
            target,
            spec,
            _placed(job, store),
            workdir=store.folder,
            progress=_finishing(report, form),
            **({"overviews": True} if options.overviews and form.levels == "choice" else {}),
        )
        if layer_paths(target, options):
            product = Mosaic(spec, _placed(job, store))
            request = key_of_request(job.draft)
            write_layers(job, target, product, workdir=store.folder, request=request, report=report)
    except Exception:
        if store.count():
            store.tidy()
        else:
            store.remove()
        raise
    store.remove()
    seconds = {"fuse": computed - begun, "write": time.perf_counter() - computed}
    return Product(clipped, seconds, stages)


def _compute(
    job: Job, store: Store, encoding: Encoding, done: Collection[tuple[int, int]], report: Report
) -> list[Written]:
    """Compute the super-tiles that are not done."""
    method, options = job.choice.method, job.draft.options
    total = len(list(job.plan.supertiles()))
    tasks = writing_tasks(
        job.scene,
        method,
        job.fitted,
        job.plan,
        job.draft.bands,
        encoding,
        store,
        done=done,
        unreadable=options.unreadable,
    )

    def tell(share: float) -> None:
        report("fuse", (len(done) + share * len(tasks)) / total, method.name)

    with one_blas_thread():
        written = run_tasks(tasks, tell, Crew(workers(method), options.workers, options.scheduler))
    failures = [found.failure for found in written if found.failure is not None]
    if failures and options.unreadable == "fail":
        raise InputError(
            f"{len(failures)} of {total} parts of the scene could not be read, the rest is done: {failures[0]} "
            "(--unreadable nodata leaves such parts empty.)"
        )
    return written


def total_stages(written: Sequence[Written]) -> dict[str, dict[str, float]]:
    """Reading, computing and staging over the super-tiles of this run.

    Returns
    -------
    dict of str to dict
        ``seconds`` per stage, added up over what ran side by side, and ``mb_per_second`` of what passed
        through it in memory. Empty where nothing was left to compute.
    """
    parts = [part.stages for part in written if part.stages]
    if not parts:
        return {}
    totals = {name: np.sum([part[name] for part in parts], axis=0).tolist() for name in STAGES}
    return {
        name: {"seconds": round(seconds, 3), "mb_per_second": round(megabytes / max(seconds, 1e-9), 1)}
        for name, (seconds, megabytes) in totals.items()
    }


def is_finished(target: Path, draft: Draft) -> bool:
    """Whether the target is a product of the same request."""
    found = find_format(target, draft.options.format).tags(target).get(PREFIX + _REQUEST.upper())
    return found is not None and found == key_of_request(draft)


def is_settled(target: Path, draft: Draft, *, overwrite: bool) -> bool:
    """Whether a run that resumes has nothing left to do; what remains of its working folder goes.

    Raises
    ------
    OutputError
        The target was made with other settings and must not be replaced.
    """
    finished = is_finished(target, draft)
    if finished and has_layers(target, draft.options, key_of_request(draft)):
        Store(target).remove()  # where the run before was stopped after its last step
        return True
    address = address_of(target)
    if not (overwrite or finished) and (target.exists() if address is None else is_store_at(address)):
        raise OutputError(
            f"The output '{address or target}' exists and was made with other settings; give --overwrite to "
            "replace it."
        )
    return False


def model_path(target: Path) -> Path:
    """Where a model that is trained for an output goes."""
    return local_place(target).with_name(target.stem + ".model.safetensors")


def make_product(
    draft: Draft,
    target: Path,
    *,
    report: Report,
    resume: bool = False,
    ready: Callable[[Job], None] | None = None,
) -> tuple[Job, Product]:
    """Fit, compute and write under the output's lock.

    Parameters
    ----------
    draft : Draft
    target : Path
        Checked by :func:`check_target`.
    report : callable
    resume : bool
        Go on with a run of the same draft, where there is one.
    ready : callable, optional
        Gets the job before its first tile.

    Raises
    ------
    CsakdGeoError
        As :func:`check_space`, :func:`csakd_geo.job.prepare_job`, :func:`csakd_geo.resume.load_job` and
        :func:`write_job`, or another run is at the target.
    """
    check_space(target, draft.budget)
    store = Store(target)
    store.lock()
    try:
        found = load_job(draft, store) if resume else None
        job = found or prepare_job(draft, report=report, keep_model=model_path(target))
        if ready is not None:
            ready(job)
        return job, write_job(job, target, store, report=report, resume=found is not None)
    finally:
        store.unlock()


def _placed(job: Job, store: Store) -> Iterator[tuple[int, int, NDArray[Any]]]:
    grid = job.scene.grid
    for area, encoded in store.blocks(job.plan.supertiles()):
        window = output_window(job.scene, area)
        if not window.empty:
            yield window.row - grid.top, window.col - grid.left, encoded


def _finishing(report: Report, form: Format) -> Callable[[str, float], None]:
    starts = dict(form.stages)
    order = [*starts.values(), 1.0]

    def progress(stage: str, share: float) -> None:
        k = list(starts).index(stage)
        report("write", order[k] + share * (order[k + 1] - order[k]), stage)

    return progress


def provenance_tags(
    job: Job, clipped: int, seconds: float, stages: dict[str, dict[str, float]]
) -> dict[str, str]:
    """Tags of the output file: one readable value per fact, nested ones as JSON.

    `seconds` and `stages` are those of fusing; a file cannot hold how long its own writing took.
    """
    return tags_of(
        {
            _REQUEST: key_of_request(job.draft),
            **job.notes,
            "clipped_values": clipped,
            "warnings": list(job.warnings),
            "fuse_seconds": round(seconds, 1),
            "fuse_stages": stages,
        }
    )
