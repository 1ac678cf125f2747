"""Runs that are killed, and go on to the same pixels; what is refused, and what is computed again."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from csakd_geo.cli import main
from csakd_geo.engine.store import Store
from csakd_geo.errors import OutputError
from csakd_geo.tiling import Window

CUT = ("--method", "gsa", "--tile", "16", "--supertile", "16", "--quiet")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    return made.make_pair(tmp_path_factory.mktemp("pair"), bands=10, height=96, width=96)


def call(pair: made.Pair, target: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["fuse", str(pair.hsi), str(pair.msi), "-o", str(target), *args])


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return np.asarray(src.read())


@pytest.fixture(scope="module")
def whole(pair: made.Pair, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The pixels of a run that nobody stopped."""
    target = tmp_path_factory.mktemp("whole") / "fused.tif"
    done = call(pair, target, *CUT)
    assert done.exit_code == 0, done.output
    return pixels(target)


def stopped(pair: made.Pair, target: Path, monkeypatch: pytest.MonkeyPatch, after: int = 7) -> int:
    """Stop a run after so many super-tiles as Ctrl-C does; returns how many are kept."""
    put = Store.put

    def count(self: Store, *args: Any) -> None:
        if self.count() >= after:
            raise KeyboardInterrupt
        put(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", count)
        patch.setattr("csakd_geo.product.workers", lambda _: 1)  # nobody goes on after the stop
        done = call(pair, target, *CUT)
    assert done.exit_code == 1
    assert "Stopped on request" in done.stderr
    assert not target.exists()
    return Store(target).count()


def test_a_stopped_run_goes_on(
    pair: made.Pair, whole: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "fused.tif"
    kept = stopped(pair, target, monkeypatch)
    assert 7 <= kept < 36
    computed: list[Window] = []
    real = Store.put

    def put(self: Store, area: Window, *args: Any) -> None:
        computed.append(area)
        real(self, area, *args)

    monkeypatch.setattr(Store, "put", put)
    done = call(pair, target, *CUT, "--resume")
    assert done.exit_code == 0, done.output
    assert len(computed) == 36 - kept
    np.testing.assert_array_equal(pixels(target), whole)
    assert [p.name for p in tmp_path.iterdir()] == ["fused.tif"]


def test_damaged_supertiles_are_computed_again(
    pair: made.Pair, whole: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "fused.tif"
    stopped(pair, target, monkeypatch)
    tiles = sorted(Store(target).tiles.glob("*.npy"))
    turned = bytearray(tiles[0].read_bytes())
    turned[-100] ^= 1
    tiles[0].write_bytes(turned)
    tiles[1].write_bytes(tiles[1].read_bytes()[:-5])
    tiles[2].write_bytes(b"")
    assert len(Store(target).done()) == len(tiles) - 3
    done = call(pair, target, *CUT, "--resume")
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(pixels(target), whole)


def test_with_nothing_to_resume_it_starts(pair: made.Pair, whole: np.ndarray, tmp_path: Path) -> None:
    target = tmp_path / "fused.tif"
    assert call(pair, target, *CUT, "--resume").exit_code == 0
    np.testing.assert_array_equal(pixels(target), whole)


def test_a_finished_output_is_left_alone(pair: made.Pair, tmp_path: Path) -> None:
    target = tmp_path / "fused.tif"
    assert call(pair, target, *CUT).exit_code == 0
    before = target.stat().st_mtime_ns
    Store(target).begin({}, b"")  # as if the process had died right after its last step
    again = call(pair, target, *CUT, "--resume")
    assert again.exit_code == 0
    assert "finished before with the same settings" in again.stdout
    assert target.stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == ["fused.tif"]
    other = call(pair, target, *CUT, "--resume", "--dtype", "float32")
    assert other.exit_code == 1
    assert "made with other settings; give --overwrite" in other.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--dtype", "float32"), "begun with dtype = 'int16', but now it is 'float32'"),
        (("--halo", "3"), "begun with halo = None, but now it is 3"),
    ],
)
def test_other_settings_are_refused(
    pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, ...], words: str
) -> None:
    target = tmp_path / "fused.tif"
    kept = stopped(pair, target, monkeypatch)
    refused = call(pair, target, *CUT, *change, "--resume")
    assert refused.exit_code == 1
    assert words in refused.stderr
    assert Store(target).count() >= kept  # nothing is lost by asking


def test_a_changed_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = made.make_pair(tmp_path, bands=10, height=96, width=96)
    target = tmp_path / "fused.tif"
    stopped(pair, target, monkeypatch)
    os.utime(pair.msi, (1, 1))
    refused = call(pair, target, *CUT, "--resume")
    assert refused.exit_code == 1
    assert "begun with msi = " in refused.stderr


