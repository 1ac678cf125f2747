"""Three bands of a cube as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from csakd_geo.errors import InputError

if TYPE_CHECKING:
    from csakd_geo.io.array import ArraySource


def true_colour(source: ArraySource) -> tuple[list[int], str]:
    """Zero-based bands for red, green and blue, and what they are called.

    Raises
    ------
    InputError
        If no band is good.
    """
    from csakd_geo.quicklook.view import TRUE_COLOUR, Bands

    good = np.flatnonzero(source.axis.good)
    if good.size == 0:
        raise InputError("The cube has no good band to draw; check its coordinate 'good'.")
    order = np.argsort(source.axis.wavelength[good], kind="stable")
    bands, title = Bands(source, good[order]).composite(TRUE_COLOUR)
    return (bands * 3 if len(bands) == 1 else bands), title


def draw_composite(source: ArraySource, bands: Sequence[int], *, title: str, side: int) -> xr.DataArray:
    """Stretched ``(y, x, rgb)`` of three bands; see `csakd_geo.accessor.CsakdAccessor.rgb`."""
    from csakd_geo.quicklook.view import limits, rgba

    if side < 1:
        raise InputError(f"The composite cannot have {side} pixels per side; give 1 or more.")
    step = -(-max(source.height, source.width) // side)
    picked = source.array[:, step // 2 :: step, step // 2 :: step].isel(band=list(bands))
    values = picked.values.astype(np.float32)
    image = rgba(values, limits(values))[..., :3]
    image[~np.isfinite(values).all(axis=0)] = np.nan
    coords = {dim: picked.coords[dim] for dim in ("y", "x") if dim in picked.coords}
    return xr.DataArray(
        image, dims=("y", "x", "rgb"), coords=coords, name="composite", attrs={"title": title}
    )
