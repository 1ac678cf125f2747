"""Where an image lies, and how its pixels map onto another's."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS as ProjCRS
from pyproj import Transformer
from rasterio.crs import CRS

FloatArray = NDArray[np.floating]


class Georeferenced(Protocol):
    """What laying a grid needs of an image."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def crs(self) -> CRS | None:
        """Coordinate reference system, or None."""

    @property
    def transform(self) -> Affine:
        """From (column, row) of pixel corners to coordinates."""

    @property
    def height(self) -> int:
        """Number of rows."""

    @property
    def width(self) -> int:
        """Number of columns."""


class PixelMapping(Protocol):
    """From column and row of one image to column and row of another, at pixel corners."""

    def __call__(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Map columns and rows."""


def pixel_mapping(
    source: Georeferenced, target: Georeferenced, shift: tuple[float, float] = (0.0, 0.0)
) -> PixelMapping:
    """Exact mapping of pixel coordinates; a missing CRS is taken to be the other's.

    Parameters
    ----------
    source, target : Georeferenced
    shift : (float, float)
        Added to the source's coordinates, in the target's CRS.
    """
    inverse = ~target.transform
    forward = source.transform
    transformer = None
    if source.crs and target.crs and source.crs != target.crs:
        transformer = _transformer(source.crs.to_wkt(), target.crs.to_wkt())

    def mapping(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        wx = forward.a * x + forward.b * y + forward.c
        wy = forward.d * x + forward.e * y + forward.f
        if transformer is not None:
            wx, wy = transformer.transform(wx, wy)
        wx, wy = wx + shift[0], wy + shift[1]
        with np.errstate(invalid="ignore"):  # what has no place in the target's CRS comes as infinity
            return (
                inverse.a * wx + inverse.b * wy + inverse.c,
                inverse.d * wx + inverse.e * wy + inverse.f,
            )

    return mapping


@lru_cache(maxsize=32)  # one takes 50 ms to build; threads may share it
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(ProjCRS.from_wkt(source), ProjCRS.from_wkt(target), always_xy=True)
