"""Examples from land that is made of a pair's own, one level down.

The HSI is the truth there (Wald et al. 1997), as in :func:`csakd_geo.train.examples.wald_examples`. But averaging takes
noise away, so a network would learn from images that are cleaner than those it will see; the noise is given back. And the
land is joined (:mod:`csakd_geo.train.land`), so that one scene is not learned by heart. It is neither turned by odd
angles nor seen with larger pixels: both change the detail of a pixel, and the network is to see smaller ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import degrade, finer
from csakd_geo.errors import SpectralError
from csakd_geo.pair import Block, Pair, degrade_pair
from csakd_geo.response import Response, estimate_response
from csakd_geo.threads import one_blas_thread
from csakd_geo.train.examples import Example, expand, make_examples
from csakd_geo.train.land import Land, make_land
from csakd_geo.train.variation import Variation

if TYPE_CHECKING:
    from csakd_geo.models.card import ModelCard

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.floating]

_TOUCHED = 0.02  # share of a pixel that may not be valid
_WINDOW = 100  # HSI pixels per side of an example, at most
# of the MSI's misfit at LR: at full resolution it is taken for twice as large (methods/estimates.py)
_LOST = 3**0.5
_LEAST = 0.1  # of the median band's error: what a band is taken to have at least


def whole_examples(card: ModelCard, pair: Pair, response: Response, *, seed: int) -> list[Example]:
    """Examples of a pair's blocks as they are, one level down, with the noise given back; to judge by.

    Parameters
    ----------
    card : ModelCard
        Of the model to train.
    pair : Pair
    response : Response
    seed : int

    Raises
    ------
    GridError
        If a block has fewer HSI pixels than the ratio along an axis.
    """
    rng = np.random.default_rng(seed)
    lower, truths = degrade_pair(pair, response.psf)
    blocks = tuple(Block(*_noisy(b.hsi, b.msi, response, rng), b.valid) for b in lower.blocks)
    lower = replace(pair, blocks=blocks)
    return make_examples(card, lower, truths, estimate_response(lower, psf=response.psf))


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
    bands = pair.hsi_axis.size
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

    def draw() -> Land:
        cube, missing = lands[int(rng.integers(len(lands)))]
        y, x = (
            int(rng.integers(n - side + 1)) for n, side in zip(missing.shape, (height, width), strict=True)
        )
        return cube[:, y : y + height, x : x + width], missing[y : y + height, x : x + width]

    examples: list[Example] = []
    for _ in range(count):
        cube, missing = make_land(draw(), draw(), rng, turned=0.0, coarser=1.0, joined=Variation().joined)
        truth = np.ascontiguousarray(cube[:bands])
        gone = np.abs(cube[-1]) > _TOUCHED
        hsi, msi = _noisy(degrade(truth, response.psf), cube[bands:-1], response, rng)
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


def _noisy(
    hsi: FloatArray, msi: FloatArray, response: Response, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Both images of the lower level with the noise that averaging took."""
    averaged = np.prod([np.square(taps).sum() for taps in response.psf.taps()])
    lost = response.noise * np.sqrt(1 - averaged), response.misfit * _LOST
    first, second = (
        image + (sigma[:, None, None] * rng.standard_normal(image.shape)).astype(np.float32)
        for image, sigma in zip((hsi, msi), lost, strict=True)
    )
    return first, second


def balanced(example: Example) -> Example:
    """The same with each band over the reference's error in it, so that a loss gives no band away for another.

    Only pixels that may be learned from tell that error. Angles between such spectra are no spectral angles. A model of
    bands, whose answers are only scaled, learns as it is.
    """
    if example.weight.ndim != 2:
        return example
    mask = finer(example.usable, example.ratio)
    error = np.sqrt(np.square((expand(example, example.reference) - example.truth)[:, mask]).mean(1))
    per = (1 / np.maximum(error, max(_LEAST * float(np.median(error)), 1e-12))).astype(np.float32)
    bands = per[:, None, None]
    return replace(
        example,
        truth=example.truth * bands,
        weight=example.weight * per[:, None],
        level=example.level * per,
        rest=None if example.rest is None else example.rest * bands,
    )
