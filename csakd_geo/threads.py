"""One BLAS thread: our matrices are many and small, and sums then come out the same everywhere.

Super-tiles run side by side instead, and torch keeps its own threads, which sleep where they have nothing to do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


class _Shared:
    """The limit is the process's: the first thread to enter sets it, the last to leave lifts it.

    A thread of its own holds it in between, because the library lets no thread lift another's.
    """

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.done = threading.Event()
        self.holder: threading.Thread | None = None

    def enter(self) -> None:
        with self.lock:
            if self.inside == 0:
                ready, self.done = threading.Event(), threading.Event()
                self.holder = threading.Thread(target=_hold, args=(ready, self.done), daemon=True)
                self.holder.start()
                ready.wait()
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0 and self.holder is not None:
                self.done.set()
                self.holder.join()
                self.holder = None


def _hold(ready: threading.Event, done: threading.Event) -> None:
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            ready.set()
            done.wait()
    finally:
        ready.set()


_shared = _Shared()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit NumPy's and SciPy's linear algebra to one thread in this process."""
    _shared.enter()
    try:
        yield
    finally:
        _shared.leave()


def let_threads_sleep() -> None:
    """Have OpenMP's threads sleep after a loop instead of waiting for the next one at full speed.

    Convolutions in Winograd's form have threads of their own, as have reading and writing, and a waiting thread
    takes a core from them: without, a dense block takes 0.8 of the time (``benchmarks/kernels.py --waiting``).
    Training is the slower for it. OpenMP reads the setting as it is loaded, so this comes before torch; a setting of the
    user's stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
