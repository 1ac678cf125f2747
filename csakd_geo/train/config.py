"""The configuration of a training run: one YAML file, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from csakd_geo.errors import InputError
from csakd_geo.models.config import VARIANTS, NetworkConfig
from csakd_geo.sensors import sensor_names
from csakd_geo.train.losses import LossWeights
from csakd_geo.train.variation import Variation

Range = tuple[Annotated[float, Field(allow_inf_nan=False)], Annotated[float, Field(allow_inf_nan=False)]]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataOptions(_Part):
    """Where the truth comes from.

    ``rasters``: files, folders or patterns of fine hyperspectral images, degraded on the fly by
    Wald's protocol. ``official``: a folder of tiles as the CSAKD authors store them, with text
    files of names if not all of it is meant. Paths are relative to the configuration.

    `window` is the side in MSI pixels of what one example is cut from; `examples` that many
    observations are drawn and kept, 0 draws new ones for every step. `sensors` are the MSI's, of
    which one is drawn per observation; `random_bands` (least, most) mixes in made-up ones.
    """

    layout: Literal["rasters", "official"] = "rasters"
    train: tuple[str, ...] = Field(min_length=1)
    validation: tuple[str, ...] = ()
    train_names: Path | None = None
    validation_names: Path | None = None
    msi_bands: Whole = 4
    sensors: tuple[str, ...] = Field(default=("sentinel2-10m",), min_length=1)
    random_bands: tuple[Whole, Whole] | None = None
    ratios: tuple[Annotated[int, Field(ge=2, le=10)], ...] = Field(default=(4,), min_length=1)
    wavelengths: Path | None = None
    units: str | None = None
    source: str | None = None
    terms: str | None = None
    window: Annotated[int, Field(ge=32)] = 128
    examples: Annotated[int, Field(ge=0)] = 64
    validation_examples: Whole = 8

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.validation:
            raise ValueError("there is no validation data; name images that are not trained on")
        unknown = [name for name in self.sensors if name not in sensor_names()]
        if unknown:
            raise ValueError(f"there is no sensor '{unknown[0]}'; choose of {', '.join(sensor_names())}")
        return self


class Augmentation(_Part):
    """What varies between observations; see :class:`csakd_geo.train.variation.Variation`.

    `turns` also mirrors. `fwhm` and `phase` in HSI pixels, `misregistration` in MSI pixels (official
    tiles: which of their shifted HSIs are drawn), `centre_shift` in nm, `width_change` a share,
    noise in dB (null adds none). `signs` turns the signs of subspace coefficients. `turned` and `joined` are shares of
    land that is turned by any angle, with pixels up to `coarser` times as large, and laid over other land; held-out
    images are observed as they are.
    """

    turns: bool = True
    signs: bool = False
    fwhm: Range = (0.8, 1.3)
    phase: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    misregistration: Annotated[float, Field(ge=0, le=3)] = 0.0
    snr_hsi: Range | None = (30.0, 40.0)
    snr_msi: Range | None = (35.0, 45.0)
    centre_shift: Weight = 0.0
    width_change: Annotated[float, Field(ge=0, lt=1)] = 0.0
    vnir: Annotated[float, Field(ge=0, le=1)] = 0.0
    turned: Annotated[float, Field(ge=0, le=1)] = 0.7
    coarser: Annotated[float, Field(ge=1, le=10)] = 1.7
    joined: Annotated[float, Field(ge=0, le=1)] = 0.65

    def variation(self, data: DataOptions) -> Variation:
        """The ranges that observations are drawn from."""
        own = self.model_dump(exclude={"turns", "signs"})
        mixed = data.random_bands is not None
        return Variation(
            ratios=data.ratios,
            sensors=data.sensors,
            random_share=0.4 if mixed else 0.0,
            random_bands=data.random_bands or (1, 1),
            **own,
        )


class NetworkOptions(_Part):
    """Shape of a network: a published variant, or `depths`. `start` is a model to go on from."""

    variant: str = "student"
    depths: tuple[int, int, int, int] | None = None
    features: Whole = 86
    growth: Whole = 43
    fuser: Annotated[int, Field(ge=0, le=4)] = 3
    attention: Literal["cross", "released"] = "cross"
    groups: Whole = 1
    start: Path | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.variant not in VARIANTS:
            raise ValueError(f"there is no variant '{self.variant}'; choose of {', '.join(VARIANTS)}")
        return self

    def network(self, *, bands: int, msi_bands: int, residual: bool) -> NetworkConfig:
        """The network for data of so many bands."""
        changes = {} if self.depths is None else {"depths": self.depths}
        return NetworkConfig.named(
            self.variant,
            bands=bands,
            msi_bands=msi_bands,
            features=self.features,
            growth=self.growth,
            fuser=self.fuser,
            attention=self.attention,
            groups=self.groups,
            residual=residual,
            **changes,
        )


class TeacherOptions(NetworkOptions):
    """The teacher; `frozen` (offline distillation) needs a model to `start` from."""

    variant: str = "teacher"
    frozen: bool = False

    @model_validator(mode="after")
    def _trained(self) -> Self:
        if self.frozen and self.start is None:
            raise ValueError("a frozen teacher has to be trained already; give its model as 'start'")
        return self


class Losses(_Part):
    """Weight of each term, 0 switches it off; `relative` divides each by the reference's."""

    l1: Weight = 1.0
    sam: Weight = 0.1
    beba: Weight = 0.1
    response: Weight = 0.1
    feature: Weight = 0.1
    relative: bool = True

    def weights(self) -> LossWeights:
        """The weights alone."""
        return LossWeights(**self.model_dump(exclude={"relative"}))


