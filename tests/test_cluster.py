"""Runs on worker processes: the same pixels, also where one of them dies, and nothing left when stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import made
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from dask.delayed import delayed
from dask.system import CPU_COUNT

from csakd_geo.cli import main
from csakd_geo.draft import draft_job
from csakd_geo.engine import run
from csakd_geo.engine.graph import Written, lazy_cube, writing_tasks
from csakd_geo.engine.store import Store
from csakd_geo.errors import OutputError
from csakd_geo.io.encoding import Encoding
from csakd_geo.job import Job, prepare_job
from csakd_geo.options import make_options
from csakd_geo.tiling import TilePlan

distributed = pytest.importorskip("distributed", reason="the package distributed is not installed")
psutil = pytest.importorskip("psutil")  # which distributed brings

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
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


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> list[distributed.LocalCluster]:
    """Every cluster that has started, as it starts."""
    found: list[distributed.LocalCluster] = []
    real = distributed.LocalCluster.__init__

    def remember(self: distributed.LocalCluster, *args: object, **kwargs: object) -> None:
        real(self, *args, **kwargs)
        found.append(self)

    monkeypatch.setattr(distributed.LocalCluster, "__init__", remember)
    return found


@contextmanager
def at_start(count: int, act: Callable[[psutil.Process], None]) -> Iterator[list[int]]:
    """Does that to the next `count` worker processes as soon as they are there; gives their ids."""
    met: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for pid in set(worker_processes()) - set(met):
                if len(met) < count:
                    met.append(pid)
                    with suppress(psutil.NoSuchProcess):
                        act(psutil.Process(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield met
    finally:
        over.set()
        thread.join()


def worker_processes() -> list[int]:
    """Living worker processes of this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def test_a_worker_that_dies_while_it_starts_is_started_again(pair: made.Pair, tmp_path: Path) -> None:
    whole, target = tmp_path / "whole.tif", tmp_path / "fused.tif"
    assert call(pair, whole).exit_code == 0
    with at_start(1, psutil.Process.kill) as killed:
        done = call(pair, target, "--workers", "2")
    assert done.exit_code == 0, done.output
    assert len(killed) == 1
    np.testing.assert_array_equal(pixels(target), pixels(whole))
    assert worker_processes() == []


def test_workers_that_always_die_while_they_start_are_one_sentence(pair: made.Pair, tmp_path: Path) -> None:
    before = dict(os.environ)
    with at_start(100, psutil.Process.kill) as killed:
        done = call(pair, tmp_path / "fused.tif", "--workers", "2")
    assert done.exit_code == 1
    assert killed
    assert done.stderr.strip() == (
        "Error: 2 worker processes cannot be started: one died, or took more than 300 s; ask for fewer, or give "
        "them more memory."
    )
    assert not (tmp_path / "fused.tif").exists()
    assert worker_processes() == []
    assert dict(os.environ) == before


def test_a_start_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_ABSENCE", 2)
    with (
        at_start(1, psutil.Process.suspend) as stopped,
        pytest.raises(
            OutputError, match="1 worker process cannot be started: one died, or took more than 2 s"
        ),
        run.open_client(run.Crew(1, 1)),
    ):
        pytest.fail("There is no worker.")
    assert len(stopped) == 1
    gone(stopped)


def test_a_worker_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask waits with the end of one that it is starting again until it has started."""
    acts = [psutil.Process.kill, psutil.Process.suspend]
    monkeypatch.setattr(run, "_LEAVE", 2)
    with run.open_client(run.Crew(1, 1)), at_start(2, lambda process: acts.pop(0)(process)) as met:
        give_up = time.monotonic() + 60
        while len(met) < 2 and time.monotonic() < give_up:
            time.sleep(0.02)
    assert len(met) == 2
    gone(met)


def test_a_worker_that_dask_forgot_is_killed(
    clusters: list[distributed.LocalCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Python waits for it at its exit, and the command never ends."""

    def give_up(self: distributed.LocalCluster, timeout: float | None = None) -> None:
        for nanny in self.workers.values():
            nanny.close_gracefully()  # as a real end begins: none is restarted
            nanny.process = None
        raise TimeoutError

    with run.open_client(run.Crew(1, 1)):
        pids = worker_processes()
        monkeypatch.setattr(clusters[0], "close", give_up.__get__(clusters[0]))
    assert len(pids) == 1
    gone(pids)


