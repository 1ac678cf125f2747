"""The CF layout that Zarr and NetCDF products share: dimensions, coordinates, grid mapping, attributes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import OutputError
from csakd_geo.io.encoding import Encoding
from csakd_geo.io.mosaic import Mosaic
from csakd_geo.spectral import band_tags
from csakd_geo.tiling import Window

if TYPE_CHECKING:
    import xarray as xr

    from csakd_geo.io.cog import Progress, RasterSpec

#: Name of the data variable.
NAME = "fused"
#: Chunk: bands, rows, columns.
CHUNK = (16, 256, 256)
_COORDINATES = "wavelength fwhm good spatial_ref"


class CFCube:
    """A product as CF sees it: one variable ``(band, y, x)`` with one scale and offset.

    CF knows one scale for a variable. A product whose scale differs between bands is stored as the float32
    values that it stands for.

    Parameters
    ----------
    mosaic : Mosaic
    """

    def __init__(self, mosaic: Mosaic) -> None:
        self.mosaic = mosaic
        self.spec: RasterSpec = mosaic.spec
        kept = self.spec.encoding
        self._decoded = len(kept.scale) > 1 or len(kept.offset) > 1
        self.encoding = Encoding("float32") if self._decoded else kept

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        return self.spec.axis.size, self.spec.height, self.spec.width

    @property
    def chunks(self) -> tuple[int, int, int]:
        """`CHUNK`, clipped to the array."""
        bands, height, width = (min(size, side) for size, side in zip(CHUNK, self.shape, strict=True))
        return bands, height, width

    @property
    def region(self) -> tuple[int, int, int]:
        """Whole chunks that are written at once: all bands, and the pixels of a super-tile."""
        across = max(self.mosaic.side, 1)
        bands, height, width = (
            chunk * -(-min(size, reach) // chunk)
            for chunk, size, reach in zip(
                self.chunks, self.shape, (self.shape[0], across, across), strict=True
            )
        )
        return bands, height, width

    def values(self, window: Window) -> NDArray[Any]:
        """Stored ``(band, y, x)`` values of a window."""
        found = self.mosaic.read(window)
        return self.spec.encoding.decode(found) if self._decoded else found

    def attributes(self) -> dict[str, Any]:
        """Attributes of the data variable, without its fill value."""
        found: dict[str, Any] = {
            "long_name": "fused hyperspectral image",
            "grid_mapping": "spatial_ref",
            # CF does not ask for the last of them; with it, xarray keeps it beside the array by default.
            "coordinates": _COORDINATES,
        }
        if self.spec.units:
            found["quantity"] = self.spec.units
        if self.spec.units == "reflectance":
            found["units"] = "1"
        scale, offset = self.encoding.scale[0], self.encoding.offset[0]
        if (scale, offset) != (1.0, 0.0):
            found |= {"scale_factor": scale, "add_offset": offset}
        return found

    def dataset(self) -> xr.Dataset:
        """Everything but the pixels: coordinates as variables, grid mapping, provenance."""
        import xarray as xr

        spec, axis, t = self.spec, self.spec.axis, self.spec.transform
        if t.b or t.d:
            raise OutputError(
                "A rotated image cannot be written with y and x coordinates; choose cog or envi."
            )
        band_names = [band_tags(axis, k)[2] for k in range(axis.size)]
        mapping, y_attrs, x_attrs = _grid_mapping(spec)
        nm = {"units": "nm"}
        flags = {"long_name": "band can be used", "flag_values": np.array([0, 1], np.int8)}
        dataset = xr.Dataset(
            {
                "band": ("band", np.arange(1, axis.size + 1, dtype=np.int32), {"band_names": band_names}),
                "y": ("y", t.f + (np.arange(spec.height) + 0.5) * t.e, y_attrs),
                "x": ("x", t.c + (np.arange(spec.width) + 0.5) * t.a, x_attrs),
                "wavelength": ("band", axis.wavelength, nm | {"standard_name": "radiation_wavelength"}),
                "fwhm": ("band", axis.fwhm, nm | {"long_name": "full width at half maximum"}),
                "good": ("band", axis.good.astype(np.int8), flags | {"flag_meanings": "bad good"}),
                "spatial_ref": ((), np.int32(0), mapping),
            },
            attrs={"Conventions": "CF-1.8", **spec.tags},
        ).reset_coords(drop=False)
        for name in ("band", "y", "x"):
            dataset[name].encoding["_FillValue"] = None
        return dataset

    def parts(self, progress: Progress | None) -> Iterator[tuple[slice, slice, NDArray[Any]]]:
        """Rows, columns and stored values of each region, reported once the caller has taken them in."""
        written, total = 0, self.spec.height * self.spec.width
        for w in self.mosaic.windows(*self.region[1:]):
            yield slice(w.row, w.row + w.height), slice(w.col, w.col + w.width), self.values(w)
            written += w.height * w.width
            if progress is not None:
                progress("write", written / total)

    def check(self, array: xr.DataArray) -> None:
        """Compare what was written with what was to be written.

        Parameters
        ----------
        array : xarray.DataArray
            The variable as another library opens it, values as they are stored.

        Raises
        ------
        OutputError
            If size, type, place, bands or pixels differ.
        """
        from csakd_geo.io.array import ArraySource

        source = ArraySource.open(array, name=NAME)
        axis, encoding = self.spec.axis, self.encoding
        faults = []
        if array.shape != self.shape or source.dtype != encoding.dtype:
            faults.append(f"it has {' x '.join(map(str, array.shape))} {source.dtype} values")
        elif not np.array_equal([source.scale[0], source.offset[0]], [encoding.scale[0], encoding.offset[0]]):
            faults.append("scale or offset is lost")
        elif any(
            not np.array_equal(
                array[:, w.row : w.row + w.height, w.col : w.col + w.width].values,
                self.values(w),
                equal_nan=encoding.dtype == "float32",
            )
            for w in self.mosaic.samples()
        ):
            faults.append("pixels differ")
        if source.crs != self.spec.crs or not source.transform.almost_equals(self.spec.transform, 1e-9):
            faults.append("its place is lost")
        if not source.axis.equals(replace(axis, names=source.axis.names, nominal=source.axis.nominal)):
            faults.append("its band list is lost")
        if faults:
            raise OutputError(
                f"The file written is not what it should be ({'; '.join(faults)}); report this."
            )


def _grid_mapping(spec: RasterSpec) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Attributes of the grid mapping, of y and of x."""
    t = spec.transform
    mapping: dict[str, Any] = {"GeoTransform": " ".join(repr(float(v)) for v in t.to_gdal())}
    axes: dict[str, dict[str, Any]] = {"X": {"axis": "X"}, "Y": {"axis": "Y"}}
    if spec.crs is not None:
        from pyproj import CRS

        crs = CRS.from_wkt(spec.crs.to_wkt())
        mapping |= crs.to_cf() | {"spatial_ref": spec.crs.to_wkt()}
        for attrs in crs.cs_to_cf():
            if attrs.get("axis") in axes:
                axes[attrs["axis"]] = dict(attrs)
    return mapping, axes["Y"], axes["X"]
