"""The engine: windows of a scene, super-tiles against the whole, the store, the lazy cube, the halo."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import made
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 (registers .rio)
import torch
import xarray as xr
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from csakd_geo.draft import draft_job
from csakd_geo.engine.graph import all_bands, lazy_cube, output_axis, writing_tasks
from csakd_geo.engine.halo import Halos, find_halo, measure_halo
from csakd_geo.engine.kernel import fuse_supertile, output_window
from csakd_geo.engine.run import Crew, run_tasks
from csakd_geo.engine.scene import Scene, open_scene
from csakd_geo.engine.store import Store, key_of
from csakd_geo.errors import InputError, OutputError
from csakd_geo.grid import lay_grid
from csakd_geo.io import open_source
from csakd_geo.io.encoding import Encoding
from csakd_geo.job import Job, prepare_job
from csakd_geo.methods import METHODS
from csakd_geo.methods.base import Fitted, Method
from csakd_geo.models import bundled_models
from csakd_geo.options import make_options
from csakd_geo.product import write_job
from csakd_geo.simulate import SimulatedPaths
from csakd_geo.threads import one_blas_thread
from csakd_geo.tiling import TilePlan, Window, align

Array = NDArray[Any]

TINY: dict[str, Any] = {"features": 8, "growth": 4, "depths": (1, 1, 1, 1)}


def silent(stage: str, share: float, words: str) -> None:
    """No progress."""


def prepared(hsi: Any, msi: Any, **options: Any) -> Job:
    return prepare_job(draft_job(hsi, msi, make_options({"adapt_minutes": 0} | options)), report=silent)


def scene_of(hsi: Path, msi: Path, **more: Any) -> Scene:
    a, b = open_source(hsi), open_source(msi)
    return open_scene(a, b, lay_grid(a, b), **more)


def assembled(job: Job, plan: TilePlan, order: Callable[[list[Window]], list[Window]] = list) -> Array:
    """The whole cube from super-tiles computed in some order."""
    g = job.scene.grid
    cube = np.full((len(job.scene.hsi_bands), g.height, g.width), np.inf, np.float32)
    for area in order(plan.supertiles()):
        window = output_window(job.scene, area)
        place = Window(window.row - g.top, window.col - g.left, window.height, window.width)
        cube[:, *place.slices()], _ = fuse_supertile(job.scene, job.choice.method, job.fitted, plan, area)
    assert not np.isinf(cube).any()
    return cube


def whole(job: Job) -> Array:
    """The method applied to everything at once, without engine."""
    block, valid = job.scene.block(job.scene.frame)
    fused = job.choice.method.apply(job.fitted, block.hsi, block.msi).copy()
    fused[:, ~valid] = np.nan
    g = job.scene.grid
    return np.asarray(fused[:, g.top : g.top + g.height, g.left : g.left + g.width])


def cut(job: Job, pixels: int, *, supertile: int = 0, **changes: Any) -> TilePlan:
    """The job's plan with tiles of so many MSI pixels."""
    tile = align(pixels, job.plan.ratio)
    big = align(supertile, job.plan.ratio) if supertile else 2 * tile
    return replace(job.plan, tile=tile, supertile=big, **changes)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Networks this small only wait for each other's threads on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    """With noise, so that a model's answer is not drawn back to the images altogether."""
    return made.make_pair(tmp_path_factory.mktemp("engine"), bands=12, height=128, width=112, noise=2e-3)


@pytest.fixture(scope="module")
def strip(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    """Many halos long, so that tiles see a small part of it, and narrow, so that they are cheap."""
    return made.make_pair(tmp_path_factory.mktemp("strip"), bands=12, height=32, width=400)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``cross.safetensors``, ``twelve.pth`` (12 and 4 bands) and ``sample.pth`` (200 and 4)."""
    folder = tmp_path_factory.mktemp("models")
    made.subspace_model(folder / "cross.safetensors", **TINY)
    made.official_model(folder / "twelve.pth", bands=12, msi_bands=4, **TINY)
    made.official_model(folder / "sample.pth", bands=200, msi_bands=4)
    return folder


# ------------------------------------------------------------------------------------------------- scene


@pytest.fixture
def holed(pair: made.Pair, tmp_path: Path) -> tuple[Path, Path, Array, Array]:
    """The pair with holes: files, and the HSI and MSI arrays with NaN."""
    rng = np.random.default_rng(5)
    with rasterio.open(pair.hsi) as src:
        hsi = src.read()
    with rasterio.open(pair.msi) as src:
        msi = src.read()
    hsi[4, 3, 3] = hsi[7, 3, 4] = np.nan
    hsi[:, 10:20, 8:16] = np.nan
    hsi[:, rng.random(hsi.shape[1:]) < 0.05] = np.nan
    msi[2, 70, 5] = np.nan
    msi[:, 100:, 90:] = np.nan
    a = made.write(tmp_path / "a.tif", np.where(np.isnan(hsi), -9, hsi), pixel=40, nodata=-9)
    return a, made.write(tmp_path / "b.tif", msi), hsi, msi