def test_a_damaged_plan_is_told(pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "fused.tif"
    stopped(pair, target, monkeypatch)
    folder = Store(target).folder
    plan = (folder / "plan.json").read_text()
    for damaged in (plan[:-30], json.dumps({**json.loads(plan), "fitted_sha256": "0"}), "{}", "[]"):
        (folder / "plan.json").write_text(damaged)
        refused = call(pair, target, *CUT, "--resume")
        assert refused.exit_code == 1
        assert "The plan in" in refused.stderr
        assert "start afresh" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert call(pair, target, *CUT).exit_code == 0


def test_a_corrected_shift_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid that the first run found is the one that the second goes on with."""
    pair = made.make_pair(tmp_path, bands=10, height=128, width=128)
    with rasterio.open(pair.hsi, "r+") as src:
        src.transform = src.transform * rasterio.Affine.translation(0.4, -0.3)
    first, second = tmp_path / "first.tif", tmp_path / "second.tif"
    done = call(pair, first, *CUT)
    assert done.exit_code == 0
    with rasterio.open(first) as src:
        assert json.loads(src.tags()["CSAKD_GEO_SHIFT"]) != [0, 0]
    stopped(pair, second, monkeypatch)
    assert call(pair, second, *CUT, "--resume").exit_code == 0
    np.testing.assert_array_equal(pixels(second), pixels(first))


def test_what_cannot_be_read_fails_at_the_end_or_is_left_empty(
    pair: made.Pair, whole: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from csakd_geo.engine.scene import Scene
    from csakd_geo.errors import InputError

    real = Scene.block

    def broken(self: Scene, window: Window) -> Any:
        # the first super-tile's window with its halo, and no sample of the scene
        if window.row == 0 and window.col == 0 and window.height < self.frame.height:
            raise InputError("'msi.tif' cannot be read at row 0.")
        return real(self, window)

    target, empty = tmp_path / "fused.tif", tmp_path / "empty.tif"
    with monkeypatch.context() as patch:
        patch.setattr(Scene, "block", broken)
        failed = call(pair, target, *CUT)
        assert failed.exit_code == 1
        assert (
            "parts of the scene could not be read, the rest is done: 'msi.tif' cannot be read"
            in failed.stderr
        )
        assert not target.exists()
        kept = Store(target).count()
        assert 20 < kept < 36
        assert call(pair, empty, *CUT, "--unreadable", "nodata").exit_code == 0
    holed = pixels(empty)
    lost = (holed == -32768).all(0)
    assert lost[:16, :16].all()
    assert lost.mean() < 0.5
    np.testing.assert_array_equal(holed[:, ~lost], whole[:, ~lost])
    # the file is mended: the run goes on
    assert call(pair, target, *CUT, "--resume").exit_code == 0
    np.testing.assert_array_equal(pixels(target), whole)


def test_a_store_without_a_plan_is_no_run(tmp_path: Path) -> None:
    store = Store(tmp_path / "fused.tif")
    assert store.load() is None
    store.begin({"a": 1}, b"fit")
    plan, fitted = store.load() or ({}, b"")
    assert (plan["a"], fitted) == (1, b"fit")
    (store.folder / "fitted.npz").write_bytes(b"other")
    with pytest.raises(OutputError, match="is damaged"):
        store.load()


def fuse_here(hsi: str, msi: str, target: str, goal: int | None = None, delay: float = 0.0) -> None:
    """One run as the command makes it, in a process of its own; it is killed `delay` s after `goal` is reached.

    The clock starts in the process itself, when it puts a super-tile with so many stored, or at the start
    where so many are stored already: however slow the machine, the kill falls where it was meant.
    """
    put, known = Store.put, Store(Path(target)).count()

    def arm() -> None:
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()

    def watched(self: Store, *args: Any) -> None:
        if goal is not None and self.count() >= goal:
            arm()
        put(self, *args)
        if goal == 36 and self.count() == 36:
            arm()

    Store.put = watched  # type: ignore[method-assign] # nothing else runs in this process
    if goal == known == 36:
        arm()
    main(["fuse", hsi, msi, "-o", target, *CUT, "--resume"], standalone_mode=False)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="processes are forked from a prepared one")
def test_twenty_kills_change_nothing(pair: made.Pair, whole: np.ndarray, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["csakd_geo.cli.fuse", "csakd_geo.product", "csakd_geo.adapt", "rio_cogeo"]
    )
    target = tmp_path / "fused.tif"
    store, draw = Store(target), random.Random(1)
    killed, finishing, seen, in_a_row = 0, 0, set[int](), 0
    for _ in range(60):
        at_end = store.count() == 36 or draw.random() < 0.2
        goal = 36 if at_end else min(35, store.count() + draw.randint(0, 4))
        delay = draw.uniform(0, 0.4 if at_end else 0.01)
        if in_a_row == 4:
            goal = None  # where finishing takes longer than the longest delay, no run would ever come through
        process = context.Process(
            target=fuse_here, args=(str(pair.hsi), str(pair.msi), str(target), goal, delay)
        )
        process.start()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
            finishing += store.count() == 36
            seen.add(store.count())
            in_a_row = in_a_row + 1 if store.count() == 36 else 0
        else:
            assert process.exitcode == 0
            in_a_row = 0
        if target.exists():
            np.testing.assert_array_equal(pixels(target), whole)
            if not store.folder.exists():
                target.unlink()  # it came through: begin another
        if killed >= 20 and finishing >= 2 and len(seen) >= 5:
            break
    assert killed >= 20
    assert finishing >= 2
    assert len(seen) >= 5
    done = call(pair, target, *CUT, "--resume")
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(pixels(target), whole)
    assert [p.name for p in tmp_path.iterdir()] == ["fused.tif"]
