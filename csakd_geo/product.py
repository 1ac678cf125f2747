"""From a prepared job to a file: the target's checks, the super-tiles, the COG and its tags."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rasterio.crs import CRS

from csakd_geo.budget import Budget, workers
from csakd_geo.engine.graph import output_axis, writing_tasks
from csakd_geo.engine.kernel import output_window
from csakd_geo.engine.run import run_tasks
from csakd_geo.engine.store import Store, key_of
from csakd_geo.errors import OutputError
from csakd_geo.io.cog import RasterSpec, write_cog
from csakd_geo.io.encoding import choose_encoding
from csakd_geo.job import Job, Report
from csakd_geo.threads import one_blas_thread


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


def write_job(job: Job, target: Path, store: Store, *, report: Report) -> int:
    """Compute all super-tiles into the store, then finish: one valid COG at the target.

    Parameters
    ----------
    job : Job
    target : Path
    store : Store
        Locked by the caller.
    report : callable

    Returns
    -------
    int
        Number of values that were clipped by the encoding.

    Raises
    ------
    OutputError
        If the disk is full or the target cannot be written; the working folder is removed then.
    """
    scene, plan, bands = job.scene, job.plan, job.draft.bands
    encoding = choose_encoding(job.draft.options.dtype, source=scene.hsi, p999=job.level)
    record = {
        **job.notes,
        "encoding": encoding.to_dict(),
        "bands": list(bands),
        "inputs": [scene.hsi.fingerprint(), scene.msi.fingerprint()],
    }
    store.begin({**record, "key": key_of(record)}, job.fitted.to_bytes())
    try:
        tasks = writing_tasks(scene, job.choice.method, job.fitted, plan, bands, encoding, store)
        name = job.choice.method.name
        with one_blas_thread():
            done = run_tasks(
                tasks, lambda share: report("fuse", share, name), workers=workers(job.choice.method)
            )
        clipped = sum(done)
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
    except Exception:  # what is left of a failed run is of no use, and the disk may be full of it
        store.remove()
        raise
    store.remove()
    return clipped


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
    tags: dict[str, str] = {}
    for name, value in {**job.notes, "clipped_values": clipped, "warnings": list(job.warnings)}.items():
        text = value if isinstance(value, str) else json.dumps(value)
        tags[f"CSAKD_GEO_{name.upper()}"] = text
    return tags