def test_block_masks_what_either_image_lacks(holed: tuple[Path, Path, Array, Array]) -> None:
    scene = scene_of(*holed[:2])
    block, valid = scene.block(scene.frame)
    low, high = np.isnan(holed[2]).any(0), np.isnan(holed[3]).any(0)
    np.testing.assert_array_equal(valid, ~(np.kron(low, np.ones((4, 4), bool)) | high))
    np.testing.assert_array_equal(block.valid, ~low & ~high.reshape(32, 4, 28, 4).any((1, 3)))
    assert np.isfinite(block.hsi).all()
    assert np.isfinite(block.msi).all()


def test_fill_keeps_what_is_there_and_takes_the_nearest_or_the_median(
    holed: tuple[Path, Path, Array, Array],
) -> None:
    hsi, msi = holed[2:]
    scene = scene_of(*holed[:2])
    block, _ = scene.block(scene.frame)
    for cube, filled, medians, reach in (
        (hsi, block.hsi, scene.hsi_fill, 3),
        (msi, block.msi, scene.msi_fill, 12),
    ):
        there = np.isfinite(cube)
        np.testing.assert_array_equal(filled[there], cube[there])
        np.testing.assert_allclose(medians, np.nanmedian(cube.reshape(len(cube), -1), axis=1), rtol=1e-3)
        good = there.all(0)
        at = np.argwhere(good)
        for band, y, x in np.argwhere(~there)[::37]:
            distance = np.hypot(*(at - (y, x)).T)
            value = filled[band, y, x]
            if distance.min() > reach:
                assert value == medians[band]
            else:
                nearest = at[distance == distance.min()]
                assert value in cube[band, nearest[:, 0], nearest[:, 1]]


def test_block_is_independent_of_the_window(holed: tuple[Path, Path, Array, Array]) -> None:
    scene = scene_of(*holed[:2])
    block, valid = scene.block(scene.frame)
    rng = np.random.default_rng(0)
    for _ in range(40):
        y, x = int(rng.integers(0, 31)), int(rng.integers(0, 27))
        window = Window(y, x, int(rng.integers(1, 33 - y)), int(rng.integers(1, 29 - x)))
        part, part_valid = scene.block(window)
        low, high = window.slices(), window.scaled(4).slices()
        np.testing.assert_array_equal(part.hsi, block.hsi[:, *low])
        np.testing.assert_array_equal(part.msi, block.msi[:, *high])
        np.testing.assert_array_equal(part.valid, block.valid[low])
        np.testing.assert_array_equal(part_valid, valid[high])


def test_bad_bands_spoil_no_other(pair: made.Pair, tmp_path: Path) -> None:
    """Nodata everywhere, constant, flagged: left out of fits, nodata in the output, the rest untouched."""
    with rasterio.open(pair.hsi) as src:
        hsi = src.read()
    hsi[2], hsi[5] = np.nan, 0.25
    path = made.write(tmp_path / "bad.tif", hsi, pixel=40, wavelength=pair.wavelength)
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(9, bbl="0")
        dst.update_tags(1, bbl="1")
    scene = scene_of(path, pair.msi)
    assert scene.hsi_bands == (0, 1, 3, 4, 6, 7, 9, 10, 11)
    block, valid = scene.block(scene.frame)
    assert valid.all()
    np.testing.assert_array_equal(block.hsi, hsi[list(scene.hsi_bands)])
    assert output_axis(scene, tuple(range(12))).good.tolist() == [b in scene.hsi_bands for b in range(12)]
    job = prepared(path, pair.msi, method="regression", shift="none")
    cube, _ = all_bands(job.scene, job.choice.method, job.fitted, job.plan, job.plan.frame, tuple(range(12)))
    assert [bool(np.isnan(band).all()) for band in cube] == [b in (2, 5, 8) for b in range(12)]
    assert np.isfinite(cube[list(scene.hsi_bands)]).all()


def test_a_band_that_is_empty_in_the_common_area_alone_is_bad_there(pair: made.Pair, tmp_path: Path) -> None:
    """It holds data elsewhere in the file, so nothing marks it."""
    with rasterio.open(pair.hsi) as src:
        hsi = src.read()
    hsi[3, :, :14] = np.nan
    path = made.write(tmp_path / "half.tif", hsi, pixel=40, wavelength=pair.wavelength)
    with rasterio.open(pair.msi) as src:
        west = made.write(tmp_path / "west.tif", src.read()[:, :, :56])
    scene = scene_of(path, west)
    assert scene.hsi_bands == (0, 1, 2, *range(4, 12))
    assert scene.block(scene.frame)[1].all()


