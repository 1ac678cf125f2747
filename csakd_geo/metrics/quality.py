"""Quality indices of one block: Wang and Bovik's of a band, and its hypercomplex form of a whole spectrum."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import InputError

FloatArray = NDArray[np.floating]

UIQI_BLOCK = 32
_CONSTANT = 1e-24  # spread over size below which a block is constant but for rounding


def universal_quality(a: FloatArray, b: FloatArray) -> FloatArray:
    """UIQI of each band of a block (Wang and Bovik 2002), -1 to 1.

    Correlation times likeness of the spreads times likeness of the means. Of two constant blocks only
    the means can differ.

    Parameters
    ----------
    a, b : ndarray (band, n)
        Pixels of the block, without NaN.

    Returns
    -------
    ndarray (band,)
    """
    mean_a, mean_b = a.mean(1), b.mean(1)
    cov = ((a - mean_a[:, None]) * (b - mean_b[:, None])).mean(1)
    return np.asarray(
        _likeness(cov, a.var(1) + b.var(1), mean_a * mean_b, np.square(mean_a) + np.square(mean_b))
    )


def hypercomplex_quality(a: FloatArray, b: FloatArray) -> float:
    r"""Q2n of a block (Garzelli and Nencini 2009): UIQI of spectra taken as hypercomplex numbers, 0 to 1.

    A spectrum is a number z of the Cayley-Dickson algebra of 2^n components, n the smallest that holds its
    bands, the rest zero; products follow (p, q)(r, s) = (p r - s* q, s p + q r*), which gives complex
    numbers, quaternions (Q4, Alparone et al. 2004), octonions and so on. Then

    .. math:: Q = \frac{4\,|\sigma_{zw}|\,|\bar z|\,|\bar w|}
                       {(\sigma_z^2 + \sigma_w^2)\,(|\bar z|^2 + |\bar w|^2)},
              \quad \sigma_{zw} = E[(z - \bar z)(w - \bar w)^*]

    Component k of the covariance is a signed sum of the ordinary covariances of bands i and j with
    i xor j = k, so one matrix product does all. With one band it is the modulus of UIQI. Values are taken
    as they are, so bright bands weigh more; some published programs first scale every band by its block's
    mean and deviation, and their figures differ.

    Parameters
    ----------
    a, b : ndarray (band, n)
        Pixels of the block, without NaN.
    """
    mean_a, mean_b = a.mean(1), b.mean(1)
    cov = (a - mean_a[:, None]) @ (b - mean_b[:, None]).T / a.shape[1]
    size = len(cov)
    place = np.arange(size)[:, None] ^ np.arange(size)
    parts = np.bincount(place.ravel(), weights=(_signs(size)[:size, :size] * cov).ravel())
    size_a, size_b = float(mean_a @ mean_a), float(mean_b @ mean_b)
    return float(
        _likeness(
            np.asarray(np.linalg.norm(parts)),
            np.asarray(a.var(1).sum() + b.var(1).sum()),
            np.asarray(np.sqrt(size_a * size_b)),
            np.asarray(size_a + size_b),
        )
    )


def _likeness(cov: FloatArray, spread: FloatArray, means: FloatArray, size: FloatArray) -> FloatArray:
    """Contrast and correlation in one, times luminance."""
    varied = spread > _CONSTANT * size
    contrast = np.where(varied, 2 * cov / np.where(varied, spread, 1), 1.0)
    luminance = np.where(size > 0, 2 * means / np.where(size > 0, size, 1), 1.0)
    return np.asarray(contrast * luminance)


@cache
def _signs(bands: int) -> NDArray[np.int8]:
    """Sign of ``e_i e_j*`` among the units of the smallest algebra with so many components."""
    signs = np.ones((1, 1), np.int8)
    while len(signs) < bands:
        star = _star(len(signs))
        signs = np.block([[signs, signs.T], [signs * star, -signs.T * star]])
    return np.asarray(signs * _star(len(signs)), np.int8)


def _star(size: int) -> NDArray[np.int8]:
    """Signs of the components of a conjugate."""
    return np.where(np.arange(size) > 0, np.int8(-1), np.int8(1))


def block_edges(length: int, side: int) -> list[int]:
    """Borders of blocks along an axis; a rest shorter than half a side belongs to the block before it.

    Parameters
    ----------
    length, side : int

    Returns
    -------
    list of int
        From 0 to ``length``.
    """
    count = max(1, (2 * length + side) // (2 * side))
    return [*range(0, count * side, side), length]


def split_blocks(shape: tuple[int, ...], side: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the blocks of an image; see `block_edges`."""
    rows, cols = (block_edges(length, side) for length in shape)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(cols):
            yield slice(top, bottom), slice(left, right)


def q2n(a: FloatArray, b: FloatArray) -> float:
    """Q2n of two cubes: mean over blocks of 32 x 32 pixels, each weighted by its valid pixels.

    See `hypercomplex_quality`, `block_edges`.

    Parameters
    ----------
    a, b : ndarray (band, y, x)
        NaN where masked; such a pixel is left out.

    Raises
    ------
    InputError
        If the shapes differ or no pixel is valid in both.
    """
    if a.shape != b.shape:
        raise InputError(f"The cubes are {a.shape} and {b.shape} (band, y, x); they must agree.")
    valid = np.asarray(np.isfinite(a).all(0) & np.isfinite(b).all(0))
    if not valid.any():
        raise InputError("The two cubes share no valid pixel, so there is nothing to score.")
    total = 0.0
    for at in split_blocks(valid.shape, UIQI_BLOCK):
        some = valid[at]
        if some.any():
            pixels = (cube[:, *at][:, some].astype(np.float64) for cube in (a, b))
            total += hypercomplex_quality(*pixels) * int(some.sum())
    return total / int(valid.sum())
