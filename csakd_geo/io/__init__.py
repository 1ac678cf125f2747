"""Reading and writing images.

Everything that is read is a `csakd_geo.io.source.Source`; `open_source` makes one of a path or DataArray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csakd_geo.errors import InputError, SpectralError
from csakd_geo.io.address import address_of
from csakd_geo.io.products import find_incomplete, find_sensor, is_companion, is_part, open_product
from csakd_geo.io.source import Source

if TYPE_CHECKING:
    import xarray as xr

    from csakd_geo.spectral import SpectralAxis

__all__ = ["Source", "open_source"]


def open_source(
    image: Path | str | xr.DataArray | Sequence[Path | str],
    *,
    name: str | None = None,
    axis: SpectralAxis | None = None,
    sensor: str | None = None,
) -> Source:
    """Open an image for reading.

    Parameters
    ----------
    image : Path, str, xarray.DataArray or list of paths
        A local raster, a Zarr store, an address such as ``https://`` or ``s3://``, any GDAL path such as
        ``/vsizip/...``, or a DataArray ``(band, y, x)``; or the product of a sensor, a folder, zip or file as
        its operator delivers it (see `csakd_geo.io.products`). Zarr, and NetCDF-4 with a CF grid mapping, are
        read through xarray, all else through GDAL. A list of paths, a folder of products or rasters, or a pattern
        such as ``tiles/S2_*.tif``, is one image on the grid of its first (see `csakd_geo.io.several`).
    name : str, optional
        For messages; the file's name by default.
    axis : SpectralAxis, optional
        Replaces what the image says about its bands (see `csakd_geo.io.axes.read_wavelengths`).
    sensor : str, optional
        Reader of a product, such as ``enmap``, where it is not to be detected.

    Raises
    ------
    InputError
        If it is missing, a pattern that finds nothing, a folder without an image, no raster, empty or not
        georeferenced.
    SpectralError
        If `axis` has another number of bands.
    """
    source: Source
    if isinstance(image, (list, tuple)):
        from csakd_geo.io.several import Several

        joined = Several.build([open_source(path, sensor=sensor) for path in image], name=name)
        source = joined if axis is None else replace(joined, axis=_fitting(axis, joined))
    elif isinstance(image, (str, Path)):
        found = _open_path(image, name, sensor)
        source = found if axis is None else replace(found, axis=_fitting(axis, found))
    else:
        import xarray as xr

        from csakd_geo.io.array import ArraySource

        if sensor is not None:
            raise InputError("A sensor is named for a DataArray; sensors name the readers of files.")
        if not isinstance(image, xr.DataArray):
            raise InputError(f"Got a {type(image).__name__}; expected a path or an xarray DataArray.")
        array = ArraySource.open(image, name=name)
        source = array if axis is None else replace(array, axis=_fitting(axis, array))
    return source


def _open_path(image: Path | str, name: str | None, sensor: str | None) -> Any:
    """A product of a sensor, a store or a raster; a dataclass in every case."""
    if not str(image):
        raise InputError("The path of the image is empty; give the path of a raster.")
    from csakd_geo.io.several import members

    path, inside = Path(image), members(image)
    if inside != [image]:
        return open_source(inside[0] if len(inside) == 1 else inside, name=name, sensor=sensor)
    if sensor is not None:
        return open_product(path, sensor=sensor, name=name)
    address = address_of(image)
    if address is not None:
        return _open_address(address, name)
    if path.is_dir():
        return _open_folder(path, name)
    found = find_sensor(path)
    if found is None and path.suffix.lower() == ".zip" and path.is_file():
        found = find_incomplete(path)
    if found is not None:
        return open_product(path, sensor=found, name=name)
    if path.suffix.lower() == ".nc" and path.is_file():
        from csakd_geo.io.cube import CubeSource, find_cube

        if find_cube(path) is not None:
            return CubeSource.open_path(path, name=name)
    from csakd_geo.io.raster import RasterSource

    _check_path(str(image))
    return RasterSource.open(image, name=name)


def _open_folder(path: Path, name: str | None) -> Any:
    """A store, a product, or the products or rasters inside as one image."""
    from csakd_geo.io.cube import CubeSource, is_store
    from csakd_geo.io.several import products_in, rasters_in

    if is_store(path):
        return CubeSource.open_path(path, name=name)
    products = products_in(path)
    found = None if products else find_sensor(path)
    if found is not None:
        return open_product(path, sensor=found, name=name)
    inside = products or [file for file in rasters_in(path) if not is_companion(file)]
    if not products and (not inside or any(map(is_part, inside))):
        found = find_incomplete(path)
        if found is not None:
            return open_product(path, sensor=found, name=name)  # which says what is missing
    if not inside:
        raise InputError(f"'{path}' is a folder; give the raster file inside it.")
    return open_source(inside[0] if len(inside) == 1 else inside, name=name or path.name)


def _open_address(address: str, name: str | None) -> Any:
    """A Zarr store through fsspec; anything else through GDAL."""
    if address.lower().endswith(".zarr"):
        from csakd_geo.io.cube import CubeSource

        return CubeSource.open_path(address, name=name)
    from csakd_geo.io.raster import RasterSource

    return RasterSource.open(address, name=name)


def _fitting(axis: SpectralAxis, source: Source) -> SpectralAxis:
    if axis.size != source.axis.size:
        raise SpectralError(
            f"The band list given has {axis.size} bands but '{source.name}' has {source.axis.size}; "
            "give one entry per band."
        )
    return axis


def _check_path(text: str) -> None:
    """Plain words for what GDAL would answer at length; its own path schemes are left to it."""
    if text.startswith("/vsi") or "://" in text or Path(text).is_file():
        return
    if Path(text).is_dir():
        raise InputError(f"'{text}' is a folder; give the raster file inside it.")
    if ":" not in Path(text).name:  # NETCDF:file:variable and the like are GDAL's to judge
        raise InputError(f"'{text}' does not exist; check the path.")
