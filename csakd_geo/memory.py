"""Memory that one tile leaves for the next, and a run for the system."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

# Parameters of mallopt(3) by number. What they are set to afterwards is where glibc's own rules end up.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_INSIDE = {_TRIM_THRESHOLD: -1, _MMAP_MAX: 0, _ARENA_MAX: 1}
_AFTER = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20, _MMAP_MAX: 65536, _ARENA_MAX: 0}
_lock, _inside, _left = threading.Lock(), 0, 0
_OFTEN = 8  # super-tiles between two times that what lies idle is handed back
_TRIES = 64  # threads that are begun for one whose memory comes from the first arena
_PROBE = 1 << 16  # bytes: more than a thread keeps aside for itself, less than what is mapped by itself


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, the process keeps what it frees, and hands it back at the end, where the C library is glibc.

    By itself glibc returns arrays of more than 32 MB as they are freed. Those of one tile are as large as those of
    the last, and to have their pages cleared anew takes a tenth of a network's time. Threads that start inside
    share one arena, so that what one of them freed the next one takes. Gaps between what two super-tiles hold add
    up, so every eighth time that one of several leaves, what lies idle is handed back all the same.
    """
    global _inside, _left
    with _lock:
        _inside += 1
        if _inside == 1:
            _set(_INSIDE)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            _left = 0 if _inside == 0 else _left + 1
            if _inside == 0:
                _set(_AFTER)
            if _left % _OFTEN == 0:
                _give_back()


def share_arena() -> None:
    """Have all threads that start from now on share one arena, where the C library is glibc.

    In an arena of its own a thread takes and returns memory in pieces of 64 MB, whatever :func:`kept_memory` says:
    with two super-tiles in hand, that clears 0.8 million pages more for a scene of 1024 x 1024 pixels.
    """
    _AFTER[_ARENA_MAX] = 1
    _set({_ARENA_MAX: 1})


def roomy_thread(name: str) -> ThreadPoolExecutor:
    """One thread that keeps arrays of any size, where the C library is glibc and has it to give.

    Only the first of glibc's arenas holds more than 64 MB in a piece; larger arrays of another are the system's
    again as they are freed, and their pages are cleared anew for the next tile. A thread gets an arena with its first
    allocation, each in turn, so threads are begun until one has the first.

    Parameters
    ----------
    name : str
        Prefix of the thread's name.
    """
    with kept_memory():
        begun = [ThreadPoolExecutor(1, thread_name_prefix=name)]
        while not begun[-1].submit(_in_first_arena).result() and len(begun) < _TRIES:
            begun.append(ThreadPoolExecutor(1, thread_name_prefix=name))
    for other in begun[:-1]:
        other.shutdown()
    return begun[-1]


def _in_first_arena() -> bool:
    """Whether this thread's memory lies below the program break, or nobody can say; see brk(2)."""
    library = _libc()
    if library is None:
        return True
    library.malloc.restype = library.sbrk.restype = ctypes.c_void_p
    library.sbrk.argtypes, library.free.argtypes = [ctypes.c_ssize_t], [ctypes.c_void_p]
    place = library.malloc(_PROBE)
    library.free(place)
    return place is not None and bool(place < library.sbrk(0))


def _set(options: dict[int, int]) -> None:
    library = _libc()
    if library is not None:
        for option, value in options.items():
            library.mallopt(option, value)


def _give_back() -> None:
    library = _libc()
    if library is not None:
        library.malloc_trim(0)


@functools.cache
def _libc() -> Any:
    """The C library, if it is glibc."""
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return library if hasattr(library, "malloc_trim") else None
