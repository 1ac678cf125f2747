"""How well a network does on held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from csakd_geo.degrade import finer
from csakd_geo.errors import ModelError
from csakd_geo.metrics import score
from csakd_geo.models.network import DualTwoStream
from csakd_geo.train.examples import Example, expand

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Means over the held-out examples, on usable pixels.

    Parameters
    ----------
    error : float
        Over the reference's (the base or, without one, the interpolated HSI): half RMSE, half SAM.
    psnr : float
        In dB.
    sam : float
        In degrees.
    """

    error: float
    psnr: float
    sam: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers by name."""
        return asdict(self)


def look(network: DualTwoStream, examples: Sequence[Example]) -> HeldOut:
    """Score a network on held-out examples.

    Parameters
    ----------
    network : DualTwoStream
        Left in evaluation mode.
    examples : sequence of Example

    Raises
    ------
    ModelError
        If an example has no usable pixel, or a score is not a number.
    """
    network.eval()
    results = [_scores(network, example) for example in examples]
    mean = HeldOut(*(float(np.mean(values)) for values in zip(*results, strict=True)))
    if not np.isfinite(mean.error):
        raise ModelError(
            "The held-out error is not a number; check the held-out images for NaN, or lower the learning "
            "rate."
        )
    return mean


def held_out_error(network: DualTwoStream, examples: Sequence[Example]) -> float:
    """The error of :func:`look`; below 1 is better than the reference."""
    return look(network, examples).error


def answer(network: DualTwoStream, example: Example) -> FloatArray:
    """What a network answers to one example (K, ry, rx)."""
    device = next(network.parameters()).device
    inputs = (
        None if x is None else torch.from_numpy(x[None]).to(device)
        for x in (example.hsi, example.msi, example.base)
    )
    with torch.inference_mode():
        output: FloatArray = network(*inputs)[0][0].float().cpu().numpy()
    return output


def _scores(network: DualTwoStream, example: Example) -> tuple[float, float, float]:
    mask = finer(example.usable, example.ratio)
    if not mask.any():
        raise ModelError(
            "A held-out example has no usable pixel, so nothing can be scored on it; leave it out."
        )
    truth = example.truth[:, mask][:, None]
    got = expand(example, answer(network, example))[:, mask][:, None]
    if not (np.isfinite(got).all() and np.isfinite(truth).all()):
        return float("nan"), float("nan"), float("nan")
    mine = score(got, truth, ratio=example.ratio)
    reference = score(expand(example, example.reference)[:, mask][:, None], truth, ratio=example.ratio)
    error = 0.5 * (_over(mine.rmse, reference.rmse) + _over(mine.sam, reference.sam))
    return error, min(mine.psnr, 200.0), mine.sam


def _over(value: float, reference: float) -> float:
    return (value + 1e-12) / (reference + 1e-12)
