"""What a training run consists of between two steps: networks, optimizers, the best so far, the history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch

from csakd_geo._version import __version__
from csakd_geo.errors import ModelError
from csakd_geo.models import DualTwoStream, ModelCard, load_model
from csakd_geo.train.archive import Archive
from csakd_geo.train.checkpoint import Checkpoint
from csakd_geo.train.config import NetworkOptions, TrainConfig
from csakd_geo.train.heldout import HeldOut
from csakd_geo.train.setup import make_card
from csakd_geo.train.steps import Steps

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class State:
    """Everything that a checkpoint holds.

    Parameters
    ----------
    config : TrainConfig
    archive : Archive
        What is trained on; the cards tell of it.
    fabric : lightning_fabric.Fabric

    Attributes
    ----------
    cards : dict of str to ModelCard
        By role, ``student`` and ``teacher``.
    learning : dict of str to DualTwoStream
        The networks that are trained, by role.
    steps : Steps
    best, best_state : dict
        Scores of the weights to keep, and those weights, by role.
    start : HeldOut or None
        The student's scores before the first step.
    history : list of dict
    step : int
    seconds : float
    """

    def __init__(self, config: TrainConfig, archive: Archive, fabric: Fabric) -> None:
        self.config = config
        self.cards: dict[str, ModelCard] = {}
        student = self._network("student", config.student, archive)
        teacher = None if config.teacher is None else self._network("teacher", config.teacher, archive)
        frozen = config.teacher is not None and config.teacher.frozen
        self.steps = Steps(
            student,
            teacher,
            rate=config.rate,
            teacher_rate=config.teacher_rate,
            weights=config.losses.weights(),
            frozen=frozen,
            relative=config.losses.relative,
            fabric=fabric,
        )
        self.learning: dict[str, DualTwoStream] = {"student": student}
        if teacher is not None and not frozen:
            self.learning["teacher"] = teacher
        self.average = None
        if config.ema is not None:
            from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

            self.average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.best: dict[str, HeldOut] = {}
        self.best_state: dict[str, dict[str, torch.Tensor]] = {}
        self.start: HeldOut | None = None
        self.history: list[dict[str, float]] = []
        self.step, self.seconds = 0, 0.0

    def _network(self, name: str, options: NetworkOptions, archive: Archive) -> DualTwoStream:
        """A network with new weights, or that of the model to start from; and its card."""
        card = make_card(self.config, options, archive)
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

    def shown(self, name: str) -> DualTwoStream:
        """The network that is looked at and kept: the student's running average where there is one."""
        if name == "student" and self.average is not None:
            return cast(DualTwoStream, self.average.module)
        return self.learning[name]

    def consider(self, name: str, found: HeldOut) -> None:
        """Keep a network's weights if none before did better."""
        if name == "student" and self.start is None:
            self.start = found
        if name not in self.best or self._better(found, self.best[name]):
            weights = self.shown(name).state_dict()
            self.best[name] = found
            self.best_state[name] = {k: v.detach().cpu().clone() for k, v in weights.items()}

    def _better(self, found: HeldOut, best: HeldOut) -> bool:
        key = self.config.best_by
        sign = -1 if key == "psnr" else 1
        return sign * float(getattr(found, key)) < sign * float(getattr(best, key))

    def _modules(self) -> dict[str, torch.nn.Module]:
        """What goes on learning, by the name of its part in a checkpoint."""
        modules: dict[str, torch.nn.Module] = {**self.learning}
        if self.steps.adapter is not None:
            modules["adapter"] = self.steps.adapter
        if self.average is not None:
            modules["average"] = self.average
        return modules

    def checkpoint(self) -> Checkpoint:
        """The state as it is."""
        parts: dict[str, Mapping[str, torch.Tensor]] = {
            name: module.state_dict() for name, module in self._modules().items()
        }
        parts |= {f"best-{name}": state for name, state in self.best_state.items()}
        facts = {
            "csakd_geo": __version__,
            "config": plain(self.config),
            "seconds": self.seconds,
            "start": self.start and self.start.to_dict(),
            "best": {name: found.to_dict() for name, found in self.best.items()},
            "history": self.history,
        }
        weights = {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}
        optimizers = [optimizer.state_dict() for optimizer in self.steps.optimizers]
        return Checkpoint(self.step, weights, optimizers, facts)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the state of a checkpoint."""
        for name, module in self._modules().items():
            module.load_state_dict(checkpoint.part(name))
        for optimizer, state in zip(self.steps.optimizers, checkpoint.optimizers, strict=True):
            optimizer.load_state_dict(state)
        facts = checkpoint.facts
        self.best = {name: HeldOut(**values) for name, values in facts["best"].items()}
        self.best_state = {name: checkpoint.part(f"best-{name}") for name in self.best}
        self.start = HeldOut(**facts["start"])
        self.history, self.seconds, self.step = facts["history"], facts["seconds"], checkpoint.step


def plain(config: TrainConfig) -> dict[str, Any]:
    """JSON values of what decides the outcome."""
    return config.model_dump(mode="json", exclude={"output", "tensorboard"})
