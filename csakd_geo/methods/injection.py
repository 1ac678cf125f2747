"""Pansharpening carried over to HSI and MSI: GSA and MTF-GLP.

Each HSI band takes its details from the MSI band it resembles most, as in the review of
Loncan et al. 2015, IEEE GRSM 3(3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import apply_srf, degrade, upsample
from csakd_geo.methods.base import Fitted, Projection
from csakd_geo.methods.linear import regress
from csakd_geo.pair import Pair
from csakd_geo.response import Response

FloatArray = NDArray[np.floating]


def _assign(hsi: FloatArray, msi: FloatArray) -> NDArray[np.intp]:
    """The MSI band that correlates best with each HSI band, (hsi_band,)."""
    h = hsi - hsi.mean(1, keepdims=True)
    m = msi - msi.mean(1, keepdims=True)
    norm = np.linalg.norm(h, axis=1)[:, None] * np.linalg.norm(m, axis=1)[None] + 1e-30
    return np.asarray(np.argmax((h @ m.T) / norm, axis=1))


def _gain(hsi: FloatArray, detail: FloatArray) -> FloatArray:
    """Regression slope of each HSI band on its own detail source, both (hsi_band, n)."""
    h = hsi - hsi.mean(1, keepdims=True)
    d = detail - detail.mean(1, keepdims=True)
    return np.asarray((h * d).sum(1) / (np.square(d).sum(1) + 1e-30))


class GSA:
    """Adaptive Gram-Schmidt: details are the MSI band minus its synthesis from the HSI."""

    name = "gsa"
    title = "Adaptive Gram-Schmidt, each HSI band sharpened by its most similar MSI band"
    source = "Aiazzi et al. 2007, IEEE TGRS 45(10); band assignment of Loncan et al. 2015"

    def fit(self, pair: Pair, response: Response, *, seed: int = 0) -> Fitted:
        """Synthesis weights of each MSI band from the HSI, and injection gains."""
        margin = response.psf.halo
        hsi, msi = pair.hsi_spectra(margin), pair.msi_spectra(response.psf, margin)
        band = _assign(hsi, msi)
        synthesis = regress(hsi, msi, ridge=1e-3)
        intensity = synthesis[:, :-1] @ hsi + synthesis[:, -1:]
        gain = _gain(hsi, intensity[band])
        arrays = {
            "band": band.astype(np.int32),
            "synthesis": synthesis.astype(np.float32),
            "gain": gain.astype(np.float32),
        }
        return Fitted(self.name, response.psf, response.psf.context, arrays)

    def apply(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Inject the details of a window."""
        a = fitted.arrays
        fused = upsample(hsi, fitted.psf)
        fused += a["gain"][:, None, None] * self._detail(fitted, hsi, msi)[a["band"]]
        return fused

    def coordinates(
        self, fitted: Fitted, subspace: Projection, hsi: FloatArray, msi: FloatArray
    ) -> FloatArray:
        """The result in a subspace (K, y, x), without the bands in between: all of it is linear in them."""
        a = fitted.arrays
        inject = np.zeros((len(a["gain"]), len(msi)), np.float32)
        inject[np.arange(len(inject)), a["band"]] = a["gain"]
        z = upsample(subspace.project(hsi), fitted.psf)
        z += apply_srf(self._detail(fitted, hsi, msi), subspace.inverse @ inject)
        return z

    def _detail(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Every MSI band minus its synthesis."""
        synthesis = fitted.arrays["synthesis"]
        intensity = apply_srf(hsi, synthesis[:, :-1]) + synthesis[:, -1:, None]
        return np.asarray(msi - upsample(intensity, fitted.psf))


class MTFGLP:
    """Generalised Laplacian pyramid: details are the MSI band minus its own PSF-filtered version."""

    name = "mtf-glp"
    title = "Laplacian pyramid with the estimated PSF, each HSI band sharpened by its most similar MSI band"
    source = "Aiazzi et al. 2006, PE&RS 72(5); band assignment of Loncan et al. 2015"

    def fit(self, pair: Pair, response: Response, *, seed: int = 0) -> Fitted:
        """Injection gains at low resolution."""
        margin = response.psf.halo
        hsi, msi = pair.hsi_spectra(margin), pair.msi_spectra(response.psf, margin)
        band = _assign(hsi, msi)
        arrays = {"band": band.astype(np.int32), "gain": _gain(hsi, msi[band]).astype(np.float32)}
        return Fitted(self.name, response.psf, response.psf.halo + response.psf.context, arrays)

    def apply(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Inject the details of a window."""
        a = fitted.arrays
        detail = msi - upsample(degrade(msi, fitted.psf), fitted.psf)
        fused = upsample(hsi, fitted.psf)
        fused += a["gain"][:, None, None] * detail[a["band"]]
        return fused
