"""Windows of both images on the fusion grid: warps in parts agree with the whole, edges repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject
from scipy.ndimage import gaussian_filter

from csakd_geo.grid import FusionGrid, lay_grid
from csakd_geo.io.lattice import covered, interpolates, read_hsi, read_msi
from csakd_geo.io.source import check_window
from csakd_geo.spectral import SpectralAxis
from csakd_geo.tiling import Window

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # affine's `*`

UTM, LAEA = CRS.from_epsg(32633), CRS.from_epsg(3035)


@dataclass
class Cube:
    """An image in memory as a Source; counts what is read."""

    data: np.ndarray
    transform: Affine
    crs: CRS | None = None
    name: str = "cube"
    reads: list[tuple[int, int, int, int]] = field(default_factory=list)
    dtype: str = "float32"
    nodata: float | None = None
    units: str = ""
    integer: bool = False

    @property
    def height(self) -> int:
        return int(self.data.shape[1])

    @property
    def width(self) -> int:
        return int(self.data.shape[2])

    @property
    def axis(self) -> SpectralAxis:
        return SpectralAxis.unknown(len(self.data))

    @property
    def scale(self) -> np.ndarray:
        return np.ones(len(self.data))

    @property
    def offset(self) -> np.ndarray:
        return np.zeros(len(self.data))

    def read(
        self, row: int, col: int, height: int, width: int, *, bands: Sequence[int] | None = None
    ) -> np.ndarray:
        chosen = check_window(self, row, col, height, width, bands)
        self.reads.append((row, col, height, width))
        return self.data[chosen][:, row : row + height, col : col + width].astype(np.float32)

    def fingerprint(self) -> str:
        return self.name


def texture(bands: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Reflectance-like integers around 6500 with pixel-sized detail."""
    noise = np.random.default_rng(seed).standard_normal((bands, height, width))
    return (6500 + 1500 * gaussian_filter(noise, (0, 1, 1)) / 0.28).astype(np.float32)


def scene(
    crs: CRS | None, *, bands: int = 2, height: int = 60, width: int = 70, shift: tuple[float, float] = (0, 0)
) -> tuple[Cube, Cube, FusionGrid]:
    """A 30 m HSI in UTM and a 10 m MSI in another CRS (or on another lattice), around Potsdam."""
    hsi = Cube(texture(bands, height, width), Affine(30, 0, 365_000, 0, -30, 5_810_000), UTM, "hsi")
    target = crs or UTM
    x, y = Transformer.from_crs(32633, target.to_epsg(), always_xy=True).transform(365_913.7, 5_809_411.2)
    size = 10 * (1.2 if crs is not None else 1)
    msi = Cube(texture(1, 160, 150, 1), Affine(size, 0, x - 400, 0, -size, y + 400), target, "msi")
    return hsi, msi, lay_grid(hsi, msi, shift=shift)


def frame(grid: FusionGrid) -> Window:
    return Window(0, 0, grid.lr_height, grid.lr_width)


def parts(grid: FusionGrid, size: int) -> list[Window]:
    return [
        Window(y, x, min(size, grid.lr_height - y), min(size, grid.lr_width - x))
        for y in range(0, grid.lr_height, size)
        for x in range(0, grid.lr_width, size)
    ]


@pytest.mark.parametrize("crs", [None, LAEA, CRS.from_epsg(25833), CRS.from_epsg(3857)])
@pytest.mark.parametrize("size", [7, 19])
def test_a_warp_in_windows_is_the_warp_of_the_whole(crs: CRS | None, size: int) -> None:
    hsi, _, grid = scene(crs)
    assert not grid.nested or crs is None
    whole = read_hsi(hsi, grid, frame(grid), [0, 1])
    assert whole.shape == (2, grid.lr_height, grid.lr_width)
    assert np.isfinite(whole).mean() > 0.95
    for window in parts(grid, size):
        part = read_hsi(hsi, grid, window, [0, 1])
        np.testing.assert_allclose(part, whole[:, *window.slices()], rtol=0, atol=5e-4)


