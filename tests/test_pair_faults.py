"""Faults of a pair, end to end: what comes out is safe, one sentence names the fault, and the bars show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from made import Array, make_pair, write
from scipy.ndimage import binary_dilation, gaussian_filter

from csakd_geo.cli import main

RATIO, SIDE, BANDS = 4, 96, 24
SAFE = 1.05  # error over interpolation's that is no harm


@dataclass(frozen=True)
class Made:
    """A sound pair in memory."""

    hsi: Array
    msi: Array
    truth: Array
    wavelength: Array


@dataclass(frozen=True)
class Run:
    """What a run on a faulty pair gave: fused cube, deviations, error over interpolation's, and its messages."""

    cube: Array
    sigma: Array
    error: float
    method: str
    said: list[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    pair = make_pair(tmp_path_factory.mktemp("sound"), bands=BANDS, height=SIDE, width=SIDE, noise=2e-3)
    with rasterio.open(pair.hsi) as hsi, rasterio.open(pair.msi) as msi:
        return Made(hsi.read(), msi.read(), pair.truth, pair.wavelength)


def clouds(shape: tuple[int, int], share: float, sigma: float) -> Array:
    field = gaussian_filter(np.random.default_rng(5).standard_normal(shape), sigma, mode="nearest")
    return np.asarray(field > np.quantile(field, 1 - share))


def run(
    made: Made, folder: Path, *, hsi: Array | None = None, msi: Array | None = None, at: Any = None
) -> Run:
    """Fuse with the defaults and uncertainty; `at` masks pixels where there is nothing to compare."""
    hsi, msi = made.hsi if hsi is None else hsi, made.msi if msi is None else msi
    centres = [490.0, 560.0, 665.0, 842.0, 11_000.0][: len(msi)]
    files = (
        write(folder / "hsi.tif", hsi.astype(np.float32), pixel=40.0, wavelength=made.wavelength, fwhm=20),
        write(folder / "msi.tif", msi.astype(np.float32), wavelength=centres, fwhm=40),
    )
    cubes, said, method = {}, [], ""
    for name in ("auto", "bicubic"):
        out = folder / f"{name}.tif"
        args = ["fuse", *map(str, files), "-o", str(out), "--method", name, "--dtype", "float32", "--quiet"]
        result = CliRunner().invoke(main, [*args, "--uncertainty", "bands"])
        assert result.exit_code == 0, result.output
        with rasterio.open(out) as src:
            cubes[name] = src.read()
            if name == "auto":
                said = [line for line in result.stderr.splitlines() if line.startswith("Warning:")]
                method = src.tags()["CSAKD_GEO_METHOD"]
    with rasterio.open(folder / "auto_uncertainty.tif") as src:
        sigma = src.read(masked=True).filled(np.nan) * np.reshape(src.scales, (-1, 1, 1))
    truth = made.truth[:, : cubes["auto"].shape[1], : cubes["auto"].shape[2]]
    seen = np.isfinite(cubes["auto"]) & np.isfinite(cubes["bicubic"])
    if at is not None:
        seen &= at
    good = seen.any((1, 2))
    error = {}
    for name, cube in cubes.items():
        off = np.where(seen, cube - truth, 0)[good]
        error[name] = np.square(off).sum((1, 2)) / truth[good].var((1, 2))
    ratio = float(np.sqrt(error["auto"].sum() / error["bicubic"].sum()))
    there = np.isfinite(cubes["auto"])
    assert np.isfinite(sigma[there]).all()
    assert (sigma[there] > 0).all()
    return Run(cubes["auto"], sigma, ratio, method, said)


@pytest.fixture(scope="module")
def sound(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(made, tmp_path_factory.mktemp("run"))


def test_a_sound_pair_is_fused_without_a_word(sound: Run) -> None:
    assert sound.error < 0.3
    assert sound.said == []


def unrelated(made: Made) -> Array:
    """An MSI of another place with the same statistics."""
    rng = np.random.default_rng(7)
    fields = np.stack([gaussian_filter(rng.standard_normal(band.shape), 3) for band in made.msi])
    fields /= fields.std((1, 2), keepdims=True)
    return fields * made.msi.std((1, 2), keepdims=True) + made.msi.mean((1, 2), keepdims=True)


@pytest.mark.parametrize("other", [lambda m: m.msi[:, ::-1, ::-1], unrelated], ids=["turned", "elsewhere"])
def test_a_pair_with_nothing_in_common_is_interpolated(
    other: Callable[[Made], Array], made: Made, sound: Run, tmp_path: Path
) -> None:
    got = run(made, tmp_path, msi=other(made))
    assert got.method.strip('"') == "bicubic"
    assert got.error == pytest.approx(1, abs=1e-3)
    assert any("the HSI is interpolated without the MSI" in line for line in got.said)
    assert np.nanmedian(got.sigma) > 2 * np.nanmedian(sound.sigma)


@pytest.mark.parametrize("share", [0.1, 0.35])
def test_clouds_in_the_msi_do_no_harm_elsewhere(share: float, made: Made, sound: Run, tmp_path: Path) -> None:
    mask = clouds((SIDE, SIDE), share, 8)
    msi = np.where(mask, 1.6 * np.percentile(made.msi, 99) * (1 + 0.1 * mask), made.msi)
    msi = msi + 2e-3 * np.random.default_rng(1).standard_normal(msi.shape)
    got = run(made, tmp_path, msi=msi, at=~binary_dilation(mask, iterations=8))
    assert got.error < SAFE
    few = (
        share < 0.2
    )  # clouds that are the exception are left out of the fits; others make the whole pair unsafe
    assert any(("no fit uses those" if few else "mask clouds") in line for line in got.said)
    assert (got.error < 2 * sound.error) == few
    assert np.nanmedian(got.sigma) > np.nanmedian(sound.sigma)


@pytest.mark.parametrize("share", [0.1, 0.35])
def test_clouds_in_the_hsi_do_no_harm_elsewhere(share: float, made: Made, tmp_path: Path) -> None:
    mask = clouds((SIDE // RATIO, SIDE // RATIO), share, 2)
    hsi = np.where(mask, 1.6 * np.percentile(made.hsi, 99), made.hsi)
    fine = np.repeat(np.repeat(mask, RATIO, 0), RATIO, 1)
    got = run(made, tmp_path, hsi=hsi, at=~binary_dilation(fine, iterations=8))
    assert got.error < SAFE
    assert any("mask clouds" in line for line in got.said)


def test_a_saturated_msi_band_is_named(made: Made, tmp_path: Path) -> None:
    msi = made.msi.copy()
    msi[2] = np.minimum(msi[2], np.quantile(msi[2], 0.6))
    got = run(made, tmp_path, msi=msi)
    assert got.error < 0.5
    assert [line for line in got.said if "'msi.tif' looks saturated in band 3 (665 nm)" in line]


def test_saturated_hsi_bands_are_named(made: Made, tmp_path: Path) -> None:
    hsi = made.hsi.copy()
    hsi[10:12] = np.minimum(hsi[10:12], np.quantile(hsi[10:12], 0.4))
    got = run(made, tmp_path, hsi=hsi)
    assert got.error < SAFE
    assert any("'hsi.tif' looks saturated in bands 11 (646 nm), 12 (665 nm)" in line for line in got.said)


@pytest.mark.parametrize("odd", [0.0, 1.0], ids=["constant", "all but one pixel constant"])
def test_a_dead_msi_band_is_left_out_and_named(odd: float, made: Made, tmp_path: Path) -> None:
    msi = made.msi.copy()
    msi[1] = msi[1].mean()
    msi[1, 3, 3] += odd
    got = run(made, tmp_path, msi=msi)
    assert got.error < 0.5
    assert any("one value nearly everywhere in band 2 (560 nm), left out" in line for line in got.said)


def test_a_dead_hsi_band_holds_no_data_and_is_named(made: Made, tmp_path: Path) -> None:
    hsi = made.hsi.copy()
    hsi[5] = 0
    hsi[5, 2, 2] = 0.01
    got = run(made, tmp_path, hsi=hsi)
    assert got.error < 0.5
    assert np.isnan(got.cube[5]).all()
    assert np.isfinite(got.cube[4]).all()
    assert any("'hsi.tif'" in line and "band 6 (548 nm)" in line for line in got.said)


@pytest.mark.parametrize("place", ["within", "beyond"])
def test_an_msi_band_that_the_hsi_does_not_explain_is_named(place: str, made: Made, tmp_path: Path) -> None:
    noise = np.random.default_rng(3).standard_normal((SIDE, SIDE))
    msi = made.msi.copy()
    if place == "within":
        msi[1] = msi[1].mean() + msi[1].std() * noise
        name = "band 2 (560 nm)"
    else:
        heat = gaussian_filter(noise, 3)
        msi = np.concatenate([msi, (290 + 5 * heat / heat.std())[None]])
        name = "band 5 (11000 nm)"
    got = run(made, tmp_path, msi=msi)
    assert got.error < 0.5
    assert any(f"next to nothing of 'msi.tif' in {name}" in line for line in got.said)


@pytest.mark.parametrize("image", ["hsi", "msi"])
def test_stripes_do_no_harm(image: str, made: Made, tmp_path: Path) -> None:
    cube = getattr(made, image)
    striped = cube * (1 + 0.05 * np.random.default_rng(4).standard_normal((len(cube), 1, cube.shape[2])))
    got = run(made, tmp_path, **{image: striped})
    assert got.error < 0.6
    assert any("'hsi.tif' is striped along its columns" in line for line in got.said) == (image == "hsi")


@pytest.mark.parametrize("side", [14, 6, 4])
def test_a_tiny_pair_is_fused(side: int, made: Made, tmp_path: Path) -> None:
    got = run(made, tmp_path, hsi=made.hsi[:, :side, :side], msi=made.msi[:, : side * RATIO, : side * RATIO])
    assert got.cube.shape == (BANDS, side * RATIO, side * RATIO)
    assert np.isfinite(got.cube).all()
    assert got.error < 0.6
    assert any(f"Only {side * side} valid HSI pixels are shared" in line for line in got.said)