def gone(pids: list[int]) -> None:
    """Holds that these processes end within seconds."""
    assert (
        psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)[1]
        == []
    )


def test_without_any_worker_left_the_run_ends_and_can_go_on(
    pair: made.Pair, tmp_path: Path, clusters: list[distributed.LocalCluster]
) -> None:
    whole, target = tmp_path / "whole.tif", tmp_path / "fused.tif"
    assert call(pair, whole).exit_code == 0

    def kill_all() -> None:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and not (clusters and Store(target).count() >= 3):
            time.sleep(0.005)
        scheduler = clusters[0].scheduler
        patience.append(scheduler.no_workers_timeout)
        scheduler.no_workers_timeout = 1.0
        for nanny in clusters[0].workers.values():
            nanny.close_gracefully()  # so that none is restarted
            nanny.process.process._process.kill()

    patience: list[float] = []
    thread = threading.Thread(target=kill_all)
    thread.start()
    done = call(pair, target, "--workers", "2")
    thread.join()
    assert patience == [run._ABSENCE]
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith(f"Error: {run.NO_WORKERS.removesuffix('.')}; ")
    assert "--resume goes on with them" in done.stderr
    assert "Traceback" not in done.output
    assert not target.exists()
    kept = Store(target).count()
    assert 3 <= kept < 36
    assert worker_processes() == []
    assert call(pair, target, "--resume").exit_code == 0
    np.testing.assert_array_equal(pixels(target), pixels(whole))


@pytest.mark.skipif(os.name != "posix", reason="a process is killed the POSIX way")
def test_a_worker_that_dies_costs_one_supertile(
    pair: made.Pair, tmp_path: Path, clusters: list[distributed.LocalCluster]
) -> None:
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


def slow_task(folder: Path, number: int) -> Written:
    """Leaves one file per execution, named by the process."""
    time.sleep(0.1)
    (folder / f"{number}.{os.getpid()}.{uuid4().hex}").touch()
    return Written(number)


@pytest.mark.skipif(os.name != "posix", reason="a process is killed the POSIX way")
def test_what_a_dead_worker_had_finished_is_not_done_again(tmp_path: Path) -> None:
    count = 30
    killed: list[int] = []

    def kill_one(share: float) -> None:
        if share >= 0.5 and not killed:
            pids = [int(path.name.split(".")[1]) for path in tmp_path.iterdir()]
            killed.append(max(pids, key=pids.count))
            assert pids.count(killed[0]) >= 4  # what would have to be done again
            os.kill(killed[0], signal.SIGKILL)

    tasks = [delayed(slow_task, pure=False)(tmp_path, k) for k in range(count)]
    found = run.run_tasks(tasks, kill_one, run.Crew(1, processes=2))
    assert sorted(one.clipped for one in found) == list(range(count))
    assert killed
    # what it was at had left no file yet; one more may have been finished but not told
    assert count <= len(list(tmp_path.iterdir())) <= count + 1


def threads_of_worker() -> tuple[str, int]:
    """What the worker was told, and the threads that torch starts."""
    import torch

    return os.environ["OMP_NUM_THREADS"], torch.get_num_threads()


def test_a_worker_has_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with run.open_client(run.Crew(1, processes=1)) as client:
        ((told, threads),) = client.run(threads_of_worker).values()
    assert told == str(CPU_COUNT)
    # MKL takes no more than there are cores without their second threads
    assert threads in {CPU_COUNT, psutil.cpu_count(logical=False)}
    assert dict(os.environ) == before  # the next run is given its own share