@pytest.mark.realdata
def test_a_real_scene_warps_alike_in_windows(shared_data: Path) -> None:
    with rasterio.open(shared_data / "enmap_potsdam" / "block_A_128x64.tif") as file:
        hsi = Cube(file.read([30, 60, 150]).astype(np.float32), file.transform, file.crs, "enmap")
    x, y = Transformer.from_crs(32633, 3035, always_xy=True).transform(*(hsi.transform * (10, 10)))
    msi = Cube(np.zeros((1, 240, 120)), Affine(10, 0, x, 0, -10, y), LAEA, "msi")
    grid = lay_grid(hsi, msi)
    whole = read_hsi(hsi, grid, frame(grid), [0, 1, 2])
    for window in parts(grid, 16):
        part = read_hsi(hsi, grid, window, [0, 1, 2])
        # 5e-4 of values up to about 6500
        np.testing.assert_allclose(part, whole[:, *window.slices()], rtol=0, atol=5e-4)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (37.0, -52.0)])
def test_a_warp_puts_every_cell_where_pyproj_says(shift: tuple[float, float]) -> None:
    hsi, _, grid = scene(LAEA, shift=shift)
    rows, cols = np.mgrid[:60, :70]
    hsi.data[0] = 1000 + 3 * cols - 7 * rows  # cubic interpolation is exact on ramps
    found = read_hsi(hsi, grid, frame(grid), [0])[0]
    col, row = np.meshgrid(np.arange(grid.lr_width) + 0.5, np.arange(grid.lr_height) + 0.5)
    x, y = grid.lr_affine * (col, row)
    back = Transformer.from_crs(3035, 32633, always_xy=True)
    u, v = back.transform(x - shift[0], y - shift[1])
    u, v = (u - 365_000) / 30 - 0.5, (5_810_000 - v) / 30 - 0.5
    inner = (u > 3) & (u < 66) & (v > 3) & (v < 56)
    assert inner.sum() > 300
    np.testing.assert_allclose(found[inner], (1000 + 3 * u - 7 * v)[inner], atol=0.02)


def test_a_warp_is_keys_interpolation_at_the_cells_centre() -> None:
    # the HSI is sheared, so that it does not nest
    hsi = Cube(texture(1, 30, 30), Affine(30, 0.6, 0, 0, -30, 900), UTM)
    msi = Cube(np.zeros((1, 90, 90)), Affine(10, 0, 5, 0, -10, 895), UTM)
    grid = lay_grid(hsi, msi)
    assert not grid.nested
    found = read_hsi(hsi, grid, frame(grid), [0])[0]

    def keys(t: float) -> float:
        t = abs(t)
        if t < 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    for row in range(0, grid.lr_height, 3):
        for col in range(0, grid.lr_width, 4):
            u, v = ~hsi.transform * (grid.lr_affine * (col + 0.5, row + 0.5))
            expected = sum(
                keys(u - 0.5 - i) * keys(v - 0.5 - j) * hsi.data[0, min(max(j, 0), 29), min(max(i, 0), 29)]
                for i in range(int(u) - 3, int(u) + 4)
                for j in range(int(v) - 3, int(v) + 4)
            )
            assert found[row, col] == pytest.approx(expected, abs=0.01)


def test_gdal_agrees_to_its_own_tolerance() -> None:
    hsi, _, grid = scene(LAEA)
    found = read_hsi(hsi, grid, frame(grid), [0, 1])
    expected = np.full_like(found, np.nan)
    reproject(
        hsi.data,
        expected,
        src_transform=hsi.transform,
        src_crs=UTM,
        dst_transform=grid.lr_affine,
        dst_crs=LAEA,
        dst_nodata=np.nan,
        resampling=Resampling.cubic,
        XSCALE=1,
        YSCALE=1,
    )
    difference = (found - expected)[:, 5:-5, 5:-5]  # GDAL treats edges in another way
    assert np.nanmax(np.abs(difference)) < 0.5  # of 6500
    assert np.isfinite(difference).mean() > 0.9


