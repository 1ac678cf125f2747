"""Bicubic interpolation and least-squares regression: the floors that everything must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import apply_srf, degrade, upsample
from csakd_geo.methods.base import Fitted
from csakd_geo.pair import Pair
from csakd_geo.response import Response

FloatArray = NDArray[np.floating]


class Bicubic:
    """Cubic interpolation of the HSI; the MSI is not used."""

    name = "bicubic"
    title = "Cubic interpolation of the HSI alone (no fusion)"
    source = "Keys 1981, IEEE TASSP 29(6)"

    def fit(self, pair: Pair, response: Response, *, seed: int = 0) -> Fitted:
        """Nothing is estimated but where the HSI's samples lie."""
        return Fitted(self.name, response.psf, response.psf.context)

    def apply(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Interpolate a window; see :class:`csakd_geo.methods.base.Method`."""
        return upsample(hsi, fitted.psf)


class Regression:
    """Least squares MSI to HSI at low resolution, plus the interpolated residual."""

    name = "regression"
    title = "Least-squares regression of the HSI on the MSI, plus the low-resolution residual"
    source = "Plain least squares; residual as in Selva et al. 2015, IEEE JSTARS 8(6) (hypersharpening)"

    def fit(self, pair: Pair, response: Response, *, seed: int = 0) -> Fitted:
        """One linear map for the scene; pixels whose PSF leaves the sample are left out."""
        margin = response.psf.halo
        coefficients = regress(pair.msi_spectra(response.psf, margin), pair.hsi_spectra(margin))
        psf = response.psf
        return Fitted(self.name, psf, psf.halo + psf.context, {"map": coefficients.astype(np.float32)})

    def apply(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Predict from the MSI, then give back what the HSI says was missed."""
        fused = predict(fitted.arrays["map"], msi)
        residual = hsi - predict(fitted.arrays["map"], degrade(msi, fitted.psf))
        fused += upsample(residual, fitted.psf)
        return fused


def regress(inputs: FloatArray, targets: FloatArray, *, ridge: float = 1e-6) -> FloatArray:
    """Least squares with an intercept.

    Parameters
    ----------
    inputs : ndarray (m, n)
    targets : ndarray (b, n)
    ridge : float
        Relative to the mean variance of the inputs; keeps collinear inputs harmless.

    Returns
    -------
    ndarray (b, m + 1)
        Coefficients; the last column is the intercept.
    """
    mean_x, mean_y = inputs.mean(1, keepdims=True), targets.mean(1, keepdims=True)
    x = inputs - mean_x
    gram = x @ x.T
    level = ridge * np.trace(gram) / len(gram) + 1e-30
    slope = np.linalg.solve(gram + level * np.eye(len(gram)), x @ (targets - mean_y).T).T
    return np.concatenate([slope, mean_y - slope @ mean_x], axis=1)


def predict(coefficients: FloatArray, cube: FloatArray) -> FloatArray:
    """Apply what :func:`regress` found to a cube (m, y, x); returns (b, y, x)."""
    out = apply_srf(cube, coefficients[:, :-1])
    out += coefficients[:, -1:, None].astype(out.dtype)
    return out
