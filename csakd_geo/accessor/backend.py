"""The xarray engine ``csakd``: whatever this package reads, as a lazy dataset that keeps its bands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from csakd_geo.errors import InputError

if TYPE_CHECKING:
    from csakd_geo.io.source import Source

#: Name of the data variable.
NAME = "image"
_SIDE = 256  # pixels per side of a preferred chunk
_CHUNK_VALUES = 1 << 25  # a chunk has all bands, up to 128 MiB


class CsakdBackend(BackendEntrypoint):
    """``xr.open_dataset(path, engine="csakd")``; see `CsakdBackend.open_dataset`."""

    description = "Hyperspectral and multispectral images and sensor products, with wavelengths"
    url = "https://pypi.org/project/csakd-geo"

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        sensor: str | None = None,
        wavelengths: Path | str | None = None,
    ) -> xr.Dataset:
        """Open an image; no pixel is read before it is asked for.

        Parameters
        ----------
        filename_or_obj : path, address, or list of paths
            Anything that `csakd_geo.io.open_source` opens.
        drop_variables : str or iterable of str, optional
            Coordinates to leave out.
        sensor : str, optional
            Reader of a product, such as ``enmap``, where it is not to be detected.
        wavelengths : path, optional
            CSV or ENVI header with the wavelengths, where the image states none.

        Returns
        -------
        xarray.Dataset
            The variable ``image`` ``(band, y, x)``: physical float32, NaN where there is no data, with the
            coordinates ``wavelength`` and ``fwhm`` (nm), ``good`` and ``band_name`` along ``band``, pixel
            centres ``y`` and ``x``, and CRS and geotransform as ``spatial_ref``.

        Raises
        ------
        InputError
            If it cannot be read, or is rotated.
        SpectralError
            If the wavelengths cannot be read or are not as many as there are bands.
        """
        from csakd_geo.io import open_source
        from csakd_geo.io.axes import read_wavelengths

        axis = None if wavelengths is None else read_wavelengths(wavelengths)
        dataset = lazy_array(open_source(filename_or_obj, axis=axis, sensor=sensor)).to_dataset()
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return dataset.drop_vars(dropped, errors="ignore")


def open_cube(
    image: Path | str | Sequence[Path | str],
    *,
    sensor: str | None = None,
    wavelengths: Path | str | None = None,
    chunks: Any = "preferred",
) -> xr.DataArray:
    """Open an image as one lazy DataArray with the accessor ``.csakd``.

    Parameters
    ----------
    image : path, address, or list of paths
        Anything that `csakd_geo.io.open_source` opens.
    sensor : str, optional
        Reader of a product, such as ``enmap``, where it is not to be detected.
    wavelengths : path, optional
        CSV or ENVI header with the wavelengths, where the image states none.
    chunks : optional
        As in `xarray.open_dataset`; by default Dask chunks of all bands and 256 x 256 pixels, and with None
        no Dask at all.

    Returns
    -------
    xarray.DataArray
        ``(band, y, x)`` as described in `CsakdBackend.open_dataset`.

    Raises
    ------
    InputError, SpectralError
        As `CsakdBackend.open_dataset`.
    """
    dataset = xr.open_dataset(
        image,  # type: ignore[arg-type]  # the engine takes lists as well
        engine=CsakdBackend,
        chunks={} if chunks == "preferred" else chunks,
        sensor=sensor,
        wavelengths=wavelengths,
    )
    array = dataset[NAME]  # whose coordinates Dask holds as well, small as they are
    return array.assign_coords({name: array.coords[name].compute() for name in array.coords})


def lazy_array(source: Source) -> xr.DataArray:
    """A source as a DataArray that reads its windows when they are asked for.

    Parameters
    ----------
    source : Source

    Raises
    ------
    InputError
        If it is rotated, because then no coordinates fit it.
    """
    import rioxarray  # noqa: F401 (it registers the accessor)

    axis, t = source.axis, source.transform
    if t.b or t.d:
        raise InputError(
            f"'{source.name}' is rotated, so it has no y and x coordinates; warp it to a north-up grid first, for "
            "instance with gdalwarp."
        )
    lazy = xr.Variable(
        ("band", "y", "x"), indexing.LazilyIndexedArray(_Windows(source)), encoding=_encoding(source)
    )
    nm = {"units": "nm"}
    coords = {
        "band": np.arange(1, axis.size + 1),
        "wavelength": ("band", axis.wavelength, nm | {"standard_name": "radiation_wavelength"}),
        "fwhm": ("band", axis.fwhm, nm | {"long_name": "full width at half maximum"}),
        "good": ("band", axis.good, {"long_name": "band can be used"}),
        "band_name": ("band", np.array(axis.names, dtype=str)),
        "y": t.f + (np.arange(source.height) + 0.5) * t.e,
        "x": t.c + (np.arange(source.width) + 0.5) * t.a,
    }
    array = xr.Dataset({NAME: lazy}, coords)[NAME]  # a DataArray made of a variable has no encoding
    array.attrs |= {"units": source.units} if source.units else {}
    notes = list(getattr(source, "notes", ()))
    if notes:
        array.attrs["warnings"] = notes
    if source.crs is not None:
        array = array.rio.write_crs(source.crs.to_wkt())
    placed: xr.DataArray = array.rio.write_transform(t)
    return placed


class _Windows(BackendArray):
    """The pixels of a source, read as bounding windows of what is indexed."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.shape = (source.axis.size, source.height, source.width)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        picked = [np.arange(size)[k] for k, size in zip(key, self.shape, strict=True)]
        bands, rows, cols = (np.atleast_1d(p) for p in picked)
        shape = [p.size for p in picked if p.ndim]  # an integer takes its dimension away
        if 0 in shape:
            return np.empty(shape, np.float32)
        top, left = int(rows.min()), int(cols.min())
        values = self.source.read(
            top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1, bands=bands.tolist()
        )
        return values[:, rows - top][:, :, cols - left].reshape(shape)


def _encoding(source: Source) -> dict[str, Any]:
    """How the file stores its values, where one scale and offset says it, and how it is best read in chunks."""
    bands = source.axis.size
    side = _SIDE
    while bands * side * side > _CHUNK_VALUES and side > 16:
        side //= 2
    found: dict[str, Any] = {
        "preferred_chunks": {"band": bands, "y": min(side, source.height), "x": min(side, source.width)}
    }
    scale, offset = np.unique(source.scale), np.unique(source.offset)
    if source.integer and scale.size == 1 and offset.size == 1 and source.nodata is not None:
        found |= {
            "dtype": np.dtype(source.dtype),
            "scale_factor": float(scale[0]),
            "add_offset": float(offset[0]),
            "_FillValue": np.dtype(source.dtype).type(source.nodata),
        }
    return found
