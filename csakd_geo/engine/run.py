"""Running writing tasks with progress: on this machine's threads, on processes of its own, or on a cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import Delayed

from csakd_geo.engine.graph import Written
from csakd_geo.errors import InputError, OutputError

if TYPE_CHECKING:
    from distributed import Client

_PATIENCE = 15  # seconds that a scheduler has to answer


@dataclass(frozen=True, slots=True)
class Crew:
    """Who computes.

    Parameters
    ----------
    threads : int
        Super-tiles at once on this machine's threads, where there is neither of the others.
    processes : int or None
        So many worker processes of this machine.
    scheduler : str or None
        Address of a Dask scheduler, such as ``tcp://host:8786``. Its workers have to see inputs, model and
        working folder under the same paths.
    """

    threads: int
    processes: int | None = None
    scheduler: str | None = None


def run_tasks(tasks: list[Delayed], done: Callable[[float], None], crew: Crew) -> list[Written]:
    """Run all tasks.

    Parameters
    ----------
    tasks : list of Delayed
        Of :func:`writing_tasks`.
    done : callable
        Gets the share that is finished.
    crew : Crew

    Returns
    -------
    list of Written
        In no particular order.

    Raises
    ------
    InputError
        There is no scheduler at the address, or the package ``distributed`` is missing.
    OutputError
        Workers died again and again over one super-tile.
    """
    if not tasks:
        return []
    done(0.0)
    if crew.scheduler is None and crew.processes is None:
        with _Count(len(tasks), done):
            return list(compute(*tasks, scheduler="threads", num_workers=crew.threads))
    with _client(crew) as client:
        return _gather(client, tasks, done)


class _Count(Callback):
    """Counts finished super-tiles."""

    def __init__(self, total: int, done: Callable[[float], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total, self.count, self.done = total, 0, done

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        if isinstance(result, Written):
            self.count += 1
            self.done(min(1.0, self.count / self.total))


@contextmanager
def _client(crew: Crew) -> Iterator[Client]:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError(
            "Worker processes need the package distributed; install it with pip install 'csakd-geo[cluster]'."
        ) from error
    if crew.scheduler is None:
        with (
            LocalCluster(
                n_workers=crew.processes,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(crew.scheduler, timeout=_PATIENCE)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"No Dask scheduler answers at '{crew.scheduler}'; start one, or leave --scheduler out."
        ) from error
    with client:
        yield client


def _gather(client: Client, tasks: list[Delayed], done: Callable[[float], None]) -> list[Written]:
    """Results as they come; a task whose worker died is given to another one by the scheduler."""
    from distributed import KilledWorker, as_completed

    found: list[Written] = []
    futures = client.compute(tasks)
    try:
        for future in as_completed(futures):
            found.append(future.result())
            done(len(found) / len(tasks))
    except KilledWorker as error:
        raise OutputError(
            "Workers died again and again over one super-tile; give them more memory or choose a smaller "
            "--supertile."
        ) from error
    finally:
        client.cancel(futures)
    return found
