"""Reading of images and band lists, encodings, descriptions and the COG writer."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate

from csakd_geo.errors import InputError, OutputError, SpectralError
from csakd_geo.io import Source, open_source
from csakd_geo.io import cog as cog_module
from csakd_geo.io.axes import axis_from_dataarray, parse_envi_header, read_wavelengths
from csakd_geo.io.cog import RasterSpec, write_cog
from csakd_geo.io.describe import band_health, describe, find_bad_bands
from csakd_geo.io.encoding import Encoding, choose_encoding
from csakd_geo.io.placing import write_whole
from csakd_geo.io.raster import RasterSource, close_handles
from csakd_geo.spectral import SpectralAxis

UTM = CRS.from_epsg(32633)
GRID = Affine(30.0, 0.0, 365000.0, 0.0, -30.0, 5807000.0)


def _write(path: Path, values: np.ndarray, **profile: Any) -> Path:
    options = {
        "driver": "GTiff",
        "count": values.shape[0],
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype,
        "crs": UTM,
        "transform": GRID,
        **profile,
    }
    with rasterio.open(path, "w", **options) as dst:
        dst.write(values)
    return path


def _ramp(bands: int = 3, height: int = 5, width: int = 7, dtype: str = "int16") -> np.ndarray:
    return np.arange(bands * height * width, dtype=dtype).reshape(bands, height, width) + 1


# ---------------------------------------------------------------- sources


def test_raster_source_reads_physical_values(tmp_path: Path) -> None:
    values = _ramp()
    values[1, 2, 3] = -9999
    path = _write(tmp_path / "a.tif", values, nodata=-9999)
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = (0.5, 0.1, 1.0), (0.0, -1.0, 2.0)
        dst.units = ("W/m^2/sr/um",) * 3
    source = open_source(path)
    assert isinstance(source, Source)
    assert (source.height, source.width, source.axis.size) == (5, 7, 3)
    assert (source.dtype, source.nodata, source.units, source.integer) == ("int16", -9999.0, "radiance", True)
    assert source.crs == UTM
    assert source.transform == GRID
    window = source.read(1, 2, 3, 4, bands=[2, 1])
    expected = (
        values[[2, 1], 1:4, 2:6] * np.array([1.0, 0.1])[:, None, None] + np.array([2.0, -1.0])[:, None, None]
    )
    expected[1, 1, 1] = np.nan
    assert window.dtype == np.float32
    np.testing.assert_allclose(window, expected, rtol=1e-6)


def test_infinities_and_nan_nodata_are_nan(tmp_path: Path) -> None:
    values = np.array([[[1.0, np.inf, np.nan, -np.inf, 5.0]]], dtype=np.float32)
    got = open_source(_write(tmp_path / "a.tif", values, nodata=np.nan)).read(0, 0, 1, 5)
    np.testing.assert_array_equal(got, [[[1.0, np.nan, np.nan, np.nan, 5.0]]])


def test_alpha_band_is_a_mask_and_no_band(tmp_path: Path) -> None:
    values = np.full((4, 3, 3), 7, dtype=np.uint8)
    values[3] = 255
    values[3, 0, 0] = 0
    source = open_source(_write(tmp_path / "a.tif", values, photometric="RGB", alpha="YES"))
    got = source.read(0, 0, 3, 3)
    assert source.axis.size == got.shape[0] == 3
    assert np.isnan(got[:, 0, 0]).all()
    assert np.isfinite(got).sum() == 24


def test_near_infrared_mislabelled_as_alpha_stays_a_band(tmp_path: Path) -> None:
    values = np.arange(36, dtype=np.uint16).reshape(4, 3, 3)
    path = _write(tmp_path / "a.tif", values, photometric="RGB", alpha="YES")
    with rasterio.open(path) as src:
        assert src.colorinterp[3] is ColorInterp.alpha
    np.testing.assert_array_equal(open_source(path).read(0, 0, 3, 3), values)


def test_mask_file_beside_the_image_is_respected(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif", _ramp())
    with rasterio.open(path, "r+") as dst:
        mask = np.full((5, 7), 255, dtype=np.uint8)
        mask[4, 6] = 0
        dst.write_mask(mask)
    got = open_source(path).read(3, 5, 2, 2)
    assert np.isnan(got[:, 1, 1]).all()
    assert np.isfinite(got).sum() == 9


def test_source_pickles_and_is_read_by_many_threads(tmp_path: Path) -> None:
    values = _ramp(4, 40, 40)
    source = pickle.loads(pickle.dumps(open_source(_write(tmp_path / "a.tif", values))))

    def check(row: int) -> bool:
        got: bool = np.array_equal(source.read(row, 0, 1, 40)[:, 0], values[:, row])
        close_handles()
        return got

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, list(range(40)) * 3))


def test_fingerprint_follows_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif", _ramp())
    source = RasterSource.open(path)
    before = source.fingerprint()
    assert before == RasterSource.open(path).fingerprint()
    assert before.startswith("a.tif|")
    path.write_bytes(path.read_bytes() + b"x")
    assert source.fingerprint() != before


@pytest.mark.parametrize("window", [(-1, 0, 2, 2), (0, 6, 1, 2), (4, 0, 2, 1), (0, 0, 0, 1)])
def test_window_outside_is_refused(tmp_path: Path, window: tuple[int, int, int, int]) -> None:
    path = _write(tmp_path / "a.tif", _ramp())
    with pytest.raises(InputError, match=r"lies outside 'a.tif'"):
        open_source(path).read(*window)
    with pytest.raises(InputError, match="has 3 bands"):
        open_source(path).read(0, 0, 1, 1, bands=[3])


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.tif", _ramp(3, 300, 300), compress="deflate", tiled=True, blockxsize=64, blockysize=64
    )
    source = open_source(path)
    data = bytearray(path.read_bytes())
    data[2000:] = b"\0" * (len(data) - 2000)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"Reading 300 x 300 pixels .* 'a.tif' failed"):
        source.read(0, 0, 300, 300)


def test_unusable_inputs_get_one_sentence(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a raster")
    bare = _write(tmp_path / "bare.tif", _ramp(), transform=None, crs=None)
    wave = _write(tmp_path / "wave.tif", np.ones((1, 2, 2), dtype=np.complex64))
    (tmp_path / "empty").mkdir()
    cases = {
        tmp_path / "absent.tif": "does not exist",
        tmp_path / "empty": "is a folder",
        text: "cannot be opened as a raster",
        bare: "no geotransform",
        wave: "complex",
    }
    for path, words in cases.items():
        with pytest.raises(InputError, match=words) as caught:
            open_source(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="path of the image is empty"):
        open_source("")
    with pytest.raises(InputError, match="Got a ndarray"):
        open_source(_ramp())  # type: ignore[arg-type]


def test_gdal_paths_pass_through(tmp_path: Path) -> None:
    import zipfile

    path = _write(tmp_path / "a.tif", _ramp())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "a.tif")
    source = open_source(f"/vsizip/{tmp_path / 'a.zip'}/a.tif")
    np.testing.assert_array_equal(source.read(0, 0, 5, 7), _ramp())


# ---------------------------------------------------------------- arrays


def _array(values: np.ndarray, dims: tuple[str, ...] = ("band", "y", "x"), **attrs: Any) -> xr.DataArray:
    height, width = values.shape[dims.index("y")], values.shape[dims.index("x")]
    array = xr.DataArray(values, dims=dims, attrs=attrs, name="scene").assign_coords(
        y=5807000.0 - 15 - 30 * np.arange(height), x=365000.0 + 15 + 30 * np.arange(width)
    )
    return array.rio.write_crs(UTM)


def test_array_source_applies_what_attrs_say() -> None:
    import rioxarray  # noqa: F401

    values = _ramp()
    values[0, 0, 0] = -1
    array = _array(values, scale_factor=0.01, add_offset=1.0, _FillValue=-1, units="reflectance")
    source = open_source(array)
    assert (source.crs, source.transform, source.units, source.integer) == (UTM, GRID, "reflectance", True)
    expected = values[:, :2, 1:] * 0.01 + 1.0
    np.testing.assert_allclose(source.read(0, 1, 2, 6), expected, rtol=1e-6)
    assert np.isnan(source.read(0, 0, 1, 1)[0, 0, 0])


def test_array_source_does_not_decode_twice(tmp_path: Path) -> None:
    import rioxarray

    values = _ramp()
    path = _write(tmp_path / "a.tif", values, nodata=3)
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = (0.5,) * 3, (2.0,) * 3
    file = open_source(path)
    for decoded in (False, True):
        array = rioxarray.open_rasterio(path, mask_and_scale=decoded, chunks={})
        source = pickle.loads(pickle.dumps(open_source(array)))
        np.testing.assert_array_equal(
            source.read(1, 1, 3, 4, bands=[2, 0]), file.read(1, 1, 3, 4, bands=[2, 0])
        )
        np.testing.assert_array_equal(source.read(0, 0, 1, 5), file.read(0, 0, 1, 5))
        assert (source.integer, source.scale.tolist(), source.offset.tolist()) == (True, [0.5] * 3, [2.0] * 3)


def test_array_source_takes_any_order_and_planes() -> None:
    import rioxarray  # noqa: F401

    values = _ramp(dtype="float32")
    turned = _array(np.moveaxis(values, 0, -1), ("y", "x", "wavelength_index"))
    np.testing.assert_array_equal(open_source(turned).read(0, 0, 5, 7), values)
    plane = _array(values[0], ("y", "x"))
    np.testing.assert_array_equal(open_source(plane).read(0, 0, 5, 7), values[:1])
    with pytest.raises(InputError, match="expected \\(band, y, x\\)"):
        open_source(xr.DataArray(values, dims=("a", "b", "c")))
    with pytest.raises(InputError, match="no geotransform"):
        open_source(xr.DataArray(values, dims=("band", "y", "x")))


def test_array_fingerprint_follows_values() -> None:
    import rioxarray  # noqa: F401

    values = _ramp()
    first = open_source(_array(values)).fingerprint()
    assert first == open_source(_array(values.copy())).fingerprint()
    values[0, 0, 0] += 1
    assert first != open_source(_array(values)).fingerprint()


# ---------------------------------------------------------------- band lists


def test_axis_from_coordinates_in_any_unit() -> None:
    array = xr.DataArray(
        np.zeros((3, 2, 2)),
        dims=("band", "y", "x"),
        coords={
            "wavelength": ("band", [0.45, 0.55, 0.65], {"units": "um"}),
            "fwhm": ("band", [0.02, 0.03, np.nan]),
            "good": ("band", [1, 0, 1]),
        },
        attrs={"long_name": ("blue", "green", "red")},
    )
    axis = axis_from_dataarray(array)
    np.testing.assert_allclose(axis.wavelength, [450, 550, 650])
    np.testing.assert_allclose(axis.fwhm, [20, 30, np.nan])
    assert axis.good.tolist() == [True, False, True]
    assert axis.names == ("blue", "green", "red")


def test_envi_file_keeps_its_precise_wavelengths(tmp_path: Path) -> None:
    path = _write(tmp_path / "cube.bsq", _ramp(), driver="ENVI")
    with path.with_suffix(".hdr").open("a") as header:
        header.write(
            "wavelength units = Micrometers\nwavelength = {\n 0.40055, 0.41025,\n 0.420125}\n"
            "fwhm = {0.005, 0.0052, 0.006}\nbbl = {1, 0, 1}\nreflectance scale factor = 10000.0\n"
        )
    source = open_source(path)
    np.testing.assert_allclose(source.axis.wavelength, [400.55, 410.25, 420.125], rtol=1e-12)
    np.testing.assert_allclose(source.axis.fwhm, [5.0, 5.2, 6.0])
    assert source.axis.good.tolist() == [True, False, True]
    assert source.units == "reflectance"
    np.testing.assert_allclose(source.read(0, 0, 5, 7), _ramp() / 1e4, rtol=1e-6)


@pytest.mark.parametrize("unit", ["Index", "Wavenumber", "GHz"])
def test_envi_numbers_that_are_no_lengths_are_no_wavelengths(tmp_path: Path, unit: str) -> None:
    path = _write(tmp_path / "cube.bsq", _ramp(), driver="ENVI")
    with path.with_suffix(".hdr").open("a") as header:
        header.write(f"wavelength units = {unit}\nwavelength = {{1, 2, 3}}\nfwhm = {{1, 1, 1}}\n")
    axis = open_source(path).axis  # GDAL repeats the numbers as tags of the bands, without the unit Index
    assert not axis.has_wavelengths
    assert np.isnan(axis.fwhm).all()


def test_header_beside_a_tiff_counts_only_if_it_fits(tmp_path: Path) -> None:
    path = _write(tmp_path / "cube.tif", _ramp())
    text = "ENVI\nbands = {n}\nwavelength units = Unknown\nwavelength = {{0.5, 0.6, 0.7}}\n"
    header = tmp_path / "cube.hdr"
    header.write_text(text.format(n=4))
    assert not open_source(path).axis.has_wavelengths
    header.write_text(text.format(n=3))
    np.testing.assert_allclose(open_source(path).axis.wavelength, [500, 600, 700])
    header.write_text(text.format(n=3).replace("Unknown", "Index"))
    assert not open_source(path).axis.has_wavelengths


def test_band_tags_come_before_the_imagery_domain(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif", _ramp())
    with rasterio.open(path, "r+") as dst:
        for i, centre in enumerate((450.4, 550.4, 650.4), 1):
            dst.update_tags(i, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{centre / 1000:.3f}", FWHM_UM="0.010")
            dst.update_tags(i, wavelength=str(centre), wavelength_units="Nanometers", bbl=str(int(i != 2)))
    axis = open_source(path).axis
    assert axis.wavelength.tolist() == [450.4, 550.4, 650.4]
    np.testing.assert_allclose(axis.fwhm, 10.0)
    assert axis.good.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("texts", "centres"),
    [
        (("B2 (492.4 nm)", "B3 (559.8 nm)", "B4 (664.6 nm)"), [492.4, 559.8, 664.6]),
        (("0.45 Micrometers", "0.55 Micrometers", "0.65 µm"), [450.0, 550.0, 650.0]),
        (("B2 (492.4 nm)", "cloud mask", "B4 (664.6 nm)"), None),
        (("450", "550", "650"), None),
    ],
)
def test_descriptions_count_only_if_all_are_wavelengths(
    tmp_path: Path, texts: tuple[str, ...], centres: list[float] | None
) -> None:
    path = _write(tmp_path / "a.tif", _ramp())
    with rasterio.open(path, "r+") as dst:
        dst.descriptions = texts
    axis = open_source(path).axis
    assert axis.names == texts
    if centres is None:
        assert np.isnan(axis.wavelength).all()
    else:
        np.testing.assert_allclose(axis.wavelength, centres)


def test_envi_header_with_windows_line_ends() -> None:
    fields = parse_envi_header(
        "ENVI\r\nBands = 2\r\nband names = {\r\n a=b,\r\n c}\r\nwavelength = {1, 2}\r\n"
    )
    assert fields["bands"] == "2"
    assert fields["wavelength"] == "{1, 2}"


def test_band_lists_from_tables(tmp_path: Path) -> None:
    table = tmp_path / "bands.csv"
    table.write_text("wavelength,fwhm,good\n500.5,10,1\n600.5,11,0\n")
    axis = read_wavelengths(table)
    assert axis.wavelength.tolist() == [500.5, 600.5]
    assert axis.fwhm.tolist() == [10.0, 11.0]
    assert axis.good.tolist() == [True, False]
    path = _write(tmp_path / "a.tif", _ramp(2))
    assert open_source(path, axis=axis).axis.equals(axis)
    with pytest.raises(SpectralError, match=r"2 bands but 'b.tif' has 3"):
        open_source(_write(tmp_path / "b.tif", _ramp()), axis=axis)
    for text in ("red\ngreen\n", "", "500,1\n600\n"):
        table.write_text(text)
        with pytest.raises(SpectralError, match=r"no wavelengths|unequal"):
            read_wavelengths(table)
    with pytest.raises(SpectralError, match="cannot be read"):
        read_wavelengths(tmp_path / "absent.csv")


# ---------------------------------------------------------------- bad bands


def _flawed() -> np.ndarray:
    values = np.random.default_rng(3).integers(1, 999, (5, 60, 50)).astype("int16")
    values[1] = -1
    values[2] = 70
    values[2, :5] = -1
    values[4, 20:40] = -1
    return values


def test_bad_bands_and_valid_share(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif", _flawed(), nodata=-1)
    axis = SpectralAxis.unknown(5).with_good([False, True, True, True, True])
    source = open_source(path, axis=axis)
    health = band_health(source)
    assert health.flagged.tolist() == [True, False, False, False, False]
    assert health.empty.tolist() == [False, True, False, False, False]
    assert health.constant.tolist() == [False, False, True, False, False]
    assert health.valid_share == pytest.approx(40 / 60)
    assert find_bad_bands(source).tolist() == [False, False, False, True, True]


def test_large_image_is_sampled_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.zeros((3, 1200, 1300), dtype="int16")
    values[0] = np.arange(1300)
    values[1] = 5
    values[2, ::40] = 1  # looks constant in few windows, is not
    source = open_source(_write(tmp_path / "a.tif", values))
    read: list[int] = []
    original = RasterSource.read

    def counting(self: RasterSource, row: int, col: int, height: int, width: int, **more: Any) -> np.ndarray:
        got = original(self, row, col, height, width, **more)
        read.append(got.size)
        return got

    monkeypatch.setattr(RasterSource, "read", counting)
    assert find_bad_bands(source).tolist() == [True, False, True]
    assert sum(read) < values.size / 4


def test_describe_is_json_and_true(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif", _flawed(), nodata=-1)
    facts = json.loads(json.dumps(describe(open_source(path)), allow_nan=False))
    assert facts["bounds"] == [365000.0, 5807000.0 - 1800, 365000.0 + 1500, 5807000.0]
    assert facts["gsd"] == [30.0, 30.0]
    assert facts["crs"] == "EPSG:32633"
    assert facts["bad_bands"] == {"flagged": [], "nodata": [2], "constant": [3]}
    assert facts["good_bands"] == 3
    assert any("2 bands are empty or constant" in text for text in facts["warnings"])
    bare = describe(
        open_source(_write(tmp_path / "b.tif", np.full((1, 2, 2), np.nan, "float32"), nodata=np.nan))
    )
    assert json.dumps(bare, allow_nan=False)
    assert bare["valid_share"] == 0.0
    assert any("No band is usable" in text for text in bare["warnings"])


# ---------------------------------------------------------------- encoding


def _source(tmp_path: Path, dtype: str, scale: float = 1.0, offset: float = 0.0) -> Source:
    path = _write(tmp_path / f"{dtype}.tif", _ramp(dtype=dtype))
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = (scale,) * 3, (offset,) * 3
    return open_source(path)


@pytest.mark.parametrize(
    ("dtype", "scale", "p999", "expected"),
    [
        ("int16", 1e-4, 0.8, ("int16", 1e-4)),
        ("int16", 1.0, 30000.0, ("int16", 1.0)),
        ("uint8", 1.0, 250.0, ("int16", 1.0)),
        ("uint16", 1.0, 9000.0, ("int16", 1.0)),
        ("uint16", 1.0, 40000.0, ("uint16", 1.0)),
        ("int32", 1e-4, 1.5, ("int16", 1e-4)),
        ("int32", 1.0, 2e6, ("int16", 1000.0)),
        ("float32", 1.0, 0.8, ("int16", 1e-4)),
        ("float32", 1.0, 1.6, ("int16", 1e-4)),
        ("float32", 1.0, 1.7, ("int16", 1e-3)),
        ("float32", 1.0, 5900.0, ("int16", 1.0)),
        ("float32", 1.0, 0.0, ("int16", 1.0)),
    ],
)
def test_choice_of_encoding(
    tmp_path: Path, dtype: str, scale: float, p999: float, expected: tuple[str, float]
) -> None:
    encoding = choose_encoding("int16", source=_source(tmp_path, dtype, scale), p999=p999)
    assert (encoding.dtype, encoding.scale[0]) == expected
    assert encoding.scale[0] > 0
    if dtype == "float32" and p999:
        assert 1600 < p999 / encoding.scale[0] <= 16000.001


def test_choice_without_pixels_or_scaling(tmp_path: Path) -> None:
    source = _source(tmp_path, "float32")
    with pytest.raises(InputError, match="no valid pixel"):
        choose_encoding("int16", source=source, p999=math.nan)
    assert choose_encoding("float32", source=source, p999=math.nan).dtype == "float32"


@given(
    st.lists(
        st.one_of(st.floats(-5, 5, width=32), st.sampled_from([math.nan, math.inf, -math.inf])), min_size=1
    ),
    st.sampled_from(["int16", "uint16"]),
)
def test_encoding_round_trip(values: list[float], dtype: Any) -> None:
    encoding = Encoding(dtype, (1e-4,), (-0.5,), -32768.0 if dtype == "int16" else 65535.0)
    given_values = np.array(values, dtype=np.float32).reshape(1, 1, -1)
    stored, clipped = encoding.encode(given_values)
    low, high = (-32767, 32767) if dtype == "int16" else (0, 65534)
    exact = np.rint((given_values.astype(np.float64) + 0.5) / 1e-4)
    finite = np.isfinite(given_values)
    outside = finite & ((exact < low) | (exact > high))
    edge = finite & ((np.abs(exact - low) <= 1) | (np.abs(exact - high) <= 1))
    assert outside.sum() - edge.sum() <= clipped <= outside.sum() + edge.sum()
    back = encoding.decode(stored)
    assert np.isnan(back[~finite]).all()
    limits = np.clip(given_values, low * 1e-4 - 0.5, high * 1e-4 - 0.5)
    np.testing.assert_allclose(back[finite], limits[finite], atol=6e-5)
    assert Encoding.from_dict(json.loads(json.dumps(encoding.to_dict()))) == encoding


def test_encoding_spans_chunks_and_bands() -> None:
    values = np.random.default_rng(0).normal(0, 1, (3, 300, 301)).astype(np.float32)
    values[1, 299, 300] = np.nan
    values[2, 0, 0] = 40.0
    encoding = Encoding("int16", (1e-3, 1e-4, 1e-3), (0.0, 0.1, 0.0), -32768.0)
    stored, clipped = encoding.encode(values)
    scale, offset = (np.array(v)[:, None, None] for v in (encoding.scale, encoding.offset))
    expected = np.clip(
        np.rint((np.nan_to_num(values, nan=-1e9).astype(float) - offset) / scale), -32768, 32767
    )
    assert np.abs(stored.astype(float) - np.where(expected < -32767, stored, expected)).max() <= 1
    assert stored[1, 299, 300] == -32768
    assert stored[2, 0, 0] == 32767
    assert clipped == int((np.abs(np.rint((values[1] - 0.1) / 1e-4)) > 32767).sum()) + 1


def test_float_encoding_keeps_values() -> None:
    encoding = Encoding("float32")
    values = np.array([[[1.5, np.inf, np.nan]]])
    stored, clipped = encoding.encode(values)
    np.testing.assert_array_equal(
        encoding.decode(stored), np.array([[[1.5, np.nan, np.nan]]], dtype=np.float32)
    )
    assert clipped == 0
    back = Encoding.from_dict(json.loads(json.dumps(encoding.to_dict(), allow_nan=False)))
    assert math.isnan(back.nodata)


# ---------------------------------------------------------------- COG


def _spec(bands: int = 6, size: tuple[int, int] = (700, 610), **changes: Any) -> RasterSpec:
    axis = SpectralAxis.build(
        np.linspace(400.25, 900, bands),
        fwhm=np.where(np.arange(bands) == 1, np.nan, 6.5),
        good=np.arange(bands) != 2,
    )
    spec = RasterSpec(
        size[0], size[1], GRID, UTM, axis, Encoding("int16", (1e-4,), (0.25,), -32768.0), units="reflectance"
    )
    return replace(spec, **changes)


def _values(spec: RasterSpec) -> np.ndarray:
    shape = (spec.axis.size, spec.height, spec.width)
    return np.random.default_rng(1).integers(0, 12000, shape).astype(spec.encoding.dtype)


def _blocks(values: np.ndarray, side: int = 512) -> Iterator[tuple[int, int, np.ndarray]]:
    for row in range(0, values.shape[1], side):
        for col in range(0, values.shape[2], side):
            yield row, col, values[:, row : row + side, col : col + side]


@pytest.mark.parametrize("compress", ["auto", "deflate"])
@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
def test_cog_holds_pixels_and_metadata(tmp_path: Path, dtype: Any, compress: Any) -> None:
    nodata = {"int16": -32768.0, "uint16": 65535.0, "float32": math.nan}[dtype]
    spec = _spec(
        encoding=Encoding(dtype, (1e-4,), (0.25,), nodata), compress=compress, tags={"MODEL": "test"}
    )
    values = _values(spec)
    values[2] = 0 if math.isnan(nodata) else nodata
    stages: list[tuple[str, float]] = []
    target = tmp_path / "out.tif"
    work = tmp_path / "out.part"
    work.mkdir()
    write_cog(
        target,
        spec,
        _blocks(values),
        workdir=work,
        progress=lambda stage, share: stages.append((stage, share)),
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.part", "out.tif"]
    assert list(work.iterdir()) == []
    assert cog_validate(target, strict=True, quiet=True)[0]
    with rasterio.open(target) as src:
        np.testing.assert_array_equal(src.read(), values)
        assert src.interleaving.value == "BAND"
        assert all(src.overviews(i) == [2, 4] for i in src.indexes)
        assert src.crs == UTM
        assert src.transform == GRID
        assert src.units == ("reflectance",) * 6
        assert src.scales == (1e-4,) * 6
        assert src.offsets == (0.25,) * 6
        assert src.nodata == nodata or math.isnan(nodata)
        assert src.tags()["MODEL"] == "test"
        assert src.tags(1, ns="IMAGERY") == {"CENTRAL_WAVELENGTH_UM": "0.40025", "FWHM_UM": "0.0065"}
        assert src.tags(3)["bbl"] == "0"
        assert src.tags(1)["wavelength"] == "400.25"
        assert src.descriptions[0] == "Band 1 (400.25 nm)"
        assert set(src.colorinterp[1:]) == {ColorInterp.undefined}
        assert src.block_shapes[0] == (256, 256)
    axis = open_source(target).axis
    np.testing.assert_allclose(axis.wavelength, spec.axis.wavelength, rtol=1e-6)
    np.testing.assert_array_equal(axis.good, spec.axis.good)
    assert [stage for stage, share in stages if share == 1.0] == ["write", "overviews", "copy", "validate"]


def test_overviews_average_valid_pixels_only(tmp_path: Path) -> None:
    spec = _spec(1, (512, 512))
    values = np.full((1, 512, 512), -32768, dtype=np.int16)
    values[0, ::2, ::2] = 100
    values[0, 1::2, 1::2] = 300
    values[0, :2, :2] = -32768
    write_cog(tmp_path / "o.tif", spec, _blocks(values), workdir=tmp_path)
    with rasterio.open(tmp_path / "o.tif", overview_level=0) as src:
        half = src.read(1)
    assert half[0, 0] == -32768
    assert (half.ravel()[1:] == 200).all()


def test_small_raster_without_crs_needs_no_overviews(tmp_path: Path) -> None:
    spec = _spec(3, (20, 33), crs=None)
    values = _values(spec)
    write_cog(tmp_path / "o.tif", spec, [(0, 0, values)], workdir=tmp_path)
    with rasterio.open(tmp_path / "o.tif") as src:
        assert src.overviews(1) == []
        assert src.colorinterp[0] is ColorInterp.gray
        np.testing.assert_array_equal(src.read(), values)


def test_uncovered_area_is_nodata_and_target_is_replaced(tmp_path: Path) -> None:
    spec = _spec(2, (600, 600))
    target = tmp_path / "o.tif"
    target.write_bytes(b"an older product")
    write_cog(target, spec, [(512, 512, _values(spec)[:, 512:, 512:])], workdir=tmp_path)
    with rasterio.open(target) as src:
        got = src.read()
    assert (got[:, :512] == -32768).all()
    np.testing.assert_array_equal(got[:, 512:, 512:], _values(spec)[:, 512:, 512:])


def test_failure_leaves_target_and_folder_alone(tmp_path: Path) -> None:
    spec = _spec()
    target = tmp_path / "o.tif"
    target.write_bytes(b"old")

    def broken() -> Iterator[tuple[int, int, np.ndarray]]:
        yield 0, 0, _values(spec)[:, :512, :512]
        raise RuntimeError("the worker died")

    with pytest.raises(RuntimeError, match="the worker died"):
        write_cog(target, spec, broken(), workdir=tmp_path)
    wrong = _values(spec)
    cases: list[tuple[int, int, np.ndarray]] = [
        (1, 0, wrong),
        (0, -1, wrong[:, :2, :2]),
        (0, 0, wrong[:2]),
        (0, 0, wrong.astype("float32")),
    ]
    for block in cases:
        with pytest.raises(OutputError, match="does not fit a product of 6 x 700 x 610 int16"):
            write_cog(target, spec, [block], workdir=tmp_path)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["o.tif"]


def test_unusable_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _spec(1, (20, 20))
    block = [(0, 0, _values(spec))]
    with pytest.raises(OutputError, match="is a folder"):
        write_cog(tmp_path, spec, block, workdir=tmp_path)
    with pytest.raises(OutputError, match="does not exist"):
        write_cog(tmp_path / "no" / "o.tif", spec, block, workdir=tmp_path)
    with pytest.raises(OutputError, match="multiple of 16"):
        write_cog(tmp_path / "o.tif", replace(spec, blocksize=100), block, workdir=tmp_path)

    def locked(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(cog_module.os, "replace", locked)
        with pytest.raises(OutputError, match="permission denied"):
            write_cog(tmp_path / "o.tif", spec, block, workdir=tmp_path)
    monkeypatch.setattr(cog_module.shutil, "disk_usage", lambda path: _Usage(1000))
    with pytest.raises(OutputError, match=r"0.00 GB are free"):
        write_cog(tmp_path / "o.tif", _spec(), [], workdir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_small_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    write_whole(target, b"old")
    assert target.read_bytes() == b"old"

    def locked(source: Path, target: Path) -> None:
        assert source.read_bytes() == b"new"  # it is whole before it comes to its place
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("csakd_geo.io.placing.os.replace", locked)
        with pytest.raises(OutputError, match=r"a.json' cannot be written \(permission denied\)"):
            write_whole(target, b"new")
    assert target.read_bytes() == b"old"
    with pytest.raises(OutputError, match=r"b' was not written \(.*Not a directory"):
        write_whole(target / "b", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("lost", [1, 200_000])
def test_pixels_that_gdal_lost_without_a_word_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    copy = cog_module.rasterio.shutil.copy

    def short(source: Path, target: Path, **options: Any) -> None:
        copy(source, target, **options)
        data = Path(target).read_bytes()
        Path(target).write_bytes(data[: len(data) - lost])

    (tmp_path / "o.tif").write_bytes(b"old")
    monkeypatch.setattr(cog_module.rasterio.shutil, "copy", short)
    with pytest.raises(OutputError, match="disk is full"):
        write_cog(tmp_path / "o.tif", _spec(), _blocks(_values(_spec())), workdir=tmp_path)
    assert (tmp_path / "o.tif").read_bytes() == b"old"


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


@pytest.mark.parametrize("limit", [300_000, 2_000_000, 5_200_000])
def test_write_errors_of_the_system_are_never_taken_for_success(tmp_path: Path, limit: int) -> None:
    """GDAL may only print such errors; a limit on file size stands in for a full disk."""
    pytest.importorskip("resource", reason="limits on file size are a POSIX feature")
    (tmp_path / "o.tif").write_bytes(b"old")
    code = f"""
        import resource, signal
        from pathlib import Path
        import numpy as np
        from affine import Affine
        from csakd_geo.errors import OutputError
        from csakd_geo.io.cog import RasterSpec, write_cog
        from csakd_geo.io.encoding import Encoding
        from csakd_geo.spectral import SpectralAxis
        spec = RasterSpec(
            600, 600, Affine(1, 0, 9, 0, -1, 9), None, SpectralAxis.unknown(6), Encoding("int16", nodata=-32768)
        )
        values = np.random.default_rng(0).integers(-30000, 30000, (6, 600, 600)).astype("int16")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        folder = Path({str(tmp_path)!r})
        try:
            write_cog(folder / "o.tif", spec, [(0, 0, values)], workdir=folder)
        except OutputError as error:
            print("refused:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("refused:")
    assert (tmp_path / "o.tif").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["o.tif"]


# ---------------------------------------------------------------- real files


@pytest.mark.realdata
def test_every_shared_image_opens_with_a_sensible_axis(shared: Path) -> None:
    paths = sorted((shared / "data").glob("*/*.tif"))
    assert paths
    for path in paths:
        source = open_source(path)
        known = source.axis.wavelength[np.isfinite(source.axis.wavelength)]
        assert known.size in (0, source.axis.size), path.name
        assert ((known > 350) & (known < 2600)).all(), path.name
        widths = source.axis.fwhm[np.isfinite(source.axis.fwhm)]
        assert ((widths > 1) & (widths < 300)).all(), path.name
        assert np.isfinite(source.read(0, 0, 8, 8)).any(), path.name


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("path", "good", "first", "last"),
    [
        ("aviris/gatorsense_224.tif", 224 - 43, 365.91, 2496.22),
        ("enmap_potsdam/block_A_128x64.tif", 224 - 6, 418.24, 2445.53),
        ("dlr_hysu/DLR_HySU_HS_full.tif", 135, 417.4, 902.79),
        ("dlr_hysu/DLR_HySU_HS_all_targets.tif", 135, 417.4, 902.79),
        ("neon_sjer052/SJER_052_hyperspectral.tif", 426, math.nan, math.nan),
    ],
)
def test_known_quirks(shared: Path, path: str, good: int, first: float, last: float) -> None:
    source = open_source(shared / "data" / path)
    assert find_bad_bands(source).sum() == good
    np.testing.assert_allclose(source.axis.wavelength[[0, -1]], [first, last])
    facts = describe(source)
    assert json.dumps(facts, allow_nan=False)
    assert (facts["crs"] is None) == (source.crs is None)


@pytest.mark.realdata
def test_neon_takes_its_band_list_from_the_table(shared: Path) -> None:
    folder = shared / "data" / "neon_sjer052"
    axis = read_wavelengths(folder / "neon_wavelength_nm.csv")
    source = open_source(folder / "SJER_052_hyperspectral.tif", axis=axis)
    assert source.crs is None
    assert source.axis.size == 426
    assert source.axis.wavelength[0] == pytest.approx(383.534)
    rgb = open_source(folder / "SJER_052_rgb.tif").read(0, 0, 400, 400)
    assert np.nanmax(rgb) < 255
    assert np.isnan(rgb).any()