def test_area_masks(pair: made.Pair) -> None:
    from shapely.geometry import Polygon

    left, top = made.LEFT, made.TOP
    triangle = Polygon([(left, top), (left + 1120, top), (left, top - 1280)])
    scene = scene_of(pair.hsi, pair.msi, area=triangle.wkb)
    _, valid = scene.block(scene.frame)
    y, x = np.mgrid[:128, :112] + 0.5
    inside = x / 112 + y / 128 < 1
    clear = np.abs(x / 112 + y / 128 - 1) > 1e-3
    np.testing.assert_array_equal(valid[clear], inside[clear])


def test_sample_is_the_whole_of_a_small_scene_and_blocks_of_a_large_one(pair: made.Pair) -> None:
    scene = scene_of(pair.hsi, pair.msi)
    assert scene.sample_windows() == [Window(0, 0, 32, 28)]
    (block,) = scene.sample().blocks
    assert block.hsi.shape == (12, 32, 28)
    large = scene.with_grid(replace(scene.grid, lr_height=1000, lr_width=401))
    windows = large.sample_windows()
    assert len(windows) == 16
    assert {(w.height, w.width) for w in windows} == {(96, 96)}
    assert all(w.row >= 0 and w.col >= 0 and w.row + 96 <= 1000 and w.col + 96 <= 401 for w in windows)
    narrow = scene.with_grid(replace(scene.grid, lr_height=100_000, lr_width=10))
    assert [(w.height, w.width) for w in narrow.sample_windows()] == [(96, 10)] * 4


def test_nothing_valid_is_said(pair: made.Pair, tmp_path: Path) -> None:
    with rasterio.open(pair.msi) as src:
        msi = src.read()
    msi[:, ::4, ::4] = np.nan  # one hole in every LR cell: no cell to learn from
    path = made.write(tmp_path / "sieve.tif", msi)
    with pytest.raises(InputError, match="valid in both"):
        scene_of(pair.hsi, path).sample()


def test_scene_pickles(pair: made.Pair) -> None:
    scene = scene_of(pair.hsi, pair.msi)
    again = pickle.loads(pickle.dumps(scene))
    np.testing.assert_array_equal(
        again.block(Window(2, 3, 4, 5))[0].msi, scene.block(Window(2, 3, 4, 5))[0].msi
    )


# ------------------------------------------------------------------------------------- tiled against whole


@pytest.mark.parametrize("name", [*METHODS, "cross.safetensors", "sample.pth", "bundled"])
def test_tiles_agree_with_the_whole_on_the_sample(
    name: str, sample: SimulatedPaths, models: Path, record_property: Callable[[str, object], None]
) -> None:
    """The bar of the project: relative RMSE of at most 1e-5 at 64, 96 and 128 pixels, defaults otherwise."""
    wanted = {"model": str(models / name)} if "." in name else {"method": name}
    if name == "bundled":
        wanted = {"model": str(bundled_models()[0])}
    job = prepared(sample.hsi, sample.msi, **wanted)
    expected = whole(job)
    for pixels in (64,) if name == "cross.safetensors" else (64, 96, 128):  # its like is below, and bundled
        error = made.relative(assembled(job, cut(job, pixels)), expected)
        record_property(f"tile_{pixels}", error)
        assert error <= 1e-5, (name, pixels, error)


def test_the_residual_of_the_test_model_matters(pair: made.Pair, models: Path) -> None:
    """Else the tests around would only compare its base: it is a thousand times their bar, or more."""
    base = whole(prepared(pair.hsi, pair.msi, method="coupled-map"))
    network = whole(prepared(pair.hsi, pair.msi, model=str(models / "cross.safetensors")))
    assert made.relative(network, base) > 0.01


@pytest.mark.parametrize("name", [*METHODS, "cross.safetensors", "twelve.pth"])
def test_tiles_agree_with_the_whole_where_they_see_little_of_it(
    name: str, strip: made.Pair, models: Path, record_property: Callable[[str, object], None]
) -> None:
    wanted = {"model": str(models / name)} if "." in name else {"method": name}
    job = prepared(strip.hsi, strip.msi, **wanted)
    plan = cut(job, 32)
    assert plan.tile + 2 * plan.halo < 0.4 * job.scene.grid.lr_width
    error = made.relative(assembled(job, plan), whole(job))
    record_property("strip", error)
    assert error <= 1e-5


