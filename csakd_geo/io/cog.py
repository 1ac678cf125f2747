"""Writing one validated, band-interleaved Cloud Optimized GeoTIFF from blocks.

Blocks go into a plain tiled GeoTIFF first and, halved, into its first overview; then come the other overviews,
then a copy that puts header, overviews and pixels in the order a COG needs. GDAL before 3.11 has no band
interleave in its COG driver, and a copy of a GTiff with its overviews passes validation and reads one band many
times faster.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate

from csakd_geo.errors import OutputError
from csakd_geo.io.encoding import Encoding
from csakd_geo.io.failure import plain_errors
from csakd_geo.io.gdal import gdal_settings
from csakd_geo.io.geotiff import layout, open_raster, stage_levels
from csakd_geo.io.mosaic import Block
from csakd_geo.spectral import SpectralAxis, band_tags

_CACHE = 64_000_000  # bytes: each block passes once

#: Called with the stage ("write", "overviews", "copy", "validate") and its share done, 0 to 1.
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, eq=False)
class RasterSpec:
    """Everything about a product file but its pixels.

    Parameters
    ----------
    height, width : int
    transform : affine.Affine
    crs : rasterio.crs.CRS or None
    axis : SpectralAxis
    encoding : Encoding
    units : str
        Of the physical values; empty where unknown.
    tags : dict of str
        For the dataset's default domain.
    compress : {"auto", "zstd", "deflate"}
        "auto" is zstd where this GDAL can write it, else deflate; both at their fastest level.
    blocksize : int
        Tile size in pixels, a multiple of 16.
    notes : tuple of dict of str
        More tags of each band, where there are any.
    """

    height: int
    width: int
    transform: Affine
    crs: CRS | None
    axis: SpectralAxis
    encoding: Encoding
    units: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    compress: Literal["auto", "zstd", "deflate"] = "auto"
    blocksize: int = 256
    notes: tuple[dict[str, str], ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of the pixels without compression or overviews."""
        return self.axis.size * self.height * self.width * np.dtype(self.encoding.dtype).itemsize

    @property
    def overviews(self) -> list[int]:
        """Decimations 2, 4, ... until the whole image fits into one tile."""
        levels: list[int] = []
        while max(self.height, self.width) > self.blocksize << len(levels):
            levels.append(2 << len(levels))
        return levels


def write_cog(
    target: Path,
    spec: RasterSpec,
    blocks: Iterable[tuple[int, int, Block]],
    *,
    workdir: Path,
    progress: Progress | None = None,
) -> None:
    """Write encoded blocks as one COG that appears at `target` when it is whole and valid.

    Parameters
    ----------
    target : Path
        Replaced if it exists, untouched if anything fails.
    spec : RasterSpec
    blocks : iterable of (row, col, `csakd_geo.io.mosaic.Block`)
        Encoded values with their upper left pixel. What no block covers is nodata.
    workdir : Path
        Existing folder on the target's filesystem; temporary files are made in it and removed.
    progress : callable, optional
        Called with the stage and its share done.

    Raises
    ------
    OutputError
        If the target cannot be written, space runs out, a block does not fit, or the result is invalid.
    """
    report = progress if progress is not None else silent
    _check(target, spec, workdir)
    with plain_errors(target):
        folder = Path(tempfile.mkdtemp(prefix="cog-", dir=workdir))
        try:
            # GDAL_PAM_ENABLED: metadata must be in the file, never in an .aux.xml that stays behind.
            with gdal_settings(cache=_CACHE, GDAL_NUM_THREADS="ALL_CPUS", GDAL_PAM_ENABLED="NO"):
                ready = folder / "ready.tif"
                levels = stage_levels(folder, spec, blocks, report)
                for path in levels:
                    _check_whole(path, spec.blocksize)
                report("copy", 0.0)
                rasterio.shutil.copy(
                    levels[0], ready, driver="GTiff", copy_src_overviews=True, **layout(spec)
                )
                for path in levels:
                    path.unlink()
                report("copy", 1.0)
                report("validate", 0.0)
                _check_whole(ready, spec.blocksize, len(spec.overviews))
                _validate(ready, spec)
                report("validate", 1.0)
            with ready.open("r+b") as stream:
                os.fsync(stream.fileno())
            os.replace(ready, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def silent(stage: str, share: float) -> None:
    """Progress that nobody wants."""


def _check(target: Path, spec: RasterSpec, workdir: Path) -> None:
    if target.is_dir():
        raise OutputError(f"'{target}' is a folder; give the name of a file to write.")
    for folder in (target.parent, workdir):
        if not folder.is_dir():
            raise OutputError(f"The folder '{folder}' does not exist; make it first.")
    if spec.blocksize < 16 or spec.blocksize % 16:
        raise OutputError(
            f"The block size {spec.blocksize} is not a multiple of 16; choose for instance 256."
        )
    needed = spec.nbytes * 4 // 3  # overviews add a third; the compressed copy comes on top
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise OutputError(
            f"'{target}' needs {needed / 1e9:.2f} GB of working space in '{workdir}' but {free / 1e9:.2f} GB "
            "are free; free some or choose another folder."
        )


def _check_whole(path: Path, blocksize: int, overviews: int = 0) -> None:
    """Raise OSError unless every tile of every band and overview is recorded and ends within the file.

    GDAL may report a full disk on the error stream only, and close and copy the file all the same.
    """
    size = path.stat().st_size
    with open_raster(path) as src:
        for overview in range(overviews + 1):
            rows, cols = (-(-side // (blocksize << overview)) for side in src.shape)
            level = {"ovr": overview - 1} if overview else {}
            for band in range(1, src.count + 1):
                for y, x in np.ndindex(rows, cols):
                    start = src.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band, **level)
                    length = src.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band, **level)
                    if start is None or length is None or int(start) + int(length) > size:
                        raise OSError(errno.ENOSPC, f"a tile of band {band} is missing")


def _validate(path: Path, spec: RasterSpec) -> None:
    """Raise OutputError unless the file is a COG of the right size with the metadata of every band."""
    valid, errors, _ = cog_validate(path, quiet=True)
    faults = [] if valid else list(errors)
    with rasterio.open(path) as src:
        if (src.count, src.height, src.width) != (spec.axis.size, spec.height, spec.width):
            faults.append(f"it has {src.count} x {src.height} x {src.width} values")
        if src.overviews(1) != spec.overviews:
            faults.append(f"it has the overviews {src.overviews(1)}, not {spec.overviews}")
        for i in range(src.count):
            imagery, default, _ = band_tags(spec.axis, i)
            tags = src.tags(i + 1)
            if src.tags(i + 1, ns="IMAGERY") != imagery or any(tags.get(k) != v for k, v in default.items()):
                faults.append(f"band {i + 1} lost its metadata")
    if faults:
        raise OutputError(f"The file written is no valid COG ({'; '.join(faults[:3])}); please report this.")
