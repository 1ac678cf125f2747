"""Examples by number: each is a function of its seed and number alone, so a run can go on anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from csakd_geo.degrade import PSF
from csakd_geo.errors import CsakdGeoError, ModelError
from csakd_geo.response import estimate_response
from csakd_geo.threads import one_blas_thread
from csakd_geo.train.examples import Example, make_examples

if TYPE_CHECKING:
    from csakd_geo.models.card import ModelCard
    from csakd_geo.train.archive import Archive

_TRIES = 20


class Pool:
    """Examples of one archive for one model.

    Parameters
    ----------
    archive : Archive
    card : ModelCard
        Of the model to train.
    size : int
        So many different examples, kept in memory; 0 makes a new one for every number.
    seed : int
    crop : int
        LR pixels per side that an example must have.
    """

    def __init__(self, archive: Archive, card: ModelCard, *, size: int, seed: int, crop: int) -> None:
        self.archive, self.card, self.size, self.seed, self.crop = archive, card, size, seed, crop
        self._kept: dict[int, Example] = {}

    def __getitem__(self, number: int) -> Example:
        """The example of a number.

        Raises
        ------
        ModelError
            If no usable observation was found in many tries.
        """
        if self.size == 0:
            return self._make(number)
        key = number % self.size
        if key not in self._kept:
            self._kept[key] = self._make(key)
        return self._kept[key]

    def fill(self, report: Callable[[float], None]) -> list[Example]:
        """All examples of a pool of limited size."""
        examples = []
        for number in range(self.size):
            examples.append(self[number])
            report((number + 1) / self.size)
        return examples

    def _make(self, number: int) -> Example:
        rng = np.random.default_rng([self.seed, number])
        why = "every window was masked or too small"
        for _ in range(_TRIES):
            try:
                with one_blas_thread():
                    example = self._observe(rng)
            except CsakdGeoError as error:
                why = str(error)
                continue
            if example.usable.mean() > 0.5 and min(example.usable.shape) >= self.crop:
                return example
        raise ModelError(
            f"No usable example was found in {_TRIES} windows of {', '.join(self.archive.names[:3])}: {why}"
        )

    def _observe(self, rng: np.random.Generator) -> Example:
        pair, truth = self.archive.observe(rng)
        # a model of bands without a base takes gain and offset from the pair, and no PSF
        plain = self.card.form == "bands" and self.card.base is None
        response = estimate_response(pair, psf=PSF.nominal(pair.ratio) if plain else None)
        (example,) = make_examples(self.card, pair, (truth,), response)
        return example
