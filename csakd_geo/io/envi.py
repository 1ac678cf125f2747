"""Writing one ENVI raster with its header from blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.warp import transform
from rasterio.windows import Window

from csakd_geo.errors import OutputError
from csakd_geo.io.axes import axis_from_dataset
from csakd_geo.io.cog import Progress, RasterSpec
from csakd_geo.io.mosaic import Block, Mosaic
from csakd_geo.io.placing import flush, place, workspace
from csakd_geo.spectral import SpectralAxis, band_tags

_SHIFT = 1e-3  # of a pixel, that a CRS in other words may move it
_STRIP = 256  # a strip has at least the pixels of a square of that side


def write_envi(
    target: Path,
    spec: RasterSpec,
    blocks: Iterable[tuple[int, int, Block]],
    *,
    workdir: Path,
    progress: Progress | None = None,
) -> None:
    """Write encoded blocks as one band-sequential ENVI raster, its header and GDAL's ``.aux.xml``.

    The header has wavelengths and widths in nm, the bad band list, band names, the ignore value, gains and
    offsets, and the place. It states a reflectance scale factor where the values are known to be
    reflectance. Provenance is in the ``.aux.xml``, which the raster does without. Parameters and errors
    are those of `csakd_geo.io.cog.write_cog`; what stands at the target is moved aside first and put back
    if its successor cannot take its place.
    """
    if target.is_dir():
        raise OutputError(f"'{target}' is a folder; give the name of a file to write.")
    with workspace(target, workdir=workdir, needed=spec.nbytes) as folder:
        ready = folder / target.name  # the header repeats the name
        mosaic = Mosaic(spec, blocks)
        with rasterio.Env(GDAL_PAM_ENABLED="YES"):
            _describe(ready, spec)
            _fill(ready, mosaic, progress)
            flush(ready)
            _check(ready, mosaic)
        if progress is not None:
            progress("validate", 1.0)
        aside = folder / "aside"
        aside.mkdir()
        files = [ready, *sidecars(ready)]
        for path in files[1:]:
            flush(path)
        place(list(zip(files, [target, *sidecars(target)], strict=True)), aside=aside)


def sidecars(target: Path) -> list[Path]:
    """The header and GDAL's file beside an ENVI raster."""
    return [target.with_suffix(".hdr"), target.with_name(target.name + ".aux.xml")]


def read_tags(target: Path) -> dict[str, str]:
    """Tags of a raster that GDAL opens; none where there is none."""
    if not target.is_file():
        return {}
    try:
        with rasterio.open(target) as src:
            return dict(src.tags())
    except RasterioError:
        return {}


def _describe(path: Path, spec: RasterSpec) -> None:
    """Header, GDAL's file beside it, and an empty raster."""
    encoding, count = spec.encoding, spec.axis.size
    scale, offset = (v * count if len(v) == 1 else v for v in (encoding.scale, encoding.offset))
    with rasterio.open(
        path,
        "w",
        driver="ENVI",
        interleave="bsq",
        count=count,
        height=spec.height,
        width=spec.width,
        dtype=encoding.dtype,
        crs=spec.crs,
        transform=spec.transform,
        nodata=encoding.nodata,
    ) as dst:
        if any(v != 1 for v in scale) or any(v != 0 for v in offset):
            dst.scales, dst.offsets = scale, offset
        if spec.units:
            dst.units = (spec.units,) * count
        for k, name in enumerate(_names(spec.axis), 1):
            dst.set_band_description(k, name)
        dst.update_tags(ns="ENVI", **_header(spec))
        dst.update_tags(**spec.tags)


