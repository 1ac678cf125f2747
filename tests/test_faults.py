"""What may go wrong on a long run, and odd sizes: the right pixels come out, or one plain sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from csakd_geo.cli import main
from csakd_geo.engine.store import Store
from csakd_geo.io.raster import close_handles

Array = NDArray[Any]

CUT = ("--method", "gsa", "--shift", "none", "--tile", "16", "--supertile", "16", "--quiet")


def call(pair: made.Pair, target: Path, *args: str | Path) -> Result:
    return CliRunner().invoke(
        main, ["fuse", str(pair.hsi), str(pair.msi), "-o", str(target), *map(str, args)]
    )


def pixels(path: Path) -> Array:
    with rasterio.open(path) as src:
        return np.asarray(src.read())


def values(path: Path) -> Array:
    """Physical values, NaN where there are none."""
    with rasterio.open(path) as src:
        stored = src.read(masked=True).astype(np.float64)
        return np.asarray((stored * np.reshape(src.scales, (-1, 1, 1))).filled(np.nan))


def fused(pair: made.Pair, target: Path, *args: str | Path) -> Array:
    """Physical values of a run that must succeed and leave its product alone behind."""
    before = {path for path in target.parent.iterdir() if path.suffix != ".part"}
    done = call(pair, target, *args)
    assert done.exit_code == 0, done.output
    assert set(target.parent.iterdir()) == before | {target}
    return values(target)


def refused(result: Result, *words: str) -> str:
    """The one sentence that was said."""
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    said = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert "should not have" not in result.stderr
    for word in words:
        assert word in said[0], said[0]
    return said[0]


@pytest.fixture(autouse=True)
def _fresh_handles() -> Iterator[None]:
    close_handles()
    yield
    close_handles()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[made.Pair, Array]:
    """A pair, and the stored pixels of a run in which nothing goes wrong."""
    folder = tmp_path_factory.mktemp("whole")
    pair = made.make_pair(folder, bands=10, height=96, width=96)
    done = call(pair, folder / "fused.tif", *CUT)
    assert done.exit_code == 0, done.output
    return pair, pixels(folder / "fused.tif")


def copied(pair: made.Pair, folder: Path) -> made.Pair:
    """The same pair in files that may be spoiled."""
    folder.mkdir(exist_ok=True)
    for path in (pair.hsi, pair.msi):  # by GDAL, which puts the header first
        rasterio.shutil.copy(path, folder / path.name, driver="GTiff", interleave="pixel")
    return replace(pair, hsi=folder / pair.hsi.name, msi=folder / pair.msi.name)


# --------------------------------------------------------------------------- inputs that change under way


def during(monkeypatch: pytest.MonkeyPatch, after: int, do: Callable[[], None]) -> None:
    """Do something once that many super-tiles are kept; 0: once the fit is done."""
    begin, put = Store.begin, Store.put

    def begun(self: Store, *args: Any) -> None:
        begin(self, *args)
        if after == 0:
            do()

    def kept(self: Store, *args: Any) -> None:
        put(self, *args)
        if after and self.count() == after:
            do()

    monkeypatch.setattr(Store, "begin", begun)
    monkeypatch.setattr(Store, "put", kept)


@pytest.mark.parametrize("which", ["hsi", "msi"])
def test_an_input_that_shrinks(
    which: str, whole: tuple[made.Pair, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program truncates the file: what can be read is done; when it is whole again, so is the rest."""
    pair, target = copied(whole[0], tmp_path / "in"), tmp_path / "fused.tif"
    path: Path = getattr(pair, which)
    kept = tmp_path / "kept.tif"
    shutil.copy2(path, kept)

    def shrink() -> None:
        close_handles()
        os.truncate(path, 3 * path.stat().st_size // 4)

    with monkeypatch.context() as patch:
        during(patch, 0, shrink)
        said = refused(call(pair, target, *CUT), f"'{path.name}'", "could not be read", "--resume goes on")
    assert "the rest is done" in said
    assert not target.exists()
    done = Store(target).count()
    assert 0 < done < 36
    refused(call(pair, target, *CUT, "--resume"))  # it is still damaged
    assert Store(target).count() == done
    shutil.copy2(kept, path)  # with the time that it had
    kept.unlink()
    fused(pair, target, *CUT, "--resume")
    np.testing.assert_array_equal(pixels(target), whole[1])


@pytest.mark.parametrize("which", ["hsi", "msi"])
def test_an_input_that_vanishes(
    which: str, whole: tuple[made.Pair, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, target = copied(whole[0], tmp_path / "in"), tmp_path / "fused.tif"
    path: Path = getattr(pair, which)
    away = tmp_path / "away.tif"
    with monkeypatch.context() as patch:
        during(patch, 0, lambda: shutil.move(path, away))
        refused(call(pair, target, *CUT), f"'{path.name}'", "could not be read")
    assert not target.exists()
    refused(call(pair, target, *CUT, "--resume"), f"'{path}' does not exist")
    shutil.move(away, path)
    fused(pair, target, *CUT, "--resume")
    np.testing.assert_array_equal(pixels(target), whole[1])


# ------------------------------------------------------------------------------ places that take nothing


def test_below_a_file(whole: tuple[made.Pair, Array], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(call(whole[0], tmp_path / "file" / "fused.tif", *CUT), "does not exist")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_file_system_that_is_read_only(whole: tuple[made.Pair, Array], tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,ro", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        refused(call(whole[0], place / "fused.tif", *CUT), "cannot be written", "choose another folder")
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


_LIMITED = """
import resource, signal, sys
from csakd_geo.cli import main
from csakd_geo.cli.progress import Reporter
stage, limit = sys.argv.pop(1), int(sys.argv.pop(1))
call = Reporter.__call__
def limited(self, name, share, words):
    if words == stage:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    call(self, name, share, words)
Reporter.__call__ = limited
main()
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    """Large enough to get overviews."""
    return made.make_pair(tmp_path_factory.mktemp("wide"), bands=6, height=64, width=520)


@pytest.mark.skipif(os.name != "posix", reason="a limit for files is set the POSIX way")
@pytest.mark.parametrize("stage", ["write", "overviews", "copy"])
def test_the_disk_takes_no_more(stage: str, wide: made.Pair, tmp_path: Path) -> None:
    """A real limit on files, from the moment at which a stage of the finish begins."""
    target, expected = tmp_path / "out" / "fused.tif", tmp_path / "expected.tif"
    target.parent.mkdir()
    cut = ("--method", "gsa", "--shift", "none", "--tile", "64", "--supertile", "64")
    assert call(wide, expected, *cut, "--quiet").exit_code == 0
    args = ["fuse", str(wide.hsi), str(wide.msi), "-o", str(target), *cut, "--log-json"]
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, stage, "4096", *args],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert stage in {event["words"] for event in events if event["event"] == "progress"}
    said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1, done.stderr
    assert "was not written" in said[0]
    assert "--resume goes on" in said[0]
    assert "Traceback" not in done.stderr
    assert {p.name for p in target.parent.iterdir()} == {"fused.tif.part"}
    again = call(wide, target, *cut, "--quiet", "--resume")
    assert again.exit_code == 0, again.output
    assert {p.name for p in target.parent.iterdir()} == {"fused.tif"}
    np.testing.assert_array_equal(pixels(target), pixels(expected))


# --------------------------------------------------------------------------------- resume and the clock


def stop(pair: made.Pair, target: Path, monkeypatch: pytest.MonkeyPatch, after: int = 7) -> None:
    """Stop a run as Ctrl-C does."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("csakd_geo.product.workers", lambda _: 1)
        during(patch, after, interrupt)
        refused(call(pair, target, *CUT), "Stopped on request", "--resume goes on")


def test_the_clock_is_put_back_or_forward(
    whole: tuple[made.Pair, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the times of the kept files nor the clock's during the run mean anything."""
    ticks = count()
    for year in (1970, 2100):
        target = tmp_path / f"{year}.tif"
        stop(whole[0], target, monkeypatch)
        kept = Store(target).count()
        seconds = (year - 1970) * 365 * 86400
        for path in Store(target).folder.rglob("*"):
            os.utime(path, (seconds, seconds))
        computed: list[Any] = []
        put = Store.put

        def counted(self: Store, *args: Any, put: Any = put, computed: Any = computed) -> None:
            computed.append(args[0])
            put(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "put", counted)
            patch.setattr(time, "time", lambda: 2e9 - 3600.0 * next(ticks))
            done = call(whole[0], target, *CUT, "--resume")
        assert done.exit_code == 0, done.output
        assert len(computed) == 36 - kept
        np.testing.assert_array_equal(pixels(target), whole[1])
        os.utime(target, (seconds, seconds))
        again = call(whole[0], target, *CUT, "--resume")
        assert again.exit_code == 0
        assert "nothing to do" in again.stdout


def test_strange_files_in_the_working_folder(
    whole: tuple[made.Pair, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no run wrote is no super-tile: other names, other places, no checksum."""
    target = tmp_path / "fused.tif"
    stop(whole[0], target, monkeypatch)
    tiles = Store(target).tiles
    kept = sorted(tiles.glob("*.npy"))
    for name in ("notes.npy", "1_2_3.npy", "0_1.npy", "-4_0.npy", "900_900.npy", "a_b.npy"):
        shutil.copy(kept[0], tiles / name)
    (tiles / "notes.txt").write_text("mine")
    with kept[0].open("wb") as stream:
        np.save(stream, np.zeros((10, 3, 3), np.int16))
    with kept[1].open("wb") as stream:
        np.save(stream, np.zeros((10, 16, 16), np.float64))
    result = call(whole[0], target, *CUT, "--resume")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(pixels(target), whole[1])
    assert [p.name for p in tmp_path.iterdir()] == ["fused.tif"]


# --------------------------------------------------------------------------------------- odd inputs


@pytest.mark.parametrize("method", ["gsa", "coupled-map", "network"])
def test_a_tile_without_data(method: str, whole: tuple[made.Pair, Array], tmp_path: Path) -> None:
    """A super-tile is NaN in the MSI, a quarter of another in the HSI: they stay empty, nothing else does."""
    pair = copied(whole[0], tmp_path)
    with rasterio.open(pair.msi, "r+") as msi, rasterio.open(pair.hsi, "r+") as hsi:
        high, low = msi.read(), hsi.read()
        high[:, 32:64, 32:64], low[:, 20:22, 2:4] = np.nan, np.nan
        msi.write(high)
        hsi.write(low)
    args = ["--method", method]
    if method == "network":
        args = ["--model", str(made.subspace_model(tmp_path / "net.safetensors"))]
    found = fused(
        pair, tmp_path / "fused.tif", *args, "--tile", "16", "--supertile", "32", "--shift", "none", "--quiet"
    )
    empty = np.zeros((96, 96), bool)
    empty[32:64, 32:64] = empty[80:88, 8:16] = True
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(empty, found.shape))
    if method != "network":  # a random network adds its noise
        truth = np.where(empty, np.nan, pair.truth)
        assert made.relative(found, truth) < 0.05


@pytest.mark.parametrize("blend", ["crop", "linear", "hann"])
def test_a_halo_of_one_pixel(blend: str, whole: tuple[made.Pair, Array], tmp_path: Path) -> None:
    """Too little for exact tiles, and still a whole and sensible image."""
    found = fused(whole[0], tmp_path / "fused.tif", *CUT, "--halo", "1", "--blend", blend)
    assert np.isfinite(found).all()
    assert made.relative(found, whole[0].truth) < 0.05


@pytest.mark.parametrize(("shift", "what"), [(23, "cell"), (95, "pixel"), (96, "nothing")])
def test_images_that_overlap_by_one_pixel(
    shift: int, what: str, whole: tuple[made.Pair, Array], tmp_path: Path
) -> None:
    """One HSI cell, one MSI column, or an edge in common."""
    pair = copied(whole[0], tmp_path / "in")
    step = 4 * shift if what == "cell" else shift
    with rasterio.open(pair.msi, "r+") as src:
        src.transform = src.transform * rasterio.Affine.translation(step, 0)
    target = tmp_path / "fused.tif"
    result = call(pair, target, "--method", "regression", "--shift", "none", "--quiet")
    if what == "nothing":
        refused(result, "do not overlap")
    elif result.exit_code:
        refused(result)
        assert {p.name for p in tmp_path.iterdir()} == {"in"}
    else:
        found = values(target)
        assert found.shape == (10, 96, 96 - step)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("method", ["auto", "gsa", "cnmf", "coupled-map"])
def test_a_scene_smaller_than_a_tile(method: str, tmp_path: Path) -> None:
    pair = made.make_pair(tmp_path / "in", bands=8, height=28, width=20)
    found = fused(pair, tmp_path / "fused.tif", "--method", method, "--quiet")
    assert found.shape == (8, 28, 20)
    assert made.relative(found, pair.truth) < 0.2


@pytest.mark.parametrize("blend", ["crop", "hann"])
def test_sides_that_are_prime(blend: str, tmp_path: Path) -> None:
    """37 x 41 HSI pixels; the MSI is cut to 139 x 151, so that it nests nowhere at its far sides."""
    pair = made.make_pair(tmp_path / "in", bands=8, height=148, width=164)
    with rasterio.open(pair.msi) as src:
        part = src.read()[:, :139, :151]
    pair = replace(pair, msi=made.write(tmp_path / "in" / "part.tif", part, wavelength=made.MSI_CENTRES))
    args = ("--method", "gsa", "--shift", "none", "--blend", blend, "--dtype", "float32", "--quiet")
    one = fused(pair, tmp_path / "one.tif", *args)
    many = fused(pair, tmp_path / "many.tif", *args, "--tile", "48", "--supertile", "96")
    assert one.shape == (8, 139, 151)
    assert np.isfinite(one).all()
    assert made.relative(many, one) < 1e-5
    assert made.relative(one, pair.truth[:, :139, :151]) < 0.05


@pytest.mark.parametrize(
    ("bands", "method"),
    [*((2, name) for name in ("auto", "gsa", "cnmf", "coupled-map")), (430, "auto"), (430, "gsa")],
)
def test_two_bands_and_four_hundred_and_thirty(bands: int, method: str, tmp_path: Path) -> None:
    pair = made.make_pair(tmp_path / "in", bands=bands, height=64, width=48)
    if bands == 2:  # no more MSI bands than the HSI has
        with rasterio.open(pair.msi) as src:
            few = src.read([1, 4])
        centres = [made.MSI_CENTRES[0], made.MSI_CENTRES[3]]
        pair = replace(pair, msi=made.write(tmp_path / "in" / "few.tif", few, wavelength=centres))
    found = fused(
        pair, tmp_path / "fused.tif", "--method", method, "--tile", "32", "--supertile", "32", "--quiet"
    )
    assert found.shape == (bands, 64, 48)
    assert np.isfinite(found).all()
    bicubic = fused(pair, tmp_path / "bicubic.tif", "--method", "bicubic", "--quiet")
    assert made.relative(found, pair.truth) < made.relative(bicubic, pair.truth) + 0.01
