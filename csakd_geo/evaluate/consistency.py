"""How well a product agrees with its inputs: degraded against the HSI, projected against the MSI.

Read once, window by window and a few bands at a time, so memory does not grow with the scene.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import PSF, degrade
from csakd_geo.evaluate.link import Link
from csakd_geo.io.lattice import read_hsi, read_msi
from csakd_geo.metrics import (
    UIQI_BLOCK,
    Agreement,
    BandSums,
    NoReferenceScores,
    NoReferenceTally,
    block_edges,
)
from csakd_geo.tiling import Window

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

_SIDE = 1024  # HR pixels per side of a window, if that holds a block
_VALUES = 1 << 24  # of the cells of a window, all bands
_BANDS = 8  # bands at a time
_WEIGHT = 1 - 1e-4  # of a PSF that must lie on valid pixels


@dataclass(frozen=True, slots=True, eq=False)
class Consistency:
    """Agreement with both inputs, and where it is lacking.

    Parameters
    ----------
    hsi : Agreement
        Of the bands of ``Link.bands``.
    msi : Agreement or None
        Of ``scene.msi_bands``; None where the product lacks bands that the projection needs.
    scores : NoReferenceScores
        HQNR and its parts.
    noise : ndarray (band,)
        Standard deviation of the HSI's noise in the bands of ``Link.bands``, its units.
    angle : float
        Mean spectral angle between degraded product and HSI, degrees.
    hsi_map : ndarray (y, x)
        Relative difference per bin of ``cells`` x ``cells`` LR cells of the frame; NaN where nothing is known.
    msi_map : ndarray (y, x) or None
        The same per bin of ``pixels`` x ``pixels`` pixels of the product.
    cells, pixels : int
    """

    hsi: Agreement
    msi: Agreement | None
    scores: NoReferenceScores
    noise: FloatArray
    angle: float
    hsi_map: FloatArray
    msi_map: FloatArray | None
    cells: int
    pixels: int

    @property
    def over_noise(self) -> float:
        """Difference from the HSI over the HSI's noise, all bands.

        A truth leaves about 0.9, as noise is estimated from neighbouring bands, which have some too; less means
        that noise was copied, more that signal was lost.
        """
        noise = float(np.square(self.noise).sum())
        return float(np.sqrt(np.square(self.hsi.rmse).sum() / noise)) if noise > 0 else float("nan")


class _Bins:
    """Means of a value over square bins."""

    def __init__(self, height: int, width: int, size: int) -> None:
        self.size = size
        shape = (-(-height // size), -(-width // size))
        self.total, self.count = np.zeros(shape), np.zeros(shape)

    def add(self, row: int, col: int, values: FloatArray) -> None:
        """Add values at their place; NaN and what lies outside is left out."""
        y, x = np.nonzero(np.isfinite(values))
        places = (y + row) // self.size, (x + col) // self.size
        np.add.at(self.total, places, values[y, x])
        np.add.at(self.count, places, 1)

    def result(self) -> FloatArray:
        """Means, NaN where a bin is empty."""
        return np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan)


def measure_consistency(link: Link, *, side: int) -> Consistency:
    """Compare a product with its inputs.

    A cell counts where the HSI is valid and its whole PSF lies on valid pixels of the product; a pixel
    counts where product and MSI are valid.

    Parameters
    ----------
    link : Link
    side : int
        Bins per side of the two maps, at most.
    """
    scene, grid = link.scene, link.scene.grid
    found = _Found(
        hsi=BandSums(len(link.bands)),
        msi=BandSums(len(scene.msi_bands)),
        scores=NoReferenceTally(len(scene.msi_bands), grid.ratio),
        cells=_Bins(grid.lr_height, grid.lr_width, -(-max(grid.lr_height, grid.lr_width) // side)),
        pixels=_Bins(grid.height, grid.width, -(-max(grid.height, grid.width) // side)),
        angles=np.zeros(2),
    )
    for window in _windows(link):
        coarse = _compare_hsi(link, window, found)
        if link.whole:
            _compare_msi(link, window, coarse, found)
    total, count = found.angles
    return Consistency(
        hsi=found.hsi.result(),
        msi=found.msi.result() if link.whole else None,
        scores=found.scores.result(),
        noise=link.response.noise[link.places],
        angle=float(total / count) if count else float("nan"),
        hsi_map=found.cells.result(),
        msi_map=found.pixels.result() if link.whole else None,
        cells=found.cells.size,
        pixels=found.pixels.size,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Running sums of everything that is measured."""

    hsi: BandSums
    msi: BandSums
    scores: NoReferenceTally
    cells: _Bins
    pixels: _Bins
    angles: FloatArray  # their sum, and of how many cells


@dataclass(frozen=True, slots=True, eq=False)
class _Coarse:
    """What a window of cells leaves for the comparison with the MSI.

    Parameters
    ----------
    product : ndarray (msi_band, y * ratio, x * ratio)
        The product projected, without offsets.
    hsi : ndarray (msi_band, y, x)
        The HSI projected likewise.
    known : ndarray (y, x)
        Cells that were compared in all bands.
    """

    product: FloatArray
    hsi: FloatArray
    known: BoolArray


