"""A cube written through the package's own writers, part by part."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import OutputError
from csakd_geo.io.address import address_of, local_place
from csakd_geo.io.cog import RasterSpec
from csakd_geo.io.encoding import Encoding, choose_encoding
from csakd_geo.io.placing import workspace
from csakd_geo.io.provenance import tags_of
from csakd_geo.target import check_target
from csakd_geo.tiling import Window

if TYPE_CHECKING:
    import xarray as xr

    from csakd_geo.io.array import ArraySource

_SIDE = 512  # pixels per side of what is encoded at once; a multiple of the formats' 256
_SAMPLE = 1 << 22  # values that the 99.9th percentile is taken from
_LOOKS = 64  # windows that these lie in, at most

Read = Callable[[Window], NDArray[np.float32]]


@dataclass(slots=True, eq=False)
class Part:
    """One window of a cube, read and encoded when its values are asked for; a `csakd_geo.io.mosaic.Block`."""

    read: Read
    window: Window
    bands: int
    encoding: Encoding
    clipped: dict[Window, int] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Bands, rows, columns."""
        return self.bands, self.window.height, self.window.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        return np.dtype(self.encoding.dtype)

    def __getitem__(self, key: Any, /) -> Any:
        stored, self.clipped[self.window] = self.encoding.encode(self.read(self.window))
        return stored[key]


def write_cube(
    source: ArraySource,
    target: Path,
    *,
    form: str,
    dtype: Literal["int16", "float32"],
    overwrite: bool,
) -> None:
    """Write a cube as one product that appears when it is whole.

    A cube of Dask chunks is computed once, chunk by chunk, into a file of float32 beside the target; any other
    is read in windows as the writer goes.

    Parameters
    ----------
    source : ArraySource
    target : Path
        May be an address where the format is Zarr.
    form : str
        Name in `csakd_geo.io.formats.FORMATS`.
    dtype : {"int16", "float32"}
        See `csakd_geo.io.encoding.choose_encoding`.
    overwrite : bool
        Whether the target may exist.

    Raises
    ------
    InputError
        If no pixel is valid.
    OutputError
        If the target exists, cannot be written, or the disk is full.
    """
    if address_of(target) is None and target.exists() and not overwrite:
        raise OutputError(f"The output '{target}' exists; pass overwrite=True to replace it.")
    writer = check_target(target, overwrite=overwrite, format=form).write
    shape = source.axis.size, source.height, source.width
    staged = source.array.chunks is not None
    needed = int(np.prod(shape)) * 4 if staged else 0
    with workspace(target, workdir=local_place(target).parent, needed=needed) as folder:
        read = _stage(source, folder / "values.npy") if staged else _reader(source)
        windows = list(_windows(source))
        level = float("nan") if dtype == "float32" else _level(source, read, windows)
        encoding = choose_encoding(dtype, source=source, p999=level)
        clipped: dict[Window, int] = {}
        spec = RasterSpec(
            height=source.height,
            width=source.width,
            transform=source.transform,
            crs=source.crs,
            axis=source.axis,
            encoding=encoding,
            units=source.units,
            tags=_tags(source.array),
        )
        parts = ((w.row, w.col, Part(read, w, shape[0], encoding, clipped)) for w in windows)
        writer(target, spec, parts, workdir=folder)
    lost = sum(clipped.values())
    if lost:
        sentence = f"{lost} values did not fit {encoding.dtype} and were clipped; dtype='float32' keeps them."
        warnings.warn(sentence, UserWarning, stacklevel=3)


class _Staged:
    """Float32 values in a file, written chunk by chunk and read in windows; mapped only while that lasts."""

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.path = path
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)

    def __call__(self, window: Window) -> NDArray[np.float32]:
        y, x = window.slices()
        return np.array(np.lib.format.open_memmap(self.path, mode="r")[:, y, x])

    def put(self, window: Window, values: NDArray[np.float32]) -> None:
        y, x = window.slices()
        np.lib.format.open_memmap(self.path, mode="r+")[:, y, x] = values


def _stage(source: ArraySource, path: Path) -> _Staged:
    staged = _Staged(path, (source.axis.size, source.height, source.width))
    rows, cols = (source.array.chunksizes[dim] for dim in ("y", "x"))
    row = 0
    for height in rows:
        col = 0
        for width in cols:
            window = Window(row, col, height, width)
            y, x = window.slices()
            part = replace(source, array=source.array[:, y, x].compute(), height=height, width=width)
            staged.put(window, part.read(0, 0, height, width))
            col += width
        row += height
    return staged


def _reader(source: ArraySource) -> Read:
    def read(window: Window) -> NDArray[np.float32]:
        return source.read(window.row, window.col, window.height, window.width)

    return read


def _windows(source: ArraySource) -> Iterator[Window]:
    for row in range(0, source.height, _SIDE):
        for col in range(0, source.width, _SIDE):
            yield Window(row, col, min(_SIDE, source.height - row), min(_SIDE, source.width - col))


def _level(source: ArraySource, read: Read, windows: list[Window]) -> float:
    """99.9th percentile of the good bands, over every n-th pixel of some windows all over the cube."""
    good = np.flatnonzero(source.axis.good)
    looked = windows[:: -(-len(windows) // _LOOKS)]
    step = max(1, round((good.size * sum(w.height * w.width for w in looked) / _SAMPLE) ** 0.5))
    seen = np.concatenate([read(w)[good, ::step, ::step].ravel() for w in looked])
    valid = seen[np.isfinite(seen)]
    return float(np.percentile(valid, 99.9)) if valid.size else float("nan")


def _tags(array: xr.DataArray) -> dict[str, str]:
    """What `csakd_geo.fuse` noted about a cube, as the command writes it; nothing of another's."""
    if "software" not in array.attrs:
        return {}
    return tags_of({k: v for k, v in array.attrs.items() if k not in ("units", "grid_mapping")})
