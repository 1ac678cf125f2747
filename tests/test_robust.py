"""What a first user tripped over: undeclared fill values, areas elsewhere, slivers, pictures in the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from scipy.ndimage import binary_dilation, binary_erosion
from shapely.geometry import box

from csakd_geo.cli import main
from csakd_geo.evaluate import evaluate
from csakd_geo.simulate import SimulatedPaths


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def spoiled(sample: SimulatedPaths, target: Path, value: float | None) -> Path:
    """The sample's HSI as float32 with one pixel overwritten (None: too bright) and no nodata declared."""
    with rasterio.open(sample.hsi) as src:
        cube = src.read().astype(np.float32) * np.float32(src.scales[0])
        profile = src.profile | {"dtype": "float32", "nodata": None, "driver": "GTiff"}
    cube[:, 4, 4] = 12 * np.percentile(cube, 99, axis=(1, 2)) if value is None else value
    with rasterio.open(target, "w", **profile) as dst:
        dst.write(cube)
    return target


@pytest.mark.parametrize("value", [-9999.0, 65535.0, 1e30])
def test_an_undeclared_fill_value_is_taken_for_nodata(
    value: float, sample: SimulatedPaths, tmp_path: Path
) -> None:
    hsi, out = spoiled(sample, tmp_path / "hsi.tif", value), tmp_path / "out.tif"
    result = call("fuse", hsi, sample.msi, "-o", out, "--quiet", "--method", "coupled-map")
    assert result.exit_code == 0, result.output
    assert "far outside the rest" in result.output
    assert "declare them as nodata" in result.output
    with rasterio.open(out) as src:
        band = src.read(1, masked=True)
    hole = np.zeros(band.shape, bool)
    hole[16:20, 16:20] = True
    np.testing.assert_array_equal(np.ma.getmaskarray(band), hole)
    assert evaluate(out, sample.truth, ratio=4).scores.sam < 2.7


def test_an_outlier_is_fused_but_harms_only_its_surroundings(sample: SimulatedPaths, tmp_path: Path) -> None:
    hsi, out = spoiled(sample, tmp_path / "hsi.tif", None), tmp_path / "out.tif"
    result = call(
        "fuse", hsi, sample.msi, "-o", out, "--quiet", "--method", "regression", "--dtype", "float32"
    )
    assert result.exit_code == 0, result.output
    assert "far outside the rest" in result.output
    with rasterio.open(out) as src, rasterio.open(sample.truth) as true:
        fused, truth = src.read(), true.read() * float(true.scales[0])
    assert np.isfinite(fused).all()
    far = np.s_[:, 60:, 60:]
    assert np.sqrt(np.square(fused[far] - truth[far]).mean()) < 0.3


def test_an_area_elsewhere_on_earth_is_refused(sample: SimulatedPaths, tmp_path: Path) -> None:
    area = tmp_path / "far.geojson"
    geopandas.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs="EPSG:4326").to_file(area)
    result = call("fuse", sample.hsi, sample.msi, "-o", tmp_path / "out.tif", "--aoi", area)
    assert result.exit_code == 1
    assert "area of interest" in result.output
    assert not (tmp_path / "out.tif").exists()


def test_a_sliver_of_overlap_is_not_shifted(sample: SimulatedPaths, tmp_path: Path) -> None:
    with rasterio.open(sample.msi) as src:
        cube, profile = src.read(), src.profile | {"driver": "GTiff"}
    profile["transform"] = profile["transform"] @ rasterio.Affine.translation(130, 0)
    moved = tmp_path / "msi.tif"
    with rasterio.open(moved, "w", **profile) as dst:
        dst.write(cube)
    out = tmp_path / "out.tif"
    result = call("fuse", sample.hsi, moved, "-o", out, "--quiet", "--method", "regression")
    assert result.exit_code == 0, result.output
    with rasterio.open(out) as src:
        assert src.shape == (144, 14)
        assert src.tags()["CSAKD_GEO_SHIFT"] == "[0.0, 0.0]"


def test_a_picture_in_the_way_is_kept(sample: SimulatedPaths, tmp_path: Path) -> None:
    picture = tmp_path / "out.quicklook.png"
    picture.write_text("important")
    args = ("fuse", sample.hsi, sample.msi, "-o", tmp_path / "out.tif", "--quicklook", "--method", "bicubic")
    result = call(*args)
    assert result.exit_code == 1
    assert "--overwrite" in result.output
    assert picture.read_text() == "important"


