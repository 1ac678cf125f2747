"""A short training in memory: a student, with or without a teacher, on examples of one scene.

The weights kept are those that did best on the held-out examples; the start is one of the
candidates. Long runs over archives are `csakd_geo.train.trainer`'s.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from csakd_geo.errors import ModelError
from csakd_geo.models.network import DualTwoStream
from csakd_geo.train.batch import draw_batch
from csakd_geo.train.examples import Example
from csakd_geo.train.heldout import held_out_error
from csakd_geo.train.losses import LossWeights
from csakd_geo.train.steps import Steps


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
    ema : float or None
        Decay of a running average of the student's weights, which is then what is looked at and kept; it forgets faster
        at first.
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
    ema: float | None = None
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
        The teacher trains along and is thrown away or kept by the caller.
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
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    shown = student if settings.ema is None else copy.deepcopy(student)
    steps = Steps(student, teacher, rate=settings.rate, weights=settings.weights)
    begun = last_look = time.monotonic()
    start = best = held_out_error(student, held)
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
            error = held_out_error(shown, held)
            history.append((now - begun, error))
            if error < best:
                best, best_state = error, copy.deepcopy(shown.state_dict())
            if progress is not None:
                progress(min(share, 1.0), best)
        if finished:
            break
        drawn = rng.integers(len(learn), size=settings.examples)
        batches = [
            draw_batch(learn[int(k)], rng, crop=settings.crop, count=settings.batch, signs=settings.signs)
            for k in drawn
        ]
        steps.step(batches, factor=0.5 * (1 + float(np.cos(np.pi * share))))
        step += 1
        if settings.ema is not None:
            _follow(shown, student, min(settings.ema, step / (step + 9)))
    student.load_state_dict(best_state)
    student.eval()
    return Outcome(start, best, step, time.monotonic() - begun, tuple(history))


def _follow(average: DualTwoStream, student: DualTwoStream, decay: float) -> None:
    """One step of a running average of weights."""
    with torch.no_grad():
        for mean, weight in zip(average.parameters(), student.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)
