"""Tiles on one global lattice: super-tiles, tiles, halos and blend ramps, in LR cells.

A tile is what a method computes at once, a super-tile what is stored at once. Both lattices
start at the frame's origin, so a pixel's tile does not depend on what else is computed. A
tile's window (its core, the ramp, the halo) has the same size everywhere and is moved inward
at the scene's edge, so that convolutions meet the scene's edge where the whole scene does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import GridError

Blend = Literal["crop", "linear", "hann"]
FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of cells: first row and column, height and width."""

    row: int
    col: int
    height: int
    width: int

    def scaled(self, factor: int) -> Window:
        """The same rectangle in cells ``factor`` times finer."""
        return Window(self.row * factor, self.col * factor, self.height * factor, self.width * factor)

    def slices(self, origin: Window | None = None) -> tuple[slice, slice]:
        """Row and column slices, relative to another window's corner."""
        y, x = (self.row, self.col) if origin is None else (self.row - origin.row, self.col - origin.col)
        return slice(y, y + self.height), slice(x, x + self.width)

    def intersect(self, other: Window) -> Window:
        """The common part; height or width is 0 where there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        bottom = min(self.row + self.height, other.row + other.height)
        right = min(self.col + self.width, other.col + other.width)
        return Window(row, col, max(0, bottom - row), max(0, right - col))

    def grown(self, by: int) -> Window:
        """The same rectangle with ``by`` cells more on every side."""
        return Window(self.row - by, self.col - by, self.height + 2 * by, self.width + 2 * by)

    def moved_into(self, other: Window) -> Window:
        """A rectangle of the same size inside another one, as far as it fits."""
        height, width = min(self.height, other.height), min(self.width, other.width)
        row = min(max(self.row, other.row), other.row + other.height - height)
        col = min(max(self.col, other.col), other.col + other.width - width)
        return Window(row, col, height, width)

    def pieces(self, height: int, width: int) -> list[Window]:
        """Rectangles of one size, at most ``height`` x ``width``, that cover it; the last may reach out of it."""
        height, width = (-(-n // -(-n // most)) for n, most in ((self.height, height), (self.width, width)))
        return [
            Window(y, x, height, width)
            for y in range(self.row, self.row + self.height, height)
            for x in range(self.col, self.col + self.width, width)
        ]

    @property
    def empty(self) -> bool:
        """Whether it holds no cell."""
        return self.height == 0 or self.width == 0


@dataclass(frozen=True, slots=True)
class Tile:
    """One computation.

    Parameters
    ----------
    window : Window
        What the method sees, LR cells.
    core : Window
        Its cell of the lattice.
    kept : Window
        Core and ramps: where its result counts, LR cells.
    """

    window: Window
    core: Window
    kept: Window


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How a frame is cut.

    Parameters
    ----------
    height, width : int
        Of the frame, LR cells.
    ratio : int
    tile, supertile : int
        LR cells per side; the super-tile is a multiple of the tile.
    halo : int
        LR cells around what is kept of a tile.
    blend : {"crop", "linear", "hann"}
    context : int
        LR cells more that are read around a super-tile, for what is computed once for all its tiles.
    """

    height: int
    width: int
    ratio: int
    tile: int
    supertile: int
    halo: int
    blend: Blend = "crop"
    context: int = 0

    def __post_init__(self) -> None:
        if self.tile < 1 or self.supertile % self.tile or min(self.halo, self.context) < 0:
            raise GridError(
                f"A super-tile of {self.supertile} is no multiple of a tile of {self.tile} LR cells, "
                f"or the halo {self.halo} is negative."
            )

    @property
    def ramp(self) -> int:
        """Half-width of a blend ramp in LR cells; 0 for ``crop``. Two ramps never meet inside a tile."""
        return 0 if self.blend == "crop" else min(max(1, self.halo // 2), self.tile // 2)

    @property
    def frame(self) -> Window:
        """The whole frame."""
        return Window(0, 0, self.height, self.width)

    def supertiles(self) -> list[Window]:
        """All super-tiles in row order."""
        s = self.supertile
        return [
            Window(y, x, min(s, self.height - y), min(s, self.width - x))
            for y in range(0, self.height, s)
            for x in range(0, self.width, s)
        ]

    def tiles(self, area: Window) -> Iterator[Tile]:
        """All tiles whose result counts somewhere in an area."""
        for y in self._starts(area.row, area.height, self.height):
            for x in self._starts(area.col, area.width, self.width):
                rows, columns = self._axis(y, self.height), self._axis(x, self.width)
                window, core, kept = (
                    Window(row[0], col[0], row[1], col[1]) for row, col in zip(rows, columns, strict=True)
                )
                if not kept.intersect(area).empty:
                    yield Tile(window, core, kept)

    def seen(self, tiles: Sequence[Tile]) -> Window:
        """What a super-tile of these tiles is computed from: their windows and the context."""
        return around([tile.window for tile in tiles]).grown(self.context).intersect(self.frame)

    def weights(self, tile: Tile) -> tuple[FloatArray, FloatArray]:
        """Blend weights of a tile's kept part along y and x in HR pixels.

        Where two tiles meet, the second one's weight is 1 minus the first one's.
        """
        return (
            self._weights(tile.kept.row, tile.kept.height, tile.core.row, tile.core.height, self.height),
            self._weights(tile.kept.col, tile.kept.width, tile.core.col, tile.core.width, self.width),
        )

    def _starts(self, start: int, size: int, end: int) -> range:
        """Lattice positions of the tiles that reach into ``start`` to ``start + size``."""
        last = (end - 1) // self.tile
        low = max(0, (start - self.ramp) // self.tile)
        high = min(last, (start + size - 1 + self.ramp) // self.tile)
        return range(low * self.tile, high * self.tile + 1, self.tile)

    def _axis(self, start: int, size: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Start and length of window, core and kept part of the tile at ``start`` along one axis."""
        end = min(start + self.tile, size)
        low, high = max(0, start - self.ramp), min(size, end + self.ramp)
        length = min(size, self.tile + 2 * (self.ramp + self.halo))
        window = max(0, min(start - self.ramp - self.halo, size - length))
        return (window, length), (start, end - start), (low, high - low)

    def _weights(self, kept: int, kept_size: int, core: int, core_size: int, size: int) -> FloatArray:
        r, half = self.ratio, self.ramp * self.ratio
        position = np.arange(kept * r, (kept + kept_size) * r)
        weights = np.ones(kept_size * r, np.float32)
        if half == 0:
            return weights
        for edge, rising in ((core, True), (core + core_size, False)):
            if edge in (0, size):
                continue
            rise = ramp_values((position - edge * r + half + 0.5) / (2 * half), self.blend)
            weights *= rise if rising else np.float32(1) - rise
        return weights


def around(windows: Sequence[Window]) -> Window:
    """The smallest rectangle that holds all."""
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    bottom, right = max(w.row + w.height for w in windows), max(w.col + w.width for w in windows)
    return Window(row, col, bottom - row, right - col)


def ramp_values(t: FloatArray, blend: Blend) -> FloatArray:
    """A ramp that is 0 before t = 0 and 1 after t = 1."""
    t = np.clip(t, 0, 1)
    if blend == "hann":
        t = 0.5 - 0.5 * np.cos(np.pi * t)
    return t.astype(np.float32)


def align(pixels: int, ratio: int) -> int:
    """LR cells of the smallest tile of at least ``pixels`` HR pixels that is a multiple of lcm(16, ratio)."""
    step = math.lcm(16, ratio)
    return -(-max(pixels, 1) // step) * step // ratio
