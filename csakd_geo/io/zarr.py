"""Writing one Zarr store, v3 with shards or v2 without, from blocks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from affine import Affine
from zarr.codecs import ZstdCodec

from csakd_geo.errors import OutputError
from csakd_geo.io.address import address_of, is_store_at, publish
from csakd_geo.io.cf import NAME, CFCube
from csakd_geo.io.cog import Progress, RasterSpec, silent
from csakd_geo.io.cube import is_store
from csakd_geo.io.geozarr import geozarr_attributes
from csakd_geo.io.mosaic import Block, Mosaic
from csakd_geo.io.overviews import halve
from csakd_geo.io.placing import place, workspace

_LEVEL = 1  # of zstd: the fastest, as in the COG


def write_zarr(
    target: Path,
    spec: RasterSpec,
    blocks: Iterable[tuple[int, int, Block]],
    *,
    workdir: Path,
    progress: Progress | None = None,
    overviews: bool = False,
) -> None:
    """Write encoded blocks as one Zarr v3 group that appears at `target` when it is whole and checked.

    Chunks are 16 bands of 256 x 256 pixels, gathered in one shard per super-tile; each shard is written
    once and whole, because a write of less would read and write it again. The layout is CF; see
    `csakd_geo.io.cf`. Parameters and errors are those of `csakd_geo.io.cog.write_cog`; the target is a
    folder, and one that exists is moved aside first and put back if its successor cannot take its place. A
    target that is an address gets the store when it is finished here; see `csakd_geo.io.address.publish`.

    With `overviews`, groups ``overview_2``, ``overview_4``, ... of the same layout hold the image halved and
    halved again, until it fits into 256 x 256 pixels; the attribute ``multiscales`` names them.
    """
    _write(target, spec, blocks, workdir, progress, version=3, overviews=overviews)


def write_zarr2(
    target: Path,
    spec: RasterSpec,
    blocks: Iterable[tuple[int, int, Block]],
    *,
    workdir: Path,
    progress: Progress | None = None,
    overviews: bool = False,
) -> None:
    """Write a Zarr v2 group without shards, with consolidated metadata, which GDAL and QGIS read.

    Else as `write_zarr`.
    """
    _write(target, spec, blocks, workdir, progress, version=2, overviews=overviews)


def read_tags(target: Path) -> dict[str, str]:
    """Attributes of a store that are text; none where there is no store."""
    address = address_of(target)
    if not (is_store(target) if address is None else is_store_at(address)):
        return {}
    try:
        attrs = zarr.open(address or str(target), mode="r").attrs.asdict()
    except (OSError, ValueError, KeyError):
        return {}
    return {str(name): value for name, value in attrs.items() if isinstance(value, str)}


def _write(
    target: Path,
    spec: RasterSpec,
    blocks: Iterable[tuple[int, int, Block]],
    workdir: Path,
    progress: Progress | None,
    *,
    version: Literal[2, 3],
    overviews: bool,
) -> None:
    if target.is_dir() and not is_store(target):
        raise OutputError(f"'{target}' is a folder and no Zarr store; choose another name.")
    with workspace(target, workdir=workdir, needed=spec.nbytes) as folder:
        ready = folder / "ready.zarr"
        cube = CFCube(Mosaic(spec, blocks))
        factors = spec.overviews if overviews else []
        groups = [(f"overview_{factor}", factor) for factor in factors]
        paths = [(f"{group}/{NAME}", factor) for group, factor in groups]
        array = _begin(ready, cube, version, geozarr_attributes(spec, NAME, paths))
        for y, x, values in cube.parts(progress):
            array[:, y, x] = values
        for group, factor in groups:
            array = _halve(array, ready / group, cube, factor, version)
        if groups:
            _consolidate(ready, version)
        report = progress if progress is not None else silent

        def check(where: str) -> None:
            with xr.open_zarr(where, chunks=None, mask_and_scale=False, zarr_format=version) as found:
                cube.check(found[NAME])

        check(str(ready))
        address = address_of(target)
        if address is not None:
            publish(ready, address, check, lambda share: report("validate", share))
        report("validate", 1.0)
        if address is None:
            place([(ready, target)], aside=folder)


def _halve(
    finer: zarr.Array[Any], path: Path, cube: CFCube, factor: int, version: Literal[2, 3]
) -> zarr.Array[Any]:
    """Make an overview of the image or of the overview before it."""
    whole = cube.spec
    spec = replace(
        whole,
        height=-(-whole.height // factor),
        width=-(-whole.width // factor),
        transform=whole.transform * Affine.scale(factor),
        encoding=cube.encoding,
        tags={},
    )
    level = CFCube(Mosaic(spec, ()))
    array = _begin(path, level, version, geozarr_attributes(spec, NAME))
    for w in level.mosaic.windows(*level.region[1:]):
        end_row, end_col = w.row + w.height, w.col + w.width
        source = np.asarray(finer[:, 2 * w.row : 2 * end_row, 2 * w.col : 2 * end_col])
        array[:, w.row : end_row, w.col : end_col] = halve(source, spec.encoding.nodata)
    return array


def _consolidate(path: Path, version: Literal[2, 3]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
        zarr.consolidate_metadata(str(path), zarr_format=version)


def _begin(path: Path, cube: CFCube, version: Literal[2, 3], attributes: dict[str, Any]) -> zarr.Array[Any]:
    """The store with everything but pixels, and its empty array."""
    import dask.array as da

    dataset, encoding = cube.dataset().assign_attrs(attributes), cube.encoding
    nodata = np.dtype(encoding.dtype).type(encoding.nodata)
    how: dict[str, Any] = {"chunks": cube.chunks}
    if version == 3:
        how |= {"shards": cube.region, "compressors": (ZstdCodec(level=_LEVEL),), "fill_value": nodata}
    else:
        how["compressors"] = ({"id": "zstd", "level": _LEVEL},)
    shape = da.zeros(cube.shape, chunks=cube.region, dtype=encoding.dtype)
    dataset[NAME] = (("band", "y", "x"), shape, cube.attributes() | {"_FillValue": nodata})
    with warnings.catch_warnings():
        # In v3 it is an addition that readers may pass over, and that xarray misses where it is not.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
        dataset.to_zarr(
            str(path),
            mode="w-",
            compute=False,
            zarr_format=version,
            consolidated=True,
            encoding={NAME: how},
        )
    array = zarr.open_group(str(path), mode="r+")[NAME]
    if not isinstance(array, zarr.Array):
        raise OutputError(f"'{path}' was not begun as a Zarr array; report this.")
    return array