def test_a_configuration_takes_switches_and_paths_beside_it(sample: SimulatedPaths, tmp_path: Path) -> None:
    folder = tmp_path / "settings"
    folder.mkdir()
    with rasterio.open(sample.msi) as src:
        left, bottom, right, top = src.bounds
        crs = src.crs
    area = box(left, bottom, (left + right) / 2, top)
    geopandas.GeoDataFrame(geometry=[area], crs=crs).to_file(folder / "west.gpkg")
    config = folder / "fuse.yaml"
    config.write_text("method: bicubic\naoi: west.gpkg\nshift: no\noverwrite: true\nquiet: true\n")
    out = tmp_path / "out.tif"
    out.write_text("old")
    result = call("fuse", sample.hsi, sample.msi, "-o", out, "--config", config)
    assert result.exit_code == 0, result.output
    with rasterio.open(out) as src:
        assert src.width == 72
    config.write_text("overwrite: maybe\n")
    result = call("fuse", sample.hsi, sample.msi, "-o", out, "--config", config)
    assert result.exit_code == 1
    assert "'overwrite' cannot be 'maybe'" in result.output


def clouded(sample: SimulatedPaths, target: Path) -> tuple[Path, np.ndarray]:
    """The sample's MSI with a soft bright cloud over a tenth of it, and where the cloud is."""
    with rasterio.open(sample.msi) as src:
        cube, profile, tags = src.read().astype(np.float32), src.profile, [src.tags(k) for k in src.indexes]
        scales = src.scales
    y, x = np.mgrid[: cube.shape[1], : cube.shape[2]]
    cover = np.clip(1.6 - np.hypot((y - 100) / 16, (x - 40) / 22), 0, 0.9)
    cube = cube * (1 - cover) + cover * np.percentile(cube, 99.5)
    with rasterio.open(target, "w", **(profile | {"driver": "GTiff"})) as dst:
        dst.write(np.rint(cube).astype(profile["dtype"]))
        dst.scales = scales
        for k, one in enumerate(tags, 1):
            dst.update_tags(k, **one)
    return target, cover > 0


def test_a_cloud_in_one_image_spoils_no_fit(
    sample: SimulatedPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    msi, cloud = clouded(sample, tmp_path / "msi.tif")
    words = ("--quiet", "--method", "coupled-map", "--dtype", "float32", "--shift", "none")
    clear = ~binary_dilation(cloud, iterations=12)
    with rasterio.open(sample.truth) as src:
        truth = src.read() * np.float32(src.scales[0])

    def error(name: str, images: Path, *more: str) -> tuple[float, Result]:
        result = call("fuse", sample.hsi, images, "-o", tmp_path / name, *words, *more)
        assert result.exit_code == 0, result.output
        with rasterio.open(tmp_path / name) as src:
            left = src.read() - truth
        return float(np.sqrt(np.square(left[:, clear]).mean())), result

    plain, result = error("plain.tif", sample.msi)
    assert "disagree" not in result.output
    kept, result = error("kept.tif", msi, "--quality")
    assert "HSI and MSI disagree on" in result.output
    assert "no fit uses those" in result.output
    with rasterio.open(tmp_path / "kept_quality.tif") as src:
        changed = (src.read(1) & 16) > 0
    assert changed[binary_erosion(cloud, iterations=4)].mean() > 0.8
    assert changed[clear].mean() < 0.01
    monkeypatch.setattr("csakd_geo.job.set_aside", lambda pair, response, _: (pair, response, 0.0))
    naive, _ = error("naive.tif", msi)
    assert kept < plain + 0.4 * (naive - plain)


def test_a_cloud_in_one_image_spoils_no_response(sample: SimulatedPaths, tmp_path: Path) -> None:
    def gains(name: str, msi: Path) -> tuple[np.ndarray, str]:
        result = call("response", sample.hsi, msi, "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
        facts = json.loads((tmp_path / name / "response.json").read_text())
        return np.array([band["gain"] for band in facts["msi_bands"]]), result.output

    plain, told = gains("plain", sample.msi)
    assert "disagree" not in told
    found, told = gains("cloud", clouded(sample, tmp_path / "msi.tif")[0])
    assert "the response is that of the rest" in " ".join(told.split())
    np.testing.assert_allclose(found, plain, rtol=0.05)


def test_where_most_disagrees_nothing_is_the_exception(sample: SimulatedPaths) -> None:
    from csakd_geo.draft import draft_job
    from csakd_geo.options import make_options
    from csakd_geo.quality import set_aside, unchanged
    from csakd_geo.response import estimate_response

    pair = draft_job(sample.hsi, sample.msi, make_options({})).scene.sample()
    response = estimate_response(pair)

    def never(_: object) -> None:
        raise AssertionError("it was estimated again")

    assert set_aside(pair, response, never)[0] is pair
    block = pair.blocks[0]
    msi = block.msi.copy()
    y, x = np.mgrid[: msi.shape[1], : msi.shape[2]] // pair.ratio % 4  # 2 x 2 of 4 x 4 HSI pixels
    msi[:, (y < 2) & (x < 2)] += 4 * msi.std()
    other = replace(pair, blocks=(replace(block, msi=msi),))
    assert unchanged(other, response).pixels < 0.9 * pair.pixels
    rest, found, share = set_aside(other, response, estimate_response)
    assert rest is other
    assert found is response
    assert share == 0
