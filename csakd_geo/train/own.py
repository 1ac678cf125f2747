"""Examples from land that is made of a pair's own, one level down.

The HSI is the truth there (Wald et al. 1997), as in :func:`csakd_geo.train.examples.wald_examples`. But averaging takes
noise away, so a network would learn from images that are cleaner than those it will see; the noise is given back. And the
land is turned and joined (:mod:`csakd_geo.train.land`), so that one scene is not learned by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import degrade
from csakd_geo.errors import SpectralError
from csakd_geo.pair import Block, Pair
from csakd_geo.response import Response, estimate_response
from csakd_geo.threads import one_blas_thread
from csakd_geo.train.examples import Example, make_examples
from csakd_geo.train.land import Land, make_land
from csakd_geo.train.variation import Variation

if TYPE_CHECKING:
    from csakd_geo.models.card import ModelCard

BoolArray = NDArray[np.bool_]

_TOUCHED = 0.02  # share of a pixel that may not be valid
_WINDOW = 100  # HSI pixels per side of an example, at most
# of the MSI's misfit at LR: at full resolution it is taken for twice as large (methods/estimates.py)
_LOST = 3**0.5


def own_examples(
    card: ModelCard,
    pair: Pair,
    response: Response,
    kept: Sequence[BoolArray],
    *,
    count: int,
    seed: int,
) -> list[Example]:
    """Make examples of a pair.

    Parameters
    ----------
    card : ModelCard
        Of the model to train.
    pair : Pair
    response : Response
    kept : sequence of ndarray (y, x) bool
        HSI pixels of each block that may be learned from; of the rest, those that are valid still tell what the base
        is fitted to.
    count : int
    seed : int

    Returns
    -------
    list of Example
        Each as large as the smallest block, and 100 HSI pixels per side at most; fewer than `count` where land came out
        masked or flat.
    """
    rng, r = np.random.default_rng(seed), pair.ratio
    ranges, bands = Variation(), pair.hsi_axis.size
    height, width = (
        min(_WINDOW, *(block.valid.shape[axis] for block in pair.blocks)) // r * r for axis in (0, 1)
    )
    # what is not valid goes along as one more band
    lands = [
        (
            np.concatenate([b.hsi, degrade(b.msi, response.psf), ~b.valid[None]]).astype(np.float32),
            ~(mask & b.valid),
        )
        for b, mask in zip(pair.blocks, kept, strict=True)
    ]
    averaged = np.prod([np.square(taps).sum() for taps in response.psf.taps()])
    lost = response.noise * np.sqrt(1 - averaged), response.misfit * _LOST

    def draw() -> Land:
        cube, missing = lands[int(rng.integers(len(lands)))]
        y, x = (
            int(rng.integers(n - side + 1)) for n, side in zip(missing.shape, (height, width), strict=True)
        )
        return cube[:, y : y + height, x : x + width], missing[y : y + height, x : x + width]

    examples: list[Example] = []
    for _ in range(count):
        cube, missing = make_land(
            draw(), draw(), rng, turned=ranges.turned, coarser=ranges.coarser, joined=ranges.joined
        )
        truth = np.ascontiguousarray(cube[:bands])
        gone = np.abs(cube[-1]) > _TOUCHED
        hsi, msi = (
            image + (sigma[:, None, None] * rng.standard_normal(image.shape)).astype(np.float32)
            for image, sigma in zip((degrade(truth, response.psf), cube[bands:-1]), lost, strict=True)
        )
        valid, usable = (
            np.asarray(~mask.reshape(height // r, r, width // r, r).any((1, 3))) for mask in (gone, missing)
        )
        if not usable.any():
            continue
        lower = replace(pair, blocks=(Block(hsi, msi, valid),))
        try:
            with one_blas_thread():
                found = make_examples(card, lower, (truth,), estimate_response(lower, psf=response.psf))
        except SpectralError:  # too little of this land is valid or varies
            continue
        examples += [replace(example, usable=usable) for example in found]
    return examples
