"""`csakd-geo fuse` as a user types it: products, messages, exit codes, and what is left behind when it fails."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas
import made
import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result
from rio_cogeo.cogeo import cog_validate
from shapely.geometry import box

from csakd_geo.cli import main

OLD = b"what stood here before"
FAST = ("--method", "regression", "--shift", "none")


def call(*args: str | Path, **env: str) -> Result:
    return CliRunner().invoke(main, ["fuse", *map(str, args)], env=env)


def typed(*args: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "csakd_geo.cli", "fuse", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **more,
    )


def refused(result: Result, folder: Path, *words: str, code: int = 1, left: Sequence[str] = ()) -> str:
    """The one sentence on stderr, after checks that nothing else was said and that nothing is left behind.

    `left` names what a run that can go on leaves.
    """
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert "should not have" not in result.stderr, result.stderr
    for word in words:
        assert word in lines[0], lines[0]
    untidy = [p.name for p in folder.iterdir() if p.suffix in (".part", ".lock", ".tmp")]
    assert untidy == list(left)
    return lines[0]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    return made.make_pair(tmp_path_factory.mktemp("pair"), bands=12, height=64, width=72)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """An output that exists and must survive whatever goes wrong."""
    path = tmp_path / "out" / "fused.tif"
    path.parent.mkdir()
    path.write_bytes(OLD)
    yield path
    assert path.read_bytes() == OLD


# ---------------------------------------------------------------------------------------------- bad input


def test_missing_file(pair: made.Pair, old: Path) -> None:
    refused(call("no.tif", pair.msi, "-o", old, "--overwrite"), old.parent, "'no.tif' does not exist")
    refused(call(pair.hsi, "no.tif", "-o", old, "--overwrite"), old.parent, "'no.tif' does not exist")


def test_not_a_raster(pair: made.Pair, old: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.tif"
    text.write_text("not a raster")
    refused(call(text, pair.msi, "-o", old, "--overwrite"), old.parent, "'notes.tif'", "cannot be opened")


def test_truncated_raster(pair: made.Pair, old: Path, tmp_path: Path) -> None:
    """The header is whole, the pixels are not."""
    half = tmp_path / "half.tif"
    half.write_bytes(pair.hsi.read_bytes()[: pair.hsi.stat().st_size // 2])
    refused(call(half, pair.msi, "-o", old, "--overwrite"), old.parent, "'half.tif'")


def test_folder_as_input(pair: made.Pair, old: Path, tmp_path: Path) -> None:
    refused(call(tmp_path, pair.msi, "-o", old, "--overwrite"), old.parent, "is a folder")


def test_no_overlap_names_both_extents(pair: made.Pair, old: Path, tmp_path: Path) -> None:
    truth, wavelength = made.make_truth(12, 16, 16)
    away = made.write(tmp_path / "away.tif", truth, pixel=40, left=900_000, wavelength=wavelength)
    text = refused(
        call(away, pair.msi, "-o", old, "--overwrite"),
        old.parent,
        "do not overlap",
        "x 900000 to 900640",
        "x 500000 to 500720",
    )
    assert "y 5.79936e+06 to 5.8e+06" in text


def test_swapped_inputs(pair: made.Pair, old: Path) -> None:
    refused(call(pair.msi, pair.hsi, "-o", old, "--overwrite"), old.parent, "swapped")


def test_hsi_not_coarser(pair: made.Pair, old: Path, tmp_path: Path) -> None:
    truth, wavelength = made.make_truth(12, 64, 72)
    fine = made.write(tmp_path / "fine.tif", truth, wavelength=wavelength)
    refused(call(fine, pair.msi, "-o", old, "--overwrite"), old.parent, "2 times coarser")


def test_ratio_that_does_not_fit(pair: made.Pair, old: Path) -> None:
    text = refused(call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--ratio", "7"), old.parent, "Ratio 7")
    assert "give 4" in text
    refused(call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--ratio", "1"), old.parent, "'ratio'", "1")


@pytest.mark.parametrize("which", ["hsi", "msi"])
def test_all_nodata(which: str, pair: made.Pair, old: Path, tmp_path: Path) -> None:
    with rasterio.open(getattr(pair, which)) as src:
        shape, pixel = (src.count, src.height, src.width), src.res[0]
    blank = made.write(tmp_path / "blank.tif", np.full(shape, np.nan, np.float32), pixel=pixel, nodata=np.nan)
    files = {"hsi": pair.hsi, "msi": pair.msi, which: blank}
    refused(call(files["hsi"], files["msi"], "-o", old, "--overwrite"), old.parent, "'blank.tif'", "nodata")


def test_nothing_valid_in_both(pair: made.Pair, old: Path, tmp_path: Path) -> None:
    """Each image holds data, but never in the same place."""
    with rasterio.open(pair.hsi) as src:
        hsi = src.read()
    with rasterio.open(pair.msi) as src:
        msi = src.read()
    hsi[:, : hsi.shape[1] // 2] = np.nan
    msi[:, msi.shape[1] // 2 :] = np.nan
    a = made.write(tmp_path / "a.tif", hsi, pixel=40, wavelength=pair.wavelength)
    b = made.write(tmp_path / "b.tif", msi)
    refused(call(a, b, "-o", old, "--overwrite"), old.parent, "valid in both")


@pytest.mark.parametrize("which", ["hsi", "msi"])
def test_constant_image(which: str, pair: made.Pair, old: Path, tmp_path: Path) -> None:
    with rasterio.open(getattr(pair, which)) as src:
        shape, pixel = (src.count, src.height, src.width), src.res[0]
    flat = made.write(tmp_path / "flat.tif", np.full(shape, 0.5, np.float32), pixel=pixel)
    files = {"hsi": pair.hsi, "msi": pair.msi, which: flat}
    refused(call(files["hsi"], files["msi"], "-o", old, "--overwrite"), old.parent, "'flat.tif'", "constant")


def test_output_is_a_folder(pair: made.Pair, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    refused(call(pair.hsi, pair.msi, "-o", out, "--overwrite"), tmp_path, "is a folder")
    assert list(out.iterdir()) == []


def test_output_of_another_format(pair: made.Pair, tmp_path: Path) -> None:
    refused(call(pair.hsi, pair.msi, "-o", tmp_path / "fused.png"), tmp_path, "must end in .tif")


def test_output_in_a_folder_that_is_not_there(pair: made.Pair, tmp_path: Path) -> None:
    refused(call(pair.hsi, pair.msi, "-o", tmp_path / "no" / "fused.tif"), tmp_path, "does not exist")


def test_output_exists(pair: made.Pair, old: Path) -> None:
    refused(call(pair.hsi, pair.msi, "-o", old), old.parent, "exists", "--overwrite")


@pytest.mark.parametrize("which", ["hsi", "msi"])
def test_output_is_an_input(which: str, pair: made.Pair, tmp_path: Path) -> None:
    """Not even --overwrite may destroy what is being fused."""
    for name in ("hsi", "msi"):
        shutil.copy(getattr(pair, name), tmp_path / f"{name}.tif")
    target = tmp_path / f"{which}.tif"
    before = target.read_bytes()
    result = call(tmp_path / "hsi.tif", tmp_path / "msi.tif", "-o", target, "--overwrite", *FAST)
    refused(result, tmp_path, "one of the inputs")
    assert target.read_bytes() == before


def test_working_folder_is_a_file(pair: made.Pair, old: Path) -> None:
    blocker = old.with_name("fused.tif.part")
    blocker.write_text("mine")
    result = call(pair.hsi, pair.msi, "-o", old, "--overwrite", *FAST)
    assert blocker.read_text() == "mine"
    blocker.unlink()
    refused(result, old.parent, "in the way")


def test_no_room_is_said_before_work_starts(
    pair: made.Pair, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    refused(call(pair.hsi, pair.msi, "-o", old, "--overwrite", *FAST), old.parent, "free")


@pytest.mark.parametrize("where", ["supertile", "product"])
def test_disk_runs_full_during_the_run(
    where: str, pair: made.Pair, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = (
        "csakd_geo.io.cog.rasterio.shutil.copy" if where == "product" else "csakd_geo.engine.store.np.save"
    )
    left = [old.name + ".part"] if where == "product" else []
    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        result = call(pair.hsi, pair.msi, "-o", old, "--overwrite", *FAST)
    refused(result, old.parent, "disk is full", *(["--resume goes on"] if left else []), left=left)
    assert old.read_bytes() == OLD
    if left:
        names = sorted(p.name for p in (old.parent / left[0]).iterdir())
        assert names == ["fitted.npz", "plan.json", "tiles"]
        again = call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--resume", *FAST)
        assert again.exit_code == 0, again.stderr
        assert [p.name for p in old.parent.iterdir()] == [old.name]
        old.write_bytes(OLD)  # what the fixture looks for


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize(
    ("size", "left"), [("168k", ["fused.tif.part"]), ("112k", [])], ids=["at the end", "in a super-tile"]
)
def test_disk_that_really_runs_full(
    size: str, left: list[str], pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        target = small / "fused.tif"
        target.write_bytes(OLD)
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 10**12))
        result = call(pair.hsi, pair.msi, "-o", target, "--overwrite", *FAST)
        refused(result, small, "disk is full", *(["--resume goes on"] if left else []), left=left)
        assert target.read_bytes() == OLD
        subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
        assert call(pair.hsi, pair.msi, "-o", target, "--overwrite", "--resume", *FAST).exit_code == 0
        assert [p.name for p in small.iterdir()] == ["fused.tif"]
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write into a read-only folder"
)
def test_read_only_folder(pair: made.Pair, old: Path) -> None:
    old.parent.chmod(0o555)
    try:
        result = call(pair.hsi, pair.msi, "-o", old, "--overwrite", *FAST)
    finally:
        old.parent.chmod(0o755)
    refused(result, old.parent, "cannot be written")


# ------------------------------------------------------------------------------------------ bad models


class _Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch hacked",)


def test_hostile_model_runs_no_code(
    pair: made.Pair, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, inside = tmp_path / "evil.pth", tmp_path / "evil_zip.pth"
    plain.write_bytes(pickle.dumps({"hconv1.weight": _Evil()}))
    torch.save({"decoder.hconv1.weight": torch.zeros(3), "extra": _Evil()}, inside)
    for path in (plain, inside):
        refused(call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--model", path), old.parent, str(path))
    assert not (tmp_path / "hacked").exists()


def test_corrupt_model(pair: made.Pair, old: Path, tmp_path: Path) -> None:
    for name, content in {
        "text.pth": b"no model at all",
        "empty.pth": b"",
        "zip.pth": b"PK\x03\x04 and then nothing",
        "bundle.safetensors": (64).to_bytes(8, "little") + b'{"a": 1',
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        refused(call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--model", path), old.parent, name)


def test_model_for_other_bands(pair: made.Pair, old: Path, tmp_path: Path) -> None:
    path = made.official_model(tmp_path / "other.pth", bands=15, msi_bands=4)
    refused(
        call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--model", path),
        old.parent,
        "15 HSI bands",
        "12 good ones",
    )
    path = made.official_model(tmp_path / "other.pth", bands=12, msi_bands=6)
    refused(call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--model", path), old.parent, "6 MSI bands")


def test_unknown_names_list_the_known_ones(pair: made.Pair, old: Path) -> None:
    text = refused(
        call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--method", "magic"), old.parent, "magic"
    )
    for name in ("bicubic", "regression", "gsa", "mtf-glp", "cnmf", "subspace-map", "coupled-map", "csakd"):
        assert name in text
    result = call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--model", "magic", CSAKD_GEO_MODELS=str(old))
    refused(result, old.parent, "'magic'", "known models")


def test_model_with_another_method(pair: made.Pair, old: Path, tmp_path: Path) -> None:
    path = made.official_model(tmp_path / "net.pth", bands=12, msi_bands=4)
    result = call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--model", path, "--method", "gsa")
    refused(result, old.parent, "--model", "--method gsa")


@pytest.mark.parametrize("minutes", ["0", "0.1"])
def test_no_model_fits_and_the_scene_is_too_small_to_train(
    minutes: str, pair: made.Pair, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csakd_geo.models.registry.bundled_models", lambda: [])
    args = ("--method", "csakd", "--adapt-minutes", minutes)
    result = call(pair.hsi, pair.msi, "-o", old, "--overwrite", *args, CSAKD_GEO_MODELS=str(tmp_path / "no"))
    text = refused(result, old.parent, "model fits", "48 x 48")
    assert "training is off" not in text


# ------------------------------------------------------------------------------- bad areas and options


def test_corrupt_area(pair: made.Pair, old: Path, tmp_path: Path) -> None:
    broken = tmp_path / "area.gpkg"
    broken.write_bytes(b"SQLite format 3\x00 and nothing more")
    refused(call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--aoi", broken), old.parent, "'", "area.gpkg")
    missing = tmp_path / "no.gpkg"
    refused(
        call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--aoi", missing), old.parent, "does not exist"
    )
    line = tmp_path / "line.geojson"
    geopandas.GeoSeries([box(0, 0, 1, 1).exterior], crs=made.CRS).to_file(line)
    refused(call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--aoi", line), old.parent, "no polygon")


def test_area_elsewhere(pair: made.Pair, old: Path, tmp_path: Path) -> None:
    away = tmp_path / "away.geojson"
    geopandas.GeoSeries([box(700_000, 5_000_000, 700_100, 5_000_100)], crs=made.CRS).to_file(away)
    refused(
        call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--aoi", away),
        old.parent,
        "area of interest",
        "do not overlap",
        "x 700000 to 700100",
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_that_is_not_there(pair: made.Pair, old: Path) -> None:
    for device in ("cuda", "cuda:3"):
        result = call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--device", device)
        refused(result, old.parent, f"'{device}'", "--device cpu")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--device", "tpu"), ("'device'", "tpu")),
        (("--bands", "99"), ("'99'", "1 to 12")),
        (("--bands", "red"), ("'red'",)),
        (("--bands", "3000nm"), ("3000nm",)),
        (("--bands", ""), ("band list",)),
        (("--tile", "3"), ("'tile'", "3")),
        (("--halo", "-4"), ("'halo'", "-4")),
        (("--adapt-minutes", "-1"), ("'adapt_minutes'",)),
        (("--adapt-minutes", "nan"), ("'adapt_minutes'",)),
        (("--seed", "-1"), ("'seed'",)),
        (("--shift", "1e9,0"), ("do not overlap",)),
        (("--wavelengths", "no.csv"), ("no.csv",)),
        (("--config", "no.yaml"), ("no.yaml",)),
        (("--truth", "no.tif"), ("no.tif",)),
    ],
)
def test_impossible_values(args: tuple[str, ...], words: tuple[str, ...], pair: made.Pair, old: Path) -> None:
    refused(call(pair.hsi, pair.msi, "-o", old, "--overwrite", *args), old.parent, *words)


@pytest.mark.parametrize(
    "args",
    [
        ("--blend", "magic"),
        ("--statistics", "all"),
        ("--dtype", "int8"),
        ("--halo", "wide"),
        ("--shift", "left"),
        ("--shift", "nan,0"),
        ("--shift", "1,2,3"),
        ("--ratio", "four"),
        ("--no-such-option",),
    ],
)
def test_wrong_usage(args: tuple[str, ...], pair: made.Pair, old: Path) -> None:
    refused(call(pair.hsi, pair.msi, "-o", old, "--overwrite", *args), old.parent, code=2)


def test_output_is_needed(pair: made.Pair, tmp_path: Path) -> None:
    refused(call(pair.hsi, pair.msi), tmp_path, "--output", code=2)


# ------------------------------------------------------------------------------------ interrupted, at once

_SLOW = """
import sys, time
import csakd_geo.engine.graph as graph
fuse = graph.fuse_supertile
def slowly(*args, **kwargs):
    time.sleep(0.4)
    return fuse(*args, **kwargs)
