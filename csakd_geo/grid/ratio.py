"""The ratio of a pair: how many MSI pixels stand for the side of an HSI pixel."""

from __future__ import annotations

import math

import numpy as np

from csakd_geo.errors import GridError
from csakd_geo.grid.mapping import Georeferenced, PixelMapping, pixel_mapping

_MIN_SIZE = 1.5  # MSI pixels of the HSI pixel's longer side, below which nothing is to be gained
_RATIO_ERROR = 0.25  # relative difference of pixel sizes from a ratio; what rounding from 1.5 up leaves
_MAX_STRETCH = 2.0  # factor that an HSI pixel's side may be longer or shorter than an LR cell's


def find_ratio(hsi: Georeferenced, msi: Georeferenced) -> int:
    """The ratio of a pair: MSI pixels per side of a square as large as an HSI pixel, rounded, at least 2.

    HSI pixels need not be square in MSI pixels (in degrees they narrow towards the poles): the warp takes them
    to square cells, unless a side is more than twice as long as a cell's, or less than half.

    Raises
    ------
    GridError
        If the HSI is not coarser, or its pixels are too long for square cells.
    """
    return check_ratio(hsi, msi, pixel_mapping(hsi, msi), None)


def check_ratio(hsi: Georeferenced, msi: Georeferenced, to_msi: PixelMapping, ratio: int | None) -> int:
    """The ratio given, if it fits, or that of :func:`find_ratio`; `to_msi` maps the HSI's pixels to the MSI's.

    Raises
    ------
    GridError
        As :func:`find_ratio`, or the ratio given does not fit.
    """
    size = _pixel_size(hsi, to_msi)
    sides = f"{size[0]:.2f} x {size[1]:.2f} MSI pixels"
    if max(size) < _MIN_SIZE:
        raise GridError(
            f"A pixel of the HSI '{hsi.name}' is {sides} of '{msi.name}'; it must be about 2 times coarser or more. "
            "Are the two inputs swapped?"
        )
    found = max(2, math.floor(math.sqrt(size[0] * size[1]) + 0.5))
    if not _within_stretch(size, found):
        raise GridError(
            f"A pixel of the HSI '{hsi.name}' is {sides}, too long and narrow for cells of {found} x {found}; warp "
            "it to square pixels in the MSI's CRS first (gdalwarp)."
        )
    low, high = min(size) / (1 + _RATIO_ERROR), max(size) / (1 - _RATIO_ERROR)
    if ratio is not None and not (ratio >= 2 and low <= ratio <= high and _within_stretch(size, ratio)):
        raise GridError(
            f"Ratio {ratio} does not fit: an HSI pixel is {sides}; leave --ratio out or give {found}."
        )
    return found if ratio is None else ratio


def _within_stretch(size: tuple[float, float], ratio: int) -> bool:
    return all(1 / _MAX_STRETCH <= side / ratio <= _MAX_STRETCH for side in size)


def _pixel_size(hsi: Georeferenced, to_msi: PixelMapping) -> tuple[float, float]:
    """Width and height of the HSI's central pixel in MSI pixels."""
    cx, cy = hsi.width / 2, hsi.height / 2
    x, y = to_msi(np.array([cx - 0.5, cx + 0.5, cx, cx]), np.array([cy, cy, cy - 0.5, cy + 0.5]))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise GridError(f"The HSI '{hsi.name}' lies outside the area of use of the MSI's CRS.")
    return math.hypot(x[1] - x[0], y[1] - y[0]), math.hypot(x[3] - x[2], y[3] - y[2])
