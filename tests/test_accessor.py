"""The accessor ``.csakd`` and the xarray engine, against rasterio, numpy and the files themselves."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import dask
import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.mask
import rioxarray
import xarray as xr
from numpy.typing import NDArray
from pyproj import Transformer
from rio_cogeo.cogeo import cog_validate
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

import csakd_geo
from csakd_geo.errors import CsakdGeoError, GridError, InputError, OutputError, SpectralError
from csakd_geo.io import open_source
from csakd_geo.simulate import SimulatedPaths
from csakd_geo.spectral import SpectralAxis
from tests import products
from tests.made import LEFT, PIXEL, TOP, make_pair

HEIGHT, WIDTH, BANDS = 300, 280, 12
WAVELENGTH = np.linspace(450.0, 900.0, BANDS)
SCALE = 0.01
Array = NDArray[Any]


def write_image(path: Path, stored: Array, *, dtype: str = "int16", nodata: float = -999) -> Path:
    """A GeoTIFF in small tiles with wavelengths, bad band 3 and one scale for all."""
    bands, height, width = stored.shape
    transform = rasterio.transform.from_origin(LEFT, TOP, PIXEL, PIXEL)
    described = {"crs": "EPSG:32633", "transform": transform, "nodata": nodata, "dtype": dtype}
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(path, "w", "GTiff", width, height, bands, **described, **tiles) as dst:
        dst.write(stored.astype(dtype))
        dst.scales = [SCALE] * bands
        for k in range(bands):
            tags = {"wavelength": repr(float(WAVELENGTH[k])), "fwhm": "12", "bbl": "0" if k == 2 else "1"}
            dst.update_tags(k + 1, **tags)
            dst.set_band_description(k + 1, f"channel {k + 1}")
    return path


@pytest.fixture(scope="module")
def stored() -> Array:
    """Counts; a corner is nodata in all bands, one spot in a single band."""
    rng = np.random.default_rng(4)
    counts = rng.integers(100, 9000, (BANDS, HEIGHT, WIDTH)).astype(np.int16)
    counts[:, :40, :50] = -999
    counts[5, 200:210, 100:120] = -999
    return counts


@pytest.fixture(scope="module")
def image(stored: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp("image") / "image.tif", stored)


@pytest.fixture(scope="module")
def truth(stored: Array) -> Array:
    """What the image means: physical values with NaN."""
    return np.where(stored == -999, np.nan, stored.astype(np.float64) * SCALE)


@pytest.fixture
def cube(image: Path) -> xr.DataArray:
    return csakd_geo.open_cube(image)


def places(n: int = 200, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return np.stack([LEFT + rng.random(n) * WIDTH * PIXEL, TOP - rng.random(n) * HEIGHT * PIXEL], axis=1)


# The engine


def test_engine_keeps_values_bands_and_place(image: Path, truth: Array) -> None:
    with xr.open_dataset(image, engine="csakd") as dataset:
        assert list(dataset.data_vars) == ["image"]
        array = dataset["image"]
        np.testing.assert_allclose(array.values, truth, rtol=1e-6)
        np.testing.assert_array_equal(array.wavelength, WAVELENGTH)
        np.testing.assert_array_equal(array.fwhm, np.full(BANDS, 12.0))
        assert np.flatnonzero(~array.good.values).tolist() == [2]
        assert array.band_name.values[:2].tolist() == ["channel 1", "channel 2"]
        with rasterio.open(image) as src:
            assert array.rio.crs == src.crs
            assert array.rio.transform() == src.transform
            assert (array.x[0].item(), array.y[-1].item()) == pytest.approx(src.xy(HEIGHT - 1, 0))


def test_engine_reads_only_what_is_asked_for(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from csakd_geo.io.raster import RasterSource

    read, windows = RasterSource.read, []

    def watched(self: RasterSource, *window: int, bands: Any = None) -> Array:
        windows.append((*window, len(bands)))
        return read(self, *window, bands=bands)

    monkeypatch.setattr(RasterSource, "read", watched)
    dataset = xr.open_dataset(image, engine="csakd")
    lazy = xr.open_dataset(image, engine="csakd", chunks={})
    assert windows == []
    _ = dataset.image[3, 10:14, 20:25].values
    assert windows == [(10, 20, 4, 5, 1)]
    windows.clear()
    assert lazy.image.data.chunksize == (BANDS, 256, 256)
    _ = lazy.image[:, 280, 270].values
    assert windows == [(280, 270, 1, 1, BANDS)]
    windows.clear()
    lazy.image.load()
    sides = ((0, 256), (256, HEIGHT - 256)), ((0, 256), (256, WIDTH - 256))
    assert sorted(windows) == [(row, col, h, w, BANDS) for row, h in sides[0] for col, w in sides[1]]


@pytest.mark.parametrize(
    "key",
    [
        np.s_[2, 5, 7],
        np.s_[:, 5],
        np.s_[::3, ::-7, 100:40:-2],
        np.s_[[4, 1], 3:9, [7, 2, 2]],
        np.s_[1:1],
        np.s_[-1, -1:, -3],
    ],
)
def test_engine_indexes_like_numpy(image: Path, truth: Array, key: Any) -> None:
    array = xr.open_dataset(image, engine="csakd").image
    expected = truth
    keys = key if isinstance(key, tuple) else (key,)
    for axis in range(len(keys) - 1, -1, -1):  # each axis by itself, as xarray does
        expected = expected[(slice(None),) * axis + (keys[axis],)]
    np.testing.assert_allclose(array[key].values, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["envi", "zarr", "netcdf"])
def test_engine_opens_every_format(image: Path, truth: Array, tmp_path: Path, kind: str) -> None:
    """Files made by rasterio and xarray, not by the package's own writers."""
    if kind == "envi":
        path = tmp_path / "a.img"
        described = {
            "crs": "EPSG:32633",
            "transform": rasterio.transform.from_origin(LEFT, TOP, PIXEL, PIXEL),
        }
        with rasterio.open(path, "w", "ENVI", WIDTH, HEIGHT, BANDS, dtype="float32", **described) as dst:
            dst.write(truth.astype(np.float32))
        header = path.with_suffix(".hdr")
        text = ", ".join(f"{w / 1000:.6f}" for w in WAVELENGTH)
        header.write_text(header.read_text() + f"wavelength units = Micrometers\nwavelength = {{{text}}}\n")
    else:
        with rioxarray.open_rasterio(image, masked=True) as found:
            dataset = xr.DataArray(
                truth.astype(np.float32),
                dims=("band", "y", "x"),
                coords={"y": found.y, "x": found.x, "wavelength": ("band", WAVELENGTH, {"units": "nm"})},
                name="r",
            )
            dataset = dataset.rio.write_crs("EPSG:32633").rio.write_grid_mapping()
        path = tmp_path / ("a.zarr" if kind == "zarr" else "a.nc")
        if kind == "zarr":
            dataset.to_dataset().to_zarr(path, zarr_format=2)
        else:
            dataset.to_dataset().to_netcdf(path, engine="h5netcdf")
    array = xr.open_dataset(path, engine="csakd", chunks={"y": 256, "x": 256}).image
    assert array.chunks is not None
    np.testing.assert_allclose(array.values, truth, rtol=1e-6)
    np.testing.assert_allclose(array.wavelength, WAVELENGTH, rtol=1e-6)
    assert array.rio.crs == rasterio.crs.CRS.from_epsg(32633)


