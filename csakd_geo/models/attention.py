"""The sums over pixels that cross attention needs, free of torch so that a fit can store them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError

HEADS = 4
CHANNELS = 16


@dataclass(frozen=True, slots=True, eq=False)
class AttentionSums:
    """Sums of query-key products, squared queries and squared keys over a set of pixels.

    Sums of disjoint sets add up to the sums of their union, so a scene may be seen in tiles of any size.

    Parameters
    ----------
    qk
        Sum of ``q_i k_j``, shape (4, 16, 16), float64.
    qq, kk
        Sums of ``q_i**2`` and ``k_j**2``, shape (4, 16), float64.

    Raises
    ------
    ModelError
        Arrays of another shape, or sums that are not finite.
    """

    qk: NDArray[np.float64]
    qq: NDArray[np.float64]
    kk: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name, shape in (
            ("qk", (HEADS, CHANNELS, CHANNELS)),
            ("qq", (HEADS, CHANNELS)),
            ("kk", (HEADS, CHANNELS)),
        ):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != shape:
                raise ModelError(f"Attention sums {name} have shape {array.shape}; expected {shape}.")
            if not np.isfinite(array).all():
                raise ModelError(f"Attention sums {name} are not finite; fill nodata before taking them.")
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __add__(self, other: AttentionSums) -> AttentionSums:
        return AttentionSums(self.qk + other.qk, self.qq + other.qq, self.kk + other.kk)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the three arrays by name."""
        return {"qk": self.qk, "qq": self.qq, "kk": self.kk}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Self:
        """Build from `to_arrays`' result.

        Raises
        ------
        ModelError
            An array is missing or has another shape.
        """
        missing = sorted({"qk", "qq", "kk"} - set(arrays))
        if missing:
            raise ModelError(f"Attention sums lack {', '.join(missing)}.")
        return cls(arrays["qk"], arrays["qq"], arrays["kk"])