def test_shares_do_not_exceed_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    for cores, processes, share in ((16, 1, 16), (6, 2, 3), (7, 2, 3), (2, 3, 1)):
        monkeypatch.setattr(run, "CPU_COUNT", cores)
        assert [run._environ(processes)[name] for name in THREADS] == [share] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user's word goes before
    assert [run._environ(2)[name] for name in THREADS] == ["5"] * 3


def processes_of_session(leader: int) -> list[str]:
    """Command lines of the living processes of a session."""
    listed = subprocess.run(
        ["ps", "-ww", "-e", "-o", "sid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [row[2] for row in rows if row[0] == str(leader) and not row[1].startswith("Z")]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sessions are looked up with ps")
@pytest.mark.parametrize("moment", ["starting", "running"])
def test_ctrl_c_stops_within_seconds_and_leaves_no_process(tmp_path: Path, moment: str) -> None:
    """A terminal sends it to all processes of the command: workers must neither survive nor complain."""
    pair = made.make_pair(tmp_path, bands=40, height=320, width=320)
    target = tmp_path / "fused.tif"
    command = [sys.executable, "-m", "csakd_geo.cli", "fuse", str(pair.hsi), str(pair.msi), "-o", str(target)]
    running = subprocess.Popen(
        [*command, *CUT, "--workers", "2"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    store = Store(target)
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and running.poll() is None:
        started = sum("spawn_main" in line for line in processes_of_session(running.pid))
        if started == 2 and (moment == "starting" or store.count() >= 3):
            break
        time.sleep(0.2)
    else:
        running.kill()
        pytest.fail(f"It was never at that: {running.communicate()[0]}")
    begun = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=60)[0]
    assert time.monotonic() - begun < 20  # five on an idle machine
    assert running.returncode == 1
    assert said.startswith("Error: Stopped on request;"), said
    assert len(said.splitlines()) == 1, said
    while processes_of_session(running.pid) and time.monotonic() - begun < 30:
        time.sleep(0.1)
    assert processes_of_session(running.pid) == []
    assert not target.exists()
    if moment == "running":
        assert "--resume goes on with them" in said
        assert store.count() >= 3


def graph_sizes(job: Job, store: Store, side: int) -> tuple[int, int]:
    """Tasks for writing and for looking at a scene of `side` x `side` super-tiles of 1024 pixels."""
    cells = side * 256
    size = {"height": cells * 4, "width": cells * 4, "top": 0, "left": 0}
    grid = replace(job.scene.grid, lr_height=cells, lr_width=cells, **size)
    scene, plan = replace(job.scene, grid=grid), TilePlan(cells, cells, 4, 128, 256, 8)
    method, bands = job.choice.method, job.draft.bands
    tasks = writing_tasks(scene, method, job.fitted, plan, bands, Encoding("int16"), store)
    assert len(tasks) == side**2
    cube = lazy_cube(scene, method, job.fitted, plan, bands, {})
    assert cube.shape == (len(bands), cells * 4, cells * 4)
    written = {key for task in tasks for key in dict(task.__dask_graph__())}
    return len(written), len(dict(cube.__dask_graph__()))


def test_graphs_of_large_scenes_grow_with_supertiles_only(
    pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make_options({"method": "regression", "shift": "none"})
    job = prepare_job(draft_job(pair.hsi, pair.msi, options), report=lambda *_: None)
    monkeypatch.setattr("csakd_geo.engine.graph.fuse_supertile", None)  # planning computes nothing
    monkeypatch.setattr("csakd_geo.engine.scene.read_msi", None)  # and reads nothing
    small, large = (graph_sizes(job, Store(tmp_path / "fused.tif"), side) for side in (8, 32))
    for few, many in zip(small, large, strict=True):
        assert many <= 10 * 32**2
        assert many / 32**2 == pytest.approx(few / 8**2, rel=0.1)  # in proportion, no faster
    assert large[0] <= 2 * 32**2 + 2
