"""How the two sensors relate, found from the pair itself: PSF, shift, SRF, gains, noise.

One pixel of PSF phase costs more than the choice of method, and nominal responses can be far
from the truth, so these are estimated blind, with nominal tables as the prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

from csakd_geo.degrade import PSF, degrade
from csakd_geo.errors import SpectralError
from csakd_geo.pair import Block, Pair

FloatArray = NDArray[np.floating]

_LEADING = 3  # HSI components that the PSF search explains
_FWHM_RANGE = (0.3, 2.5)  # in LR pixels
_MAX_PIXELS = 40_000  # LR pixels used by the searches
_COARSE_PIXELS = 5_000  # of these on the coarse grid
_MIN_GAIN = 0.02  # relative fall of the residual that makes a shift believable whatever it is
_CHANCE = 14.0  # times one over the pixels: a fall that two parameters reach by chance once in a thousand
_MIN_MOVE = 0.05  # LR pixels under which such a smaller fall may come from the PSF's form
_MIN_EXPLAINED = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """What links MSI and HSI: ``degrade(msi, psf) = gain * (srf @ hsi) + offset``.

    Parameters
    ----------
    psf : PSF
        With the displacement that remains after the grid was laid.
    srf : ndarray (msi_band, hsi_band)
        Non-negative rows summing to 1.
    gain, offset : ndarray (msi_band,)
        From HSI units to MSI units.
    misfit : ndarray (msi_band,)
        Standard deviation of what this relation leaves, MSI units, at LR.
    noise : ndarray (hsi_band,)
        Standard deviation of the HSI's noise, HSI units.
    explained : float
        Share of the variance of the HSI's leading components that the MSI explains at LR.
    confident : bool
        Whether the PSF's displacement is believable.
    """

    psf: PSF
    srf: FloatArray
    gain: FloatArray
    offset: FloatArray
    misfit: FloatArray
    noise: FloatArray
    explained: float
    confident: bool

    @property
    def operator(self) -> FloatArray:
        """``gain * srf``, (msi_band, hsi_band)."""
        return np.asarray(self.gain[:, None] * self.srf)


def estimate_response(
    pair: Pair,
    *,
    psf: PSF | None = None,
    phase: bool = True,
    centre: tuple[float, float] = (0.0, 0.0),
    reach: int = 1,
) -> Response:
    """Estimate everything that links the two images of a pair.

    Parameters
    ----------
    pair : Pair
    psf : PSF, optional
        Taken as it is; by default it is searched for.
    phase, centre, reach
        Of the search; see :func:`estimate_psf`.

    Returns
    -------
    Response

    Raises
    ------
    SpectralError
        If the pair has too few valid pixels to relate its bands, nothing varies in the HSI, or no
        MSI band has to do with it.
    """
    if pair.pixels < 16:
        raise SpectralError(
            f"Only {pair.pixels} HSI pixels are valid in both images; at least 16 are needed to relate them."
        )
    if _is_flat(pair.hsi_spectra()):
        raise SpectralError(
            "The HSI has one value per band on all valid pixels, so its bands cannot be related to the MSI's; "
            "check its nodata value and that it shows the same place."
        )
    if psf is None:
        psf, explained, confident = estimate_psf(pair, phase=phase, centre=centre, reach=reach)
    else:
        explained, confident = 1 - _Residual(pair)(psf), False
    margin = psf.halo
    hsi, msi = pair.hsi_spectra(margin), pair.msi_spectra(psf, margin)
    operator, offset, misfit = _estimate_srf(hsi, msi)
    gain = operator.sum(1)
    if (gain <= 0).any():
        dark = [int(i) + 1 for i in np.flatnonzero(gain <= 0)]
        gain = np.where(gain > 0, gain, 1.0)
        if len(dark) == len(gain):
            raise SpectralError(
                "No MSI band is related to the HSI (all responses came out zero); "
                "check that both files show the same place."
            )
    return Response(
        psf=psf,
        srf=operator / gain[:, None],
        gain=gain,
        offset=offset,
        misfit=misfit,
        noise=estimate_noise(hsi),
        explained=explained,
        confident=confident,
    )


class _Residual:
    """Share of the HSI's leading components that the degraded MSI does not explain, by PSF."""

    def __init__(self, pair: Pair, reach: int = 2) -> None:
        self.pair, self.reach = _thin(pair), reach
        spectra = self.pair.hsi_spectra(reach)
        spectra = spectra - spectra.mean(1, keepdims=True)
        _, vectors = np.linalg.eigh(spectra @ spectra.T)
        self.scores = vectors[:, -_LEADING:].T @ spectra

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
        """Share of the scores' variance that an affine function of the MSI leaves."""
        target = scores - scores.mean(1, keepdims=True)
        total = float(np.square(target).sum())
        if total <= 1e-24 * float(np.square(scores).sum()) or total <= 0:
            return 1.0
        design = msi - msi.mean(1, keepdims=True)
        design = design / np.maximum(np.sqrt(np.square(design).sum(1, keepdims=True)), 1e-30)
        gram = design @ design.T + 1e-9 * np.eye(len(design))
        projection = target @ design.T
        fitted = float(np.sum(projection * np.linalg.solve(gram, projection.T).T))
        return max(0.0, 1.0 - fitted / total)


