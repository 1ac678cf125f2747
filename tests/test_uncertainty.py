"""Deviations against errors that are known: by construction, or because the truth is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import rasterio
import simulated
from click.testing import CliRunner, Result
from scipy.ndimage import gaussian_filter

import csakd_geo
from csakd_geo.cli import main
from csakd_geo.degrade import PSF
from csakd_geo.engine.store import Store
from csakd_geo.errors import InputError
from csakd_geo.methods import get_method
from csakd_geo.pair import Pair
from csakd_geo.response import estimate_noise, estimate_response
from csakd_geo.stac import build_item
from csakd_geo.uncertainty import Uncertainty, fit_uncertainty, open_uncertainty
from csakd_geo.uncertainty.law import find_activity, fit_law

Array = np.ndarray[Any, Any]


def call(pair: made.Pair, target: Path, *args: str) -> Result:
    method = () if "--method" in args else ("--method", "coupled-map")
    return CliRunner().invoke(
        main, ["fuse", str(pair.hsi), str(pair.msi), "-o", str(target), *method, "--quiet", *args]
    )


def fitted(pair: Pair, name: str) -> tuple[Array, Uncertainty, Array]:
    """Fused cube, its uncertainty and its deviations."""
    block, method, response = pair.blocks[0], get_method(name), estimate_response(pair)
    fit = method.fit(pair, response)
    found = fit_uncertainty(pair, response, method, fit)
    return method.apply(fit, block.hsi, block.msi), found, found.sigma(found.activity(block.msi))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    return made.make_pair(tmp_path_factory.mktemp("pair"), bands=10, height=96, width=96)


def test_the_law_is_found_in_errors_that_follow_it() -> None:
    rng = np.random.default_rng(0)
    alpha, beta, noise = np.array([0.2, 1.0, 0.0]), np.array([1.0, 0.0, 0.5]), np.array([0.1, 0.3, 0.0])
    activity = rng.gamma(1.0, 1.0, 40_000)
    variance = alpha[:, None] + beta[:, None] * activity + noise[:, None]
    errors = rng.standard_normal(variance.shape) * np.sqrt(variance)
    a, b = fit_law(errors, activity, noise)
    np.testing.assert_allclose(a, alpha, atol=0.1)
    np.testing.assert_allclose(b, beta, atol=0.1)
    inside = np.abs(errors) <= 1.6449 * np.sqrt(a[:, None] + b[:, None] * activity + noise[:, None])
    np.testing.assert_allclose(inside.mean(1), 0.9, atol=0.01)


def test_heavy_tails_are_held_by_quantile_and_not_by_root_mean_square() -> None:
    rng = np.random.default_rng(1)
    errors = rng.standard_t(2.5, (1, 50_000))
    a, b = fit_law(errors, rng.random(50_000), np.zeros(1))
    sigma = np.sqrt(a[0] + b[0] * 0.5)
    assert np.mean(np.abs(errors) <= 1.6449 * sigma) == pytest.approx(0.9, abs=0.01)
    assert sigma < 0.9 * errors.std()


def test_activity_is_local_and_of_the_msi_alone() -> None:
    psf, rng = PSF.nominal(4), np.random.default_rng(2)
    msi = np.full((2, 64, 64), 5.0, np.float32)
    msi[:, :, 32:] += rng.standard_normal((2, 64, 32)).astype(np.float32)
    found = find_activity(msi, psf, np.array([1.0, 1.0]))
    assert found[:, :16].max() < 1e-9
    # white noise keeps nearly all of its unit variance above the PSF's reach
    assert 0.8 < found[:, 44:].mean() < 1.05
    np.testing.assert_allclose(find_activity(3 * msi, psf, np.array([3.0, 3.0])), found, rtol=1e-4, atol=1e-6)


def test_the_activity_of_a_window_with_its_halo_is_that_of_the_scene() -> None:
    psf, side = PSF.nominal(4), 96
    msi = np.random.default_rng(2).standard_normal((2, side, side)).astype(np.float32)
    found = Uncertainty(np.ones(1), np.ones(1), np.ones(2), psf, np.ones(1, bool), 1.0, True)
    halo = 4 * found.halo
    assert halo < 32
    part = found.activity(np.ascontiguousarray(msi[:, 32 - halo : 64 + halo, 32 - halo : 64 + halo]))
    # with two HSI pixels less around they differ by a ten-thousandth
    np.testing.assert_allclose(part[halo:-halo, halo:-halo], found.activity(msi)[32:64, 32:64], rtol=2e-6)


@pytest.mark.parametrize("method", ["regression", "coupled-map"])
@pytest.mark.parametrize("seed", [0, 3])
def test_nine_of_ten_truths_lie_in_the_interval(method: str, seed: int) -> None:
    """Made scenes obey their few spectra, so that errors stay behind what real scenes teach to expect."""
    truth = simulated.land(24, 128, 128, seed=seed)
    pair, truth, _ = simulated.made_pair(truth, ratio=4, seed=seed)
    fused, found, sigma = fitted(pair, method)
    share = (np.abs(fused - truth) <= 1.645 * sigma).mean((1, 2))
    assert found.tried
    assert 0.85 <= share.mean() <= 0.98
    assert share.min() > 0.75


@pytest.mark.parametrize("scene", ["abu_beach_3", "sandiego_1"])
def test_nine_of_ten_real_truths_lie_in_the_interval(shared_data: Path, scene: str) -> None:
    truth = simulated.aviris(shared_data, scene)[::4]
    pair, truth, _ = simulated.made_pair(truth, ratio=4)
    fused, _, sigma = fitted(pair, "coupled-map")
    noise = estimate_noise(truth.reshape(len(truth), -1).astype(float))[:, None, None]
    bare, share = (
        (np.abs(fused - truth) <= 1.645 * np.hypot(sigma, level)).mean() for level in (0 * noise, noise)
    )
    assert 0.75 <= bare <= share
    assert 0.83 <= share <= 0.97


def test_busy_places_have_wider_bars_and_keep_their_share() -> None:
    truth = simulated.land(24, 128, 128, seed=5)
    calm = gaussian_filter(truth, (0, 6, 6))
    truth[:, :, :64] = calm[:, :, :64]
    pair, truth, _ = simulated.made_pair(truth, ratio=4)
    fused, _, sigma = fitted(pair, "coupled-map")
    assert sigma[:, :, 72:].mean() > 1.3 * sigma[:, :, :56].mean()
    inside = np.abs(fused - truth) <= 1.645 * sigma
    assert min(inside[:, :, :56].mean(), inside[:, :, 72:].mean()) > 0.8


def test_bands_that_the_msi_cannot_see_are_flagged_and_wide() -> None:
    """The second half of the bands shows a scene of its own, which no MSI band has to do with."""
    seen, unseen = simulated.land(16, 128, 128, seed=1), simulated.land(16, 128, 128, seed=9)
    truth = np.concatenate([seen, unseen])
    srf = np.concatenate([simulated.broad_bands(4, 16), np.zeros((4, 16))], axis=1)
    pair, truth, _ = simulated.made_pair(truth, ratio=4, srf=srf)
    fused, found, sigma = fitted(pair, "coupled-map")
    assert found.informed[:16].mean() > 0.9
    assert not found.informed[16:].any()
    relative = sigma.mean((1, 2)) / truth.std((1, 2))
    assert relative[16:].min() > 2 * np.median(relative[:16])
    share = (np.abs(fused - truth) <= 1.645 * sigma).mean((1, 2))
    assert share[16:].mean() > 0.85
    notes = found.notes(pair.hsi_axis)
    assert len(notes) == 1
    assert "does not help" in notes[0]
    assert "2450 nm" in notes[0]


def test_too_small_to_be_tried_is_wide_and_said() -> None:
    pair, truth, _ = simulated.made_pair(simulated.land(12, 40, 40), ratio=4)
    fused, found, sigma = fitted(pair, "regression")
    assert not found.tried
    assert not found.informed.any()
    assert (np.abs(fused - truth) <= 1.645 * sigma).mean() > 0.95
    assert "too small" in found.notes(pair.hsi_axis)[0]


def test_it_is_kept_as_json() -> None:
    pair, _, _ = simulated.made_pair(simulated.land(12, 96, 96), ratio=4)
    _, found, sigma = fitted(pair, "regression")
    again = Uncertainty.from_dict(json.loads(json.dumps(found.to_dict())))
    np.testing.assert_array_equal(again.sigma(again.activity(pair.blocks[0].msi)), sigma)


def test_both_forms_hold_the_same(pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csakd_geo.layers._SIDE", 32)  # several windows
    holed = tmp_path / "holed.tif"
    with rasterio.open(pair.msi) as src:
        profile, msi = src.profile, src.read()
    msi[:, 10:20, 30:50] = np.nan
    with rasterio.open(holed, "w", **profile) as dst:
        dst.write(msi)
    pair = made.Pair(pair.hsi, holed, pair.truth, pair.ratio, pair.wavelength)
    for form in ("bands", "compact"):
        done = call(
            pair, tmp_path / f"{form}.tif", "--uncertainty", form, "--dtype", "float32", "--bands", "2-9"
        )
        assert done.exit_code == 0, done.output
        assert f"uncertainty: {tmp_path / form}_uncertainty.tif" in done.stdout
    bands, compact = (open_uncertainty(tmp_path / f"{form}_uncertainty.tif") for form in ("bands", "compact"))
    assert bands.dims == compact.dims == ("band", "y", "x")
    np.testing.assert_allclose(bands.values, compact.values, rtol=1e-5)
    np.testing.assert_allclose(bands.wavelength, pair.wavelength[1:9], atol=0.01)
    with rasterio.open(tmp_path / "bands.tif") as src:
        fused = src.read()
        assert src.transform == bands.rio.transform()
        assert src.crs == bands.rio.crs
    np.testing.assert_array_equal(np.isnan(bands.values), np.isnan(fused))
    assert np.isnan(fused[:, 10:20, 30:50]).all()
    # the noise is so small that the details' errors are what the bars hold
    share = np.nanmean(np.abs(fused - pair.truth[1:9]) <= 1.645 * bands.values)
    assert 0.8 < share < 0.98


def test_int16_products_have_deviations_in_steps(pair: made.Pair, tmp_path: Path) -> None:
    for dtype in ("int16", "float32"):
        assert (
            call(pair, tmp_path / f"{dtype}.tif", "--uncertainty", "bands", "--dtype", dtype).exit_code == 0
        )
    coarse, fine = (open_uncertainty(tmp_path / f"{d}_uncertainty.tif").values for d in ("int16", "float32"))
    with rasterio.open(tmp_path / "int16_uncertainty.tif") as src:
        assert src.dtypes[0] == "uint16"
        step = src.scales[0]
        assert [src.tags(k + 1)["informed"] in "01" for k in range(10)] == [True] * 10
        assert float(src.tags(3)["wavelength"]) == pytest.approx(pair.wavelength[2], abs=0.01)
    np.testing.assert_allclose(coarse, fine, atol=0.51 * step)
    assert build_item(tmp_path / "int16.tif")["assets"]["uncertainty"]["href"] == "./int16_uncertainty.tif"


def test_what_is_refused(pair: made.Pair, tmp_path: Path) -> None:
    (tmp_path / "f_uncertainty.tif").write_bytes(b"mine")
    done = call(pair, tmp_path / "f.tif", "--uncertainty", "compact")
    assert done.exit_code == 1
    assert "exists; give --overwrite" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["f_uncertainty.tif"]
    done = call(pair, Path("memory://f.zarr"), "--uncertainty", "compact")
    assert done.exit_code == 1
    assert "beside a local product" in done.stderr
    with pytest.raises(InputError, match="beside a product"):
        csakd_geo.fuse(pair.hsi, pair.msi, uncertainty="bands")
    with pytest.raises(InputError, match="is no uncertainty"):
        open_uncertainty(pair.msi)


def test_a_stopped_run_goes_on_to_the_same_layers(
    pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = ("--uncertainty", "bands", "--quality", "--tile", "16", "--supertile", "16", "--method", "gsa")
    whole, target = tmp_path / "whole.tif", tmp_path / "f.tif"
    assert call(pair, whole, *cut).exit_code == 0
    put = Store.put

    def count(self: Store, *args: Any) -> None:
        if self.count() >= 7:
            raise KeyboardInterrupt
        put(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", count)
        patch.setattr("csakd_geo.product.workers", lambda _: 1)
        assert call(pair, target, *cut).exit_code == 1
    assert not target.exists()
    assert not (tmp_path / "f_quality.tif").exists()
    done = call(pair, target, *cut, "--resume")
    assert done.exit_code == 0, done.output
    for kind in ("", "_uncertainty", "_quality"):
        with rasterio.open(tmp_path / f"f{kind}.tif") as a, rasterio.open(tmp_path / f"whole{kind}.tif") as b:
            np.testing.assert_array_equal(a.read(), b.read())
    again = call(pair, target, *cut, "--resume")
    assert "nothing to do" in again.stdout
    (tmp_path / "f_quality.tif").unlink()  # as if the run had died between product and layers
    assert call(pair, target, *cut, "--resume").exit_code == 0
    assert (tmp_path / "f_quality.tif").exists()


def test_a_layer_that_fails_leaves_the_product(
    pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "f.tif"

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("csakd_geo.layers.cog_validate", full)
        done = call(pair, target, "--quality", "--method", "gsa")
    assert done.exit_code == 1
    assert "disk is full" in done.stderr
    assert "--resume goes on" in done.stderr
    with rasterio.open(target) as src:
        assert np.isfinite(src.read()).all()
    assert not (tmp_path / "f_quality.tif").exists()
    assert call(pair, target, "--quality", "--method", "gsa", "--resume").exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.tif", "f_quality.tif"]
