"""Shifts found and corrected in files, and the response command, against pairs made with scipy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner, Result
from matplotlib.image import imread
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.warp import Resampling, calculate_default_transform, reproject
from rio_cogeo.cogeo import cog_validate
from simulated import coarsen, noisy

from csakd_geo.align import align
from csakd_geo.cli import main
from csakd_geo.errors import InputError, OutputError

Array = NDArray[Any]
RATIO, ROOM = 4, 4
PIXEL = made.PIXEL * RATIO


class Shifted:
    """A pair whose HSI is filed off by ``y, x`` of its pixels; the MSI has a rim that the HSI lacks."""

    def __init__(self, folder: Path, y: float, x: float, *, seed: int = 0, **profile: Any) -> None:
        self.truth, self.wavelength = made.make_truth(24, 160, 144, seed=seed)
        cells = coarsen(self.truth, RATIO, fwhm=RATIO, dy=y * RATIO, dx=x * RATIO)[:, ROOM:-ROOM, ROOM:-ROOM]
        self.counts = np.rint(noisy(cells, 35, seed)[0] * 10_000).astype(np.int16)
        msi = noisy(np.tensordot(made.responses(self.wavelength), self.truth, axes=1), 40, seed + 1)[0]
        # metres to add to x and y; rows run south
        self.shift = (x * PIXEL, -y * PIXEL)
        self.hsi = made.write(
            folder / "hsi.tif",
            self.counts,
            left=made.LEFT + ROOM * PIXEL,
            top=made.TOP - ROOM * PIXEL,
            pixel=PIXEL,
            wavelength=self.wavelength,
            fwhm=20,
            scale=1e-4,
            nodata=-9999,
            **profile,
        )
        with rasterio.open(self.hsi, "r+") as dst:
            dst.update_tags(ACQUIRED="2024-06-01", STATISTICS_MEAN="1", units="reflectance")
            dst.update_tags(3, bbl="0")
        self.msi = made.write(
            folder / "msi.tif", msi.astype(np.float32), wavelength=made.MSI_CENTRES, fwhm=40, nodata=np.nan
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Shifted:
    return Shifted(tmp_path_factory.mktemp("align"), 1.3, -2.15)


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------------ align


@pytest.mark.parametrize(("y", "x"), [(0.0, 0.0), (0.3, -0.45), (1.3, -2.15), (-3.0, 3.0), (0.0, 0.13)])
def test_a_known_shift_comes_out_to_a_tenth_of_a_pixel(tmp_path: Path, y: float, x: float) -> None:
    shifted = Shifted(tmp_path, y, x, seed=3)
    done = align(shifted.hsi, shifted.msi, tmp_path / "out.tif")
    assert np.hypot(done.shift[0] - shifted.shift[0], done.shift[1] - shifted.shift[1]) < 0.05 * PIXEL
    assert np.hypot(done.pixels[0] - x, done.pixels[1] - y) < 0.05
    assert done.explained is not None
    assert done.explained > 0.9


def test_pixels_stay_and_the_position_moves(pair: Shifted, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    done = align(pair.hsi, pair.msi, out)
    with rasterio.open(pair.hsi) as before, rasterio.open(out) as after:
        np.testing.assert_array_equal(after.read(), before.read())
        assert after.dtypes[0] == "int16"
        assert after.scales == before.scales
        assert after.crs == before.crs
        moved = after.transform * ~before.transform
        assert (moved.c, moved.f) == pytest.approx(done.shift, abs=1e-6)
        assert (moved.a, moved.b, moved.d, moved.e) == pytest.approx((1, 0, 0, 1), abs=1e-9)
        tags = after.tags()
        assert tags["ACQUIRED"] == "2024-06-01"
        assert "STATISTICS_MEAN" not in tags
        facts = json.loads(tags["CSAKD_GEO_ALIGNED"])
        assert facts["shift"] == pytest.approx(done.shift)
        assert facts["warped"] is False
        for band in (1, 3, 24):
            found, kept = after.tags(band), before.tags(band)
            assert float(found["wavelength"]) == pytest.approx(float(kept["wavelength"]))
            assert float(found["fwhm"]) == 20
        assert (after.tags(3)["bbl"], after.tags(4)["bbl"]) == ("0", "1")
    assert cog_validate(out, quiet=True)[0]
    assert files(tmp_path) == ["out.tif"]


def test_warped_pixels_nest_in_the_msi_and_show_what_lies_there(pair: Shifted, tmp_path: Path) -> None:
    align(pair.hsi, pair.msi, tmp_path / "out.tif", warp=True)
    with rasterio.open(tmp_path / "out.tif") as src, rasterio.open(pair.msi) as msi:
        cells, transform = src.read(masked=True).astype(float).filled(np.nan) * 1e-4, src.transform
        origin = ~msi.transform * (transform.c, transform.f)
        assert transform.a == pytest.approx(PIXEL)
        assert origin == pytest.approx((round(origin[0]), round(origin[1])), abs=1e-6)
    col, row = round(origin[0]), round(origin[1])
    inner = np.s_[:, 3:-3, 3:-3]
    seen = cells[inner]
    assert np.isfinite(seen).all()

    def error(y: int, x: int) -> float:
        """Against what a sensor would see from here, or from y, x MSI pixels off."""
        there = coarsen(pair.truth, RATIO, fwhm=RATIO, dy=row % RATIO + y, dx=col % RATIO + x)
        top, left = row // RATIO, col // RATIO
        part = there[:, top : top + cells.shape[1], left : left + cells.shape[2]][inner]
        return float(np.sqrt(np.square(seen - part).mean()) / part.std())

    errors = {(y, x): error(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)}
    assert min(errors, key=lambda at: errors[at]) == (0, 0)
    assert errors[0, 0] < 0.08


def test_an_hsi_in_another_crs_moves_in_its_own(pair: Shifted, tmp_path: Path) -> None:
    with rasterio.open(pair.hsi) as src:
        target, width, height = calculate_default_transform(
            src.crs, "EPSG:3035", src.width, src.height, *src.bounds, resolution=PIXEL
        )
        profile = src.profile | {
            "crs": "EPSG:3035",
            "transform": target,
            "width": width,
            "height": height,
            "dtype": "float32",
        }
        cube = np.full((src.count, height, width), np.nan, np.float32)
        reproject(
            src.read().astype(np.float32),
            cube,
            src_transform=src.transform,
            src_crs=src.crs,
            dst_transform=target,
            dst_crs="EPSG:3035",
            src_nodata=-9999,
            dst_nodata=np.nan,
            resampling=Resampling.cubic,
        )
    with rasterio.open(tmp_path / "hsi.tif", "w", **profile | {"nodata": np.nan}) as dst:
        dst.write(cube)
    done = align(tmp_path / "hsi.tif", pair.msi, tmp_path / "out.tif")
    assert np.hypot(done.shift[0] - pair.shift[0], done.shift[1] - pair.shift[1]) < 0.1 * PIXEL
    assert done.warnings == ()
    to_msi = Transformer.from_crs("EPSG:3035", made.CRS, always_xy=True)
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.crs.to_epsg() == 3035
        for at in [(0, 0), (width, 0), (width / 2, height)]:
            before, after = to_msi.transform(*target * at), to_msi.transform(*out.transform * at)
            assert np.subtract(after, before) == pytest.approx(done.shift, abs=0.5)


@pytest.mark.parametrize(
    ("kind", "nodata", "kept"), [("uint16", 0, "uint16"), ("uint8", 255, "int16"), ("float32", -1, "float32")]
)
def test_every_type_keeps_its_values(
    pair: Shifted, tmp_path: Path, kind: str, nodata: float, kept: str
) -> None:
    top = {"uint16": 60_000, "uint8": 250, "float32": 0.7}[kind]
    values = pair.counts / pair.counts.max() * top
    values = np.rint(values) if kind != "float32" else values
    cube = values.clip(1 if kind != "float32" else 0).astype(kind)
    cube[:, 5, 6] = nodata
    at = {"left": made.LEFT + ROOM * PIXEL, "top": made.TOP - ROOM * PIXEL, "pixel": PIXEL}
    hsi = made.write(tmp_path / "hsi.tif", cube, nodata=nodata, wavelength=pair.wavelength, **at)
    done = align(hsi, pair.msi, tmp_path / "out.tif", shift=(12.5, -7.0))
    with rasterio.open(tmp_path / "out.tif") as src:
        found, mask = src.read(), src.read_masks(1)
        assert src.dtypes[0] == kept
        assert (src.transform.c, src.transform.f) == pytest.approx((at["left"] + 12.5, at["top"] - 7))
    assert mask[5, 6] == 0
    assert np.count_nonzero(mask == 0) == 1
    np.testing.assert_array_equal(found[:, mask > 0], cube[:, mask > 0])
    assert (done.shift, done.explained, done.warnings) == ((12.5, -7.0), None, ())


def test_unrelated_images_are_refused_and_nothing_is_written(pair: Shifted, tmp_path: Path) -> None:
    with rasterio.open(pair.msi) as src:
        noise = np.random.default_rng(0).random(src.shape)[None].repeat(4, 0).astype(np.float32)
    msi = made.write(tmp_path / "msi.tif", noise, wavelength=made.MSI_CENTRES)
    with pytest.raises(InputError, match=r"No shift can be told: the MSI explains only \d+% .*--shift DX,DY"):
        align(pair.hsi, msi, tmp_path / "out.tif")
    assert files(tmp_path) == ["msi.tif"]


def test_a_tiny_overlap_is_refused(pair: Shifted, tmp_path: Path) -> None:
    with rasterio.open(pair.msi) as src:
        part = src.read(window=((40, 64), (40, 64)))
    msi = made.write(tmp_path / "msi.tif", part, left=made.LEFT + 400, top=made.TOP - 400)
    with pytest.raises(InputError, match="less than 8 HSI pixels per side in common"):
        align(pair.hsi, msi, tmp_path / "out.tif")


def test_what_exists_is_kept(pair: Shifted, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    out.write_text("mine")
    with pytest.raises(OutputError, match=r"'.*out\.tif' exists"):
        align(pair.hsi, pair.msi, out)
    result = run("align", pair.hsi, pair.msi, "-o", out)
    assert result.exit_code == 1
    assert "exists; give --overwrite" in result.stderr
    assert out.read_text() == "mine"
    assert run("align", pair.hsi, pair.msi, "-o", out, "--shift", "none", "--overwrite").exit_code == 0
    with rasterio.open(out) as src, rasterio.open(pair.hsi) as before:
        assert src.transform == before.transform


@pytest.mark.parametrize("name", ["out.img", "out.zarr", "out"])
def test_another_suffix_than_that_of_a_geotiff_is_refused(pair: Shifted, tmp_path: Path, name: str) -> None:
    result = run("align", pair.hsi, pair.msi, "-o", tmp_path / name, "--shift", "none")
    assert result.exit_code == 1
    assert f"'{name}' must end in .tif or .tiff: align writes a GeoTIFF." in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())
    done = align(pair.hsi, pair.msi, tmp_path / "out.TIFF", shift=(0.0, 0.0))
    with rasterio.open(done.path) as src:
        assert src.driver == "GTiff"


def test_an_input_is_never_replaced(pair: Shifted, tmp_path: Path) -> None:
    before = pair.hsi.read_bytes()
    result = run("align", pair.hsi, pair.msi, "-o", pair.hsi, "--overwrite")
    assert result.exit_code == 1
    assert "is one of the inputs" in result.stderr
    assert pair.hsi.read_bytes() == before


def test_align_command_says_what_it_did_and_fuses_without_a_shift(pair: Shifted, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    result = run("align", pair.hsi, pair.msi, "-o", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"aligned: {out}  (moved by x -8")
    assert "(2.51 HSI pixels)" in result.stdout or "(2.5" in result.stdout
    again = run("align", out, pair.msi, "-o", tmp_path / "again.tif")
    words = again.stdout.split("(")[-1]
    assert float(words.split()[0]) < 0.05


# --------------------------------------------------------------------------------------------- response


def test_response_finds_what_was_made(pair: Shifted, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    result = run("response", pair.hsi, pair.msi, "-o", folder, "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts == json.loads((folder / "response.json").read_text("utf-8"))
    assert files(folder) == ["response.csv", "response.json", "response.png"]
    assert facts["ratio"] == RATIO
    assert facts["psf_fwhm"] == pytest.approx(1, abs=0.08)
    assert facts["shift_crs_units"] == pytest.approx(pair.shift, abs=0.05 * PIXEL)
    assert [band["centre"] for band in facts["msi_bands"]] == pytest.approx(made.MSI_CENTRES, abs=25)
    assert [b["nominal_centre"] for b in facts["msi_bands"]] == pytest.approx(made.MSI_CENTRES, abs=12)
    for band in facts["msi_bands"]:
        srf = np.array(band["srf"])
        assert (srf >= 0).all()
        assert srf.sum() == pytest.approx(1)
        assert band["gain"] == pytest.approx(1, abs=0.15)
        assert band["overlap"] > 0.5
    rows = (folder / "response.csv").read_text("utf-8").splitlines()
    good = len(facts["hsi_wavelength"])
    assert good == 23  # one is flagged bad
    assert len(rows) == 1 + good
    assert rows[0].split(",")[:3] == ["band", "wavelength_nm", "noise"]
    column = [float(row.split(",")[3]) for row in rows[1:]]
    np.testing.assert_allclose(column, facts["msi_bands"][0]["srf"], rtol=1e-4, atol=1e-9)


def test_the_picture_shows_both_and_the_offset(pair: Shifted, tmp_path: Path) -> None:
    assert run("response", pair.hsi, pair.msi, "-o", tmp_path).exit_code == 0
    picture = imread(tmp_path / "response.png")[..., :3]
    found, nominal = np.array([0, 0x72, 0xB2]) / 255, np.array([0xD5, 0x5E, 0]) / 255
    for colour in (found, nominal):
        ink = np.abs(picture - colour).max(-1) < 0.05
        height, width = ink.shape
        assert ink[:, : width // 2].sum() > 200  # responses on the left
        assert ink[: height // 2, -width // 3 :].sum() > 100  # the footprint on the right


def test_response_against_a_named_sensor(pair: Shifted, tmp_path: Path) -> None:
    result = run("response", pair.hsi, pair.msi, "--msi-sensor", "sentinel2-10m", "--json")
    facts = json.loads(result.stdout)
    assert facts["nominal"].startswith("Sentinel-2 MSI")
    assert [b["nominal_centre"] for b in facts["msi_bands"]] == pytest.approx([492, 560, 665, 833], abs=12)
    wrong = run("response", pair.hsi, pair.msi, "--msi-sensor", "landsat8", "-o", tmp_path / "no")
    assert wrong.exit_code == 1
    assert "has 4 bands but Landsat 8 OLI, seven bands has 7" in wrong.stderr
    assert not (tmp_path / "no" / "response.png").exists()
    unknown = run("response", pair.hsi, pair.msi, "--msi-sensor", "moon")
    assert "There is no sensor 'moon'" in unknown.stderr


def test_response_without_wavelengths_has_band_numbers_and_no_nominal(pair: Shifted, tmp_path: Path) -> None:
    at = {"left": made.LEFT + ROOM * PIXEL, "top": made.TOP - ROOM * PIXEL, "pixel": PIXEL}
    hsi = made.write(tmp_path / "hsi.tif", pair.counts, **at)
    result = run("response", hsi, pair.msi, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    facts = json.loads((tmp_path / "out" / "response.json").read_text("utf-8"))
    assert facts["nominal"] is None
    assert {band["centre"] for band in facts["msi_bands"]} == {None}
    assert facts["hsi_wavelength"] == [None] * 24
    assert (tmp_path / "out" / "response.png").stat().st_size > 10_000
    listed = tmp_path / "bands.csv"
    listed.write_text("wavelength,fwhm\n" + "".join(f"{w:.2f},20\n" for w in pair.wavelength))
    named = run("response", hsi, pair.msi, "--wavelengths", listed, "--json")
    assert json.loads(named.stdout)["hsi_wavelength"] == pytest.approx(list(pair.wavelength), abs=0.01)


def test_response_keeps_what_exists(pair: Shifted, tmp_path: Path) -> None:
    (tmp_path / "response.csv").write_text("mine")
    result = run("response", pair.hsi, pair.msi, "-o", tmp_path)
    assert result.exit_code == 1
    assert "already holds response.csv" in result.stderr
    assert (tmp_path / "response.csv").read_text() == "mine"
    assert files(tmp_path) == ["response.csv"]


def test_a_missing_file_is_one_sentence(pair: Shifted, tmp_path: Path) -> None:
    for command in (["align", "-o", tmp_path / "out.tif"], ["response"]):
        result = run(command[0], tmp_path / "none.tif", pair.msi, *command[1:])
        assert result.exit_code == 1
        assert "none.tif' does not exist" in result.stderr
        assert result.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------- real scenes


@pytest.mark.realdata
def test_cuts_of_a_real_pair_of_sensors_are_recovered(shared_data: Path, tmp_path: Path) -> None:
    """Hyperion and ALI: where they lie is not known, but moving one moves what is found as much."""
    with rasterio.open(shared_data / "paris_pan" / "ali_pan_10m.tif") as src:
        pan, at = src.read(), src.transform
    found = []
    for rows, cols in [(0, 0), (4, -7), (-9, 6)]:
        moved = at * Affine.translation(-cols, -rows)
        name = tmp_path / f"pan{rows}.tif"
        made.write(name, pan, left=moved.c, top=moved.f, pixel=moved.a, crs=None)
        hsi = shared_data / "paris_pan" / "hyperion_hsi_30m.tif"
        x, y = align(hsi, name, tmp_path / f"out{rows}.tif").pixels
        found.append((y + rows / 3, x + cols / 3))
    np.testing.assert_allclose(found, [found[0]] * 3, atol=0.1)
