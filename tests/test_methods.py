"""Every method: better than interpolation, without seams, repeatable, and safe at the extremes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from simulated import Array, broad_bands, land, made_pair, rmse

from csakd_geo.errors import InputError
from csakd_geo.methods import METHODS, get_method, method_table
from csakd_geo.methods.base import Fitted, Method
from csakd_geo.methods.cnmf import CNMF
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.methods.estimates import CoupledMAP
from csakd_geo.methods.linear import predict, regress
from csakd_geo.methods.subspace import find_subspace, pair_subspace
from csakd_geo.models.card import ModelCard
from csakd_geo.models.checkpoint import save_model
from csakd_geo.models.config import NetworkConfig
from csakd_geo.models.network import DualTwoStream
from csakd_geo.pair import Block, Pair, degrade_pair
from csakd_geo.response import Response, estimate_response
from csakd_geo.threads import one_blas_thread
from csakd_geo.tiling import TilePlan

NAMES = list(METHODS)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with one_blas_thread():
        yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Case:
    """A made pair, what was found in it, and the truth."""

    pair: Pair
    response: Response
    truth: Array

    @property
    def hsi(self) -> Array:
        return self.pair.blocks[0].hsi

    @property
    def msi(self) -> Array:
        return self.pair.blocks[0].msi


def case(truth: Array, **options: object) -> Case:
    pair, cropped, _ = made_pair(truth, **options)  # type: ignore[arg-type]
    return Case(pair, estimate_response(pair), cropped)


@lru_cache(maxsize=1)
def plain() -> Case:
    return case(land(bands=24, height=144, width=144), dy=0.4, dx=-0.7, fwhm=4.4)


@cache
def fit(name: str) -> Fitted:
    return METHODS[name].fit(plain().pair, plain().response)


@cache
def whole(name: str) -> Array:
    return METHODS[name].apply(fit(name), plain().hsi, plain().msi)


def in_tiles(method: Method, fitted: Fitted, hsi: Array, msi: Array, *, ratio: int, tile: int) -> Array:
    plan = TilePlan(hsi.shape[1], hsi.shape[2], ratio, tile, tile, fitted.halo)
    out = np.full((len(hsi), *msi.shape[1:]), np.nan, np.float32)
    for part in plan.tiles(plan.frame):
        fine, kept = part.window.scaled(ratio), part.kept.scaled(ratio)
        fused = method.apply(fitted, hsi[:, *part.window.slices()], msi[:, *fine.slices()])
        out[:, *kept.slices()] = fused[:, *kept.slices(fine)]
    return out


def sam(fused: Array, truth: Array) -> float:
    cosine = (fused * truth).sum(0) / (np.linalg.norm(fused, axis=0) * np.linalg.norm(truth, axis=0))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())


def test_the_registry() -> None:
    assert NAMES == ["bicubic", "regression", "gsa", "mtf-glp", "cnmf", "subspace-map", "coupled-map"]
    for name, method in METHODS.items():
        assert get_method(name) is method
        assert method.name == name
        assert isinstance(method, Method)
    table = method_table()
    assert [row[0] for row in table] == [*NAMES, "csakd"]
    assert all(title and source for _, title, source in table)
    with pytest.raises(InputError, match=r"no method 'kriging'; known: bicubic, regression"):
        get_method("kriging")
    with pytest.raises(InputError, match="'csakd' needs a model"):
        get_method("csakd")


@pytest.mark.parametrize("name", NAMES)
def test_shape_type_and_no_nan(name: str) -> None:
    fused = whole(name)
    assert fused.shape == plain().truth.shape
    assert fused.dtype == np.float32
    assert np.isfinite(fused).all()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "bicubic"])
def test_fusing_beats_interpolating(name: str) -> None:
    truth = plain().truth
    assert rmse(whole(name), truth) < 0.6 * rmse(whole("bicubic"), truth)
    assert sam(whole(name), truth) < 0.9 * sam(whole("bicubic"), truth)


def test_the_maps_beat_their_priors() -> None:
    truth = plain().truth
    assert rmse(whole("subspace-map"), truth) < 0.95 * rmse(whole("gsa"), truth)
    assert rmse(whole("coupled-map"), truth) < 0.95 * min(rmse(whole(n), truth) for n in ("gsa", "cnmf"))
    assert rmse(whole("coupled-map"), truth) <= 1.02 * rmse(whole("subspace-map"), truth)


def test_bicubic_ignores_the_msi() -> None:
    method, c = METHODS["bicubic"], plain()
    np.testing.assert_array_equal(method.apply(fit("bicubic"), c.hsi, 0 * c.msi), whole("bicubic"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tile", [8, 20])
def test_tiles_are_the_whole(name: str, tile: int) -> None:
    c = plain()
    tiled = in_tiles(METHODS[name], fit(name), c.hsi, c.msi, ratio=4, tile=tile)
    assert rmse(tiled, whole(name)) <= 1e-5 * float(np.sqrt(np.square(whole(name)).mean()))
    assert np.abs(tiled - whole(name)).max() <= 1e-3 * whole(name).max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("ratio", "fwhm", "dy", "side"), [(2, 1.6, 0.45, 60), (3, 0.7, -0.4, 48), (2, 0.5, 1.4, 60)]
)
def test_tiles_are_the_whole_for_wide_narrow_and_displaced_psfs(
    name: str, ratio: int, fwhm: float, dy: float, side: int
) -> None:
    # wide: the inverse of the PSF reaches far; displaced: interpolation looks further
    c = case(
        land(bands=12, height=side * ratio, width=side * ratio, seed=ratio),
        ratio=ratio,
        fwhm=fwhm * ratio,
        dy=dy * ratio,
    )
    method = METHODS[name]
    fitted = method.fit(c.pair, c.response)
    at_once = method.apply(fitted, c.hsi, c.msi)
    tiled = in_tiles(method, fitted, c.hsi, c.msi, ratio=ratio, tile=8)
    assert rmse(tiled, at_once) <= 1e-4 * float(np.sqrt(np.square(at_once).mean()))


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_fit_gives_the_same_cube(name: str) -> None:
    data = fit(name).to_bytes()
    again = Fitted.from_bytes(data)
    assert again.to_bytes() == data
    assert (again.method, again.psf, again.halo) == (name, fit(name).psf, fit(name).halo)
    part = np.s_[:, :12, :12], np.s_[:, :48, :48]
    hsi, msi = plain().hsi[part[0]], plain().msi[part[1]]
    method = METHODS[name]
    np.testing.assert_array_equal(method.apply(again, hsi, msi), method.apply(fit(name), hsi, msi))


@pytest.mark.parametrize("name", NAMES)
def test_two_fits_are_one(name: str) -> None:
    small = case(land(bands=10, height=48, width=48))
    one, two = (METHODS[name].fit(small.pair, small.response) for _ in range(2))
    assert one.to_bytes() == two.to_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_apply_leaves_its_inputs_alone(name: str) -> None:
    c = plain()
    hsi, msi = c.hsi[:, :8, :8].copy(), c.msi[:, :32, :32].copy()
    before = fit(name).to_bytes()
    METHODS[name].apply(fit(name), hsi, msi)
    np.testing.assert_array_equal(hsi, c.hsi[:, :8, :8])
    np.testing.assert_array_equal(msi, c.msi[:, :32, :32])
    assert fit(name).to_bytes() == before


EXTREMES: dict[str, tuple[tuple[int, int, int], dict[str, object]]] = {
    "one MSI band": ((12, 64, 64), {"srf": broad_bands(1, 12)}),
    "two HSI bands": ((2, 64, 64), {"srf": broad_bands(2, 2, width=0.8)}),
    "fewer bands than components": ((6, 64, 64), {}),
    "ratio 2": ((12, 40, 40), {"ratio": 2}),
    "ratio 3": ((12, 48, 48), {"ratio": 3}),
    "ratio 10": ((12, 160, 160), {"ratio": 10}),
    "5 x 5 HSI pixels": ((12, 20, 20), {}),
    "5 x 5 HSI pixels at ratio 10": ((12, 50, 50), {"ratio": 10}),
    "a strip": ((12, 16, 120), {}),
    "other units": ((12, 64, 64), {"gain": 1000.0, "offset": -200.0}),
    "no noise": ((12, 64, 64), {"snr": (None, None)}),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes(name: str, extreme: str) -> None:
    shape, options = EXTREMES[extreme]
    c = case(land(*shape, seed=5), **options)
    method = METHODS[name]
    fitted = method.fit(c.pair, c.response)
    fused = method.apply(fitted, c.hsi, c.msi)
    assert fused.shape == c.truth.shape
    assert np.isfinite(fused).all()
    assert np.isfinite(fitted.halo)
    # whatever there is to learn from, the result stays near what interpolation gives
    bicubic = METHODS["bicubic"].apply(METHODS["bicubic"].fit(c.pair, c.response), c.hsi, c.msi)
    assert rmse(fused, c.truth) < 1.3 * rmse(bicubic, c.truth)


def test_a_darker_msi_than_zero_still_helps_cnmf() -> None:
    # radiances minus a path term: what a response with a negative offset looks like
    truth = land(bands=12, height=96, width=96, seed=6)
    near, far = case(truth), case(truth, gain=2.0, offset=-3.0)
    errors = []
    for c in (near, far):
        fitted = CNMF().fit(c.pair, c.response)
        errors.append(rmse(CNMF().apply(fitted, c.hsi, c.msi), truth))
    assert errors[1] < 1.3 * errors[0]


def test_a_masked_half_is_not_learned_from() -> None:
    c = case(land(bands=12, height=96, width=96, seed=7))
    block = c.pair.blocks[0]
    valid = block.valid.copy()
    valid[:, :10] = False
    hsi = block.hsi.copy()
    hsi[:, :, :10] = np.median(hsi, axis=(1, 2))[:, None, None]
    masked = replace(c.pair, blocks=(replace(block, hsi=hsi, valid=valid),))
    for name in ("regression", "coupled-map"):
        method = METHODS[name]
        fitted = method.fit(masked, estimate_response(masked))
        fused = method.apply(fitted, hsi, block.msi)
        assert np.isfinite(fused).all()
        there = np.s_[:, :, 64:]
        clean = method.apply(method.fit(c.pair, c.response), c.hsi, c.msi)
        assert rmse(fused[there], c.truth[there]) < 1.2 * rmse(clean[there], c.truth[there])


def test_the_damage_of_a_saved_fit_is_told() -> None:
    data = fit("regression").to_bytes()
    for broken in (b"", b"nonsense", data[: len(data) // 2], data[:-10]):
        with pytest.raises(InputError, match="saved fit is damaged"):
            Fitted.from_bytes(broken)


def test_regress_is_least_squares_with_an_intercept() -> None:
    rng = np.random.default_rng(0)
    x, slope, shift = rng.random((3, 500)), rng.random((2, 3)), np.array([4.0, -1.0])
    y = slope @ x + shift[:, None] + 0.01 * rng.standard_normal((2, 500))
    expected, *_ = np.linalg.lstsq(np.vstack([x, np.ones(500)]).T, y.T, rcond=None)
    np.testing.assert_allclose(regress(x, y), expected.T, atol=1e-4)
    np.testing.assert_allclose(
        predict(expected.T, x.reshape(3, 20, 25)),
        (slope @ x).reshape(2, 20, 25) + shift[:, None, None],
        atol=0.05,
    )
    twins = np.vstack([x, x[:1]])  # collinear inputs
    assert np.isfinite(regress(twins, y)).all()
    assert np.abs(regress(twins, y)).max() < 10


def test_the_subspace_is_orthonormal_where_noise_is_white() -> None:
    rng = np.random.default_rng(0)
    noise = rng.uniform(0.01, 1, 30)
    spectra = rng.random((30, 6)) @ rng.random((6, 400)) + noise[:, None] * rng.standard_normal((30, 400))
    found = find_subspace(spectra, noise, 8)
    white = found.basis / noise[:, None]
    np.testing.assert_allclose(white.T @ white, np.eye(8), atol=1e-10)
    np.testing.assert_allclose(found.inverse @ found.basis, np.eye(8), atol=1e-10)
    # the same plane as an SVD finds, with its singular values
    centred = (spectra - spectra.mean(1, keepdims=True)) / noise[:, None]
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(white @ white.T, u[:, :8] @ u[:, :8].T, atol=1e-9)
    np.testing.assert_allclose(found.deviation, s[:8] / np.sqrt(400), rtol=1e-9)
    cube = spectra.reshape(30, 20, 20)
    scores = found.project(cube)
    assert scores.shape == (8, 20, 20)
    np.testing.assert_allclose(scores.mean((1, 2)), 0, atol=1e-9)
    np.testing.assert_allclose(found.project(found.expand(scores)), scores, atol=1e-9)


@pytest.mark.parametrize("pixels", [36, 400])
def test_directions_in_which_nothing_but_noise_varies_are_left_out(pixels: int) -> None:
    c = plain()
    rng = np.random.default_rng(pixels)
    side, bands = int(np.sqrt(pixels)), len(c.response.noise)
    ends = rng.normal(0, 8, (bands, 6)) * c.response.noise[:, None]
    spectra = 1000 + ends @ rng.standard_normal((6, pixels))
    spectra += c.response.noise[:, None] * rng.standard_normal((bands, pixels))
    block = Block(
        spectra.reshape(bands, side, side),
        np.ones((len(c.msi), side * c.pair.ratio, side * c.pair.ratio)),
        np.ones((side, side), bool),
    )
    made = replace(c.pair, blocks=(block,))
    assert 6 <= len(pair_subspace(made, c.response, components=14).deviation) <= 7
    assert len(pair_subspace(made, c.response, components=5).deviation) == 5


def test_a_prior_is_tried_one_level_down_and_the_better_one_weighs_more() -> None:
    c = plain()
    lower, truths = degrade_pair(c.pair, c.response.psf)
    assert truths[0].shape[1:] == lower.blocks[0].msi.shape[1:]
    fitted = fit("coupled-map")
    blend = fitted.arrays["blend"]
    np.testing.assert_allclose(blend.sum(0), 1, rtol=1e-6)
    assert (blend >= 0).all()
    errors = []
    for prior in CoupledMAP().priors:
        fused = prior.apply(fitted.inner(prior.name), lower.blocks[0].hsi, lower.blocks[0].msi)
        first = fitted.arrays["inverse"][0]
        errors.append(rmse(np.tensordot(first, fused, axes=1), np.tensordot(first, truths[0], axes=1)))
    assert (blend[0, 0] > blend[1, 0]) == (errors[0] < errors[1])


@pytest.mark.parametrize("statistics", ["scene", "tile"])
def test_a_network_refines_its_base_in_tiles_as_in_the_whole(tmp_path: Path, statistics: str) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(bands=10, msi_bands=10, features=8, growth=4, depths=(1, 1, 1, 1))
    network = DualTwoStream(config)
    with torch.no_grad():
        network.last.weight.mul_(1000)  # untrained, but loud
    path = tmp_path / "model.safetensors"
    save_model(path, network, ModelCard(name="m", network=config, form="subspace", base="coupled-map"))
    c = case(land(bands=12, height=240, width=240, seed=8), ratio=3, fwhm=4.0, dy=0.6)
    method = CSAKD(path, statistics=statistics)
    fitted = method.fit(c.pair, c.response)
    at_once = method.apply(fitted, c.hsi, c.msi)
    base = CoupledMAP().apply(fitted.inner("coupled-map"), c.hsi, c.msi)
    assert isinstance(method, Method)
    assert at_once.shape == c.truth.shape
    assert np.isfinite(at_once).all()
    changed = rmse(at_once, base)
    assert changed > 1e-4
    tiled = in_tiles(method, fitted, c.hsi, c.msi, ratio=3, tile=20)
    assert 20 + 2 * fitted.halo < 80, "tiles see all of the scene"
    off = rmse(tiled, at_once) / float(np.sqrt(np.square(at_once).mean()))
    if statistics == "scene":
        assert off <= 1e-5
        assert rmse(tiled, at_once) < 0.01 * changed
        again = Fitted.from_bytes(fitted.to_bytes())
        np.testing.assert_array_equal(method.apply(again, c.hsi, c.msi), at_once)
    else:
        assert off > 1e-6  # attention of a tile is not that of the scene
