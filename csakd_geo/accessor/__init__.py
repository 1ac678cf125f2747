"""The accessor ``.csakd``: spectra, composites, sampling, fusion and writing, on any lazy cube.

``import csakd_geo.accessor`` registers it. So does the first use of `csakd_geo.fuse`, `csakd_geo.open_cube` or
the xarray engine ``csakd``; ``import csakd_geo`` alone does not load xarray.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from csakd_geo.accessor.backend import CsakdBackend, open_cube
from csakd_geo.accessor.finding import bands_within, moved, nearest_bands
from csakd_geo.errors import GridError, InputError, SpectralError
from csakd_geo.spectral import SpectralAxis

if TYPE_CHECKING:
    import geopandas

    from csakd_geo.io.array import ArraySource

__all__ = ["CsakdAccessor", "CsakdBackend", "open_cube"]


@xr.register_dataarray_accessor("csakd")
class CsakdAccessor:
    """What a hyperspectral or multispectral cube can do.

    Parameters
    ----------
    cube : xarray.DataArray
        ``(band, y, x)`` with wavelengths as the coordinate ``wavelength``, as `csakd_geo.fuse`,
        `csakd_geo.open_cube` and the engine ``csakd`` give it. Coordinates ``fwhm`` and ``good`` along ``band``
        are used where they are there, and CRS and geotransform as rioxarray finds them.
    """

    def __init__(self, cube: xr.DataArray) -> None:
        self._cube = cube

    @property
    def axis(self) -> SpectralAxis:
        """The bands: wavelengths and widths in nm, quality and names."""
        from csakd_geo.io.axes import axis_from_dataarray

        axis = axis_from_dataarray(self._bands(), "band")
        names = self._cube.coords.get("band_name")
        if names is None or names.dims != ("band",):
            return axis
        return replace(axis, names=tuple(str(name) for name in names.values))

    @property
    def wavelengths(self) -> NDArray[np.float64]:
        """Band centres ``(band,)`` in nm; NaN where unknown."""
        return self.axis.wavelength

    def sel_wavelength(
        self, nm: float | Iterable[float] | slice, *, tolerance: float | None = None
    ) -> xr.DataArray:
        """Bands by wavelength; those flagged bad are passed over.

        Parameters
        ----------
        nm : float, iterable of float, or slice
            One wavelength gives the nearest band without a band axis, several give the nearest of each, and a
            slice such as ``slice(450, 680)`` gives all bands from one to the other, in file order.
        tolerance : float, optional
            Distance in nm at which a band still stands for a wavelength; by default that band's FWHM, or the
            distance to its neighbour where that is unknown.

        Raises
        ------
        SpectralError
            If there are no wavelengths, or no band is near enough.
        """
        if isinstance(nm, slice):
            return self._cube.isel(band=bands_within(self.axis, nm))
        if isinstance(nm, Iterable):
            return self._cube.isel(band=nearest_bands(self.axis, nm, tolerance))
        return self._cube.isel(band=nearest_bands(self.axis, [nm], tolerance)[0])

    def rgb(self, nm: tuple[float, float, float] | None = None, *, side: int = 1000) -> xr.DataArray:
        """A composite for ``.plot.imshow()``, each channel stretched from its 2nd to its 98th percentile.

        Parameters
        ----------
        nm : tuple of float, optional
            Wavelengths of red, green and blue, such as ``(1650, 835, 655)``; true colour by default, and where
            the cube has no such bands, three bands spread over it.
        side : int
            Pixels per side at most: of a larger cube, every n-th pixel is taken.

        Returns
        -------
        xarray.DataArray
            ``(y, x, rgb)`` float32 from 0 to 1, computed; NaN where there is no data. The attribute ``title``
            says which bands it shows.

        Raises
        ------
        SpectralError
            If a wavelength asked for is not there.
        InputError
            If no band is good.
        """
        from csakd_geo.accessor.composite import draw_composite, true_colour

        source = self._physical()
        if nm is None:
            bands, title = true_colour(source)
        else:
            if len(nm) != 3:
                raise SpectralError(f"Got {len(nm)} wavelengths for red, green and blue; give three in nm.")
            bands = nearest_bands(source.axis, nm)
            title = ", ".join(f"{source.axis.wavelength[b]:.0f}" for b in bands) + " nm"
        return draw_composite(source, bands, title=title, side=side)

    def spectrum(self, x: float, y: float, *, crs: Any = None) -> xr.DataArray:
        """The spectrum of the pixel that a place lies in, lazily.

        Parameters
        ----------
        x, y : float
            In the cube's CRS, or in `crs`.
        crs : optional
            Anything that pyproj takes, such as ``"EPSG:4326"`` (x is then the longitude).

        Returns
        -------
        xarray.DataArray
            ``(band,)``, with the pixel's centre as coordinates.

        Raises
        ------
        GridError
            If the place lies outside, or the CRS cannot be changed.
        """
        source = self._physical()
        place = moved(x, y, crs, source)
        col, row = ~source.transform * place
        if not (0 <= col < source.width and 0 <= row < source.height):
            left, top = source.transform * (0, 0)
            right, bottom = source.transform * (source.width, source.height)
            raise GridError(
                f"The place {place[0]:.10g}, {place[1]:.10g} lies outside the cube, which has x {left:.10g} to "
                f"{right:.10g} and y {bottom:.10g} to {top:.10g}; give crs= if it is in another CRS."
            )
        return source.array.isel(y=int(row), x=int(col))

    def sample(self, frame: geopandas.GeoDataFrame, *, all_touched: bool = False) -> geopandas.GeoDataFrame:
        """Spectra under points and polygons, read part by part, each part once.

        A point has the spectrum of the pixel that it lies in; a polygon has the pixels whose centre it holds.

        Parameters
        ----------
        frame : geopandas.GeoDataFrame
            Points and polygons in any CRS; one without a CRS is taken to be in the cube's.
        all_touched : bool
            Whether a polygon has every pixel that it touches.

        Returns
        -------
        geopandas.GeoDataFrame
            The frame and, along its index, ``count`` (pixels with data), ``mean_K`` and ``std_K`` for every
            band number K of the coordinate ``band``: mean and population standard deviation over the pixels with
            data in that band, NaN where there are none.

        Raises
        ------
        InputError
            If it is no GeoDataFrame, holds other geometries or has columns of these names.
        """
        from csakd_geo.accessor.sampling import sample_cube

        source = self._physical()
        return sample_cube(
            source.array, frame, transform=source.transform, crs=source.crs, all_touched=all_touched
        )

    def resample_spectra(self, sensor: str | SpectralAxis) -> xr.DataArray:
        """The cube as another sensor's bands would see it, lazily where the cube is.

        Each band is a mean of the good bands, weighted by a Gaussian of its centre and FWHM; see
        `csakd_geo.spectral.gaussian_response`.

        Parameters
        ----------
        sensor : str or SpectralAxis
            A name that `csakd_geo.sensors.get_sensor` knows, such as ``sentinel2``, or bands with FWHM.

        Returns
        -------
        xarray.DataArray
            ``(band, y, x)``. Bands of a named sensor outside the cube's range are left out, as the attribute
            ``warnings`` says.

        Raises
        ------
        SpectralError
            If the sensor is unknown, the cube has no wavelengths, or a band given lies outside them.
        """
        from csakd_geo.accessor.resampling import resample_cube

        return resample_cube(self._physical(), sensor)

    def fuse(self, msi: Path | str | xr.DataArray, **options: Any) -> xr.DataArray:
        """Fuse the cube, as the HSI, with a sharper image; see `csakd_geo.fuse` for options and errors."""
        from csakd_geo.job import fuse

        return fuse(self._cube, msi, **options)

    def to_cog(
        self, path: Path | str, *, dtype: Literal["int16", "float32"] = "int16", overwrite: bool = False
    ) -> None:
        """Write a validated COG with wavelengths, part by part, as ``csakd-geo fuse`` writes it.

        Parameters
        ----------
        path : path
        dtype : {"int16", "float32"}
            int16 keeps scale and offset of an integer image and gives any other cube a power of ten.
        overwrite : bool
            Whether a file that exists is replaced.

        Raises
        ------
        OutputError
            If the file exists or cannot be written, or the disk is full.
        InputError
            If the cube has no place or no valid pixel.

        Warns
        -----
        UserWarning
            If values had to be clipped.
        """
        from csakd_geo.accessor.writing import write_cube

        write_cube(self._source(), Path(path), form="cog", dtype=dtype, overwrite=overwrite)

    def to_zarr(
        self,
        path: Path | str,
        *,
        dtype: Literal["int16", "float32"] = "int16",
        zarr_format: Literal[2, 3] = 3,
        overwrite: bool = False,
    ) -> None:
        """Write a Zarr group with CF coordinates, part by part; format 2 is what GDAL and QGIS read.

        Parameters
        ----------
        path : path
            A folder or an address such as ``s3://``.
        dtype, overwrite
            As `to_cog`, with its errors and warnings.
        zarr_format : {2, 3}
        """
        from csakd_geo.accessor.writing import write_cube

        if zarr_format not in (2, 3):
            raise InputError(f"There is no Zarr format {zarr_format}; choose 2 or 3.")
        form = "zarr" if zarr_format == 3 else "zarr2"
        write_cube(self._source(), Path(path), form=form, dtype=dtype, overwrite=overwrite)

    def _bands(self) -> xr.DataArray:
        if "band" not in self._cube.dims:
            raise InputError(
                f"The DataArray has the dimensions {self._cube.dims}; expected (band, y, x), so rename them or do "
                "not select a single band."
            )
        return self._cube

    def _source(self) -> ArraySource:
        """The cube with its place; its transform is that of its coordinates, also where every n-th is left."""
        from csakd_geo.io.array import ArraySource

        source = ArraySource.open(self._bands(), name=str(self._cube.name or "cube"))
        names = {
            old: new for old, new in zip(source.array.dims, ("band", "y", "x"), strict=True) if old != new
        }
        if names:  # longitude and latitude, for instance
            source = replace(source, array=source.array.rename(names))
        moved = source.array.rio.transform(recalc=True)
        if not moved.almost_equals(source.transform, 1e-6 * abs(source.transform.a)):
            source = replace(source, transform=moved, array=source.array.rio.write_transform(moved))
        return replace(source, axis=self.axis)

    def _physical(self) -> ArraySource:
        """The cube as physical values with NaN, lazily, where it still holds what a file stores."""
        source = self._source()
        stored = not source.decoded and bool(np.any(source.scale != 1) or np.any(source.offset != 0))
        filled = source.nodata is not None and not np.isnan(source.nodata)
        if not (stored or filled):
            return source
        array = source.array.astype(np.float32)
        if filled:
            array = array.where(source.array != source.nodata)
        if stored:
            scale, offset = (
                xr.DataArray(v.astype(np.float32), dims="band") for v in (source.scale, source.offset)
            )
            array = array * scale + offset
        return replace(source, array=array.rename(self._cube.name))
