"""Zarr stores and CF NetCDF files as images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from csakd_geo.errors import InputError
from csakd_geo.io.address import MARKS, address_of, read_mark
from csakd_geo.io.array import ArraySource

#: What libraries raise when a store is damaged.
_FAILURES = (OSError, RuntimeError, ValueError, KeyError, TypeError)


@dataclass(frozen=True, slots=True, eq=False)
class CubeSource(ArraySource):
    """One variable of a Zarr store or NetCDF file as a `csakd_geo.io.source.Source`.

    Nothing is loaded before it is read. GDAL reads the same files, but not Zarr v3 with shards, and it
    keeps wavelengths apart from the bands.
    """

    path: str

    @classmethod
    def open_path(cls, path: Path | str, *, name: str | None = None) -> CubeSource:
        """Find the image in a store or file.

        Raises
        ------
        InputError
            If it cannot be read, or holds no image or several.
        """
        address = address_of(path)
        title = name or address or Path(path).name
        found = find_cube(path)
        if found is None:
            raise InputError(
                f"'{title}' holds no image, or several; expected one variable (band, y, x) with a grid mapping."
            )
        array = ArraySource.open(found, name=title)
        facts = {entry.name: getattr(array, entry.name) for entry in fields(array)}
        names = found.coords["band"].attrs.get("band_names") if "band" in found.coords else None
        if isinstance(names, (list, tuple, np.ndarray)) and len(names) == array.axis.size:
            facts["axis"] = replace(array.axis, names=tuple(str(text) for text in names))
        facts["driver"] = "Zarr" if address or Path(path).is_dir() else "netCDF"
        return cls(**facts, path=address or str(path))

    def read(
        self, row: int, col: int, height: int, width: int, *, bands: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Physical values ``(band, y, x)`` of a window; see `csakd_geo.io.source.Source.read`."""
        try:
            return ArraySource.read(self, row, col, height, width, bands=bands)
        except _FAILURES as error:
            raise InputError(
                f"Reading {height} x {width} pixels at row {row}, column {col} of '{self.name}' failed "
                f"({_cause(error)}); the file may be damaged or incomplete."
            ) from error

    def fingerprint(self) -> str:
        """Name, size and time of change, of a store those of its metadata; of an address, what these say."""
        if address_of(self.path):
            return f"{self.path}|{hashlib.sha256(read_mark(self.path)).hexdigest()}"
        path = Path(self.path)
        seen = [path] if path.is_file() else [path / mark for mark in MARKS if (path / mark).is_file()]
        states = [os.stat(entry) for entry in seen]
        return "|".join([path.name, *(f"{state.st_size}|{state.st_mtime_ns}" for state in states)])


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return any((path / mark).is_file() for mark in MARKS)


def find_cube(place: Path | str) -> xr.DataArray | None:
    """The one image ``(band, y, x)`` with a grid mapping in a Zarr store or NetCDF-4 file, unread.

    None where there is none or more than one; a NetCDF file may then still be one that GDAL understands.

    Parameters
    ----------
    place : Path or str
        A file, a store, or the address of a store.

    Raises
    ------
    InputError
        If a store cannot be opened.
    """
    options: dict[str, Any] = {"mask_and_scale": False, "decode_coords": "all", "cache": False}
    address = address_of(place)
    store = address or (str(place) if Path(place).is_dir() else None)
    try:
        if store is not None:
            dataset = xr.open_dataset(store, engine="zarr", chunks=None, **options)
        else:
            dataset = xr.open_dataset(place, engine="h5netcdf", **options)
    except (*_FAILURES, ImportError) as error:
        if store is not None:
            name = address or Path(store).name
            raise InputError(f"'{name}' cannot be opened as a Zarr store ({_cause(error)}).") from error
        return None
    images = [
        array
        for array in dataset.data_vars.values()
        if array.ndim == 3 and ("grid_mapping" in array.encoding or "grid_mapping" in array.attrs)
    ]
    if len(images) != 1:
        dataset.close()
        return None
    return images[0]


def _cause(error: BaseException) -> str:
    return (str(error.__cause__ or error).strip() or type(error).__name__).rstrip(".").splitlines()[0]
