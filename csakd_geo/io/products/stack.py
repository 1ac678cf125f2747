"""One image of several: bands of any files on one grid, sorted, with quality masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from affine import Affine
from numpy.typing import ArrayLike, NDArray

from csakd_geo.errors import InputError
from csakd_geo.io.raster import RasterSource
from csakd_geo.io.source import ImageFacts, Source, check_window
from csakd_geo.spectral import SpectralAxis


class Mask(Protocol):
    """Says which pixels a product marks as unusable. Pickles."""

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """``(y, x)``, True where unusable, of a window on the product's grid."""


@dataclass(frozen=True, slots=True, eq=False)
class RasterMask:
    """Classes or flags of a raster whose pixels are `factor` times as large as the product's.

    Parameters
    ----------
    source : RasterSource
    factor : int
    values : tuple of float
        Stored values that mean unusable.
    bits : int
        Bits of which any means unusable.
    bands : tuple of int
        Zero-based; a pixel that is unusable in one of them is unusable.
    """

    source: RasterSource
    factor: int = 1
    values: tuple[float, ...] = ()
    bits: int = 0
    bands: tuple[int, ...] = (0,)

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """See `Mask.read`."""
        seen = read_coarse(self.source, row, col, height, width, bands=self.bands, factor=self.factor)
        unusable = np.isin(seen, self.values) | ((seen.astype(np.int64) & self.bits) != 0)
        return np.asarray(unusable.any(axis=0))


