"""Stripes of an HSI: what a detector element or a scan line adds to all of its pixels in one band."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from csakd_geo.pair import Pair
from csakd_geo.response import neighbour_weights

_STRONG = 4.0  # mean square of column means over that of white noise
_ONE_WAY = 3.0  # the same over that of row means, since land has both
_LEAST = 16  # pixels per side of a block
_SHARE = 0.1  # of the bands; on land some stand out by chance


@dataclass(frozen=True, slots=True)
class Stripes:
    """Bands with stripes.

    Parameters
    ----------
    bands : tuple of int
        Zero-based.
    along : {"columns", "rows"}
    """

    bands: tuple[int, ...]
    along: Literal["columns", "rows"]


def find_stripes(pair: Pair) -> Stripes | None:
    """Bands of the HSI that are striped, if they are many.

    What the spectral neighbours leave unexplained of a band is noise, whose mean over the n pixels of a column has a
    variance of 1/n of a pixel's; a stripe keeps its own. Land leaves something in columns and rows alike.

    Parameters
    ----------
    pair : Pair

    Returns
    -------
    Stripes or None
        None where less than a tenth of the bands are striped, or the HSI has fewer than 8 bands, or no block has 16
        pixels a side and as many valid ones.
    """
    bands = pair.hsi_axis.size
    blocks = tuple(b for b in pair.blocks if min(b.valid.shape) >= _LEAST and b.valid.sum() >= _LEAST**2)
    if bands < 8 or not blocks:
        return None
    spectra = replace(pair, blocks=blocks).hsi_spectra()
    centre = spectra.mean(1)
    covariance = np.cov(spectra)
    strength = np.zeros((2, bands))
    for band in range(bands):
        near, weights = neighbour_weights(covariance, band)
        for block in blocks:
            left = block.hsi[band] - centre[band]
            left = left - np.tensordot(weights, block.hsi[near] - centre[near, None, None], 1)
            left = np.where(block.valid, left, 0.0)
            power = max(float(np.square(left).sum() / block.valid.sum()), 1e-30)
            for axis in (0, 1):
                count = block.valid.sum(axis)
                means = left.sum(axis)[count > 0] / np.sqrt(count[count > 0])
                strength[axis, band] += float(np.square(means).mean()) / power / len(blocks)
    found = (strength > _STRONG) & (strength > _ONE_WAY * strength[::-1])
    axis = int(found.sum(1).argmax())
    if found[axis].mean() <= _SHARE:
        return None
    return Stripes(tuple(np.flatnonzero(found[axis]).tolist()), "columns" if axis == 0 else "rows")
