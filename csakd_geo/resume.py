"""A prepared job as JSON in the working folder, and back: what a run needs to go on.

What was asked for (options, inputs, versions) has to be the same; what was found (shift, method,
fit, encoding) is taken from the folder, because an estimate or a training need not repeat.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shapely import from_wkb

from csakd_geo._version import __version__
from csakd_geo.choose import Choice
from csakd_geo.draft import Draft
from csakd_geo.engine.store import Store, key_of
from csakd_geo.errors import CsakdGeoError, InputError, OutputError
from csakd_geo.grid import lay_grid
from csakd_geo.io.encoding import Encoding, choose_encoding
from csakd_geo.job import STACK, Job
from csakd_geo.methods import get_method
from csakd_geo.methods.base import Fitted, Method
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.models import file_sha256, find_model
from csakd_geo.quality import Agreement
from csakd_geo.tiling import TilePlan
from csakd_geo.train.checkpoint import first_difference
from csakd_geo.uncertainty import Uncertainty


def request_of(draft: Draft) -> dict[str, Any]:
    """Everything that was asked for and that decides the pixels, as JSON values."""
    options = draft.options.model_dump(mode="json", exclude={"unreadable", "workers", "scheduler"})
    model = None if draft.options.model is None else file_sha256(find_model(draft.options.model))
    return {
        "options": options,
        "model_sha256": model,
        "hsi": draft.scene.hsi.fingerprint(),
        "msi": draft.scene.msi.fingerprint(),
        "area": None if draft.scene.area is None else draft.scene.area.hex(),
        "bands": list(draft.bands),
        "tile": draft.tile,
        "supertile": draft.supertile,
        "device": draft.device,
        "versions": {"csakd_geo": __version__, **{name: version(name) for name in STACK}},
    }


def key_of_request(draft: Draft) -> str:
    """Hash of :func:`request_of`; it is stored in the product."""
    return key_of(request_of(draft))


def encoding_of(job: Job) -> Encoding:
    """How the values of the job's bands are stored."""
    found = choose_encoding(job.draft.options.dtype, source=job.scene.hsi, p999=job.level)
    return found.take(job.draft.bands)


def save_job(job: Job, store: Store) -> None:
    """Begin a run: put the job into its working folder.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    method, grid = job.choice.method, job.scene.grid
    plan = asdict(job.plan)
    record = {
        "request": request_of(job.draft),
        "shift": [grid.shift_x, grid.shift_y],
        "method": method.name,
        "model": None,
        "reason": job.choice.reason,
        "scores": job.choice.scores,
        "plan": plan,
        "level": job.level,
        "notes": job.notes,
        "warnings": list(job.warnings),
        "uncertainty": None if job.uncertainty is None else job.uncertainty.to_dict(),
        "agreement": None if job.agreement is None else job.agreement.to_dict(),
    }
    if isinstance(method, CSAKD):
        record["model"] = {
            "path": str(method.path.resolve()),
            "sha256": file_sha256(method.path),
            "device": method.device,
            "statistics": method.statistics,
            "backend": method.backend,
            "precision": method.precision,
        }
    store.begin(record, job.fitted.to_bytes())


def load_job(draft: Draft, store: Store) -> Job | None:
    """The job of an earlier run with the same request; None where there is none.

    Raises
    ------
    InputError
        The run in the working folder was asked for something else, or its model has changed.
    OutputError
        The working folder is damaged.
    """
    found = store.load()
    if found is None:
        return None
    record, fitted = found
    try:
        differs = first_difference(record["request"], request_of(draft))
        if differs is not None:
            name, then, now = differs
            raise InputError(
                f"The run in '{store.folder}' was begun with {name.removeprefix('options.')} = {then!r}, but now "
                f"it is {now!r}; change it back, or run again without --resume to start afresh."
            )
        method = _method(record["method"], record["model"])
        draft = _moved(draft, tuple(record["shift"]))
        return Job(
            draft,
            Choice(method, record["reason"], record["scores"]),
            Fitted.from_bytes(fitted),
            TilePlan(**record["plan"]),
            float(record["level"]),
            record["notes"],
            tuple(record["warnings"]),
            None if record["uncertainty"] is None else Uncertainty.from_dict(record["uncertainty"]),
            None if record["agreement"] is None else Agreement.from_dict(record["agreement"]),
        )
    except CsakdGeoError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise OutputError(
            f"The plan in '{store.folder}' is damaged ({error}); run again without --resume to start afresh."
        ) from error


def _method(name: str, model: dict[str, Any] | None) -> Method:
    if model is None:
        return get_method(name)
    path = Path(model["path"])
    if file_sha256(path) != model["sha256"]:
        raise InputError(
            f"The model '{path}' is not the one that the run began with; restore it, or run again without "
            "--resume to start afresh."
        )
    rest = {name: model[name] for name in ("device", "statistics", "backend", "precision")}
    return CSAKD(path, **rest)


def _moved(draft: Draft, shift: tuple[float, float]) -> Draft:
    """The draft on the grid that the run found."""
    scene, grid = draft.scene, draft.scene.grid
    if shift == (grid.shift_x, grid.shift_y):
        return draft
    bounds = None if scene.area is None else from_wkb(scene.area).bounds
    moved = lay_grid(scene.hsi, scene.msi, ratio=grid.ratio, shift=shift, bounds=bounds)
    return replace(draft, scene=scene.with_grid(moved))
