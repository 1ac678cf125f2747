"""STAC items of products, read by pystac; the times that images are given."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from shapely.geometry import shape

from csakd_geo.dates import find_date, first_date
from csakd_geo.draft import draft_job
from csakd_geo.engine.store import Store
from csakd_geo.errors import InputError, OutputError
from csakd_geo.footprint import bbox, footprint
from csakd_geo.io import open_source
from csakd_geo.io.provenance import read_facts
from csakd_geo.job import prepare_job
from csakd_geo.models import find_model
from csakd_geo.options import make_options
from csakd_geo.product import write_job
from csakd_geo.stac import build_item, validate, write_item

pystac = pytest.importorskip("pystac", reason="the package pystac is not installed")
pytest.importorskip("pystac.validation")
pytest.importorskip("jsonschema", reason="the package jsonschema is not installed")

FORMATS = {"cog": "f.tif", "zarr": "f.zarr", "zarr2": "g.zarr", "netcdf": "f.nc", "envi": "f.img"}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may connect to anything."""

    def refuse(*args: object) -> None:
        raise OSError("the network is not there")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One fusion in every format, of files that carry dates in their names; and one by a network."""
    folder = tmp_path_factory.mktemp("stac")
    pair = made.make_pair(folder / "in", bands=12, height=64, width=48)
    hsi = pair.hsi.rename(pair.hsi.with_name("HSI_20240607T103021.tif"))
    msi = pair.msi.rename(pair.msi.with_name("MSI_20240610.tif"))
    found = {"hsi": hsi, "msi": msi}
    for name, file in FORMATS.items():
        found[name] = fuse(hsi, msi, folder / file, method="regression", format=name)
    found["network"] = fuse(hsi, msi, folder / "network.tif", model="csakd-student-aviris", format="cog")
    return found


def fuse(hsi: Path, msi: Path, target: Path, **options: Any) -> Path:
    job = prepare_job(draft_job(hsi, msi, make_options(options)), report=lambda *_: None)
    write_job(job, target, Store(target), report=lambda *_: None)
    return target


@pytest.mark.parametrize("name", FORMATS)
def test_an_item_of_every_format_is_valid_and_says_what_the_file_holds(
    products: dict[str, Path], name: str, tmp_path: Path
) -> None:
    item_file = write_item(products[name])
    assert item_file == products[name].with_name(f"{products[name].stem}.stac.json")
    item = pystac.Item.from_file(str(item_file))
    pystac.validation.validate_dict(json.loads(item_file.read_text()), extensions=[])
    assert item.properties["proj:code"] == made.CRS
    assert item.properties["proj:shape"] == [64, 48]
    assert item.properties["proj:transform"] == [10, 0, made.LEFT, 0, -10, made.TOP]
    assert item.properties["proj:bbox"] == [made.LEFT, made.TOP - 640, made.LEFT + 480, made.TOP]
    asset = item.assets["fused"]
    assert Path(asset.get_absolute_href()) == products[name]
    assert (asset.media_type or "").startswith("image/tiff" if name == "cog" else "application/")
    bands = asset.extra_fields["bands"]
    expected = np.linspace(450, 900, 12)
    np.testing.assert_allclose([b["eo:center_wavelength"] for b in bands], expected / 1000, atol=6e-6)
    np.testing.assert_allclose([b["eo:full_width_half_max"] for b in bands], 0.02)
    assert {b["data_type"] for b in bands} == {"int16"}
    assert {b["nodata"] for b in bands} == {-32768}
    assert {b["raster:scale"] for b in bands} == {1e-4}
    assert asset.extra_fields["raster:spatial_resolution"] == 10
    if name == "envi":
        assert {Path(a.get_absolute_href()).name for a in item.assets.values()} >= {"f.img", "f.hdr"}
    for extension in ("projection/v2", "raster/v2", "eo/v2", "processing/v1"):
        assert any(extension in uri for uri in item.stac_extensions)


def test_the_footprint_is_that_of_the_corners(products: dict[str, Path]) -> None:
    item = build_item(products["cog"])
    to_degrees = Transformer.from_crs(made.CRS, 4326, always_xy=True).transform
    corners = [to_degrees(made.LEFT + x, made.TOP - y) for x in (0, 480) for y in (0, 640)]
    shown = shape(item["geometry"])
    assert shown.is_valid
    lon, lat = zip(*corners, strict=True)
    np.testing.assert_allclose(shown.bounds, [min(lon), min(lat), max(lon), max(lat)], atol=2e-7)
    np.testing.assert_allclose(item["bbox"], shown.bounds, atol=1e-9)


def test_provenance_names_the_model_by_its_hash(products: dict[str, Path]) -> None:
    item = build_item(products["network"])["properties"]
    expected = hashlib.sha256(find_model("csakd-student-aviris").read_bytes()).hexdigest()
    assert item["csakd:method"] == "csakd"
    assert item["csakd:model"]["file_sha256"] == expected
    assert expected in item["processing:lineage"]
    assert item["processing:software"]["csakd_geo"]
    assert item["csakd:options"]["model"] == "csakd-student-aviris"
    classical = build_item(products["cog"])["properties"]
    assert classical["csakd:method"] == "regression"
    assert classical["csakd:model"] == {}
    assert classical["csakd:ratio"] == 4


def test_times_come_from_the_inputs(products: dict[str, Path]) -> None:
    from_names = build_item(products["cog"])["properties"]  # the product kept the names
    given = build_item(products["cog"], hsi=products["hsi"], msi=products["msi"])
    for item in (from_names, given["properties"]):
        assert item["datetime"] == item["start_datetime"] == "2024-06-07T10:30:21Z"
        assert item["end_datetime"] == "2024-06-10T00:00:00Z"
        assert item["csakd:datetime_from"] == "hsi"
    assert [(link["rel"], link["href"]) for link in given["links"]] == [
        ("derived_from", "in/HSI_20240607T103021.tif"),
        ("derived_from", "in/MSI_20240610.tif"),
    ]


def test_without_dates_and_without_a_crs(tmp_path: Path) -> None:
    pair = made.make_pair(tmp_path / "in", bands=8, height=64, width=48, crs=None)
    item = build_item(fuse(pair.hsi, pair.msi, tmp_path / "f.tif", method="regression", format="cog"))
    assert item["geometry"] is None
    assert "bbox" not in item
    assert item["properties"]["proj:code"] is None
    assert item["properties"]["csakd:datetime_from"] == "processing"
    made_at = datetime.strptime(item["properties"]["datetime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - made_at).total_seconds()) < 120


def test_what_is_no_product_is_refused(tmp_path: Path) -> None:
    pair = made.make_pair(tmp_path, bands=8, height=64, width=48)
    with pytest.raises(InputError, match="has no provenance of csakd-geo"):
        write_item(pair.hsi)
    with pytest.raises(InputError, match="does not exist"):
        write_item(tmp_path / "no.tif")
    assert list(tmp_path.glob("*.json")) == []


def test_facts_are_those_of_the_tags(products: dict[str, Path]) -> None:
    facts = read_facts(products["cog"])
    with rasterio.open(products["cog"]) as src:
        tags = src.tags()
    assert facts["method"] == tags["CSAKD_GEO_METHOD"] == "regression"
    assert facts["ratio"] == int(tags["CSAKD_GEO_RATIO"])
    assert facts["options"]["format"] == "cog"
    assert all(read_facts(products[name])["method"] == "regression" for name in FORMATS)


def test_an_invalid_item_would_be_found(products: dict[str, Path]) -> None:
    item = build_item(products["cog"])
    del item["properties"]["datetime"]
    with pytest.raises(OutputError, match="no valid STAC"):
        validate(item)


def test_missing_packages_are_told(products: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    copy = products["cog"].with_name("copy.tif")
    shutil.copy(products["cog"], copy)
    monkeypatch.setitem(__import__("sys").modules, "jsonschema", None)
    with pytest.raises(InputError, match=r"needs the package .*csakd-geo\[gis\]"):
        write_item(copy)
    assert not copy.with_name("copy.stac.json").exists()


def test_a_footprint_across_the_180th_meridian_is_cut_there(tmp_path: Path) -> None:
    path = made.write(tmp_path / "fiji.tif", np.ones((1, 20, 20), np.float32), crs="EPSG:3832", pixel=5000)
    with rasterio.open(path, "r+") as src:  # PDC Mercator is centred on 150 E
        x = 30 * 111_319.49
        src.transform = Affine(5000, 0, x - 50_000, 0, -5000, -1_900_000)
        src.crs = CRS.from_epsg(3832)
    shown = footprint(open_source(path))
    assert shown is not None
    assert shown.geom_type == "MultiPolygon"
    west, south, east, north = bbox(shown)
    assert west > 179
    assert east < -179
    assert south < north < -16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("S2A_MSIL2A_20240607T103021_N0510_R108_T32UQD_20240607T164000.SAFE", (2024, 6, 7, 10, 30, 21)),
        ("LC08_L2SP_193023_20200102_20200823_02_T1", (2020, 1, 2)),
        ("PRS_L2D_STD_20210401101315_20210401101319_0001.he5", (2021, 4, 1, 10, 13, 15)),
        (
            "ENMAP01-____L2A-DT0000002446_20220810T112429Z_001_V010400_20230101T000000Z",
            (2022, 8, 10, 11, 24, 29),
        ),
        ("EO1H1990342002161110K1", (2002, 6, 10)),
        ("2024-06-07T10:30:21Z", (2024, 6, 7, 10, 30, 21)),
        ("ang20180729t180301_rfl_v2r2_img", (2018, 7, 29, 18, 3, 1)),
        ("f130503t01p00r09", None),
        ("scene_20241345", None),
        ("scene_20230229", None),
        ("tile_120240607", None),
    ],
)
def test_dates_in_names(text: str, expected: tuple[int, ...] | None) -> None:
    assert first_date([text]) == (None if expected is None else datetime(*expected, tzinfo=UTC))


def test_tags_go_before_names(tmp_path: Path) -> None:
    path = made.write(tmp_path / "a_20200101.tif", np.ones((1, 4, 4), np.float32))
    assert find_date(path) == datetime(2020, 1, 1, tzinfo=UTC)
    with rasterio.open(path, "r+") as src:
        src.update_tags(ACQUISITION_DATE="2021-02-03T04:05:06Z")
    assert find_date(path) == datetime(2021, 2, 3, 4, 5, 6, tzinfo=UTC)
    folder = tmp_path / "2019-08-07"
    folder.mkdir()
    assert find_date(made.write(folder / "hsi.tif", np.ones((1, 4, 4), np.float32))) == datetime(
        2019, 8, 7, tzinfo=UTC
    )
    assert find_date(tmp_path / "nothing.tif") is None