def _fill(path: Path, mosaic: Mosaic, progress: Progress | None) -> None:
    """Write the pixels, band after band, in strips: GDAL would not say that the disk is full."""
    spec, itemsize = mosaic.spec, np.dtype(mosaic.spec.encoding.dtype).itemsize
    rows = max(_STRIP**2 // spec.width, mosaic.side**2 // spec.width, 1)
    with path.open("r+b") as stream:
        for window in mosaic.windows(rows, spec.width):
            for band, plane in enumerate(mosaic.read(window)):
                stream.seek((band * spec.height + window.row) * spec.width * itemsize)
                stream.write(plane.data)
            if progress is not None:
                progress("write", (window.row + window.height) / spec.height)


def _names(axis: SpectralAxis) -> list[str]:
    """Band names without the signs that part a header's lists."""
    return [re.sub("[,{}]", ";", band_tags(axis, k)[2]) for k in range(axis.size)]


def _header(spec: RasterSpec) -> dict[str, str]:
    """Fields that GDAL does not write of itself."""
    axis, encoding = spec.axis, spec.encoding
    fields = {"bbl": _listed(axis.good.astype(int))}
    if np.isfinite(axis.wavelength).any():
        fields |= {"wavelength": _listed(axis.wavelength), "wavelength_units": "Nanometers"}
    if np.isfinite(axis.fwhm).any():
        fields["fwhm"] = _listed(axis.fwhm)
    plain = len(encoding.scale) == 1 and encoding.offset == (0.0,)
    if spec.units == "reflectance" and plain and encoding.scale != (1.0,):
        fields["reflectance_scale_factor"] = f"{1 / encoding.scale[0]:.15g}"
    return fields


def _listed(values: NDArray[Any]) -> str:
    return "{" + ", ".join(f"{v:.10g}" for v in values) + "}"


def _check(path: Path, mosaic: Mosaic) -> None:
    """Raise unless the file is whole and says what it should."""
    spec, encoding = mosaic.spec, mosaic.spec.encoding
    if path.stat().st_size != spec.nbytes:
        raise OSError(f"a write error: {path.stat().st_size} of {spec.nbytes} bytes are there")
    faults = []
    with rasterio.open(path) as src:
        if (src.count, src.height, src.width) != (spec.axis.size, spec.height, spec.width) or any(
            kind != encoding.dtype for kind in src.dtypes
        ):
            faults.append(f"it has {src.count} x {src.height} x {src.width} {src.dtypes[0]} values")
        elif any(
            not np.array_equal(
                src.read(window=Window(w.col, w.row, w.width, w.height)),
                mosaic.read(w),
                equal_nan=encoding.dtype == "float32",
            )
            for w in mosaic.samples()
        ):
            faults.append("pixels differ")
        for found, wanted in ((src.scales, encoding.scale), (src.offsets, encoding.offset)):
            if not np.allclose(found, wanted, rtol=1e-12, atol=0):
                faults.append("scale or offset is lost")
        if not _same_place(src, spec):
            faults.append("its place is lost")
        axis = axis_from_dataset(src)
        known = replace(spec.axis, names=axis.names, nominal=axis.nominal)
        if not (
            np.allclose(axis.wavelength, known.wavelength, rtol=1e-9, equal_nan=True)
            and np.allclose(axis.fwhm, known.fwhm, rtol=1e-9, equal_nan=True)
            and np.array_equal(axis.good, known.good)
        ):
            faults.append("its band list is lost")
    if faults:
        raise OutputError(f"The file written is not what it should be ({'; '.join(faults)}); report this.")


def _same_place(src: rasterio.io.DatasetReader, spec: RasterSpec) -> bool:
    """Whether transform and CRS are those of the product; a header says a CRS in its own words."""
    if not src.transform.almost_equals(spec.transform, 1e-9 * max(abs(v) for v in spec.transform[:6])):
        return False
    if spec.crs is None or src.crs == spec.crs:
        return True
    if src.crs is None:
        return False
    t, across, down = spec.transform, spec.width / 2, spec.height / 2
    x, y = t.c + t.a * across + t.b * down, t.f + t.d * across + t.e * down
    xs, ys = transform(spec.crs, src.crs, [x], [y])
    return bool(np.hypot(xs[0] - x, ys[0] - y) < _SHIFT * abs(spec.transform.a))
