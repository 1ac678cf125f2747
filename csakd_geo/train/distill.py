"""Online co-training of a teacher and a student on residual subspace examples.

Per step the teacher learns from the truth, then the student from the truth and the teacher
(arXiv 2406.19666). Every loss is divided by that of the base estimate, so that 1 means "no
better than the base" and an easy scene counts as much as a hard one. The weights kept are
those that did best on the held-out examples; the start is one of the candidates.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csakd_geo.errors import ModelError
from csakd_geo.models.network import DualTwoStream
from csakd_geo.train.examples import Example, expand
from csakd_geo.train.losses import LossWeights, distilled, supervised

FloatArray = NDArray[np.floating]

_LEAST_USABLE = 0.25  # share of a crop that must be usable


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    Parameters
    ----------
    minutes : float
        Wall time at most.
    steps : int or None
        Steps at most; the schedule ends where either limit does.
    rate : float
        Learning rate of AdamW at the start; falls to zero along a cosine.
    batch : int
        Crops taken from one example.
    examples : int
        Examples whose gradients are added up in one step.
    crop : int
        LR pixels per side of a crop.
    check_every : float
        Seconds between looks at the held-out examples; with ``steps`` it is a twentieth of them
        instead, so that a run does not depend on the machine's speed.
    seed : int
    signs : bool
        Turn the signs of the coefficients at random, so that no order of theirs is learned.
    weights : LossWeights
    """

    minutes: float = 3.0
    steps: int | None = None
    rate: float = 3e-4
    batch: int = 4
    examples: int = 1
    crop: int = 16
    check_every: float = 20.0
    seed: int = 0
    signs: bool = True
    weights: LossWeights = field(default_factory=LossWeights)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What training came to.

    Parameters
    ----------
    start, best : float
        Held-out error over the base's: half RMSE, half SAM; below 1 is better than the base.
    steps : int
    seconds : float
    history : tuple of (float, float)
        Seconds and held-out error at each look.
    """

    start: float
    best: float
    steps: int
    seconds: float
    history: tuple[tuple[float, float], ...]


def distil(
    student: DualTwoStream,
    teacher: DualTwoStream | None,
    learn: Sequence[Example],
    held: Sequence[Example],
    settings: Settings,
    *,
    progress: Callable[[float, float], None] | None = None,
) -> Outcome:
    """Train a student in place, with or without a teacher.

    Parameters
    ----------
    student, teacher : DualTwoStream
        Residual networks on K coefficients; the teacher trains along and is thrown away or kept
        by the caller.
    learn, held : sequence of Example
    settings : Settings
    progress : callable, optional
        Gets the share done (0 to 1) and the best held-out error so far.

    Returns
    -------
    Outcome

    Raises
    ------
    ModelError
        If there is nothing to learn from or to hold out, or a loss or the held-out error is not a
        number.
    """
    if not learn or not held:
        raise ModelError("Training needs examples to learn from and held-out examples; one of them is empty.")
    if not all(example.usable.any() for example in held):
        raise ModelError(
            "A held-out example has no usable pixel, so nothing can be scored on it; leave it out."
        )
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    adapter = _adapter(student, teacher)
    parts: list[nn.Module] = [student, *([adapter] if adapter is not None else [])]
    optimizer = _optimizer(parts, settings)
    teacher_optimizer = None if teacher is None else _optimizer([teacher], settings)
    begun = last_look = time.monotonic()
    start = best = held_out_error(student, held)
    if not np.isfinite(start):
        raise ModelError(
            "The held-out error is not a number before training began; check the held-out examples for NaN."
        )
    best_state = copy.deepcopy(student.state_dict())
    history = [(0.0, start)]
    step = 0
    while True:
        now = time.monotonic()
        share = (now - begun) / (60 * settings.minutes) if settings.minutes > 0 else 1.0
        if settings.steps is not None:
            share = max(share, step / settings.steps)
        finished = share >= 1
        if settings.steps is None:
            due = now - last_look >= settings.check_every
        else:
            due = step > 0 and step % max(1, settings.steps // 20) == 0
        if finished or due:
            last_look = now
            error = held_out_error(student, held)
            history.append((now - begun, error))
            if error < best:
                best, best_state = error, copy.deepcopy(student.state_dict())
            if progress is not None:
                progress(min(share, 1.0), best)
        if finished:
            break
        for group in (optimizer, teacher_optimizer):
            if group is not None:
                _set_rate(group, settings.rate * 0.5 * (1 + float(np.cos(np.pi * share))))
        drawn = rng.integers(len(learn), size=settings.examples)
        batches = [_draw(learn[int(k)], settings, rng) for k in drawn]
        _step(student, teacher, adapter, optimizer, teacher_optimizer, batches, settings.weights)
        step += 1
    student.load_state_dict(best_state)
    student.eval()
    return Outcome(start, best, step, time.monotonic() - begun, tuple(history))


@dataclass(frozen=True, slots=True)
class _Batch:
    hsi: Tensor
    msi: Tensor
    base: Tensor
    truth: Tensor
    usable: Tensor
    basis: Tensor
    mean: Tensor

    def spectra(self, output: Tensor) -> Tensor:
        """Spectra of an output; where nothing may be learned they are the truth, so no loss arises."""
        return torch.where(self.usable, _mix(self.basis, self.mean, output), self.truth)


def _draw(example: Example, settings: Settings, rng: np.random.Generator) -> _Batch:
    """Random crops of one example, turned and flipped, with random signs of the coefficients."""
    signs = rng.choice(np.array([-1.0, 1.0] if settings.signs else [1.0], np.float32), len(example.hsi))
    r, side = example.ratio, min(settings.crop, *example.usable.shape)
    turned_signs = signs[:, None, None]
    crops: list[list[FloatArray]] = [[], [], [], [], []]
    for _ in range(settings.batch):
        y, x = _corner(example, side, rng)
        turns, flip = int(rng.integers(4)), rng.random() < 0.5
        fine = np.s_[:, y * r : (y + side) * r, x * r : (x + side) * r]
        coarse = np.s_[:, y : y + side, x : x + side]
        usable = example.usable[None][coarse].repeat(r, 1).repeat(r, 2)
        for kept, window in zip(
            crops,
            (
                example.hsi[coarse] * turned_signs,
                example.msi[fine] * turned_signs,
                example.base[fine] * turned_signs,
                example.truth[fine],
                usable,
            ),
            strict=True,
        ):
            turned = np.rot90(window, turns, axes=(1, 2))
            kept.append(turned[:, :, ::-1] if flip else turned)
    hsi, msi, base, truth, mask = (torch.from_numpy(np.ascontiguousarray(np.stack(c))) for c in crops)
    basis, mean = torch.from_numpy(example.basis * signs), torch.from_numpy(example.mean)
    # the energies in the losses must not tell of a truth that is held out: the base stands for it
    truth = torch.where(mask, truth, _mix(basis, mean, base))
    return _Batch(hsi, msi, base, truth, mask, basis, mean)


def _mix(basis: Tensor, mean: Tensor, coefficients: Tensor) -> Tensor:
    return torch.einsum("bk,nkyx->nbyx", basis, coefficients) + mean[None, :, None, None]


def _corner(example: Example, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """A random crop of which a part may be learned from."""
    height, width = example.usable.shape
    for _ in range(100):
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        if example.usable[y : y + side, x : x + side].mean() > _LEAST_USABLE:
            break
    return y, x


def _step(
    student: DualTwoStream,
    teacher: DualTwoStream | None,
    adapter: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    teacher_optimizer: torch.optim.Optimizer | None,
    batches: Sequence[_Batch],
    weights: LossWeights,
) -> None:
    """One step of each network over the mean of the batches' losses."""
    for group in (optimizer, teacher_optimizer):
        if group is not None:
            group.zero_grad(set_to_none=True)
    for batch in batches:
        base_loss = supervised(batch.spectra(batch.base), batch.truth, weights).detach() + 1e-12
        guide: tuple[Tensor, Tensor] | None = None
        if teacher is not None:
            teacher.train()
            output, features = teacher(batch.hsi, batch.msi, batch.base)
            spectra = batch.spectra(output)
            _add_gradient(supervised(spectra, batch.truth, weights) / base_loss, len(batches))
            guide = spectra.detach(), features.detach()
        student.train()
        output, features = student(batch.hsi, batch.msi, batch.base)
        spectra = batch.spectra(output)
        loss = supervised(spectra, batch.truth, weights) / base_loss
        if guide is not None:
            shown = features if adapter is None else adapter(features)
            response_only = replace(weights, feature=0.0)
            feature_only = replace(weights, response=0.0)
            loss = loss + distilled(spectra, shown, *guide, response_only) / base_loss
            loss = loss + distilled(spectra, shown, *guide, feature_only)
        _add_gradient(loss, len(batches))
    _descend(student, optimizer)
    if teacher is not None and teacher_optimizer is not None:
        _descend(teacher, teacher_optimizer)


