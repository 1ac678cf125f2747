"""One BLAS thread: our matrices are many and small, and sums then come out the same everywhere.

Super-tiles run side by side instead, and torch keeps its own threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit NumPy's and SciPy's linear algebra to one thread in this process."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
