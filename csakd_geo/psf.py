"""The PSF and the displacement under which the HSI explains the MSI best."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from csakd_geo.degrade import PSF, degrade
from csakd_geo.pair import Block, Pair

FloatArray = NDArray[np.floating]

_LEADING = 10  # HSI components that explain the MSI in the search
_PER_COMPONENT = 5  # LR pixels each of them wants
_LEAST_LEFT = 1e-8  # share of a band's variance that counts as nothing
_LOOKED_AT = 3  # HSI components whose explained share is stated
_FWHM_RANGE = (0.3, 2.5)  # in LR pixels
_MAX_PIXELS = 40_000  # LR pixels used by the searches
_COARSE_PIXELS = 5_000  # of these on the coarse grid
_MIN_GAIN = 0.02  # relative fall of the residual that makes a shift believable whatever it is
_CHANCE = 14.0  # times one over the pixels: a fall that two parameters reach by chance once in a thousand
_MIN_MOVE = 0.05  # LR pixels under which such a smaller fall may come from the PSF's form
_MIN_EXPLAINED = 0.5


def explained_by(pair: Pair, psf: PSF) -> float:
    """Share of the variance of the HSI's leading components that the MSI explains under a PSF, 0 to 1."""
    seen = thin(pair)
    margin = psf.halo
    spectra = seen.hsi_spectra(margin)
    spectra = spectra - spectra.mean(1, keepdims=True)
    values, vectors = np.linalg.eigh(spectra @ spectra.T)
    if values[-1] <= 0:
        return 0.0
    left = _unexplained(vectors[:, -_LOOKED_AT:].T @ spectra, seen.msi_spectra(psf, margin))
    return float(1 - left @ values[-_LOOKED_AT:] / values[-_LOOKED_AT:].sum())


def estimate_psf(
    pair: Pair, *, phase: bool = True, centre: tuple[float, float] = (0.0, 0.0), reach: int = 1
) -> tuple[PSF, float, bool]:
    """Find PSF width and displacement together.

    The residual of regressing the degraded MSI on the HSI's leading components is minimised
    over (FWHM, dy, dx): a coarse grid of displacements, then Nelder-Mead.

    Parameters
    ----------
    pair : Pair
    phase : bool
        False keeps the PSF where ``centre`` says and finds its width only.
    centre : (float, float)
        Displacement (dy, dx) in HR pixels that the files' positions ask for.
    reach : int
        Largest displacement from there on the coarse grid, in LR pixels.

    Returns
    -------
    psf : PSF
    explained : float
        Share of the variance of the HSI's leading components that the MSI explains at the minimum, 0 to 1.
    confident : bool
        Whether displacing the PSF lowers the residual by more than chance would.
    """
    r = pair.ratio
    residual = _Residual(pair, reach=reach + 1)
    start = residual.coarse_best(centre, reach) if phase else centre
    low, high = (r * f for f in _FWHM_RANGE)
    limit = (reach + 0.5) * r

    def candidate(x: FloatArray) -> PSF:
        fwhm = float(np.clip(x[0], low, high))
        if not phase:
            return PSF(r, fwhm, *centre)
        dy, dx = (float(np.clip(v, c - limit, c + limit)) for v, c in zip(x[1:], centre, strict=True))
        return PSF(r, fwhm, dy, dx)

    simplex = [[r, *start], [0.7 * r, *start]] if phase else [[r], [0.7 * r]]
    if phase:
        simplex += [[r, start[0] + 0.3 * r, start[1]], [r, start[0], start[1] + 0.3 * r]]
    found = minimize(
        lambda x: residual(candidate(x)),
        simplex[0],
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 0.01, "fatol": 1e-7, "maxfev": 120},
    )
    psf = candidate(found.x)
    best = float(found.fun)
    gain = residual(PSF(r, psf.fwhm, *centre)) - best
    moved = math.hypot(psf.dy - centre[0], psf.dx - centre[1]) / r
    sure = gain > _MIN_GAIN * best or (moved > _MIN_MOVE and gain > best * _CHANCE / residual.pixels)
    return psf, explained_by(pair, psf), bool(phase and best < 1 - _MIN_EXPLAINED and sure)


