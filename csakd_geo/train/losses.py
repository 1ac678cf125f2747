"""Losses on physical values, and what a student takes from its teacher.

Spectra are divided by the scene's scale (about 0 to 1) before they come here, so an angle is a
spectral angle and a dark band has its weight. Sources: CSAKD, arXiv 2406.19666; deviations from
the released code are in DESIGN 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weight of each term; zero switches a term off.

    Parameters
    ----------
    l1, sam, beba : float
        Against the truth: smooth L1, spectral angle, band-energy balance.
    response, feature : float
        Of a student against its teacher: outputs, and fused features.
    """

    l1: float = 1.0
    sam: float = 0.1
    beba: float = 0.1
    response: float = 0.1
    feature: float = 0.1


def sam_loss(output: Tensor, truth: Tensor) -> Tensor:
    """One minus the mean cosine between spectra, both (n, band, y, x), clipped at 0."""
    a, b = output.clamp_min(0), truth.clamp_min(0)
    return 1 - functional.cosine_similarity(a, b, dim=1, eps=1e-6).mean()


def beba_loss(output: Tensor, truth: Tensor) -> Tensor:
    """Smooth L1 of each band over its energy plus a tenth of the cube's, both (n, band, y, x)."""
    error = functional.smooth_l1_loss(output, truth, reduction="none").mean(dim=(0, 2, 3))
    energy = truth.square().mean(dim=(0, 2, 3))
    return (error / (energy + 0.1 * energy.mean() + 1e-12)).mean()


def supervised(output: Tensor, truth: Tensor, weights: LossWeights) -> Tensor:
    """Weighted sum of the terms against the truth."""
    loss = weights.l1 * functional.smooth_l1_loss(output, truth)
    if weights.sam:
        loss = loss + weights.sam * sam_loss(output, truth)
    if weights.beba:
        loss = loss + weights.beba * beba_loss(output, truth)
    return loss


def distilled(
    output: Tensor, features: Tensor, teacher: Tensor, teacher_features: Tensor
) -> tuple[Tensor, Tensor]:
    """The two terms against the (detached) teacher, without their weights: response and feature.

    Features are compared as probabilities: binary cross-entropy of the student's logits against
    the sigmoid of the teacher's.
    """
    response = functional.smooth_l1_loss(output, teacher.detach())
    target = torch.sigmoid(teacher_features.detach())
    return response, functional.binary_cross_entropy_with_logits(features, target)