def nested_scene(ratio: int = 3, *, off: tuple[int, int] = (0, 0)) -> tuple[Cube, Cube, FusionGrid]:
    hsi = Cube(texture(3, 20, 24), Affine(30, 0, 3e5, 0, -30, 5.8e6), UTM, "hsi")
    size = 30 / ratio
    x, y = 3e5 + off[1] * size, 5.8e6 - off[0] * size
    msi = Cube(texture(2, 20 * ratio, 24 * ratio, 1), Affine(size, 0, x, 0, -size, y), UTM, "msi")
    return hsi, msi, lay_grid(hsi, msi)


@pytest.mark.parametrize("off", [(0, 0), (5, -4), (-7, 10)])
def test_a_nested_hsi_is_read_as_it_is(off: tuple[int, int]) -> None:
    hsi, msi, grid = nested_scene(off=off)
    assert grid.nested
    low = read_hsi(hsi, grid, frame(grid), [2, 0])
    r = grid.ratio
    for row in range(grid.lr_height):
        for col in range(grid.lr_width):
            u, v = ~hsi.transform * (grid.lr_affine * (col + 0.5, row + 0.5))
            np.testing.assert_array_equal(low[:, row, col], hsi.data[[2, 0], int(v), int(u)])
    high = read_msi(msi, grid, frame(grid), [1])
    assert high.shape == (1, grid.lr_height * r, grid.lr_width * r)
    rows = np.clip(grid.msi_row + np.arange(grid.lr_height * r), 0, msi.height - 1)
    cols = np.clip(grid.msi_col + np.arange(grid.lr_width * r), 0, msi.width - 1)
    np.testing.assert_array_equal(high[0], msi.data[1][np.ix_(rows, cols)])
    assert covered(hsi, grid, frame(grid)).all()


def test_only_the_windows_pixels_are_read() -> None:
    hsi, msi, grid = nested_scene()
    read_hsi(hsi, grid, Window(5, 7, 2, 3), [0])
    read_msi(msi, grid, Window(5, 7, 2, 3), [0])
    assert hsi.reads == [(5, 7, 2, 3)]
    assert msi.reads == [(15, 21, 6, 9)]
    warped, _, grid = scene(LAEA)
    read_hsi(warped, grid, Window(9, 9, 2, 2), [0])
    assert warped.reads[0][2] < 20
    assert warped.reads[0][3] < 20


def test_outside_the_hsi_its_edge_is_repeated() -> None:
    # the MSI reaches out of the HSI by nothing, but outer cells of the frame do
    hsi = Cube(texture(1, 12, 12), Affine(30, 0, 0, 0, -30, 360), UTM)
    msi = Cube(np.zeros((1, 60, 60)), Affine(10, 0, -115.1, 0, -10, 475.1), UTM)
    grid = lay_grid(hsi, msi)
    assert grid.nested
    assert (grid.hsi_row, grid.hsi_col) == (0, 0)
    far = read_hsi(hsi, grid, Window(-2, -3, 16, 20), [0])
    np.testing.assert_array_equal(far, np.pad(hsi.data, ((0, 0), (2, 2), (3, 5)), mode="edge"))
    away = read_hsi(hsi, grid, Window(40, 40, 2, 2), [0])
    np.testing.assert_array_equal(away, np.full((1, 2, 2), hsi.data[0, -1, -1]))


def test_a_warped_frame_holds_values_up_to_its_edge() -> None:
    hsi, _, grid = scene(LAEA)
    big = Cube(np.zeros((1, 400, 400)), grid.affine * Affine.translation(-200, -150), LAEA, "msi")
    wide = lay_grid(hsi, big)
    window = frame(wide)
    inside = covered(hsi, wide, window)
    values = read_hsi(hsi, wide, window, [0])[0]
    cells = inside.reshape(wide.lr_height, wide.ratio, wide.lr_width, wide.ratio).any((1, 3))
    assert 0.5 < inside.mean() < 1
    assert np.isfinite(values[cells]).all()
    assert values[cells].min() > 0


