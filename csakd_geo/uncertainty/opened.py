"""A written uncertainty as a lazy array, whichever of its two forms it has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csakd_geo.errors import InputError
from csakd_geo.io.envi import read_tags
from csakd_geo.io.provenance import PREFIX, facts_of

if TYPE_CHECKING:
    import xarray as xr

_SIDE = 256  # pixels per side of a chunk


def open_uncertainty(path: Path | str) -> xr.DataArray:
    """Standard deviations of a product, lazily.

    Parameters
    ----------
    path : path
        ``OUT_uncertainty.tif`` as ``csakd-geo fuse --uncertainty`` writes it, of either form.

    Returns
    -------
    xarray.DataArray
        ``(band, y, x)`` Dask-backed float32 in the product's units, on its pixels; NaN where there is no
        data. Coordinates along ``band``: ``wavelength`` in nm and ``informed``. The value of the product
        +- 1.645 of these holds nine of ten truths.

    Raises
    ------
    InputError
        If it is no such file.
    """
    import rioxarray
    import xarray as xr

    tags = read_tags(Path(path))
    facts = facts_of(tags)
    if "uncertainty" not in facts:
        raise InputError(
            f"'{path}' is no uncertainty that 'csakd-geo fuse --uncertainty' wrote; give <output>_uncertainty.tif."
        )

    def column(name: str) -> xr.DataArray:
        return xr.DataArray(np.array(facts[name], np.float32), dims="band")  # None is NaN

    stored: Any = rioxarray.open_rasterio(
        path, chunks={"band": -1, "y": _SIDE, "x": _SIDE}, masked=True, mask_and_scale=True
    )
    sigma: Any = stored.astype(np.float32)
    if facts["uncertainty"] == "compact":
        activity = sigma.isel(band=0, drop=True)
        sigma = np.sqrt(column("alpha") + column("beta") * activity)
    wavelength = column("wavelength").values.astype(float)
    sigma = sigma.assign_coords(
        band=np.arange(1, wavelength.size + 1),
        wavelength=("band", wavelength, {"units": "nm"}),
        informed=("band", np.array(facts["informed"], bool)),
    )
    sigma.attrs = {"units": tags.get(PREFIX + "SIGMA_UNITS", ""), "long_name": "standard deviation"}
    named: xr.DataArray = sigma.rename("uncertainty")
    return named
