"""Images that are already a DataArray, in memory or lazy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dask
import dask.base
import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray

from csakd_geo.errors import InputError
from csakd_geo.io.axes import axis_from_dataarray
from csakd_geo.io.source import ImageFacts, check_window, physical, quantity


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource(ImageFacts):
    """A DataArray ``(band, y, x)`` as a `csakd_geo.io.source.Source`; made by `ArraySource.open`.

    Scale, offset and nodata value in ``attrs`` are still to be applied; in ``encoding`` they have been, by
    xarray's convention, and are kept because they say how to store the result.
    """

    array: xr.DataArray
    decoded: bool

    @classmethod
    def open(cls, array: xr.DataArray, *, name: str | None = None) -> ArraySource:
        """Read the facts of a DataArray; its CRS and transform are those of its ``.rio`` accessor.

        Raises
        ------
        InputError
            If it is not two- or three-dimensional with x and y, is empty, complex or has no coordinates.
        """
        import rioxarray  # noqa: F401 (it registers the accessor)
        from rioxarray.exceptions import RioXarrayError

        title = name or str(array.name or "DataArray")
        try:
            x_dim, y_dim = array.rio.x_dim, array.rio.y_dim
        except RioXarrayError as error:
            raise InputError(
                f"'{title}' has the dimensions {array.dims}; expected (band, y, x), so rename them."
            ) from error
        others = [dim for dim in array.dims if dim not in (x_dim, y_dim)]
        if len(others) > 1:
            raise InputError(
                f"'{title}' has the dimensions {array.dims}; expected (band, y, x), so select from the others."
            )
        band_dim = str(others[0]) if others else "band"
        cube = array.transpose(band_dim, y_dim, x_dim) if others else array.expand_dims(band_dim)
        if 0 in cube.shape or np.issubdtype(cube.dtype, np.complexfloating) or cube.dtype.kind not in "iufb":
            raise InputError(
                f"'{title}' has the shape {cube.shape} of type {cube.dtype}; expected real numbers, not empty."
            )
        transform = cube.rio.transform(recalc=False)
        if transform == Affine.identity():
            raise InputError(
                f"'{title}' has no geotransform; give it x and y coordinates or use .rio.write_transform."
            )
        decoded = "scale_factor" not in cube.attrs and "scale_factor" in cube.encoding
        place = cube.encoding if decoded else cube.attrs
        stored = np.dtype(cube.encoding.get("rasterio_dtype", cube.encoding.get("dtype", cube.dtype)))
        kind = stored if decoded else cube.dtype
        size = cube.sizes[band_dim]
        missing = cube.rio.nodata if cube.rio.nodata is not None else cube.attrs.get("missing_value")
        return cls(
            array=cube,
            name=title,
            driver="DataArray",
            axis=axis_from_dataarray(cube, band_dim),
            crs=cube.rio.crs,
            transform=transform,
            height=int(cube.sizes[y_dim]),
            width=int(cube.sizes[x_dim]),
            dtype=str(kind),
            nodata=None if missing is None else float(missing),
            scale=_per_band(place, ("scale_factor", "scales"), 1.0, size),
            offset=_per_band(place, ("add_offset", "offsets"), 0.0, size),
            units=quantity(str(cube.attrs.get(key, "")) for key in ("units", "standard_name", "quantity")),
            integer=bool(np.issubdtype(kind, np.integer)),
            decoded=decoded,
        )

    def read(
        self, row: int, col: int, height: int, width: int, *, bands: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Physical values ``(band, y, x)`` of a window; see `csakd_geo.io.source.Source.read`."""
        chosen = check_window(self, row, col, height, width, bands)
        picked: Sequence[int] | slice = slice(None) if bands is None else chosen
        window = self.array[picked, row : row + height, col : col + width]
        # A read happens inside a task of ours: it must not start a scheduler of its own.
        with dask.config.set(scheduler="synchronous"):
            stored = np.asarray(window.values)
        missing = None
        if self.nodata is not None and not np.isnan(self.nodata):
            missing = stored == self.nodata
        scale, offset = self.scale[chosen], self.offset[chosen]
        if self.decoded:
            scale, offset = np.ones_like(scale), np.zeros_like(offset)
        return physical(stored, scale, offset, missing)

    def fingerprint(self) -> str:
        """Dask's token of the values and their place."""
        return f"array|{dask.base.tokenize(self.array.data, tuple(self.transform), str(self.crs))}"


def _per_band(
    place: dict[str, object] | dict[object, object], keys: tuple[str, ...], default: float, size: int
) -> NDArray[np.float64]:
    found = next((place[key] for key in keys if key in place), default)
    values = np.asarray(found, dtype=np.float64).ravel()
    return np.array(np.broadcast_to(values, (size,)) if values.size in (1, size) else np.full(size, default))
