"""Failed writes in plain words, for every format."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rasterio._err import (
    CPLE_BaseError,  # what GDAL raises while flushing; rasterio.errors has no name for it
)
from rasterio.errors import RasterioError

from csakd_geo.errors import OutputError


@contextmanager
def plain_errors(target: Path) -> Iterator[None]:
    """Turn what GDAL and the system raise while `target` is written into an OutputError of one sentence."""
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError) as error:
        text = str(error.__cause__ or error).strip().rstrip(".")
        if _is_full(error):
            raise OutputError(
                f"The disk is full (or failing): '{target}' was not written; free some space and run again."
            ) from error
        if isinstance(error, PermissionError) or "Permission denied" in text or "Read-only" in text:
            raise OutputError(
                f"'{target}' cannot be written (permission denied); close programs that have it open or choose "
                "another folder."
            ) from error
        raise OutputError(f"'{target}' was not written ({text}).") from error


def _is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that space ran out; GDAL and NumPy say it in words only."""
    words = (
        "no space left",
        "disk full",
        "not enough space",
        "enospc",
        "disk quota",
        "free disk space",
        "write error",
        " requested and ",  # so many values requested and so many written: ndarray.tofile
    )
    while error is not None:
        if isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            getattr(errno, "EDQUOT", errno.ENOSPC),
        ):
            return True
        if any(word in str(error).lower() for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False
