"""Losses on values worked out by hand, examples, and a short training that may not make things worse."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from simulated import axes, land, made_pair, rmse

from csakd_geo.errors import GridError, ModelError, SpectralError
from csakd_geo.methods.estimates import CoupledMAP
from csakd_geo.methods.subspace import pair_subspace
from csakd_geo.models.card import ModelCard, Normalisation
from csakd_geo.models.config import NetworkConfig
from csakd_geo.models.network import DualTwoStream
from csakd_geo.response import estimate_response
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis
from csakd_geo.threads import one_blas_thread
from csakd_geo.train import distill
from csakd_geo.train.distill import Settings, distil
from csakd_geo.train.examples import Example, expand, make_examples, wald_examples
from csakd_geo.train.heldout import held_out_error
from csakd_geo.train.losses import LossWeights, beba_loss, distilled, sam_loss, supervised
from csakd_geo.train.variation import Variation, vary


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with one_blas_thread():
        yield
    torch.set_num_threads(threads)


def spectra(*pixels: list[float]) -> torch.Tensor:
    """One image of one row, (1, band, 1, x)."""
    return torch.tensor(pixels, dtype=torch.float64).T[None, :, None, :]


# losses


def test_sam_by_hand() -> None:
    truth = spectra([1, 0], [3, 4])
    output = spectra([1, 1], [4, 3])
    assert sam_loss(output, truth).item() == pytest.approx(1 - (math.sqrt(0.5) + 24 / 25) / 2)
    assert sam_loss(truth, truth).item() == pytest.approx(0, abs=1e-12)


def test_sam_sees_spectra_and_not_runs_of_pixels() -> None:
    truth = torch.rand(2, 5, 6, 7, dtype=torch.float64) + 0.1
    brightness = torch.rand(2, 1, 6, 7, dtype=torch.float64) + 0.5
    assert sam_loss(brightness * truth, truth).item() == pytest.approx(0, abs=1e-12)
    order = torch.randperm(42)
    output = torch.rand_like(truth)
    moved = [x.flatten(2)[..., order].reshape(truth.shape) for x in (output, truth)]
    assert sam_loss(*moved).item() == pytest.approx(sam_loss(output, truth).item())


def test_sam_clips_at_zero() -> None:
    assert sam_loss(spectra([1, -5]), spectra([1, 0])).item() == pytest.approx(0, abs=1e-9)
    black = spectra([0, 0]).requires_grad_()
    loss = sam_loss(black, spectra([1, 2]))
    loss.backward()
    assert loss.item() == pytest.approx(1)
    assert black.grad is not None
    assert torch.isfinite(black.grad).all()


def test_beba_by_hand() -> None:
    truth, output = spectra([1, 0.1], [1, 0.1]), spectra([1.2, 0.1], [1.0, 0.3])
    # smooth L1 of an error of 0.2 is 0.02; each band has it in one of two pixels
    energy = [1.0, 0.01]
    expected = sum(0.01 / (e + 0.1 * 0.505) for e in energy) / 2
    assert beba_loss(output, truth).item() == pytest.approx(expected)


def test_beba_gives_dark_bands_their_weight() -> None:
    truth = torch.full((1, 2, 4, 4), 0.5, dtype=torch.float64)
    truth[:, 1] = 0.05
    bright, dark = truth.clone(), truth.clone()
    bright[:, 0] += 0.05
    dark[:, 1] += 0.05
    assert beba_loss(dark, truth) > 5 * beba_loss(bright, truth)
    order = torch.tensor([1, 0])
    assert beba_loss(dark[:, order], truth[:, order]).item() == pytest.approx(beba_loss(dark, truth).item())
    assert torch.isfinite(beba_loss(truth, torch.zeros_like(truth)))


def test_terms_and_switches_against_the_truth() -> None:
    truth, output = spectra([1, 2], [3, 1]), spectra([1.5, 2], [3, 3])
    l1 = (0.5 * 0.5**2 + 0 + 0 + (2 - 0.5)) / 4
    only = LossWeights(l1=1, sam=0, beba=0)
    assert supervised(output, truth, only).item() == pytest.approx(l1)
    full = LossWeights(l1=2, sam=0.3, beba=0.7)
    expected = 2 * l1 + 0.3 * sam_loss(output, truth).item() + 0.7 * beba_loss(output, truth).item()
    assert supervised(output, truth, full).item() == pytest.approx(expected)


def test_terms_and_switches_against_the_teacher() -> None:
    output, teacher = spectra([1.0, 2.0]).requires_grad_(), spectra([1.5, 2.0]).requires_grad_()
    f = torch.tensor([[[[0.3]]]], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([[[[-1.0]]]], dtype=torch.float64, requires_grad=True)
    goal = 1 / (1 + math.exp(1))
    student = 1 / (1 + math.exp(-0.3))
    entropy = -(goal * math.log(student) + (1 - goal) * math.log(1 - student))
    response = 0.5 * 0.25 / 2
    terms = distilled(output, f, teacher, t)
    assert terms[0].item() == pytest.approx(response)
    assert terms[1].item() == pytest.approx(entropy)
    loss = terms[0] + terms[1]
    loss.backward()
    assert output.grad is not None
    assert f.grad is not None
    assert teacher.grad is None  # the teacher learns nothing from its student
    assert t.grad is None


# examples


def card(**options: object) -> ModelCard:
    network = NetworkConfig(
        bands=10, msi_bands=10, features=8, growth=4, depths=(1, 1, 1, 1), fuser=3, residual=True
    )
    return ModelCard(
        name="tiny",
        network=network,
        form="subspace",
        base="coupled-map",
        normalisation=Normalisation(rule="subspace-std"),
        **options,  # type: ignore[arg-type]
    )


@lru_cache(maxsize=4)
def examples(seed: int) -> tuple[Example, ...]:
    pair, truth, _ = made_pair(land(bands=12, height=48, width=48, seed=seed), snr=(30, 35))
    return tuple(make_examples(card(), pair, (truth,), estimate_response(pair)))


def test_an_example_holds_the_scene_in_the_networks_units() -> None:
    pair, truth, _ = made_pair(land(bands=16, height=64, width=64, seed=3))
    (example,) = make_examples(card(), pair, (truth,), estimate_response(pair))
    assert example.hsi.shape == (10, 16, 16)
    assert example.msi.shape == example.base.shape == (10, 64, 64)
    kept = len(pair_subspace(pair, estimate_response(pair)).deviation)
    assert 5 <= kept < 10  # shares of six materials sum to 1
    np.testing.assert_allclose(example.hsi[:kept].std((1, 2)), 1, rtol=0.05)
    for zeros in (example.hsi, example.msi, example.base):
        assert not zeros[kept:].any()
    scale = np.percentile(pair.blocks[0].hsi, 99.5)
    np.testing.assert_allclose(example.truth, truth / scale, rtol=1e-5)
    # the base is close to the truth, and these coefficients hold nearly all of the HSI
    assert rmse(expand(example, example.base), example.truth) < 0.3 * example.truth.std()
    low = expand(replace(example, rest=None), example.hsi) * scale
    assert rmse(low, pair.blocks[0].hsi) < 0.05 * pair.blocks[0].hsi.std()
    # the MSI alone, as coefficients, is the regression
    first = np.corrcoef(example.msi[0].ravel(), example.base[0].ravel())[0, 1]
    assert first > 0.9


def test_fewer_bands_than_coefficients_are_padded() -> None:
    pair, truth, _ = made_pair(land(bands=6, height=64, width=64))
    (example,) = make_examples(card(), pair, (truth,), estimate_response(pair))
    assert (example.hsi[6:] == 0).all()
    assert (example.weight[:, 6:] == 0).all()
    assert expand(example, example.base).shape == truth.shape


def test_examples_of_a_pair_itself_take_its_hsi_as_truth() -> None:
    pair, _, _ = made_pair(land(bands=16, height=96, width=96))
    (example,) = wald_examples(card(), pair, estimate_response(pair))
    scale = example.truth[0, 0, 0] / pair.blocks[0].hsi[0, 0, 0]
    np.testing.assert_allclose(example.truth, pair.blocks[0].hsi * scale, rtol=1e-5)
    assert example.usable.shape == (6, 6)


def test_models_that_do_not_fit_are_refused() -> None:
    pair, truth, _ = made_pair(land(bands=16, height=64, width=64))
    response = estimate_response(pair)
    bands = ModelCard(name="b", network=NetworkConfig(bands=16, msi_bands=4, residual=False))
    with pytest.raises(ModelError, match="'b' states no scene-percentile normalisation"):
        make_examples(bands, pair, (truth,), response)
    small, _, _ = made_pair(land(bands=16, height=24, width=24), ratio=8)
    with pytest.raises((GridError, SpectralError), match=r"too small|at least"):
        wald_examples(card(), small, response)


def test_what_a_network_of_few_coefficients_does_not_see_comes_from_its_base() -> None:
    pair, truth, _ = made_pair(land(bands=30, height=96, width=96))
    response, block = estimate_response(pair), pair.blocks[0]
    few = replace(card().network, bands=4, msi_bands=4)
    (example,) = make_examples(card().model_copy(update={"network": few}), pair, (truth,), response)
    assert example.base is not None
    base = CoupledMAP().apply(CoupledMAP().fit(pair, response), block.hsi, block.msi)
    scale = example.truth[0, 0, 0] / truth[0, 0, 0]
    np.testing.assert_allclose(expand(example, example.base) / scale, base, atol=1e-4 * base.max())


def gapped_axis() -> SpectralAxis:
    """AVIRIS without the bands of water vapour."""
    centres = np.linspace(365, 2500, 120)
    wet = ((centres > 1330) & (centres < 1480)) | ((centres > 1780) & (centres < 2010))
    return SpectralAxis.build(centres[~wet])


@pytest.mark.parametrize(
    "axis", [gapped_axis(), axes(40, 1)[0], SpectralAxis.build(np.linspace(1100, 2300, 40))]
)
def test_every_random_observation_is_a_pair(axis: SpectralAxis) -> None:
    truth = land(bands=axis.size, height=40, width=36)
    seen = set()
    for seed in range(60):
        pair, kept = vary(truth, axis, Variation(), np.random.default_rng(seed))
        block = pair.blocks[0]
        assert kept.shape[1:] == block.msi.shape[1:]
        assert len(kept) == len(block.hsi) == pair.hsi_axis.size
        assert len(block.msi) == pair.msi_axis.size >= 1
        assert np.isfinite(block.hsi).all()
        assert np.isfinite(block.msi).all()
        # the HSI is the truth seen coarsely: its means agree
        np.testing.assert_allclose(block.hsi.mean((1, 2)), kept.mean((1, 2)), rtol=0.15)
        seen.add((pair.ratio, len(block.msi), len(kept)))
    assert len({ratio for ratio, _, _ in seen}) == 5
    assert len(seen) > 10


def test_observations_repeat_with_their_seed() -> None:
    truth = land(bands=40, height=40, width=40)
    one, two = (vary(truth, axes(40, 1)[0], Variation(), np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(one[0].blocks[0].msi, two[0].blocks[0].msi)
    np.testing.assert_array_equal(one[1], two[1])


def test_the_sensors_of_a_variation_exist() -> None:
    assert all(get_sensor(name).axis.size for name in Variation().sensors)


# training


def network(seed: int = 0, features: int = 8) -> DualTwoStream:
    torch.manual_seed(seed)
    return DualTwoStream(replace(card().network, features=features, growth=features // 2))


def quick(**options: object) -> Settings:
    return Settings(minutes=100, batch=2, crop=6, rate=2e-3, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("features", [None, 12])
def test_a_short_training_helps_or_returns_the_start(features: int | None) -> None:
    student = network()
    teacher = None if features is None else network(1, features)
    shares: list[float] = []
    outcome = distil(
        student,
        teacher,
        examples(0),
        examples(1),
        quick(steps=40),
        progress=lambda share, best: shares.append(share),
    )
    assert outcome.steps == 40
    assert outcome.best <= outcome.start
    assert outcome.best == min(error for _, error in outcome.history)
    # the weights that are left are the best ones
    assert held_out_error(student, examples(1)) == pytest.approx(outcome.best, rel=1e-5)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert not student.training


def test_training_on_the_scene_itself_learns() -> None:
    student = network()
    outcome = distil(student, None, examples(0), examples(0), quick(steps=40))
    assert outcome.start == pytest.approx(1, abs=0.1)  # training begins at the base
    assert outcome.best < 0.995
    assert outcome.best < outcome.start - 0.005


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_the_start_is_kept_where_nothing_beats_it() -> None:
    student = network()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    wild = Settings(minutes=100, steps=4, rate=0.1, batch=1, crop=6)
    outcome = distil(student, None, examples(0), examples(1), wild)
    assert outcome.best == outcome.start
    for key, value in student.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_a_seed_repeats_a_run_and_another_does_not() -> None:
    def run(seed: int) -> tuple[tuple[float, ...], torch.Tensor]:
        student = network()
        outcome = distil(student, network(1), examples(0), examples(0), quick(steps=6, seed=seed))
        return tuple(error for _, error in outcome.history), student.last.weight.detach().clone()

    (errors, weights), (again, same), (other, _) = run(0), run(0), run(1)
    assert errors == again
    torch.testing.assert_close(weights, same, rtol=0, atol=0)
    assert other != errors


def test_a_running_average_of_the_weights_is_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    decays: list[float] = []
    follow = distill._follow

    def watch(average: DualTwoStream, student: DualTwoStream, decay: float) -> None:
        seen.append(student.last.weight.detach().clone())
        decays.append(decay)
        follow(average, student, decay)

    monkeypatch.setattr(distill, "_follow", watch)
    student = network()
    expected = student.last.weight.detach().clone()
    outcome = distil(student, None, examples(0), examples(0), quick(steps=20, ema=0.6))
    assert decays[:3] == [pytest.approx(n / (n + 9)) for n in (1, 2, 3)]
    assert decays[-1] == 0.6
    best = min(range(len(outcome.history)), key=lambda k: outcome.history[k][1])
    assert best > 0
    for weight, decay in zip(seen[:best], decays, strict=False):
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(student.last.weight.detach(), expected)
    assert held_out_error(student, examples(0)) == pytest.approx(outcome.best, rel=1e-5)


def test_the_clock_ends_a_run() -> None:
    outcome = distil(network(), None, examples(0), examples(1), Settings(minutes=0.01, crop=6, batch=1))
    assert 1 <= outcome.steps < 1000
    assert outcome.seconds < 10
    done = distil(network(), None, examples(0), examples(1), Settings(minutes=0, crop=8))
    assert done.steps == 0
    assert done.best == done.start


def test_held_out_error_by_its_definition() -> None:
    (example,) = examples(1)
    usable = example.usable.copy()
    usable[:, 8:] = False
    example = replace(example, usable=usable)
    student = network().eval()
    with torch.no_grad():
        output = student(*(torch.from_numpy(x[None]) for x in (example.hsi, example.msi, example.base)))[0]
    errors = []
    for coefficients in (output[0].numpy(), example.base):
        fused, truth = expand(example, coefficients)[:, :, :32], example.truth[:, :, :32]
        cosine = (fused * truth).sum(0) / np.linalg.norm(fused, axis=0) / np.linalg.norm(truth, axis=0)
        errors.append((rmse(fused, truth), np.arccos(np.clip(cosine, -1, 1)).mean()))
    expected = (errors[0][0] / errors[1][0] + errors[0][1] / errors[1][1]) / 2
    assert held_out_error(student, [example]) == pytest.approx(expected, rel=1e-4)


def test_what_may_not_be_learned_from_is_not() -> None:
    (example,) = examples(0)
    usable = example.usable.copy()
    usable[:, 9:] = False
    lie = example.truth.copy()
    lie[:, :, 36:] = 50.0

    def run(truth: np.ndarray) -> tuple[float, ...]:
        told = replace(example, truth=truth, usable=usable)
        return tuple(e for _, e in distil(network(), None, [told], [told], quick(steps=5)).history)

    assert run(lie) == pytest.approx(run(example.truth), rel=1e-6)


def broken(example: Example, name: str) -> Example:
    array = getattr(example, name).copy()
    array[:, :, :] = np.nan
    return replace(example, **{name: array}, **({"reference": array} if name == "base" else {}))


@pytest.mark.parametrize("name", ["hsi", "msi", "base", "truth"])
def test_nan_is_told(name: str) -> None:
    bad = [broken(examples(0)[0], name)]
    with pytest.raises(ModelError, match="training loss is not a number"):
        distil(network(), None, bad, examples(1), quick(steps=3))
    with pytest.raises(ModelError, match="held-out error is not a number"):
        distil(network(), None, examples(1), bad, quick(steps=3))


def test_nothing_to_learn_from_is_told() -> None:
    for learn, held in (((), examples(0)), (examples(0), ())):
        with pytest.raises(ModelError, match="one of them is empty"):
            distil(network(), None, learn, held, quick(steps=3))
    blind = replace(examples(1)[0], usable=np.zeros((12, 12), bool))
    with pytest.raises(ModelError, match="no usable pixel"):
        distil(network(), None, examples(0), [blind], quick(steps=3))
