"""Memory that one super-tile leaves for the next."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from typing import Any


def give_back() -> None:
    """Hand freed memory back to the system, where the C library is glibc.

    glibc keeps what a thread has freed, with holes where the next arrays do not fit.
    """
    library = _libc()
    if library is not None:
        library.malloc_trim(0)


@functools.cache
def _libc() -> Any:
    """The C library, if it is glibc."""
    name = ctypes.util.find_library("c")
    library = None if name is None else ctypes.CDLL(name)
    return library if hasattr(library, "malloc_trim") else None
