"""Land that no image shows: real land turned by any angle, seen from higher up, and laid over other land.

A network soon knows the few images of an archive by heart. Land that is made from them has their spectra and their kind
of detail, but never the same detail twice (`benchmarks/domain.py` says what that brings).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

FloatArray = NDArray[np.floating]
#: A cube (band, y, x) without NaN, and where it was masked, (y, x).
Land = tuple[FloatArray, NDArray[np.bool_]]

_TOUCHED = 0.02  # share of a turned pixel that may be masked
_BLUR = 0.425  # pixels: standard deviation of a Gaussian that is one pixel wide at half its height
_PATCHES = 0.7  # share of joined land that lies in patches; the rest is mixed
_SHARE = (0.2, 0.8)  # of the first land
_SIZES = (3.0, 12.0)  # pixels: standard deviation of the field whose high and low parts are the patches
_SOFT = 0.5  # pixels: of half of their edges


def make_land(
    one: Land, other: Land | None, rng: np.random.Generator, *, turned: float, coarser: float, joined: float
) -> Land:
    """Land as it is, or turned, or joined with other land, which may be turned too.

    Parameters
    ----------
    one, other : (ndarray (band, y, x), ndarray (y, x) bool)
        In the same bands; of two lands, what both cover is made.
    rng : numpy.random.Generator
    turned, joined : float
        Shares of land.
    coarser : float
        See :func:`turn`.
    """
    cube, missing = _turned(one, rng, turned, coarser)
    if other is None or rng.random() >= joined:
        return cube, missing
    both = np.s_[: min(cube.shape[1], other[0].shape[1]), : min(cube.shape[2], other[0].shape[2])]
    over, gaps = _turned((other[0][:, *both], other[1][both]), rng, turned, coarser)
    return join(cube[:, *both], over, rng), missing[both] | gaps


def _turned(land: Land, rng: np.random.Generator, share: float, coarser: float) -> Land:
    cube, missing = land
    if rng.random() >= share:
        return cube, missing
    # what is masked turns along as one more band
    found = turn(np.concatenate([cube, missing[None].astype(cube.dtype)]), rng, coarser=coarser)
    return found[:-1], np.asarray(np.abs(found[-1]) > _TOUCHED)


def turn(cube: FloatArray, rng: np.random.Generator, *, coarser: float) -> FloatArray:
    """Land turned by a random angle, with pixels up to so many times as large, mirrored where it ends.

    Parameters
    ----------
    cube : ndarray (band, y, x)
        Without NaN.
    rng : numpy.random.Generator
    coarser : float
        At least 1.

    Returns
    -------
    ndarray (band, y, x)
        Of the same shape.
    """
    scale, angle = rng.uniform(1.0, coarser), rng.uniform(0, 2 * np.pi)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]])
    centre = (np.array(cube.shape[1:]) - 1) / 2
    blur = _BLUR * np.sqrt(scale**2 - 1)  # what the larger pixels see beyond what the small ones did
    out = np.empty_like(cube)
    for plane, target in zip(cube, out, strict=True):
        affine_transform(
            gaussian_filter(plane, blur), matrix, centre - matrix @ centre, output=target, mode="mirror"
        )
    return out


def join(one: FloatArray, other: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Two lands of one shape (band, y, x) as one: in patches with hard or soft edges, or mixed all over."""
    amount = rng.uniform(*_SHARE)
    share: FloatArray = np.full(one.shape[1:], amount, np.float32)
    if rng.random() < _PATCHES:
        field = gaussian_filter(rng.standard_normal(one.shape[1:]), rng.uniform(*_SIZES))
        share = (field < np.quantile(field, amount)).astype(np.float32)
        if rng.random() < 0.5:
            share = gaussian_filter(share, _SOFT)
    return np.asarray(share * one + (1 - share) * other)
