"""Every method on every scene through the call that users make, scored against the truth."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from csakd_geo.draft import draft_job
from csakd_geo.errors import CsakdGeoError, ModelError
from csakd_geo.evaluate import evaluate
from csakd_geo.io import open_source
from csakd_geo.job import fuse
from csakd_geo.methods import METHODS, get_method
from csakd_geo.models import Model, count_parameters, find_model, load_model, save_model
from csakd_geo.options import make_options
from csakd_geo.trial.scenes import Condition, Inputs, Scene

ATTENTION_OFF = ", attention off"
SCORES = ("psnr", "sam", "ergas", "rmse", "uiqi", "ssim", "cc")
_ATTENDING = (2, 3)  # fusers


@dataclass(frozen=True, slots=True)
class Contender:
    """A method or model that takes part.

    Parameters
    ----------
    name : str
        Unique in a trial.
    kind : {"classical", "model"}
    options : dict
        Of `csakd_geo.job.fuse`.
    parameters : int or None
        Weights that the network uses.
    fuser : int or None
    attention : str or None
        ``released``, ``cross`` or ``off``; None where there is none.
    """

    name: str
    kind: Literal["classical", "model"]
    options: dict[str, Any]
    parameters: int | None = None
    fuser: int | None = None
    attention: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one scene under one condition, or its mean over scenes.

    Scores are None where it `failed`, which then says why. In a mean that leaves scenes out, `failed` counts
    them. Units: dB, degrees, data units, seconds, seconds per million MSI pixels.
    """

    scene: str
    method: str
    kind: str
    parameters: int | None
    fuser: int | None
    attention: str | None
    snr: float | None
    shift: int | None
    psnr: float | None = None
    sam: float | None = None
    ergas: float | None = None
    rmse: float | None = None
    uiqi: float | None = None
    ssim: float | None = None
    cc: float | None = None
    seconds: float | None = None
    seconds_per_megapixel: float | None = None
    failed: str | None = None


Report = Callable[[float, str], None]
"""Called with the share done (0 to 1) and a few words."""


def model_contenders(models: Sequence[str]) -> list[Contender]:
    """Models by name or file, each once, named by their files as briefly as tells them apart.

    Raises
    ------
    ModelError
        If there is no such model or it cannot be read.
    """
    paths = list(dict.fromkeys(find_model(model).resolve() for model in models))
    forms: list[Callable[[Path], str]] = [
        lambda p: p.stem,
        lambda p: f"{p.parent.name}/{p.stem}",
        lambda p: p.as_posix(),
    ]
    names = next(
        names
        for form in forms
        if len({*(names := [form(path) for path in paths]), *METHODS}) == len(paths) + len(METHODS)
    )
    return [_contender(name, load_model(path)) for name, path in zip(names, paths, strict=True)]


def _contender(name: str, model: Model) -> Contender:
    config = model.card.network
    return Contender(
        name=name,
        kind="model",
        options={"model": str(model.path)},
        parameters=count_parameters(model.network, used_only=True),
        fuser=config.fuser,
        attention=config.attention if config.fuser in _ATTENDING else None,
    )


def classical_contenders(names: Sequence[str] | None = None) -> list[Contender]:
    """Classical methods, all of them by default.

    Raises
    ------
    InputError
        If a name is unknown.
    """
    chosen = list(METHODS) if names is None else list(dict.fromkeys(get_method(name).name for name in names))
    return [Contender(name, "classical", {"method": name}) for name in chosen]


@contextmanager
def without_attention(models: Sequence[Contender]) -> Iterator[list[Contender]]:
    """The models, each that attends followed by itself with the attended stream switched off.

    The values of the attention are set to zero, which is a mixing matrix of zeros: what the gates weigh is
    then the fine joint stream alone. The copies are files that live as long as the context.
    """
    import torch

    with tempfile.TemporaryDirectory(prefix="csakd-geo-") as folder:
        both = []
        for k, contender in enumerate(models):
            both.append(contender)
            if contender.attention is None:
                continue
            model = load_model(contender.options["model"])
            with torch.no_grad():
                for key, weights in model.network.named_parameters():
                    if key.startswith("fuse_att.value_conv."):
                        weights.zero_()
            path = Path(folder) / f"{k}.safetensors"
            save_model(path, model.network, model.card)
            both.append(
                Contender(
                    contender.name + ATTENTION_OFF,
                    "model",
                    {"model": str(path)},
                    contender.parameters,
                    contender.fuser,
                    "off",
                )
            )
        yield both


