"""Ties between neighbouring pixels that look alike in the MSI: where a prior estimate errs, it errs alike on them.

What the MSI cannot tell of a pixel (its shade of a mineral, the age of its crop) is mostly the same a pixel further on,
up to the next edge. So errors are a Gaussian Markov random field (Rue and Held 2005) whose neighbours are tied by how
alike the MSI shows them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import finer
from csakd_geo.pair import Pair
from csakd_geo.response import Response

FloatArray = NDArray[np.floating]

_ALIKE = 1.5  # typical differences between neighbours over which likeness falls (benchmarks/quality.py)
_LEAST = 1e-3  # sum of likenesses below which a pixel is not tied as firmly as others
#: Neighbours down and right, with the weight that their distance leaves; the others follow by symmetry.
_NEIGHBOURS = ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.5**0.5), (1, -1, 0.5**0.5))


@dataclass(frozen=True, slots=True, eq=False)
class Ties:
    """Weights of the ties of a window, one array per direction; those of a pixel sum to 1 at most.

    Parameters
    ----------
    weights : tuple of ndarray (y, x)
        From each pixel that has such a neighbour.
    """

    weights: tuple[FloatArray, ...]

    @classmethod
    def of(cls, msi: FloatArray, likeness: FloatArray) -> Ties:
        """Of a window.

        Parameters
        ----------
        msi : ndarray (msi_band, y, x)
        likeness : ndarray (msi_band,)
            See :func:`find_likeness`.
        """
        shape = msi.shape[1:]
        alike, total = [], np.full(shape, _LEAST, np.float32)
        for down, right, near in _NEIGHBOURS:
            one, other = _sides(shape, down, right)
            apart: FloatArray = np.zeros(total[one].shape, np.float32)
            for band, scale in zip(msi, likeness.astype(np.float32), strict=True):
                apart += np.square(scale * (band[one] - band[other]))
            weight = np.float32(near) * np.exp(-apart / 2)
            total[one] += weight
            total[other] += weight
            alike.append(weight)
        firm = []
        for weight, (down, right, _) in zip(alike, _NEIGHBOURS, strict=True):
            one, other = _sides(shape, down, right)
            firm.append(weight / np.maximum(total[one], total[other]))
        return cls(tuple(firm))

    def differences(self, z: FloatArray) -> FloatArray:
        """The graph's Laplacian: what each pixel of z (K, y, x) has over its neighbours, weighted; eigenvalues 0 to 2."""
        out = np.zeros_like(z)
        for plane, found in zip(z, out, strict=True):  # one at a time stays in the cache
            for weight, (down, right, _) in zip(self.weights, _NEIGHBOURS, strict=True):
                one, other = _sides(plane.shape, down, right)
                over = plane[one] - plane[other]
                over *= weight
                found[one] += over
                found[other] -= over
        return out


def find_likeness(pair: Pair, response: Response) -> FloatArray:
    """What MSI bands are multiplied with before neighbours are compared, (msi_band,), so that one typical
    difference, over all bands, is 1 / 1.5.

    Bands weigh by their deviation and by the share of it that the HSI explains; ties do without a band of noise.
    """
    masks = [finer(block.valid, pair.ratio) for block in pair.blocks]
    values = np.concatenate([b.msi[:, mask] for b, mask in zip(pair.blocks, masks, strict=True)], axis=1)
    at_hsi = np.maximum(pair.msi_spectra(response.psf).var(1), 1e-30)
    explained = np.clip(1 - np.square(response.misfit) / at_hsi, 0, 1)
    weight = explained / np.sqrt(np.maximum(values.var(1, dtype=np.float64), 1e-30))
    steps = [
        np.square(weight[:, None] * (b.msi[:, :, 1:] - b.msi[:, :, :-1])[:, mask[:, 1:] & mask[:, :-1]]).sum(
            0
        )
        for b, mask in zip(pair.blocks, masks, strict=True)
    ]
    steep = np.concatenate(steps)
    steep = steep[steep > 0]
    typical = float(np.sqrt(np.median(steep))) if steep.size else 1.0
    return np.asarray(weight / (_ALIKE * typical))


def _sides(shape: tuple[int, ...], down: int, right: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Pixels that have a neighbour there, and those neighbours."""
    height, width = shape
    rows = slice(0, height - down), slice(down, height)
    left, across = slice(0, width - abs(right)), slice(abs(right), width)
    columns = (left, across) if right >= 0 else (across, left)
    return (rows[0], columns[0]), (rows[1], columns[1])
