"""Halving images: the mean of the valid pixels of each square of two by two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def halve(cube: NDArray[Any], nodata: float) -> NDArray[Any]:
    """Half as many rows and columns, rounded up.

    Parameters
    ----------
    cube : array
        ``(band, y, x)`` of float32 or an integer of up to 16 bits. A last row or column that has no partner
        stands for two.
    nodata : float
        Value that is left out of the means; NaN for float32. A square without any other is nodata.

    Returns
    -------
    array
        Of the same type; integers are rounded.
    """
    bands, height, width = cube.shape
    out = np.empty((bands, -(-height // 2), -(-width // 2)), cube.dtype)
    for plane, small in zip(cube, out, strict=True):  # one band at a time stays in the processor's cache
        if height % 2 or width % 2:
            plane = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
        missing = np.isnan(plane) if np.isnan(nodata) else plane == nodata
        small[...] = _holed(plane, missing, nodata) if missing.any() else _whole(plane)
    return out


def _whole(plane: NDArray[Any]) -> NDArray[Any]:
    """Means of a plane without holes."""
    if np.issubdtype(plane.dtype, np.integer):
        total = _sums(plane, np.int32)
        total += 2
        total >>= 2
        return total
    quarter: NDArray[Any] = _sums(plane, np.float32) * np.float32(0.25)
    return quarter


def _holed(plane: NDArray[Any], missing: NDArray[np.bool_], nodata: float) -> NDArray[Any]:
    """Means of the valid pixels of a plane with holes."""
    count = _sums(~missing, np.int32)
    mean = _sums(np.where(missing, 0, plane), np.float64) / np.maximum(count, 1)
    if np.issubdtype(plane.dtype, np.integer):
        mean = np.floor(mean + 0.5)
    found: NDArray[Any] = np.where(count == 0, nodata, mean)
    return found


def _sums(plane: NDArray[Any], kind: type[Any]) -> NDArray[Any]:
    rows = np.add(plane[::2], plane[1::2], dtype=kind)
    sums: NDArray[Any] = rows[:, ::2] + rows[:, 1::2]
    return sums
