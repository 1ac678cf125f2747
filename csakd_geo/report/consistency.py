"""How well a product agrees with its inputs: degraded against the HSI, projected against the MSI.

Read once, window by window and a few bands at a time, so memory does not grow with the scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import degrade
from csakd_geo.io.lattice import read_hsi, read_msi
from csakd_geo.report.link import Link
from csakd_geo.tiling import Window

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

_SIDE = 1024  # HR pixels per side of a window
_BANDS = 8  # bands at a time
_WEIGHT = 1 - 1e-4  # of a PSF that must lie on valid pixels


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """One image against what the product says it should be, per band.

    Parameters
    ----------
    rmse, bias, level, cc : ndarray (band,)
        In the image's units: root mean square of the difference, its mean (product less image), root mean
        square of the image; and the correlation.
    count : int
        Pixels compared.
    """

    rmse: FloatArray
    bias: FloatArray
    level: FloatArray
    cc: FloatArray
    count: int

    @property
    def relative(self) -> FloatArray:
        """RMSE over level, per band."""
        return np.asarray(self.rmse / np.where(self.level > 0, self.level, np.nan))

    @property
    def overall(self) -> float:
        """Root of the summed squared differences over that of the summed squares, all bands."""
        total = float(np.sqrt(np.square(self.level).sum()))
        return float(np.sqrt(np.square(self.rmse).sum())) / total if total > 0 else float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Consistency:
    """Agreement with both inputs, and where it is lacking.

    Parameters
    ----------
    hsi : Agreement
        Of the bands of ``Link.bands``.
    msi : Agreement or None
        Of ``scene.msi_bands``; None where the product lacks bands that the projection needs.
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
    angle: float
    hsi_map: FloatArray
    msi_map: FloatArray | None
    cells: int
    pixels: int


class _Sums:
    """Running sums per band of an estimate and what it should be."""

    def __init__(self, bands: int) -> None:
        self.count = np.zeros(bands)
        self.sums = np.zeros((6, bands))

    def add(self, bands: slice, ours: FloatArray, theirs: FloatArray) -> None:
        """Add pixels, both (band, n)."""
        f, t = ours.astype(np.float64), theirs.astype(np.float64)
        self.count[bands] += f.shape[1]
        of = "bn,bn->b"
        squares = (np.einsum(of, f, f), np.einsum(of, t, t), np.einsum(of, f, t))
        f_sum, t_sum = f.sum(1), t.sum(1)
        f -= t
        self.sums[:, bands] += np.stack([f_sum, t_sum, *squares, np.einsum(of, f, f)])

    def result(self) -> Agreement:
        """Per-band figures; NaN where nothing was compared."""
        with np.errstate(divide="ignore", invalid="ignore"):
            f, t, ff, tt, ft, error = self.sums / self.count
            cc = (ft - f * t) / np.sqrt((ff - f * f) * (tt - t * t))
        return Agreement(np.sqrt(error), f - t, np.sqrt(tt), cc, int(self.count.max(initial=0)))


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
    hsi = _Sums(len(link.bands))
    msi = _Sums(len(scene.msi_bands)) if link.whole else None
    cells = _Bins(grid.lr_height, grid.lr_width, -(-max(grid.lr_height, grid.lr_width) // side))
    pixels = _Bins(grid.height, grid.width, -(-max(grid.height, grid.width) // side))
    angles = np.zeros(2)
    for window in _windows(grid.lr_height, grid.lr_width, max(1, _SIDE // grid.ratio)):
        projected = _compare_hsi(link, window, hsi, cells, angles)
        if msi is not None:
            _compare_msi(link, window, projected, msi, pixels)
    return Consistency(
        hsi.result(),
        None if msi is None else msi.result(),
        float(angles[0] / angles[1]) if angles[1] else float("nan"),
        cells.result(),
        None if msi is None else pixels.result(),
        cells.size,
        pixels.size,
    )


def _windows(height: int, width: int, step: int) -> Iterator[Window]:
    for row in range(0, height, step):
        for col in range(0, width, step):
            yield Window(row, col, min(step, height - row), min(step, width - col))


def _compare_hsi(link: Link, window: Window, sums: _Sums, bins: _Bins, angles: FloatArray) -> FloatArray:
    """Degrade the product over a window of cells; returns the product projected onto the MSI's bands."""
    scene, grid, psf = link.scene, link.scene.grid, link.psf
    around, operator = window.grown(psf.halo), link.response.operator[:, link.places]
    cut, inner = window.slices(around), window.scaled(grid.ratio).slices(around.scaled(grid.ratio))
    fine = window.scaled(grid.ratio)
    projected = np.zeros((len(operator), fine.height, fine.width), np.float32)
    powers: FloatArray = np.zeros((4, window.height, window.width))  # of product, HSI, both, difference
    known = np.ones((window.height, window.width), bool)
    for first in range(0, len(link.bands), _BANDS):
        part = slice(first, first + _BANDS)
        cube = link.read(around.scaled(grid.ratio), link.bands[part])
        if link.whole:
            projected += np.tensordot(operator[:, part].astype(np.float32), cube[:, *inner], axes=1)
        missing = np.asarray(np.isnan(cube).any(0))
        cube[:, missing] = 0
        ours = degrade(cube, psf)[:, *cut]
        weight = degrade((~missing)[None].astype(np.float64), psf)[0][cut]
        theirs = read_hsi(scene.hsi, grid, window, link.hsi_bands[part].tolist())
        good = np.asarray((weight > _WEIGHT) & np.isfinite(theirs).all(0))
        sums.add(part, ours[:, good], theirs[:, good])
        known = np.asarray(known & good)
        f, t = (np.where(good, a, 0).astype(np.float64) for a in (ours, theirs))
        powers += np.stack([(f * f).sum(0), (t * t).sum(0), (f * t).sum(0), np.square(f - t).sum(0)])
    ff, tt, ft, error = powers
    seen = np.asarray(known & (ff > 0) & (tt > 0))
    cosine = np.clip(ft[seen] / np.sqrt(ff[seen] * tt[seen]), -1, 1)
    angles += np.degrees(np.arccos(cosine)).sum(), seen.sum()
    bins.add(window.row, window.col, _relative(error, tt, seen))
    return projected


def _compare_msi(link: Link, window: Window, projected: FloatArray, sums: _Sums, bins: _Bins) -> None:
    scene, grid = link.scene, link.scene.grid
    theirs = read_msi(scene.msi, grid, window, scene.msi_bands)
    ours = projected + link.response.offset[:, None, None].astype(np.float32)
    good = np.asarray(np.isfinite(ours).all(0) & np.isfinite(theirs).all(0))
    sums.add(slice(None), ours[:, good], theirs[:, good])
    f, t = (np.where(good, a, 0).astype(np.float64) for a in (ours, theirs))
    fine = window.scaled(grid.ratio)
    # what is NaN in the product (all that lies outside it) is not added
    bins.add(
        fine.row - grid.top, fine.col - grid.left, _relative(np.square(f - t).sum(0), (t * t).sum(0), good)
    )


def _relative(error: FloatArray, power: FloatArray, good: BoolArray) -> FloatArray:
    seen = good & (power > 0)
    return np.where(seen, np.sqrt(error / np.where(seen, power, 1)), np.nan)
