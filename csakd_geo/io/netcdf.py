"""Writing one NetCDF-4 file from blocks."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr

from csakd_geo.errors import OutputError
from csakd_geo.io.cf import NAME, CFCube
from csakd_geo.io.cog import Progress, RasterSpec
from csakd_geo.io.mosaic import Block, Mosaic
from csakd_geo.io.placing import flush, place, workspace

_LEVEL = 1  # of zlib


def write_netcdf(
    target: Path,
    spec: RasterSpec,
    blocks: Iterable[tuple[int, int, Block]],
    *,
    workdir: Path,
    progress: Progress | None = None,
) -> None:
    """Write encoded blocks as one NetCDF-4 file that appears at `target` when it is whole and checked.

    Chunks are 16 bands of 256 x 256 pixels, shuffled and compressed with zlib; each is written once and
    whole. The layout is CF; see `csakd_geo.io.cf`. Parameters and errors are those of
    `csakd_geo.io.cog.write_cog`.
    """
    if target.is_dir():
        raise OutputError(f"'{target}' is a folder; give the name of a file to write.")
    with workspace(target, workdir=workdir, needed=spec.nbytes) as folder:
        ready = folder / "ready.nc"
        cube = CFCube(Mosaic(spec, blocks))
        _write(ready, cube, progress)
        with xr.open_dataset(ready, engine="h5netcdf", mask_and_scale=False, cache=False) as found:
            cube.check(found[NAME])
        if progress is not None:
            progress("validate", 1.0)
        flush(ready)
        place([(ready, target)], aside=folder)


def read_tags(target: Path) -> dict[str, str]:
    """Global attributes that are text; none where there is no NetCDF-4 file."""
    if not target.is_file() or not h5py.is_hdf5(target):
        return {}
    try:
        with h5netcdf.File(target, "r") as src:
            return {str(name): value for name, value in src.attrs.items() if isinstance(value, str)}
    except (OSError, ValueError, KeyError):
        return {}


class _Disk(io.FileIO):
    """A file that remembers the first write that failed and takes those that follow for done.

    HDF5 writes again whatever it could not, until its last object is gone, and complains each time.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        if self.failure is None:
            try:
                rest = memoryview(data).cast("B")
                while rest:
                    rest = rest[super().write(rest) or 0 :]
            except OSError as error:
                self.failure = error
        return size

    def check(self) -> None:
        """Raise what failed.

        Raises
        ------
        OSError
        """
        if self.failure is not None:
            raise self.failure


def _write(path: Path, cube: CFCube, progress: Progress | None) -> None:
    with _Disk(path, "w+b") as disk:
        try:
            with h5netcdf.File(disk, "w") as dst:
                _describe(dst, cube.dataset())
                _fill(dst, cube, disk, progress)
        except (OSError, RuntimeError, ValueError):
            disk.check()  # before what HDF5 made of it
            raise
        disk.check()


def _describe(dst: h5netcdf.File, dataset: xr.Dataset) -> None:
    """Everything but the pixels."""
    dst.dimensions = dict(dataset.sizes)
    dst.attrs.update(dataset.attrs)
    for name, variable in dataset.variables.items():
        made = dst.create_variable(str(name), variable.dims, variable.dtype, data=variable.values)
        made.attrs.update(variable.attrs)


def _fill(dst: h5netcdf.File, cube: CFCube, disk: _Disk, progress: Progress | None) -> None:
    encoding = cube.encoding
    kind = np.dtype(encoding.dtype)
    variable = dst.create_variable(
        NAME,
        ("band", "y", "x"),
        kind,
        fillvalue=kind.type(encoding.nodata),
        chunks=cube.chunks,
        compression="gzip",
        compression_opts=_LEVEL,
        shuffle=True,
    )
    variable.attrs.update(cube.attributes())
    for y, x, values in cube.parts(progress):
        variable[:, y, x] = values
        disk.check()
