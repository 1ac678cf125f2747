"""Ties between neighbouring pixels that look alike in the MSI: where a prior estimate errs, it errs alike on them.

What the MSI cannot tell of a pixel (its shade of a mineral, the age of its crop) is mostly the same a pixel further on,
up to the next edge. So errors are a Gaussian Markov random field (Rue and Held 2005) whose neighbours are tied by how
alike the MSI shows them.

Errors are not equally large everywhere: a roof that no endmember resembles is guessed worse than a field. Where the MSI
surprises the prior estimate more than it does in the rest of the scene, errors are taken for larger, as if each pixel's
variance were drawn from a gamma law (Student's t as a mixture of Gaussians; Lange et al. 1989).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from csakd_geo.degrade import apply_srf, finer
from csakd_geo.pair import Pair
from csakd_geo.response import Response

FloatArray = NDArray[np.floating]

_ALIKE = 1.5  # typical differences between neighbours over which likeness falls (benchmarks/quality.py)
_FREEDOM = 3.0  # degrees of freedom: how little of a surprise is put down to chance (benchmarks/quality.py)
_AROUND = 0.7  # MSI pixels: standard deviation of the window that surprise is taken over
FIRMEST = (_FREEDOM + 1) / _FREEDOM  # precision of a pixel that nothing surprises, over the scene's
_LEAST = 1e-3  # sum of likenesses below which a pixel is not tied as firmly as others
#: Neighbours down and right, with the weight that their distance leaves; the others follow by symmetry.
_NEIGHBOURS = ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.5**0.5), (1, -1, 0.5**0.5))


@dataclass(frozen=True, slots=True, eq=False)
class Ties:
    """Precision of the errors of a window, by itself and between neighbours, over what it is in the scene.

    Parameters
    ----------
    own : ndarray (y, x)
        Of each pixel, at most ``FIRMEST``.
    weights : tuple of ndarray (y, x)
        Of the ties, one array per direction, from each pixel that has such a neighbour; those of a pixel sum to
        ``FIRMEST`` at most.
    """

    own: FloatArray
    weights: tuple[FloatArray, ...]

    @classmethod
    def of(cls, msi: FloatArray, likeness: FloatArray, surprise: FloatArray) -> Ties:
        """Of a window.

        Parameters
        ----------
        msi : ndarray (msi_band, y, x)
        likeness : ndarray (msi_band,)
            See :func:`find_likeness`.
        surprise : ndarray (y, x)
            See :func:`find_surprise`; over the scene's mean.
        """
        own = np.asarray((_FREEDOM + 1) / (_FREEDOM + surprise), np.float32)
        root = np.sqrt(own)
        shape = msi.shape[1:]
        alike, total = [], np.full(shape, _LEAST, np.float32)
        for down, right, near in _NEIGHBOURS:
            one, other = _sides(shape, down, right)
            apart: FloatArray = np.zeros(total[one].shape, np.float32)
            for band, scale in zip(msi, likeness.astype(np.float32), strict=True):
                apart += np.square(scale * (band[one] - band[other]))
            weight = np.float32(near) / np.square(
                1 + apart
            )  # an exponential would let go of what is alike but noisy
            total[one] += weight
            total[other] += weight
            alike.append(weight)
        firm = []
        for weight, (down, right, _) in zip(alike, _NEIGHBOURS, strict=True):
            one, other = _sides(shape, down, right)
            firm.append(root[one] * root[other] * weight / np.maximum(total[one], total[other]))
        return cls(own, tuple(firm))

    def differences(self, z: FloatArray) -> FloatArray:
        """The graph's Laplacian: what each pixel of z (K, y, x) has over its neighbours, weighted; eigenvalues 0 to 2 ``FIRMEST``."""
        out = np.zeros_like(z)
        for plane, found in zip(z, out, strict=True):  # one at a time stays in the cache
            for weight, (down, right, _) in zip(self.weights, _NEIGHBOURS, strict=True):
                one, other = _sides(plane.shape, down, right)
                over = plane[one] - plane[other]
                over *= weight
                found[one] += over
                found[other] -= over
        return out


def find_surprise(innovation: FloatArray, scale: FloatArray) -> FloatArray:
    """How much the MSI surprises an estimate around each pixel, (y, x).

    Parameters
    ----------
    innovation : ndarray (msi_band, y, x)
        The MSI less what it was expected to be.
    scale : ndarray (msi_band, msi_band)
        What makes its expected covariance the identity.
    """
    length = np.square(apply_srf(innovation, scale)).mean(0)
    return np.asarray(gaussian_filter(length, _AROUND, mode="nearest"))


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
