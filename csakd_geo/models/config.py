"""What shape a dual two-stream network has: everything its weights do not say in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from ..errors import ModelError

Attention = Literal["released", "cross"]

#: Published stack depths ``(hmfeat, mhfeat, hfeat, mfeat)`` by name (arXiv 2406.19666 and its code).
VARIANTS: dict[str, tuple[int, int, int, int]] = {
    "teacher": (6, 6, 4, 4),
    "teacher-large": (8, 8, 6, 6),
    "student": (1, 4, 4, 1),
    "student-2332": (2, 3, 3, 2),
    "student-2222": (2, 2, 2, 2),
    "student-large": (2, 4, 4, 4),
}


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Shape of a dual two-stream network.

    Parameters
    ----------
    bands, msi_bands
        Channels of the two inputs; the output has `bands` channels.
    features, growth
        Channels of the streams (nf) and of each convolution inside a dense block (gc).
    depths
        CLRA blocks in the stacks hmfeat, mhfeat, hfeat, mfeat.
    student
        ``hfeat`` is grouped (features / 2 groups) and ``hmfeat`` is never called.
    groups
        Groups of the ``fuse`` convolution and, in a student, of ``hmfeat`` and ``mfeat``.
    fuser
        0 sum, 1 learned gates, 2 cross attention, 3 cross self-attention (CSA), 4 gates from the streams.
    attention
        ``cross`` is real cosine attention; ``released`` is the sum that the published code computes.
    residual
        A base estimate joins the fine joint stream and is added to the output.
    owns_unused
        A student that keeps the ``hmfeat`` weights it never calls, as official files do.

    Raises
    ------
    ModelError
        A value that no network can have.
    """

    bands: int
    msi_bands: int
    features: int = 86
    growth: int = 43
    depths: tuple[int, int, int, int] = VARIANTS["teacher"]
    student: bool = False
    groups: int = 1
    fuser: int = 3
    attention: Attention = "cross"
    residual: bool = True
    owns_unused: bool = False

    def __post_init__(self) -> None:
        for name in ("bands", "msi_bands", "features", "growth", "groups"):
            _require_int(name, getattr(self, name), 1)
        if len(self.depths) != 4:
            raise ModelError(f"A network has four stack depths, not {len(self.depths)}.")
        object.__setattr__(self, "depths", tuple(self.depths))
        for name, depth, least in zip(
            ("hmfeat", "mhfeat", "hfeat", "mfeat"), self.depths, (0, 1, 1, 1), strict=True
        ):
            _require_int(f"depth of {name}", depth, least)
        if self.fuser not in range(5):
            raise ModelError(f"Fuser {self.fuser!r} is unknown; expected 0, 1, 2, 3 or 4.")
        if self.attention not in get_args(Attention):
            raise ModelError(f"Attention {self.attention!r} is unknown; expected 'released' or 'cross'.")
        if self.owns_unused and not self.student:
            raise ModelError("Only a student network can own weights that it never calls.")
        if self.student and (self.features < 4 or self.features % 2 or self.growth % (self.features // 2)):
            raise ModelError(
                f"A student needs an even number of features (4 or more) and a growth that is a multiple of "
                f"half of it; found {self.features} and {self.growth}."
            )
        split = (self.bands, self.features) + ((self.growth,) if self.student else ())
        if any(size % self.groups for size in split):
            raise ModelError(f"{self.groups} groups do not divide the channel counts {split} evenly.")

    @classmethod
    def named(cls, name: str, *, bands: int, msi_bands: int, **changes: Any) -> Self:
        """Build a published depth variant in the form that is trained here.

        Parameters
        ----------
        name
            A key of `VARIANTS`, such as ``teacher`` or ``student``.
        bands, msi_bands
            Channels of the two inputs.
        **changes
            Any other field.

        Raises
        ------
        ModelError
            An unknown name or field value.
        """
        if name not in VARIANTS:
            raise ModelError(f"Network {name!r} is unknown; expected one of {', '.join(VARIANTS)}.")
        variant: dict[str, Any] = {"depths": VARIANTS[name], "student": name.startswith("student")}
        return cls(bands=bands, msi_bands=msi_bands, **(variant | changes))

    @classmethod
    def official(cls, name: str, *, bands: int, msi_bands: int, **changes: Any) -> Self:
        """Build a variant exactly as published: no base, released attention, unused weights kept."""
        published = {
            "attention": "released",
            "residual": False,
            "owns_unused": name.startswith("student"),
        }
        return cls.named(name, bands=bands, msi_bands=msi_bands, **(published | changes))

    @property
    def needs_statistics(self) -> bool:
        """Whether the fuser attends over the whole scene, so that tiles must share its sums."""
        return self.fuser in (2, 3) and self.attention == "cross"

    @property
    def owns_hmfeat(self) -> bool:
        """Whether ``hmfeat`` weights exist (called or not)."""
        return not self.student or self.owns_unused

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return asdict(self) | {"depths": list(self.depths)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `to_dict`'s values.

        Raises
        ------
        ModelError
            Missing, unknown or impossible fields.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ModelError(f"A network configuration has no field {', '.join(unknown)}.")
        try:
            return cls(**dict(values))
        except TypeError as error:
            raise ModelError(f"The network configuration is incomplete or malformed: {error}.") from error


def _require_int(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ModelError(
            f"The {name} of a network must be a whole number of at least {least}, not {value!r}."
        )
