"""ModelCard: what a model's weights cannot say, and whether it fits a pair of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from ..errors import ModelError
from .config import Attention, NetworkConfig

#: Allowed distance of two band centres in nm where the card states no FWHM.
DEFAULT_TOLERANCE = 10.0

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=1)]


class Axis(Protocol):
    """What is asked of a spectral axis: its band count and its centres in nm (NaN where unknown)."""

    @property
    def size(self) -> int:
        """Number of bands."""

    @property
    def wavelength(self) -> NDArray[Any]:
        """Band centres in nm, shape (size,)."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Normalisation(_Part):
    """How a scene's values become network inputs; one scale per scene, taken from the inputs.

    ``scene-percentile``: the valid HSI values' percentiles ``lower`` and ``upper`` map linearly to
    ``low`` and ``high`` (official weights: -1 and 1), for both inputs in the HSI's units; the output is
    mapped back. ``subspace-std``: every coefficient is divided by its standard deviation over the scene.
    """

    rule: Literal["scene-percentile", "subspace-std"]
    lower: float = Field(default=0.0, ge=0, lt=100)
    upper: float = Field(default=99.9, gt=0, le=100)
    low: float = Field(default=0.0, allow_inf_nan=False)
    high: float = Field(default=1.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.lower >= self.upper or self.low >= self.high:
            raise ValueError("lower must be below upper, and low below high")
        return self


class TrainingData(_Part):
    """One data set that a model has seen, and on what terms it may be used."""

    name: str
    source: str | None = None
    terms: str | None = None


class DomainSubspace(_Part):
    """The HSI subspace of the scenes that a model was trained on, in their units.

    ``spectrum = mean + basis @ (deviation * coefficient)``; coordinates are the noise-weighted least-squares
    ones, with `noise` per band. `basis` is (band, K).
    """

    mean: tuple[float, ...]
    noise: tuple[Positive, ...]
    basis: tuple[tuple[float, ...], ...]
    deviation: tuple[Positive, ...]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        bands, kept = len(self.mean), len(self.deviation)
        if len(self.noise) != bands or len(self.basis) != bands or any(len(b) != kept for b in self.basis):
            raise ValueError("mean, noise, basis and deviation of the domain's subspace do not go together")
        return self


class ModelCard(_Part):
    """Facts about one model; None = not known (an imported file says little).

    Wavelengths and FWHM are in nm, `halo` in HSI pixels, `tile` in MSI pixels. `ratio` is one whole
    number or a (least, most) range. In form ``bands`` the network sees the bands themselves; in form
    ``subspace`` it sees `components` coefficients of the pair's own HSI subspace, so it is tied to no
    band list; with a `domain` they are those of the scenes it was trained on, and the HSI's bands have to
    be theirs. `base` names the classical method whose result a residual network refines. `sha256` is
    the hash of the weights (`csakd_geo.models.checkpoint.weights_sha256`).
    """

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1)
    version: str = "0"
    network: NetworkConfig
    form: Literal["bands", "subspace"] = "bands"
    ratio: Whole | tuple[Whole, Whole] | None = None
    hsi_wavelengths: tuple[Positive, ...] | None = None
    hsi_fwhm: tuple[Positive, ...] | None = None
    msi_wavelengths: tuple[Positive, ...] | None = None
    msi_fwhm: tuple[Positive, ...] | None = None
    units: str | None = None
    normalisation: Normalisation | None = None
    tile: Whole | None = None
    halo: int = Field(default=8, ge=0)
    base: str | None = None
    domain: DomainSubspace | None = None
    training: tuple[TrainingData, ...] = ()
    scores: dict[str, JsonValue] = Field(default_factory=dict)
    provenance: dict[str, JsonValue] = Field(default_factory=dict)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @field_validator("network", mode="before")
    @classmethod
    def _read_network(cls, value: Any) -> Any:
        return NetworkConfig.from_dict(value) if isinstance(value, dict) else value

    @field_serializer("network")
    def _write_network(self, network: NetworkConfig) -> dict[str, Any]:
        return network.to_dict()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        network, domain = self.network, self.domain
        if domain is not None and (self.form != "subspace" or len(domain.deviation) != network.bands):
            raise ValueError("a domain's subspace belongs to a subspace model of as many coefficients")
        hsi_bands = network.bands if domain is None else len(domain.mean)
        for field, count in (
            ("hsi_wavelengths", hsi_bands),
            ("hsi_fwhm", hsi_bands),
            ("msi_wavelengths", network.msi_bands),
            ("msi_fwhm", network.msi_bands),
        ):
            stated = getattr(self, field)
            free = self.form == "subspace" and (domain is None or field.startswith("msi"))
            if stated is not None and free:
                raise ValueError(f"a subspace model is tied to no band list, but states {field}")
            if stated is not None and len(stated) != count:
                raise ValueError(f"{field} lists {len(stated)} values for {count} bands")
        if self.form == "subspace" and network.msi_bands != network.bands:
            raise ValueError("a subspace model takes the MSI as the same number of coefficients as the HSI")
        if isinstance(self.ratio, tuple) and self.ratio[0] > self.ratio[1]:
            raise ValueError(f"the ratio range {self.ratio} is reversed")
        if network.residual != (self.base is not None):
            raise ValueError("a base must be named exactly where the network is residual")
        return self

    @property
    def attention(self) -> Attention:
        """Attention mode of the network."""
        return self.network.attention

    @property
    def hsi_bands(self) -> int | None:
        """Number of HSI bands that the model is made for; None where any will do."""
        if self.form == "bands":
            return self.network.bands
        return None if self.domain is None else len(self.domain.mean)

    @property
    def components(self) -> int | None:
        """Number of subspace coefficients K; None for a model that sees bands."""
        return self.network.bands if self.form == "subspace" else None

    def to_json(self) -> str:
        """Return the card as JSON text."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a card.

        Raises
        ------
        ModelError
            Malformed JSON, or facts that no card can have.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the card"
            raise ModelError(
                f"The model card cannot be used: {where}: {first['msg']}; it may be damaged or written by "
                "another version of this package."
            ) from error


def check(card: ModelCard, *, hsi_axis: Axis, msi_axis: Axis, ratio: int) -> list[str]:
    """Hold a model against a pair.

    Parameters
    ----------
    card
        The model's card.
    hsi_axis, msi_axis
        Spectral axes of the bands that the network would see.
    ratio
        HSI pixel size / MSI pixel size.

    Returns
    -------
    list of str
        No entry, or one warning that names everything that could not be checked.

    Raises
    ------
    ModelError
        The model does not fit: band counts, band centres further apart than half an FWHM (10 nm where
        the card states none), or ratio.
    """
    unknown = []
    if card.ratio is None:
        unknown.append("ratio")
    else:
        least, most = (card.ratio, card.ratio) if isinstance(card.ratio, int) else card.ratio
        if not least <= ratio <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise ModelError(
                f"Model {card.name} is made for a ratio of {wanted}, but this pair's is {ratio}; choose "
                "another model or resample the MSI."
            )
    if card.hsi_bands is not None:
        msi_bands = card.network.msi_bands if card.form == "bands" else None
        for kind, axis, count, centres, fwhm in (
            ("HSI", hsi_axis, card.hsi_bands, card.hsi_wavelengths, card.hsi_fwhm),
            ("MSI", msi_axis, msi_bands, card.msi_wavelengths, card.msi_fwhm),
        ):
            if count is None:
                continue
            if axis.size != count:
                raise ModelError(
                    f"Model {card.name} takes {count} {kind} bands, but this pair has {axis.size} good ones; "
                    "choose another model or select the bands."
                )
            if centres is None or not np.isfinite(axis.wavelength).all():
                unknown.append(f"{kind} wavelengths")
            else:
                _check_centres(card.name, kind, axis.wavelength, centres, fwhm)
        if card.units is None:
            unknown.append("units")
    if not unknown:
        return []
    return [
        f"Model {card.name} was not checked against this pair's {', '.join(unknown)}, because the model or "
        "the pair does not state them."
    ]


def _check_centres(
    name: str, kind: str, found: ArrayLike, centres: Sequence[float], fwhm: Sequence[float] | None
) -> None:
    distance = np.abs(np.asarray(found, dtype=np.float64) - np.asarray(centres))
    allowed = np.full(len(centres), DEFAULT_TOLERANCE) if fwhm is None else np.asarray(fwhm) / 2
    excess = distance - allowed
    worst = int(np.argmax(excess))
    if excess[worst] > 0 and not math.isclose(distance[worst], allowed[worst]):
        raise ModelError(
            f"Model {name} expects {kind} band {worst + 1} at {centres[worst]:.1f} nm, but this pair has it "
            f"{distance[worst]:.1f} nm away (allowed {allowed[worst]:.1f} nm); choose another model or select "
            "the bands."
        )
