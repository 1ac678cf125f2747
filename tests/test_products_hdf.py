"""Readers of sensor products in HDF5 and NetCDF-4: EMIT, NEON, AVIRIS-3."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import products as made
import pytest

from csakd_geo.errors import InputError
from csakd_geo.grid import lay_grid
from csakd_geo.io import open_source
from csakd_geo.io.describe import describe
from csakd_geo.io.products import find_sensor

EMIT_NAME = "EMIT_L2A_RFL_001_20220815T042838_2222703_003.nc"


def tilted(lines: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """A lookup table that turns the cube by 45 degrees; 0 outside, one entry negative (a repeat)."""
    y, x = np.mgrid[: lines + samples, : lines + samples]
    line, sample = (y - x + samples) // 2, (y + x - samples) // 2
    inside = (line >= 0) & (line < lines) & (sample >= 0) & (sample < samples)
    table_x, table_y = np.where(inside, sample + 1, 0), np.where(inside, line + 1, 0)
    first = tuple(np.argwhere(inside)[3])
    table_x[first], table_y[first] = -table_x[first], -table_y[first]
    return table_x, table_y


def test_emit_is_put_on_its_map_grid(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    cube = rng.random((9, 7, 5))
    cube[2, 2, 1] = -9999
    table_x, table_y = tilted(9, 7)
    flags = np.zeros((9, 7, 6))
    flags[4, 3, 4] = 1  # dilated cloud
    flags[5, 5, 2] = 1  # water counts as valid
    flags[..., 5] = 0.3  # a quantity, no flag
    path = made.emit(tmp_path / EMIT_NAME, cube, table_x, table_y, flags=flags)
    source = pickle.loads(pickle.dumps(open_source(path)))
    expected = np.full((5, *table_x.shape), np.nan)
    for r, c in np.argwhere(table_x != 0):
        line, sample = abs(table_y[r, c]) - 1, abs(table_x[r, c]) - 1
        expected[:, r, c] = np.nan if (line, sample) == (4, 3) else cube[line, sample]
    expected[expected == -9999] = np.nan
    assert np.isfinite(expected).any(0).sum() > 40
    np.testing.assert_allclose(source.read(0, 0, *table_x.shape), expected, rtol=1e-6)
    np.testing.assert_allclose(source.read(5, 3, 4, 6, bands=[4, 1]), expected[[4, 1], 5:9, 3:9], rtol=1e-6)
    assert np.isnan(source.read(0, 0, 2, 2)).all()
    assert str(source.crs) == "EPSG:4326"
    assert source.transform[:6] == (0.0005, 0, 15.0, 0, -0.0005, 52.5)
    np.testing.assert_array_equal(source.axis.good, [True, True, True, False, True])
    said = " ".join(describe(source)["warnings"])
    assert "lookup table" in said
    assert "an HSI may stay so, since fuse warps it onto the MSI's grid" in said


def test_emit_without_a_mask_says_so(tmp_path: Path) -> None:
    table_x, table_y = tilted(9, 7)
    path = made.emit(tmp_path / EMIT_NAME, np.ones((9, 7, 5)), table_x, table_y)
    assert "clouds are not masked" in " ".join(describe(open_source(path))["warnings"])
    assert find_sensor(tmp_path) == "emit"


def test_emit_lies_on_the_grid_of_an_msi_in_utm(tmp_path: Path) -> None:
    table_x, table_y = tilted(60, 60)
    path = made.emit(tmp_path / EMIT_NAME, np.ones((60, 60, 5)), table_x, table_y, corner=(14.99, 52.36))
    msi = made.raster(tmp_path / "msi.tif", np.ones((4, 150, 150), np.uint8), pixel=10)
    grid = lay_grid(open_source(path), open_source(msi))
    assert grid.ratio in (4, 5)
    assert (grid.height, grid.width, grid.nested) == (150, 150, False)


def test_emit_with_a_part_missing(tmp_path: Path) -> None:
    table_x, table_y = tilted(9, 7)
    path = made.emit(tmp_path / EMIT_NAME, np.ones((9, 7, 5)), table_x, table_y)
    with h5py.File(path, "a") as file:
        del file["location/glt_x"]
    with pytest.raises(InputError, match="incomplete or damaged"):
        open_source(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="incomplete or damaged"):
        open_source(path)


def test_neon_real_subset(shared_data: Path) -> None:
    path = shared_data / "neon_h5" / "neon_reflectance_subset.h5"
    if not path.is_file():
        pytest.skip("no NEON file")
    source = open_source(path)
    with h5py.File(path) as file:
        stored = file["SJER/Reflectance/Reflectance_Data"][()]
        wavelength = file["SJER/Reflectance/Metadata/Spectral_Data/Wavelength"][()]
        info = file["SJER/Reflectance/Metadata/Coordinate_System/Map_Info"][()][0].decode().split(",")
        epsg = file["SJER/Reflectance/Metadata/Coordinate_System/EPSG Code"][()][0].decode()
    expected = np.where(stored == -9999, np.nan, stored / 10000).transpose(2, 0, 1)
    np.testing.assert_allclose(source.read(0, 0, 30, 30), expected, rtol=1e-6)
    np.testing.assert_allclose(
        source.read(3, 4, 5, 6, bands=[400, 2]), expected[[400, 2], 3:8, 4:10], rtol=1e-6
    )
    np.testing.assert_allclose(source.axis.wavelength, wavelength)
    assert (source.transform.c, source.transform.f) == (float(info[3]), float(info[4]))
    assert source.crs is not None
    assert source.crs.to_epsg() == int(epsg)
    assert describe(source)["driver"] == "NEON"


def test_neon_marks_the_water_windows_of_the_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "NEON_D17_SJER_DP3_256000_4106000_reflectance.h5", "w") as file:
        group = file.create_group("SJER/Reflectance")
        group.attrs["Band_Window_1_Nanometers"] = [1340.0, 1445.0]
        group["Reflectance_Data"] = np.full((4, 5, 3), 250, np.int16)
        group["Reflectance_Data"].attrs["Scale_Factor"] = 10000.0
        group["Reflectance_Data"].attrs["Data_Ignore_Value"] = -9999.0
        group["Metadata/Spectral_Data/Wavelength"] = [600.0, 1400.0, 2000.0]
        group["Metadata/Spectral_Data/FWHM"] = [5.0, 5.1, 5.2]
        text = h5py.string_dtype()
        place = group.create_group("Metadata/Coordinate_System")
        place.create_dataset("EPSG Code", data="32611", dtype=text)
        place.create_dataset(
            "Map_Info", data="UTM, 1.000, 1.000, 256000.0, 4107000.0, 1.0, 1.0, 11, North, WGS-84", dtype=text
        )
    source = open_source(tmp_path)
    np.testing.assert_array_equal(source.axis.good, [True, False, True])
    np.testing.assert_array_equal(source.axis.fwhm, [5.0, 5.1, 5.2])
    assert source.transform[:6] == (1.0, 0, 256000.0, 0, -1.0, 4107000.0)
    assert source.read(0, 0, 4, 5)[0, 0, 0] == pytest.approx(0.025)
