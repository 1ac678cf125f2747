"""How the two sensors relate, found from the pair itself: PSF, shift, SRF, gains, noise.

One pixel of PSF phase costs more than the choice of method, and nominal responses can be far
from the truth, so these are estimated blind, with nominal tables as the prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from csakd_geo.degrade import PSF
from csakd_geo.errors import SpectralError
from csakd_geo.pair import Pair
from csakd_geo.psf import estimate_psf, explained_by

FloatArray = NDArray[np.floating]

_BEYOND = 1e-2  # weight of a response's part outside its nominal band, against the fit
_LEEWAY = 40.0  # nm that a band may lie beside its nominal centre, on top of its width
_RELATED = 0.3  # share of an MSI band's variance below which the HSI explains next to nothing


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
        Of the search; see :func:`csakd_geo.psf.estimate_psf`.

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
        explained, confident = explained_by(pair, psf), False
    margin = psf.halo
    hsi, msi = pair.hsi_spectra(margin), pair.msi_spectra(psf, margin)
    operator, offset, misfit = _estimate_srf(hsi, msi, _beyond_nominal(pair))
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


def _is_flat(spectra: FloatArray) -> bool:
    """Whether no band varies by more than rounding."""
    return bool((np.ptp(spectra, axis=1) <= 1e-9 * np.abs(spectra).max(1)).all())


def _beyond_nominal(pair: Pair) -> FloatArray:
    """How far each HSI band lies outside each MSI band's nominal one, 0 to 1, (msi_band, hsi_band); 0 if unknown."""
    reach = (pair.msi_axis.filled_fwhm() + _LEEWAY)[:, None]
    away = np.abs(pair.hsi_axis.wavelength - pair.msi_axis.wavelength[:, None]) / reach
    return np.square(np.clip(np.nan_to_num(away) - 1, 0, 1))


def _estimate_srf(
    hsi: FloatArray, msi: FloatArray, beyond: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Smooth non-negative least squares with an offset; what is `beyond` the nominal bands is damped.

    Without that, bands in which next to nothing varies may take any weight.

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
    half = h[:, fold] @ h[:, fold].T / max(fold.sum(), 1)
    for band in range(len(m)):
        damped = np.diag(1e-9 + _BEYOND * beyond[band])
        best, best_weight = np.inf, 1e-2
        half_cross = h[:, fold] @ m[band, fold] / max(fold.sum(), 1)
        for weight in (1e-4, 1e-2, 1.0):
            row = _nonnegative(half + level * (weight * rough + damped), half_cross)
            error = float(np.square(m[band, ~fold] - row @ h[:, ~fold]).mean()) if (~fold).any() else 0.0
            if error < best:
                best, best_weight = error, weight
        unseen[band] = best
        operator[band] = _nonnegative(gram + level * (best_weight * rough + damped), cross[:, band])
    offset = (mean_m - operator @ mean_h)[:, 0]
    seen = np.square(m - operator @ h).mean(1)
    # what was not fitted tells the error; what was fitted flatters it
    misfit = np.sqrt(np.maximum(seen, unseen))
    return operator, offset, misfit


def _nonnegative(gram: FloatArray, cross: FloatArray) -> FloatArray:
    """Non-negative least squares by its normal equations, (band, band) and (band,)."""
    factor = np.linalg.cholesky(gram).T
    row, _ = nnls(factor, np.linalg.solve(factor.T, cross), maxiter=30 * len(gram))
    return np.asarray(row)


def unrelated_bands(pair: Pair, response: Response) -> NDArray[np.intp]:
    """MSI bands of whose variance the HSI explains next to nothing, zero-based.

    Such a band is noise, lies outside the HSI's range, or shows something else; methods give it little weight.
    """
    variance = pair.msi_spectra(response.psf, response.psf.halo).var(1)
    left = np.square(response.misfit) / np.where(variance > 0, variance, np.inf)
    return np.flatnonzero(left > 1 - _RELATED)


def robust_misfit(pair: Pair, response: Response) -> tuple[FloatArray, FloatArray]:
    """Median and robust deviation of the degraded MSI minus the HSI through the operator, both (msi_band,).

    Unlike ``offset`` and ``misfit`` they do not know of the few pixels where something changed.
    """
    margin = response.psf.halo
    left = pair.msi_spectra(response.psf, margin) - response.operator @ pair.hsi_spectra(margin)
    centre = np.median(left, axis=1)
    return centre, 1.4826 * np.median(np.abs(left - centre[:, None]), axis=1)


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
    noise = np.zeros(bands)
    for band in range(bands):
        near, weights = neighbour_weights(covariance, band, neighbours=neighbours)
        if near.size:
            left = covariance[band, band] - covariance[near, band] @ weights
            noise[band] = math.sqrt(max(left, 0.0) / max(n - near.size - 1, 1))
    floor = 1e-4 * float(np.sqrt(np.square(centred).mean())) + 1e-12
    return np.maximum(noise, floor)


def neighbour_weights(
    covariance: FloatArray, band: int, *, neighbours: int = 2
) -> tuple[NDArray[np.intp], FloatArray]:
    """Which bands are the spectral neighbours of one, and their weights in its regression on them.

    Parameters
    ----------
    covariance : ndarray (band, band)
    band : int
    neighbours : int
        To either side.

    Returns
    -------
    near : ndarray (k,)
    weights : ndarray (k,)
    """
    near = np.arange(max(0, band - neighbours), min(len(covariance), band + neighbours + 1))
    near = near[near != band]
    gram = covariance[np.ix_(near, near)]
    gram = gram + (1e-9 * np.trace(gram) / max(near.size, 1) + 1e-30) * np.eye(near.size)
    return near, np.linalg.solve(gram, covariance[near, band])
