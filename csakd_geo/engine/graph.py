"""The Dask graphs: a lazy DataArray for analysis, and a list of writing tasks for a run.

Two tasks of ours per super-tile at most; scene, method and fit are shared nodes of the graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed, delayed
from numpy.typing import NDArray

from csakd_geo.engine.kernel import fuse_supertile, output_window
from csakd_geo.engine.scene import Scene
from csakd_geo.engine.store import Store
from csakd_geo.errors import InputError
from csakd_geo.io.encoding import Encoding
from csakd_geo.memory import kept_memory
from csakd_geo.methods.base import Fitted, Method
from csakd_geo.spectral import SpectralAxis
from csakd_geo.tiling import TilePlan, Window


def all_bands(
    scene: Scene,
    method: Method,
    fitted: Fitted,
    plan: TilePlan,
    area: Window,
    bands: tuple[int, ...],
    encoding: Encoding | None = None,
    seen: Callable[[int], None] | None = None,
) -> tuple[NDArray[Any], int]:
    """One super-tile with the bands asked for, ``(band, y, x)``; those that are not good hold no data.

    Returns
    -------
    values : ndarray (band, y, x)
        As stored where there is an encoding, else physical float32.
    clipped : int
    """
    good = [band in scene.hsi_bands for band in bands]
    rows = [scene.hsi_bands.index(band) for band, is_good in zip(bands, good, strict=True) if is_good]
    places = np.flatnonzero(good)
    coded = None if encoding is None else encoding.take([int(k) for k in places])
    fused, clipped = fuse_supertile(scene, method, fitted, plan, area, rows=rows, encoding=coded, seen=seen)
    if len(rows) == len(bands):
        return fused, clipped
    missing = np.nan if encoding is None else encoding.nodata
    out = np.full((len(bands), *fused.shape[1:]), missing, fused.dtype)
    out[places] = fused
    return out, clipped


#: What a super-tile goes through in a run.
STAGES = ("read", "compute", "stage")


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one super-tile.

    Parameters
    ----------
    clipped : int
        Values that the encoding had to clip.
    failure : str or None
        Why its input could not be read.
    stages : dict of str to (float, float)
        Seconds of each of :data:`STAGES`, and the megabytes that passed through it, in memory.
    """

    clipped: int = 0
    failure: str | None = None
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)


def writing_tasks(
    scene: Scene,
    method: Method,
    fitted: Fitted,
    plan: TilePlan,
    bands: tuple[int, ...],
    encoding: Encoding,
    store: Store,
    *,
    done: Collection[tuple[int, int]] = (),
    unreadable: str = "fail",
) -> list[Delayed]:
    """One task per super-tile that is not done, in lattice order; each returns a :class:`Written`.

    Parameters
    ----------
    scene, method, fitted, plan, bands, encoding, store
        What a super-tile is made of, and where it goes.
    done : collection of (row, column)
        Super-tiles that are whole.
    unreadable : {"fail", "nodata"}
        Whether a super-tile whose input cannot be read is left out or holds no data.
    """
    shared = delayed((scene, method, fitted, plan), pure=False, traverse=False)
    task = delayed(_write, pure=False)
    return [
        task(shared, area, bands, encoding, store, unreadable)
        for area in plan.supertiles()
        if (area.row, area.col) not in done
    ]


def _write(
    shared: tuple[Scene, Method, Fitted, TilePlan],
    area: Window,
    bands: tuple[int, ...],
    encoding: Encoding,
    store: Store,
    unreadable: str,
) -> Written:
    failure, read = None, [(time.perf_counter(), 0)]

    def seen(nbytes: int) -> None:
        read.append((time.perf_counter(), nbytes))

    try:
        with kept_memory():
            encoded, clipped = all_bands(*shared, area, bands, encoding, seen)
    except InputError as error:
        failure = str(error)
        if unreadable == "fail":
            return Written(failure=failure)
        window = output_window(shared[0], area)
        shape = len(bands), window.height, window.width
        encoded, clipped = np.full(shape, encoding.nodata, encoding.dtype), 0
    fused = time.perf_counter()
    store.put(area, encoded, clipped)
    staged, size = time.perf_counter(), encoded.nbytes
    del encoded
    (begun, _), (there, nbytes) = read[0], read[-1]
    seconds = there - begun, fused - there, staged - fused
    sizes = nbytes / 1e6, size / 1e6, size / 1e6
    return Written(clipped, failure, dict(zip(STAGES, zip(seconds, sizes, strict=True), strict=True)))


def _fuse_shared(
    shared: tuple[Scene, Method, Fitted, TilePlan], area: Window, bands: tuple[int, ...]
) -> NDArray[np.float32]:
    with kept_memory():
        return all_bands(*shared, area, bands)[0]


def lazy_cube(
    scene: Scene,
    method: Method,
    fitted: Fitted,
    plan: TilePlan,
    bands: tuple[int, ...],
    attrs: dict[str, Any],
) -> xr.DataArray:
    """The fused cube, computed where it is looked at: ``(band, y, x)`` float32 with NaN.

    Chunks are super-tiles. Coordinates: ``band`` (1-based number in the HSI), ``wavelength`` and
    ``fwhm`` in nm, ``good``, pixel centres ``y`` and ``x``, and the CRS as ``spatial_ref``.
    """
    shared = delayed((scene, method, fitted, plan), pure=False, traverse=False)
    rows: dict[int, list[da.Array]] = {}
    for area in plan.supertiles():
        window = output_window(scene, area)
        if window.empty:
            continue
        value = delayed(_fuse_shared, pure=False)(shared, area, bands)
        block = da.from_delayed(value, (len(bands), window.height, window.width), np.float32)
        rows.setdefault(window.row, []).append(block)
    cube = da.concatenate([da.concatenate(row, axis=2) for row in rows.values()], axis=1)
    axis = output_axis(scene, bands)
    transform, (height, width) = scene.grid.output_affine, cube.shape[1:]
    array = xr.DataArray(
        cube,
        dims=("band", "y", "x"),
        coords={
            "band": np.asarray(bands) + 1,
            "wavelength": ("band", axis.wavelength, {"units": "nm", "standard_name": "radiation_wavelength"}),
            "fwhm": ("band", axis.fwhm, {"units": "nm"}),
            "good": ("band", axis.good),
            "band_name": ("band", np.array(axis.names)),
            "y": transform.f + (np.arange(height) + 0.5) * transform.e,
            "x": transform.c + (np.arange(width) + 0.5) * transform.a,
        },
        name="fused",
        attrs=attrs,
    )
    import rioxarray  # noqa: F401  (registers .rio)

    if scene.grid.crs:
        array = array.rio.write_crs(scene.grid.crs)
    placed: xr.DataArray = array.rio.write_transform(transform)
    return placed


def output_axis(scene: Scene, bands: tuple[int, ...]) -> SpectralAxis:
    """Spectral axis of the output: the HSI's, with what was found bad marked so."""
    good = np.zeros(scene.hsi.axis.size, bool)
    good[list(scene.hsi_bands)] = True
    return scene.hsi.axis.with_good(good).take(bands)