graph.fuse_supertile = slowly
from csakd_geo.cli import main
main()
"""


@pytest.fixture
def slow_run(pair: made.Pair, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run over an existing output that has stored its first super-tiles and needs seconds for the rest."""
    target = tmp_path / "out" / "fused.tif"
    target.parent.mkdir()
    target.write_bytes(OLD)
    args = ["fuse", str(pair.hsi), str(pair.msi), "-o", str(target), "--overwrite", *FAST]
    cut = ["--tile", "16", "--supertile", "16"]
    run = subprocess.Popen(
        [sys.executable, "-c", _SLOW, *args, *cut, "--log-json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    tiles = target.with_name("fused.tif.part") / "tiles"
    until = time.monotonic() + 60
    while len(list(tiles.glob("*.npy"))) < 2 and run.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    yield run, target
    if run.poll() is None:
        run.kill()
    run.communicate()


@pytest.mark.skipif(os.name == "nt", reason="a console's Ctrl-C cannot be sent to one process there")
def test_ctrl_c_leaves_the_target_and_says_how_to_go_on(
    slow_run: tuple[subprocess.Popen[str], Path], pair: made.Pair
) -> None:
    run, target = slow_run
    run.send_signal(signal.SIGINT)
    stdout, stderr = run.communicate(timeout=60)
    assert (run.returncode, stdout) == (1, "")
    said = [line for line in stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1, stderr
    assert said[0].startswith("Error: Stopped on request;")
    assert "--resume goes on with them" in said[0]
    assert target.read_bytes() == OLD
    assert {p.name for p in target.parent.iterdir()} == {"fused.tif", "fused.tif.part"}
    again = call(
        pair.hsi, pair.msi, "-o", target, "--overwrite", "--resume", *FAST, "--tile", 16, "--supertile", 16
    )
    assert again.exit_code == 0, again.stderr
    assert {p.name for p in target.parent.iterdir()} == {"fused.tif"}
    with rasterio.open(target) as src:
        assert src.count == 12


def test_second_run_on_the_same_output_is_refused(
    slow_run: tuple[subprocess.Popen[str], Path], pair: made.Pair
) -> None:
    run, target = slow_run
    result = call(pair.hsi, pair.msi, "-o", target, "--overwrite", *FAST)
    assert result.exit_code == 1
    assert "Another run" in result.stderr
    stdout, stderr = run.communicate(timeout=60)
    assert run.returncode == 0, stderr
    assert stdout.startswith(f"fused: {target}")
    assert {p.name for p in target.parent.iterdir()} == {"fused.tif"}


# ------------------------------------------------------------------------------------------ what it makes


def test_as_typed(pair: made.Pair, tmp_path: Path) -> None:
    """Defaults alone, through the interpreter."""
    target = tmp_path / "fused.tif"
    done = typed(pair.hsi, pair.msi, "-o", target)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith(f"fused: {target}")
    for word in ("Ratio", "Expected", "Fitting", "Fusing", "Writing", "Done in"):
        assert word in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["fused.tif"]


def test_product_by_another_library(pair: made.Pair, tmp_path: Path) -> None:
    target = tmp_path / "fused.tif"
    assert call(pair.hsi, pair.msi, "-o", target, *FAST).exit_code == 0
    valid, errors, _ = cog_validate(target)
    assert valid, errors
    with rasterio.open(target) as src, rasterio.open(pair.msi) as msi:
        assert (src.crs, src.transform, src.shape) == (msi.crs, msi.transform, msi.shape)
        assert (src.count, src.dtypes[0], src.nodata) == (12, "int16", -32768)
        assert src.interleaving.value == "BAND"
        assert len(set(src.scales)) == 1
        found = src.read() * src.scales[0] + src.offsets[0]
        for i, centre in enumerate(pair.wavelength, 1):
            imagery, tags = src.tags(i, ns="IMAGERY"), src.tags(i)
            assert float(imagery["CENTRAL_WAVELENGTH_UM"]) == pytest.approx(centre / 1000, abs=1e-5)
            assert float(imagery["FWHM_UM"]) == pytest.approx(0.02)
            assert float(tags["wavelength"]) == pytest.approx(centre, abs=0.01)
            assert (tags["wavelength_units"], tags["bbl"], float(tags["fwhm"])) == ("Nanometers", "1", 20.0)
            assert f"Band {i} " in src.descriptions[i - 1]
    assert made.relative(found, pair.truth) < 0.02


def test_provenance(pair: made.Pair, tmp_path: Path) -> None:
    target = tmp_path / "fused.tif"
    assert call(pair.hsi, pair.msi, "-o", target, *FAST, "--seed", "7").exit_code == 0
    with rasterio.open(target) as src:
        tags = {k.removeprefix("CSAKD_GEO_"): v for k, v in src.tags().items() if k.startswith("CSAKD_GEO_")}
    assert tags["SOFTWARE"].startswith("csakd_geo ")
    assert (tags["METHOD"], tags["RATIO"], tags["HSI"], tags["MSI"]) == (
        "regression",
        "4",
        "hsi.tif",
        "msi.tif",
    )
    assert json.loads(tags["OPTIONS"])["seed"] == 7
    assert json.loads(tags["CLIPPED_VALUES"]) == 0
    assert json.loads(tags["PSF_FWHM_HSI_PIXELS"]) == pytest.approx(1, abs=0.1)


def test_provenance_names_the_model_by_its_hash(pair: made.Pair, tmp_path: Path) -> None:
    target, net = tmp_path / "fused.tif", made.subspace_model(tmp_path / "net.safetensors")
    result = call(pair.hsi, pair.msi, "-o", target, "--model", net)
    assert result.exit_code == 0, result.stderr
    with rasterio.open(target) as src:
        facts = json.loads(src.tags()["CSAKD_GEO_MODEL"])
    digest = hashlib.sha256(net.read_bytes()).hexdigest()
    assert (facts["name"], facts["file_sha256"]) == ("net", digest)
    assert "csakd, model net" in result.stdout


def test_imported_model_warns_once_of_what_it_does_not_state(pair: made.Pair, tmp_path: Path) -> None:
    net = made.official_model(tmp_path / "net.pth", bands=12, msi_bands=4)
    result = call(pair.hsi, pair.msi, "-o", tmp_path / "fused.tif", "--model", net, "--quiet")
    assert result.exit_code == 0, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Warning: Model net was not checked")
    assert "wavelengths" in result.stderr


def test_dry_run_says_what_it_takes_and_writes_nothing(pair: made.Pair, old: Path) -> None:
    before = sorted(p.name for p in old.parent.iterdir())
    result = call(pair.hsi, pair.msi, "-o", old, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    for word in ("memory", "disk", "without training", "64 x 72 pixels", "12 bands", "Ratio"):
        assert word in " ".join(result.stderr.split())
    assert sorted(p.name for p in old.parent.iterdir()) == before


def test_dry_run_finds_what_is_wrong(pair: made.Pair, tmp_path: Path) -> None:
    out = tmp_path / "fused.tif"
    refused(call(pair.hsi, pair.msi, "-o", out, "--dry-run", "--method", "magic"), tmp_path, "magic")
    refused(call(pair.hsi, pair.msi, "-o", out, "--dry-run", "--model", "magic"), tmp_path, "magic")
    refused(call(pair.hsi, pair.msi, "-o", out, "--dry-run", "--bands", "77"), tmp_path, "77")


def test_quiet(pair: made.Pair, tmp_path: Path) -> None:
    result = call(pair.hsi, pair.msi, "-o", tmp_path / "fused.tif", *FAST, "--quiet")
    assert (result.exit_code, result.stderr, len(result.stdout.splitlines())) == (0, "", 1)


def test_log_json(pair: made.Pair, tmp_path: Path) -> None:
    target = tmp_path / "fused.tif"
    result = call(pair.hsi, pair.msi, "-o", target, *FAST, "--log-json")
    assert result.exit_code == 0
    events = [json.loads(line) for line in result.stderr.splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("plan", "done")
    shares: dict[str, list[float]] = {}
    for event in events:
        if event["event"] == "progress":
            shares.setdefault(event["stage"], []).append(event["share"])
    assert list(shares) == ["fit", "fuse", "write"]
    for values in shares.values():
        assert values == sorted(values)
        assert values[-1] == 1
    assert events[-1]["products"] == {"fused": str(target)}
    seconds = [event["seconds"] for event in events]
    assert seconds == sorted(seconds)


def test_config_holds_the_same_options_and_the_command_line_wins(pair: made.Pair, tmp_path: Path) -> None:
    config, target = tmp_path / "fuse.yaml", tmp_path / "fused.tif"
    config.write_text(
        "method: regression\nshift: [0, 0]\nadapt-minutes: 0\nbands: [1, 3-4]\ndtype: float32\nseed: 3\n"
    )
    result = call(pair.hsi, pair.msi, "-o", target, "--config", config, "--method", "bicubic")
    assert result.exit_code == 0, result.stderr
    with rasterio.open(target) as src:
        options = json.loads(src.tags()["CSAKD_GEO_OPTIONS"])
        assert (src.count, src.dtypes[0]) == (3, "float32")
        assert [float(src.tags(i)["wavelength"]) for i in (1, 2, 3)] == pytest.approx(
            pair.wavelength[[0, 2, 3]], abs=0.01
        )
    assert options["method"] == "bicubic"
    assert (options["shift"], options["adapt_minutes"], options["seed"]) == ([0.0, 0.0], 0.0, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tyle: 64\n", ("'tyle'", "tile")),
        ("tile: big\n", ("'tile'", "big")),
        ("tile: [1\n", ("no valid YAML", "line")),
        ("- tile\n", ("mapping",)),
        ("overwrite: maybe\n", ("'overwrite'", "maybe")),
        ("shift: [.nan, 0]\n", ("'shift'",)),
    ],
)
def test_bad_config(text: str, words: tuple[str, ...], pair: made.Pair, old: Path, tmp_path: Path) -> None:
    config = tmp_path / "fuse.yaml"
    config.write_text(text)
    refused(call(pair.hsi, pair.msi, "-o", old, "--overwrite", "--config", config), old.parent, *words)


def test_config_holds_the_switches_and_paths_beside_it_too(
    pair: made.Pair, old: Path, tmp_path: Path
) -> None:
    made.write(tmp_path / "truth.tif", pair.truth, wavelength=pair.wavelength)
    config, target = tmp_path / "fuse.yaml", tmp_path / "fused.tif"
    config.write_text("truth: truth.tif\nquiet: true\noverwrite: true\nshift: none\nmethod: regression\n")
    for more in ((), ("--truth", tmp_path / "truth.tif")):
        result = call(pair.hsi, pair.msi, "-o", target, "--config", config, *more)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "PSNR" in result.stdout
    config.write_text("dry-run: true\noverwrite: true\n")
    assert call(pair.hsi, pair.msi, "-o", old, "--config", config).exit_code == 0


def test_no_wavelengths_works_with_a_warning(pair: made.Pair, tmp_path: Path) -> None:
    with rasterio.open(pair.hsi) as src:
        bare = made.write(tmp_path / "bare.tif", src.read(), pixel=40)
    target = tmp_path / "fused.tif"
    result = call(bare, pair.msi, "-o", target, "--quiet")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("Warning: ")
    assert "states no wavelengths" in result.stderr
    with rasterio.open(target) as src:
        assert src.count == 12
        assert src.tags(1, ns="IMAGERY") == {}
    table = tmp_path / "bands.csv"
    table.write_text("wavelength,fwhm\n" + "".join(f"{w},20\n" for w in pair.wavelength))
    result = call(bare, pair.msi, "-o", target, "--overwrite", "--quiet", "--wavelengths", table)
    assert (result.exit_code, result.stderr) == (0, "")
    with rasterio.open(target) as src:
        assert float(src.tags(12, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"]) == pytest.approx(0.9)


def test_nan_and_inf_stay_where_they_are(pair: made.Pair, tmp_path: Path) -> None:
    with rasterio.open(pair.hsi) as src:
        hsi = src.read()
    with rasterio.open(pair.msi) as src:
        msi = src.read()
    hsi[3, 2, 5], hsi[0, 9, 1], msi[1, 40, 30], msi[3, 63, 47] = np.nan, np.inf, -np.inf, np.nan
    holes = np.zeros(msi.shape[1:], bool)
    holes[8:12, 20:24] = holes[36:40, 4:8] = holes[40, 30] = holes[63, 47] = True
    a = made.write(tmp_path / "a.tif", hsi, pixel=40, wavelength=pair.wavelength)
    b = made.write(tmp_path / "b.tif", msi)
    clean, holed = tmp_path / "clean.tif", tmp_path / "holed.tif"
    args = ("--method", "coupled-map", "--dtype", "float32", "--quiet")
    assert call(pair.hsi, pair.msi, "-o", clean, *args).exit_code == 0
    result = call(a, b, "-o", holed, *args)
    assert (result.exit_code, result.stderr) == (0, "")
    with rasterio.open(clean) as src, rasterio.open(holed) as dst:
        expected, found = src.read(), dst.read()
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(holes, found.shape))
    expected[:, holes] = np.nan
    assert made.relative(found, expected) < 0.01


def test_quicklook_and_truth(pair: made.Pair, tmp_path: Path) -> None:
    truth = made.write(tmp_path / "truth.tif", pair.truth, wavelength=pair.wavelength)
    target = tmp_path / "fused.tif"
    result = call(pair.hsi, pair.msi, "-o", target, *FAST, "--quicklook", "--truth", truth)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["fused", "quicklook"]
    picture = Path(lines[1].split(": ")[1].split("  ")[0])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "PSNR" in lines[1]
    assert {p.name for p in tmp_path.iterdir()} == {"fused.tif", "truth.tif", picture.name}


def test_a_lake_in_the_middle(tmp_path: Path) -> None:
    """The patch that the plan's timing looks at may hold one value only."""
    pair = made.make_pair(tmp_path, bands=8, height=96, width=96, noise=0)
    with rasterio.open(pair.hsi, "r+") as hsi, rasterio.open(pair.msi, "r+") as msi:
        low, high = hsi.read(), msi.read()
        low[:, 2:22, 2:22], high[:, 8:88, 8:88] = 0.04, 0.04
        hsi.write(low)
        msi.write(high)
    result = call(pair.hsi, pair.msi, "-o", tmp_path / "fused.tif", *FAST)
    assert result.exit_code == 0, result.stderr
