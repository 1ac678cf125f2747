"""What the network learns from: its inputs for one window, and the spectra that it should answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import upsample
from csakd_geo.methods.network_form import network_inputs, network_output, output_map, prepare
from csakd_geo.pair import Pair, degrade_pair
from csakd_geo.response import Response, estimate_response

if TYPE_CHECKING:
    from csakd_geo.models.card import ModelCard

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One window as a model sees it, and the truth in spectra over the scene's scale.

    Parameters
    ----------
    hsi : ndarray (K, y, x)
    msi : ndarray (M, ry, rx)
    base : ndarray (K, ry, rx) or None
        What a residual network refines.
    reference : ndarray (K, ry, rx)
        What errors are measured against: the base or, without one, the HSI by cubic interpolation.
    truth : ndarray (band, ry, rx)
    weight, level : ndarray
        From the network's answer to spectra over the scale, see
        :func:`csakd_geo.methods.network_form.output_map`.
    ratio : int
    usable : ndarray (y, x) bool
        LR pixels that may be learned from (or scored on).
    rest : ndarray (band, ry, rx) or None
        What joins the spectra: the base's part outside a domain's subspace, over the scale.
    """

    hsi: FloatArray
    msi: FloatArray
    base: FloatArray | None
    reference: FloatArray
    truth: FloatArray
    weight: FloatArray
    level: FloatArray
    ratio: int
    usable: BoolArray
    rest: FloatArray | None = None


def make_examples(
    card: ModelCard, pair: Pair, truths: tuple[FloatArray, ...], response: Response
) -> list[Example]:
    """Prepare a pair whose truth is known, block by block.

    Parameters
    ----------
    card : ModelCard
        Of the model to train; says form, base and normalisation.
    pair : Pair
    truths : tuple of ndarray (band, ry, rx)
        One per block.
    response : Response

    Raises
    ------
    ModelError
        If the card asks for what is not known here, or for fewer coefficients than its base has.
    """
    fitted = prepare(card, pair, response)
    scale = np.float32(np.percentile(pair.hsi_spectra(), 99.5)) or np.float32(1)
    weight, level = output_map(card, fitted)
    examples = []
    for block, truth in zip(pair.blocks, truths, strict=True):
        seen = network_inputs(card, fitted, block.hsi, block.msi)
        hsi = np.ascontiguousarray(seen.hsi, dtype=np.float32)
        base = None if seen.base is None else np.ascontiguousarray(seen.base, dtype=np.float32)
        examples.append(
            Example(
                hsi=hsi,
                msi=np.ascontiguousarray(seen.msi, dtype=np.float32),
                base=base,
                reference=upsample(hsi, response.psf) if base is None else base,
                truth=np.asarray(truth / scale, dtype=np.float32),
                weight=np.asarray(weight / scale, np.float32),
                level=np.asarray(level / scale, np.float32),
                ratio=pair.ratio,
                usable=block.valid,
                rest=None if seen.rest is None else np.asarray(seen.rest / scale, np.float32),
            )
        )
    return examples


def wald_examples(card: ModelCard, pair: Pair, response: Response) -> list[Example]:
    """Examples from a pair itself, one level down: the HSI is the truth (Wald et al. 1997)."""
    lower, truths = degrade_pair(pair, response.psf)
    return make_examples(card, lower, truths, estimate_response(lower, psf=response.psf))


def expand(example: Example, answer: FloatArray) -> FloatArray:
    """A network's answer (K, y, x) as spectra over the scene's scale (band, y, x)."""
    return network_output(example.weight, example.level, answer, example.rest)
