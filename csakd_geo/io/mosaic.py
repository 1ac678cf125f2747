"""The blocks of a product as one array that is read in windows of any size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import OutputError
from csakd_geo.tiling import Window

if TYPE_CHECKING:
    from csakd_geo.io.cog import RasterSpec

#: Pixels per side that are compared after writing, in the corners and in the middle.
_LOOK = 8


class Block(Protocol):
    """Encoded ``(band, y, x)`` values: an array, or what is indexed like one and loads what is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Bands, rows, columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    def __getitem__(self, key: Any, /) -> Any:
        """Values of a part."""


class Mosaic:
    """Encoded blocks side by side; a pixel that no block covers is nodata.

    Blocks stay where they are: those of a run are files, of which a window loads what it needs. So a format may be written in its own pieces, each once and whole.

    Parameters
    ----------
    spec : RasterSpec
    blocks : iterable of (row, col, `Block`)
        Encoded values with their upper left pixel.

    Raises
    ------
    OutputError
        If a block does not fit.
    """

    def __init__(self, spec: RasterSpec, blocks: Iterable[tuple[int, int, Block]]) -> None:
        self.spec = spec
        self.blocks: list[Block] = []
        places: list[tuple[int, int, int, int]] = []
        for row, col, values in blocks:
            check_block(spec, row, col, values)
            self.blocks.append(values)
            places.append((row, col, row + values.shape[1], col + values.shape[2]))
        self._places = np.array(places, np.int64).reshape(-1, 4)

    @property
    def side(self) -> int:
        """Largest height or width of a block in pixels; 0 without blocks."""
        top, left, bottom, right = self._places.T
        return int(max((bottom - top).max(initial=0), (right - left).max(initial=0)))

    def read(self, window: Window) -> NDArray[Any]:
        """Encoded ``(band, y, x)`` values of a window inside the product."""
        out = np.full(
            (self.spec.axis.size, window.height, window.width),
            self.spec.encoding.nodata,
            self.spec.encoding.dtype,
        )
        top, left, bottom, right = self._places.T
        end_row, end_col = window.row + window.height, window.col + window.width
        touching = (top < end_row) & (bottom > window.row) & (left < end_col) & (right > window.col)
        for k in np.flatnonzero(touching):
            row, col, last_row, last_col = (int(v) for v in self._places[k])
            y0, y1 = max(row, window.row), min(last_row, end_row)
            x0, x1 = max(col, window.col), min(last_col, end_col)
            out[:, y0 - window.row : y1 - window.row, x0 - window.col : x1 - window.col] = self.blocks[k][
                :, y0 - row : y1 - row, x0 - col : x1 - col
            ]
        return out

    def windows(self, height: int, width: int) -> Iterator[Window]:
        """Windows of that size, row by row; clipped at the lower and right edge."""
        for row in range(0, self.spec.height, height):
            for col in range(0, self.spec.width, width):
                yield Window(row, col, min(height, self.spec.height - row), min(width, self.spec.width - col))

    def samples(self) -> Iterator[Window]:
        """Small windows in the four corners and in the middle, to compare with what was written."""
        height, width = min(_LOOK, self.spec.height), min(_LOOK, self.spec.width)
        low, right = self.spec.height - height, self.spec.width - width
        for row, col in ((0, 0), (0, right), (low, 0), (low, right), (low // 2, right // 2)):
            yield Window(row, col, height, width)


def check_block(spec: RasterSpec, row: int, col: int, values: Block) -> None:
    """Refuse a block that does not fit the product.

    Raises
    ------
    OutputError
    """
    bands, height, width = values.shape
    fits = min(row, col) >= 0 and row + height <= spec.height and col + width <= spec.width
    if bands != spec.axis.size or not fits or values.dtype != np.dtype(spec.encoding.dtype):
        raise OutputError(
            f"A block of {bands} x {height} x {width} {values.dtype} values at row {row}, column {col} "
            f"does not fit a product of {spec.axis.size} x {spec.height} x {spec.width} "
            f"{spec.encoding.dtype} values."
        )