class _Residual:
    """Share of the degraded MSI's variance that the HSI's leading components do not explain, by PSF.

    The MSI is a sum of the HSI's bands, so under the right PSF next to nothing is left; the other way round
    an MSI of few bands leaves much of the HSI, and what a wrong PSF does to that says little. The share is
    the geometric mean over the MSI's bands: the likelihood where each has a noise of its own.
    """

    def __init__(self, pair: Pair, reach: int = 2) -> None:
        self.pair, self.reach = thin(pair), reach
        spectra = self.pair.hsi_spectra(reach)
        spectra = spectra - spectra.mean(1, keepdims=True)
        spectra /= np.maximum(spectra.std(1, keepdims=True), 1e-12 * np.abs(spectra).max() + 1e-300)
        values, vectors = np.linalg.eigh(spectra @ spectra.T)
        varied = int((values > 1e-9 * values[-1]).sum())  # mixtures of three spectra have two
        kept = max(1, min(_LEADING, varied, spectra.shape[1] // _PER_COMPONENT))
        self.scores = vectors[:, -kept:].T @ spectra

    @property
    def pixels(self) -> int:
        """LR pixels that the residual is taken over."""
        return int(self.scores.shape[1])

    def __call__(self, psf: PSF) -> float:
        return self._left(self.pair.msi_spectra(psf, self.reach), self.scores)

    def coarse_best(self, centre: tuple[float, float], reach: int) -> tuple[float, float]:
        """Best displacement on a grid of half LR pixels around ``centre``.

        Whole LR pixels are shifts of one degraded image, so four degradations serve the grid. Of
        equals the one closest to the centre is taken.
        """
        r, m = self.pair.ratio, self.reach
        masks = self.pair.interior(m)
        every = max(1, sum(int(mask.sum()) for mask in masks) // _COARSE_PIXELS)
        scores = self.scores[:, ::every]
        found = []
        for half_y in (0.0, 0.5):
            for half_x in (0.0, 0.5):
                psf = PSF(r, float(r), centre[0] + half_y * r, centre[1] + half_x * r)
                images = [
                    np.pad(degrade(b.msi, psf), ((0, 0), (m, m), (m, m)), mode="edge")
                    for b in self.pair.blocks
                ]
                for i in range(-reach, reach + 1):
                    for j in range(-reach, reach + 1):
                        columns = [
                            image[:, m + i : m + i + mask.shape[0], m + j : m + j + mask.shape[1]][:, mask]
                            for image, mask in zip(images, masks, strict=True)
                        ]
                        msi = np.concatenate(columns, axis=1)[:, ::every].astype(np.float64)
                        offset = ((half_y + i) * r, (half_x + j) * r)
                        found.append((round(self._left(msi, scores), 6), math.hypot(*offset), offset))
        offset = min(found)[2]
        return centre[0] + offset[0], centre[1] + offset[1]

    @staticmethod
    def _left(msi: FloatArray, scores: FloatArray) -> float:
        """Share of the MSI's variance that an affine function of the scores leaves."""
        left = _unexplained(msi, scores)
        return float(np.exp(np.log(np.maximum(left, _LEAST_LEFT)).mean()))


def _unexplained(targets: FloatArray, inputs: FloatArray) -> FloatArray:
    """Share of each row's variance that an affine function of the inputs leaves; 1 where nothing varies."""
    target = targets - targets.mean(1, keepdims=True)
    total = np.square(target).sum(1)
    varied = total > 1e-24 * np.square(targets).sum(1)
    design = inputs - inputs.mean(1, keepdims=True)
    design = design / np.maximum(np.sqrt(np.square(design).sum(1, keepdims=True)), 1e-30)
    gram = design @ design.T + 1e-9 * np.eye(len(design))
    projection = target @ design.T
    fitted = np.sum(projection * np.linalg.solve(gram, projection.T).T, axis=1)
    return np.where(varied, np.maximum(0.0, 1.0 - fitted / np.where(varied, total, 1.0)), 1.0)


def thin(pair: Pair) -> Pair:
    """Less of a large sample: the searches need no more than ``_MAX_PIXELS``."""
    kept: list[Block] = []
    count = 0
    for block in pair.blocks:
        if kept and count + block.valid.size > _MAX_PIXELS:
            break
        kept.append(_part(block, pair.ratio))
        count += kept[-1].valid.size
    return replace(pair, blocks=tuple(kept))


def _part(block: Block, ratio: int) -> Block:
    """Of a block with more than ``_MAX_PIXELS`` the part of that size with most valid pixels; any other as it is."""
    height, width = block.valid.shape
    if height * width <= _MAX_PIXELS:
        return block
    side = math.isqrt(_MAX_PIXELS)
    rows, cols = min(height, max(side, _MAX_PIXELS // width)), min(width, max(side, _MAX_PIXELS // height))
    # the middle is asked first and wins where nothing is masked
    places = [(int(y * (height - rows)), int(x * (width - cols))) for y in (0.5, 0, 1) for x in (0.5, 0, 1)]
    top, left = max(places, key=lambda at: int(block.valid[at[0] : at[0] + rows, at[1] : at[1] + cols].sum()))
    low = np.s_[top : top + rows, left : left + cols]
    high = np.s_[:, top * ratio : (top + rows) * ratio, left * ratio : (left + cols) * ratio]
    return Block(block.hsi[:, *low], block.msi[high], block.valid[low])
