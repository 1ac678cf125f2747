"""The plain tiled GeoTIFF that a COG is copied from, and its overviews.

Overviews are files of their own, ``NAME.tif.ovr``, ``NAME.tif.ovr.ovr``, ..., each half of the one before; the
first is made of the blocks while these are in memory. GDAL takes twice as long to make them.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from csakd_geo.io.mosaic import Block, check_block
from csakd_geo.io.overviews import halve
from csakd_geo.spectral import band_tags

if TYPE_CHECKING:
    from csakd_geo.io.cog import RasterSpec

_SIDE = 2048  # pixels of a window that is halved at once


def stage_levels(
    folder: Path,
    spec: RasterSpec,
    blocks: Iterable[tuple[int, int, Block]],
    report: Callable[[str, float], None],
) -> list[Path]:
    """Write blocks and all overviews into a folder, uncompressed.

    Returns
    -------
    list of Path
        The image, which GDAL opens with its overviews, and these.

    Raises
    ------
    OutputError
        If a block does not fit.
    OSError, rasterio.errors.RasterioError
        If writing fails.
    """
    levels = [folder / ("staged.tif" + k * ".ovr") for k in range(len(spec.overviews) + 1)]
    _stage(levels, spec, blocks, report)
    for k in range(1, len(levels) - 1):
        report("overviews", k / len(levels))
        _halve_file(levels[k], levels[k + 1], spec)
    report("overviews", 1.0)
    return levels


def _stage(
    levels: list[Path],
    spec: RasterSpec,
    blocks: Iterable[tuple[int, int, Block]],
    report: Callable[[str, float], None],
) -> None:
    """Write the blocks into the first file and, where there is a second, their halves into that."""
    written, total, seams = 0, spec.height * spec.width, _Seams(spec)
    report("write", 0.0)
    with ExitStack() as stack:
        described = {"crs": spec.crs, "transform": spec.transform, "photometric": "MINISBLACK"}
        dst = stack.enter_context(_begin(levels[0], spec, spec.height, spec.width, **described))
        _describe(dst, spec)
        half = None
        if len(levels) > 1:
            half = stack.enter_context(_begin(levels[1], spec, -(-spec.height // 2), -(-spec.width // 2)))
        for row, col, values in blocks:
            check_block(spec, row, col, values)
            cube = values[:]
            _, height, width = cube.shape
            dst.write(cube, window=Window(col, row, width, height))
            if half is not None:
                y, x = seams.inside(row, col, height, width)
                if y.start < y.stop and x.start < x.stop:
                    small = halve(
                        cube[:, y.start - row : y.stop - row, x.start - col : x.stop - col],
                        spec.encoding.nodata,
                    )
                    place = Window(x.start // 2, y.start // 2, small.shape[2], small.shape[1])
                    half.write(small, window=place)
            written += height * width
            report("write", min(1.0, written / total))
        if half is not None:
            for window in seams.windows():
                _halve_window(dst, half, window, spec)


class _Seams:
    """Where a square of two by two pixels lies in more than one block.

    Parameters
    ----------
    spec : RasterSpec
    """

    def __init__(self, spec: RasterSpec) -> None:
        self.spec = spec
        self.rows: set[int] = set()
        self.cols: set[int] = set()

    def inside(self, row: int, col: int, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of a block whose squares lie in it; the others are remembered."""
        return (
            _even(row, row + height, self.spec.height, self.rows),
            _even(col, col + width, self.spec.width, self.cols),
        )

    def windows(self) -> Iterator[Window]:
        """The remembered squares as strips."""
        yield from (Window(0, row, self.spec.width, 2) for row in sorted(self.rows))
        yield from (Window(col, 0, 2, self.spec.height) for col in sorted(self.cols))


def _even(start: int, stop: int, size: int, seams: set[int]) -> slice:
    seams.update(edge - 1 for edge in (start, stop) if edge % 2 and edge != size)
    return slice(start + start % 2, stop if stop == size else stop - stop % 2)


def _halve_file(source: Path, target: Path, spec: RasterSpec) -> None:
    """Make the next overview of an overview."""
    with open_raster(source) as src:
        height, width = src.shape
        with _begin(target, spec, -(-height // 2), -(-width // 2)) as dst:
            for row in range(0, height, _SIDE):
                for col in range(0, width, _SIDE):
                    window = Window(col, row, min(_SIDE, width - col), min(_SIDE, height - row))
                    _halve_window(src, dst, window, spec)


def _halve_window(src: Any, dst: Any, window: Window, spec: RasterSpec) -> None:
    """Halve what lies in a window that begins at an even row and column, band by band."""
    at = (window.col_off // 2, window.row_off // 2)
    for band in range(1, spec.axis.size + 1):
        small = halve(src.read([band], window=window), spec.encoding.nodata)
        dst.write(small, [band], window=Window(*at, small.shape[2], small.shape[1]))


def _begin(path: Path, spec: RasterSpec, height: int, width: int, **more: Any) -> Any:
    """A new uncompressed file with the blocks of the product."""
    profile = {
        "driver": "GTiff",
        "count": spec.axis.size,
        "height": height,
        "width": width,
        "dtype": spec.encoding.dtype,
        "nodata": spec.encoding.nodata,
        **layout(spec),
        "compress": "NONE",
        "predictor": 1,
        **more,
    }
    return open_raster(path, "w+", **profile)


def open_raster(path: Path, mode: str = "r", **profile: Any) -> Any:
    """Open a raster that may have no place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # an overview has the place of its image
        return rasterio.open(path, mode, **profile)


def layout(spec: RasterSpec) -> dict[str, Any]:
    """Creation options that the staged file and the copy share, with the copy's compression."""
    compress = spec.compress
    if compress == "auto":
        compress = "zstd" if _has_zstd() else "deflate"
    return {
        "tiled": True,
        "blockxsize": spec.blocksize,
        "blockysize": spec.blocksize,
        "interleave": "band",
        "bigtiff": "IF_SAFER",
        "compress": compress.upper(),
        f"{'zstd_level' if compress == 'zstd' else 'zlevel'}": 1,
        "predictor": 3 if spec.encoding.dtype == "float32" else 2,
    }


@functools.cache
def _has_zstd() -> bool:
    try:
        with (
            MemoryFile() as memory,
            memory.open(
                driver="GTiff",
                width=1,
                height=1,
                count=1,
                dtype="uint8",
                transform=Affine(1, 0, 1, 0, -1, 1),
                compress="ZSTD",
            ),
        ):
            return True
    except RasterioError:
        return False


def _describe(dst: Any, spec: RasterSpec) -> None:
    count, encoding = spec.axis.size, spec.encoding
    dst.update_tags(**spec.tags)
    dst.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (count - 1)
    dst.scales = encoding.scale * count if len(encoding.scale) == 1 else encoding.scale
    dst.offsets = encoding.offset * count if len(encoding.offset) == 1 else encoding.offset
    if spec.units:
        dst.units = (spec.units,) * count
    for i in range(count):
        imagery, default, description = band_tags(spec.axis, i)
        if imagery:
            dst.update_tags(i + 1, ns="IMAGERY", **imagery)
        dst.update_tags(i + 1, **default, **(spec.notes[i] if spec.notes else {}))
        dst.set_band_description(i + 1, description)
