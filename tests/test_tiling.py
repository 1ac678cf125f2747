"""Tiles: cores partition, windows stay inside and of one size, blend weights sum to exactly one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csakd_geo.errors import GridError
from csakd_geo.tiling import Blend, TilePlan, Window, align, ramp_values

blends: st.SearchStrategy[Blend] = st.sampled_from(["crop", "linear", "hann"])


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    tile = draw(st.integers(1, 9))
    return TilePlan(
        height=draw(st.integers(1, 40)),
        width=draw(st.integers(1, 40)),
        ratio=draw(st.integers(1, 5)),
        tile=tile,
        supertile=tile * draw(st.integers(1, 4)),
        halo=draw(st.integers(0, 12)),
        blend=draw(blends),
    )


@given(plans())
def test_cores_and_supertiles_partition_the_frame(plan: TilePlan) -> None:
    for parts in ([t.core for t in plan.tiles(plan.frame)], plan.supertiles()):
        count = np.zeros((plan.height, plan.width), int)
        for part in parts:
            count[part.slices()] += 1
        assert (count == 1).all()


@given(plans())
def test_windows_have_one_size_and_stay_inside(plan: TilePlan) -> None:
    tiles = list(plan.tiles(plan.frame))
    assert len({(t.window.height, t.window.width) for t in tiles}) == 1
    for t in tiles:
        assert t.window.intersect(plan.frame) == t.window
        assert t.kept.intersect(t.window) == t.kept
        assert t.core.intersect(t.kept) == t.core


@given(plans())
def test_what_is_kept_has_its_halo_wherever_the_frame_goes_on(plan: TilePlan) -> None:
    for t in plan.tiles(plan.frame):
        for kept, size, window, length, end in (
            (t.kept.row, t.kept.height, t.window.row, t.window.height, plan.height),
            (t.kept.col, t.kept.width, t.window.col, t.window.width, plan.width),
        ):
            assert window <= max(0, kept - plan.halo)
            assert window + length >= min(end, kept + size + plan.halo)


@given(plans())
def test_weights_sum_to_exactly_one(plan: TilePlan) -> None:
    r = plan.ratio
    total = np.zeros((plan.height * r, plan.width * r), np.float32)
    rows, columns = np.zeros(plan.height * r, np.float32), np.zeros(plan.width * r, np.float32)
    for t in plan.tiles(plan.frame):
        y, x = plan.weights(t)
        assert y.dtype == x.dtype == np.float32
        assert min(y.min(), x.min()) >= 0
        down, across = t.kept.scaled(r).slices()
        total[down, across] += y[:, None] * x[None]
        if t.core.col == 0:
            rows[down] += y
        if t.core.row == 0:
            columns[across] += x
    assert (rows == 1).all()
    assert (columns == 1).all()
    np.testing.assert_allclose(total, 1, atol=3e-7)


@given(plans(), st.data())
def test_tiles_of_an_area_are_exactly_those_that_count_there(plan: TilePlan, data: st.DataObject) -> None:
    areas = [*plan.supertiles(), plan.frame]
    area = data.draw(st.sampled_from(areas))
    expected = [t for t in plan.tiles(plan.frame) if not t.kept.intersect(area).empty]
    assert list(plan.tiles(area)) == expected


@given(plans())
def test_blending_supertile_by_supertile_is_blending_at_once(plan: TilePlan) -> None:
    r = plan.ratio
    image = np.random.default_rng(0).random((plan.height * r, plan.width * r)).astype(np.float32)

    def fuse(area: Window) -> np.ndarray:
        fine = area.scaled(r)
        out = np.zeros((fine.height, fine.width), np.float32)
        for t in plan.tiles(area):
            y, x = plan.weights(t)
            kept, part = t.kept.scaled(r), t.kept.intersect(area).scaled(r)
            # a made-up method whose tiles disagree
            result = image[kept.slices()] + (t.core.row * 31 + t.core.col) * np.float32(1e-3)
            weighted = result * y[:, None] * x[None]
            out[part.slices(fine)] += weighted[part.slices(kept)]
        return out

    whole = fuse(plan.frame)
    for area in plan.supertiles():
        np.testing.assert_array_equal(fuse(area), whole[area.scaled(r).slices()])


def test_crop_keeps_cores_only_and_ramps_reach_into_neighbours() -> None:
    crop = TilePlan(20, 20, 2, 8, 16, 4, "crop")
    assert all(t.kept == t.core for t in crop.tiles(crop.frame))
    linear = TilePlan(20, 20, 2, 8, 16, 4, "linear")
    middle = next(t for t in linear.tiles(linear.frame) if t.core.row == t.core.col == 8)
    assert middle.kept == Window(6, 6, 12, 12)
    y, _ = linear.weights(middle)
    np.testing.assert_allclose(y[:8], (np.arange(8) + 0.5) / 8)
    assert (y[8:16] == 1).all()


@given(st.floats(-2, 3))
def test_ramps_rise_from_zero_to_one_and_are_symmetric(t: float) -> None:
    for blend in ("linear", "hann"):
        up, down = ramp_values(np.array([t, 1 - t]), blend)
        assert 0 <= up <= 1
        assert up + down == pytest.approx(1, abs=1e-6)
        assert t > 0 or up == 0
        assert t < 1 or up == 1
    assert ramp_values(np.array([0.25]), "hann")[0] == pytest.approx(0.5 - math.sqrt(0.5) / 2)


@given(st.integers(1, 5000), st.integers(1, 12))
def test_align_is_the_smallest_whole_tile(pixels: int, ratio: int) -> None:
    size = align(pixels, ratio) * ratio
    assert size % 16 == size % ratio == 0
    assert size >= pixels
    assert size - math.lcm(16, ratio) < pixels


def test_plans_that_cannot_be_are_refused() -> None:
    with pytest.raises(GridError, match="super-tile of 10 is no multiple of a tile of 4"):
        TilePlan(20, 20, 2, 4, 10, 2)
    for tile, halo in ((0, 2), (4, -1)):
        with pytest.raises(GridError):
            TilePlan(20, 20, 2, tile, 4, halo)


def test_windows_as_slices() -> None:
    a, b = Window(2, 3, 4, 5), Window(4, 0, 10, 5)
    assert a.intersect(b) == Window(4, 3, 2, 2)
    assert a.intersect(Window(6, 3, 1, 1)).empty
    assert a.scaled(3) == Window(6, 9, 12, 15)
    assert a.slices(Window(1, 1, 9, 9)) == (slice(1, 5), slice(2, 7))