@dataclass(frozen=True, slots=True, eq=False)
class Stack(ImageFacts):
    """A product as a `csakd_geo.io.source.Source`; made by `Stack.build`.

    Parameters
    ----------
    notes : tuple of str
        What its user should know, one sentence each.
    parts : tuple of Source
        What the pixels come from.
    factors : tuple of int
        Pixel size of each part in pixels of the stack; coarser ones are repeated.
    picks : tuple of (int, int)
        Part and zero-based band of each band of the stack.
    masks : tuple of Mask
    files : tuple of str
        For the fingerprint.
    """

    parts: tuple[Source, ...]
    factors: tuple[int, ...]
    picks: tuple[tuple[int, int], ...]
    masks: tuple[Mask, ...]
    files: tuple[str, ...]

    @classmethod
    def build(
        cls,
        parts: Sequence[Source],
        *,
        name: str,
        driver: str,
        units: str,
        files: Sequence[str],
        factors: Sequence[int] | None = None,
        masks: Sequence[Mask] = (),
        keep: Sequence[int] | None = None,
        notes: Sequence[str] = (),
    ) -> Stack:
        """Bands of all parts one after the other, then sorted by wavelength.

        Parameters
        ----------
        parts : sequence of Source
            The grid is that of the first with factor 1.
        keep : sequence of int, optional
            Bands of the whole sequence to keep; all by default.

        Raises
        ------
        InputError
            If the parts do not lie on one grid.
        """
        sizes = tuple(factors or (1,) * len(parts))
        base = parts[sizes.index(1)]
        for part, size in zip(parts, sizes, strict=True):
            _check_grid(name, base, part, size)
        for mask in masks:
            if isinstance(mask, RasterMask):
                _check_grid(name, base, mask.source, mask.factor)
        picks = [(p, b) for p, part in enumerate(parts) for b in range(part.axis.size)]
        joined = joined_axis([part.axis for part in parts])
        chosen = np.arange(len(picks)) if keep is None else np.asarray(keep, np.intp)
        order, overlap = rising_order(joined.wavelength[chosen])
        order = chosen[order]
        picks = [picks[int(k)] for k in order]

        def column(values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
            return np.concatenate(values)[order]

        dtypes = {part.dtype for part in parts}
        return cls(
            name=name,
            driver=driver,
            axis=joined.take(order),
            crs=base.crs,
            transform=base.transform,
            height=base.height,
            width=base.width,
            dtype=str(np.result_type(*dtypes)),
            nodata=next((part.nodata for part in parts if part.nodata is not None), None),
            scale=column([part.scale for part in parts]),
            offset=column([part.offset for part in parts]),
            units=units,
            integer=all(part.integer for part in parts),
            notes=(*notes, *overlap),
            parts=tuple(parts),
            factors=sizes,
            picks=tuple(picks),
            masks=tuple(masks),
            files=tuple(files),
        )

    def read(
        self, row: int, col: int, height: int, width: int, *, bands: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Physical values ``(band, y, x)`` of a window; see `csakd_geo.io.source.Source.read`."""
        chosen = check_window(self, row, col, height, width, bands)
        out = np.empty((len(chosen), height, width), np.float32)
        for p in sorted({self.picks[b][0] for b in chosen}):
            places = [k for k, b in enumerate(chosen) if self.picks[b][0] == p]
            wanted = [self.picks[chosen[k]][1] for k in places]
            out[places] = read_coarse(
                self.parts[p], row, col, height, width, bands=wanted, factor=self.factors[p]
            )
        for mask in self.masks:
            out[:, mask.read(row, col, height, width)] = np.nan
        return out

    def fingerprint(self) -> str:
        """Names, sizes and times of change of the files, and the bands that are used."""
        states = [os.stat(file) for file in self.files]
        seen = [f"{s.st_size}|{s.st_mtime_ns}" for s in states]
        return "|".join([*(Path(file).name for file in self.files), *seen, str(len(self.picks))])


def open_layer(
    path: str,
    *,
    name: str,
    axis: SpectralAxis | None = None,
    scale: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    nodata: float | None = None,
) -> RasterSource:
    """A raster of a product, with the facts that its metadata file tells instead of its own.

    Parameters
    ----------
    nodata : float, optional
        For bands that record none.

    Raises
    ------
    InputError
        If it cannot be opened, or the metadata describe another number of bands.
    """
    source = RasterSource.open(path, name=name)
    size = source.axis.size
    if axis is not None and axis.size != size:
        raise InputError(
            f"The metadata of '{name}' describe {axis.size} bands but its image has {size}; "
            "they are not of one product."
        )
    values = tuple(nodata if v is None else v for v in source.nodata_values)
    return replace(
        source,
        axis=source.axis if axis is None else axis,
        scale=source.scale if scale is None else _column(scale, size),
        offset=source.offset if offset is None else _column(offset, size),
        nodata_values=values,
        nodata=next((v for v in values if v is not None), None),
    )


def open_mask(
    path: str,
    *,
    name: str,
    factor: int = 1,
    values: Sequence[float] = (),
    bits: int = 0,
    bands: Sequence[int] = (0,),
) -> RasterMask:
    """A mask of stored classes or flags; no value of them counts as nodata by itself.

    Raises
    ------
    InputError
        If it cannot be opened or lacks a band.
    """
    source = RasterSource.open(path, name=name)
    if max(bands) >= source.axis.size:
        raise InputError(
            f"The mask '{name}' has {source.axis.size} bands, expected at least {max(bands) + 1}."
        )
    size = source.axis.size
    raw = replace(
        source, scale=np.ones(size), offset=np.zeros(size), nodata_values=(None,) * size, masked=False
    )
    return RasterMask(raw, factor, tuple(values), bits, tuple(bands))


def read_coarse(
    source: Source, row: int, col: int, height: int, width: int, *, bands: Sequence[int], factor: int
) -> NDArray[np.float32]:
    """A window on a grid that is `factor` times finer than the source's; pixels are repeated."""
    if factor == 1:
        return source.read(row, col, height, width, bands=bands)
    top, left = row // factor, col // factor
    bottom, right = -(-(row + height) // factor), -(-(col + width) // factor)
    seen = source.read(top, left, bottom - top, right - left, bands=bands)
    seen = np.repeat(np.repeat(seen, factor, axis=1), factor, axis=2)
    down, over = row - top * factor, col - left * factor
    return seen[:, down : down + height, over : over + width]


def rising_order(wavelength: NDArray[np.float64]) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Bands by rising wavelength, and a sentence if they were not: detectors overlap."""
    order = np.argsort(wavelength, kind="stable")
    steps = np.flatnonzero(np.diff(wavelength) < 0)
    if steps.size == 0:
        return order, ()
    if steps.size > 1:
        return order, ("The bands were not in rising order and were sorted by wavelength.",)
    low, high = wavelength[steps[0] + 1], wavelength[steps[0]]
    twice = int(((wavelength >= low) & (wavelength <= high)).sum())
    return order, (
        f"Two detectors overlap from {low:.0f} to {high:.0f} nm, where {twice} bands lie; "
        "all bands were sorted by wavelength.",
    )


def joined_axis(axes: Sequence[SpectralAxis]) -> SpectralAxis:
    """Bands of several axes one after the other."""
    return SpectralAxis(
        np.concatenate([axis.wavelength for axis in axes]),
        np.concatenate([axis.fwhm for axis in axes]),
        np.concatenate([axis.good for axis in axes]),
        tuple(name for axis in axes for name in axis.names),
        any(axis.nominal for axis in axes),
    )


def _check_grid(name: str, base: Source, part: Source, factor: int) -> None:
    """Refuse a part whose pixels are not `factor` x `factor` pixels of the product."""
    wanted, found = base.transform * Affine.scale(factor), part.transform
    slack = 0.01 * abs(base.transform.a)
    placed = max(abs(a - b) for a, b in zip(wanted[:6], found[:6], strict=True)) <= slack
    if not placed or part.height * factor < base.height or part.width * factor < base.width:
        raise InputError(
            f"'{part.name}' does not lie on the grid of '{name}': it has {part.height} x {part.width} pixels of "
            f"{abs(found.a):g} from {found.c:g}, {found.f:g}; expected {-(-base.height // factor)} x "
            f"{-(-base.width // factor)} of {abs(wanted.a):g} from {wanted.c:g}, {wanted.f:g}."
        )


def _column(values: ArrayLike, size: int) -> NDArray[np.float64]:
    return np.array(np.broadcast_to(np.asarray(values, dtype=np.float64), (size,)))
