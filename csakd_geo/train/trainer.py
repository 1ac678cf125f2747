"""A training run over an archive: steps, looks at held-out examples, checkpoints, and the models in the end.

Every draw is a function of the seed and the step, so a run that goes on from a checkpoint ends
with the same weights as one that was never stopped (same machine, threads and precision).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csakd_geo._version import __version__
from csakd_geo.errors import InputError
from csakd_geo.models import DualTwoStream, save_model
from csakd_geo.train.archive import Archive
from csakd_geo.train.batch import draw_batch
from csakd_geo.train.checkpoint import (
    first_difference,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from csakd_geo.train.config import TrainConfig
from csakd_geo.train.examples import Example
from csakd_geo.train.heldout import HeldOut, look
from csakd_geo.train.monitor import Monitor, write_history
from csakd_geo.train.pool import Pool
from csakd_geo.train.processes import first_process, launch
from csakd_geo.train.setup import open_archives
from csakd_geo.train.state import State, plain

Report = Callable[[str, float, str], None]

_HELD_SEED = 7919  # held-out examples are the same for every seed of a run


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to.

    Parameters
    ----------
    student, teacher : Path or None
        Bundles, each with the weights that did best; no teacher where it was frozen or there is none.
    start, best : HeldOut
        Of the student, before the first step and with the weights kept.
    teacher_best : HeldOut or None
    steps : int
    seconds : float
        Of the steps, over all parts of the run.
    """

    student: Path
    teacher: Path | None
    start: HeldOut
    best: HeldOut
    teacher_best: HeldOut | None
    steps: int
    seconds: float


def train(config: TrainConfig, *, resume: bool = False, report: Report | None = None) -> Result:
    """Train a student, and its teacher, as a configuration says.

    Parameters
    ----------
    config : TrainConfig
    resume : bool
        Go on from the last checkpoint in the configuration's output folder, if there is one.
    report : callable, optional
        Gets stage, share done (0 to 1) and words.

    Returns
    -------
    Result

    Raises
    ------
    InputError, SpectralError
        If the data cannot be trained on, the output folder holds another run, or a package is missing.
    ModelError
        If a model to start from does not fit, or a loss is not a number; the last checkpoint is kept.
    OutputError
        If the disk is full; the last checkpoint is kept.
    """
    return _Run(config, resume, report or _silent).run()


