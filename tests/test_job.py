"""The job from Python: what is put in, in all its shapes, and what is found, chosen, trained and handed out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import made
import numpy as np
import pytest
import rasterio
import rioxarray
import torch
import xarray as xr
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from rasterio.warp import Resampling, calculate_default_transform, reproject
from shapely.geometry import Polygon

import csakd_geo
from csakd_geo.choose import CLASSICAL
from csakd_geo.errors import CsakdGeoError, GridError, InputError, ModelError, SpectralError
from csakd_geo.io import open_source
from csakd_geo.models import load_model
from csakd_geo.simulate import SimulatedPaths

Array = NDArray[Any]
TINY: dict[str, Any] = {"features": 8, "growth": 4, "depths": (1, 1, 1, 1)}


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any model, neither the user's nor bundled."""
    monkeypatch.setattr("csakd_geo.models.registry.bundled_models", lambda: [])
    monkeypatch.setenv("CSAKD_GEO_MODELS", str(tmp_path / "no models here"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    return made.make_pair(tmp_path_factory.mktemp("job"), bands=12, height=128, width=112)


@pytest.fixture(scope="module")
def arrays(pair: made.Pair) -> tuple[Array, Array]:
    """HSI and MSI of the pair."""
    with rasterio.open(pair.hsi) as a, rasterio.open(pair.msi) as b:
        return a.read(), b.read()


def fuse(hsi: Any, msi: Any, **options: Any) -> xr.DataArray:
    quick: dict[str, Any] = {"method": "coupled-map", "adapt_minutes": 0}
    return csakd_geo.fuse(hsi, msi, **({"model": None} | quick | options))


@pytest.fixture(scope="module")
def plain(pair: made.Pair) -> Array:
    """The pair fused from its paths without correcting a shift."""
    return np.asarray(fuse(pair.hsi, pair.msi, shift="none").values)


# ------------------------------------------------------------------------------------------------- inputs


def test_result_is_lazy_and_right(pair: made.Pair) -> None:
    cube = fuse(str(pair.hsi), pair.msi)
    assert cube.chunks is not None
    assert (cube.dims, cube.dtype, cube.shape) == (("band", "y", "x"), np.float32, (12, 128, 112))
    assert made.relative(cube.values, pair.truth) < 0.02
    assert cube.attrs["method"] == "coupled-map"
    assert cube.attrs["ratio"] == 4
    assert cube.attrs["nested"] is True
    assert cube.attrs["psf_fwhm_hsi_pixels"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "how",
    [
        {"masked": False},
        {"masked": True},
        {"masked": False, "chunks": True},
        {"masked": True, "chunks": {"band": 5, "y": 11, "x": 13}},
    ],
)
def test_dataarrays_are_paths(how: dict[str, Any], pair: made.Pair, plain: Array) -> None:
    hsi, msi = (
        rioxarray.open_rasterio(path, **how).assign_coords(
            wavelength=("band", np.array(centres), {"units": "nm"}),
            fwhm=("band", np.full(len(centres), width)),
        )
        for path, centres, width in ((pair.hsi, pair.wavelength, 20.0), (pair.msi, made.MSI_CENTRES, 40.0))
    )
    cube = fuse(hsi, msi, shift="none")
    np.testing.assert_array_equal(cube.values, plain)
    assert cube.rio.crs.to_epsg() == 32633


def test_dataarray_of_any_axis_order_brings_its_coordinates(pair: made.Pair, plain: Array) -> None:
    hsi = rioxarray.open_rasterio(pair.hsi).transpose("y", "x", "band")
    hsi = hsi.assign_coords(
        wavelength=("band", pair.wavelength / 1000, {"units": "um"}), fwhm=("band", np.full(12, 0.02))
    )
    cube = fuse(hsi, pair.msi, shift="none")
    np.testing.assert_array_equal(cube.values, plain)
    np.testing.assert_allclose(cube["wavelength"], pair.wavelength)
    np.testing.assert_allclose(cube["fwhm"], 20)


def test_dtype_scale_offset_and_nodata_of_files_are_theirs_alone(
    arrays: tuple[Array, Array], pair: made.Pair, plain: Array, tmp_path: Path
) -> None:
    """Counts of 1e-4 reflectance and an MSI with an offset; the holes are marked by three conventions."""
    hsi, msi = arrays
    counts, levels = np.rint(hsi / 1e-4), np.rint((msi + 0.1) / 5e-5)
    counts[:, 5, 6], levels[:, 80:84, 40:44] = 65535, -32768
    a = made.write(
        tmp_path / "a.tif",
        counts.astype(np.uint16),
        pixel=40,
        wavelength=pair.wavelength,
        scale=1e-4,
        nodata=65535,
    )
    b = made.write(tmp_path / "b.tif", levels.astype(np.int16), scale=5e-5, offset=-0.1, nodata=-32768)
    cube = fuse(a, b, shift="none").values
    expected = plain.copy()
    expected[:, 20:24, 24:28] = expected[:, 80:84, 40:44] = np.nan
    assert made.relative(cube, expected) < 2e-3


def test_other_units_in_the_msi_do_not_matter(
    arrays: tuple[Array, Array], pair: made.Pair, plain: Array, tmp_path: Path
) -> None:
    """Radiance-like numbers, a gain and an offset per band."""
    gain, offset = np.array([40, 55, 70, 30.0]), np.array([5, -3, 8, 0.5])
    msi = (arrays[1] * gain[:, None, None] + offset[:, None, None]).astype(np.float32)
    cube = fuse(pair.hsi, made.write(tmp_path / "b.tif", msi), shift="none").values
    assert made.relative(cube, plain) < 2e-3


def test_another_name_of_the_same_crs(
    arrays: tuple[Array, Array], pair: made.Pair, plain: Array, tmp_path: Path
) -> None:
    """ETRS89 / UTM 33N has the same coordinates, but is another system: warped, with the same result."""
    hsi = made.write(tmp_path / "a.tif", arrays[0], pixel=40, crs="EPSG:25833", wavelength=pair.wavelength)
    cube = fuse(hsi, pair.msi, shift="none")
    assert cube.attrs["nested"] is False
    assert cube.rio.crs.to_epsg() == 32633
    assert made.relative(cube.values, plain) < 1e-4


def test_hsi_in_another_projection(pair: made.Pair, tmp_path: Path) -> None:
    """An equal-area HSI, warped from the truth by GDAL, over more than the MSI's area."""
    truth, wavelength = made.make_truth(12, 320, 320, seed=3)
    size, left, top = 320, made.LEFT, made.TOP
    transform = rasterio.Affine(10, 0, left, 0, -10, top)
    bounds = (left, top - size * 10, left + size * 10, top)
    place, width, height = calculate_default_transform(
        made.CRS, "EPSG:3035", size, size, *bounds, resolution=40
    )
    hsi = np.full((12, height, width), np.nan, np.float32)
    reproject(
        truth,
        hsi,
        src_transform=transform,
        src_crs=made.CRS,
        dst_transform=place,
        dst_crs="EPSG:3035",
        resampling=Resampling.average,
        src_nodata=np.nan,
        dst_nodata=np.nan,
    )
    path = made.write(
        tmp_path / "a.tif",
        hsi,
        pixel=40,
        crs="EPSG:3035",
        left=place.c,
        top=place.f,
        wavelength=wavelength,
        nodata=np.nan,
    )
    inner = truth[:, 90:230, 80:220]
    msi = np.tensordot(made.responses(wavelength), inner, axes=1).astype(np.float32)
    b = made.write(tmp_path / "b.tif", msi, left=left + 800, top=top - 900)
    floor = made.relative(fuse(path, b, method="bicubic").values, inner)
    for method in ("coupled-map", "auto"):
        cube = fuse(path, b, method=method)
        assert cube.attrs["ratio"] == 4
        assert cube.shape == (12, 140, 140)
        assert np.isfinite(cube.values).all()
        assert made.relative(cube.values, inner) < 0.25 * floor


def test_extents_that_overlap_in_part(
    arrays: tuple[Array, Array], pair: made.Pair, plain: Array, tmp_path: Path
) -> None:
    """The output is the common area on the MSI's pixels, wherever either begins."""
    west = made.write(tmp_path / "b.tif", arrays[1][:, 10:100, 37:], left=made.LEFT + 370, top=made.TOP - 100)
    north = made.write(tmp_path / "a.tif", arrays[0][:, :20, :25], pixel=40, wavelength=pair.wavelength)
    cube = fuse(north, west, shift="none")
    assert cube.shape == (12, 70, 63)
    assert cube.rio.transform() == rasterio.Affine(10, 0, made.LEFT + 370, 0, -10, made.TOP - 100)
    assert made.relative(cube.values, plain[:, 10:80, 37:100]) < 0.02


def test_no_crs_anywhere(arrays: tuple[Array, Array], pair: made.Pair, plain: Array, tmp_path: Path) -> None:
    a = made.write(tmp_path / "a.tif", arrays[0], pixel=40, crs=None, wavelength=pair.wavelength)
    b = made.write(tmp_path / "b.tif", arrays[1], crs=None, wavelength=made.MSI_CENTRES, fwhm=40)
    for hsi, msi in ((a, pair.msi), (pair.hsi, b), (a, b)):
        cube = fuse(hsi, msi, shift="none")
        np.testing.assert_array_equal(cube.values, plain)
        assert sum("CRS" in text for text in cube.attrs["warnings"]) == 1
    assert cube.rio.crs is None


def test_what_is_not_an_image_is_said(pair: made.Pair) -> None:
    with pytest.raises(InputError, match="expected a path or an xarray DataArray"):
        fuse(np.zeros((3, 4, 5)), pair.msi)
    with pytest.raises(InputError, match="'magic'"):
        fuse(pair.hsi, pair.msi, magic=True)
    with pytest.raises(SpectralError, match="swapped"):
        fuse(pair.msi, pair.hsi)
    with pytest.raises(InputError, match="'halo'"):
        fuse(pair.hsi, pair.msi, halo="wide")


# ------------------------------------------------------------------------------------------------ options


def test_area_in_another_crs_bounds_and_masks(pair: made.Pair, plain: Array, tmp_path: Path) -> None:
    shape = Polygon(
        [(made.LEFT + x, made.TOP - y) for x, y in ((203, 310), (812, 357), (640, 1013), (330, 800))]
    )
    path = tmp_path / "area.gpkg"
    series = geopandas.GeoSeries([shape], crs=made.CRS)
    series.to_crs("EPSG:4326").to_file(path)
    cube = fuse(pair.hsi, pair.msi, shift="none", aoi=path)
    # pixel centres from 205 to 805 along x and from 315 to 1005 along y
    assert cube.shape == (12, 70, 61)
    assert cube.rio.transform() == rasterio.Affine(10, 0, made.LEFT + 200, 0, -10, made.TOP - 310)
    outside = geometry_mask([shape], (70, 61), cube.rio.transform())
    found = np.isnan(cube.values)
    assert (found == found[:1]).all()
    assert int((found[0] != outside).sum()) <= 2  # centres on the line, after two changes of system
    inside = ~found[0]
    expected = plain[:, 31:101, 20:81][:, inside]
    assert made.relative(cube.values[:, inside], expected) < 0.02


def test_bands_by_number_and_wavelength(pair: made.Pair, plain: Array) -> None:
    for text, wanted in (("3,1", [2, 0]), ("5-7", [4, 5, 6]), ("450-540nm,900nm", [0, 1, 2, 11])):
        cube = fuse(pair.hsi, pair.msi, shift="none", bands=text)
        np.testing.assert_array_equal(cube.values, plain[wanted])
        assert cube["band"].values.tolist() == [w + 1 for w in wanted]
        np.testing.assert_allclose(cube["wavelength"], pair.wavelength[wanted], atol=0.01)


def test_ratio_given(pair: made.Pair, plain: Array) -> None:
    np.testing.assert_array_equal(fuse(pair.hsi, pair.msi, shift="none", ratio=4).values, plain)
    for wrong in (2, 3, 8):
        with pytest.raises(GridError, match=f"Ratio {wrong} does not fit.*give 4"):
            fuse(pair.hsi, pair.msi, ratio=wrong)


@pytest.mark.parametrize("ratio", [2, 3, 5])
def test_other_ratios(ratio: int, tmp_path: Path) -> None:
    pair = made.make_pair(tmp_path, ratio=ratio, bands=12, height=60, width=90)
    cube = fuse(pair.hsi, pair.msi)
    assert cube.attrs["ratio"] == ratio
    floor = fuse(pair.hsi, pair.msi, method="bicubic")
    assert made.relative(cube.values, pair.truth) < 0.5 * made.relative(floor.values, pair.truth)


def test_statistics_of_tiles_differ_from_the_scenes(pair: made.Pair, tmp_path: Path) -> None:
    model = made.subspace_model(tmp_path / "cross.safetensors", gain=300, **TINY)
    cubes = [
        fuse(pair.hsi, pair.msi, method="csakd", model=str(model), statistics=which, tile=64, halo=2).values
        for which in ("scene", "tile")
    ]
    assert np.isfinite(cubes[1]).all()
    assert 1e-6 < made.relative(cubes[1], cubes[0]) < 0.1


def test_halo_given_and_measured(pair: made.Pair) -> None:
    stated = fuse(pair.hsi, pair.msi).attrs["halo"]
    assert fuse(pair.hsi, pair.msi, halo=3).attrs["halo"] == 3
    assert 0 < fuse(pair.hsi, pair.msi, halo="auto").attrs["halo"] <= stated


# -------------------------------------------------------------------------------------------------- shift


@pytest.fixture(scope="module")
def displaced(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    """An HSI that is stated 1.5 of its pixels too far west and 0.75 too far north."""
    folder = tmp_path_factory.mktemp("displaced")
    wide, wavelength = made.make_truth(12, 240, 240, seed=4)
    rng = np.random.default_rng(1)
    truth = wide[:, 20:212, 20:212]
    seen = made.coarsen(wide[:, 3 : 3 + 236, 2 : 2 + 236], 4)[
        :, 5 : 5 + 48, 6 : 6 + 48
    ]  # 23, 26: 3 and 6 off
    hsi = (seen + 2e-4 * rng.standard_normal(seen.shape)).astype(np.float32)
    msi = np.tensordot(made.responses(wavelength), truth, axes=1)
    msi = (msi + 2e-4 * rng.standard_normal(msi.shape)).astype(np.float32)
    return made.Pair(
        made.write(folder / "a.tif", hsi, pixel=40, wavelength=wavelength),
        made.write(folder / "b.tif", msi),
        truth,
        4,
        wavelength,
    )


def error_of(cube: xr.DataArray, truth: Array) -> float:
    """Relative error where the cube lies, ten pixels inside."""
    left = round((cube.rio.transform().c - made.LEFT) / 10)
    top = round((made.TOP - cube.rio.transform().f) / 10)
    there = truth[:, top : top + cube.shape[1], left : left + cube.shape[2]]
    return made.relative(cube.values[:, 10:-10, 10:-10], there[:, 10:-10, 10:-10])


def test_shift_is_found_corrected_and_reported(displaced: made.Pair) -> None:
    cube = fuse(displaced.hsi, displaced.msi)
    np.testing.assert_allclose(cube.attrs["shift"], [60, -30], atol=6)  # 0.15 HSI pixels
    assert any("off the MSI" in text for text in cube.attrs["warnings"])
    found, without = (
        error_of(cube, displaced.truth),
        error_of(fuse(displaced.hsi, displaced.msi, shift="none"), displaced.truth),
    )
    given = fuse(displaced.hsi, displaced.msi, shift=(60, -30))
    assert given.attrs["shift"] == [60, -30]
    assert found < 0.02
    assert error_of(given, displaced.truth) < 0.02
    assert found < 0.3 * without


def test_shift_given_undoes_one_made_in_the_georeference(
    arrays: tuple[Array, Array], pair: made.Pair, plain: Array, tmp_path: Path
) -> None:
    """The file says 40 m east and 20 m south of where it is; DX,DY is added to its coordinates."""
    wrong = made.write(
        tmp_path / "a.tif",
        arrays[0],
        pixel=40,
        left=made.LEFT + 40,
        top=made.TOP - 20,
        wavelength=pair.wavelength,
    )
    cube = fuse(wrong, pair.msi, shift="-40,20")
    assert cube.attrs["shift"] == [-40, 20]
    np.testing.assert_array_equal(cube.values, plain)


def test_no_shift_is_made_up(pair: made.Pair) -> None:
    cube = fuse(pair.hsi, pair.msi)
    assert cube.attrs["shift"] == [0, 0]
    assert cube.attrs["warnings"] == []


def test_area_and_shift_together(displaced: made.Pair, tmp_path: Path) -> None:
    shape = Polygon(
        [(made.LEFT + x, made.TOP - y) for x, y in ((300, 300), (1700, 300), (1700, 1700), (300, 1700))]
    )
    path = tmp_path / "area.gpkg"
    geopandas.GeoSeries([shape], crs=made.CRS).to_file(path)
    cube = fuse(displaced.hsi, displaced.msi, aoi=path)
    assert cube.shape == (12, 140, 140)
    assert np.isfinite(cube.values).all()
    np.testing.assert_allclose(cube.attrs["shift"], [60, -30], atol=6)
    assert error_of(cube, displaced.truth) < 0.02


# ------------------------------------------------------------------------------------------ choice, models


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    """48 x 49 HSI pixels: just large enough to compare methods and to train on."""
    return made.make_pair(
        tmp_path_factory.mktemp("large"), ratio=2, bands=14, height=96, width=98, noise=2e-3
    )


@pytest.mark.usefixtures("no_models")
def test_small_scene_without_models_takes_the_preferred_method(pair: made.Pair) -> None:
    cube = fuse(pair.hsi, pair.msi, method="auto", adapt_minutes=None)
    assert cube.attrs["method"] == "coupled-map"
    assert "no model fits" in cube.attrs["method_reason"]
    assert cube.attrs["held_out_scores"] == {}


@pytest.mark.usefixtures("no_models")
def test_small_scene_takes_the_users_model(
    pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.subspace_model(tmp_path / "mine.safetensors", **TINY)
    monkeypatch.setenv("CSAKD_GEO_MODELS", str(tmp_path))
    cube = fuse(pair.hsi, pair.msi, method="auto")
    assert (cube.attrs["method"], cube.attrs["model"]["name"]) == ("csakd", "mine")
    assert "48 x 48" in cube.attrs["method_reason"]
    by_name = fuse(pair.hsi, pair.msi, method="csakd", model="mine")
    np.testing.assert_array_equal(by_name.values, cube.values)
    assert by_name.attrs["method_reason"] == "model asked for"
    elsewhere: Any = rioxarray.open_rasterio(pair.hsi)
    turned = fuse(elsewhere.rio.reproject("EPSG:3035"), pair.msi, method="auto")
    assert turned.attrs["method"] == "coupled-map"
    assert "interpolated" in turned.attrs["method_reason"]


@pytest.mark.usefixtures("no_models")
def test_large_scene_compares_on_held_out_blocks(
    large: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of noise loses, and its scores say so."""
    made.subspace_model(tmp_path / "noise.safetensors", gain=3000, **TINY)
    monkeypatch.setenv("CSAKD_GEO_MODELS", str(tmp_path))
    cube = fuse(large.hsi, large.msi, method="auto")
    scores = cube.attrs["held_out_scores"]
    assert set(scores) == {*CLASSICAL, "csakd"}
    assert all({"psnr", "sam", "ergas"} <= set(s) for s in scores.values())
    assert min(scores, key=lambda name: scores[name]["psnr"]) == "csakd"
    middle = {by: np.median([s[by] for s in scores.values()]) for by in ("ergas", "sam")}
    error = {name: sum(s[by] / middle[by] for by in middle) for name, s in scores.items()}
    near = [name for name in ("csakd", *CLASSICAL) if error[name] <= 1.03 * min(error.values())]
    assert cube.attrs["method"] == near[0]
    assert cube.attrs["model"] == {}


@pytest.mark.usefixtures("no_models")
def test_no_training_when_it_is_off(large: made.Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("training ran")

    monkeypatch.setattr("csakd_geo.train.distill.distil", trained)
    assert fuse(large.hsi, large.msi, method="auto").attrs["method"] in CLASSICAL
    with pytest.raises(
        ModelError, match=r"No .*model fits this pair and training is off \(--adapt-minutes 0\)"
    ):
        fuse(large.hsi, large.msi, method="csakd")


@pytest.mark.usefixtures("no_models")
def test_distilled_model_is_saved_beside_the_output_and_used(large: made.Pair, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from csakd_geo.cli import main

    target = tmp_path / "fused.tif"
    names = [str(large.hsi), str(large.msi), "-o", str(target)]
    result = CliRunner().invoke(
        main,
        ["fuse", *names, "--method", "csakd", "--adapt-minutes", "0.05", "--dtype", "float32", "--log-json"],
    )
    assert result.exit_code == 0, result.stderr
    assert '"stage": "train"' in result.stderr
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    saved = tmp_path / "fused.model.safetensors"
    assert lines["model"] == str(saved)
    assert {p.name for p in tmp_path.iterdir()} == {"fused.tif", saved.name}
    card = load_model(saved).card
    assert card.form == "subspace"
    assert card.network.student
    assert card.attention == "cross"
    again = fuse(large.hsi, large.msi, method="csakd", model=str(saved))
    with rasterio.open(target) as src:
        written = src.read()
        tags = src.tags()
    assert card.sha256 is not None
    assert card.sha256 in tags["CSAKD_GEO_MODEL"]
    assert made.relative(again.values, written) < 1e-5


@pytest.mark.usefixtures("no_models")
def test_model_trained_anew_is_the_one_that_runs(
    large: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of one process that save to one file: a later one must not run an earlier one's weights."""
    from csakd_geo.draft import draft_job
    from csakd_geo.job import prepare_job
    from csakd_geo.options import make_options
    from csakd_geo.train import distill

    def start_only(student: Any, *args: Any, **kwargs: Any) -> distill.Outcome:
        with torch.no_grad():
            student.last.weight.mul_(50)
        return distill.Outcome(start=1.0, best=0.9, steps=1, seconds=0.1, history=())

    monkeypatch.setattr(distill, "distil", start_only)
    keep, runs = tmp_path / "kept.safetensors", []
    for seed in (1, 2, 1):
        options = make_options({"method": "csakd", "adapt_minutes": 1, "seed": seed})
        job = prepare_job(draft_job(large.hsi, large.msi, options), report=lambda *_: None, keep_model=keep)
        block = job.scene.sample().blocks[0]
        fused = job.choice.method.apply(job.fitted, block.hsi[:, :12, :12], block.msi[:, :24, :24])
        assert job.notes["model"]["weights_sha256"] == load_model(keep).card.sha256
        runs.append((job.notes["model"]["weights_sha256"], fused))
    (first, one), (second, two), (third, three) = runs
    assert first == third != second
    assert made.relative(two, one) > 1e-4
    np.testing.assert_array_equal(three, one)


@pytest.mark.usefixtures("no_models")
def test_what_is_learned_below_is_trusted_in_part_and_taught_where_there_is_time(
    large: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from csakd_geo import adapt
    from csakd_geo.draft import draft_job
    from csakd_geo.job import prepare_job
    from csakd_geo.options import make_options
    from csakd_geo.train import distill

    found: list[tuple[bool, torch.Tensor]] = []

    def learn(student: Any, teacher: Any, *args: Any, **kwargs: Any) -> distill.Outcome:
        found.append((teacher is not None, student.last.weight.detach().clone()))
        return distill.Outcome(start=1.0, best=0.9, steps=1, seconds=0.1, history=())

    monkeypatch.setattr(distill, "distil", learn)
    keep = tmp_path / "kept.safetensors"
    for minutes in (60, 180):
        options = make_options({"method": "csakd", "adapt_minutes": minutes})
        prepare_job(draft_job(large.hsi, large.msi, options), report=lambda *_: None, keep_model=keep)
        kept = load_model(keep).network.last.weight
        torch.testing.assert_close(kept.detach(), adapt.TRUST * found[-1][1])
    assert [taught for taught, _ in found] == [False, True]


@pytest.mark.usefixtures("no_models")
def test_training_that_does_not_help_changes_nothing(
    large: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from csakd_geo.train import distill

    def useless(student: Any, *args: Any, **kwargs: Any) -> distill.Outcome:
        return distill.Outcome(start=0.9, best=0.9, steps=1, seconds=0.1, history=())

    monkeypatch.setattr(distill, "distil", useless)
    model = made.subspace_model(tmp_path / "mine.safetensors", **TINY)
    monkeypatch.setenv("CSAKD_GEO_MODELS", str(tmp_path))
    before = model.read_bytes()
    facts = fuse(large.hsi, large.msi, method="csakd", adapt_minutes=1).attrs["model"]
    assert facts["name"] == "mine"
    assert "trained_on_pair" not in facts
    assert model.read_bytes() == before


def test_same_seed_same_pixels(pair: made.Pair, plain: Array) -> None:
    np.testing.assert_array_equal(fuse(pair.hsi, pair.msi, shift="none").values, plain)


def test_sample_beats_interpolation_by_far(sample: SimulatedPaths) -> None:
    """Defaults alone must give a good result: what DESIGN asks for, in one number."""
    source = open_source(sample.truth)
    truth = source.read(0, 0, source.height, source.width)
    floor = made.relative(fuse(sample.hsi, sample.msi, method="bicubic").values, truth)
    cube = csakd_geo.fuse(sample.hsi, sample.msi)
    assert made.relative(cube.values, truth) < 0.55 * floor
    assert cube.attrs["units"] == "radiance"


def test_errors_are_of_one_family(pair: made.Pair, tmp_path: Path) -> None:
    for options in ({"model": "none such"}, {"aoi": tmp_path / "no.gpkg"}, {"bands": "0"}, {"method": "x"}):
        with pytest.raises(CsakdGeoError):
            fuse(pair.hsi, pair.msi, **options)
