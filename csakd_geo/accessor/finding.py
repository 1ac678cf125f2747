"""Bands by wavelength, and places in another CRS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import GridError, SpectralError
from csakd_geo.spectral import SpectralAxis

if TYPE_CHECKING:
    from csakd_geo.io.source import Source


def _usable(axis: SpectralAxis) -> NDArray[np.intp]:
    """Bands that are good and have a wavelength."""
    usable = np.flatnonzero(axis.good & np.isfinite(axis.wavelength))
    if usable.size == 0:
        raise SpectralError(
            "The cube has no good band with a wavelength; open it with wavelengths=, or give it a coordinate "
            "'wavelength' along 'band'."
        )
    return usable


def nearest_bands(axis: SpectralAxis, nm: Iterable[float], tolerance: float | None = None) -> list[int]:
    """Zero-based bands nearest to some wavelengths in nm.

    Raises
    ------
    SpectralError
        If one of them is further away than the tolerance, or its FWHM where none is given.
    """
    usable = _usable(axis)
    wanted = np.array(list(nm), dtype=np.float64)
    nearest = usable[np.abs(axis.wavelength[usable] - wanted[:, None]).argmin(axis=1)]
    reach = np.nan_to_num(axis.filled_fwhm()[nearest]) if tolerance is None else tolerance
    far = ~(np.abs(axis.wavelength[nearest] - wanted) <= reach)
    if far.any():
        k = int(far.argmax())
        raise SpectralError(
            f"No good band is near {wanted[k]:g} nm, the nearest one lies at "
            f"{axis.wavelength[nearest[k]]:.1f} nm; choose another wavelength or give tolerance=."
        )
    return [int(band) for band in nearest]


def bands_within(axis: SpectralAxis, nm: slice) -> NDArray[np.intp]:
    """Zero-based bands from one wavelength in nm to another.

    Raises
    ------
    SpectralError
        If there are none.
    """
    usable = _usable(axis)
    if nm.step is not None:
        raise SpectralError("A slice of wavelengths takes no step; select every n-th band afterwards.")
    low = -np.inf if nm.start is None else float(nm.start)
    high = np.inf if nm.stop is None else float(nm.stop)
    centres = axis.wavelength[usable]
    inside = usable[(centres >= low) & (centres <= high)]
    if inside.size == 0:
        raise SpectralError(
            f"No good band lies from {low:g} to {high:g} nm; the cube has {centres.min():.0f} to "
            f"{centres.max():.0f} nm."
        )
    return inside


def moved(x: float, y: float, crs: Any, source: Source) -> tuple[float, float]:
    """A place in the CRS of a source.

    Raises
    ------
    GridError
        If the CRS is not known, or the source has none.
    """
    if crs is None:
        return float(x), float(y)
    if source.crs is None:
        raise GridError("The cube has no CRS, so the place cannot be brought to it; leave crs= out.")
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError

    try:
        change = Transformer.from_crs(CRS(crs), CRS(source.crs.to_wkt()), always_xy=True)
    except CRSError as error:
        raise GridError(f"The CRS '{crs}' is not known; give for instance EPSG:4326.") from error
    moved_x, moved_y = change.transform(x, y)
    return float(moved_x), float(moved_y)
