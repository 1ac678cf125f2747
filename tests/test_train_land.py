"""Land made from other land: turned, seen from higher up, joined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

from csakd_geo import adapt
from csakd_geo.choose import held_out
from csakd_geo.degrade import PSF, degrade, finer, observe
from csakd_geo.options import make_options
from csakd_geo.pair import Block, Pair
from csakd_geo.response import Response, estimate_response
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis, gaussian_response
from csakd_geo.train import own
from csakd_geo.train.archive import RasterArchive
from csakd_geo.train.examples import Example, expand
from csakd_geo.train.land import join, turn
from csakd_geo.train.variation import Variation, vary

AXIS = SpectralAxis.build(np.linspace(420, 980, 24))
QUIET = Variation(ratios=(4,), sensors=("sentinel2-10m",), random_share=0, vnir=0, snr_hsi=None, snr_msi=None)


class Told:
    """A generator whose numbers are told."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    def uniform(self, *_: float) -> float:
        return self.numbers.pop(0)


def waves(shape: tuple[int, int], length: float, bands: int = 2) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]] - (np.array(shape) - 1)[:, None, None] / 2
    plane = np.cos(2 * np.pi * x / length) * np.cos(2 * np.pi * y / length)
    return np.stack([(k + 1) * plane for k in range(bands)]).astype(np.float32)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_are_exact(quarters: int) -> None:
    cube = np.random.default_rng(0).random((3, 20, 20)).astype(np.float32)
    found = turn(cube, Told(1.0, quarters * np.pi / 2), coarser=1.0)
    expected = [np.rot90(cube, sign * quarters, axes=(1, 2)) for sign in (1, -1)]
    assert min(np.abs(found - one).max() for one in expected) < 1e-5


def test_larger_pixels_see_more_of_the_land_and_less_of_its_detail() -> None:
    shape, inside = (60, 70), np.s_[:, 11:-11, 13:-13]  # the rest is mirrored
    found = turn(waves(shape, 12.0), Told(1.5, 0.0), coarser=2.0)
    # waves of 12 pixels are waves of 8 larger ones, damped by what these blur more
    damping = np.exp(-((2 * np.pi / 12 * 0.425) ** 2) * (1.5**2 - 1))
    np.testing.assert_allclose(found[inside], damping * waves(shape, 8.0)[inside], atol=0.03)
    assert damping < 0.95


@given(st.integers(0, 1000), st.integers(9, 40), st.integers(9, 40), st.floats(1.0, 3.0))
def test_turned_land_keeps_shape_and_values(seed: int, height: int, width: int, coarser: float) -> None:
    flat = np.full((2, height, width), 7.0, np.float32)
    found = turn(flat, np.random.default_rng(seed), coarser=coarser)
    np.testing.assert_allclose(found, flat, rtol=1e-5)


def test_spectra_are_mixtures_of_the_land_s_own() -> None:
    rng = np.random.default_rng(1)
    mixtures = rng.random((2, 30, 30)).astype(np.float32)
    spectra = rng.random((24, 2)).astype(np.float32)
    one = turn(np.tensordot(spectra, mixtures, 1), np.random.default_rng(5), coarser=1.7)
    other = np.tensordot(spectra, turn(mixtures, np.random.default_rng(5), coarser=1.7), 1)
    np.testing.assert_allclose(one, other, atol=1e-4)


@given(st.integers(0, 1000))
def test_joined_land_lies_between_both(seed: int) -> None:
    one, other = np.zeros((3, 24, 30), np.float32), np.ones((3, 24, 30), np.float32)
    found = join(one, other, np.random.default_rng(seed))
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_array_equal(found[0], found[1])  # a pixel is one place in all bands
    assert 0.15 < found.mean() < 0.85


def test_patches_are_of_one_land_each_and_mixtures_are_even() -> None:
    one, other = np.zeros((1, 60, 60), np.float32), np.ones((1, 60, 60), np.float32)
    pure = [float(np.isin(join(one, other, np.random.default_rng(s)), (0, 1)).mean()) for s in range(200)]
    assert sum(share == 0 for share in pure) == pytest.approx(60, abs=20)  # mixed all over
    assert min(share for share in pure if share) > 0.2  # edges are soft in half of them
    assert sum(share == 1 for share in pure) == pytest.approx(70, abs=20)


def test_what_is_masked_turns_along() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((24, 80, 80)).astype(np.float32)
    truth[:, :40] = np.nan
    pair, kept = vary(
        truth, AXIS, replace(QUIET, turned=1.0, coarser=1.0, joined=0.0), np.random.default_rng(8)
    )
    valid = pair.blocks[0].valid
    assert np.isfinite(kept).all()
    assert 0.3 < valid.mean() < 0.5  # a half, less what saw the edge
    seen = valid.repeat(4, 0).repeat(4, 1)
    gone = np.median(truth[:, 40:], axis=(1, 2))  # what a masked pixel is filled with has no detail
    assert np.abs(kept - gone[:, None, None])[:, seen].mean() > 0.1
    assert np.abs(kept - gone[:, None, None])[:, ~seen].mean() < 0.1