class Schedule(_Part):
    """Learning rate over the run: ``cosine`` to zero, ``step`` (times `factor` every so many steps)."""

    kind: Literal["cosine", "step", "constant"] = "cosine"
    every: Whole = 1000
    factor: Annotated[float, Field(gt=0, le=1)] = 0.9

    def __call__(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by at a step."""
        import math

        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * step / steps))
        return self.factor ** (step // self.every) if self.kind == "step" else 1.0


class TrainConfig(_Part):
    """Everything that decides the outcome of a run.

    Form ``subspace`` learns on coefficients of each pair's own HSI subspace, ``domain`` on those of the
    archive's, ``bands`` on the bands themselves. `crop` in HSI pixels; `batch` crops of each of `accumulate` examples make one step.
    """

    name: str = Field(min_length=1, pattern=r"^[\w.-]+$")
    output: Path
    data: DataOptions
    form: Literal["subspace", "domain", "bands"] = "subspace"
    base: Literal["coupled-map"] | None = "coupled-map"
    components: Annotated[int, Field(ge=2, le=64)] = 10
    student: NetworkOptions = NetworkOptions(features=32, growth=16, depths=(0, 2, 2, 1))
    teacher: TeacherOptions | None = TeacherOptions(features=48, growth=24, depths=(1, 2, 2, 1))
    augment: Augmentation = Augmentation()
    losses: Losses = Losses()
    steps: Whole = 5000
    batch: Whole = 2
    accumulate: Whole = 4
    crop: Annotated[int, Field(ge=4)] = 10
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    teacher_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    schedule: Schedule = Schedule()
    teacher_schedule: Schedule = Schedule()
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    best_by: Literal["error", "sam", "psnr"] = "error"
    check_every: Whole = 250
    seed: Annotated[int, Field(ge=0)] = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Whole = 1
    threads: Whole | None = None
    tensorboard: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.form == "bands" and (len(set(self.data.sensors)) > 1 or self.data.random_bands):
            raise ValueError(
                "a model of bands sees one set of MSI bands; name one sensor, or train in subspace form"
            )
        if self.form != "subspace" and self.augment.vnir:
            raise ValueError(f"a model of form {self.form} sees all bands; leave augment.vnir out")
        if self.data.window < self.crop * max(self.data.ratios):
            raise ValueError(
                f"a window of {self.data.window} MSI pixels holds no crop of {self.crop} HSI pixels at ratio "
                f"{max(self.data.ratios)}; enlarge the window or take smaller crops"
            )
        return self


def read_train_config(path: Path, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a configuration.

    Parameters
    ----------
    path : Path
        YAML. Paths in it are relative to its folder.
    changes : mapping, optional
        Values that replace the file's, such as ``{"steps": 100}``.

    Raises
    ------
    InputError
        Names the line and the key that is unknown or has an impossible value.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The configuration '{path}' cannot be read ({error}).") from error
    try:
        node, values = yaml.compose(text), yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"The configuration '{path}' is no valid YAML{where}; correct it.") from error
    if not isinstance(values, dict):
        raise InputError(f"The configuration '{path}' must be a mapping of option names to values.")
    values = {**values, **(changes or {})}
    try:
        config = TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in first["loc"]]
        line = _line(node, keys)
        at = f", line {line}" if line else ""
        name = ".".join(keys) or "the configuration"
        if first["type"] == "extra_forbidden":
            said = f"there is no option '{name}'; known here: {', '.join(_known(keys[:-1]))}"
        elif first["type"] == "missing":
            said = f"'{name}' is missing"
        else:
            message = str(first["msg"]).removeprefix("Value error, ")
            said = f"'{name}': {message[0].lower()}{message[1:]}"
            if not isinstance(first["input"], (dict, list, TrainConfig)):
                said += f", found {first['input']!r}"
            if isinstance(first["input"], bool):  # YAML reads on, off, yes and no so
                said += " (put quotes around it)"
        raise InputError(f"In '{path.name}'{at}: {said}.") from error
    return _anchored(config, path.parent)


def _line(node: Any, keys: Sequence[str]) -> int | None:
    """Line of the deepest key that the file has."""
    line = None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == key]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _known(keys: Sequence[str]) -> list[str]:
    """Options of the part that keys lead to."""
    part: type[BaseModel] = TrainConfig
    for key in keys:
        field = part.model_fields.get(key)
        if field is None:
            break
        kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            break
        part = models[0]
    return sorted(part.model_fields)


def _anchored(config: TrainConfig, folder: Path) -> TrainConfig:
    """Paths made absolute, from the folder of the file that names them."""

    def at(path: Path | None) -> Path | None:
        return None if path is None else (folder / path.expanduser()).resolve()

    def pattern(text: str) -> str:
        return str(folder.resolve() / Path(text).expanduser())

    data = config.data.model_copy(
        update={
            "train": tuple(map(pattern, config.data.train)),
            "validation": tuple(map(pattern, config.data.validation)),
            "train_names": at(config.data.train_names),
            "validation_names": at(config.data.validation_names),
            "wavelengths": at(config.data.wavelengths),
        }
    )
    student = config.student.model_copy(update={"start": at(config.student.start)})
    teacher = config.teacher and config.teacher.model_copy(update={"start": at(config.teacher.start)})
    return config.model_copy(
        update={"output": at(config.output), "data": data, "student": student, "teacher": teacher}
    )
