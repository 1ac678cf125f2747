"""The seam metric against seams of known height, and the fusion's own tiles against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import made
import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import csakd_geo
from csakd_geo.errors import InputError
from csakd_geo.metrics import seam_energy, seam_energy_strips
from csakd_geo.models import bundled_models
from csakd_geo.simulate import SimulatedPaths
from csakd_geo.tiling import Blend

Array = NDArray[Any]

TILE, RATIO = 48, 4
CLEAN, SEAMED = 1.5, 4.0  # a run without seams stays below the first, one with seams above the second


# ------------------------------------------------------------------------------------------ the metric


def texture(bands: int = 6, height: int = 160, width: int = 200, *, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return np.stack([gaussian_filter(rng.standard_normal((height, width)), 1.0) for _ in range(bands)])


def steps_of(height: float, shape: tuple[int, int], step: int, offset: tuple[int, int] = (0, 0)) -> Array:
    """Every second tile of a lattice is brighter: steps of one height at every line, none elsewhere."""
    y, x = ((np.arange(n) - o) // step for n, o in zip(shape, offset, strict=True))
    return np.asarray(height * ((y[:, None] + x[None]) % 2))


def by_loop(cube: Array, step: int, offset: tuple[int, int], period: int) -> float:
    """The definition, line by line."""
    ratios = []
    for band in cube:
        on, off = [], []
        for plane, first in ((band, offset[1]), (band.T, offset[0])):
            for line in range(2, plane.shape[1] - 1):
                away = abs((line - first + step // 2) % step - step // 2)
                if (line - first) % period or away == 1:
                    continue
                a, b, c, d = (plane[:, line + k] for k in (-2, -1, 0, 1))
                squares = ((c - b) - ((b - a) + (d - c)) / 2) ** 2
                (off if away else on).append(squares)
        ratios.append(np.concatenate(on).mean() / np.concatenate(off).mean())
    return float(np.median(ratios))


def test_definition() -> None:
    cube = texture(height=50, width=70) + steps_of(0.5, (50, 70), 8, (3, 6))
    for period in (1, 4):
        expected = by_loop(cube, 8, (3, 6), period)
        assert expected > 5
        assert seam_energy(cube, 8, offset=(3, 6), period=period) == pytest.approx(expected, rel=1e-9)


def test_known_heights() -> None:
    """The energy on the lines grows by the square of the height."""
    cube = texture(height=400, width=400)
    base = seam_energy(cube, 16)
    assert base == pytest.approx(1, abs=0.1)
    third = np.diff(cube, n=3, axis=2) / 2
    elsewhere = np.square(third).mean()
    for height in (0.1, 0.3):
        found = seam_energy(cube + steps_of(height, (400, 400), 16), 16)
        assert found == pytest.approx(base + height**2 / elsewhere, rel=0.1)
    assert seam_energy(cube + steps_of(0.3, (400, 400), 16), 16, offset=(8, 8)) < 1.2


def test_slopes_are_no_seams() -> None:
    y, x = np.mgrid[:64, :64]
    cube = texture(height=64, width=64)
    assert seam_energy(cube + 100 * x - 30 * y, 16) == pytest.approx(seam_energy(cube, 16), rel=1e-9)


def test_a_guide_uncovers_what_the_scene_hides() -> None:
    """Bands are mixtures of the guide and a little of their own; the seam is far below their contrast."""
    guide = texture(3, seed=1)
    mixed = np.tensordot(np.random.default_rng(2).random((6, 3)), guide, axes=1) + 0.02 * texture(seed=3)
    seamed = mixed + steps_of(0.03, mixed.shape[1:], 16)
    assert seam_energy(seamed, 16) < 1.3
    assert seam_energy(seamed, 16, guide=guide) > 10
    assert seam_energy(mixed, 16, guide=guide) == pytest.approx(1, abs=0.3)
    # edges of the scene on every line of the lattice are no seams, if the guide has them
    edges = steps_of(1.0, mixed.shape[1:], 8)
    assert seam_energy(mixed + edges, 16) > 2
    assert seam_energy(mixed + edges, 16, guide=np.concatenate([guide, edges[None]])) < 1.3


def test_strips_are_the_whole() -> None:
    guide, cube = texture(3, seed=1), texture() + steps_of(0.2, (160, 200), 16, (5, 2))
    cube[2, 40:60, 30:50] = np.nan
    options: dict[str, Any] = {"offset": (5, 2), "period": 4}
    whole = seam_energy(cube, 16, guide=guide, **options)
    for cuts in ([80], [1, 2, 3, 7, 48, 133], range(16, 160, 16)):
        strips = zip(np.split(cube, list(cuts), axis=1), np.split(guide, list(cuts), axis=1), strict=True)
        assert seam_energy_strips(strips, 16, **options) == pytest.approx(whole, rel=1e-9)


def test_masked_pixels_and_empty_bands_are_left_out() -> None:
    cube = texture() + steps_of(0.2, (160, 200), 16)
    expected = seam_energy(cube, 16)
    spoiled = cube.copy()
    spoiled[:, 70:75, 10:90] = 1e6
    holed = np.where(spoiled > 1e5, np.nan, spoiled)
    assert seam_energy(spoiled, 16) != pytest.approx(expected, rel=0.3)
    assert seam_energy(holed, 16) == pytest.approx(expected, rel=0.1)
    empty = np.full_like(cube[:2], np.nan)
    assert seam_energy(np.concatenate([empty, cube]), 16) == pytest.approx(expected, rel=1e-12)


def test_steps_on_the_lattice_alone() -> None:
    """Flat tiles: nothing elsewhere."""
    assert seam_energy(steps_of(1.0, (64, 64), 16)[None], 16) > 1e6


@pytest.mark.parametrize(
    ("shape", "step", "more", "words"),
    [
        ((2, 40, 40), 16, {"period": 3}, "every 16 pixels"),
        ((2, 40, 40), 4, {"period": 4}, "every 4 pixels"),
        ((2, 40, 40), 64, {}, "No line"),
        ((2, 3, 3), 2, {}, "No line"),
        ((2, 40, 40), 8, {"guide": np.zeros((1, 40, 41))}, "guide"),
    ],
)
def test_nothing_to_compare(shape: tuple[int, int, int], step: int, more: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        seam_energy(np.random.default_rng(0).random(shape), step, **more)
    with pytest.raises(InputError, match="No line"):
        seam_energy(np.full((2, 40, 40), np.nan), 8)


# ----------------------------------------------------------------------------------------- the fusion


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def read(path: Path) -> Array:
    with rasterio.open(path) as src:
        return np.asarray(src.read() * np.reshape(src.scales, (-1, 1, 1)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The student that comes along, and a random one in the official form with the published CSA fuser."""
    official = tmp_path_factory.mktemp("models") / "official.pth"
    made.official_model(official, bands=200, msi_bands=4, features=8, growth=4, depths=(1, 1, 1, 1))
    return {"bundled": str(bundled_models()[0]), "official": str(official)}


