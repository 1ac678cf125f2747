"""Running writing tasks with progress: on this machine's threads, on processes of its own, or on a cluster."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import active_children, resource_tracker
from typing import TYPE_CHECKING, Any

import dask
from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import Delayed
from dask.system import CPU_COUNT

from csakd_geo.engine.graph import Written
from csakd_geo.errors import InputError, OutputError
from csakd_geo.memory import kept_memory

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from distributed import Client, LocalCluster

_PATIENCE = 15  # seconds that a scheduler has to answer
_ABSENCE = 300  # seconds that a worker has to start, and that there may be none while work waits
_LEAVE = 30  # seconds that workers have to end once they are told to
_STARTS = 3  # times that workers are started before one that dies at it is believed to do so always
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)  # what torch and BLAS read at their start
#: The sentence for ``NoWorkerError``, which work ends with that waits too long without any worker.
NO_WORKERS = "All workers died and none came back; ask for fewer, or give them more memory."
_ENVIRON = "distributed.nanny.pre-spawn-environ"
_WAITS = ("distributed.scheduler.no-workers-timeout", "distributed.deploy.lost-worker-timeout")


@dataclass(frozen=True, slots=True)
class Crew:
    """Who computes.

    Parameters
    ----------
    threads : int
        Super-tiles at once on this machine's threads, where there is neither of the others.
    processes : int or None
        So many worker processes of this machine, each with an equal share of its cores.
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
        Workers do not start, died again and again over one super-tile, or died and did not come back.
    """
    if not tasks:
        return []
    done(0.0)
    if crew.scheduler is None and crew.processes is None:
        with kept_memory(), _Count(len(tasks), done):
            return list(compute(*tasks, scheduler="threads", num_workers=crew.threads))
    with open_client(crew) as client:
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
def open_client(crew: Crew) -> Iterator[Client]:
    """A client of the crew's scheduler, or of worker processes that end with it.

    Raises
    ------
    InputError
        There is no scheduler at the address, or the package ``distributed`` is missing.
    OutputError
        Worker processes do not start.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            "Worker processes need the package distributed; install it with pip install 'csakd-geo[cluster]'."
        ) from error
    if crew.scheduler is None:
        with _own_cluster(crew.processes or 1) as cluster, Client(cluster) as client:
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


def _environ(processes: int) -> dict[str, Any]:
    """The environment of a worker: its share of the cores, where Dask would give it one, unless the user says."""
    share = os.environ.get(_THREADS[0]) or max(1, CPU_COUNT // processes)
    return {**dask.config.get(_ENVIRON), **dict.fromkeys(_THREADS, share)}


@contextmanager
def _own_cluster(processes: int) -> Iterator[LocalCluster]:
    """Worker processes of one task at a time, whose torch and BLAS share the cores.

    Dask leaves what it tells them in our environment, so that is taken out again. By itself it would wait for ever
    for workers that do not come or do not end, and give up those that take a while to come back.
    """
    environ = _environ(processes)
    before = {name: os.environ.get(name) for name in environ}
    try:
        with ExitStack() as stack:
            stack.enter_context(dask.config.set({_ENVIRON: environ, **dict.fromkeys(_WAITS, _ABSENCE)}))
            with _ctrl_c_later():
                others = set(active_children())
                cluster = _start(processes)
                stack.callback(_end, cluster, others)
            yield cluster
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(processes: int, *, starts: int = _STARTS) -> LocalCluster:
    """Start all workers; where one dies at it, Dask ends the others, and they are all started again."""
    from distributed import LocalCluster

    others = set(active_children())
    try:
        cluster = LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",  # any free port
            memory_limit=0,
            silence_logs=logging.CRITICAL,
            death_timeout=_ABSENCE,
        )
    except (RuntimeError, AssertionError, OSError) as error:  # one died, took too long, was not let start
        _kill_all_but(others)  # what Dask has left, where it does not answer
        if starts > 1 and isinstance(error, RuntimeError):
            return _start(processes, starts=starts - 1)
        raise OutputError(
            f"{processes} worker process{'es' * (processes > 1)} cannot be started: one died, or took more than "
            f"{_ABSENCE} s; ask for fewer, or give them more memory."
        ) from error
    for nanny in cluster.workers.values():
        nanny.death_timeout = None  # of a restart that died too, it would end the one that came after
    return cluster


def _end(cluster: LocalCluster, others: set[BaseProcess]) -> None:
    """Close it, and kill workers that do not end: one that was being started again may keep Dask waiting for ever.

    Dask may also forget such a one, and Python then waits for it at its exit.
    """
    with suppress(TimeoutError):
        cluster.close(timeout=_LEAVE)
    _kill_all_but(others)


def _kill_all_but(others: set[BaseProcess]) -> None:
    """End child processes that have come since there were these others."""
    for left in set(active_children()) - others:
        left.kill()


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Ctrl-C waits until the workers run, and never reaches them, who inherit this.

    A terminal sends it to all processes; a worker would die of it with a traceback while it is being closed.
    Windows knows no such mask and shows that traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which lets Ctrl-C through again where it starts
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)


def _gather(client: Client, tasks: list[Delayed], done: Callable[[float], None]) -> list[Written]:
    """Results as they come; a task whose worker died is given to another one by the scheduler.

    A result that has come is let go at once: what a worker that dies still holds is computed again.
    """
    from distributed import KilledWorker, as_completed
    from distributed.scheduler import NoWorkerError

    found: list[Written] = []
    futures = set(client.compute(tasks))
    try:
        for future in as_completed(futures):
            found.append(future.result())
            futures.discard(future)
            future.release()
            done(len(found) / len(tasks))
    except KilledWorker as error:
        raise OutputError(
            "Workers died again and again over one super-tile; give them more memory or choose a smaller "
            "--supertile."
        ) from error
    except NoWorkerError as error:
        raise OutputError(NO_WORKERS) from error
    finally:
        client.cancel(list(futures))
    return found
