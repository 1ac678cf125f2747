"""The HSI's own subspace: spectra are ``mean + D E z``, D the bands' noise, E the K leading directions of the
noise-whitened HSI, z their coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import apply_srf
from csakd_geo.methods.base import Fitted
from csakd_geo.pair import Pair
from csakd_geo.response import Response

FloatArray = NDArray[np.floating]

COMPONENTS = 10  # that a network sees
KEPT = 14  # at most, that the MAP estimates solve for (benchmarks/quality.py)
_FEWEST = 4  # that are kept of any scene
_ABOVE = 0.85  # of what noise alone would have as its largest variance (benchmarks/quality.py)
_UNMODELLED, _UNMODELLED_WARPED = 0.02, 0.05  # benchmarks/quality.py, benchmarks/methods.py
_LEAST = 0.1  # least deviation of a coordinate, in units of the noise


@dataclass(frozen=True, slots=True, eq=False)
class Subspace:
    """The HSI's own coordinates.

    Parameters
    ----------
    mean : ndarray (band,)
    basis : ndarray (band, K)
        ``D E``: from coordinates to HSI units.
    inverse : ndarray (K, band)
        ``E' D^-1``.
    deviation : ndarray (K,)
        Standard deviation of the HSI's coordinates; at least a tenth of the noise's, so that a direction
        in which nothing varies is not blown up where it is normalised.
    """

    mean: FloatArray
    basis: FloatArray
    inverse: FloatArray
    deviation: FloatArray

    def project(self, cube: FloatArray) -> FloatArray:
        """``(band, y, x)`` to coordinates ``(K, y, x)``."""
        shift = self.inverse @ self.mean
        return apply_srf(cube, self.inverse) - shift[:, None, None].astype(cube.dtype)

    def expand(self, z: FloatArray) -> FloatArray:
        """Coordinates ``(K, y, x)`` to ``(band, y, x)``."""
        out = apply_srf(z, self.basis)
        out += self.mean[:, None, None].astype(out.dtype)
        return out

    def leading(self, count: int) -> Subspace:
        """The subspace of the first directions alone."""
        return Subspace(self.mean, self.basis[:, :count], self.inverse[:count], self.deviation[:count])

    def arrays(self) -> dict[str, FloatArray]:
        """For :class:`Fitted`."""
        return {
            "mean": self.mean.astype(np.float32),
            "basis": self.basis.astype(np.float32),
            "inverse": self.inverse.astype(np.float32),
            "deviation": self.deviation.astype(np.float32),
        }

    @classmethod
    def of(cls, fitted: Fitted) -> Subspace:
        """From :class:`Fitted`."""
        a = fitted.arrays
        return cls(a["mean"], a["basis"], a["inverse"], a["deviation"])


def find_subspace(spectra: FloatArray, noise: FloatArray, components: int = COMPONENTS) -> Subspace:
    """Leading directions of the noise-whitened spectra.

    Parameters
    ----------
    spectra : ndarray (band, n)
    noise : ndarray (band,)
    components : int
    """
    mean = spectra.mean(1)
    white = (spectra - mean[:, None]) / noise[:, None]
    values, vectors = np.linalg.eigh(white @ white.T / max(spectra.shape[1], 1))
    kept = min(components, len(values))
    basis = vectors[:, ::-1][:, :kept]
    # a sign convention: two runs on one machine or on two give one basis
    basis = basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(kept)])
    deviation = np.maximum(np.sqrt(np.maximum(values[::-1][:kept], 0)), _LEAST)
    return Subspace(mean, noise[:, None] * basis, basis.T / noise[None], deviation)


def pair_subspace(pair: Pair, response: Response, *, components: int = COMPONENTS) -> Subspace:
    """The subspace of a pair's own HSI, its noise taken from the pair.

    Directions in which the HSI varies no more than noise alone would do are left out: by Marchenko and Pastur (1967) n
    spectra of B bands of unit noise have variances up to (1 + sqrt(B / n))^2.
    """
    spectra = pair.hsi_spectra()
    # the least error of the HSI under the model (shape of the PSF, warps), over its own deviation
    unmodelled = _UNMODELLED_WARPED if pair.warped else _UNMODELLED
    noise = np.maximum(response.noise, unmodelled * spectra.std(1))
    found = find_subspace(spectra, noise, components)
    largest = (1 + np.sqrt(len(spectra) / max(spectra.shape[1], 1))) ** 2
    return found.leading(max(_FEWEST, int(np.sum(np.square(found.deviation) > _ABOVE * largest))))
