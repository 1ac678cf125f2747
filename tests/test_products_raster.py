"""Readers of sensor products in GeoTIFF and ENVI: DESIS, Hyperion, PlanetScope, AVIRIS-NG; AVIRIS-3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import products as made
import pytest

from csakd_geo.errors import InputError
from csakd_geo.io import open_source
from csakd_geo.io.describe import describe
from csakd_geo.io.products import find_sensor


def counts(bands: int, height: int = 8, width: int = 9) -> np.ndarray:
    return np.random.default_rng(bands).integers(100, 6000, (bands, height, width)).astype(np.int16)


def test_desis_is_scaled_and_masked(tmp_path: Path) -> None:
    stored = counts(4)
    stored[:, 1, 1] = -32768
    quality = np.zeros((10, 8, 9), np.uint8)
    quality[0, 2, 2] = quality[5, 3, 3] = quality[6, 4, 4] = 1  # shadow, cloud over land, over water
    quality[1, 5, 5] = quality[7, 6, 6] = 1  # clear land, clear water
    quality[8] = 30  # aerosol, no flag
    folder = made.desis(tmp_path, stored, quality=quality)
    source = open_source(folder)
    expected = stored * 0.0001 + 0.01 * np.arange(4)[:, None, None]
    for k in range(1, 5):
        expected[:, k, k] = np.nan
    np.testing.assert_allclose(source.read(0, 0, 8, 9), expected, rtol=1e-5)
    np.testing.assert_array_equal(source.axis.wavelength, made.DESIS_NM)
    assert describe(source)["driver"] == "DESIS L2A"
    assert find_sensor(made.zipped(folder, tmp_path / "desis.zip")) == "desis"


def test_hyperion_keeps_the_calibrated_bands_in_order(tmp_path: Path) -> None:
    stored = counts(242, 3, 4)
    folder = made.hyperion(tmp_path, stored)
    source = open_source(folder)
    assert source.axis.size == 198
    assert np.all(np.diff(source.axis.wavelength) > 0)
    # bands 8, 57, 77 and 224 of the mission's table, to half a nanometre
    for band, centre, factor in ((8, 426.82, 40), (57, 925.41, 40), (77, 912.45, 80), (224, 2395.50, 80)):
        k = source.axis.names.index(f"B{band:03d}")
        assert abs(source.axis.wavelength[k] - centre) < 0.5
        seen = source.read(0, 0, 3, 4, bands=[k])[0]
        np.testing.assert_allclose(seen, stored[band - 1] / factor, rtol=1e-6)
    facts = describe(source)
    assert facts["nominal_wavelengths"]
    assert "Two detectors overlap from 912 to 925 nm, where 4 bands lie" in " ".join(facts["warnings"])
    (folder / "EO1H1930232010200110KF_B100_L1T.TIF").unlink()
    with pytest.raises(InputError, match="lacks band B100"):
        open_source(folder)


@pytest.mark.parametrize(("bands", "surface"), [(4, True), (8, True), (8, False)])
def test_planetscope_is_scaled_and_masked(tmp_path: Path, bands: int, surface: bool) -> None:
    stored = counts(bands).astype(np.uint16)
    udm = np.zeros((8, 8, 9), np.uint8)
    udm[0] = 1
    udm[2, 1, 1] = udm[4, 2, 2] = udm[5, 3, 3] = 1
    udm[7, 4, 4], udm[7, 5, 5] = 3, 2  # black fill and cloud; cloud by an older rule alone
    udm[3, 6, 6] = 1  # light haze stays
    udm[6] = 90
    source = open_source(made.planetscope(tmp_path, stored, udm, surface=surface))
    gain = np.full(bands, 1e-4) if surface else 2e-5 + 1e-6 * np.arange(bands)
    expected = stored * gain[:, None, None]
    for k in range(1, 5):
        expected[:, k, k] = np.nan
    np.testing.assert_allclose(source.read(0, 0, 8, 9), expected, rtol=1e-5)
    assert source.axis.names[0] == ("blue" if bands == 4 else "coastal blue")
    assert any("at the sensor" in text for text in describe(source)["warnings"]) is not surface


def test_aviris_ng_opens_from_image_header_and_folder(tmp_path: Path) -> None:
    cube = np.random.default_rng(4).random((5, 6, 7)).astype(np.float32)
    cube[:, 0, 0] = -9999
    image = made.aviris_envi(tmp_path / "ang20190624t230039_rfl_v2u1_img", cube, rotation=30.0)
    made.aviris_envi(tmp_path / "ang20190624t230039_rdn_v2u1_glt", cube)
    expected = np.where(cube == -9999, np.nan, cube)
    for path in (image, image.with_name(image.name + ".hdr"), tmp_path):
        assert find_sensor(path) == "aviris"
        source = open_source(path)
        np.testing.assert_array_equal(source.read(0, 0, 6, 7), expected)
        np.testing.assert_array_equal(source.axis.wavelength, 400.5 + 5 * np.arange(5))
        assert source.units == "reflectance"
        assert source.transform.b != 0
    made.aviris_envi(tmp_path / "ang20190624t240000_rfl_v2u1_img", cube)
    with pytest.raises(InputError, match="holds 2 AVIRIS images"):
        open_source(tmp_path)


def test_aviris_3_netcdf(tmp_path: Path) -> None:
    cube = np.random.default_rng(5).random((5, 6, 7))
    cube[2, 3, 3] = -9999
    path = made.aviris_netcdf(tmp_path / "AV320230926t201618_000_L2A_OE_0b4f48b4_RFL_ORT.nc", cube)
    source = open_source(path)
    expected = np.where(cube == -9999, np.nan, cube)
    np.testing.assert_allclose(source.read(1, 2, 4, 5, bands=[4, 2]), expected[[4, 2], 1:5, 2:7], rtol=1e-6)
    assert source.transform[:6] == (3.0, 0, made.LEFT, 0, -3.0, made.TOP)
    assert str(source.crs) == made.CRS
    np.testing.assert_allclose(source.axis.wavelength, 400.5 + 7.4 * np.arange(5), rtol=1e-6)
