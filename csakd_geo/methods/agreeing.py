"""A network's answer drawn to what both images say: one more MAP estimate, around that answer.

A network sees the images, but nothing binds its answer to them. Its base weighs a prior estimate against both images;
the same is done with the answer in the prior's place, whose errors are taken for smaller ones of the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import apply_srf
from csakd_geo.methods.base import Fitted
from csakd_geo.methods.network_form import AGREE, base_map, output_map
from csakd_geo.methods.step import REACH, step_from
from csakd_geo.methods.subspace import Subspace

if TYPE_CHECKING:
    from csakd_geo.models.card import ModelCard

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Agreeing:
    """Answers in the base's subspace, and the step from there.

    Parameters
    ----------
    inner : Fitted
        Of the base.
    basis : ndarray (band, k)
        From a step to spectra.
    answer, rest, level : ndarray (k, K), (k, k), (k,)
        ``answer @ a + rest @ z + level`` are the coordinates of an answer a over a base z.
    errors : dict
        What an answer's are taken for; see :func:`csakd_geo.methods.step.step_from`.
    """

    inner: Fitted
    basis: FloatArray
    answer: FloatArray
    rest: FloatArray
    level: FloatArray
    errors: dict[str, FloatArray]

    @classmethod
    def of(cls, card: ModelCard, fitted: Fitted) -> Agreeing | None:
        """Of a fit; None where the network has no base, or sees bands."""
        mapped = base_map(card, fitted)
        errors = fitted.inner(AGREE).arrays
        if mapped is None or not errors:
            return None
        inner = fitted.inner(card.base or "")
        own = Subspace.of(inner)
        weight, level = output_map(card, fitted)
        kept = len(own.deviation)
        rest: FloatArray = np.zeros((kept, kept), np.float32)
        if mapped.rest_weight is not None and mapped.rest_level is not None:
            rest, level = own.inverse @ mapped.rest_weight, level + mapped.rest_level
        return cls(
            inner,
            own.basis,
            own.inverse @ weight,
            rest,
            own.inverse @ (level - own.mean),
            errors,
        )

    @property
    def reach(self) -> int:
        """LR pixels around a window that a step in it depends on."""
        return self.inner.psf.halo + REACH

    def coordinates(self, answer: FloatArray, z: FloatArray) -> FloatArray:
        """Of an answer (K, ry, rx) over a base (k, ry, rx), ``(k, ry, rx)``."""
        found = apply_srf(answer, self.answer) + apply_srf(z, self.rest)
        return np.asarray(found + self.level[:, None, None].astype(found.dtype))

    def step(self, hsi: FloatArray, msi: FloatArray, coordinates: FloatArray) -> FloatArray:
        """What an answer lacks, ``(k, ry, rx)``."""
        return step_from(self.inner, hsi, msi, coordinates, self.errors)
