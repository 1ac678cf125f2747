"""Scores of files against numbers that follow from how the files were made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from click.testing import CliRunner

import csakd_geo
import tests.made as made
from csakd_geo.cli import main
from csakd_geo.errors import GridError, InputError, SpectralError
from csakd_geo.evaluate import Evaluation, evaluate, evaluate_pair
from csakd_geo.evaluate import truth as module
from csakd_geo.io import open_source
from csakd_geo.io.cog import RasterSpec, write_cog
from csakd_geo.io.encoding import Encoding
from csakd_geo.metrics import score
from csakd_geo.simulate import SimulatedPaths
from csakd_geo.spectral import SpectralAxis
from csakd_geo.tiling import Window

BANDS, HEIGHT, WIDTH = 6, 70, 50
WAVELENGTH = np.linspace(450, 950, BANDS)
SCALES = ("psnr", "sam", "ergas", "rmse", "cc")


def image(
    values: np.ndarray,
    *,
    row: float = 0,
    col: float = 0,
    gsd: float = 20.0,
    crs: str | None = "EPSG:32633",
    wavelength: np.ndarray | None = WAVELENGTH,
    good: np.ndarray | None = None,
    **attrs: object,
) -> xr.DataArray:
    """An image whose upper left corner is `row`, `col` pixels of 20 m from a fixed point."""
    array = xr.DataArray(values, dims=("band", "y", "x"), attrs=attrs)
    if wavelength is not None:
        array = array.assign_coords(wavelength=("band", wavelength))
    if good is not None:
        array = array.assign_coords(good=("band", good))
    if crs is not None:
        array = array.rio.write_crs(crs)
    place = Affine(gsd, 0, 500_000 + 20 * col, 0, -gsd, 4_000_000 - 20 * row)
    return array.rio.write_transform(place)


def run(fused: xr.DataArray, truth: xr.DataArray, ratio: int = 4) -> Evaluation:
    return evaluate(open_source(fused, name="fused"), open_source(truth, name="truth"), ratio=ratio)


@pytest.fixture
def truth() -> np.ndarray:
    rng = np.random.default_rng(5)
    return (1 + rng.random((BANDS, HEIGHT, WIDTH))).astype(np.float32)


@pytest.fixture
def fused(truth: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(6)
    return (truth + 0.05 * rng.standard_normal(truth.shape)).astype(np.float32)


def test_a_constant_error_has_the_scores_that_it_must_have(truth: np.ndarray) -> None:
    result = run(image(truth + np.float32(0.25)), image(truth))
    np.testing.assert_allclose(result.per_band["rmse"], 0.25, rtol=1e-5)
    np.testing.assert_allclose(result.per_band["psnr"], 20 * np.log10(truth.max((1, 2)) / 0.25), rtol=1e-5)
    np.testing.assert_allclose(result.per_band["cc"], 1.0, rtol=1e-6)
    assert result.scores.rmse == pytest.approx(0.25, rel=1e-5)
    assert result.scores.psnr == pytest.approx(result.per_band["psnr"].mean())
    assert result.bands == tuple(range(BANDS))
    assert result.wavelength.tolist() == WAVELENGTH.tolist()
    assert result.warnings == ()


def test_per_band_scores_are_those_of_each_band_alone(truth: np.ndarray, fused: np.ndarray) -> None:
    result = run(image(fused), image(truth))
    for band in range(BANDS):
        f, t = fused[band].astype(float).ravel(), truth[band].astype(float).ravel()
        assert result.per_band["cc"][band] == pytest.approx(np.corrcoef(f, t)[0, 1], rel=1e-6)
        assert result.per_band["rmse"][band] == pytest.approx(np.sqrt(np.mean((f - t) ** 2)), rel=1e-6)


@pytest.mark.parametrize("values", [1, BANDS * WIDTH * 32, BANDS * WIDTH * 33])
def test_parts_give_the_scores_of_the_whole(
    truth: np.ndarray, fused: np.ndarray, monkeypatch: pytest.MonkeyPatch, values: int
) -> None:
    whole = score(fused, truth, ratio=4).to_dict()
    monkeypatch.setattr(module, "_PART_VALUES", values)
    parts = run(image(fused), image(truth)).scores.to_dict()
    for name in (*SCALES, "uiqi", "pixels"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-6), name
    assert parts["ssim"] == pytest.approx(whole["ssim"], abs=0.01)  # its windows do not cross parts


@pytest.mark.parametrize(("height", "width"), [(1, 1), (31, 400), (95, 33), (200, 130), (64, 64)])
@pytest.mark.parametrize("values", [1, 5_000, 40_000])
def test_parts_cover_every_pixel_once_in_whole_blocks(
    height: int, width: int, values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART_VALUES", values)
    covered = np.zeros((height + 3, width + 5), int)
    for part in module._parts(Window(3, 5, height, width), bands=2):
        covered[part.slices()] += 1
        assert (part.row - 3) % 32 == (part.col - 5) % 32 == 0
        assert part.height >= min(32, height)
        assert part.width >= min(32, width)
    assert (covered[3:, 5:] == 1).all()
    assert covered.sum() == height * width


def test_only_the_common_part_counts(truth: np.ndarray, fused: np.ndarray) -> None:
    expected = score(fused[:, 10:60, 5:45], truth[:, 10:60, 5:45], ratio=4)
    inside = run(image(fused[:, 10:60, 5:45], row=10, col=5), image(truth))
    assert inside.scores == expected
    assert inside.warnings == ("'fused' covers 57.1% of 'truth'; only that part is scored.",)
    beyond = run(image(fused), image(truth[:, 10:60, 5:45], row=10, col=5))
    assert beyond.scores == expected
    assert beyond.warnings == ()
    across = run(image(fused[:, :60, :45]), image(truth[:, 10:, 5:], row=10, col=5))
    assert across.scores == expected


def test_a_shift_by_one_pixel_is_no_detail(truth: np.ndarray) -> None:
    """The same values one pixel further east must not be taken for the same image."""
    assert run(image(truth), image(truth)).scores.rmse == 0
    assert run(image(truth, col=1), image(truth)).scores.rmse > 0.3


def test_missing_pixels_do_not_count(truth: np.ndarray, fused: np.ndarray) -> None:
    holed, spoilt = truth.copy(), fused.copy()
    holed[2, 3, 4] = np.nan
    spoilt[:, 3, 4] = 1e6
    spoilt[0, 50, 20] = np.nan
    result = run(image(spoilt), image(holed))
    assert result.scores.pixels == HEIGHT * WIDTH - 2
    assert result.scores.rmse == pytest.approx(0.05, rel=0.05)


def test_bands_that_are_bad_in_the_truth_are_left_out(truth: np.ndarray, fused: np.ndarray) -> None:
    holed, flags = truth.copy(), np.ones(BANDS)
    holed[1] = np.nan
    holed[2] = 7.0
    flags[3] = 0
    result = run(image(fused), image(holed, good=flags))
    assert result.bands == (0, 4, 5)
    assert result.warnings == ("3 of 6 bands are bad, constant or nodata in one image and left out.",)
    kept = [0, 4, 5]
    assert result.scores.rmse == pytest.approx(score(fused[kept], truth[kept], ratio=4).rmse)


def test_a_band_that_the_method_made_constant_still_counts(truth: np.ndarray) -> None:
    flat = truth.copy()
    flat[3] = 0.0
    result = run(image(flat), image(truth))
    assert len(result.bands) == BANDS
    assert result.per_band["rmse"][3] > 1
    assert np.isnan(result.per_band["cc"][3])


def test_a_subset_of_bands_is_found_by_wavelength(truth: np.ndarray, fused: np.ndarray) -> None:
    chosen = [4, 1]
    result = run(image(fused[chosen], wavelength=WAVELENGTH[chosen] + 0.3), image(truth))
    assert result.bands == (4, 1)
    assert result.scores.rmse == pytest.approx(score(fused[chosen], truth[chosen], ratio=4).rmse)


def test_values_are_compared_in_physical_units(truth: np.ndarray, tmp_path: Path) -> None:
    code = Encoding("int16", (0.001,), (0.0,), -32768)
    spec = RasterSpec(
        height=HEIGHT,
        width=WIDTH,
        transform=Affine(20, 0, 500_000, 0, -20, 4_000_000),
        crs=open_source(image(truth)).crs,
        axis=SpectralAxis.build(WAVELENGTH),
        encoding=code,
        units="radiance",
    )
    path = tmp_path / "fused.tif"
    write_cog(path, spec, [(0, 0, code.encode(truth)[0])], workdir=tmp_path)
    result = evaluate(path, open_source(image(truth, units="reflectance"), name="truth"), ratio=4)
    assert 0 < result.scores.rmse < 0.0005
    assert result.warnings == (
        "'fused.tif' holds radiance but 'truth' reflectance; they are compared as they are.",
    )


def test_json_holds_no_infinity(truth: np.ndarray) -> None:
    facts = run(image(truth), image(truth)).to_dict()
    text = json.loads(json.dumps(facts, allow_nan=False))
    assert text["scores"]["psnr"] is None
    assert text["scores"]["sam"] == pytest.approx(0, abs=1e-5)
    assert text["bands"] == [1, 2, 3, 4, 5, 6]
    assert text["per_band"]["rmse"] == [0.0] * BANDS


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({"col": 0.3}, r"lie 0\.30 pixel beside"),
        ({"row": -0.5}, r"lie 0\.50 pixel beside"),
        ({"gsd": 10.0}, "pixels of 10 x 10 but 'truth' of 20 x 20"),
        ({"gsd": 20.05}, r"pixels of 20\.05 x 20\.05"),
        ({"crs": "EPSG:32634"}, "EPSG:32634 but 'truth' in EPSG:32633"),
        ({"col": 500}, "do not overlap"),
    ],
)
def test_other_pixels_are_refused(truth: np.ndarray, place: dict[str, object], words: str) -> None:
    with pytest.raises(GridError, match=words):
        run(image(truth, **place), image(truth))  # type: ignore[arg-type]


def test_a_hundredth_of_a_pixel_is_tolerated_and_a_missing_crs_is_named(truth: np.ndarray) -> None:
    result = run(image(truth, col=0.01, row=-0.01, crs=None), image(truth))
    assert result.scores.rmse == 0
    assert result.warnings == ("'fused' has no CRS; it is taken to be that of the other image.",)


@pytest.mark.parametrize(
    ("bands", "wavelength", "words"),
    [
        (BANDS, WAVELENGTH + 5, "Band 1 is at 455.0 nm in 'fused' but at 450.0 nm"),
        (2, None, "6, and without wavelengths in both"),
        (2, np.array([450.0, 700.0]), r"band 2 of 'fused' \(700\.0 nm\) has no counterpart"),
        (2, np.array([450.0, 450.1]), "two bands of 'fused' have the same counterpart"),
    ],
)
def test_other_bands_are_refused(
    truth: np.ndarray, bands: int, wavelength: np.ndarray | None, words: str
) -> None:
    with pytest.raises(SpectralError, match=words):
        run(image(truth[:bands], wavelength=wavelength), image(truth))


def test_nothing_to_compare_is_refused(truth: np.ndarray) -> None:
    empty = np.full_like(truth, np.nan)
    with pytest.raises(SpectralError, match="No band is good in both"):
        run(image(empty), image(truth))
    left, right = truth.copy(), truth.copy()
    left[:, :, :25] = np.nan
    right[:, :, 25:] = np.nan
    with pytest.raises(InputError, match="share no valid pixel"):
        run(image(left), image(right))
    with pytest.raises(InputError, match="ratio is 0"):
        run(image(truth), image(truth), ratio=0)


def test_a_product_narrower_than_a_footprint_has_no_scores_without_truth(tmp_path: Path) -> None:
    """A strip of two HSI pixels, each of whose footprints reaches out of it."""
    pair = made.make_pair(tmp_path, height=64, width=64)
    left, right, top = made.LEFT + 240, made.LEFT + 320, made.TOP
    corners = [[left, top], [right, top], [right, top - 640], [left, top - 640], [left, top]]
    strip = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": made.CRS}},
        "features": [
            {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [corners]}}
        ],
    }
    (tmp_path / "strip.geojson").write_text(json.dumps(strip), "utf-8")
    fused = tmp_path / "fused.tif"
    options = ["-o", fused, "--method", "regression", "--aoi", tmp_path / "strip.geojson", "--shift", "none"]
    done = CliRunner().invoke(main, ["fuse", *map(str, (pair.hsi, pair.msi, *options))])
    assert done.exit_code == 0, done.output
    with pytest.raises(
        InputError, match=r"No HSI pixel has its whole footprint on valid pixels of 'fused\.tif'"
    ):
        evaluate_pair(fused, pair.hsi, pair.msi)


def test_a_cube_in_memory_has_the_scores_of_its_file(tmp_path: Path) -> None:
    pair = made.make_pair(tmp_path, bands=8, height=64, width=64)
    cube = csakd_geo.fuse(pair.hsi, pair.msi, method="gsa").load()
    fused = tmp_path / "fused.tif"
    options = ["-o", str(fused), "--method", "gsa", "--dtype", "float32"]
    assert CliRunner().invoke(main, ["fuse", str(pair.hsi), str(pair.msi), *options]).exit_code == 0
    ours, theirs = (evaluate_pair(image, pair.hsi, pair.msi).to_dict() for image in (cube, fused))
    assert ours["scores"] == pytest.approx(theirs["scores"], rel=1e-4)
    assert ours["per_msi_band"]["d_s"] == pytest.approx(theirs["per_msi_band"]["d_s"], abs=1e-6)
    with pytest.raises(InputError, match=r"does not say how it was made \(method, ratio"):
        evaluate_pair(cube.drop_attrs(), pair.hsi, pair.msi)


@pytest.mark.parametrize("method", ["coupled-map", "csakd"])
def test_a_product_agrees_with_both_inputs_within_their_noise(method: str, sample: SimulatedPaths) -> None:
    cube = csakd_geo.fuse(sample.hsi, sample.msi, method=method).load()
    found = evaluate_pair(cube, sample.hsi, sample.msi).consistency
    assert 0.7 < found.over_noise < 1.0, "less than 0.9 of the noise is copied noise, more is lost signal"
    assert found.msi is not None
    left = np.linalg.norm(found.msi.rmse) / np.linalg.norm(found.msi.level)
    assert left < 0.0125, "the sample's MSI has noise of 1 % (40 dB), and the response is an estimate"