def run_trial(
    scenes: Sequence[Scene],
    conditions: Sequence[Condition],
    contenders: Sequence[Contender],
    *,
    report: Report,
    seed: int = 0,
    **options: Any,
) -> list[Row]:
    """Fuse and score everything; what cannot be fused becomes a row with the reason.

    Parameters
    ----------
    scenes : sequence of Scene
    conditions : sequence of Condition
    contenders : sequence of Contender
        The first one is on trial: it has to fit at least one scene.
    report : callable
    seed : int
        Of noise and fits.
    **options
        Of `csakd_geo.job.fuse`, the same for all, such as ``device`` and ``shift``.

    Returns
    -------
    list of Row

    Raises
    ------
    CsakdGeoError
        If the first contender can be run on no scene.
    """
    options = {**options, "seed": seed, "adapt_minutes": 0}
    report(0.0, "checking the model")
    _try_first(scenes, conditions[0], contenders[0], options)
    rows: list[Row] = []
    count = len(scenes) * len(conditions) * len(contenders)
    for scene in scenes:
        for condition in conditions:
            inputs: Inputs | CsakdGeoError
            try:
                inputs = scene.load(condition, seed=seed)
            except CsakdGeoError as error:
                inputs = error
            for contender in contenders:
                report(len(rows) / count, f"{scene.name}, {contender.name}")
                rows.append(_score(scene, condition, contender, inputs, options))
    own = [row.failed for row in rows if row.method == contenders[0].name]
    if all(own):
        raise ModelError(_none_fits(contenders[0], scenes, str(own[0])))
    report(1.0, "done")
    return rows


def _try_first(
    scenes: Sequence[Scene], condition: Condition, contender: Contender, options: dict[str, Any]
) -> None:
    """Find out before all the work whether the model fits any scene."""
    first: CsakdGeoError | None = None
    for scene in scenes:
        try:
            inputs = scene.load(condition, seed=0)
            draft_job(inputs.hsi, inputs.msi, make_options({**options, **contender.options}))
            return
        except CsakdGeoError as error:
            first = first or error
    if first is not None:
        raise type(first)(_none_fits(contender, scenes, str(first))) from first


def _none_fits(contender: Contender, scenes: Sequence[Scene], reason: str) -> str:
    where = "the only scene" if len(scenes) == 1 else f"any of the {len(scenes)} scenes; the first"
    return f"{contender.name} cannot be tested on {where}, {scenes[0].name}: {reason}"


def _score(
    scene: Scene,
    condition: Condition,
    contender: Contender,
    inputs: Inputs | CsakdGeoError,
    options: dict[str, Any],
) -> Row:
    facts: dict[str, Any] = {
        "scene": scene.name,
        "method": contender.name,
        "kind": contender.kind,
        "parameters": contender.parameters,
        "fuser": contender.fuser,
        "attention": contender.attention,
        "snr": condition.snr,
        "shift": condition.shift,
    }
    if isinstance(inputs, CsakdGeoError):
        return Row(**facts, failed=str(inputs))
    begun = time.perf_counter()
    try:
        fused = fuse(inputs.hsi, inputs.msi, **options, **contender.options).compute()
        seconds = time.perf_counter() - begun
        scores = evaluate(
            open_source(fused, name=f"{contender.name} of {scene.name}"),
            inputs.truth,
            ratio=fused.attrs["ratio"],
        ).scores
    except CsakdGeoError as error:
        return Row(**facts, failed=str(error))
    return Row(
        **facts,
        **{name: getattr(scores, name) for name in SCORES},
        seconds=seconds,
        seconds_per_megapixel=seconds / (fused.sizes["y"] * fused.sizes["x"] / 1e6),
    )