@pytest.mark.parametrize("shift", [(0.0, 0.0), (45.0, 80.0)])
def test_covered_against_pyproj(shift: tuple[float, float]) -> None:
    hsi, _, grid = scene(LAEA, shift=shift)
    big = Cube(np.zeros((1, 500, 500)), grid.affine * Affine.translation(-200, -150), LAEA, "msi")
    wide = lay_grid(hsi, big, shift=shift)
    for window in (frame(wide), Window(0, 0, 5, 9), Window(wide.lr_height - 7, 3, 7, 11)):
        fine = window.scaled(wide.ratio)
        col, row = np.meshgrid(
            np.arange(fine.col, fine.col + fine.width) + 0.5,
            np.arange(fine.row, fine.row + fine.height) + 0.5,
        )
        x, y = wide.affine * (col, row)
        x, y = Transformer.from_crs(3035, 32633, always_xy=True).transform(x - shift[0], y - shift[1])
        u, v = (x - 365_000) / 30, (5_810_000 - y) / 30
        distance = np.minimum(np.minimum(u, 70 - u), np.minimum(v, 60 - v))
        found = covered(hsi, wide, window)
        sure = np.abs(distance) > 1e-4
        np.testing.assert_array_equal(found[sure], (distance > 0)[sure])
        assert sure.mean() > 0.99
    assert not covered(hsi, wide, frame(wide)).all()


@pytest.mark.parametrize("crs", [LAEA, CRS.from_epsg(25833)])
def test_a_hole_in_one_band_stays_there(crs: CRS) -> None:
    hsi, _, grid = scene(crs, bands=4)
    clean = read_hsi(hsi, grid, frame(grid), [0, 1, 2, 3])
    hsi.data[1, 25:29, 30:34] = np.nan
    hsi.data[2] = np.nan
    broken = read_hsi(hsi, grid, frame(grid), [0, 1, 2, 3])
    np.testing.assert_array_equal(broken[[0, 3]], clean[[0, 3]])
    assert np.isnan(broken[2]).all()
    hole = np.isnan(broken[1]) & ~np.isnan(clean[1])
    assert 4 <= hole.sum() <= 16  # the nearest pixel decides, so it does not grow
    # away from the hole nothing has changed
    near = gaussian_filter(hole.astype(float), 2) > 1e-6
    np.testing.assert_array_equal(broken[1][~near], clean[1][~near])


def test_a_hole_is_the_same_in_windows() -> None:
    hsi, _, grid = scene(LAEA)
    hsi.data[0, 25:29, 30:34] = np.nan
    whole = read_hsi(hsi, grid, frame(grid), [0])
    for window in parts(grid, 8):
        np.testing.assert_allclose(
            read_hsi(hsi, grid, window, [0]), whole[:, *window.slices()], rtol=0, atol=5e-4
        )


def test_no_crs_at_all() -> None:
    hsi = Cube(texture(1, 20, 20), Affine(30, 0.9, 0, 0, -30, 600))
    msi = Cube(np.zeros((1, 60, 60)), Affine(10, 0, 0, 0, -10, 600))
    grid = lay_grid(hsi, msi)
    assert not grid.nested
    assert grid.crs is None
    values = read_hsi(hsi, grid, frame(grid), [0])
    known = Cube(hsi.data, hsi.transform, UTM), Cube(msi.data, msi.transform, UTM)
    expected = read_hsi(known[0], lay_grid(*known), frame(grid), [0])
    np.testing.assert_allclose(values, expected, atol=1e-2)
    assert covered(hsi, grid, frame(grid)).mean() > 0.9


@pytest.mark.parametrize(
    ("crs", "moved", "expected"),
    [(32633, 0.0, False), (25833, 0.0, False), (25833, 4.0, True), (32632, 0.0, True)],
)
def test_cells_that_meet_pixels_are_not_interpolated(crs: int, moved: float, expected: bool) -> None:
    """ETRS89 / UTM 33N is WGS 84 / UTM 33N by another name; the next zone's grid is turned."""
    msi = Cube(np.zeros((1, 64, 64)), Affine(10, 0, 500_000, 0, -10, 5_800_000), UTM)
    left, top = (500_000 + moved, 5_800_000) if crs != 32632 else (908_300, 5_817_100)
    hsi = Cube(np.zeros((2, 40, 40)), Affine(40, 0, left, 0, -40, top), CRS.from_epsg(crs))
    grid = lay_grid(hsi, msi, ratio=4)
    assert interpolates(hsi, grid) is expected
