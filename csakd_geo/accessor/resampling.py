"""A cube as the bands of another sensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from csakd_geo.spectral import SpectralAxis, gaussian_response

if TYPE_CHECKING:
    from csakd_geo.io.array import ArraySource


def resample_cube(source: ArraySource, sensor: str | SpectralAxis) -> xr.DataArray:
    """Means of good bands; see `csakd_geo.accessor.CsakdAccessor.resample_spectra`."""
    from csakd_geo.simulate import sensor_responses

    notes: list[str] = []
    if isinstance(sensor, SpectralAxis):
        bands, weights = sensor, gaussian_response(sensor, source.axis)
    else:
        bands, weights, notes = sensor_responses(sensor, source.axis, source.name)
    used = np.flatnonzero((weights > 0).any(axis=0))  # what has no weight may hold no data
    matrix = xr.DataArray(weights[:, used].astype(np.float32), dims=("_new", "band"))
    cube = source.array.isel(band=used).drop_vars("band", errors="ignore")
    seen = xr.dot(matrix, cube, dim="band").rename(_new="band").transpose("band", "y", "x")
    attrs: dict[str, Any] = {"units": source.units} if source.units else {}
    resampled = xr.DataArray(
        seen.variable,
        coords={
            "band": np.arange(1, bands.size + 1),
            "wavelength": ("band", bands.wavelength, {"units": "nm"}),
            "fwhm": ("band", bands.filled_fwhm(), {"units": "nm"}),
            "good": ("band", np.ones(bands.size, bool)),
            "band_name": ("band", np.array(bands.names, dtype=str)),
            **{dim: source.array.coords[dim] for dim in ("y", "x") if dim in source.array.coords},
        },
        name=source.array.name,
        attrs=attrs | ({"warnings": notes} if notes else {}),
    )
    if source.crs is not None:
        resampled = resampled.rio.write_crs(source.crs.to_wkt())
    placed: xr.DataArray = resampled.rio.write_transform(source.transform)
    return placed
