"""A training run over an archive: networks, schedule, looks at held-out examples, checkpoints, models.

Every draw is a function of the seed and the step, so a run that goes on from a checkpoint ends
with the same weights as one that was never stopped (same machine, threads and precision).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from csakd_geo._version import __version__
from csakd_geo.errors import InputError, ModelError
from csakd_geo.models import DualTwoStream, ModelCard, load_model, save_model
from csakd_geo.train.archive import Archive
from csakd_geo.train.batch import draw_batch
from csakd_geo.train.checkpoint import (
    Checkpoint,
    first_difference,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from csakd_geo.train.config import NetworkOptions, TrainConfig
from csakd_geo.train.examples import Example
from csakd_geo.train.heldout import HeldOut, look
from csakd_geo.train.monitor import Monitor, write_history
from csakd_geo.train.pool import Pool
from csakd_geo.train.processes import first_process, launch
from csakd_geo.train.setup import make_card, open_archives
from csakd_geo.train.steps import Steps

if TYPE_CHECKING:
    pass

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
    """The state of one run."""

    def __init__(self, config: TrainConfig, resume: bool, report: Report) -> None:
        self.config, self.report = config, report
        self.checkpoints = config.output / "checkpoints"
        found = _newest_to_resume(config, resume) if first_process() else newest_checkpoint(self.checkpoints)
        self.checkpoint = load_checkpoint(found) if found is not None and resume else None
        if self.checkpoint is not None:
            differs = first_difference(self.checkpoint.facts["config"], _plain(config))
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
        self.cards: dict[str, ModelCard] = {}
        self.student = self._network("student", config.student)
        self.teacher: DualTwoStream | None = None
        if config.teacher is not None:
            self.teacher = self._network("teacher", config.teacher)
        frozen = config.teacher is not None and config.teacher.frozen
        self.steps = Steps(
            self.student,
            self.teacher,
            rate=config.rate,
            teacher_rate=config.teacher_rate,
            weights=config.losses.weights(),
            frozen=frozen,
            relative=config.losses.relative,
            fabric=self.fabric,
        )
        self.learning: dict[str, DualTwoStream] = {"student": self.student}
        if self.teacher is not None and not frozen:
            self.learning["teacher"] = self.teacher
        self.average = None
        if config.ema is not None:
            from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

            self.average = AveragedModel(self.student, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.best: dict[str, HeldOut] = {}
        self.best_state: dict[str, dict[str, torch.Tensor]] = {}
        self.start: HeldOut | None = None
        self.history: list[dict[str, float]] = []
        self.step, self.seconds = 0, 0.0
        if self.checkpoint is not None:
            self._restore(self.checkpoint)

    def _network(self, name: str, options: NetworkOptions) -> DualTwoStream:
        """A network with new weights, or that of the model to start from; and its card."""
        card = make_card(self.config, options, self.archive)
        self.cards[name] = card
        if options.start is None:
            return DualTwoStream(card.network)
        model = load_model(options.start)
        # official students carry weights that are never called
        wanted = replace(card.network, owns_unused=model.card.network.owns_unused)
        ours = wanted.to_dict() | {"form": card.form, "base": card.base}
        theirs = model.card.network.to_dict() | {"form": model.card.form, "base": model.card.base}
        for key, value in ours.items():
            if theirs[key] != value:
                raise ModelError(
                    f"'{options.start.name}' has another architecture than the {name} to train: its {key} is "
                    f"{theirs[key]}, but {value} is asked for; change the configuration to match."
                )
        self.cards[name] = card.model_copy(update={"network": wanted})
        return model.network

    def run(self) -> Result:
        """Train to the end."""
        config, first = self.config, self.fabric.is_global_zero
        pool = self._pool(self.archive, config.data.examples, config.seed)
        held = self._held() if first else []
        monitor = Monitor(config.output, enabled=config.tensorboard and first, step=self.step)
        if self.checkpoint is None:
            if first:
                self._look(held, monitor, {})
                self._save()
            self.fabric.barrier()
        begun, before = time.monotonic(), self.seconds
        with monitor:
            while self.step < config.steps:
                losses = self._step(pool)
                self.step += 1
                self.seconds = before + time.monotonic() - begun
                if self.step % config.check_every == 0 or self.step == config.steps:
                    if first:
                        self._look(held, monitor, losses)
                        self._save()
                    self.fabric.barrier()
                share = self.step / config.steps
                self.report("train", share, self._words())
        return self._finish()

    def _words(self) -> str:
        best = self.best.get("student")
        return f"step {self.step}" + ("" if best is None else f", error {best.error:.3f} of the reference's")

    def _pool(self, archive: Archive, size: int, seed: int) -> Pool:
        return Pool(archive, self.cards["student"], size=size, seed=seed, crop=self.config.crop)

    def _held(self) -> list[Example]:
        pool = self._pool(self.held_archive, self.config.data.validation_examples, _HELD_SEED)
        return pool.fill(lambda share: self.report("prepare", share, "held-out examples"))

    def _step(self, pool: Pool) -> dict[str, float]:
        config = self.config
        world, rank = self.fabric.world_size, self.fabric.global_rank
        first = (self.step * world + rank) * config.accumulate
        # the numbers of a pool of limited size are drawn, those of an endless one follow each other
        rng = np.random.default_rng([config.seed, self.step, rank])
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
        losses = self.steps.step(
            batches,
            factor=config.schedule(self.step, config.steps),
            teacher_factor=config.teacher_schedule(self.step, config.steps),
        )
        if self.average is not None:
            self.average.update_parameters(self.student)
        return losses

    def _shown(self, name: str) -> DualTwoStream:
        """The network that is looked at and kept: the student's running average where there is one."""
        if name == "student" and self.average is not None:
            return cast(DualTwoStream, self.average.module)
        return self.learning[name]

    def _look(self, held: list[Example], monitor: Monitor, losses: Mapping[str, float]) -> None:
        row: dict[str, float] = {"step": self.step, "seconds": round(self.seconds, 1)}
        row["rate"] = self.config.rate * self.config.schedule(self.step, self.config.steps)
        row |= {f"loss_{name}": value for name, value in losses.items()}
        for name in self.learning:
            network = self._shown(name)
            found = look(network, held)
            row |= {f"{name}_{key}": value for key, value in found.to_dict().items()}
            if name == "student" and self.start is None:
                self.start = found
            if name not in self.best or self._better(found, self.best[name]):
                self.best[name] = found
                self.best_state[name] = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
        self.history.append(row)
        monitor.scalars(row, self.step)
        monitor.picture(self._shown("student"), held[0], self.step)

    def _better(self, found: HeldOut, best: HeldOut) -> bool:
        key = self.config.best_by
        sign = -1 if key == "psnr" else 1
        return sign * float(getattr(found, key)) < sign * float(getattr(best, key))

    def _save(self) -> None:
        parts: dict[str, Mapping[str, torch.Tensor]] = {
            name: network.state_dict() for name, network in self.learning.items()
        }
        if self.steps.adapter is not None:
            parts["adapter"] = self.steps.adapter.state_dict()
        if self.average is not None:
            parts["average"] = self.average.state_dict()
        parts |= {f"best-{name}": state for name, state in self.best_state.items()}
        facts = {
            "csakd_geo": __version__,
            "config": _plain(self.config),
            "seconds": self.seconds,
            "start": self.start and self.start.to_dict(),
            "best": {name: found.to_dict() for name, found in self.best.items()},
            "history": self.history,
        }
        weights = {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}
        optimizers = [optimizer.state_dict() for optimizer in self.steps.optimizers]
        save_checkpoint(self.checkpoints, Checkpoint(self.step, weights, optimizers, facts))

    def _restore(self, checkpoint: Checkpoint) -> None:
        for name, network in self.learning.items():
            network.load_state_dict(checkpoint.part(name))
        if self.steps.adapter is not None:
            self.steps.adapter.load_state_dict(checkpoint.part("adapter"))
        if self.average is not None:
            self.average.load_state_dict(checkpoint.part("average"))
        for optimizer, state in zip(self.steps.optimizers, checkpoint.optimizers, strict=True):
            optimizer.load_state_dict(state)
        facts = checkpoint.facts
        self.best = {name: HeldOut(**values) for name, values in facts["best"].items()}
        self.best_state = {name: checkpoint.part(f"best-{name}") for name in self.best}
        self.start = HeldOut(**facts["start"])
        self.history, self.seconds, self.step = facts["history"], facts["seconds"], checkpoint.step

    def _finish(self) -> Result:
        config, paths = self.config, dict[str, Path]()
        for name in self.learning:
            card = self.cards[name]
            paths[name] = (
                config.output / f"{config.name}{'' if name == 'student' else '-teacher'}.safetensors"
            )
            if not self.fabric.is_global_zero:
                continue
            network = DualTwoStream(card.network)
            network.load_state_dict(self.best_state[name])
            scores: dict[str, Any] = {
                f"held_out_{key}": round(v, 5) for key, v in self.best[name].to_dict().items()
            }
            scores["held_out_images"] = ", ".join(self.held_archive.names[:20])
            provenance = {"trained_by": f"csakd_geo {__version__}", "steps": self.step, "seed": config.seed}
            save_model(
                paths[name], network, card.model_copy(update={"scores": scores, "provenance": provenance})
            )
        if self.fabric.is_global_zero:
            write_history(config.output / "history.csv", self.history)
        found: Any = self.fabric.broadcast((self.start, self.best))
        start, best = found
        return Result(
            paths["student"],
            paths.get("teacher"),
            start,
            best["student"],
            best.get("teacher"),
            self.step,
            self.seconds,
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


def _plain(config: TrainConfig) -> dict[str, Any]:
    """JSON values of what decides the outcome."""
    return config.model_dump(mode="json", exclude={"output", "tensorboard"})


def _silent(stage: str, share: float, words: str) -> None:
    """Tell nobody."""
