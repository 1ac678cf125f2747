"""Several images as one: tiles of a grid, other UTM zones, folders, and what does not fit."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import products as made
import pytest
import rasterio
from affine import Affine
from made import write
from pyproj import Transformer

from csakd_geo.errors import GridError, InputError, SpectralError
from csakd_geo.grid import lay_grid
from csakd_geo.io import open_source
from csakd_geo.io.describe import describe


def scene(height: int = 40, width: int = 50) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    bands = [np.sin(x / 7 + k) + np.cos(y / 9) + 0.01 * k * x for k in range(3)]
    return np.stack(bands).astype(np.float32)


def tile(path: Path, cube: np.ndarray, row: int, col: int, height: int, width: int) -> Path:
    left, top = made.LEFT + 10 * col, made.TOP - 10 * row
    part = cube[:, row : row + height, col : col + width]
    return write(path, part, left=left, top=top, wavelength=[490, 560, 665], nodata=np.nan)


def test_tiles_of_one_grid_are_the_whole(tmp_path: Path) -> None:
    cube = scene()
    tiles = [
        tile(tmp_path / f"{k}.tif", cube, *place)
        for k, place in enumerate([(10, 20, 30, 30), (0, 0, 25, 26), (20, 0, 20, 24)])
    ]
    expected = cube.copy()
    expected[:, :10, 26:] = np.nan  # no tile is there
    source = pickle.loads(pickle.dumps(open_source(tiles)))
    assert (source.height, source.width) == (40, 50)
    assert (source.transform.c, source.transform.f) == (made.LEFT, made.TOP)
    np.testing.assert_array_equal(source.read(0, 0, 40, 50), expected)
    np.testing.assert_array_equal(source.read(7, 15, 21, 19, bands=[2, 0]), expected[[2, 0], 7:28, 15:34])
    folder = open_source(tmp_path)  # in the order of names
    np.testing.assert_array_equal(folder.read(0, 0, 40, 50), expected)
    assert "3 images are joined" in " ".join(describe(folder)["warnings"])


def test_the_first_one_that_has_a_value_counts(tmp_path: Path) -> None:
    first, second = np.full((3, 6, 6), 1.0, np.float32), np.full((3, 6, 6), 2.0, np.float32)
    first[:, 4, 4] = np.nan
    first[1, 5, 5] = np.nan
    paths = [tile(tmp_path / f"{k}.tif", cube, 0, 0, 6, 6) for k, cube in enumerate((first, second))]
    seen = open_source(paths).read(0, 0, 6, 6)
    assert seen[:, 4, 4].tolist() == [2, 2, 2]
    assert seen[:, 5, 5].tolist() == [1, 2, 1]
    assert (np.delete(seen.reshape(3, -1), [28, 35], axis=1) == 1).all()


def test_another_utm_zone_is_warped_to_its_place(tmp_path: Path) -> None:
    """Two zones meet at 18 degrees east; both tiles sample one function of place."""

    def value(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([np.sin(x / 150) + np.cos(y / 180), x / 1e3, y / 1e3])  # x, y in m of zone 33

    to_33 = Transformer.from_crs(32634, 32633, always_xy=True)
    left, top = (v - v % 10 for v in Transformer.from_crs(4326, 32633, always_xy=True).transform(18.0, 52.0))
    column, row = np.meshgrid(np.arange(60) + 0.5, np.arange(50) + 0.5)
    west = value(column * 10, -row * 10).astype(np.float32)
    other_left, other_top = (v - v % 10 for v in to_33.transform(left + 400, top, direction="INVERSE"))
    x, y = to_33.transform(other_left + column * 10, other_top - row * 10)
    east = value(x - left, y - top).astype(np.float32)
    paths = [
        write(tmp_path / "33.tif", west, left=left, top=top, crs="EPSG:32633", nodata=np.nan),
        write(tmp_path / "34.tif", east, left=other_left, top=other_top, crs="EPSG:32634", nodata=np.nan),
    ]
    source = open_source(paths)
    assert source.width > 90
    seen = source.read(0, 0, source.height, source.width)
    column, row = np.meshgrid(np.arange(source.width) + 0.5, np.arange(source.height) + 0.5)
    where_x, where_y = source.transform * (column, row)
    expected = value(where_x - left, where_y - top)
    known = np.isfinite(seen[0])
    far = known & (where_x > left + 620)
    assert far.sum() > 1000
    edge = float(np.max(where_x, where=known, initial=left)) - 60
    inner = far & (where_x < edge) & (where_y < top - 60) & (where_y > top - 400)
    assert inner.sum() > 500
    assert np.abs(seen - expected)[:, inner].max() < 0.005
    part = source.read(10, 55, 20, 30)
    np.testing.assert_allclose(part, seen[:, 10:30, 55:85], atol=1e-5)
    hsi = write(tmp_path / "hsi.tif", np.ones((5, 12, 24), np.float32), left=left, top=top, pixel=40.0)
    grid = lay_grid(open_source(hsi), source)
    assert (grid.ratio, grid.width) == (4, source.width if source.width < 96 else 96)


def test_a_folder_of_products_is_one_image(tmp_path: Path) -> None:
    folder = made.enmap(tmp_path / "in", np.full((10, 12, 10), 500, np.int16))
    second = shutil.copytree(folder, tmp_path / "in" / folder.name.replace("1867", "1868"))
    for file in list(second.iterdir()):
        file.rename(second / file.name.replace("1867", "1868"))
    image = next(second.glob("*SPECTRAL_IMAGE.TIF"))
    for path in [image, *second.glob("*QL_*.TIF")]:
        with rasterio.open(path, "r+") as dst:
            dst.transform = Affine.translation(0, -12 * 30) * dst.transform
    source = open_source(tmp_path / "in")
    assert (source.height, source.width, source.axis.size) == (24, 10, 10)
    assert np.isfinite(source.read(0, 0, 24, 10)).all()


def test_images_that_differ_are_refused(tmp_path: Path) -> None:
    cube = scene(20, 20)
    a = tile(tmp_path / "a.tif", cube, 0, 0, 20, 20)
    bands = write(tmp_path / "b.tif", cube[:2], wavelength=[490, 560])
    moved = write(tmp_path / "c.tif", cube, wavelength=[490, 560, 700])
    coarse = write(tmp_path / "d.tif", cube, pixel=20, wavelength=[490, 560, 665])
    bare = write(tmp_path / "e.tif", cube, crs=None, wavelength=[490, 560, 665])
    away = write(
        tmp_path / "f.tif", cube, left=made.LEFT + 1e5, top=made.TOP + 1e5, wavelength=[490, 560, 665]
    )
    for other, error, sentence in (
        (bands, SpectralError, "has 2 bands but 'a.tif' has 3"),
        (moved, SpectralError, "Band 3 of 'c.tif' lies 35.0 nm"),
        (coarse, GridError, "2.00 pixels of 'a.tif' wide"),
        (bare, GridError, "'e.tif' has no CRS"),
        (away, GridError, "lie so far apart"),
    ):
        with pytest.raises(error, match=sentence):
            open_source([a, other])
    with pytest.raises(InputError, match="empty"):
        open_source([])