@pytest.mark.parametrize("name", ["coupled-map", "cross.safetensors", "twelve.pth"])
def test_pixels_do_not_depend_on_supertiles_or_order(name: str, strip: made.Pair, models: Path) -> None:
    wanted = {"model": str(models / name)} if "." in name else {"method": name}
    job = prepared(strip.hsi, strip.msi, **wanted)
    expected = assembled(job, cut(job, 32, supertile=32))
    for size in (96, 448):
        found = assembled(job, cut(job, 32, supertile=size))
        if job.fitted.near is None:
            np.testing.assert_array_equal(found, expected)
        assert made.relative(found, expected) <= 1e-5
    expected = assembled(job, cut(job, 32, supertile=64))
    rng = np.random.default_rng(0)

    def shuffled(areas: list[Window]) -> list[Window]:
        return [areas[k] for k in rng.permutation(len(areas))]

    np.testing.assert_array_equal(assembled(job, cut(job, 32, supertile=64), shuffled), expected)


@pytest.mark.parametrize("name", ["coupled-map", "gsa"])
def test_pixels_do_not_depend_on_supertiles_either_way(name: str, pair: made.Pair) -> None:
    job = prepared(pair.hsi, pair.msi, method=name)
    expected = assembled(job, cut(job, 32, supertile=32))
    for size in (64, 96, 128):
        np.testing.assert_array_equal(assembled(job, cut(job, 32, supertile=size)), expected)


@pytest.mark.parametrize(
    ("name", "blend"),
    [
        ("gsa", "linear"),
        ("gsa", "hann"),
        ("coupled-map", "linear"),
        ("coupled-map", "hann"),
        ("cross.safetensors", "linear"),
    ],
)
def test_blends_agree_with_the_whole(name: str, blend: Any, strip: made.Pair, models: Path) -> None:
    wanted = {"model": str(models / name)} if "." in name else {"method": name}
    job = prepared(strip.hsi, strip.msi, **wanted)
    expected = whole(job)
    found = assembled(job, cut(job, 64, blend=blend, supertile=64))
    assert made.relative(found, expected) <= 1e-5
    other = assembled(job, cut(job, 64, blend=blend, supertile=192))
    if job.fitted.near is None:
        np.testing.assert_array_equal(other, found)
    assert made.relative(other, found) <= 1e-5


def test_ramps_hide_the_seams_of_a_short_halo(pair: made.Pair) -> None:
    """With too little context hard cuts jump at tile borders; ramps spread the jump."""
    job = prepared(pair.hsi, pair.msi, method="coupled-map")
    expected = whole(job)

    def jump(blend: Any) -> float:
        error = assembled(job, cut(job, 32, blend=blend, halo=1)) - expected
        return float(np.abs(error[:, :, 32] - error[:, :, 31]).mean())

    assert jump("linear") < 0.7 * jump("crop")
    assert jump("hann") < 0.7 * jump("crop")


@pytest.mark.parametrize("name", ["coupled-map", "cross.safetensors"])
def test_a_hole_stays_local(name: str, pair: made.Pair, models: Path) -> None:
    """NaN in one corner: far pixels come out the same, near ones finite, the hole itself NaN."""
    wanted = {"model": str(models / name)} if "." in name else {"method": name}
    job = prepared(pair.hsi, pair.msi, **wanted)
    hsi, msi = job.scene.hsi, job.scene.msi
    clean = assembled(job, cut(job, 32))

    class Holed:
        """A source with a hole; the fit stays that of the clean scene."""

        def __init__(self, inner: Any, factor: int) -> None:
            self.inner, self.factor = inner, factor

        def __getattr__(self, key: str) -> Any:
            return getattr(self.inner, key)

        def read(self, row: int, col: int, height: int, width: int, *, bands: Any = None) -> Array:
            values = self.inner.read(row, col, height, width, bands=bands)
            y, x = np.arange(row, row + height) // self.factor, np.arange(col, col + width) // self.factor
            values[:, (np.isin(y, (2, 3))[:, None] & np.isin(x, (4, 5, 6))[None])] = np.nan
            return np.asarray(values)

    holed_job = replace(
        job, draft=replace(job.draft, scene=replace(job.scene, hsi=Holed(hsi, 1), msi=Holed(msi, 4)))
    )
    found = assembled(holed_job, cut(job, 32))
    hole = np.zeros(found.shape[1:], bool)
    hole[8:16, 16:28] = True
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(hole, found.shape))
    reach = (job.fitted.halo + 1) * 4
    far = np.ones_like(hole)
    far[: 16 + reach, : 28 + reach] = False
    assert far.sum() > 1000
    np.testing.assert_allclose(found[:, far], clean[:, far], rtol=1e-6, atol=2e-7)


