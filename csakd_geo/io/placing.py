"""Where a product is made, and how it comes to its place: whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from csakd_geo.errors import OutputError
from csakd_geo.io.address import address_of
from csakd_geo.io.failure import plain_errors


@contextmanager
def workspace(target: Path, *, workdir: Path, needed: int) -> Iterator[Path]:
    """A new folder in `workdir` that is removed afterwards; errors inside become one sentence.

    Parameters
    ----------
    target : Path
        What is being written; may be an address.
    workdir : Path
        Existing folder, on the target's filesystem if that is local.
    needed : int
        Bytes that must be free there.

    Raises
    ------
    OutputError
        If a folder does not exist, space is short, or writing fails.
    """
    for folder in (workdir,) if address_of(target) else (target.parent, workdir):
        if not folder.is_dir():
            raise OutputError(f"The folder '{folder}' does not exist; make it first.")
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise OutputError(
            f"'{target}' needs {needed / 1e9:.2f} GB of working space in '{workdir}' but {free / 1e9:.2f} GB "
            "are free; free some or choose another folder."
        )
    with plain_errors(target):
        made = Path(tempfile.mkdtemp(prefix="product-", dir=workdir))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("r+b") as stream:
        os.fsync(stream.fileno())


def write_whole(target: Path, content: bytes) -> None:
    """Write a small file that appears when it is whole.

    Raises
    ------
    OutputError
        It cannot be written; what stood there is untouched.
    """
    part = target.with_name(f".{target.name}.part")
    with plain_errors(target):
        try:
            part.write_bytes(content)
            os.replace(part, target)
        finally:
            with suppress(OSError):  # the folder may be the very thing that is missing
                part.unlink(missing_ok=True)


def place(moves: Sequence[tuple[Path, Path]], *, aside: Path) -> None:
    """Put files or folders in place; if that fails half-way, everything is put back.

    A single file that replaces a file or nothing is put in place in one step.

    Parameters
    ----------
    moves : sequence of (Path, Path)
        What is ready, and where it goes.
    aside : Path
        Existing folder on the same filesystem that takes what stands there, until all is in place.

    Raises
    ------
    OSError
    """
    if len(moves) == 1 and moves[0][0].is_file() and not moves[0][1].is_dir():
        os.replace(*moves[0])
        return
    undo: list[tuple[Path, Path]] = []
    try:
        for k, (ready, target) in enumerate(moves):
            if target.exists():
                kept = aside / f"old-{k}"
                undo.append((kept, target))
                os.replace(target, kept)
            undo.append((target, ready))
            os.replace(ready, target)
    except BaseException:
        for source, back in reversed(undo):
            if source.exists() and not back.exists():
                os.replace(source, back)
        raise
