"""From a network's answers to spectra, and to what is stored of them, on the device that it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csakd_geo.io.encoding import Encoding
from csakd_geo.methods.agreeing import Agreeing
from csakd_geo.methods.base import Fitted
from csakd_geo.methods.network_form import base_map, output_map

if TYPE_CHECKING:
    from csakd_geo.models.checkpoint import Model

FloatArray = NDArray[np.floating]

#: torch's types for those that are stored; it has no arithmetic for uint16.
STORED = {"int16": torch.int16, "uint16": torch.int32, "float32": torch.float32}


@dataclass(frozen=True, slots=True, eq=False)
class Spectra:
    """From the network's answer and the base's coordinates to spectra: ``weight @ [answer, z, step] + level``.

    Parameters
    ----------
    weight : Tensor (band, K + k + k)
        Or () for a model of bands, whose answer is only scaled.
    level : Tensor (band, 1)
    seen : tuple of Tensor or None
        Weight (K or band, k) and level (K or band, 1) of what the network sees of the base.
    rest : bool
        Whether z joins the answer.
    rows : list of int
        The bands that are wanted.
    """

    weight: Tensor
    level: Tensor
    seen: tuple[Tensor, Tensor] | None = None
    rest: bool = False
    rows: list[int] = field(default_factory=list)

    @classmethod
    def of(
        cls, model: Model, fitted: Fitted, rows: Sequence[int], device: str, agreeing: Agreeing | None
    ) -> Spectra:
        """For a model, its fit, the bands that are wanted, and what joins the answer."""
        picked = list(rows)
        weight, level = output_map(model.card, fitted)
        level = level[picked]
        mapped = base_map(model.card, fitted)
        rest = mapped is not None and mapped.rest_weight is not None

        def put(array: FloatArray) -> Tensor:
            return torch.tensor(np.asarray(array, np.float32), device=device)

        if weight.ndim:
            columns = [weight[picked]]
            if mapped is not None and mapped.rest_weight is not None and mapped.rest_level is not None:
                columns.append(mapped.rest_weight[picked])
                level = level + mapped.rest_level[picked]
            if agreeing is not None:
                columns.append(agreeing.basis[picked])
            weight = np.concatenate(columns, axis=1)
        seen = None if mapped is None else (put(mapped.weight), put(mapped.level[:, None]))
        return cls(put(weight), put(level[:, None]), seen, rest, picked)

    def base(self, z: Tensor) -> Tensor | None:
        """What the network sees of the base, (n, K or band, y, x), from z (n, k, y, x)."""
        if self.seen is None:
            return None
        weight, level = self.seen
        seen: Tensor = torch.baddbmm(level, weight.expand(len(z), -1, -1), z.flatten(2))
        return seen.view(len(z), -1, *z.shape[2:])

    def of_answer(self, answer: Tensor, z: Tensor | None, step: Tensor | None, part: slice) -> Tensor:
        """Spectra (band, y, x) of some of the bands, from one tile's answer (K or band, y, x), base and step."""
        if self.weight.ndim == 0:
            rows = self.rows[part]
            first, last = rows[0], rows[-1]
            chosen = answer[first : last + 1] if last - first == len(rows) - 1 else answer[rows]
            return torch.addcmul(self.level[part, :, None], chosen, self.weight)
        joined = torch.cat(
            [answer, *([z] if self.rest and z is not None else []), *([] if step is None else [step])]
        )
        spectra: Tensor = torch.addmm(self.level[part], self.weight[part], joined.flatten(1))
        return spectra.view(-1, *answer.shape[1:])


def _between(values: Tensor, low: float, high: float) -> bool:
    """Whether all values lie between two numbers; false where one is NaN."""
    least, most = values.aminmax()
    return bool(least > low) and bool(most < high)


def encode(values: Tensor, encoding: Encoding) -> tuple[Tensor, Tensor]:
    """As :meth:`csakd_geo.io.Encoding.encode`, on the values' device; uint16 comes as int32.

    Parameters
    ----------
    values : Tensor (band, y, x)
    encoding : Encoding

    Returns
    -------
    stored : Tensor (band, y, x)
    clipped : Tensor ()
    """
    if encoding.dtype == "float32":
        return values.masked_fill(values.isinf(), np.nan), torch.zeros(
            (), dtype=torch.int64, device=values.device
        )
    low, high = encoding.limits
    # a GPU would have to be waited for
    whole = values.device.type == "cpu" and _between(values, -torch.inf, torch.inf)
    empty = None if whole else ~values.isfinite()
    for name, operation in (("offset", values.sub_), ("scale", values.div_)):
        parts = getattr(encoding, name)
        if any(part != (name == "scale") for part in parts):
            operation(torch.tensor(parts, dtype=torch.float32, device=values.device)[:, None, None])
    values.round_()
    if whole and _between(values, low - 1, high + 1):
        return values.to(STORED[encoding.dtype]), torch.zeros((), dtype=torch.int64)
    if empty is not None:
        values.masked_fill_(empty, low)
    stored = values.clamp(low, high)
    clipped = (stored != values).sum()
    if empty is not None:
        stored.masked_fill_(empty, encoding.nodata)
    return stored.to(STORED[encoding.dtype]), clipped
