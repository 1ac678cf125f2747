"""OUT.part: the working folder of a run. The listing of its super-tiles is the journal.

Layout: ``plan.json`` (everything that decides the pixels), ``fitted.npz`` and
``tiles/<row>_<col>.npy``, one encoded super-tile each, renamed into place when whole. Behind its
values a tile has its checksum and how many of them were clipped, so that a run which goes on
counts only what is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from csakd_geo.errors import OutputError
from csakd_geo.io.address import local_place
from csakd_geo.io.failure import plain_errors
from csakd_geo.tiling import Window

_TAIL = struct.Struct("<IQ")  # checksum of the values, number of clipped ones


class Store:
    """The working folder of one output.

    Parameters
    ----------
    target : Path
        The output; the folder is ``<target>.part`` beside it. That of an address is in the current folder;
        see `csakd_geo.io.address.local_place`.
    place : Path, optional
        What the folder is named after, if the current folder is not the one that the run began in.
    """

    def __init__(self, target: Path, place: Path | None = None) -> None:
        self.target = target
        self.place = local_place(target) if place is None else place
        self.folder = self.place.with_name(self.place.name + ".part")
        self._lock = FileLock(str(self.place.with_name(self.place.name + ".lock")))

    def __reduce__(self) -> tuple[type[Store], tuple[Path, Path]]:
        """Workers get the place without the lock, which the process that began the run holds."""
        return Store, (self.target, self.place.resolve())

    @property
    def tiles(self) -> Path:
        """Folder of the super-tiles."""
        return self.folder / "tiles"

    def begin(self, plan: dict[str, Any], fitted: bytes) -> None:
        """Remove what an earlier run left, and save the plan; the caller holds the lock.

        Raises
        ------
        OutputError
            If the folder cannot be made.
        """
        with plain_errors(self.target):
            if self.folder.exists() and not self.folder.is_dir():
                raise OutputError(f"'{self.folder}' is in the way of the working folder; move it away.")
            shutil.rmtree(self.folder, ignore_errors=True)
            self.tiles.mkdir(parents=True)
            _write_whole(self.folder / "fitted.npz", fitted)
            # the plan is written last: where it is, the rest is
            plan = {**plan, "fitted_sha256": hashlib.sha256(fitted).hexdigest()}
            _write_whole(self.folder / "plan.json", json.dumps(plan, indent=1, sort_keys=True).encode())

    def load(self) -> tuple[dict[str, Any], bytes] | None:
        """Plan and fit of the run that is here; None where there is none.

        Raises
        ------
        OutputError
            They are damaged.
        """
        try:
            plan: dict[str, Any] = json.loads((self.folder / "plan.json").read_bytes())
            fitted = (self.folder / "fitted.npz").read_bytes()
            if plan["fitted_sha256"] != hashlib.sha256(fitted).hexdigest():
                raise ValueError("the fit is not the one that the plan names")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"The plan in '{self.folder}' is damaged ({error}); run again without --resume to start afresh."
            ) from error
        return plan, fitted

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

    def put(self, area: Window, encoded: NDArray[Any], clipped: int = 0) -> None:
        """Keep one encoded super-tile, ``(band, y, x)``; it appears when it is whole."""
        path = self._path(area.row, area.col)
        encoded = np.ascontiguousarray(encoded)
        with plain_errors(self.target):
            staged = path.with_suffix(".tmp")
            with staged.open("wb") as stream:
                np.save(stream, encoded, allow_pickle=False)
                stream.write(_TAIL.pack(zlib.crc32(encoded.data), clipped))
            os.replace(staged, path)

    def done(self) -> dict[tuple[int, int], int]:
        """Row and column of the super-tiles that are whole, with their clipped values.

        Each is read and checked; one that is damaged is removed, to be computed again.
        """
        found: dict[tuple[int, int], int] = {}
        for path in sorted(self.tiles.glob("*.npy")):
            name = re.fullmatch(r"(\d+)_(\d+)", path.stem)
            if name is None:
                continue  # no run wrote it
            row, col = (int(part) for part in name.groups())
            clipped = _checked(path)
            if clipped is None:
                path.unlink(missing_ok=True)
            else:
                found[row, col] = clipped
        return found

    def count(self) -> int:
        """Super-tiles that are here, unchecked."""
        return len(list(self.tiles.glob("*.npy")))

    def _path(self, row: int, col: int) -> Path:
        return self.tiles / f"{row}_{col}.npy"

    def blocks(self, areas: list[Window]) -> Iterator[tuple[Window, Any]]:
        """All super-tiles in order, as `Staged` ones."""
        for area in areas:
            yield area, Staged(self._path(area.row, area.col))

    def tidy(self) -> None:
        """Remove what a run that goes on has no use of: half-written tiles and half-finished products."""
        kept = {self.folder / "plan.json", self.folder / "fitted.npz", self.tiles}
        for path in (*self.folder.glob("*"), *self.tiles.glob("*.tmp")):
            if path not in kept and path.is_file():
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the working folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Staged:
    """A super-tile on the disk that is indexed like an array ``(band, y, x)``.

    Its file is open and mapped only while it is looked at: a scene of many super-tiles takes neither
    memory nor open files for those that nobody looks at.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        mapped = self._mapped()
        self.shape: tuple[int, ...] = mapped.shape
        self.dtype: np.dtype[Any] = mapped.dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Values; they are mapped as long as the caller keeps them."""
        values: NDArray[Any] = self._mapped()[key]
        return values

    def _mapped(self) -> NDArray[Any]:
        values: NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return values


def key_of(plan: dict[str, Any]) -> str:
    """Hash of everything that decides the pixels."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def _checked(path: Path) -> int | None:
    """Number of clipped values of a tile whose checksum holds, else None."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        with path.open("rb") as stream:
            stream.seek(-_TAIL.size, os.SEEK_END)
            checksum, clipped = _TAIL.unpack(stream.read(_TAIL.size))
        whole = path.stat().st_size == values.offset + values.nbytes + _TAIL.size
        return int(clipped) if whole and zlib.crc32(np.ascontiguousarray(values).data) == checksum else None
    except (OSError, ValueError, EOFError, struct.error):
        return None


def _write_whole(path: Path, data: bytes) -> None:
    staged = path.with_suffix(".tmp")
    staged.write_bytes(data)
    os.replace(staged, path)
