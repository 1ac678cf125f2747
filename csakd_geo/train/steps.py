"""One training step of teacher and student (online co-training or a frozen teacher).

Per step the teacher learns from the truth, then the student from the truth and the teacher
(arXiv 2406.19666). With relative losses each is divided by that of the reference, so that 1
means "no better than it" and an easy scene counts as much as a hard one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from csakd_geo.errors import ModelError
from csakd_geo.train.batch import Batch
from csakd_geo.train.losses import LossWeights, distilled, supervised

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from csakd_geo.models.network import DualTwoStream

_MAX_NORM = 1.0  # of the gradient of one network


class Steps:
    """Networks, the adapter between their features, and their optimizers.

    Parameters
    ----------
    student, teacher : DualTwoStream
        Trained in place; no teacher leaves the distillation terms out.
    rate : float
        Learning rate of AdamW; no weight decay.
    teacher_rate : float, optional
        Of the teacher; the student's by default.
    weights : LossWeights
    frozen : bool
        The teacher only teaches (offline distillation).
    relative : bool
        Divide each loss by the reference's.
    fabric : lightning_fabric.Fabric, optional
        Devices, precision and processes; plain float32 where the networks are, without one.
    """

    def __init__(
        self,
        student: DualTwoStream,
        teacher: DualTwoStream | None,
        *,
        rate: float,
        teacher_rate: float | None = None,
        weights: LossWeights,
        frozen: bool = False,
        relative: bool = True,
        fabric: Fabric | None = None,
    ) -> None:
        self.weights, self.frozen, self.relative, self.fabric = weights, frozen, relative, fabric
        self._rates = [rate, rate if teacher_rate is None else teacher_rate]
        pupil = _Pupil(student, _adapter(student, teacher))
        self.pupil: Any = pupil
        self.teacher: Any = teacher
        self.optimizers: list[Any] = [_optimizer(pupil, rate)]
        if teacher is not None and not frozen:
            self.optimizers.append(_optimizer(teacher, self._rates[1]))
        if teacher is not None and frozen:
            teacher.eval().requires_grad_(False)
        if fabric is not None:
            self.pupil, self.optimizers[0] = fabric.setup(pupil, self.optimizers[0])
            if teacher is not None and not frozen:
                self.teacher, self.optimizers[1] = fabric.setup(teacher, self.optimizers[1])
            elif teacher is not None:
                teacher.to(fabric.device)
        self.adapter = pupil.adapter

    @property
    def modules(self) -> list[Any]:
        """What is trained, in the order of the optimizers."""
        return [self.pupil, self.teacher][: len(self.optimizers)]

    def step(
        self, batches: Sequence[Batch], *, factor: float, teacher_factor: float | None = None
    ) -> dict[str, float]:
        """One step of each network over the mean of the batches' losses.

        Parameters
        ----------
        batches : sequence of Batch
        factor : float
            The schedule: what the learning rate is multiplied by now.
        teacher_factor : float, optional
            The teacher's; the student's by default.

        Returns
        -------
        dict of str to float
            Means of the losses: ``student``, and with a teacher ``response``, ``feature``, ``teacher``.

        Raises
        ------
        ModelError
            If a loss is not a number; no weight has changed then.
        """
        factors = [factor, factor if teacher_factor is None else teacher_factor]
        for optimizer, rate, now in zip(self.optimizers, self._rates, factors, strict=False):
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate * now
        for module in self.modules:
            module.train()
        totals: dict[str, Tensor] = {}
        for k, batch in enumerate(batches):
            last = k == len(batches) - 1
            for name, value in self._gradients(batch, len(batches), last):
                totals[name] = totals[name] + value if name in totals else value
        for module, optimizer in zip(self.modules, self.optimizers, strict=True):
            self._descend(module, optimizer)
        return {name: float(value) / len(batches) for name, value in totals.items()}

    def _gradients(self, batch: Batch, parts: int, last: bool) -> Iterator[tuple[str, Tensor]]:
        reference = supervised(batch.spectra(batch.reference), batch.truth, self.weights).detach()
        unit = reference + 1e-12 if self.relative else torch.ones_like(reference)
        guide: tuple[Tensor, Tensor] | None = None
        if self.teacher is not None:
            with self._accumulating(self.teacher, last), torch.set_grad_enabled(not self.frozen):
                output, features = self.teacher(batch.hsi, batch.msi, batch.base)
                spectra = batch.spectra(output)
                if not self.frozen:
                    loss = supervised(spectra, batch.truth, self.weights) / unit
                    self._add(loss, parts)
                    yield "teacher", loss.detach()
            guide = spectra.detach(), features.detach().float()
        with self._accumulating(self.pupil, last):
            output, features, shown = self.pupil(batch.hsi, batch.msi, batch.base)
            spectra = batch.spectra(output)
            loss = supervised(spectra, batch.truth, self.weights) / unit
            yield "student", loss.detach()
            if guide is not None:
                response, feature = distilled(spectra, shown.float(), *guide)
                yield "response", response.detach()
                yield "feature", feature.detach()
                loss = loss + self.weights.response * response / unit + self.weights.feature * feature
            self._add(loss, parts)

    def _add(self, loss: Tensor, parts: int) -> None:
        if not torch.isfinite(loss):
            raise ModelError(
                "The training loss is not a number; lower the learning rate or check the data for NaN."
            )
        backward: Callable[[Tensor], Any] = torch.Tensor.backward
        if self.fabric is not None:
            backward = self.fabric.backward
        backward(loss / parts)

    def _accumulating(self, module: Any, last: bool) -> AbstractContextManager[Any]:
        """Several processes agree on their gradients once per step."""
        if self.fabric is None or (module is self.teacher and self.frozen):
            return nullcontext()
        return self.fabric.no_backward_sync(module, enabled=not last)

    def _descend(self, module: Any, optimizer: Any) -> None:
        if self.fabric is not None:
            self.fabric.clip_gradients(module, optimizer, max_norm=_MAX_NORM, error_if_nonfinite=False)
        else:
            nn.utils.clip_grad_norm_(module.parameters(), _MAX_NORM)
        optimizer.step()


class _Pupil(nn.Module):
    """The student and, where the teacher has more or fewer features, the 1x1 convolution to them."""

    def __init__(self, student: DualTwoStream, adapter: nn.Module | None) -> None:
        super().__init__()
        self.student, self.adapter = student, adapter

    def forward(self, hsi: Tensor, msi: Tensor, base: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        output, features = self.student(hsi, msi, base)
        return output, features, features if self.adapter is None else self.adapter(features)


def _adapter(student: DualTwoStream, teacher: DualTwoStream | None) -> nn.Module | None:
    if teacher is None or student.config.features == teacher.config.features:
        return None
    return nn.Conv2d(student.config.features, teacher.config.features, 1)


def _optimizer(module: nn.Module, rate: float) -> torch.optim.Optimizer:
    # what is never called (an official student's hmfeat) gets no gradient, and AdamW passes it over
    parameters: list[Any] = list(module.parameters())
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
