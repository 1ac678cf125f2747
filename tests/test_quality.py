"""Bits of the quality layer against what was done to a made pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from csakd_geo.cli import main

MASKED, FILLED, CLIPPED, EXTRAPOLATED, CHANGED = 1, 2, 4, 8, 16
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    return made.make_pair(tmp_path_factory.mktemp("pair"), bands=12, height=160, width=128, noise=1e-3)


def changed(source: Path, target: Path, change: Any) -> Path:
    """A copy of an image with other values."""
    with rasterio.open(source) as src:
        profile, cube = src.profile, src.read()
        tags = [src.tags(k + 1) for k in range(src.count)]
    change(cube)
    with rasterio.open(target, "w", **profile) as dst:
        dst.write(cube)
        for k, values in enumerate(tags):
            dst.update_tags(k + 1, **values)
    return target


def flags(hsi: Path, msi: Path, target: Path, *args: str) -> Array:
    done = CliRunner().invoke(
        main,
        ["fuse", str(hsi), str(msi), "-o", str(target), "--quality", "--method", "gsa", "--quiet", *args],
    )
    assert done.exit_code == 0, done.output
    with rasterio.open(target.with_name(target.stem + "_quality.tif")) as src:
        assert src.dtypes == ("uint8",)
        return np.asarray(src.read(1))


def test_a_good_pair_has_next_to_no_flags(pair: made.Pair, tmp_path: Path) -> None:
    found = flags(pair.hsi, pair.msi, tmp_path / "f.tif")
    assert found.shape == (160, 128)
    assert (found != 0).mean() < 0.005
    with rasterio.open(tmp_path / "f_quality.tif") as src, rasterio.open(tmp_path / "f.tif") as fused:
        assert src.transform == fused.transform
        assert src.crs == fused.crs
        told = json.loads(src.tags()["CSAKD_GEO_FLAGS"])
        assert {name: entry["bit"] for name, entry in told.items()} == {
            "masked": 1,
            "filled": 2,
            "clipped": 4,
            "extrapolated": 8,
            "changed": 16,
        }
        assert src.colormap(1)[CHANGED] != src.colormap(1)[0]


def test_a_field_that_changed_is_flagged_and_little_else(pair: made.Pair, tmp_path: Path) -> None:
    def mow(cube: Array) -> None:
        field = cube[:, 40:72, 60:100]
        field[...] = np.array([0.12, 0.14, 0.17, 0.2])[:, None, None] * (1 + 0.1 * (field - field.mean()))

    msi = changed(pair.msi, tmp_path / "msi.tif", mow)
    found = flags(pair.hsi, msi, tmp_path / "f.tif") & CHANGED > 0
    inside = np.zeros(found.shape, bool)
    inside[40:72, 60:100] = True
    around = np.zeros(found.shape, bool)
    around[36:76, 56:104] = True  # HSI pixels whose PSF reaches in
    assert found[inside].mean() > 0.8
    assert found[~around].mean() < 0.01


def test_gaps_and_what_was_filled_around_them(pair: made.Pair, tmp_path: Path) -> None:
    def cloud(cube: Array) -> None:
        cube[:, 80:88, 40:48] = np.nan

    msi = changed(pair.msi, tmp_path / "msi.tif", cloud)
    found = flags(pair.hsi, msi, tmp_path / "f.tif")
    hole = np.zeros(found.shape, bool)
    hole[80:88, 40:48] = True
    np.testing.assert_array_equal(found == MASKED, hole)
    ring = np.zeros(found.shape, bool)
    ring[76:92, 36:52] = True
    assert (found[ring & ~hole] & FILLED > 0).all()
    far = np.zeros(found.shape, bool)
    far[64:104, 24:64] = True
    assert not (found[~far] & FILLED).any()


def test_clipped_values(pair: made.Pair, tmp_path: Path) -> None:
    """An integer HSI keeps its scale, which a very bright MSI pixel leaves."""
    with rasterio.open(pair.hsi) as src:
        counts = np.round(src.read() * 30000).clip(0, 32767).astype(np.int16)
    hsi = made.write(
        tmp_path / "hsi.tif", counts, pixel=40, wavelength=pair.wavelength, scale=1 / 30000, nodata=-32768
    )

    def glint(cube: Array) -> None:
        cube[:, 50, 50] = 3.0

    msi = changed(pair.msi, tmp_path / "msi.tif", glint)
    found = flags(hsi, msi, tmp_path / "f.tif")
    with rasterio.open(tmp_path / "f.tif") as src:
        stored = src.read().astype(int)
    at_limit = (np.abs(stored) == 32767).any(0)
    assert at_limit[50, 50]
    np.testing.assert_array_equal(found & CLIPPED > 0, at_limit)


def test_cells_in_which_an_image_ends(pair: made.Pair, tmp_path: Path) -> None:
    with rasterio.open(pair.msi) as src:
        cut = src.read()[:, :, :126]  # the last column of HSI pixels is half seen
    msi = made.write(tmp_path / "msi.tif", cut, wavelength=made.MSI_CENTRES, fwhm=40, nodata=np.nan)
    found = flags(pair.hsi, msi, tmp_path / "f.tif")
    assert found.shape == (160, 126)
    assert (found[:, 124:] & EXTRAPOLATED > 0).all()
    assert (found[:, :124] & EXTRAPOLATED > 0).mean() < 0.005


def test_windows_make_no_difference(pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(cube: Array) -> None:
        cube[:, 40:72, 60:100] *= 0.5
        cube[:, 100:110, 20:30] = np.nan

    msi = changed(pair.msi, tmp_path / "msi.tif", spoil)
    whole = flags(pair.hsi, msi, tmp_path / "a.tif")
    monkeypatch.setattr("csakd_geo.layers._SIDE", 16)
    np.testing.assert_array_equal(flags(pair.hsi, msi, tmp_path / "b.tif"), whole)
    assert len(np.unique(whole)) > 3