class _Run:
    """One run."""

    def __init__(self, config: TrainConfig, resume: bool, report: Report) -> None:
        self.config, self.report = config, report
        self.checkpoints = config.output / "checkpoints"
        found = _newest_to_resume(config, resume) if first_process() else newest_checkpoint(self.checkpoints)
        self.checkpoint = load_checkpoint(found) if found is not None and resume else None
        if self.checkpoint is not None:
            differs = first_difference(self.checkpoint.facts["config"], plain(config))
            if differs is not None:
                name, then, now = differs
                raise InputError(
                    f"The run that is to go on was made with {name} = {then!r}, but now it is {now!r}; change it "
                    "back, or choose another output folder."
                )
        self.fabric = launch(config)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.archive, self.held_archive = open_archives(config)
        torch.manual_seed(config.seed)
        self.state = State(config, self.archive, self.fabric)
        if self.checkpoint is not None:
            self.state.restore(self.checkpoint)

    def run(self) -> Result:
        """Train to the end."""
        config, first = self.config, self.fabric.is_global_zero
        pool = self._pool(self.archive, config.data.examples, config.seed)
        held = self._held() if first else []
        monitor = Monitor(config.output, enabled=config.tensorboard and first, step=self.state.step)
        if self.checkpoint is None:
            self._pause(held, monitor, {})
        begun, before = time.monotonic(), self.state.seconds
        with monitor:
            while self.state.step < config.steps:
                losses = self._step(pool)
                self.state.step += 1
                self.state.seconds = before + time.monotonic() - begun
                if self.state.step % config.check_every == 0 or self.state.step == config.steps:
                    self._pause(held, monitor, losses)
                share = self.state.step / config.steps
                self.report("train", share, self._words())
        return self._finish()

    def _words(self) -> str:
        best = self.state.best.get("student")
        return f"step {self.state.step}" + (
            "" if best is None else f", error {best.error:.3f} of the reference's"
        )

    def _pool(self, archive: Archive, size: int, seed: int) -> Pool:
        return Pool(archive, self.state.cards["student"], size=size, seed=seed, crop=self.config.crop)

    def _held(self) -> list[Example]:
        pool = self._pool(self.held_archive, self.config.data.validation_examples, _HELD_SEED)
        return pool.fill(lambda share: self.report("prepare", share, "held-out examples"))

    def _step(self, pool: Pool) -> dict[str, float]:
        config = self.config
        world, rank = self.fabric.world_size, self.fabric.global_rank
        first = (self.state.step * world + rank) * config.accumulate
        # the numbers of a pool of limited size are drawn, those of an endless one follow each other
        rng = np.random.default_rng([config.seed, self.state.step, rank])
        numbers = range(first, first + config.accumulate)
        if config.data.examples:
            numbers = rng.integers(config.data.examples, size=config.accumulate).tolist()
        batches = [
            draw_batch(
                pool[number],
                rng,
                crop=config.crop,
                count=config.batch,
                signs=config.augment.signs,
                turns=config.augment.turns,
            ).to(self.fabric.device)
            for number in numbers
        ]
        losses = self.state.steps.step(
            batches,
            factor=config.schedule(self.state.step, config.steps),
            teacher_factor=config.teacher_schedule(self.state.step, config.steps),
        )
        if self.state.average is not None:
            self.state.average.update_parameters(self.state.learning["student"])
        return losses

    def _pause(self, held: list[Example], monitor: Monitor, losses: Mapping[str, float]) -> None:
        """Look at the held-out examples and write a checkpoint, in the first process."""
        if self.fabric.is_global_zero:
            self._look(held, monitor, losses)
            save_checkpoint(self.checkpoints, self.state.checkpoint())
        self.fabric.barrier()

    def _look(self, held: list[Example], monitor: Monitor, losses: Mapping[str, float]) -> None:
        row: dict[str, float] = {"step": self.state.step, "seconds": round(self.state.seconds, 1)}
        row["rate"] = self.config.rate * self.config.schedule(self.state.step, self.config.steps)
        row |= {f"loss_{name}": value for name, value in losses.items()}
        for name in self.state.learning:
            found = look(self.state.shown(name), held)
            row |= {f"{name}_{key}": value for key, value in found.to_dict().items()}
            self.state.consider(name, found)
        self.state.history.append(row)
        monitor.scalars(row, self.state.step)
        monitor.picture(self.state.shown("student"), held[0], self.state.step)

    def _finish(self) -> Result:
        config, paths = self.config, dict[str, Path]()
        for name in self.state.learning:
            card = self.state.cards[name]
            paths[name] = (
                config.output / f"{config.name}{'' if name == 'student' else '-teacher'}.safetensors"
            )
            if not self.fabric.is_global_zero:
                continue
            network = DualTwoStream(card.network)
            network.load_state_dict(self.state.best_state[name])
            scores: dict[str, Any] = {
                f"held_out_{key}": round(v, 5) for key, v in self.state.best[name].to_dict().items()
            }
            scores["held_out_images"] = ", ".join(self.held_archive.names[:20])
            provenance = {
                "trained_by": f"csakd_geo {__version__}",
                "steps": self.state.step,
                "seed": config.seed,
            }
            save_model(
                paths[name], network, card.model_copy(update={"scores": scores, "provenance": provenance})
            )
        if self.fabric.is_global_zero:
            write_history(config.output / "history.csv", self.state.history)
        found: Any = self.fabric.broadcast((self.state.start, self.state.best))
        start, best = found
        return Result(
            paths["student"],
            paths.get("teacher"),
            start,
            best["student"],
            best.get("teacher"),
            self.state.step,
            self.state.seconds,
        )


def _newest_to_resume(config: TrainConfig, resume: bool) -> Path | None:
    """The checkpoint to go on from.

    Raises
    ------
    InputError
        A run is there already and was not asked to go on.
    """
    found = newest_checkpoint(config.output / "checkpoints")
    if found is not None and not resume:
        raise InputError(
            f"'{config.output}' holds a run that got to step {int(found.name.removeprefix('step-'))}; add "
            "--resume to go on, or choose another output folder."
        )
    return found


def _silent(stage: str, share: float, words: str) -> None:
    """Tell nobody."""
