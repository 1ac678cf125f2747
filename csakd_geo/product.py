"""From a prepared job to a file: the target's checks, the super-tiles, the COG and its tags."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS

from csakd_geo.budget import Budget, workers
from csakd_geo.engine.graph import output_axis, writing_tasks
from csakd_geo.engine.kernel import output_window
from csakd_geo.engine.run import Crew, run_tasks
from csakd_geo.engine.store import Store
from csakd_geo.errors import InputError, OutputError
from csakd_geo.io.cog import RasterSpec, write_cog
from csakd_geo.io.encoding import Encoding
from csakd_geo.job import Draft, Job, Report
from csakd_geo.resume import encoding_of, key_of_request, save_job
from csakd_geo.threads import one_blas_thread

_REQUEST = "CSAKD_GEO_REQUEST"


def check_target(target: Path, *, overwrite: bool, inputs: Sequence[str] = ()) -> None:
    """Refuse a target that cannot or must not be written, before any work.

    Parameters
    ----------
    target : Path
    overwrite : bool
        Whether it may exist.
    inputs : sequence of str
        What it must not be, whatever ``overwrite`` says.

    Raises
    ------
    OutputError
    """
    if target.is_dir():
        raise OutputError(
            f"The output '{target}' is a folder; give a file name such as {target / 'fused.tif'}."
        )
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise OutputError(f"The output '{target.name}' must end in .tif or .tiff.")
    if any(Path(path).exists() and target.exists() and target.samefile(path) for path in inputs):
        raise OutputError(f"The output '{target}' is one of the inputs; choose another name.")
    if target.exists() and not overwrite:
        raise OutputError(f"The output '{target}' exists; give --overwrite to replace it.")
    if not target.parent.is_dir():
        raise OutputError(f"The folder '{target.parent}' of the output does not exist; make it first.")


def check_space(target: Path, budget: Budget) -> None:
    """Refuse a run for which the disk has no room.

    Raises
    ------
    OutputError
    """
    free = shutil.disk_usage(target.parent).free
    if free < budget.disk:
        raise OutputError(
            f"The run needs about {budget.disk / 1e9:.2g} GB on the disk of '{target.parent}' but only "
            f"{free / 1e9:.2g} GB are free; free some space or write elsewhere."
        )


def write_job(job: Job, target: Path, store: Store, *, report: Report, resume: bool = False) -> int:
    """Compute all super-tiles into the store, then finish: one valid COG at the target.

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
    int
        Number of values that were clipped by the encoding.

    Raises
    ------
    InputError
        If a part of an input cannot be read; everything else has been computed then.
    OutputError
        If the disk is full or the target cannot be written. The working folder stays in both cases
        where it has a super-tile to go on with.
    """
    scene, bands, encoding = job.scene, job.draft.bands, encoding_of(job)
    if not resume:
        save_job(job, store)
    store.tidy()
    done = store.done()
    try:
        clipped = sum(done.values()) + _compute(job, store, encoding, done, report)
        grid = scene.grid
        spec = RasterSpec(
            height=grid.height,
            width=grid.width,
            transform=grid.output_affine,
            crs=CRS.from_wkt(grid.crs) if grid.crs else None,
            axis=output_axis(scene, bands),
            encoding=encoding,
            units=scene.hsi.units,
            tags=provenance_tags(job, clipped),
        )
        write_cog(target, spec, _placed(job, store), workdir=store.folder, progress=_finishing(report))
    except Exception:
        if store.count():
            store.tidy()
        else:
            store.remove()
        raise
    store.remove()
    return clipped


def _compute(
    job: Job, store: Store, encoding: Encoding, done: Collection[tuple[int, int]], report: Report
) -> int:
    """Compute the super-tiles that are not done; returns how many of their values were clipped."""
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
    return sum(found.clipped for found in written)


def is_finished(target: Path, draft: Draft) -> bool:
    """Whether the target is a product of the same request."""
    if not target.is_file():
        return False
    try:
        with rasterio.open(target) as src:
            return bool(src.tags().get(_REQUEST) == key_of_request(draft))
    except rasterio.errors.RasterioIOError:
        return False


def _placed(job: Job, store: Store) -> Iterator[tuple[int, int, NDArray[Any]]]:
    grid = job.scene.grid
    for area, encoded in store.blocks(job.plan.supertiles()):
        window = output_window(job.scene, area)
        if not window.empty:
            yield window.row - grid.top, window.col - grid.left, encoded


def _finishing(report: Report) -> Callable[[str, float], None]:
    starts = {"write": 0.0, "overviews": 0.4, "copy": 0.6, "validate": 0.95}
    order = [*starts.values(), 1.0]

    def progress(stage: str, share: float) -> None:
        k = list(starts).index(stage)
        report("write", order[k] + share * (order[k + 1] - order[k]), stage)

    return progress


def provenance_tags(job: Job, clipped: int) -> dict[str, str]:
    """Tags of the output file: one readable value per fact, nested ones as JSON."""
    tags: dict[str, str] = {_REQUEST: key_of_request(job.draft)}
    for name, value in {**job.notes, "clipped_values": clipped, "warnings": list(job.warnings)}.items():
        text = value if isinstance(value, str) else json.dumps(value)
        tags[f"CSAKD_GEO_{name.upper()}"] = text
    return tags
