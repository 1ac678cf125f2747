"""One cube of an HDF5 or NetCDF-4 file, whatever the order of its axes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from csakd_geo.errors import InputError
from csakd_geo.io.source import ImageFacts, check_window, physical
from csakd_geo.spectral import SpectralAxis

#: What h5py raises when a file is damaged or not what it should be.
_FAILURES = (OSError, RuntimeError, KeyError, ValueError, TypeError)


@contextmanager
def opened(path: Path | str, name: str) -> Iterator[Any]:
    """An open `h5py.File`; what goes wrong inside becomes one sentence.

    Raises
    ------
    InputError
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except _FAILURES as error:
        cause = (str(error).strip().strip("'\"") or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"Reading '{name}' failed ({cause}); the file is incomplete or damaged.") from error


@dataclass(frozen=True, slots=True, eq=False)
class HdfCube(ImageFacts):
    """A dataset of three axes as a `csakd_geo.io.source.Source`. Each read opens the file, so it pickles.

    Parameters
    ----------
    path : str
    dataset : str
        Where the cube is in the file.
    order : str
        Its axes, such as ``yxb`` or ``ybx``.
    errors : str
        A dataset of the same shape that flags values; empty if there is none.
    error_values : tuple of int
        Flags that mean no data.
    """

    path: str
    dataset: str
    order: str
    errors: str = ""
    error_values: tuple[int, ...] = ()

    @classmethod
    def open(
        cls,
        file: Any,
        dataset: str,
        *,
        order: str,
        name: str,
        driver: str,
        axis: SpectralAxis,
        crs: CRS | None,
        transform: Affine,
        units: str,
        scale: float = 1.0,
        offset: float = 0.0,
        nodata: float | None = None,
        errors: str = "",
        error_values: tuple[int, ...] = (),
    ) -> HdfCube:
        """The facts of a dataset of an open file; scale and offset are those of the whole cube.

        Raises
        ------
        InputError
            If it is not there, or does not have the bands of `axis`.
        """
        if dataset not in file:
            raise InputError(
                f"'{name}' lacks the dataset '{dataset}'; it is no {driver} product, or incomplete."
            )
        cube = file[dataset]
        if cube.ndim != 3 or cube.shape[order.index("b")] != axis.size:
            raise InputError(
                f"'{dataset}' of '{name}' has the shape {tuple(cube.shape)}; expected {axis.size} bands along "
                f"axis {order.index('b') + 1} of 3."
            )
        return cls(
            path=str(file.filename),
            dataset=dataset,
            order=order,
            name=name,
            driver=driver,
            axis=axis,
            crs=crs,
            transform=transform,
            height=int(cube.shape[order.index("y")]),
            width=int(cube.shape[order.index("x")]),
            dtype=str(cube.dtype),
            nodata=nodata,
            scale=np.full(axis.size, float(scale)),
            offset=np.full(axis.size, float(offset)),
            units=units,
            integer=bool(np.issubdtype(cube.dtype, np.integer)),
            errors=errors if errors in file else "",
            error_values=error_values,
        )

    def read(
        self, row: int, col: int, height: int, width: int, *, bands: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Physical values ``(band, y, x)`` of a window; see `csakd_geo.io.source.Source.read`."""
        chosen = check_window(self, row, col, height, width, bands)
        with opened(self.path, self.name) as file:
            stored = self._window(file[self.dataset], row, col, height, width, chosen)
            missing = np.zeros(stored.shape, bool)
            if self.nodata is not None:
                missing |= stored == self.nodata
            if self.errors:
                flags = self._window(file[self.errors], row, col, height, width, chosen)
                missing |= np.isin(flags, self.error_values)
        return physical(stored, self.scale[chosen], self.offset[chosen], missing)

    def _window(
        self, dataset: Any, row: int, col: int, height: int, width: int, bands: Sequence[int]
    ) -> NDArray[Any]:
        """Stored values as ``(band, y, x)``; the stretch of bands that holds the wanted ones is read."""
        first, last = min(bands), max(bands) + 1
        place = {"b": slice(first, last), "y": slice(row, row + height), "x": slice(col, col + width)}
        seen = dataset[tuple(place[axis] for axis in self.order)]
        cube = np.transpose(seen, [self.order.index(axis) for axis in "byx"])
        return np.asarray(cube[[band - first for band in bands]])

    def fingerprint(self) -> str:
        """Name, size and time of change of the file."""
        state = os.stat(self.path)
        return f"{Path(self.path).name}|{state.st_size}|{state.st_mtime_ns}"


def attribute(node: Any, key: str, *, name: str) -> Any:
    """An attribute of a file, group or dataset: one value as a plain number or text, else an array.

    Raises
    ------
    InputError
        If it is not there.
    """
    if key not in node.attrs:
        raise InputError(f"'{name}' lacks the attribute '{key}'; the product is incomplete.")
    return plain(node.attrs[key])


def plain(value: Any) -> Any:
    """Bytes as text, and arrays of one element as that element."""
    array = np.asarray(value)
    if array.size == 1:
        item = array.reshape(-1)[0]
        return item.decode("utf-8", "replace") if isinstance(item, bytes) else item
    return array


def crs_of(text: Any, name: str) -> CRS:
    """CRS from an EPSG number or a WKT text.

    Raises
    ------
    InputError
        If it is neither.
    """
    from rasterio.errors import CRSError

    try:
        return CRS.from_epsg(int(text)) if str(text).strip().isdigit() else CRS.from_user_input(str(text))
    except CRSError as error:
        raise InputError(f"'{name}' names the CRS '{text}', which is not known.") from error
