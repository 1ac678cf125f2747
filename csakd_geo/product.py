"""From a prepared job to a product: the target's checks, the super-tiles, the file or folder and its tags."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rasterio.crs import CRS

from csakd_geo.budget import Budget, workers
from csakd_geo.engine.graph import output_axis, writing_tasks
from csakd_geo.engine.kernel import output_window
from csakd_geo.engine.run import Crew, run_tasks
from csakd_geo.engine.store import Store
from csakd_geo.errors import InputError, OutputError
from csakd_geo.io.address import address_of, check_address, local_place
from csakd_geo.io.cog import RasterSpec
from csakd_geo.io.cube import is_store
from csakd_geo.io.encoding import Encoding
from csakd_geo.io.formats import Format, find_format
from csakd_geo.io.provenance import PREFIX, tags_of
from csakd_geo.job import Draft, Job, Report
from csakd_geo.resume import encoding_of, key_of_request, save_job
from csakd_geo.threads import one_blas_thread

_REQUEST = "request"


def check_target(
    target: Path, *, overwrite: bool, inputs: Sequence[str] = (), format: str | None = None
) -> Format:
    """Refuse a target that cannot or must not be written, before any work.

    Parameters
    ----------
    target : Path
    overwrite : bool
        Whether it may exist.
    inputs : sequence of str
        What it must not be, whatever ``overwrite`` says.
    format : str, optional
        Name of the format; by default the suffix says which.

    Returns
    -------
    Format

    Raises
    ------
    OutputError
    """
    address = address_of(target)
    if address is not None:
        found = find_format(target, format)
        if not found.folder:
            raise OutputError(
                f"The output '{address}' is an address, where only Zarr can be written; choose zarr, or a local path."
            )
        if address in {address_of(name) for name in inputs}:
            raise OutputError(f"The output '{address}' is one of the inputs; choose another name.")
        check_address(address, overwrite=overwrite)
        return found
    if target.is_dir() and format is None and not is_store(target):
        raise OutputError(
            f"The output '{target}' is a folder; give a file name such as {target / 'fused.tif'}."
        )
    found = find_format(target, format)
    if target.is_dir() and not (found.folder and is_store(target)):
        expected = "a Zarr store" if found.folder else "a file"
        raise OutputError(f"The output '{target}' is a folder, not {expected}; choose another name.")
    written = found.files(target)
    if len(set(written)) < len(written):
        raise OutputError(f"The output '{target}' would be its own header; choose another suffix.")
    kept = [path for name in inputs for path in _files_of(Path(name))]
    for path in (path for path in written if path.exists()):
        if any(path.samefile(other) or path in other.resolve().parents for other in kept):
            raise OutputError(f"The output '{path}' is one of the inputs; choose another name.")
        if not overwrite:
            raise OutputError(f"The output '{path}' exists; give --overwrite to replace it.")
    if not target.parent.is_dir():
        raise OutputError(f"The folder '{target.parent}' of the output does not exist; make it first.")
    return found


def _files_of(source: Path) -> list[Path]:
    """An input and the header beside it, where they are."""
    return [path for path in (source, source.with_suffix(".hdr")) if path.exists()] if source.name else []


def check_space(target: Path, budget: Budget) -> None:
    """Refuse a run for which the disk has no room.

    Raises
    ------
    OutputError
    """
    folder = local_place(target).parent
    free = shutil.disk_usage(folder).free
    if free < budget.disk:
        raise OutputError(
            f"The run needs about {budget.disk / 1e9:.2g} GB on the disk of '{folder}' but only "
            f"{free / 1e9:.2g} GB are free; free some space or write elsewhere."
        )


@dataclass(frozen=True, slots=True)
class Product:
    """What came of a run.

    Parameters
    ----------
    clipped : int
        Values that the encoding had to clip.
    seconds : dict of str to float
        Wall time of ``fuse`` (reading, computing, staging) and ``write`` (the product itself).
    """

    clipped: int
    seconds: dict[str, float]


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
        clipped = sum(done.values()) + _compute(job, store, encoding, done, report)
        computed = time.perf_counter()
        grid = scene.grid
        spec = RasterSpec(
            height=grid.height,
            width=grid.width,
            transform=grid.output_affine,
            crs=CRS.from_wkt(grid.crs) if grid.crs else None,
            axis=output_axis(scene, bands),
            encoding=encoding,
            units=scene.hsi.units,
            tags=provenance_tags(job, clipped, computed - begun),
        )
        form.write(
            target,
            spec,
            _placed(job, store),
            workdir=store.folder,
            progress=_finishing(report, form),
            **({"overviews": True} if options.overviews and form.levels == "choice" else {}),
        )
    except Exception:
        if store.count():
            store.tidy()
        else:
            store.remove()
        raise
    store.remove()
    return Product(clipped, {"fuse": computed - begun, "write": time.perf_counter() - computed})


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
    found = find_format(target, draft.options.format).tags(target).get(PREFIX + _REQUEST.upper())
    return found is not None and found == key_of_request(draft)


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


def provenance_tags(job: Job, clipped: int, seconds: float) -> dict[str, str]:
    """Tags of the output file: one readable value per fact, nested ones as JSON; `seconds` of computing."""
    return tags_of(
        {
            _REQUEST: key_of_request(job.draft),
            **job.notes,
            "clipped_values": clipped,
            "warnings": list(job.warnings),
            "fuse_seconds": round(seconds, 1),
        }
    )
