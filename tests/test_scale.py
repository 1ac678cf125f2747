"""What a continent takes: the roofline against sums by hand, and the recipe as a user runs it."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import made
import pytest
import rasterio
from click.testing import CliRunner
from matplotlib.image import imread

from csakd_geo.cli import main
from csakd_geo.draft import draft_job
from csakd_geo.errors import InputError
from csakd_geo.job import prepare_job
from csakd_geo.options import make_options
from csakd_geo.scale.roof import AREAS, Means, draw, scale, table, tiles_of, verdict
from csakd_geo.scale.work import Work, extrapolate, measure, of_product

WORK = Work(
    fit=100, fuse=1000, write=100, read=1e9, written=4e9, disk=20e9, tasks=100, memory=2e9, source="made up"
)
OPTIONS = make_options({"method": "regression", "shift": "none"})
MEANS = Means(read=1e9, write=1e9, memory=4e9, disk=40e9, task=1e-3, core_hour=0.1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    return made.make_pair(tmp_path_factory.mktemp("pair"), bands=12, height=128, width=128)


def test_compute_then_the_store_binds() -> None:
    """100 scenes of 1200 core-seconds and 4 GB out at 1 GB/s: 120,000 s shared, but 400 s at least."""
    points = scale(WORK, MEANS, scenes=100, workers=(1, 10, 200, 400, 1000))
    assert [p.bound for p in points] == ["compute", "compute", "compute", "write", "write"]
    assert [p.seconds for p in points] == pytest.approx([120_000, 12_000, 600, 400, 400])
    # whoever waits is paid too
    assert [p.price for p in points] == pytest.approx([3.333, 3.333, 3.333, 4.444, 11.111], abs=1e-3)
    words = verdict(points, WORK, MEANS, scenes=100)
    assert "Compute binds first; from about 300 workers on write does" in words
    assert "Keeping 0.4 TB of products costs 8 a month." in words


@pytest.mark.parametrize(
    ("changes", "means", "bound", "seconds"),
    [
        ({"read": 50e9}, {}, "read", 5000),
        ({"tasks": 99_999}, {}, "scheduler", 10_000),
        ({"fit": 3000.0}, {}, "one scene", 3000 + 100 + 10),
        ({"memory": 400e9}, {}, "memory", 120_000 / 1000 * 100),
        ({}, {"disk": 0.1e9}, "disk", 100 * 210 / 5),  # 1000 workers hold 100 GB, five scenes
    ],
)
def test_each_resource_can_bind(changes: dict, means: dict, bound: str, seconds: float) -> None:
    (point,) = scale(replace(WORK, **changes), replace(MEANS, **means), scenes=100, workers=(1000,))
    assert point.bound == bound
    assert point.seconds == pytest.approx(seconds)


def test_no_room_for_one_scene_is_said() -> None:
    means = replace(MEANS, disk=5e9)
    points = scale(WORK, means, scenes=10, workers=(1, 4))
    assert math.isinf(points[0].seconds)
    assert "| 1 | - | - | - | disk: no room for one scene |" in table(points)
    assert points[1].bound == "compute"
    assert verdict(points[:1], WORK, means, scenes=10).startswith("Disk binds: one scene needs 20.0 GB.")


def test_memory_that_is_not_known_does_not_bind() -> None:
    (point,) = scale(replace(WORK, memory=None), replace(MEANS, memory=1.0), scenes=10, workers=(1,))
    assert point.bound == "compute"
    assert "memory per worker unknown" in str(replace(WORK, memory=None))


def test_more_workers_never_take_longer() -> None:
    seconds = [p.seconds for p in scale(WORK, MEANS, scenes=1145)]
    assert seconds == sorted(seconds, reverse=True)


def test_tiles_of_continents() -> None:
    """Between one tile per (100 km)^2, the grid's step, and one per (80 km)^2; 56,686 over all the Earth."""
    for name, area in AREAS.items():
        assert area * 1e6 / 100**2 < tiles_of(name) < area * 1e6 / 80**2
    assert tiles_of("europe") == pytest.approx(1145, abs=5)
    with pytest.raises(InputError, match="'atlantis' is no continent; expected one of africa, "):
        tiles_of("atlantis")


