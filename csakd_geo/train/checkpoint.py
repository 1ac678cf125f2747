"""Checkpoints of a training run: a folder per step that appears when it is whole; the newest is kept."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csakd_geo.errors import ModelError
from csakd_geo.io.failure import plain_errors

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHTS, _OPTIMIZERS, _FACTS = "weights.safetensors", "optimizers.pt", "facts.json"
_NAME = re.compile(r"step-(\d{9})")


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Everything that a run needs to go on.

    Parameters
    ----------
    step : int
        Steps that are done.
    weights : dict of str to Tensor
        Named ``PART.KEY``, such as ``student.last.weight``.
    optimizers : list of dict
        Their states.
    facts : dict
        JSON values.
    """

    step: int
    weights: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    facts: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Weights of one part."""
        return {k.removeprefix(f"{name}."): v for k, v in self.weights.items() if k.startswith(f"{name}.")}


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, then remove the older ones.

    Raises
    ------
    OutputError
        It cannot be written; the one before is still there.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = folder / f"step-{checkpoint.step:09d}"
    part = folder / f".{target.name}.part"
    with plain_errors(target):
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            weights = {k: v.detach().cpu().contiguous() for k, v in checkpoint.weights.items()}
            save_file(weights, part / _WEIGHTS)
            torch.save(checkpoint.optimizers, part / _OPTIMIZERS)
            (part / _FACTS).write_text(json.dumps(checkpoint.facts), encoding="utf-8")
            if target.exists():
                shutil.rmtree(target)
            os.replace(part, target)
        except (RuntimeError, SafetensorError) as error:  # what torch and safetensors say of a failed write
            raise OSError(str(error)) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    for older in _all(folder):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)
    return target


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a folder, if there is one."""
    found = _all(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    ModelError
        It is damaged.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        facts = json.loads((path / _FACTS).read_text(encoding="utf-8"))
        weights = load_file(path / _WEIGHTS)
        optimizers = torch.load(path / _OPTIMIZERS, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"The checkpoint '{path}' is damaged ({error}); remove the run's folder and train again."
        ) from error
    return Checkpoint(int(path.name.removeprefix("step-")), weights, optimizers, facts)


def first_difference(then: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first key, dotted, in which two sets of JSON values differ, and its two values."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            found = first_difference(then.get(key), now.get(key), f"{name}.{key}" if name else key)
            if found is not None:
                return found
        return None
    return None if then == now else (name, then, now)


def _all(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