def test_empty_tiles_are_skipped(pair: made.Pair, tmp_path: Path) -> None:
    with rasterio.open(pair.msi) as src:
        msi = src.read()
    msi[:, :64] = np.nan
    job = prepared(pair.hsi, made.write(tmp_path / "half.tif", msi), method="regression", shift="none")
    seen = []

    class Counting:
        name = "regression"

        def apply(self, fitted: Fitted, hsi: Array, msi: Array) -> Array:
            seen.append(hsi.shape)
            return np.asarray(job.choice.method.apply(fitted, hsi, msi))

    method: Any = Counting()
    plan = cut(job, 32, supertile=128)
    cube, _ = fuse_supertile(job.scene, method, job.fitted, plan, plan.supertiles()[0])
    assert len(seen) == 8
    assert np.isnan(cube[:, :64]).all()
    assert np.isfinite(cube[:, 64:]).all()


def test_frame_that_reaches_out_of_the_output(pair: made.Pair, tmp_path: Path) -> None:
    """The MSI starts and ends inside LR cells: outer cells are filled, the output is the MSI's grid."""
    with rasterio.open(pair.msi) as src:
        part = src.read()[:, 3:125, 6:109]
    msi = made.write(tmp_path / "part.tif", part, left=made.LEFT + 60, top=made.TOP - 30)
    job = prepared(pair.hsi, msi, method="coupled-map", shift="none")
    g = job.scene.grid
    assert (g.height, g.width, g.top, g.left) == (122, 103, 3, 2)
    cube = assembled(job, cut(job, 48))
    assert cube.shape == (12, 122, 103)
    assert made.relative(cube, whole(job)) <= 1e-5
    assert made.relative(cube, pair.truth[:, 3:125, 6:109]) < 0.05


# ---------------------------------------------------------------------------------------------------- halo


@pytest.mark.parametrize("name", ["bicubic", "regression", "gsa", "coupled-map", "cross.safetensors"])
def test_measured_halo_meets_its_tolerance(name: str, pair: made.Pair, models: Path) -> None:
    wanted = {"model": str(models / name)} if "." in name else {"method": name}
    job = prepared(pair.hsi, pair.msi, **wanted)
    far, near = measure_halo(job.choice.method, job.fitted, job.scene.sample(), tolerance=1e-3)
    assert 0 < near <= far <= job.fitted.halo
    assert (near < far) == ("." in name)
    error = made.relative(assembled(job, cut(job, 64, halo=near, context=far - near)), whole(job))
    assert error <= 3e-3


def test_a_halo_is_measured_once(pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path)
    job = prepared(pair.hsi, pair.msi, method="gsa", shift="none")
    scene, calls = job.scene.sample(), []

    def measure(*args: Any, **kwargs: Any) -> Halos:
        calls.append(args)
        return Halos(4, 4)

    monkeypatch.setattr("csakd_geo.engine.halo.measure_halo", measure)
    assert [find_halo(job.choice.method, job.fitted, scene) for _ in range(3)] == [(4, 4)] * 3
    assert len(calls) == 1
    assert find_halo(job.choice.method, job.fitted, scene, tolerance=1e-2) == (4, 4)
    assert len(calls) == 2
    for kept in (tmp_path / "halos").iterdir():
        kept.write_text("junk")
    assert find_halo(job.choice.method, job.fitted, scene) == (4, 4)
    assert len(calls) == 3
    in_the_way = next((tmp_path / "halos").iterdir())  # a file where a folder is wanted
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: in_the_way)
    assert find_halo(job.choice.method, job.fitted, scene) == (4, 4)


def test_halo_of_a_method_that_is_known_to_need_three() -> None:
    """A method that looks exactly three cells around: two must not do, three must."""
    from csakd_geo.degrade import PSF
    from csakd_geo.pair import Block, Pair
    from csakd_geo.spectral import SpectralAxis

    class Wide:
        name = "wide"

        def apply(self, fitted: Fitted, hsi: Array, msi: Array) -> Array:
            padded = np.pad(hsi, ((0, 0), (3, 3), (3, 3)), mode="edge")
            total = sum(
                padded[:, i : i + hsi.shape[1], j : j + hsi.shape[2]] for i in range(7) for j in range(7)
            )
            return np.repeat(np.repeat(np.asarray(total), 2, 1), 2, 2)

    rng = np.random.default_rng(0)
    block = Block(
        rng.random((2, 40, 40), np.float32), rng.random((1, 80, 80), np.float32), np.ones((40, 40), bool)
    )
    scene = Pair((block,), 2, SpectralAxis.unknown(2), SpectralAxis.unknown(1))
    method: Any = Wide()
    assert measure_halo(method, Fitted("wide", PSF(2, 2.0), 8), scene) == (3, 3)
    small = Pair(
        (Block(block.hsi[:, :5, :5], block.msi[:, :10, :10], block.valid[:5, :5]),),
        2,
        scene.hsi_axis,
        scene.msi_axis,
    )
    assert measure_halo(method, Fitted("wide", PSF(2, 2.0), 8), small) == (8, 8)