def test_other_land_is_laid_over_what_both_cover() -> None:
    one, other = np.zeros((24, 60, 70), np.float32), np.ones((24, 70, 60), np.float32)
    ranges = replace(QUIET, turned=0.0, joined=1.0)
    pair, kept = vary(one, AXIS, ranges, np.random.default_rng(0), other=other)
    assert kept.shape == (24, 60, 60)
    assert 0.01 < kept.mean() < 0.99
    _, alone = vary(one, AXIS, replace(ranges, joined=0.0), np.random.default_rng(0), other=other)
    assert not alone.any()
    assert pair.blocks[0].hsi.shape == (24, 15, 15)


def raster(path: Path, value: float, axis: SpectralAxis) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=axis.size,
        height=48,
        width=48,
        dtype="float32",
        transform=from_origin(500000, 4600000, 10, 10),
        crs="EPSG:32633",
    ) as dst:
        dst.write(
            np.full((axis.size, 48, 48), value, np.float32)
            + np.random.default_rng(0).random((48, 48), np.float32)
        )
        for k, centre in enumerate(axis.wavelength):
            dst.update_tags(k + 1, wavelength=f"{centre:.2f}", wavelength_units="Nanometers")


def test_only_rasters_of_the_same_bands_are_joined(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif", 0.0, AXIS)
    raster(tmp_path / "b.tif", 100.0, AXIS)
    raster(tmp_path / "c.tif", 10000.0, AXIS.take(np.arange(20)))
    ranges = replace(QUIET, turned=0.0, joined=1.0)
    archive = RasterArchive.open([str(tmp_path)], ranges, window=40, least=40, uniform=False)
    joined = 0
    for seed in range(40):
        _, truth = archive.observe(np.random.default_rng(seed))
        low, high = float(truth.min()), float(truth.max())
        assert (low >= 9999) == (len(truth) == 20)
        assert high < 200 or low >= 9999
        joined += low < 50 < high
    assert joined > 5
    plain = replace(archive, variation=ranges.plain)
    for seed in range(20):
        _, truth = plain.observe(np.random.default_rng(seed))
        assert np.ptp(truth) < 2


def own_pair(side: int) -> Pair:
    rng = np.random.default_rng(4)
    maps = gaussian_filter(rng.random((5, 4 * side, 4 * side)), (0, 2, 2)).astype(np.float32)
    truth = np.tensordot(rng.random((24, 5)).astype(np.float32), maps, 1)
    bands = get_sensor("sentinel2-10m").axis
    srf = gaussian_response(bands, AXIS)
    hsi, msi = observe(truth, srf, psf=PSF.nominal(4), snr_hsi=40, snr_msi=40)
    return Pair((Block(hsi, msi, np.ones(hsi.shape[1:], bool)),), 4, AXIS, bands)


def own_lands(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, response: Response, kept: np.ndarray
) -> list[tuple[Block, np.ndarray, np.ndarray]]:
    """Observed land, its truth, and where it may be learned from."""
    made: list[tuple[Block, np.ndarray]] = []

    def look(card: object, lower: Pair, truths: tuple[np.ndarray, ...], _: Response) -> list[Example]:
        made.append((lower.blocks[0], truths[0]))
        empty = np.zeros((1, 1, 1), np.float32)
        return [Example(empty, empty, None, empty, empty, empty, empty, 4, lower.blocks[0].valid)]

    monkeypatch.setattr(own, "make_examples", look)
    monkeypatch.setattr(own, "estimate_response", lambda *_, **__: response)
    examples = own.own_examples(None, pair, response, [kept], count=12, seed=1)
    return [(*one, example.usable) for one, example in zip(made, examples, strict=True)]


def test_noise_that_averaging_takes_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = own_pair(60)
    response = estimate_response(pair)
    noise, misfit = np.linspace(0.01, 0.2, 24), np.array([0.1, 0.2, 0.3, 0.4])
    response = replace(response, noise=noise, misfit=misfit)
    lands = own_lands(monkeypatch, pair, response, np.ones((60, 60), bool))
    found = np.concatenate([(b.hsi - degrade(t, response.psf)).reshape(24, -1) for b, t, _ in lands], axis=1)
    averaged = np.prod([np.square(taps).sum() for taps in response.psf.taps()])
    assert averaged < 0.1
    np.testing.assert_allclose(found.std(1), noise * np.sqrt(1 - averaged), rtol=0.06)
    assert lands[0][0].msi.shape == (4, 60, 60)
    quiet = own_lands(
        monkeypatch, pair, replace(response, noise=0 * noise, misfit=0 * misfit), np.ones((60, 60), bool)
    )
    rough = np.concatenate(
        [(a.msi - b.msi).reshape(4, -1) for (a, _, _), (b, _, _) in zip(lands, quiet, strict=True)], axis=1
    )
    np.testing.assert_allclose(rough.std(1), 3**0.5 * misfit, rtol=0.03)


def test_what_is_held_out_or_masked_is_not_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = own_pair(60)
    response = estimate_response(pair)
    block = pair.blocks[0]
    kept = np.ones((60, 60), bool)
    kept[:, :20] = False
    hsi, valid = block.hsi.copy(), block.valid.copy()
    hsi[:, :, :20] = 1e4  # held out
    hsi[:, 50:] = -1e4  # masked
    valid[50:] = False
    marked = replace(pair, blocks=(Block(hsi, block.msi, valid),))
    seen = []
    for lower, truth, usable in own_lands(monkeypatch, marked, response, kept):
        fine = usable.repeat(4, 0).repeat(4, 1)
        assert np.abs(truth[:, fine]).max() < 450  # a fiftieth of 1e4, of each
        # a cubic spline goes a tenth of a step too far, and the step between both marks is 20000
        assert truth[:, lower.valid.repeat(4, 0).repeat(4, 1)].min() > -2500
        assert not (usable & ~lower.valid).any()
        seen.append(float(usable.mean()))
    assert max(seen) > 0.2


def test_what_is_judged_by_has_the_noise_too_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = own_pair(60)
    response = estimate_response(pair)
    noise, misfit = np.linspace(0.01, 0.2, 24), np.array([0.1, 0.2, 0.3, 0.4])
    seen: list[Block] = []

    def look(card: object, lower: Pair, truths: tuple[np.ndarray, ...], _: Response) -> list[Example]:
        seen.append(lower.blocks[0])
        np.testing.assert_array_equal(truths[0], pair.blocks[0].hsi)
        return []

    monkeypatch.setattr(own, "make_examples", look)
    monkeypatch.setattr(own, "estimate_response", lambda *_, **__: response)
    for strength in (0, 1):
        own.whole_examples(
            None, pair, replace(response, noise=strength * noise, misfit=strength * misfit), seed=2
        )
    quiet, noisy = seen
    block = pair.blocks[0]
    np.testing.assert_array_equal(quiet.hsi, degrade(block.hsi, response.psf))
    np.testing.assert_array_equal(quiet.msi, degrade(block.msi, response.psf))
    rough = (noisy.msi - quiet.msi).reshape(4, -1)
    np.testing.assert_allclose(rough.std(1), 3**0.5 * misfit, rtol=0.05)
    assert np.all((noisy.hsi - quiet.hsi).std((1, 2)) > 0.7 * noise)


def test_balanced_bands_have_equal_errors_and_the_same_answers() -> None:
    pair = own_pair(60)
    response = estimate_response(pair)
    _, _, card = adapt._networks(None, 0, taught=False)
    (example,) = own.whole_examples(card, pair, response, seed=0)
    even = own.balanced(example)
    error = np.sqrt(np.square(expand(example, example.reference) - example.truth).mean((1, 2)))
    assert error.max() > 1.5 * error.min()
    found = np.sqrt(np.square(expand(even, even.reference) - even.truth).mean((1, 2)))
    np.testing.assert_allclose(found, 1, rtol=1e-3)
    answer = np.random.default_rng(0).standard_normal(example.reference.shape).astype(np.float32)
    np.testing.assert_allclose(
        expand(even, answer) * error[:, None, None], expand(example, answer), rtol=1e-3, atol=1e-4
    )


def test_what_may_not_be_learned_from_weighs_no_band() -> None:
    pair = own_pair(60)
    _, _, card = adapt._networks(None, 0, taught=False)
    (example,) = own.whole_examples(card, pair, estimate_response(pair), seed=0)
    usable = example.usable.copy()
    usable[:5] = False
    truth = example.truth.copy()
    truth[3, :20] = 1e4
    marked = own.balanced(replace(example, usable=usable, truth=truth))
    plain = own.balanced(replace(example, usable=usable))
    np.testing.assert_array_equal(marked.weight, plain.weight)
    assert not np.array_equal(plain.weight, own.balanced(example).weight)


@pytest.mark.parametrize("held", [True, False])
def test_where_nothing_is_left_to_learn_from_or_to_hold_out_the_start_is_kept(held: bool) -> None:
    """Valid are the held-out cells alone, or all but these."""
    pair = own_pair(64)
    mask = finer(held_out((16, 16)), 4)
    block = replace(pair.blocks[0], valid=mask if held else ~mask)
    pair = replace(pair, blocks=(block,))
    said: list[str] = []
    options = make_options({"method": "csakd", "adapt_minutes": 1})
    networks = adapt.Networks(
        pair, estimate_response(pair), options, "cpu", lambda stage, share, words: said.append(words), None
    )
    assert networks.train(None) is None
    assert said == ["not possible: too few pixels are valid to learn from and to hold out"]
    assert networks.trained is None


def test_a_block_without_a_pixel_to_hold_out_does_not_end_the_training() -> None:
    pair = own_pair(64)
    block = pair.blocks[0]
    empty = replace(block, valid=~finer(held_out((16, 16)), 4))
    pair = replace(pair, blocks=(block, empty))
    card = adapt._networks(None, 0, taught=False)[2]
    learn, held = adapt.split_examples(card, pair, estimate_response(pair))
    assert learn
    assert [example.usable.any() for example in held] == [True]
