"""What the rest of the package asks of an input image, wherever its pixels come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from csakd_geo.errors import InputError
from csakd_geo.grid import Georeferenced
from csakd_geo.spectral import SpectralAxis


@runtime_checkable
class Source(Georeferenced, Protocol):
    """A georeferenced image that is read in windows. Pickles, and may be read from many threads at once."""

    @property
    def axis(self) -> SpectralAxis:
        """The bands."""

    @property
    def dtype(self) -> str:
        """Type of the stored values."""

    @property
    def nodata(self) -> float | None:
        """Stored value that means no data, of the first band that has one."""

    @property
    def scale(self) -> NDArray[np.float64]:
        """Per band: physical value = stored value * scale + offset."""

    @property
    def offset(self) -> NDArray[np.float64]:
        """Per band, see `scale`."""

    @property
    def units(self) -> str:
        """``reflectance``, ``radiance`` or empty, as the file says."""

    @property
    def integer(self) -> bool:
        """Whether the stored values are integers."""

    def read(
        self, row: int, col: int, height: int, width: int, *, bands: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Physical values ``(band, y, x)`` of a window, NaN where there is no data.

        Parameters
        ----------
        row, col, height, width : int
            The window, inside the raster.
        bands : sequence of int, optional
            Zero-based bands; all of them by default.

        Raises
        ------
        InputError
            If the window or a band lies outside, or the data cannot be read.
        """

    def fingerprint(self) -> str:
        """Short text that changes when the image does, to tell whether earlier results still hold."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImageFacts:
    """What every :class:`Source` states; its kinds add where the pixels come from.

    Parameters
    ----------
    name : str
    driver : str
        Format or product, for people.
    notes : tuple of str
        What its reader has to say, one sentence each.
    axis, crs, transform, height, width, dtype, nodata, scale, offset, units, integer
        As :class:`Source` describes them.
    """

    name: str
    driver: str
    axis: SpectralAxis
    crs: CRS | None
    transform: Affine
    height: int
    width: int
    dtype: str
    nodata: float | None
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    units: str
    integer: bool
    notes: tuple[str, ...] = ()


def check_window(
    source: Source, row: int, col: int, height: int, width: int, bands: Sequence[int] | None
) -> list[int]:
    """The zero-based bands to read, after a check that they and the window lie inside.

    Raises
    ------
    InputError
    """
    inside = min(row, col) >= 0 and row + height <= source.height and col + width <= source.width
    if not inside or height < 1 or width < 1:
        raise InputError(
            f"The window of {height} x {width} pixels at row {row}, column {col} lies outside "
            f"'{source.name}', which has {source.height} x {source.width} pixels."
        )
    chosen = list(range(source.axis.size)) if bands is None else [int(b) for b in bands]
    if not chosen or min(chosen) < 0 or max(chosen) >= source.axis.size:
        raise InputError(f"'{source.name}' has {source.axis.size} bands; bands {chosen} (from 0) were asked.")
    return chosen


def physical(
    values: NDArray[np.generic],
    scale: NDArray[np.float64],
    offset: NDArray[np.float64],
    missing: NDArray[np.bool_] | None,
) -> NDArray[np.float32]:
    """Stored ``(band, y, x)`` values as physical float32; NaN at `missing` and where not finite."""
    result = np.array(values, dtype=np.float32)
    if np.any(scale != 1):
        result *= scale.astype(np.float32)[:, None, None]
    if np.any(offset != 0):
        result += offset.astype(np.float32)[:, None, None]
    if missing is not None:
        result[np.broadcast_to(missing, result.shape)] = np.nan
    if np.issubdtype(values.dtype, np.floating):
        result[np.isinf(result)] = np.nan
    return result


def quantity(texts: Iterable[str | None]) -> str:
    """``reflectance`` or ``radiance`` if a unit or quantity text names one, else empty."""
    joined = " ".join(t for t in texts if t).lower()
    if "reflectance" in joined:
        return "reflectance"
    if "radiance" in joined or re.search(r"/\s*\(?[^ ]*\bsr\b|sr\s*(\^?-1|⁻¹)", joined):
        return "radiance"
    return ""