# ------------------------------------------------------------------------------------------------- threads


FAULTS = """
import resource, sys, threading
import numpy as np
from csakd_geo.memory import kept_memory, share_arena

if sys.argv[1] == "shared":
    share_arena()
go = threading.Event()

def work():
    words = [str(k) for k in range(1000)]  # a thread has an arena from its first allocation on
    go.wait()
    for _ in range(40):
        arrays = [np.ones(700_000, np.float32) for _ in range(60)]
        del arrays

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
with kept_memory():
    go.set()
    for thread in threads:
        thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_threads_that_share_an_arena_take_the_memory_that_they_have_freed() -> None:
    """Counted in pages that the system had to clear: 80,000 instead of 830,000 where this was written."""
    shared, own = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS, name], text=True, timeout=120))
        for name in ("shared", "own")
    )
    assert shared < own / 3


ROOMY = """
import resource, threading
from concurrent.futures import ThreadPoolExecutor
from csakd_geo.memory import kept_memory, roomy_thread

def work():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        b"x" * 120_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

held = [ThreadPoolExecutor(1) for _ in range(5)]  # each with an arena of its own
for pool in held:
    pool.submit(work).result()
with kept_memory():
    print(held[-1].submit(work).result(), roomy_thread("network").submit(work).result())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_the_thread_of_networks_keeps_large_arrays_whatever_threads_there_are() -> None:
    """120 MB ten times, counted in pages that the system had to clear: once, not for each array."""
    out = subprocess.check_output([sys.executable, "-c", ROOMY], text=True, timeout=120)
    other, roomy = (int(count) for count in out.split())
    assert roomy < other / 4


IDLE = """
import numpy as np
from csakd_geo.memory import kept_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

with kept_memory():
    cube = np.ones(25_000_000)
    before = resident()
    del cube
    for _ in range(16):
        print(before - resident(), end=" ")
        with kept_memory():
            pass
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_lies_idle_is_handed_back_every_eighth_supertile() -> None:
    out = subprocess.check_output([sys.executable, "-c", IDLE], text=True, timeout=120)
    gone = [int(count) / 200e6 for count in out.split()]
    assert max(gone[:8]) < 0.1 < 0.9 < min(gone[8:])


SLEEPING = """
import os, sys
import csakd_geo.cli as cli
share = cli.share_arena
cli.share_arena = lambda: print("shared before numpy:", "numpy" not in sys.modules) or share()
cli.main(["methods", "--help"], standalone_mode=False)
import csakd_geo.cli.fuse as fuse
set_them = fuse.let_threads_sleep
fuse.let_threads_sleep = lambda: print("called before torch:", "torch" not in sys.modules) or set_them()
cli.share_arena = share
cli.main(sys.argv[1:], standalone_mode=False)
print("policy:", os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("more", "given", "words"),
    [
        ([], {}, ["called before torch: True", "policy: passive"]),
        ([], {"OMP_WAIT_POLICY": "active"}, ["called before torch: True", "policy: active"]),
        (["--adapt-minutes", "1"], {}, ["policy: None"]),
    ],
)
def test_threads_of_a_run_sleep_between_loops_but_those_of_training(
    tmp_path: Path, more: list[str], given: dict[str, str], words: list[str]
) -> None:
    """OpenMP reads the setting as torch loads it; the arena is settled before any library begins threads."""
    pair = made.make_pair(tmp_path)
    kept = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    arguments = ["fuse", str(pair.hsi), str(pair.msi), "-o", str(tmp_path / "o.tif"), "--dry-run", *more]
    run = subprocess.run(
        [sys.executable, "-c", SLEEPING, *arguments],
        env=kept | given,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [line for line in run.stdout.splitlines() if line.startswith(("shared", "called", "policy"))] == [
        "shared before numpy: True",
        *words,
    ]


def overlapping_limits() -> None:
    """The limit is the process's, so threads that overlap must not lift it for each other, or leave it."""

    def now() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before = now()
    assert before == {2}
    first, second = (threading.Event(), threading.Event()), (threading.Event(), threading.Event())

    def inside(entered: threading.Event, leave: threading.Event) -> None:
        with one_blas_thread():
            entered.set()
            leave.wait(10)

    threads = [threading.Thread(target=inside, args=events) for events in (first, second)]
    for thread, events in zip(threads, (first, second), strict=True):
        thread.start()
        assert events[0].wait(10)
    assert now() == {1}
    first[1].set()
    threads[0].join()
    assert now() == {1}
    second[1].set()
    threads[1].join()
    assert now() == before


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="BLAS takes no more threads than there are cores")
def test_blas_limit_outlives_the_first_thread_to_leave_and_not_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a process of its own, since BLAS looks once how many threads it may have."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(overlapping_limits)


