"""`csakd-geo pair` as a user types it: which images go together, what is said of the others, what is written."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import geopandas
import made
import numpy as np
import products
import pytest
from click.testing import CliRunner, Result
from shapely.geometry import box

from csakd_geo.cli import main


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["pair", *map(str, args)])


def image(path: Path, bands: int, pixel: float, *, left: float = 0, width: float = 960, **more: Any) -> Path:
    """An image of `width` metres that begins `left` metres east of the common corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (bands, round(960 / pixel), round(width / pixel))
    cube = np.random.default_rng(bands).random(shape, np.float32)
    return made.write(path, cube, left=made.LEFT + left, pixel=pixel, **more)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "should not have" not in line
    for word in words:
        assert word in line


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two HSIs side by side; MSIs of the first at three dates, one of which shows a third of it."""
    hsi, msi = tmp_path / "hsi", tmp_path / "msi"
    image(hsi / "a_20240610.tif", 20, 40)
    image(hsi / "b_20240610.tif", 20, 40, left=5000)
    image(msi / "far_20240501.tif", 4, 10)
    image(msi / "near_20240612.tif", 4, 10)
    image(msi / "part_20240610.tif", 4, 10, left=640)
    return hsi, msi


def test_the_nearest_in_time_that_shows_enough_is_taken(folders: tuple[Path, Path], tmp_path: Path) -> None:
    done = call(*folders, "-o", tmp_path / "pairs.csv")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"manifest: {tmp_path / 'pairs.csv'}  (1 pair)\n"
    (row,) = rows(tmp_path / "pairs.csv")
    assert (row["hsi"], row["msi"]) == ("hsi/a_20240610.tif", "msi/near_20240612.tif")
    assert row["out"] == "fused/a_20240610__near_20240612.tif"
    assert float(row["days"]) == 2
    assert float(row["overlap"]) == 1
    assert (row["hsi_date"], row["msi_date"]) == ("2024-06-10T00:00:00Z", "2024-06-12T00:00:00Z")
    assert "No MSI for" in done.stderr
    assert "b_20240610.tif': none with fewer bands and finer pixels overlaps it" in done.stderr


def test_a_smaller_overlap_may_do(folders: tuple[Path, Path], tmp_path: Path) -> None:
    done = call(*folders, "-o", tmp_path / "pairs.csv", "--min-overlap", "0.3")
    assert done.exit_code == 0, done.output
    (row,) = rows(tmp_path / "pairs.csv")
    assert row["msi"] == "msi/part_20240610.tif"  # of the same day
    assert float(row["overlap"]) == pytest.approx(320 / 960, abs=1e-3)


def test_every_pair_may_be_asked_for(folders: tuple[Path, Path], tmp_path: Path) -> None:
    done = call(*folders, "-o", tmp_path / "pairs.csv", "--all", "--min-overlap", "0.3", "--max-days", "10")
    assert done.exit_code == 0, done.output
    found = {row["msi"] for row in rows(tmp_path / "pairs.csv")}
    assert found == {"msi/part_20240610.tif", "msi/near_20240612.tif"}


def test_too_far_in_time_is_said(folders: tuple[Path, Path], tmp_path: Path) -> None:
    done = call(*folders, "-o", tmp_path / "pairs.csv", "--max-days", "1")
    refused(done, "No pair was found")
    assert "the nearest that overlaps it is 2 days off ('near_20240612.tif')" in done.stderr
    assert not (tmp_path / "pairs.csv").exists()


def test_a_geopackage_and_a_geoparquet_hold_the_common_area(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="the package pyarrow is not installed")
    for name, read in (("pairs.gpkg", geopandas.read_file), ("pairs.parquet", geopandas.read_parquet)):
        done = call(*folders, "-o", tmp_path / name, "--min-overlap", "0.3")
        assert done.exit_code == 0, done.output
        frame = read(tmp_path / name)
        assert frame["msi"].tolist() == ["msi/part_20240610.tif"]
        assert frame.crs == "EPSG:4326"
        common = frame.to_crs(made.CRS).geometry.iloc[0]
        expected = box(made.LEFT + 640, made.TOP - 960, made.LEFT + 960, made.TOP)
        assert common.symmetric_difference(expected).area < 1e-3 * expected.area


def test_pairs_in_other_crs_are_found(tmp_path: Path) -> None:
    image(tmp_path / "hsi/a.tif", 20, 40)
    frame = geopandas.GeoSeries([box(made.LEFT, made.TOP - 960, made.LEFT + 960, made.TOP)], crs=made.CRS)
    left, bottom, right, top = frame.to_crs(32632).total_bounds
    cube = np.ones((4, round((top - bottom) / 10), round((right - left) / 10)), np.float32)
    (tmp_path / "msi").mkdir()
    made.write(tmp_path / "msi/zone32.tif", cube, left=left, top=top, crs="EPSG:32632")
    made.write(tmp_path / "msi/elsewhere.tif", cube, left=left + 9e4, top=top, crs="EPSG:32632")
    done = call(tmp_path / "hsi", tmp_path / "msi", "-o", tmp_path / "pairs.csv")
    assert done.exit_code == 0, done.output
    (row,) = rows(tmp_path / "pairs.csv")
    assert row["msi"] == "msi/zone32.tif"
    assert float(row["overlap"]) > 0.99
    assert row["days"] == ""


def test_what_can_be_no_pair_is_none(tmp_path: Path) -> None:
    """As many bands, or pixels as coarse: neither is an MSI of the other."""
    image(tmp_path / "hsi/a.tif", 20, 40)
    image(tmp_path / "msi/bands.tif", 20, 10)
    image(tmp_path / "msi/coarse.tif", 4, 30)
    refused(call(tmp_path / "hsi", tmp_path / "msi", "-o", tmp_path / "p.csv"), "No pair was found")


def test_without_a_crs_coordinates_decide_and_it_is_said(tmp_path: Path) -> None:
    image(tmp_path / "hsi/a.tif", 20, 40)
    image(tmp_path / "msi/b.tif", 4, 10, crs=None)
    done = call(tmp_path / "hsi", tmp_path / "msi", "-o", tmp_path / "pairs.gpkg")
    assert done.exit_code == 0, done.output
    assert "b.tif' are paired by their coordinates alone: not both have a CRS." in done.stderr
    assert geopandas.read_file(tmp_path / "pairs.gpkg").geometry.iloc[0] is None
    image(tmp_path / "msi/c.tif", 4, 10, left=100)  # shows less, but is known to be there
    done = call(tmp_path / "hsi", tmp_path / "msi", "-o", tmp_path / "pairs.csv")
    assert [row["msi"] for row in rows(tmp_path / "pairs.csv")] == ["msi/c.tif"]
    assert "alone" not in done.stderr


def test_subfolders_and_broken_files(tmp_path: Path) -> None:
    image(tmp_path / "in/scene 1/hsi.tif", 20, 40)
    image(tmp_path / "in/scene 1/msi.tif", 4, 10)
    (tmp_path / "in/broken.tif").write_bytes(b"no image")
    (tmp_path / "in/notes.txt").write_text("nothing to see")
    done = call(tmp_path / "in", tmp_path / "in", "-o", tmp_path / "pairs.csv")
    assert done.exit_code == 0, done.output
    assert [row["out"] for row in rows(tmp_path / "pairs.csv")] == ["fused/scene 1_hsi__scene 1_msi.tif"]
    assert "Left out: 'broken.tif' cannot be opened as a raster" in done.stderr
    assert "notes.txt" not in done.stderr
    assert "No MSI for" not in done.stderr  # one folder for both: an MSI needs no MSI


def test_what_is_delivered_with_an_image_is_passed_over(tmp_path: Path) -> None:
    """Two granules of EMIT in one folder with their masks, and a PlanetScope mask, which has more bands than it."""
    table_y, table_x = np.mgrid[1:61, 1:61]
    for stamp in ("20230623T101530", "20230724T101530"):
        name = f"EMIT_L2A_RFL_001_{stamp}_2317406_012.nc"
        (tmp_path / "in").mkdir(exist_ok=True)
        path = products.emit(
            tmp_path / "in" / name,
            np.ones((60, 60, 5)),
            table_x,
            table_y,
            flags=np.zeros((60, 60, 6)),
            corner=(14.99, 52.36),
        )
        (path.parent / name.replace("RFL", "RFLUNCERT")).write_bytes(path.read_bytes())
    for name, bands in (
        ("20230623_101010_01_2440_3B_AnalyticMS_SR.tif", 4),
        ("20230623_101010_01_2440_3B_udm2.tif", 3),
    ):
        products.raster(tmp_path / "in" / name, np.ones((bands, 150, 150), np.uint8), pixel=10)
    done = call(tmp_path / "in", tmp_path / "in", "-o", tmp_path / "pairs.csv", "--min-overlap", "0.3")
    assert done.exit_code == 0, done.output
    assert "Left out" not in done.stderr
    assert [(row["hsi"], row["msi"]) for row in rows(tmp_path / "pairs.csv")] == [
        (f"in/EMIT_L2A_RFL_001_{stamp}_2317406_012.nc", "in/20230623_101010_01_2440_3B_AnalyticMS_SR.tif")
        for stamp in ("20230623T101530", "20230724T101530")
    ]


def test_bad_input(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    refused(call(tmp_path / "no", folders[1], "-o", out), "is no folder")
    (tmp_path / "empty").mkdir()
    refused(call(tmp_path / "empty", folders[1], "-o", out), "holds no image that can be read")
    refused(call(*folders, "-o", tmp_path / "pairs.xlsx"), "must end in .gpkg, .parquet or .csv")
    refused(call(*folders, "-o", tmp_path / "no/pairs.csv"), "does not exist; make it first")
    out.write_text("mine")
    refused(call(*folders, "-o", out), "exists; give --overwrite")
    assert out.read_text() == "mine"
    assert call(*folders, "-o", out, "--overwrite").exit_code == 0
    assert len(rows(out)) == 1
