"""Coupled non-negative matrix factorisation (Yokoya et al. 2012, IEEE TGRS 50(2)).

The endmembers belong to the scene and are fitted once; the abundances of a window then come
from its own pixels by multiplicative updates, so a window never sees its neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import PSF, apply_srf, degrade, upsample
from csakd_geo.methods.base import Fitted, Projection
from csakd_geo.pair import Pair, cut
from csakd_geo.response import Response

FloatArray = NDArray[np.floating]

_PIXELS = 8_000  # LR pixels the endmembers are fitted on
_CHUNK = 4_096  # pixels unmixed at a time: fits the cache
_LR_STEPS, _HR_STEPS, _END_STEPS, _ROUNDS = 300, 120, 60, 3
_SUM_TO_ONE = 1.0  # weight of the sum-to-one row, in units of the data's root mean square


class CNMF:
    """Endmembers of the HSI with abundances of the MSI."""

    name = "cnmf"
    title = "Coupled non-negative matrix factorisation: HSI endmembers, MSI abundances"
    source = "Yokoya, Yairi, Iwasaki 2012, IEEE TGRS 50(2)"

    def __init__(self, endmembers: int = 20) -> None:
        self.endmembers = endmembers

    def fit(self, pair: Pair, response: Response, *, seed: int = 0) -> Fitted:
        """Endmembers by successive projection, then coupled updates on the sample."""
        psf, operator = response.psf, response.operator
        blocks = cut(pair, _PIXELS)
        spectra = np.concatenate([b.hsi[:, b.valid] for b in blocks.blocks], axis=1).astype(np.float64)
        spectra = np.maximum(spectra, 0)
        scale = float(np.sqrt(np.square(spectra).mean())) or 1.0
        spectra = spectra / scale
        count = min(self.endmembers, spectra.shape[1], spectra.shape[0])
        ends = spectra[:, successive_projection(spectra, count)] + 1e-6
        offset = response.offset[:, None] / scale
        for _ in range(_ROUNDS):
            abundances = []
            for block in blocks.blocks:
                fine = _abundances(ends, operator, offset, psf, block.hsi / scale, block.msi / scale)
                coarse = degrade(fine, psf)
                abundances.append(coarse[:, block.valid])
            mix = np.concatenate(abundances, axis=1).astype(np.float64)
            above, gram = spectra @ mix.T, mix @ mix.T
            for _ in range(_END_STEPS):
                ends = ends * (above / (ends @ gram + 1e-12))
        arrays = {
            "endmembers": ends.astype(np.float32),
            "operator": operator.astype(np.float32),
            "offset": offset.astype(np.float32),
        }
        return Fitted(self.name, psf, psf.context, arrays, {"scale": scale})

    def apply(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Unmix a window and mix it again with the scene's endmembers."""
        ends, mix = self._unmixed(fitted, hsi, msi)
        return np.asarray(np.tensordot(ends, mix, axes=1), dtype=np.float32)

    def coordinates(
        self, fitted: Fitted, subspace: Projection, hsi: FloatArray, msi: FloatArray
    ) -> FloatArray:
        """The result in a subspace (K, y, x): the abundances times the projected endmembers."""
        ends, mix = self._unmixed(fitted, hsi, msi)
        z = apply_srf(mix, subspace.inverse @ ends)
        z -= (subspace.inverse @ subspace.mean)[:, None, None].astype(z.dtype)
        return z

    def _unmixed(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Endmembers in the HSI's units (band, endmember), abundances (endmember, y, x)."""
        a, scale = fitted.arrays, np.float32(fitted.facts["scale"])
        ends = a["endmembers"]
        mix = _abundances(ends, a["operator"], a["offset"], fitted.psf, hsi / scale, msi / scale)
        return ends * scale, mix


def successive_projection(spectra: FloatArray, count: int) -> list[int]:
    """Indices of the spectra that span the data best (Araujo et al. 2001)."""
    rest = spectra / np.maximum(spectra.sum(0, keepdims=True), 1e-12)
    chosen: list[int] = []
    for _ in range(count):
        norms = np.square(rest).sum(0)
        k = int(np.argmax(norms))
        chosen.append(k)
        axis = rest[:, k] / max(float(np.sqrt(norms[k])), 1e-12)
        rest = rest - np.outer(axis, axis @ rest)
    return chosen


def _abundances(
    ends: FloatArray, operator: FloatArray, offset: FloatArray, psf: PSF, hsi: FloatArray, msi: FloatArray
) -> FloatArray:
    """HR abundances (endmember, y, x) of a window whose values are divided by the scene's scale."""
    bands, height, width = hsi.shape
    count = ends.shape[1]
    start = np.full((count, height * width), 1.0 / count, np.float32)
    coarse = unmix(ends, hsi.reshape(bands, -1), start, _LR_STEPS)
    fine = np.maximum(upsample(coarse.reshape(count, height, width), psf), 1e-6)
    shape = fine.shape
    seen = operator @ ends + offset
    # abundances sum to 1, so a constant changes nothing: it keeps an MSI with an offset positive
    lift = np.maximum(0, -seen.min(1, keepdims=True))
    level = operator.sum(1).mean()  # back to the HSI's units, which the sum-to-one row is weighed in
    pixels = (msi.reshape(len(msi), -1) + lift) / level
    fine = unmix((seen + lift) / level, pixels, fine.reshape(count, -1), _HR_STEPS)
    return fine.reshape(shape)


def unmix(ends: FloatArray, pixels: FloatArray, start: FloatArray, steps: int) -> FloatArray:
    """Multiplicative updates (Lee and Seung 2001) with a sum-to-one row, chunk by chunk."""
    ends = np.maximum(ends, 1e-9).astype(np.float32)
    weight = np.float32(_SUM_TO_ONE * np.sqrt(len(ends)))
    rows = np.concatenate([ends, np.full((1, ends.shape[1]), weight, np.float32)])
    gram = rows.T @ rows
    out = np.empty(start.shape, np.float32)
    for k in range(0, pixels.shape[1], _CHUNK):
        data = np.maximum(pixels[:, k : k + _CHUNK], 0).astype(np.float32)
        above = ends.T @ data + weight * weight
        mix = start[:, k : k + _CHUNK].astype(np.float32)
        for _ in range(steps):
            mix *= above / (gram @ mix + np.float32(1e-12))
        out[:, k : k + _CHUNK] = mix
    return out
