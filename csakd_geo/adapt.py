"""The network for a pair: asked for, found in the registry, adapted to the pair, or distilled on it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo._version import __version__
from csakd_geo.choose import MIN_COMPARED, fitting_model, held_out, large_enough
from csakd_geo.degrade import finer
from csakd_geo.engine.scene import Scene
from csakd_geo.methods import get_method
from csakd_geo.methods.base import Method
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.methods.estimates import CoupledMAP
from csakd_geo.methods.subspace import COMPONENTS
from csakd_geo.models import check, find_model, load_model
from csakd_geo.options import FuseOptions
from csakd_geo.pair import Pair
from csakd_geo.response import Response

if TYPE_CHECKING:
    from csakd_geo.models.card import ModelCard
    from csakd_geo.models.network import DualTwoStream
    from csakd_geo.train.distill import Outcome
    from csakd_geo.train.examples import Example

BoolArray = NDArray[np.bool_]

MINUTES = 3.0  # training that happens without being asked for
RATE = 1e-3  # learning rate on one scene
EXAMPLES = 32  # that are made of it
EMA = 0.98
TEACHER_FROM = 120.0  # minutes; an hour with a teacher brought less than a quarter of one without
RATIOS = (2, 10)
# of what a network learned one level down to change: at full resolution the whole of it goes too far on most scenes
TRUST = 0.6


def foresee(scene: Scene, options: FuseOptions, device: str) -> tuple[Method, list[str]]:
    """The method that will run, as far as the files tell, and what its card leaves unchecked.

    Parameters
    ----------
    scene : Scene
    options : FuseOptions
    device : str

    Raises
    ------
    ModelError
        If the model asked for does not fit the pair.
    """
    axes = scene.hsi.axis.take(scene.hsi_bands), scene.msi.axis.take(scene.msi_bands)
    ratio, statistics = scene.grid.ratio, options.statistics
    if options.model is not None:
        path = find_model(options.model)
        warnings = check(load_model(path).card, hsi_axis=axes[0], msi_axis=axes[1], ratio=ratio)
        return CSAKD(path, device=device, statistics=statistics), warnings
    if options.method not in ("auto", CSAKD.name):
        return get_method(options.method), []
    found = fitting_model(*axes, ratio)
    if found is None:
        return get_method(CoupledMAP.name), []
    return CSAKD(found, device=device, statistics=statistics), []


class Networks:
    """Where the network of one run comes from.

    Parameters
    ----------
    pair : Pair
    response : Response
    options : FuseOptions
    device : str
    report : callable
    keep : Path or None
        Where a trained model is saved.
    """

    def __init__(
        self,
        pair: Pair,
        response: Response,
        options: FuseOptions,
        device: str,
        report: Callable[[str, float, str], None],
        keep: Path | None,
    ) -> None:
        self.pair, self.response, self.options, self.device = pair, response, options, device
        self.report, self.keep = report, keep
        self.trained: Outcome | None = None

    def make(self, path: Path) -> CSAKD:
        """The method of a model file."""
        return CSAKD(path, device=self.device, statistics=self.options.statistics)

    def find(self) -> Path | None:
        """The model to run when none was asked for.

        Where none fits and the network was asked for, one is distilled on the pair. A model that fits is adapted
        only on request: benchmarks/adapt.py shows gains on most scenes and a loss on one.
        """
        path = fitting_model(self.pair.hsi_axis, self.pair.msi_axis, self.pair.ratio)
        wanted = self.options.adapt_minutes
        needed = path is None and self.options.method == CSAKD.name
        train = needed if wanted is None else wanted > 0
        return self.train(path) if train else path

    def facts(self, method: Method) -> dict[str, Any]:
        """Name, hashes and training of the network that runs; empty for a classical method."""
        if not isinstance(method, CSAKD):
            return {}
        model = load_model(method.path)
        facts: dict[str, Any] = {
            "name": model.card.name,
            "version": model.card.version,
            "file_sha256": model.sha256,
            "weights_sha256": model.card.sha256,
        }
        if self.trained is not None:
            facts["trained_on_pair"] = {
                "seconds": round(self.trained.seconds, 1),
                "steps": self.trained.steps,
                "held_out_error_over_base": [round(self.trained.start, 4), round(self.trained.best, 4)],
            }
        return facts

    def train(self, start: Path | None) -> Path | None:
        """Adapt a model, or distil a student from a teacher, on the pair one level down.

        Returns
        -------
        Path or None
            The trained model; ``start`` where training did not help, or the scene is too small or too empty for it.
        """
        if not large_enough(self.pair):
            if start is None:
                self.report("train", 1.0, f"not possible under {MIN_COMPARED} x {MIN_COMPARED} HSI pixels")
            return start
        from csakd_geo.models import save_model
        from csakd_geo.train.distill import Settings, distil
        from csakd_geo.train.losses import LossWeights

        wanted, seed = self.options.adapt_minutes, self.options.seed
        minutes = MINUTES if wanted is None else wanted
        student, teacher, card = _networks(start, seed, taught=minutes >= TEACHER_FROM)
        learn, held = split_examples(card, self.pair, self.response, seed=seed)
        if not learn or not held:
            self.report("train", 1.0, "not possible: too few pixels are valid to learn from and to hold out")
            return start
        # what is balanced has no spectral angles and no energies
        weights = LossWeights() if card.form == "bands" else LossWeights(sam=0.0, beba=0.0)
        settings = Settings(minutes=minutes, seed=seed, rate=RATE, ema=EMA, signs=False, weights=weights)
        outcome = distil(
            student,
            teacher,
            learn,
            held,
            settings,
            progress=lambda share, best: self.report("train", share, f"error {best:.3f} of the base's"),
        )
        if start is not None and outcome.best >= outcome.start:
            return start
        if start is None:
            student.last.weight.data.mul_(TRUST)
        self.trained = outcome
        target = self.keep or Path(tempfile.mkdtemp(prefix="csakd_geo-")) / "adapted.safetensors"
        provenance: dict[str, Any] = {
            "trained_by": f"csakd_geo {__version__}",
            "steps": outcome.steps,
        }
        save_model(target, student, card.model_copy(update={"name": target.stem, "provenance": provenance}))
        return target


def split_examples(
    card: ModelCard, pair: Pair, response: Response, *, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """Examples one level down: land made of the pair's own to learn from, and cells of it as it is that are held out.

    Blocks without a valid pixel in such a cell tell nothing, and are left out of the latter.
    """
    from csakd_geo.train.own import balanced, own_examples, whole_examples

    examples = whole_examples(card, pair, response, seed=seed)
    masks = [held_out((e.usable.shape[0], e.usable.shape[1])) for e in examples]
    apart = [replace(e, usable=e.usable & mask) for e, mask in zip(examples, masks, strict=True)]
    kept = [
        _uncovered(mask, pair.ratio, block.valid.shape)
        for mask, block in zip(masks, pair.blocks, strict=True)
    ]
    learn = own_examples(card, pair, response, kept, count=EXAMPLES, seed=seed)
    return [balanced(example) for example in learn], [example for example in apart if example.usable.any()]


def _uncovered(mask: BoolArray, ratio: int, shape: tuple[int, ...]) -> BoolArray:
    """HSI pixels of a block that no held-out cell covers; a margin that no whole cell covers is left out."""
    inside = finer(~mask, ratio)
    out = np.zeros(shape, bool)
    out[: inside.shape[0], : inside.shape[1]] = inside
    return out


def _networks(
    start: Path | None, seed: int, *, taught: bool
) -> tuple[DualTwoStream, DualTwoStream | None, ModelCard]:
    """A student to train with its card, and a teacher where it starts from nothing and is to be taught."""
    import torch

    from csakd_geo.models import DualTwoStream, ModelCard, NetworkConfig, Normalisation

    if start is not None:
        model = load_model(start)
        return model.network, None, model.card
    torch.manual_seed(seed)  # the first weights are drawn below
    k = COMPONENTS
    student = NetworkConfig(bands=k, msi_bands=k, features=32, growth=16, depths=(0, 2, 2, 1), student=True)
    teacher = NetworkConfig(bands=k, msi_bands=k, features=48, growth=24, depths=(1, 2, 2, 1))
    card = ModelCard(
        name="distilled",
        network=student,
        form="subspace",
        ratio=RATIOS,
        normalisation=Normalisation(rule="subspace-std"),
        base=CoupledMAP.name,
    )
    return DualTwoStream(student), DualTwoStream(teacher) if taught else None, card
