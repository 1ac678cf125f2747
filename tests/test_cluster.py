"""Runs on worker processes: the same pixels, also where one of them dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import made
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from csakd_geo.cli import main
from csakd_geo.engine.store import Store

distributed = pytest.importorskip("distributed", reason="the package distributed is not installed")

CUT = ("--method", "gsa", "--tile", "16", "--supertile", "16", "--quiet")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    return made.make_pair(tmp_path_factory.mktemp("pair"), bands=10, height=96, width=96)


def call(pair: made.Pair, target: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["fuse", str(pair.hsi), str(pair.msi), "-o", str(target), *CUT, *args])


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return np.asarray(src.read())


def test_two_processes_and_a_scheduler_give_the_pixels_of_threads(pair: made.Pair, tmp_path: Path) -> None:
    assert call(pair, tmp_path / "threads.tif").exit_code == 0
    done = call(pair, tmp_path / "processes.tif", "--workers", "2")
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(pixels(tmp_path / "processes.tif"), pixels(tmp_path / "threads.tif"))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, processes=False
    ) as cluster:
        done = call(pair, tmp_path / "scheduler.tif", "--scheduler", cluster.scheduler_address)
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(pixels(tmp_path / "scheduler.tif"), pixels(tmp_path / "threads.tif"))


@pytest.mark.skipif(os.name != "posix", reason="a process is killed the POSIX way")
def test_a_worker_that_dies_costs_one_supertile(
    pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters: list[distributed.LocalCluster] = []
    real = distributed.LocalCluster.__init__

    def remember(self: distributed.LocalCluster, *args: object, **kwargs: object) -> None:
        real(self, *args, **kwargs)
        clusters.append(self)

    monkeypatch.setattr(distributed.LocalCluster, "__init__", remember)
    whole, target = tmp_path / "whole.tif", tmp_path / "fused.tif"
    assert call(pair, whole).exit_code == 0
    killed: list[int] = []

    def kill_one() -> None:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            if Store(target).count() >= 3 and clusters:
                process = next(iter(clusters[0].workers.values())).process
                killed.append(process.pid)
                os.kill(process.pid, signal.SIGKILL)
                return
            time.sleep(0.005)

    thread = threading.Thread(target=kill_one)
    thread.start()
    done = call(pair, target, "--workers", "2")
    thread.join()
    assert done.exit_code == 0, done.output
    assert killed
    np.testing.assert_array_equal(pixels(target), pixels(whole))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fused.tif", "whole.tif"]


def test_a_scheduler_that_is_not_there_is_told(
    pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csakd_geo.engine.run._PATIENCE", 1)
    done = call(pair, tmp_path / "fused.tif", "--scheduler", "tcp://127.0.0.1:9")
    assert done.exit_code == 1
    assert "No Dask scheduler answers at 'tcp://127.0.0.1:9'" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
