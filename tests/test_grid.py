"""The fusion grid against brute force: every pixel centre in both footprints, and no other."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS

from csakd_geo.errors import GridError
from csakd_geo.grid import FusionGrid, lay_grid, pixel_mapping


@dataclass(frozen=True)
class Image:
    """Where an image lies."""

    transform: Affine
    height: int
    width: int
    crs: CRS | None = None
    name: str = "image"


UTM = CRS.from_epsg(32633)

# affine 3 would have `@` where affine 2 knows `*` alone
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Image, Image, int]:
    """An HSI and an MSI on axis-parallel grids that overlap, and their ratio."""
    ratio = draw(st.integers(2, 10))
    size = draw(st.sampled_from([1.0, 0.3, 10.0, 2.5]))
    msi = Image(
        Affine(size, 0, 300_000, 0, -size, 5_800_000),
        draw(st.integers(5, 90)),
        draw(st.integers(5, 90)),
        UTM,
        "msi",
    )
    pixel = ratio * size * draw(st.sampled_from([1.0, 1.0, 0.97, 1.04]))
    height, width = draw(st.integers(2, 20)), draw(st.integers(2, 20))
    # the HSI's upper left corner, in MSI pixels
    col = draw(st.floats(-width * ratio * 0.7, msi.width * 0.7))
    row = draw(st.floats(-height * ratio * 0.7, msi.height * 0.7))
    hsi = Image(
        Affine(pixel, 0, 300_000 + col * size, 0, -pixel, 5_800_000 - row * size), height, width, UTM, "hsi"
    )
    return hsi, msi, ratio


def inside_both(hsi: Image, msi: Image, shift: tuple[float, float] = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
    """MSI pixels whose centre surely lies in both footprints, and those where it may, by affine maths."""
    col, row = np.meshgrid(np.arange(msi.width) + 0.5, np.arange(msi.height) + 0.5)
    x, y = msi.transform * (col, row)
    u, v = ~hsi.transform * (x - shift[0], y - shift[1])
    slack = 1e-4 * abs(msi.transform.a / hsi.transform.a)
    distance = np.minimum(np.minimum(u, hsi.width - u), np.minimum(v, hsi.height - v))
    return distance > slack, distance > -slack


def output_mask(grid: FusionGrid, msi: Image) -> np.ndarray:
    mask = np.zeros((msi.height, msi.width), bool)
    row, col = grid.msi_row + grid.top, grid.msi_col + grid.left
    assert row >= 0
    assert col >= 0
    assert row + grid.height <= msi.height
    assert col + grid.width <= msi.width
    mask[row : row + grid.height, col : col + grid.width] = True
    return mask


def check_frame(grid: FusionGrid, msi: Image) -> None:
    r = grid.ratio
    assert 0 <= grid.top < r
    assert 0 <= grid.left < r
    assert 0 <= grid.lr_height * r - grid.top - grid.height < r
    assert 0 <= grid.lr_width * r - grid.left - grid.width < r
    origin = msi.transform * (grid.msi_col, grid.msi_row)
    assert grid.affine * (0, 0) == pytest.approx(origin)
    assert grid.output_affine * (0, 0) == pytest.approx(
        msi.transform * (grid.msi_col + grid.left, grid.msi_row + grid.top)
    )
    assert grid.affine.a == msi.transform.a
    assert grid.lr_affine.a == pytest.approx(r * msi.transform.a)


@given(pairs(), st.floats(-5, 5), st.floats(-5, 5))
def test_the_output_is_every_pixel_centre_in_both_footprints(
    pair: tuple[Image, Image, int], dx: float, dy: float
) -> None:
    hsi, msi, ratio = pair
    size = msi.transform.a
    for shift in ((0.0, 0.0), (dx * size, dy * size)):
        must, may = inside_both(hsi, msi, shift)
        if not may.any():
            with pytest.raises(GridError, match="do not overlap"):
                lay_grid(hsi, msi, ratio=ratio, shift=shift)
        if not must.any():
            continue
        grid = lay_grid(hsi, msi, ratio=ratio, shift=shift)
        mask = output_mask(grid, msi)
        assert mask[must].all()
        assert may[mask].all()
        check_frame(grid, msi)
        assert (grid.shift_x, grid.shift_y) == shift


@given(pairs(), st.integers(-30, 30), st.integers(-30, 30))
def test_a_nested_hsi_is_found_and_its_pixels_are_the_cells(
    pair: tuple[Image, Image, int], row: int, col: int
) -> None:
    hsi, msi, r = pair
    size = msi.transform.a
    x, y = msi.transform * (col, row)
    hsi = Image(Affine(r * size, 0, x, 0, -r * size, y), hsi.height, hsi.width, UTM)
    if not inside_both(hsi, msi)[1].any():
        return
    grid = lay_grid(hsi, msi)
    assert grid.ratio == r
    assert grid.nested
    assert (grid.phase_y, grid.phase_x) == pytest.approx((0, 0), abs=1e-6)
    # the centre of every cell is the centre of the HSI pixel that it is read from
    for cell_row, cell_col in ((0, 0), (grid.lr_height - 1, grid.lr_width - 1)):
        hsi_row, hsi_col = grid.hsi_row + cell_row, grid.hsi_col + cell_col
        assert 0 <= hsi_row < hsi.height
        assert 0 <= hsi_col < hsi.width
        found = grid.lr_affine * (cell_col + 0.5, cell_row + 0.5)
        assert found == pytest.approx(hsi.transform * (hsi_col + 0.5, hsi_row + 0.5), abs=1e-3 * size)


@given(st.integers(2, 8), st.floats(-40, 40), st.floats(-40, 40))
def test_a_shift_moves_the_lattice_by_whole_pixels_and_leaves_less_than_half_of_one(
    ratio: int, dx: float, dy: float
) -> None:
    msi = Image(Affine(10, 0, 5e5, 0, -10, 6e6), 40 * ratio, 40 * ratio, UTM)
    hsi = Image(Affine(10 * ratio, 0, 5e5, 0, -10 * ratio, 6e6), 40, 40, UTM)
    still, moved = lay_grid(hsi, msi), lay_grid(hsi, msi, shift=(dx, dy))
    assert still.nested
    assert moved.nested
    # position of HSI pixel (0, 0) in MSI pixels: whole part of the lattice plus the phase
    col = moved.msi_col - moved.hsi_col * ratio + moved.phase_x
    row = moved.msi_row - moved.hsi_row * ratio + moved.phase_y
    assert (col, row) == pytest.approx((dx / 10, -dy / 10), abs=1e-6)
    assert -0.5 - 1e-6 <= moved.phase_x < 0.5 + 1e-6
    assert -0.5 - 1e-6 <= moved.phase_y < 0.5 + 1e-6


def test_bounds_cut_the_output() -> None:
    msi = Image(Affine(10, 0, 5e5, 0, -10, 6e6), 120, 120, UTM)
    hsi = Image(Affine(30, 0, 5e5, 0, -30, 6e6), 40, 40, UTM)
    grid = lay_grid(hsi, msi, bounds=(5e5 + 101, 6e6 - 404, 5e5 + 300, 6e6 - 200))
    # centres at 105 .. 295 and 205 .. 395
    assert grid.output_affine * (0, 0) == pytest.approx((5e5 + 100, 6e6 - 200))
    assert (grid.height, grid.width) == (20, 20)
    check_frame(grid, msi)
    assert (grid.hsi_row, grid.hsi_col) == (6, 3)


@pytest.mark.parametrize(
    ("hsi_crs", "msi_crs", "expected"),
    [(None, None, None), (UTM, None, UTM), (None, UTM, UTM), (UTM, CRS.from_epsg(25833), None)],
)
def test_missing_and_equal_looking_crs(
    hsi_crs: CRS | None, msi_crs: CRS | None, expected: CRS | None
) -> None:
    msi = Image(Affine(10, 0, 5e5, 0, -10, 6e6), 60, 60, msi_crs)
    hsi = Image(Affine(30, 0, 5e5, 0, -30, 6e6), 20, 20, hsi_crs)
    grid = lay_grid(hsi, msi)
    assert (grid.height, grid.width, grid.ratio) == (60, 60, 3)
    if hsi_crs and msi_crs:
        # WGS84 and ETRS89 are two systems; the HSI is warped, onto the same place
        assert not grid.nested
        assert grid.crs == msi_crs.to_wkt()
    else:
        assert grid.nested
        assert grid.crs == (expected.to_wkt() if expected else None)


@pytest.mark.parametrize("epsg", [25833, 3035, 4326, 3857])
def test_another_crs_against_pyproj(epsg: int) -> None:
    crs = CRS.from_epsg(epsg)
    hsi = Image(Affine(30, 0, 365_000, 0, -30, 5_810_000), 40, 50, UTM, "hsi")
    forward = Transformer.from_crs(32633, epsg, always_xy=True)
    back = Transformer.from_crs(epsg, 32633, always_xy=True)
    x0, y0 = forward.transform(364_500, 5_810_500)
    x1, y1 = forward.transform(364_510, 5_810_490)
    msi = Image(Affine(x1 - x0, 0, x0, 0, y1 - y0, y0), 300, 300, crs, "msi")
    grid = lay_grid(hsi, msi)
    assert grid.ratio == 3
    assert not grid.nested
    col, row = np.meshgrid(np.arange(300) + 0.5, np.arange(300) + 0.5)
    x, y = back.transform(*(msi.transform * (col, row)))
    u, v = (x - 365_000) / 30, (5_810_000 - y) / 30
    must = (u > 0.01) & (u < 49.99) & (v > 0.01) & (v < 39.99)
    mask = output_mask(grid, msi)
    assert mask[must].all()
    # the output is the bounding box of these pixels (what lies outside is masked later)
    rows, columns = np.flatnonzero(must.any(1)), np.flatnonzero(must.any(0))
    assert abs(grid.height - (rows[-1] - rows[0] + 1)) <= 1
    assert abs(grid.width - (columns[-1] - columns[0] + 1)) <= 1
    check_frame(grid, msi)


def test_pixel_mapping_takes_the_shift_in_the_targets_crs() -> None:
    hsi = Image(Affine(30, 0, 365_000, 0, -30, 5_810_000), 40, 50, UTM)
    msi = Image(Affine(10, 0, 4_500_000, 0, -10, 3_270_000), 100, 100, CRS.from_epsg(3035))
    corner = np.array([7.0]), np.array([3.0])
    x, y = Transformer.from_crs(32633, 3035, always_xy=True).transform(365_210, 5_809_910)
    found = pixel_mapping(hsi, msi, (50, -20))(*corner)
    assert found[0][0] == pytest.approx((x + 50 - 4_500_000) / 10, abs=1e-6)
    assert found[1][0] == pytest.approx((3_270_000 - y + 20) / 10, abs=1e-6)


def test_a_rotated_hsi_is_warped() -> None:
    msi = Image(Affine(10, 0, 5e5, 0, -10, 6e6), 120, 120, UTM)
    turned = Affine.translation(5e5 + 300, 6e6 - 300) * Affine.rotation(20) * Affine.scale(30, -30)
    grid = lay_grid(Image(turned, 20, 20, UTM), msi)
    assert not grid.nested
    assert grid.ratio == 3


@given(st.floats(1.5, 12), st.floats(1.5, 12), st.integers(-1, 30))
def test_what_is_told_of_a_ratio_is_true(width: float, height: float, ratio: int) -> None:
    """Without a ratio, square pixels always fit; the ratio that a refusal names is taken."""
    msi = Image(Affine(1, 0, 0, 0, -1, 0), 400, 400, UTM, "msi")
    square = Image(Affine(width, 0, 0, 0, -width, 0), 20, 20, UTM, "hsi")
    assert abs(lay_grid(square, msi).ratio - width) <= 0.5 + 1e-9
    for hsi in (square, Image(Affine(width, 0, 0, 0, -height, 0), 20, 20, UTM, "hsi")):
        try:
            r = lay_grid(hsi, msi, ratio=ratio).ratio
        except GridError as error:
            told = re.search(r"give (\d+)\.$", str(error))
            if told is None:  # too long and narrow
                assert max(width, height) > 2 * min(width, height)
                continue
            r = int(told[1])
            assert lay_grid(hsi, msi, ratio=r).ratio == lay_grid(hsi, msi).ratio == r
        cell_over_pixel = [r / abs(hsi.transform.a), r / abs(hsi.transform.e)]
        assert max(cell_over_pixel) <= 2 + 1e-9
        assert min(cell_over_pixel) >= 0.5 - 1e-9


@pytest.mark.parametrize("latitude", [0, 40, 50.7, 50.9, 53, 56, 58, 60, -60])
def test_pixels_in_degrees_may_narrow_to_half(latitude: float) -> None:
    hsi, msi = geographic(latitude)
    grid = lay_grid(hsi, msi)
    assert (grid.ratio, grid.nested) == (2, False)
    assert (grid.height, grid.width) == (100, 100)
    assert lay_grid(hsi, msi, ratio=2) == grid
    with pytest.raises(GridError, match=r"Ratio 3 does not fit: .* give 2\."):
        lay_grid(hsi, msi, ratio=3)


@pytest.mark.parametrize("ratio", [None, 2])
def test_pixels_finer_than_the_msis_along_one_axis_are_refused(ratio: int | None) -> None:
    with pytest.raises(
        GridError, match=r"'emit' is 0.85 x 2.01 MSI pixels, too long and narrow.*warp it to square"
    ):
        lay_grid(*geographic(65), ratio=ratio)


def geographic(latitude: float) -> tuple[Image, Image]:
    """An HSI of 0.000542 degrees, and an MSI of 30 m in UTM within it."""
    x, y = Transformer.from_crs(4326, 32633, always_xy=True).transform(15.0, latitude)
    pixel = 0.000542
    hsi = Image(Affine(pixel, 0, 14.9, 0, -pixel, latitude + 0.05), 200, 400, CRS.from_epsg(4326), "emit")
    return hsi, Image(Affine(30, 0, x - 1500, 0, -30, y + 1500), 100, 100, UTM, "landsat")


def test_gsd_is_the_msis() -> None:
    msi = Image(Affine(2.5, 0, 0, 0, -2.5, 0), 40, 40)
    assert lay_grid(Image(Affine(10, 0, 0, 0, -10, 0), 10, 10), msi).gsd == 2.5


MSI = Image(Affine(10, 0, 5e5, 0, -10, 6e6), 90, 90, UTM, "fine.tif")
HSI = Image(Affine(30, 0, 5e5, 0, -30, 6e6), 30, 30, UTM, "broad.tif")


@pytest.mark.parametrize(
    ("hsi", "msi", "options", "sentence"),
    [
        (MSI, HSI, {}, r"'fine.tif' is 0.33 x 0.33 MSI pixels of 'broad.tif'.*2 times coarser.*swapped"),
        (HSI, MSI, {"ratio": 5}, r"Ratio 5 does not fit: an HSI pixel is 3.00 x 3.00 MSI pixels.*give 3"),
        (HSI, MSI, {"ratio": 1}, r"Ratio 1 does not fit"),
        (
            HSI,
            Image(Affine(10, 0, 9e5, 0, -10, 6e6), 90, 90, UTM, "fine.tif"),
            {},
            r"'broad.tif' \(x 500000 to 500900, y 5.9991e\+06 to 6e\+06\).*"
            r"'fine.tif' \(x 900000 to 900900.*do not overlap",
        ),
        (HSI, MSI, {"bounds": (0, 0, 10, 10)}, r"area of interest \(x 0 to 10, y 0 to 10\) do not overlap"),
        (HSI, MSI, {"shift": (5e4, 0.0)}, r"x 550000 to 550900.*do not overlap"),
        (
            HSI,
            Image(Affine(9.96, 0.87, 5e5, 0.87, -9.96, 6e6), 90, 90, UTM, "m"),
            {},
            r"The MSI 'm' is rotated; warp it to a north-up grid",
        ),
        (
            Image(Affine(30, 0, 1e9, 0, -30, 1e9), 30, 30, UTM, "far"),
            Image(Affine(10, 0, 0, 0, -10, 0), 90, 90, CRS.from_epsg(3035), "m"),
            {},
            r"The HSI 'far' lies outside the area of use",
        ),
    ],
)
def test_sentences(hsi: Image, msi: Image, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(GridError, match=sentence):
        lay_grid(hsi, msi, **options)  # type: ignore[arg-type]