def test_a_pair_is_measured(pair: made.Pair, tmp_path: Path) -> None:
    """For a scene of its own size the work is what was done."""
    own = measure(pair.hsi, pair.msi, tmp_path, OPTIONS, pixels=128)
    assert (own.tasks, own.read) == (1, 2 * 32 * 32 * (12 + 16 * 4))
    # as small as it is it has no coarser levels, which a tile will have
    assert own.written == pytest.approx((tmp_path / "scale.tif").stat().st_size * 4 / 3, rel=1e-5)
    assert min(own.fit, own.fuse, own.write) > 0
    assert own.fit + own.fuse + own.write < time.process_time()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scale.tif"]


def test_a_larger_scene_takes_what_its_pixels_and_halos_say(pair: made.Pair) -> None:
    job = prepare_job(draft_job(pair.hsi, pair.msi, OPTIONS), report=lambda *_: None)
    job = replace(job, plan=replace(job.plan, halo=5, context=0))
    large = extrapolate(job, (1.0, 2.0, 3.0), 1000, pixels=8192, bands=24)
    assert large.tasks == 64
    assert large.disk == pytest.approx(3.7 * 24 * 8192**2 * 2)
    assert (large.write, large.written) == pytest.approx((3 * 2 * 64**2, 1000 * 2 * 64**2))
    assert large.fit == pytest.approx(1 * 2 * 16 * 96**2 / 32**2)  # a fit sees sixteen windows
    cells = (
        16 * (128 + 2 * 5)
    ) ** 2  # 16 x 16 tiles of 128 cells and their halos; at the edge they reach inward
    assert large.fuse == pytest.approx(2 * 2 * cells / 32**2)
    seen = (8 * 256 + 2 * 5 * 8 - 2 * 5) ** 2  # 8 x 8 super-tiles
    assert large.read == 2 * seen * (24 + 16 * 4)


def test_a_product_tells_its_cost(pair: made.Pair, tmp_path: Path) -> None:
    target = tmp_path / "fused.tif"
    done = CliRunner().invoke(
        main, ["fuse", str(pair.hsi), str(pair.msi), "-o", str(target), "--method", "gsa", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    with rasterio.open(target, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dst:
        dst.update_tags(CSAKD_GEO_FUSE_SECONDS="3.0", CSAKD_GEO_FIT_SECONDS="2.0")
    own = of_product(target, pixels=128, cores=2)
    assert (own.fit, own.fuse, own.memory) == (4, 6, None)
    four = of_product(target, pixels=256, bands=24, cores=1)
    assert four.fuse == pytest.approx(3 * 2 * 4, rel=0.5)  # four times the pixels, twice the bands, and halos
    assert four.written == pytest.approx(own.written * 8, rel=0.1)
    assert "gsa, told by 'fused.tif'" in four.source
    with pytest.raises(InputError, match="does not say how long it took"):
        of_product(pair.msi)


def test_the_picture_holds_what_it_should(tmp_path: Path) -> None:
    target = tmp_path / "scale.png"
    draw(scale(WORK, MEANS, scenes=100), target, title="a title")
    picture = imread(target)
    assert picture.shape[:2] == (600, 1320)
    assert (
        len({tuple(c) for c in picture.reshape(-1, picture.shape[-1])[::7].round(1)}) > 20
    )  # lines in colours
    assert [p.name for p in tmp_path.iterdir()] == ["scale.png"]


def test_the_recipe_runs(pair: made.Pair, tmp_path: Path, repo: Path) -> None:
    options = ["--method", "regression", "--tiles", "7", "--pixels", "1024", "--bands", "50"]
    done = subprocess.run(
        [
            sys.executable,
            str(repo / "pipelines/plan_scale.py"),
            pair.hsi,
            pair.msi,
            "-o",
            "plan.png",
            *options,
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7 tiles of 1024 x 1024 pixels: regression, measured now on ")
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:]] == [
        f"| {n}" for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    ]
    assert "binds first" in done.stdout
    assert (tmp_path / "plan.png").stat().st_size > 10_000