def test_engine_opens_a_sensor_product(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(1, 5000, (10, 20, 24)).astype(np.int16)
    folder = products.enmap(tmp_path, counts)
    source = open_source(folder)
    array = xr.open_dataset(folder, engine="csakd", sensor="enmap").image
    assert array.sizes == {"band": 10, "y": 20, "x": 24}
    np.testing.assert_array_equal(array.wavelength, source.axis.wavelength)
    assert np.isfinite(array.wavelength).all()
    np.testing.assert_allclose(array.values, source.read(0, 0, 20, 24))


def test_engine_takes_a_band_list(image: Path, tmp_path: Path) -> None:
    table = tmp_path / "bands.csv"
    table.write_text("wavelength,fwhm\n" + "".join(f"{1000 + 10 * k},5\n" for k in range(BANDS)))
    array = csakd_geo.open_cube(image, wavelengths=table, chunks=None)
    assert array.chunks is None
    np.testing.assert_array_equal(array.csakd.wavelengths, 1000 + 10 * np.arange(BANDS))
    table.write_text("500\n")
    with pytest.raises(SpectralError, match="band list given has 1 bands"):
        csakd_geo.open_cube(image, wavelengths=table)


def test_engine_joins_a_list_of_files(stored: Array, truth: Array, tmp_path: Path) -> None:
    paths = []
    for k, cols in enumerate((np.s_[:150], np.s_[150:])):
        paths.append(write_image(tmp_path / f"{k}.tif", stored[..., cols]))
        with rasterio.open(paths[-1], "r+") as dst:
            dst.transform = rasterio.transform.from_origin(LEFT + k * 1500, TOP, PIXEL, PIXEL)
    array = csakd_geo.open_cube(paths)
    assert array.shape == truth.shape
    np.testing.assert_allclose(array.values, truth, rtol=1e-6)


def test_engine_fails_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        xr.open_dataset(tmp_path / "none.tif", engine="csakd")
    rotated = products.aviris_envi(tmp_path / "rotated.img", np.ones((4, 6, 6), np.float32), rotation=20.0)
    with pytest.raises(InputError, match="is rotated, so it has no y and x coordinates; warp it"):
        csakd_geo.open_cube(rotated)


def test_dropped_coordinates_are_not_there(image: Path) -> None:
    assert "fwhm" not in xr.open_dataset(image, engine="csakd", drop_variables="fwhm").coords
    kept = xr.open_dataset(image, engine="csakd", drop_variables=["fwhm", "good"]).coords
    assert {"wavelength", "band_name"} <= set(kept)
    assert not {"fwhm", "good"} & set(kept)


def test_xarray_writes_what_the_engine_read(image: Path, stored: Array, tmp_path: Path) -> None:
    with xr.open_dataset(image, engine="csakd") as dataset:
        dataset.to_netcdf(tmp_path / "again.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "again.nc", engine="h5netcdf", mask_and_scale=False) as again:
        assert again.image.dtype == np.int16
        np.testing.assert_array_equal(again.image.values, stored)


@pytest.mark.parametrize(
    ("first", "known"),
    [
        ("import csakd_geo", False),
        ("import csakd_geo.accessor", True),
        ("import csakd_geo; csakd_geo.open_cube", True),
        ("import csakd_geo; csakd_geo.fuse", True),
        ("import xarray as xr; xr.backends.list_engines()", True),
    ],
)
def test_when_the_accessor_is_there(first: str, known: bool) -> None:
    code = f"{first}\nimport xarray, sys\nprint(hasattr(xarray.DataArray, 'csakd'), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    seen, torch = done.stdout.split()
    assert seen == str(known)
    if "fuse" not in first:
        assert torch == "False"


# Bands


def test_wavelengths_select_bands(cube: xr.DataArray, truth: Array) -> None:
    np.testing.assert_array_equal(cube.csakd.wavelengths, WAVELENGTH)
    one = cube.csakd.sel_wavelength(655)
    assert one.dims == ("y", "x")
    nearest = int(np.abs(WAVELENGTH - 655).argmin())
    assert (one.band.item(), one.wavelength.item()) == (nearest + 1, WAVELENGTH[nearest])
    several = cube.csakd.sel_wavelength([860, 655, 655])
    assert several.band.values.tolist() == [11, nearest + 1, nearest + 1]
    within = cube.csakd.sel_wavelength(slice(500, 640))
    assert within.band.values.tolist() == [4, 5]  # 3 is flagged bad
    assert cube.csakd.sel_wavelength(slice(None, 500)).band.values.tolist() == [1, 2]
    np.testing.assert_allclose(one.values, truth[nearest], rtol=1e-6)


def test_wavelengths_that_are_not_there(cube: xr.DataArray) -> None:
    with pytest.raises(
        SpectralError, match=r"No good band is near 531\.818 nm, the nearest one lies at (490\.9|572\.7) nm"
    ):
        cube.csakd.sel_wavelength(WAVELENGTH[2])
    assert cube.csakd.sel_wavelength(WAVELENGTH[2], tolerance=60).band.item() in (2, 4)
    for nm in (2000, [655, 2000], float("nan")):
        with pytest.raises(SpectralError, match="No good band is near"):
            cube.csakd.sel_wavelength(nm)
    with pytest.raises(SpectralError, match="from 1000 to 1100 nm; the cube has 450 to 900"):
        cube.csakd.sel_wavelength(slice(1000, 1100))
    with pytest.raises(SpectralError, match="takes no step"):
        cube.csakd.sel_wavelength(slice(450, 680, 2))
    with pytest.raises(SpectralError, match="no good band with a wavelength"):
        cube.drop_vars("wavelength").csakd.sel_wavelength(500)


# Composites


def test_composite_is_stretched_bands(cube: xr.DataArray, truth: Array) -> None:
    image = cube.csakd.rgb()
    assert image.dims == ("y", "x", "rgb")
    bands = [
        int(np.abs(np.where(np.arange(BANDS) == 2, np.inf, WAVELENGTH) - nm).argmin())
        for nm in (650, 550, 475)
    ]
    low, high = np.nanpercentile(truth[bands], (2, 98), axis=(1, 2))
    expected = np.clip((truth[bands] - low[:, None, None]) / (high - low)[:, None, None], 0, 1)
    expected[:, np.isnan(truth[bands]).any(axis=0)] = np.nan
    np.testing.assert_allclose(image.values, expected.transpose(1, 2, 0), atol=2e-3)
    assert np.isnan(image.values[:40, :50]).all()
    assert image.title.endswith(", ".join(f"{WAVELENGTH[b]:.0f}" for b in bands) + " nm")
    other = cube.csakd.rgb((860, 655, 573))
    assert other.title == "859, 655, 573 nm"
    assert not np.allclose(other.values[100:], image.values[100:])
    small = cube.csakd.rgb(side=50)
    assert small.shape == (50, 47, 3)
    np.testing.assert_array_equal(small.y, cube.y[3::6])


def test_composite_of_odd_cubes(cube: xr.DataArray) -> None:
    assert cube[:1].csakd.rgb(side=20).sizes["rgb"] == 3
    plain = cube.drop_vars("wavelength").csakd.rgb(side=20)
    assert plain.title.startswith("bands ")
    with pytest.raises(SpectralError, match="No good band is near 1650"):
        cube.csakd.rgb((1650, 835, 655))
    with pytest.raises(SpectralError, match="Got 2 wavelengths"):
        cube.csakd.rgb((650, 550))
    with pytest.raises(InputError, match="no good band to draw"):
        cube.assign_coords(good=("band", np.zeros(BANDS, bool))).csakd.rgb()
    with pytest.raises(InputError, match="0 pixels per side"):
        cube.csakd.rgb(side=0)


# Spectra and sampling


def test_spectrum_is_that_of_rasterio(cube: xr.DataArray, image: Path, truth: Array) -> None:
    back = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    with rasterio.open(image) as src:
        for (x, y), counts in zip(places(20), src.sample(places(20), masked=True), strict=True):
            expected = counts.filled(-999).astype(float) * SCALE
            expected[np.ma.getmaskarray(counts)] = np.nan
            found = cube.csakd.spectrum(x, y)
            np.testing.assert_allclose(found.values, expected, rtol=1e-6)
            again = cube.csakd.spectrum(*back.transform(x, y), crs="EPSG:4326")
            np.testing.assert_allclose(again.values, expected, rtol=1e-6)
    assert found.dims == ("band",)
    np.testing.assert_array_equal(found.wavelength, WAVELENGTH)
    assert abs(found.x.item() - x) <= PIXEL / 2


def test_spectrum_outside(cube: xr.DataArray) -> None:
    with pytest.raises(
        GridError, match=r"lies outside the cube, which has x 500000 to 502800 and y 5797000 to 5800000"
    ):
        cube.csakd.spectrum(LEFT - 1, TOP - 5)
    with pytest.raises(GridError, match="lies outside"):
        cube.csakd.spectrum(LEFT + WIDTH * PIXEL, TOP - 5)
    with pytest.raises(GridError, match="CRS 'EPSG:1' is not known"):
        cube.csakd.spectrum(15, 52, crs="EPSG:1")
    with pytest.raises(GridError, match="has no CRS"):
        cube.drop_vars("spatial_ref").csakd.spectrum(15, 52, crs=4326)


def polygons() -> dict[str, Polygon | MultiPolygon]:
    """Shapes across chunk borders, over nodata, with a hole, of two parts, thinner than a pixel, and outside."""
    x, y = LEFT, TOP
    ring = Point(x + 1500, y - 1500).buffer(703)
    return {
        "triangle": Polygon([(x + 2300, y - 2300), (x + 2790, y - 2500), (x + 2401, y - 2900)]),
        "over nodata": box(x + 303, y - 700, x + 803, y - 207),
        "one band lost": box(x + 900, y - 2200, x + 1300, y - 1900),
        "hole": ring.difference(Point(x + 1500, y - 1500).buffer(297)),
        "two parts": MultiPolygon(
            [box(x + 100, y - 900, x + 200, y - 800), box(x + 2600, y - 2700, x + 2699, y - 2600)]
        ),
        "in nodata": box(x + 50, y - 150, x + 150, y - 50),
        "sliver": box(x + 1001, y - 1009, x + 1002, y - 1001),
        "outside": box(x - 500, y, x - 100, y + 300),
        "over the edge": box(x - 500, y - 3500, x + 207, y - 2500),
    }


@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("chunked", [True, False])
def test_polygons_are_those_of_rasterio(image: Path, truth: Array, all_touched: bool, chunked: bool) -> None:
    cube = csakd_geo.open_cube(image, chunks=None)
    cube = cube.chunk({"band": 5, "y": 70, "x": 90}) if chunked else cube
    shapes = polygons()
    frame = geopandas.GeoDataFrame(
        {"name": list(shapes)}, geometry=list(shapes.values()), crs=32633, index=range(10, 10 + len(shapes))
    )
    found = cube.csakd.sample(frame, all_touched=all_touched)
    assert isinstance(found, geopandas.GeoDataFrame)
    assert found.crs == frame.crs
    assert found.index.tolist() == frame.index.tolist()
    assert found.geometry.equals(frame.geometry)
    assert found.columns.tolist()[:4] == ["name", "geometry", "count", "mean_1"]
    counts = {}
    with rasterio.open(image) as src:
        for name, shape, count, *spectra in zip(
            frame.name,
            frame.geometry,
            found["count"],
            found.filter(like="mean_").values,
            found.filter(like="std_").values,
            strict=True,
        ):
            mask, _, _ = rasterio.mask.raster_geometry_mask(
                src, [box(*src.bounds) if name == "outside" else shape], all_touched=all_touched
            )
            pixels = truth[:, ~mask] if name != "outside" else truth[:, :0, 0]
            counts[name] = count
            assert count == np.isfinite(pixels).any(axis=0).sum(), name
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing
                np.testing.assert_allclose(spectra[0], np.nanmean(pixels, axis=1), rtol=1e-6, err_msg=name)
                np.testing.assert_allclose(
                    spectra[1], np.nanstd(pixels, axis=1), rtol=1e-5, atol=1e-5, err_msg=name
                )
    assert counts["in nodata"] == counts["outside"] == 0
    assert counts["sliver"] == int(all_touched)
    assert 0 < counts["over nodata"] < 50 * 50
    assert counts["one band lost"] == 1200 if not all_touched else counts["one band lost"] >= 1200


def test_points_are_those_of_rasterio(cube: xr.DataArray, image: Path) -> None:
    xy = places(300, seed=2)
    frame = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(*xy.T), crs=32633).to_crs(4326)
    found = cube.csakd.sample(frame)
    assert found.crs == frame.crs
    with rasterio.open(image) as src:
        counts = np.array(list(src.sample(xy))).astype(float)
    expected = np.where(counts == -999, np.nan, counts * SCALE)
    np.testing.assert_allclose(found.filter(like="mean_").values, expected, rtol=1e-6)
    assert found["count"].tolist() == np.isfinite(expected).any(axis=1).astype(int).tolist()
    assert 0 < found["count"].sum() < 300
    spread = found.filter(like="std_").values
    np.testing.assert_array_equal(spread, np.where(np.isnan(expected), np.nan, 0))


def test_a_lazy_cube_is_computed_once(truth: Array, cube: xr.DataArray) -> None:
    calls: list[tuple[int, ...]] = []

    def watched(block: Array) -> Array:
        calls.append(block.shape)
        return block

    eager = cube.load().chunk({"y": 100, "x": 100})
    lazy = eager.copy(data=eager.data.map_blocks(watched, meta=np.empty((0, 0, 0), np.float32)))
    whole = box(LEFT, TOP - HEIGHT * PIXEL, LEFT + WIDTH * PIXEL, TOP)
    geometry = [whole, *polygons().values(), *geopandas.points_from_xy(*places(50).T)]
    with dask.config.set(scheduler="synchronous"):
        lazy.csakd.sample(geopandas.GeoDataFrame(geometry=geometry, crs=32633))
    assert len(calls) == 9
    calls.clear()
    with dask.config.set(scheduler="synchronous"):
        lazy.csakd.sample(geopandas.GeoDataFrame(geometry=[Point(LEFT + 5, TOP - 5)], crs=32633))
    assert len(calls) == 1


def test_frames_that_are_odd(cube: xr.DataArray, truth: Array) -> None:
    here = Point(LEFT + 1005, TOP - 1005)
    frame = geopandas.GeoDataFrame(geometry=[here, None, Polygon()])  # no CRS: the cube's
    found = cube.csakd.sample(frame)
    assert found["count"].tolist() == [1, 0, 0]
    np.testing.assert_allclose(found.filter(like="mean_").values[0], truth[:, 100, 100], rtol=1e-6)
    assert cube.csakd.sample(frame[:0]).shape == (0, 2 + 2 * BANDS)
    for wrong, sentence in (
        (
            geopandas.GeoDataFrame(geometry=[LineString([(0, 0), (1, 1)])]),
            "holds a LineString; expected points",
        ),
        (geopandas.GeoDataFrame({"count": [1]}, geometry=[here]), "the column 'count' already"),
        (geopandas.GeoSeries([here]), "Got a GeoSeries"),
        ([here], "Got a list to sample by; expected a GeoDataFrame"),
    ):
        with pytest.raises(InputError, match=sentence):
            cube.csakd.sample(wrong)
    with pytest.raises(InputError, match="band numbers that occur twice"):
        cube.isel(band=[0, 0]).csakd.sample(frame)


def test_means_do_not_cancel(cube: xr.DataArray) -> None:
    """A large mean with a small spread, in float32, over several chunks."""
    rng = np.random.default_rng(1)
    values = (60000 + rng.standard_normal((BANDS, HEIGHT, WIDTH))).astype(np.float32)
    shifted = cube.copy(data=values).chunk({"y": 64, "x": 64})
    whole = geopandas.GeoDataFrame(geometry=[box(LEFT, TOP - 3000, LEFT + 2800, TOP)], crs=32633)
    found = shifted.csakd.sample(whole)
    expected = values.astype(np.float64).std(axis=(1, 2))
    np.testing.assert_allclose(found.filter(like="std_").values[0], expected, rtol=1e-9)


def test_stored_counts_are_physical_to_the_accessor(image: Path, truth: Array) -> None:
    """rioxarray's default gives counts, with scale and nodata as attributes."""
    with rioxarray.open_rasterio(image) as raw:
        raw = raw.assign_coords(wavelength=("band", WAVELENGTH))
        assert raw.dtype == np.int16
        point = geopandas.GeoDataFrame(
            geometry=[Point(LEFT + 1505, TOP - 1505), Point(LEFT + 5, TOP - 5)], crs=32633
        )
        found = raw.csakd.sample(point)
        np.testing.assert_allclose(found.filter(like="mean_").values[0], truth[:, 150, 150], rtol=1e-6)
        assert found["count"].tolist() == [1, 0]
        np.testing.assert_allclose(raw.csakd.spectrum(LEFT + 1505, TOP - 1505), truth[:, 150, 150], rtol=1e-6)
        assert np.isnan(raw.csakd.rgb().values[:40, :50]).all()


def test_order_and_names_of_the_dimensions_do_not_matter(cube: xr.DataArray, truth: Array) -> None:
    turned = cube.transpose("y", "x", "band").rename(y="latitude", x="longitude")
    point = geopandas.GeoDataFrame(geometry=[Point(LEFT + 1505, TOP - 995)])
    found = turned.csakd.sample(point).filter(like="mean_").values[0]
    np.testing.assert_allclose(found, truth[:, 99, 150], rtol=1e-6)
    np.testing.assert_allclose(turned.csakd.spectrum(LEFT + 1505, TOP - 995), found)
    assert turned.csakd.rgb(side=30).dims == ("y", "x", "rgb")
    assert turned.csakd.resample_spectra("sentinel2-10m").dims == ("band", "y", "x")


def test_lazy_cubes_travel_to_other_processes(image: Path, truth: Array) -> None:
    for chunks in ("preferred", None):
        cube = csakd_geo.open_cube(image, chunks=chunks)
        again = pickle.loads(pickle.dumps(cube))
        np.testing.assert_allclose(again[4, 100:110, 90:99].values, truth[4, 100:110, 90:99], rtol=1e-6)


def test_every_other_pixel_has_its_own_place(cube: xr.DataArray, truth: Array) -> None:
    thin = cube[:, 1::2, 1::2]
    x, y = LEFT + 1600, TOP - 1400  # in both a corner of pixels; the middle of none
    found = thin.csakd.spectrum(x + 5, y - 5)
    np.testing.assert_allclose(found.values, truth[:, 141, 161], rtol=1e-6)


# Other sensors


def test_resampled_spectra_are_weighted_means(cube: xr.DataArray, truth: Array) -> None:
    seen = cube.csakd.resample_spectra("sentinel2")
    assert seen.dims == ("band", "y", "x")
    assert seen.chunks is not None
    assert seen.band_name.values.tolist() == ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A"]
    assert "B11, B12 of sentinel2 lie outside" in seen.attrs["warnings"][0]
    assert seen.rio.crs == cube.rio.crs
    assert seen.rio.transform() == cube.rio.transform()
    # B8: 832.8 nm, 104.8 nm wide, written out; bands are 12 nm wide and evenly spaced
    sigma = np.sqrt(104.8**2 - 12**2) / np.sqrt(8 * np.log(2))
    weight = np.exp(-0.5 * ((WAVELENGTH - 832.8) / sigma) ** 2)
    step = np.full(BANDS, WAVELENGTH[1] - WAVELENGTH[0])
    weight = np.where(np.arange(BANDS) == 2, 0, weight * step)  # band 3 is bad
    expected = np.tensordot(weight / weight.sum(), np.where(np.isnan(truth), 0, truth), 1)
    found = seen.isel(band=6).values
    good = np.isfinite(truth[5])
    np.testing.assert_allclose(found[good], expected[good], rtol=2e-3)
    assert np.isnan(found[:40, :50]).all()


def test_a_flat_spectrum_stays_flat(cube: xr.DataArray) -> None:
    flat = cube.copy(data=np.full(cube.shape, 0.3, np.float32))
    flat[2] = np.nan  # the bad band has no say
    for sensor in ("sentinel2-10m", "landsat8", SpectralAxis.build([560.0, 700.0], fwhm=[50.0, 80.0])):
        np.testing.assert_allclose(flat.csakd.resample_spectra(sensor).values, 0.3, rtol=1e-6)
    with pytest.raises(SpectralError, match="There is no sensor 'sentinel9'"):
        cube.csakd.resample_spectra("sentinel9")
    with pytest.raises(SpectralError, match="lies outside the good HSI bands"):
        cube.csakd.resample_spectra(SpectralAxis.build([1600.0], fwhm=[90.0]))


# Writing


def stored_values(path: Path) -> tuple[Array, Array]:
    with rasterio.open(path) as src:
        counts = src.read()
        values = counts * np.array(src.scales)[:, None, None] + np.array(src.offsets)[:, None, None]
        return counts, np.where(src.read_masks() == 0, np.nan, values)


@pytest.mark.parametrize("chunked", [True, False])
def test_cog_keeps_counts_bands_and_place(
    image: Path, stored: Array, truth: Array, tmp_path: Path, chunked: bool
) -> None:
    cube = csakd_geo.open_cube(image, chunks=None)
    cube = cube.chunk({"band": 7, "y": 130, "x": 90}) if chunked else cube
    target = tmp_path / "out.tif"
    cube.csakd.to_cog(target)
    assert cog_validate(target, quiet=True)[0]
    counts, values = stored_values(target)
    assert counts.dtype == np.int16
    np.testing.assert_array_equal(counts[stored != -999], stored[stored != -999])
    np.testing.assert_allclose(values, truth, rtol=1e-6)
    with rasterio.open(image) as a, rasterio.open(target) as b:
        assert (a.crs, a.transform, a.shape) == (b.crs, b.transform, b.shape)
        assert [float(b.tags(k)["wavelength"]) for k in b.indexes] == pytest.approx(WAVELENGTH, rel=1e-6)
        assert [b.tags(k)["bbl"] for k in b.indexes] == ["1", "1", "0", *["1"] * 9]
        assert b.descriptions[0].startswith("channel 1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tif"]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_of_a_derived_cube(cube: xr.DataArray, truth: Array, tmp_path: Path, zarr_format: int) -> None:
    ratio = (cube[:, 20:290, 10:270] / 100).rename("ratio")
    target = tmp_path / "out.zarr"
    ratio.csakd.to_zarr(target, zarr_format=zarr_format, dtype="float32")
    with xr.open_zarr(target, zarr_format=zarr_format) as found:
        expected = truth[:, 20:290, 10:270] / 100
        np.testing.assert_allclose(found.fused.values, expected, rtol=1e-6)
        np.testing.assert_array_equal(found.wavelength, WAVELENGTH)
        np.testing.assert_allclose(found.x, cube.x[10:270])
        np.testing.assert_allclose(found.y, cube.y[20:290])
        assert found.rio.crs == cube.rio.crs
    again = csakd_geo.open_cube(target)
    np.testing.assert_array_equal(again.csakd.wavelengths, WAVELENGTH)
    ratio.csakd.to_zarr(target, zarr_format=zarr_format, overwrite=True)  # int16: a power of ten
    with xr.open_zarr(target, zarr_format=zarr_format, mask_and_scale=False) as found:
        assert found.fused.dtype == np.int16
        assert found.fused.attrs["scale_factor"] == 1e-4  # 0.9 has to fit below 16000
    with xr.open_zarr(target, zarr_format=zarr_format) as found:
        np.testing.assert_allclose(found.fused.values, expected, atol=0.51e-4)


def test_writing_computes_a_lazy_cube_once(cube: xr.DataArray, tmp_path: Path) -> None:
    calls: list[tuple[int, ...]] = []

    def watched(block: Array) -> Array:
        calls.append(block.shape)
        return block

    eager = cube.load().chunk({"y": 100, "x": 100})
    lazy = eager.copy(data=eager.data.map_blocks(watched, meta=np.empty((0, 0, 0), np.float32)))
    for write in (lazy.csakd.to_cog, lazy.csakd.to_zarr):
        calls.clear()
        write(tmp_path / f"{write.__name__}.zarr")
        assert sorted(calls) == sorted((BANDS, h, w) for h in (100, 100, 100) for w in (100, 100, 80))


def test_values_that_do_not_fit_are_told(cube: xr.DataArray, tmp_path: Path) -> None:
    values = np.full(cube.shape, 1.0, np.float32)
    values[0, 0, :7] = 1e6
    high = cube.copy(data=values)
    high.encoding = {}
    with pytest.warns(UserWarning, match="7 values did not fit int16 and were clipped"):
        high.csakd.to_zarr(tmp_path / "high.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        high.csakd.to_cog(tmp_path / "high.tif", dtype="float32")
    assert stored_values(tmp_path / "high.tif")[1].max() == 1e6


def test_targets_that_cannot_be_written(cube: xr.DataArray, image: Path, tmp_path: Path) -> None:
    (tmp_path / "there.tif").write_text("mine")
    with pytest.raises(OutputError, match="exists; pass overwrite=True to replace it"):
        cube.csakd.to_cog(tmp_path / "there.tif")
    assert (tmp_path / "there.tif").read_text() == "mine"
    with pytest.raises(OutputError, match="does not exist; make it first"):
        cube.csakd.to_cog(tmp_path / "no" / "out.tif")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is a folder, not a Zarr store"):
        cube.csakd.to_zarr(tmp_path / "folder", overwrite=True)
    with pytest.raises(InputError, match="no Zarr format 4"):
        cube.csakd.to_zarr(tmp_path / "x.zarr", zarr_format=4)
    with pytest.raises(InputError, match="no valid pixel"):
        cube.where(False).csakd.to_cog(tmp_path / "empty.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "there.tif"]
    cube.csakd.to_cog(tmp_path / "there.tif", overwrite=True)
    assert stored_values(tmp_path / "there.tif")[0].shape == cube.shape


# Fusing


def test_fuse_is_that_of_the_package_and_is_written(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, bands=12, height=48, width=40)
    options = {"method": "regression", "shift": "none"}
    plain = csakd_geo.fuse(pair.hsi, pair.msi, **options)
    cube = csakd_geo.open_cube(pair.hsi)
    fused = cube.csakd.fuse(csakd_geo.open_cube(pair.msi), **options)
    assert fused.chunks is not None
    np.testing.assert_allclose(fused.values, plain.values, rtol=1e-5)
    np.testing.assert_array_equal(fused.csakd.wavelengths, cube.csakd.wavelengths)
    fused.csakd.to_cog(tmp_path / "fused.tif")
    counts, values = stored_values(tmp_path / "fused.tif")
    with rasterio.open(tmp_path / "fused.tif") as src:
        step = src.scales[0]
        tags = src.tags()
    assert counts.dtype == np.int16
    np.testing.assert_allclose(values, plain.values, atol=0.51 * step)
    assert tags["CSAKD_GEO_METHOD"] == "regression"
    assert json.loads(tags["CSAKD_GEO_OPTIONS"])["shift"] == "none"


def test_the_mean_of_a_real_scene(sample: SimulatedPaths) -> None:
    truth = csakd_geo.open_cube(sample.truth)
    frame = geopandas.GeoDataFrame(geometry=[box(*truth.rio.bounds())], crs=truth.rio.crs)
    found = truth.csakd.sample(frame)
    with rasterio.open(sample.truth) as src:
        counts = src.read(masked=True).astype(float)
        values = counts * np.array(src.scales)[:, None, None] + np.array(src.offsets)[:, None, None]
    expected = values.mean(axis=(1, 2)).filled(np.nan)
    np.testing.assert_allclose(found.filter(like="mean_").values[0], expected, rtol=1e-5)


def test_arrays_that_are_no_cubes() -> None:
    flat = xr.DataArray(np.zeros((3, 4)), dims=("y", "x"), coords={"y": [2.0, 1, 0], "x": [0.0, 1, 2, 3]})
    with pytest.raises(InputError, match=r"expected \(band, y, x\)"):
        _ = flat.csakd.wavelengths
    bare = xr.DataArray(np.zeros((2, 3, 4)), dims=("band", "y", "x"))
    assert np.isnan(bare.csakd.wavelengths).all()
    with pytest.raises(InputError, match="no geotransform"):
        bare.csakd.spectrum(0, 0)
    assert issubclass(InputError, CsakdGeoError)