def _windows(link: Link) -> Iterator[Window]:
    """Windows of whole blocks, so that the scores are those of the scene read at once."""
    grid = link.scene.grid
    values = math.isqrt(_VALUES // len(link.bands))
    blocks = max(1, min(_SIDE // grid.ratio, values) // UIQI_BLOCK)
    rows, cols = (block_edges(n, UIQI_BLOCK) for n in (grid.lr_height, grid.lr_width))
    for top, bottom in pairwise([*rows[:-1:blocks], rows[-1]]):
        for left, right in pairwise([*cols[:-1:blocks], cols[-1]]):
            yield Window(top, left, bottom - top, right - left)


def _compare_hsi(link: Link, window: Window, found: _Found) -> _Coarse:
    """Degrade the product over a window of cells."""
    scene, grid, psf = link.scene, link.scene.grid, link.psf
    around, operator = window.grown(psf.halo), link.operator
    cut, inner = window.slices(around), window.scaled(grid.ratio).slices(around.scaled(grid.ratio))
    fine = window.scaled(grid.ratio)
    projected = np.zeros((len(operator), fine.height, fine.width), np.float32)
    degraded, hsi = np.empty((2, len(link.bands), window.height, window.width), np.float32)
    known = np.ones((window.height, window.width), bool)
    for first in range(0, len(link.bands), _BANDS):
        part = slice(first, first + _BANDS)
        cube = link.read(around.scaled(grid.ratio), link.bands[part])
        if link.whole:
            projected += np.tensordot(operator[:, part], cube[:, *inner], axes=1)
        degraded[part], good = _degrade_known(cube, psf, cut)
        hsi[part] = read_hsi(scene.hsi, grid, window, link.hsi_bands[part].tolist())
        good &= np.isfinite(hsi[part]).all(0)
        found.hsi.add(degraded[part][:, good], hsi[part][:, good], bands=part)
        known &= good
    found.scores.add_spectra(degraded, hsi, known)
    hsi[:, ~known] = degraded[:, ~known] = 0
    ff, tt, ft = (np.einsum("byx,byx->yx", a, b, dtype=np.float64) for a, b in _products(degraded, hsi))
    seen = np.asarray(known & (ff > 0) & (tt > 0))
    cosine = np.clip(ft[seen] / np.sqrt(ff[seen] * tt[seen]), -1, 1)
    found.angles[:] += np.degrees(np.arccos(cosine)).sum(), seen.sum()
    low = np.tensordot(operator, hsi, axes=1) if link.whole else hsi[:0]
    degraded -= hsi
    error = np.einsum("byx,byx->yx", degraded, degraded, dtype=np.float64)
    found.cells.add(window.row, window.col, _relative(error, tt, seen))
    return _Coarse(projected, low, known)


def _products(f: FloatArray, t: FloatArray) -> tuple[tuple[FloatArray, FloatArray], ...]:
    return (f, f), (t, t), (f, t)


def _degrade_known(cube: FloatArray, psf: PSF, cut: tuple[slice, slice]) -> tuple[FloatArray, BoolArray]:
    """A cube seen through the PSF, and the cells whose whole footprint lies on valid pixels.

    Missing pixels are set to zero in place.
    """
    missing = np.asarray(np.isnan(cube).any(0))
    cube[:, missing] = 0
    weight = degrade((~missing)[None].astype(np.float64), psf)[0][cut]
    return degrade(cube, psf)[:, *cut], np.asarray(weight > _WEIGHT)


def _compare_msi(link: Link, window: Window, coarse: _Coarse, found: _Found) -> None:
    """Hold the projection against the MSI, at its resolution and at the HSI's."""
    scene, grid = link.scene, link.scene.grid
    around = window.grown(link.psf.halo)
    fine, offset = window.scaled(grid.ratio), link.response.offset[:, None, None].astype(np.float32)
    msi = read_msi(scene.msi, grid, around, scene.msi_bands)
    theirs = msi[:, *fine.slices(around.scaled(grid.ratio))].copy()
    ours = coarse.product + offset
    good = np.asarray(np.isfinite(ours).all(0) & np.isfinite(theirs).all(0))
    found.msi.add(ours[:, good], theirs[:, good])
    low, known = _degrade_known(msi, link.psf, window.slices(around))
    r = grid.ratio
    known &= coarse.known & good.reshape(window.height, r, window.width, r).all((1, 3))
    found.scores.add_detail((ours, theirs), (coarse.hsi + offset, low), known)
    f, t = (np.where(good, a, 0).astype(np.float64) for a in (ours, theirs))
    # what is NaN in the product (all that lies outside it) is not added
    found.pixels.add(
        fine.row - grid.top, fine.col - grid.left, _relative(np.square(f - t).sum(0), (t * t).sum(0), good)
    )


def _relative(error: FloatArray, power: FloatArray, good: BoolArray) -> FloatArray:
    seen = good & (power > 0)
    return np.where(seen, np.sqrt(error / np.where(seen, power, 1)), np.nan)
