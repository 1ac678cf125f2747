"""Running writing tasks on Dask's threads, with progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import Delayed

from csakd_geo.engine.graph import Written


class _Count(Callback):
    """Counts finished super-tiles."""

    def __init__(self, total: int, done: Callable[[float], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total, self.count, self.done = total, 0, done

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        if isinstance(result, Written):
            self.count += 1
            self.done(min(1.0, self.count / self.total))


def run_tasks(tasks: list[Delayed], done: Callable[[float], None], *, workers: int) -> list[Written]:
    """Run all tasks on the machine's threads.

    Parameters
    ----------
    tasks : list of Delayed
        Of :func:`writing_tasks`.
    done : callable
        Gets the share that is finished.
    workers : int
        Tasks at once.

    Returns
    -------
    list of Written
    """
    if not tasks:
        return []
    done(0.0)
    with _Count(len(tasks), done):
        return list(compute(*tasks, scheduler="threads", num_workers=workers))