def _is_flat(spectra: FloatArray) -> bool:
    """Whether no band varies by more than rounding."""
    return bool((np.ptp(spectra, axis=1) <= 1e-9 * np.abs(spectra).max(1)).all())


def _thin(pair: Pair) -> Pair:
    """Less of a large sample: the searches need no more than ``_MAX_PIXELS``."""
    kept: list[Block] = []
    count = 0
    for block in pair.blocks:
        if kept and count + block.valid.size > _MAX_PIXELS:
            break
        kept.append(_part(block, pair.ratio))
        count += kept[-1].valid.size
    return Pair(tuple(kept), pair.ratio, pair.hsi_axis, pair.msi_axis)


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


def estimate_psf(
    pair: Pair, *, phase: bool = True, centre: tuple[float, float] = (0.0, 0.0), reach: int = 1
) -> tuple[PSF, float, bool]:
    """Find PSF width and displacement together.

    The residual of regressing the HSI's leading components on the degraded MSI is minimised
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
        Share of the leading components' variance explained at the minimum, 0 to 1.
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
    return psf, 1 - best, bool(phase and best < 1 - _MIN_EXPLAINED and sure)


def _estimate_srf(hsi: FloatArray, msi: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Smooth non-negative least squares with an offset.

    Returns
    -------
    operator : ndarray (msi_band, hsi_band)
    offset : ndarray (msi_band,)
    misfit : ndarray (msi_band,)
    """
    bands, n = hsi.shape
    mean_h, mean_m = hsi.mean(1, keepdims=True), msi.mean(1, keepdims=True)
    h, m = hsi - mean_h, msi - mean_m
    gram, cross = h @ h.T / n, h @ m.T / n
    level = np.trace(gram) / bands
    second = np.diff(np.eye(bands), n=min(2, bands - 1), axis=0)
    rough = second.T @ second
    # even and odd pixels in runs take turns, so noise is not fitted
    fold = (np.arange(n) // 8) % 2 == 0
    operator, unseen = np.zeros((len(m), bands)), np.zeros(len(m))
    grams = {
        weight: np.linalg.cholesky(gram + level * (weight * rough + 1e-9 * np.eye(bands))).T
        for weight in (1e-4, 1e-2, 1.0)
    }
    half = h[:, fold] @ h[:, fold].T / max(fold.sum(), 1)
    for band in range(len(m)):
        best, best_weight = np.inf, 1e-2
        half_cross = h[:, fold] @ m[band, fold] / max(fold.sum(), 1)
        for weight in grams:
            factor = np.linalg.cholesky(half + level * (weight * rough + 1e-9 * np.eye(bands))).T
            row, _ = nnls(factor, np.linalg.solve(factor.T, half_cross), maxiter=30 * bands)
            error = float(np.square(m[band, ~fold] - row @ h[:, ~fold]).mean()) if (~fold).any() else 0.0
            if error < best:
                best, best_weight = error, weight
        unseen[band] = best
        factor = grams[best_weight]
        operator[band], _ = nnls(factor, np.linalg.solve(factor.T, cross[:, band]), maxiter=30 * bands)
    offset = (mean_m - operator @ mean_h)[:, 0]
    seen = np.square(m - operator @ h).mean(1)
    # what was not fitted tells the error; what was fitted flatters it
    misfit = np.sqrt(np.maximum(seen, unseen))
    return operator, offset, misfit


def estimate_noise(spectra: FloatArray, *, neighbours: int = 2) -> FloatArray:
    """Noise of each HSI band: what its spectral neighbours leave unexplained.

    Each band is regressed on ``neighbours`` bands to either side (Roger and Arnold 1996).

    Parameters
    ----------
    spectra : ndarray (band, n)

    Returns
    -------
    ndarray (band,)
    """
    bands, n = spectra.shape
    centred = spectra - spectra.mean(1, keepdims=True)
    covariance = centred @ centred.T
    noise = np.empty(bands)
    for band in range(bands):
        near = [k for k in range(max(0, band - neighbours), min(bands, band + neighbours + 1)) if k != band]
        if not near:
            noise[band] = 0.0
            continue
        gram = covariance[np.ix_(near, near)]
        gram = gram + 1e-9 * np.trace(gram) / len(near) * np.eye(len(near)) + 1e-30 * np.eye(len(near))
        cross = covariance[near, band]
        left = covariance[band, band] - cross @ np.linalg.solve(gram, cross)
        noise[band] = math.sqrt(max(left, 0.0) / max(n - len(near) - 1, 1))
    floor = 1e-4 * float(np.sqrt(np.square(centred).mean())) + 1e-12
    return np.maximum(noise, floor)
