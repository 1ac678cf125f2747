"""Several images as one: tiles of a grid, other UTM zones, folders, and what does not fit."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import made as simple
import numpy as np
import products as made
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from made import write
from pyproj import Transformer

from csakd_geo.cli import main
from csakd_geo.errors import GridError, InputError, SpectralError
from csakd_geo.grid import lay_grid
from csakd_geo.io import open_source
from csakd_geo.io.describe import describe
from csakd_geo.io.several import members


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


def test_a_pattern_is_the_list_of_what_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cube, folder = scene(), tmp_path / "run [1]"  # brackets of a folder that exists are its name
    (folder / "far").mkdir(parents=True)
    places = {
        "S2_b": (10, 20, 30, 30),
        "S2_a": (0, 0, 25, 26),
        "far/S2_c": (20, 0, 20, 24),
        "HSI": (0, 0, 9, 9),
    }
    tiles = {name: tile(folder / f"{name}.tif", cube, *place) for name, place in places.items()}
    (folder / "S2_a.tif.aux.xml").write_text("<PAMDataset/>")
    near, all_three = [tiles["S2_a"], tiles["S2_b"]], [tiles["S2_a"], tiles["S2_b"], tiles["far/S2_c"]]
    monkeypatch.chdir(folder)
    for pattern, paths in (
        (folder / "S2_*.tif", near),
        (f"{folder}/S2_[ab].tif", near),
        ("S2_?.tif", near),
        (str(folder / "**" / "S2_*.tif"), all_three),
    ):
        found, expected = open_source(pattern), open_source(paths)
        assert found.name == expected.name
        assert found.transform == expected.transform
        place = (0, 0, expected.height, expected.width)
        np.testing.assert_array_equal(found.read(*place), expected.read(*place))
    assert open_source("H*.tif").name == "HSI.tif"
    with pytest.raises(
        InputError, match=r"^'S3_\*.tif' does not exist, and as a pattern it finds nothing; check"
    ):
        open_source("S3_*.tif")


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    cube = scene(8, 8)
    named, trap = (tile(tmp_path / f"{k}.tif", cube + v, 0, 0, 8, 8) for k, v in (("a[1]", 1), ("a1", 2)))
    assert members(named) == [named]
    np.testing.assert_array_equal(open_source(named).read(0, 0, 8, 8), cube + 1)
    assert members(tmp_path / "a[1-3].tif") == [trap]
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(named, "b[1].tif")
    inside = f"/vsizip/{tmp_path}/z.zip/b[1].tif"
    np.testing.assert_array_equal(open_source(inside).read(0, 0, 8, 8), cube + 1)
    for text in (
        "https://a.b/c.tif?key=[1]*",
        "s3://bucket/*.zarr",
        "NETCDF:f[1].nc:v",
        "/vsicurl/https://a/b?c",
    ):
        assert members(text) == [text]
    assert members(Path("s3://bucket/*.zarr")) == [Path("s3://bucket/*.zarr")]


def test_patterns_name_the_sensor_of_each(tmp_path: Path) -> None:
    folder = made.enmap(tmp_path, np.full((10, 12, 10), 500, np.int16))
    source = open_source(tmp_path / f"{folder.name[:8]}*", sensor="enmap")
    assert (source.height, source.axis.size) == (12, 10)
    with pytest.raises(InputError, match=r"[Pp]risma|PRISMA"):
        open_source(tmp_path / f"{folder.name[:8]}*", sensor="prisma")


def test_the_command_line_takes_patterns(tmp_path: Path) -> None:
    """Two MSI tiles and one HSI on the command line are the pair that was cut into them."""
    pair = simple.make_pair(tmp_path, bands=10, height=96, width=96)
    with rasterio.open(pair.msi) as src:
        whole, profile = src.read(), src.profile
        tags, bands = src.tags(), [src.tags(i) for i in src.indexes]
    (tmp_path / "tiles").mkdir()
    for k, rows in enumerate((slice(0, 40), slice(40, 96))):
        moved = {
            "height": rows.stop - rows.start,
            "transform": profile["transform"] @ Affine.translation(0, rows.start),
        }
        with rasterio.open(tmp_path / "tiles" / f"{k}.tif", "w", **{**profile, **moved}) as dst:
            dst.write(whole[:, rows])
            dst.update_tags(**tags)
            for i, band in enumerate(bands, 1):
                dst.update_tags(i, **band)
    tiles, out = str(tmp_path / "tiles" / "*.tif"), [tmp_path / f"{k}.tif" for k in "ab"]
    (tmp_path / "batch.csv").write_text("hsi,msi,out,method\nhs?.tif,tiles/*.tif,c.tif,gsa\n")
    commands = [
        ["fuse", str(pair.hsi), str(pair.msi), "-o", str(out[0]), "--method", "gsa", "--quiet"],
        ["fuse", str(pair.hsi), tiles, "-o", str(out[1]), "--method", "gsa", "--quiet", "--stac"],
        ["align", str(pair.hsi), tiles, "-o", str(tmp_path / "aligned.tif")],
        ["response", str(pair.hsi), tiles],
        ["info", tiles],
        ["batch", str(tmp_path / "batch.csv"), "--quiet"],
    ]
    for command in commands:
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
    for path in (out[1], tmp_path / "c.tif"):
        with rasterio.open(out[0]) as one, rasterio.open(path) as other:
            np.testing.assert_array_equal(one.read(), other.read())
            assert one.transform == other.transform
    links = json.loads((tmp_path / "b.stac.json").read_text())["links"]
    assert [link["href"] for link in links] == [pair.hsi.name, "tiles/0.tif", "tiles/1.tif"]
    for target in (tmp_path / "tiles" / "1.tif", tmp_path / "nothing.tif"):
        given = tiles if target.exists() else str(tmp_path / "tile" / "*.tif")
        for image in (given, str(Path(given).parent)):  # the folder too
            done = CliRunner().invoke(main, ["fuse", str(pair.hsi), image, "-o", str(target), "--overwrite"])
            assert done.exit_code == 1
            said = "is one of the inputs" if target.exists() else "does not exist"
            assert said in done.stderr
            assert len(done.stderr.split("Error:")[1].strip().splitlines()) == 1


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