class Runs:
    """Fused cubes of the sample, each made once."""

    def __init__(self, sample: SimulatedPaths, models: dict[str, str]) -> None:
        self.sample, self.models = sample, models
        self.guide = read(sample.msi)
        self.cubes: dict[tuple[Any, ...], Array] = {}

    def cube(self, model: str, **options: Any) -> Array:
        key = (model, *sorted(options.items()))
        if key not in self.cubes:
            fused = csakd_geo.fuse(
                self.sample.hsi, self.sample.msi, model=self.models[model], shift="none", **options
            )
            self.cubes[key] = fused.values
        return self.cubes[key]

    def seams(self, model: str, **options: Any) -> float:
        return seam_energy(self.cube(model, **options), TILE, guide=self.guide, period=RATIO)


@pytest.fixture(scope="module")
def runs(sample: SimulatedPaths, models: dict[str, str]) -> Runs:
    return Runs(sample, models)


@pytest.mark.parametrize(
    ("model", "blend"), [*(("bundled", blend) for blend in get_args(Blend)), ("official", "crop")]
)
def test_no_seams_whatever_the_blend(model: str, blend: str, runs: Runs, record_property: Any) -> None:
    """As few as in the scene that was fused in one piece."""
    found = runs.seams(model, tile=TILE, supertile=TILE, blend=blend, statistics="scene")
    whole = runs.seams(model, tile=1024)
    record_property("seam_energy", found)
    assert found < CLEAN
    assert found == pytest.approx(whole, rel=0.01)


def made_on_purpose(model: str, runs: Runs) -> tuple[float, float]:
    """Seams of a run without context whose tiles each have their own statistics, and beside its lattice."""
    options: dict[str, Any] = {"tile": TILE, "supertile": TILE, "halo": 0, "statistics": "tile"}
    middle = TILE // 2, TILE // 2
    beside = seam_energy(runs.cube(model, **options), TILE, guide=runs.guide, period=RATIO, offset=middle)
    return runs.seams(model, **options), beside


def test_seams_that_are_made_on_purpose_are_found(runs: Runs, record_property: Any) -> None:
    """The control: the same bar fails, and they lie where the lattice is, not anywhere."""
    found, beside = made_on_purpose("official", runs)
    record_property("seam_energy", found)
    assert found > SEAMED
    assert beside < found / 3


def test_seams_over_a_base_are_found_though_it_hides_them(runs: Runs, record_property: Any) -> None:
    found, beside = made_on_purpose("bundled", runs)
    record_property("seam_energy", found)
    assert found > CLEAN
    assert found > 4 * runs.seams("bundled", tile=144, supertile=144)
    assert beside < 0.6 * found
