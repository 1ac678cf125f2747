"""Products and inputs at addresses, overviews, and what writing takes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import made
import numpy as np
import pytest
import rasterio
import serving
import test_formats as formats
import xarray as xr
import zarr
from click.testing import CliRunner, Result

from csakd_geo.cli import main
from csakd_geo.engine.store import Staged, Store
from csakd_geo.errors import InputError, OutputError
from csakd_geo.io import open_source
from csakd_geo.io.address import address_of, local_place, publish
from csakd_geo.io.overviews import halve
from csakd_geo.io.zarr import write_zarr, write_zarr2
from csakd_geo.tiling import Window

FAST = ("--method", "regression", "--shift", "none", "--tile", "16", "--supertile", "32", "--quiet")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    return made.make_pair(tmp_path_factory.mktemp("pair"), bands=18, height=72, width=88)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, and an empty memory file system."""
    monkeypatch.chdir(tmp_path)
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield tmp_path
    files.store.clear()


def call(pair: made.Pair, target: str, *args: str) -> Result:
    return CliRunner().invoke(main, ["fuse", str(pair.hsi), str(pair.msi), "-o", target, *FAST, *args])


def stored() -> dict[str, bytes]:
    return {name: bytes(f.getvalue()) for name, f in fsspec.filesystem("memory").store.items()}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ------------------------------------------------------------------------------------------ Zarr at an address


def test_what_is_an_address() -> None:
    for text in ("s3://bucket/a/x.zarr", "memory://x.zarr"):
        assert address_of(text) == address_of(Path(text)) == text
    assert address_of(Path("file:///tmp/x.zarr")) == "file:///tmp/x.zarr"
    for place in (
        "a.tif",
        "/a/b.zarr",
        "NETCDF:/a.nc:b",
        "/vsizip/a.zip/b.tif",
        Path("C:/a.tif"),
        Path("a.zarr"),
    ):
        assert address_of(place) is None
    one, other = local_place(Path("s3://a/x.zarr")), local_place(Path("s3://b/x.zarr"))
    assert one.parent == other.parent == Path.cwd()
    assert one.name != other.name


@pytest.mark.parametrize("form", ["zarr", "zarr2"])
@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_a_store_at_an_address_is_that_of_a_path(scheme: str, form: str, pair: made.Pair, here: Path) -> None:
    address = "memory://deep/x.zarr" if scheme == "memory" else f"file://{here.as_posix()}/deep/x.zarr"
    done = call(pair, address, "--format", form)
    assert done.exit_code == 0, done.output
    assert call(pair, str(here / "local.zarr"), "--format", form).exit_code == 0
    expected = xr.open_zarr(str(here / "local.zarr"), chunks=None)["fused"]
    found = xr.open_zarr(address, chunks=None)["fused"]
    xr.testing.assert_identical(found.load(), expected.load())
    source = open_source(address)
    np.testing.assert_array_equal(
        source.read(3, 4, 50, 60), open_source(here / "local.zarr").read(3, 4, 50, 60)
    )
    files, path = fsspec.core.url_to_fs(address)
    assert [p.rsplit("/", 1)[1] for p in files.ls(path.rsplit("/", 1)[0], detail=False)] == ["x.zarr"]
    assert names(here) == (["deep", "local.zarr"] if scheme == "file" else ["local.zarr"])


def test_what_is_there_is_kept_unless_told(pair: made.Pair, here: Path) -> None:
    address = "memory://x.zarr"
    assert call(pair, address).exit_code == 0
    before = stored()
    formats.refused(call(pair, address), "'memory://x.zarr' exists; give --overwrite")
    again = call(pair, address, "--resume")
    assert "nothing to do" in again.stdout
    assert stored() == before
    assert call(pair, address, "--overwrite", "--dtype", "float32").exit_code == 0
    assert open_source(address).dtype == "float32"
    fsspec.filesystem("memory").pipe_file("/mine.zarr/letter.txt", b"mine")
    formats.refused(call(pair, "memory://mine.zarr", "--overwrite"), "is no Zarr store")
    assert stored()["/mine.zarr/letter.txt"] == b"mine"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("foo://bucket/x.zarr", "no address that fsspec knows"),
        ("https://host/x.zarr", "is for reading"),
        ("memory://x.tif", "only Zarr can be written"),
        ("memory://x.nc", "only Zarr can be written"),
    ],
)
def test_addresses_that_cannot_be_written(target: str, words: str, pair: made.Pair, here: Path) -> None:
    formats.refused(call(pair, target), words)
    assert names(here) == []
    assert stored() == {}


