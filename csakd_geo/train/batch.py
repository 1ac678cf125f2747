"""Random crops of one example, as tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csakd_geo.train.examples import Example

FloatArray = NDArray[np.floating]

_LEAST_USABLE = 0.25  # share of a crop that must be usable


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Crops of one example; shapes as in :class:`Example` with the crops in front.

    ``usable`` is (n, 1, ry, rx). Where it is false the truth is the reference's, so that the
    energies in the losses tell nothing of a truth that is held out.
    """

    hsi: Tensor
    msi: Tensor
    base: Tensor | None
    reference: Tensor
    truth: Tensor
    usable: Tensor
    weight: Tensor
    level: Tensor
    rest: Tensor | None = None

    def spectra(self, answer: Tensor) -> Tensor:
        """Spectra of an answer; where nothing may be learned they are the truth, so no loss arises."""
        spectra = _mix(self.weight, self.level, answer.float(), self.rest)
        return torch.where(self.usable, spectra, self.truth)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            values[name] = None if value is None else value.to(device)
        return Batch(**values)


def draw_batch(
    example: Example, rng: np.random.Generator, *, crop: int, count: int, signs: bool, turns: bool = True
) -> Batch:
    """Draw crops.

    Parameters
    ----------
    example : Example
    rng : numpy.random.Generator
    crop : int
        LR pixels per side, at most the example's.
    count : int
    signs : bool
        Turn the signs of coefficients at random (in subspace form).
    turns : bool
        Turn by quarters and mirror at random.
    """
    channels = len(example.hsi)
    flip_signs = signs and example.weight.ndim == 2
    sign = rng.choice(np.array([-1.0, 1.0] if flip_signs else [1.0], np.float32), channels)
    signed = sign[:, None, None]
    r, side = example.ratio, min(crop, *example.usable.shape)
    crops: dict[str, list[FloatArray]] = {}
    for _ in range(count):
        y, x = _corner(example, side, rng)
        quarter, mirror = (int(rng.integers(4)), rng.random() < 0.5) if turns else (0, False)
        fine = np.s_[:, y * r : (y + side) * r, x * r : (x + side) * r]
        coarse = np.s_[:, y : y + side, x : x + side]
        windows = {
            "hsi": example.hsi[coarse] * signed,
            "msi": example.msi[fine] * signed if flip_signs else example.msi[fine],
            "reference": example.reference[fine] * signed,
            "truth": example.truth[fine],
            "usable": example.usable[None][coarse].repeat(r, 1).repeat(r, 2),
        }
        if example.rest is not None:
            windows["rest"] = example.rest[fine]
        for name, window in windows.items():
            turned = np.rot90(window, quarter, axes=(1, 2))
            crops.setdefault(name, []).append(turned[:, :, ::-1] if mirror else turned)
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(np.stack(windows))) for name, windows in crops.items()
    }
    weight = example.weight * sign if example.weight.ndim == 2 else example.weight
    maps = torch.from_numpy(np.array(weight)), torch.from_numpy(example.level)
    reference = _mix(*maps, tensors["reference"], tensors.get("rest"))
    return Batch(
        hsi=tensors["hsi"],
        msi=tensors["msi"],
        base=None if example.base is None else tensors["reference"],
        reference=tensors["reference"],
        truth=torch.where(tensors["usable"], tensors["truth"], reference),
        usable=tensors["usable"],
        weight=maps[0],
        level=maps[1],
        rest=tensors.get("rest"),
    )


def _mix(weight: Tensor, level: Tensor, answer: Tensor, rest: Tensor | None) -> Tensor:
    spectra = torch.einsum("bk,nkyx->nbyx", weight, answer) if weight.ndim == 2 else weight * answer
    spectra = spectra + level[None, :, None, None]
    return spectra if rest is None else spectra + rest


def _corner(example: Example, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """A random crop of which a part may be learned from."""
    height, width = example.usable.shape
    for _ in range(100):
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        if example.usable[y : y + side, x : x + side].mean() > _LEAST_USABLE:
            break
    return y, x