def _add_gradient(loss: Tensor, parts: int) -> None:
    if not torch.isfinite(loss):
        raise ModelError(
            "The training loss is not a number; lower the learning rate or check the data for NaN."
        )
    (loss / parts).backward()


def _descend(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def held_out_error(network: DualTwoStream, examples: Sequence[Example]) -> float:
    """Error over the base's on the usable pixels: half RMSE, half SAM, mean over examples."""
    network.eval()
    ratios = []
    for example in examples:
        with torch.inference_mode():
            inputs = (torch.from_numpy(x[None]) for x in (example.hsi, example.msi, example.base))
            output = network(*inputs)[0][0].numpy()
        mask = np.repeat(np.repeat(example.usable, example.ratio, 0), example.ratio, 1)
        truth = example.truth[:, mask]
        rmse, sam = _errors(expand(example, output)[:, mask], truth)
        base_rmse, base_sam = _errors(expand(example, example.base)[:, mask], truth)
        ratios.append(0.5 * (rmse / base_rmse + sam / base_sam))
    return float(np.mean(ratios))


def _errors(fused: FloatArray, truth: FloatArray) -> tuple[float, float]:
    norm = np.linalg.norm(fused, axis=0) * np.linalg.norm(truth, axis=0) + 1e-12
    angle = np.arccos(np.clip((fused * truth).sum(0) / norm, -1, 1))
    return float(np.sqrt(np.square(fused - truth).mean())) + 1e-12, float(angle.mean()) + 1e-12


def _adapter(student: DualTwoStream, teacher: DualTwoStream | None) -> nn.Module | None:
    """1x1 convolution from the student's features to the teacher's where they differ in number."""
    if teacher is None or student.config.features == teacher.config.features:
        return None
    return nn.Conv2d(student.config.features, teacher.config.features, 1)


def _optimizer(parts: Sequence[nn.Module], settings: Settings) -> torch.optim.Optimizer:
    parameters: list[Any] = [p for part in parts for p in part.parameters()]
    return torch.optim.AdamW(parameters, lr=settings.rate, weight_decay=0.0)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