def test_a_package_that_is_missing_is_named(
    pair: made.Pair, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    formats.refused(call(pair, "s3://bucket/x.zarr"), "needs the package s3fs; install it")


@pytest.mark.parametrize("step", ["put_file", "cp_file"])
def test_a_store_that_is_not_whole_does_not_open(
    step: str, pair: made.Pair, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off after each file in turn; with --resume the run goes on."""
    address, files = "memory://x.zarr", fsspec.filesystem("memory")
    real, sent = getattr(type(files), step), []

    def breaking(self: Any, *args: Any, **kwargs: Any) -> None:
        assert not any(files.exists(f"/x.zarr/{root}") for root in ("zarr.json", ".zgroup"))
        if len(sent) == 5:
            raise OSError("the line is down")
        sent.append(args[1])
        real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(files), step, breaking)
        formats.refused(call(pair, address), "the line is down", "--resume goes on")
    assert len(sent) == 5
    assert stored() == {}
    done = call(pair, address, "--resume")
    assert done.exit_code == 0, done.output
    assert names(here) == []
    assert open_source(address).height == 72


def test_the_root_comes_last_and_the_copy_is_checked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, values = formats.sized(height=40, width=50)
    files = fsspec.filesystem("memory")
    real, sent = type(files).cp_file, []
    monkeypatch.setattr(
        type(files), "cp_file", lambda self, a, b, **more: (sent.append(b), real(self, a, b, **more))
    )
    write_zarr(Path("memory://a.zarr"), spec, [(0, 0, values)], workdir=here)
    assert sent[-1] == "/a.zarr/zarr.json"
    before = stored()

    def fails(place: str) -> None:
        assert place == "memory://a.zarr.part"
        raise OutputError("pixels differ")

    (here / "new.zarr").mkdir()
    (here / "new.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(OutputError, match="pixels differ"):
        publish(here / "new.zarr", "memory://a.zarr", fails, lambda share: None)
    assert stored() == before


def test_what_a_killed_run_left_is_replaced(pair: made.Pair, here: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/x.zarr/fused/c/0/0/0", b"half")
    files.pipe_file("/x.zarr.part/zarr.json", b"{}")
    assert call(pair, "memory://x.zarr").exit_code == 0
    assert open_source("memory://x.zarr").read(0, 0, 9, 9).shape == (18, 9, 9)
    assert not files.exists("/x.zarr.part")


def test_the_working_folder_of_an_address_is_found_again(here: Path) -> None:
    import pickle

    store = Store(Path("memory://a/x.zarr"))
    store.begin({}, b"")
    assert store.folder.parent == here
    elsewhere: Store = pickle.loads(pickle.dumps(store))
    os.chdir(here.parent)
    elsewhere.put(Window(0, 0, 2, 2), np.ones((1, 2, 2), np.int16))
    os.chdir(here)
    assert Store(Path("memory://a/x.zarr")).done() == {(0, 0): 0}


# ----------------------------------------------------------------------------------------- overviews, GeoZarr


@pytest.mark.parametrize("writer", [write_zarr, write_zarr2])
def test_zarr_overviews(writer: Any, tmp_path: Path) -> None:
    spec, values = formats.sized(bands=3, height=531, width=600)
    values[0, 100:103, 200:202] = -32768
    target = tmp_path / "a.zarr"
    writer(target, spec, formats.cut(values, 200, first=77), workdir=tmp_path, overviews=True)
    root = zarr.open_group(str(target), mode="r")
    layout = root.attrs["multiscales"]["layout"]
    assert [entry["asset"] for entry in layout] == ["fused", "overview_2/fused", "overview_4/fused"]
    assert [entry.get("derived_from") for entry in layout] == [None, "fused", "overview_2/fused"]
    finer = values.astype(float)
    finer[finer == -32768] = np.nan
    for entry, factor in zip(layout[1:], (2, 4), strict=True):
        array = root[entry["asset"]]
        assert entry["spatial:shape"] == list(array.shape[1:]) == [-(-531 // factor), -(-600 // factor)]
        level = xr.open_zarr(str(target / entry["asset"]).rsplit("/", 1)[0], chunks=None)["fused"]
        assert tuple(level.rio.transform())[:6] == tuple(entry["spatial:transform"])
        assert level.rio.transform().a == spec.transform.a * factor
        padded = np.pad(finer, ((0, 0), (0, finer.shape[1] % 2), (0, finer.shape[2] % 2)), mode="edge")
        squares = padded.reshape(3, padded.shape[1] // 2, 2, padded.shape[2] // 2, 2)
        with np.errstate(invalid="ignore"):
            count = np.isfinite(squares).sum((2, 4))
            expected = np.floor(np.nansum(squares, (2, 4)) / np.where(count, count, np.nan) + 0.5)
        np.testing.assert_array_equal(array[:], np.nan_to_num(expected, nan=-32768).astype(np.int16))
        finer = expected
    assert (root["overview_2/fused"][0, 50, 100], root["overview_2/fused"][0, 51, 100] != -32768) == (
        -32768,
        True,
    )
    np.testing.assert_array_equal(root["fused"][:], values)
    found = open_source(target)
    assert (found.height, found.width) == (531, 600)


def test_geozarr_attributes(tmp_path: Path) -> None:
    spec, values = formats.sized(bands=2, height=20, width=30)
    write_zarr(tmp_path / "a.zarr", spec, [(0, 0, values)], workdir=tmp_path)
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    attrs = root.attrs.asdict()
    assert [entry["name"] for entry in attrs["zarr_conventions"]] == ["spatial", "proj:"]
    assert attrs["proj:code"] == "EPSG:32719"
    assert attrs["spatial:transform"] == [0.5, 0.0, 123456.25, 0.0, -0.5, 4567890.75]
    assert attrs["spatial:bbox"] == [123456.25, 4567880.75, 123471.25, 4567890.75]
    assert (attrs["spatial:dimensions"], attrs["spatial:shape"]) == (["y", "x"], [20, 30])
    assert "multiscales" not in attrs
    mapping = root["spatial_ref"].attrs.asdict()
    assert mapping["GeoTransform"] == "123456.25 0.5 0.0 4567890.75 0.0 -0.5"
    assert "UTM zone 19S" in mapping["crs_wkt"]
    plain = replace(spec, crs=None)
    write_zarr(tmp_path / "b.zarr", plain, [(0, 0, values)], workdir=tmp_path)
    assert "proj:code" not in zarr.open_group(str(tmp_path / "b.zarr"), mode="r").attrs.asdict()


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
def test_cog_overviews_do_not_depend_on_the_blocks(dtype: str, tmp_path: Path) -> None:
    """Squares that lie in two or four blocks are averaged as the others."""
    spec, values = formats.sized(bands=2, height=531, width=610, dtype=dtype)
    values[0, 100:140, 190:333] = spec.encoding.nodata
    expected = halve(values, spec.encoding.nodata)
    for side, first in ((1024, 0), (200, 77), (128, 52)):
        target = formats.write("cog", tmp_path / f"{side}.tif", spec, formats.cut(values, side, first=first))
        with rasterio.open(target, overview_level=0) as src:
            np.testing.assert_array_equal(src.read(), expected)
        with rasterio.open(target, overview_level=1) as src:
            np.testing.assert_array_equal(src.read(), halve(expected, spec.encoding.nodata))


# ------------------------------------------------------------------------------------------- inputs from the net


def test_inputs_over_http_and_s3(pair: made.Pair, tmp_path: Path) -> None:
    def fuse(hsi: str, msi: str, target: str, **env: str) -> np.ndarray:
        args = ["fuse", hsi, msi, "-o", str(tmp_path / target), *FAST]
        done = CliRunner().invoke(main, args, env=env)
        assert done.exit_code == 0, done.output
        with rasterio.open(tmp_path / target) as src:
            return src.read()

    expected = fuse(str(pair.hsi), str(pair.msi), "local.tif")
    with serving.serving(pair.hsi.parent) as port:
        web = f"http://127.0.0.1:{port}"
        np.testing.assert_array_equal(fuse(f"{web}/hsi.tif", f"{web}/msi.tif", "web.tif"), expected)
        bucket = {
            "AWS_S3_ENDPOINT": f"127.0.0.1:{port}",
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_NO_SIGN_REQUEST": "YES",
        }
        found = fuse("s3://bucket/hsi.tif", "s3://bucket/msi.tif", "s3.tif", **bucket)
        np.testing.assert_array_equal(found, expected)
        with pytest.raises(InputError, match=r"no\.tif' cannot be opened .*404.*check the address"):
            open_source(f"{web}/no.tif")


def test_an_address_that_nobody_answers(pair: made.Pair, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "csakd_geo.cli", "fuse", "http://127.0.0.1:1/hsi.tif", str(pair.msi)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "a.tif")], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.strip().startswith("Error: 'http://127.0.0.1:1/hsi.tif' cannot be opened")
    assert names(tmp_path) == []


# ------------------------------------------------------------------------------------------------------- memory


def test_many_super_tiles_take_no_files_and_no_memory(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.tif")
    store.begin({}, b"")
    areas = [Window(0, col, 1, 1) for col in range(50)]
    for area in areas:
        store.put(area, np.full((2, 1, 1), area.col, np.int16))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    blocks = [block for _, block in store.blocks(areas)]
    assert all(isinstance(block, Staged) for block in blocks)
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
    assert (blocks[7].shape, blocks[7].dtype, blocks[7][1, 0, 0]) == ((2, 1, 1), np.int16, 7)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read as Linux counts it")
@pytest.mark.parametrize("form", ["cog", "zarr"])
def test_peak_memory_does_not_grow_with_the_scene(form: str, repo: Path, tmp_path: Path) -> None:
    def peak(side: int) -> float:
        command = [sys.executable, str(repo / "benchmarks" / "writing.py"), "--bands", "64"]
        done = subprocess.run(
            [*command, "--side", str(side), "--only", form, "--folder", str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(repo), "GDAL_CACHEMAX": "32"},
        )
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{form} "))
        return float(line.split("peak ")[1].split()[0])

    assert peak(2048) < peak(1024) * 1.15