# --------------------------------------------------------------------------------------------------- store


def test_store_keeps_whole_supertiles_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "fused.tif")
    store.begin({"b": 1, "a": [1.5]}, b"fit")
    assert store.done() == {}
    value = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    store.put(Window(32, 0, 3, 4), value)
    (store.tiles / "0_0.tmp").write_bytes(b"half")
    assert store.done() == {(32, 0): 0}
    ((area, found),) = store.blocks([Window(32, 0, 3, 4)])
    assert area == Window(32, 0, 3, 4)
    np.testing.assert_array_equal(found[:], value)
    assert (store.folder / "fitted.npz").read_bytes() == b"fit"
    store.begin({"a": 2}, b"other")
    assert store.done() == {}
    store.remove()
    assert list(tmp_path.iterdir()) == []


def test_second_lock_is_refused(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "fused.tif"), Store(tmp_path / "fused.tif")
    first.lock()
    with pytest.raises(OutputError, match="Another run is writing"):
        second.lock()
    second.unlock()
    with pytest.raises(OutputError, match="Another run is writing"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()
    assert list(tmp_path.iterdir()) == []


def test_key_tells_plans_apart_and_not_their_order() -> None:
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})


def test_store_in_a_folder_that_vanished(tmp_path: Path) -> None:
    store = Store(tmp_path / "fused.tif")
    store.begin({}, b"")
    store.remove()
    with pytest.raises(OutputError, match=r"fused\.tif"):
        store.put(Window(0, 0, 1, 1), np.zeros((1, 1, 1)))


# ------------------------------------------------------------------------------------------ graph and file


def test_lazy_cube_has_few_tasks_and_its_coordinates(pair: made.Pair) -> None:
    job = prepared(pair.hsi, pair.msi, method="gsa", tile=32, supertile=32)
    count = len(job.plan.supertiles())
    assert count == 16
    bands = (2, 7, 0)
    cube = lazy_cube(job.scene, job.choice.method, job.fitted, job.plan, bands, {"note": "kept"})
    blocks = sum(1 for key in dict(cube.__dask_graph__()) if "fuse" in str(key))
    assert blocks == count
    assert len(dict(cube.__dask_graph__())) <= 6 * count  # dask's own concatenation keeps some
    (fewer,) = dask.optimize(cube.data)
    assert len(dict(fewer.__dask_graph__())) <= 4 * count + 1
    assert (cube.dims, cube.dtype, cube.shape) == (("band", "y", "x"), np.float32, (3, 128, 112))
    assert cube.attrs["note"] == "kept"
    assert cube.rio.crs.to_epsg() == 32633
    assert cube.rio.transform() == rasterio.Affine(10, 0, made.LEFT, 0, -10, made.TOP)
    np.testing.assert_allclose(cube["x"][:2], [made.LEFT + 5, made.LEFT + 15])
    np.testing.assert_allclose(cube["y"][:2], [made.TOP - 5, made.TOP - 15])
    np.testing.assert_allclose(cube["wavelength"], pair.wavelength[list(bands)], atol=0.01)
    assert cube["band"].values.tolist() == [3, 8, 1]
    assert cube["good"].values.all()
    assert cube["fwhm"].values.tolist() == [20, 20, 20]
    everything = assembled(job, job.plan)
    for scheduler in ("synchronous", "threads"):
        found = cube.compute(scheduler=scheduler).values
        np.testing.assert_array_equal(found, everything[list(bands)])
    part = cube[:, 30:40, 60:70].compute(scheduler="synchronous").values
    np.testing.assert_array_equal(part, everything[list(bands), 30:40, 60:70])


