"""Images that GDAL opens: GeoTIFF, COG, ENVI and the like."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # rasterio.errors has no name for what GDAL itself raises
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from csakd_geo.errors import InputError
from csakd_geo.io.address import address_of
from csakd_geo.io.axes import axis_from_dataset, envi_fields
from csakd_geo.io.gdal import gdal_settings
from csakd_geo.io.source import ImageFacts, check_window, physical, quantity

#: Datasets kept open per thread; a fusion reads two.
_OPEN_PER_THREAD = 4


class _Handles(threading.local):
    """Open datasets of one thread, by process, path and state of the file; the oldest is closed first."""

    def __init__(self) -> None:
        self.datasets: OrderedDict[tuple[int, str, str], Any] = OrderedDict()

    def get(self, path: str, stamp: str) -> Any:
        key = (os.getpid(), path, stamp)
        dataset = self.datasets.pop(key, None)
        if dataset is None:
            dataset = rasterio.open(path)
        self.datasets[key] = dataset
        while len(self.datasets) > _OPEN_PER_THREAD:
            _, oldest = self.datasets.popitem(last=False)
            oldest.close()
        return dataset

    def close(self) -> None:
        while self.datasets:
            self.datasets.popitem()[1].close()


_handles = _Handles()


def close_handles() -> None:
    """Close the datasets that reads of this thread keep open, for instance to replace their files."""
    _handles.close()


@dataclass(frozen=True, slots=True, eq=False)
class RasterSource(ImageFacts):
    """A raster file or GDAL path as a `csakd_geo.io.source.Source`; made by `RasterSource.open`.

    Holds facts and the path only, so it pickles. Reads open the file when they need it and keep a few
    datasets open per thread. An alpha band is a mask, not a band.
    """

    path: str
    indexes: tuple[int, ...]
    nodata_values: tuple[float | None, ...]
    masked: bool
    stamp: str

    @classmethod
    def open(cls, path: Path | str, *, name: str | None = None) -> RasterSource:
        """Read the facts of a raster.

        Raises
        ------
        InputError
            If GDAL cannot open it, or it has no bands, no geotransform or complex values.
        """
        text = str(path)
        title = name or (Path(text).name if Path(text).exists() else text)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with gdal_settings(), rasterio.open(text) as src:
                    return cls._from_dataset(src, text, title)
        except (RasterioError, CPLE_BaseError, OSError) as error:
            if address_of(text):
                raise InputError(
                    f"'{title}' cannot be opened ({_cause(error)}); check the address, the access rights and the "
                    "network."
                ) from error
            raise InputError(
                f"'{title}' cannot be opened as a raster ({_cause(error)}); expected a GeoTIFF, COG, ENVI or "
                "other file that GDAL reads."
            ) from error

    @classmethod
    def _from_dataset(cls, src: Any, path: str, name: str) -> RasterSource:
        if src.count == 0:
            inner = ", ".join(src.subdatasets[:3])
            hint = f"; open one of its parts, such as {inner}" if inner else ""
            raise InputError(f"'{name}' holds no raster bands{hint}.")
        dtypes, masks = src.dtypes, src.mask_flag_enums  # each a new list of all bands at every call
        if any(np.issubdtype(np.dtype(kind), np.complexfloating) for kind in dtypes):
            raise InputError(f"'{name}' holds complex values; expected real ones.")
        if src.transform == Affine.identity():
            points = " (only ground control points: warp it first)" if src.gcps[0] else ""
            raise InputError(
                f"'{name}' has no geotransform{points}; expected a georeferenced image: fetch it again if "
                "it was cut off on its way, else give it one, for instance with gdal_edit or a world file."
            )
        alpha = _alpha(src)
        kept = [i for i in range(src.count) if i + 1 != alpha]
        flags = {flag for i in kept for flag in masks[i]}
        fields = envi_fields(src)
        scale = np.array(src.scales, dtype=np.float64)[kept]
        offset = np.array(src.offsets, dtype=np.float64)[kept]
        factor = _number(fields.get("reflectance_scale_factor"))
        if factor and np.all(scale == 1) and np.all(offset == 0):
            scale /= factor
        tags = src.tags()
        named = [tags.get(key) for key in ("units", "quantity", "data_units")]
        units = "reflectance" if factor else quantity([*src.units, *named, fields.get("data_units")])
        values = src.nodatavals
        nodata = tuple(None if values[i] is None else float(values[i]) for i in kept)
        return cls(
            path=path,
            name=name,
            driver=src.driver,
            axis=axis_from_dataset(src).take(kept),
            crs=_crs(src),
            transform=src.transform,
            height=src.height,
            width=src.width,
            dtype=dtypes[kept[0]],
            nodata=next((v for v in nodata if v is not None), None),
            scale=scale,
            offset=offset,
            units=units,
            integer=all(np.issubdtype(np.dtype(dtypes[i]), np.integer) for i in kept),
            indexes=tuple(i + 1 for i in kept),
            nodata_values=nodata,
            masked=alpha is not None or (MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags),
            stamp=_stamp(path),
        )

    def read(
        self, row: int, col: int, height: int, width: int, *, bands: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Physical values ``(band, y, x)`` of a window; see `csakd_geo.io.source.Source.read`."""
        chosen = check_window(self, row, col, height, width, bands)
        window = Window(col, row, width, height)
        indexes = [self.indexes[b] for b in chosen]
        try:
            with gdal_settings():
                src = _handles.get(self.path, self.stamp)
                stored = src.read(indexes, window=window)
                outside = src.read_masks(indexes[0], window=window) == 0 if self.masked else None
        except (RasterioError, CPLE_BaseError, OSError) as error:
            raise InputError(
                f"Reading {height} x {width} pixels at row {row}, column {col} of '{self.name}' failed "
                f"({_cause(error)}); the file may be damaged or incomplete."
            ) from error
        result = physical(stored, self.scale[chosen], self.offset[chosen], outside)
        for plane, raw, band in zip(result, stored, chosen, strict=True):
            value = self.nodata_values[band]
            if value is not None and not np.isnan(value):
                plane[raw == value] = np.nan
        return result

    def fingerprint(self) -> str:
        """Name, size and time of change of the file as it is now; the path alone if it is not local."""
        return f"{Path(self.path).name}|{_stamp(self.path)}"


def _alpha(src: Any) -> int | None:
    """Number of the alpha band, if there is one and its values are those of a mask.

    A fourth band of an RGB file is often tagged alpha though it is near infrared.
    """
    if ColorInterp.alpha not in src.colorinterp or src.count == 1:
        return None
    index = int(src.colorinterp.index(ColorInterp.alpha)) + 1
    shape = (min(src.height, 256), min(src.width, 256))
    values = np.unique(src.read(index, out_shape=shape))
    kind = np.dtype(src.dtypes[index - 1])
    full = np.iinfo(kind).max if kind.kind in "iu" else 1.0
    return (
        index if values[-1] == full and (values.size == 1 or (values.size == 2 and values[0] == 0)) else None
    )


def _crs(src: Any) -> CRS | None:
    """The CRS, if it says where on Earth; ENVI headers without one say ``Arbitrary``."""
    return None if not src.crs or src.crs.to_wkt().startswith(("LOCAL_CS", "ENGCRS")) else src.crs


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return path
    return f"{status.st_size}|{status.st_mtime_ns}"


def _number(text: str | None) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if np.isfinite(value) and value > 0 else 0.0


def _cause(error: BaseException) -> str:
    return str(error.__cause__ or error).strip().rstrip(".").replace("\n", " ")
