"""OUT.part: the working folder of a run. The listing of its super-tiles is the journal.

Layout: ``plan.json`` (everything that decides the pixels, its hash is the run's key),
``fitted.npz``, ``tiles/<row>_<col>.npy`` (encoded, one per super-tile, renamed into place when
whole), ``lock``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from csakd_geo.errors import OutputError
from csakd_geo.io.failure import plain_errors
from csakd_geo.tiling import Window


class Store:
    """The working folder of one output.

    Parameters
    ----------
    target : Path
        The output; the folder is ``<target>.part`` beside it.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.with_name(target.name + ".part")
        self._lock = FileLock(str(target.with_name(target.name + ".lock")))

    @property
    def tiles(self) -> Path:
        """Folder of the super-tiles."""
        return self.folder / "tiles"

    def begin(self, plan: dict[str, Any], fitted: bytes) -> None:
        """Lock, remove what an earlier run left, and save the plan.

        Raises
        ------
        OutputError
            If another run holds the lock, or the folder cannot be made.
        """
        with plain_errors(self.target):
            if self.folder.exists() and not self.folder.is_dir():
                raise OutputError(f"'{self.folder}' is in the way of the working folder; move it away.")
            shutil.rmtree(self.folder, ignore_errors=True)
            self.tiles.mkdir(parents=True)
            (self.folder / "fitted.npz").write_bytes(fitted)
            _write_whole(self.folder / "plan.json", json.dumps(plan, indent=1, sort_keys=True).encode())

    def lock(self) -> None:
        """Take the output for this process.

        Raises
        ------
        OutputError
            If another run is at it, or the folder is not there or not writable.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(
                f"Another run is writing '{self.target}'; wait for it or choose another output."
            ) from error
        except OSError as error:
            raise OutputError(
                f"'{self.target}' cannot be written ({error.strerror or error}); choose another folder."
            ) from error

    def unlock(self) -> None:
        """Give the output free; the lock file goes with it."""
        if self._lock.is_locked:
            self._lock.release()
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def put(self, area: Window, encoded: NDArray[Any]) -> None:
        """Keep one encoded super-tile, ``(band, y, x)``; it appears when it is whole."""
        path = self.tiles / f"{area.row}_{area.col}.npy"
        with plain_errors(self.target):
            staged = path.with_suffix(".tmp")
            with staged.open("wb") as stream:
                np.save(stream, encoded, allow_pickle=False)
            os.replace(staged, path)

    def done(self) -> set[tuple[int, int]]:
        """Row and column of the super-tiles that are whole."""
        names = (path.stem.split("_") for path in self.tiles.glob("*.npy"))
        return {(int(row), int(col)) for row, col in names}

    def blocks(self, areas: list[Window]) -> Iterator[tuple[Window, NDArray[Any]]]:
        """All super-tiles in order, read without loading them whole."""
        for area in areas:
            yield area, np.load(self.tiles / f"{area.row}_{area.col}.npy", mmap_mode="r", allow_pickle=False)

    def remove(self) -> None:
        """Remove the working folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def key_of(plan: dict[str, Any]) -> str:
    """Hash of everything that decides the pixels."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def _write_whole(path: Path, data: bytes) -> None:
    staged = path.with_suffix(".tmp")
    staged.write_bytes(data)
    os.replace(staged, path)