def test_looking_at_a_corner_computes_one_supertile(pair: made.Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    job = prepared(pair.hsi, pair.msi, method="regression", shift="none", tile=32, supertile=32)
    seen = []

    def counted(*args: Any, **kwargs: Any) -> tuple[Array, int]:
        seen.append(args[4])
        return fuse_supertile(*args, **kwargs)

    monkeypatch.setattr("csakd_geo.engine.graph.fuse_supertile", counted)
    cube = lazy_cube(job.scene, job.choice.method, job.fitted, job.plan, job.draft.bands, {})
    assert seen == []
    assert np.isfinite(cube[0, 0, 0].compute(scheduler="synchronous"))
    assert seen == [Window(0, 0, 8, 8)]


def test_writing_tasks_are_two_per_supertile_at_most(pair: made.Pair, tmp_path: Path) -> None:
    job = prepared(pair.hsi, pair.msi, method="regression", shift="none", tile=32, supertile=32)
    store = Store(tmp_path / "fused.tif")
    store.begin({}, b"")
    tasks = writing_tasks(
        job.scene, job.choice.method, job.fitted, job.plan, job.draft.bands, Encoding("float32"), store
    )
    keys = {key for task in tasks for key in dict(task.__dask_graph__())}
    assert len(keys) <= 2 * len(tasks) + 2
    shares: list[float] = []
    written = run_tasks(tasks, shares.append, Crew(2))
    assert [(part.clipped, part.failure) for part in written] == [(0, None)] * 16
    assert (shares[0], shares[-1]) == (0, 1)
    assert shares == sorted(shares)
    assert len(store.done()) == 16
    cube = assembled(job, job.plan)
    for area, stored in store.blocks(job.plan.supertiles()):
        np.testing.assert_array_equal(stored[:], cube[:, *area.scaled(4).slices()])


def test_file_and_lazy_cube_are_one(pair: made.Pair, tmp_path: Path) -> None:
    """The file holds the lazy cube to half a step of its encoding, written by two workers or one."""
    job = prepared(pair.hsi, pair.msi, method="coupled-map", tile=32, supertile=32)
    cube = lazy_cube(job.scene, job.choice.method, job.fitted, job.plan, job.draft.bands, {})
    target = tmp_path / "fused.tif"
    store = Store(target)
    product = write_job(job, target, store, report=silent)
    assert product.clipped == 0
    assert set(product.seconds) == {"fuse", "write"}
    with rasterio.open(target) as src:
        stages = json.loads(src.tags()["CSAKD_GEO_FUSE_STAGES"])
        raw = src.count * src.height * src.width * 2 / 1e6
    assert stages == product.stages
    assert sum(stage["seconds"] for stage in stages.values()) <= 2 * product.seconds["fuse"]  # two threads
    staged = stages["stage"]
    assert staged["mb_per_second"] * staged["seconds"] == pytest.approx(raw, rel=0.1)  # seconds are rounded
    with rasterio.open(target) as src:
        scale, found = src.scales[0], src.read()
    assert found.dtype == np.int16
    difference = np.abs(found * scale - cube.compute(scheduler="synchronous").values)
    assert float(difference.max()) <= 0.501 * scale
    assert [p.name for p in tmp_path.iterdir()] == ["fused.tif"]


def test_clipped_values_are_counted(pair: made.Pair, tmp_path: Path) -> None:
    job = prepared(pair.hsi, pair.msi, method="regression", shift="none")
    job = replace(job, level=job.level / 100)  # as if 99.9 % of the HSI were a hundred times darker
    target = tmp_path / "fused.tif"
    clipped = write_job(job, target, Store(target), report=silent).clipped
    with rasterio.open(target) as src:
        at_limit = int((np.abs(src.read()) == 32767).sum())
        assert src.tags()["CSAKD_GEO_CLIPPED_VALUES"] == str(clipped)
    assert 0 < clipped <= at_limit


def test_failing_writer_leaves_nothing(
    pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Array:
        raise InputError("The file vanished.")

    job = prepared(pair.hsi, pair.msi, method="regression", shift="none")
    monkeypatch.setattr("csakd_geo.engine.graph.fuse_supertile", broken)
    with pytest.raises(InputError, match="vanished"):
        write_job(job, tmp_path / "fused.tif", Store(tmp_path / "fused.tif"), report=silent)
    assert list(tmp_path.iterdir()) == []


def test_methods_and_fits_pickle(pair: made.Pair, models: Path) -> None:
    """What a worker on another machine gets."""
    for wanted in ({"method": "coupled-map"}, {"model": str(models / "cross.safetensors")}):
        job = prepared(pair.hsi, pair.msi, **wanted)
        method: Method = pickle.loads(pickle.dumps(job.choice.method))
        fitted = Fitted.from_bytes(job.fitted.to_bytes())
        area = Window(0, 0, 8, 8)
        plan = cut(job, 32, supertile=32)
        np.testing.assert_array_equal(
            fuse_supertile(pickle.loads(pickle.dumps(job.scene)), method, fitted, plan, area)[0],
            fuse_supertile(job.scene, job.choice.method, job.fitted, plan, area)[0],
        )


def test_lazy_cube_of_dataarrays(pair: made.Pair) -> None:
    """Sources may be lazy themselves; a read inside a task starts no scheduler of its own."""
    hsi = xr.open_dataarray(pair.hsi, engine="rasterio", chunks={"x": 9, "y": 10})
    msi = xr.open_dataarray(pair.msi, engine="rasterio", chunks={"x": 50, "y": 33})
    job = prepared(hsi, msi, method="gsa", shift="none", tile=32, supertile=32)
    same = prepared(pair.hsi, pair.msi, method="gsa", shift="none", tile=32, supertile=32)
    cube = lazy_cube(job.scene, job.choice.method, job.fitted, job.plan, job.draft.bands, {})
    np.testing.assert_array_equal(cube.compute(scheduler="threads").values, assembled(same, same.plan))
