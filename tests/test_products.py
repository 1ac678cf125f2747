"""Readers of sensor products: satellite products of ESA, DLR, ASI; detection; what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import products as made
import pytest
import rasterio
from click.testing import CliRunner

from csakd_geo.batch.images import find_images
from csakd_geo.cli import main
from csakd_geo.errors import CsakdGeoError, InputError
from csakd_geo.io import open_source
from csakd_geo.io.describe import describe
from csakd_geo.io.products import find_sensor, product_names


def counts(bands: int, height: int = 12, width: int = 10, *, low: int = 100, high: int = 6000) -> np.ndarray:
    return np.random.default_rng(bands).integers(low, high, (bands, height, width)).astype(np.int16)


def test_enmap_is_scaled_sorted_masked_and_reported(tmp_path: Path) -> None:
    stored = counts(10)
    stored[:, 0, 0] = -32768
    cloud = np.zeros((12, 10), bool)
    cloud[5, 3] = True
    folder = made.enmap(tmp_path, stored, cloud=cloud)
    source = open_source(folder)
    order = np.argsort(made.ENMAP_NM)
    np.testing.assert_array_equal(source.axis.wavelength, made.ENMAP_NM[order])
    np.testing.assert_array_equal(source.axis.fwhm, made.ENMAP_FWHM[order])
    k = np.arange(10)[:, None, None]
    expected = (stored * (0.0001 * (k + 1)) + 0.001 * k)[order].astype(np.float32)
    expected[:, 0, 0] = expected[:, 5, 3] = np.nan
    np.testing.assert_allclose(source.read(0, 0, 12, 10), expected, rtol=1e-6)
    np.testing.assert_array_equal(
        source.read(4, 2, 3, 5, bands=[7, 2]), source.read(0, 0, 12, 10)[[7, 2], 4:7, 2:7]
    )
    assert (source.units, source.integer, str(source.crs)) == ("reflectance", True, made.CRS)
    facts = describe(source)
    assert facts["driver"] == "EnMAP L2A"
    assert (
        "Two detectors overlap from 905 to 990 nm, where 4 bands lie; all bands were sorted by wavelength."
        in (facts["warnings"])
    )
    assert not any("rising order, as" in text for text in facts["warnings"])


@pytest.mark.parametrize("form", ["metadata", "zip", "parent"])
def test_enmap_opens_from_every_form(tmp_path: Path, form: str) -> None:
    folder = made.enmap(tmp_path / "in", counts(10), level="L1C")
    path = {
        "metadata": next(folder.glob("*METADATA.XML")),
        "zip": made.zipped(folder, tmp_path / "product.zip"),
        "parent": folder.parent,
    }[form]
    assert find_sensor(path) == "enmap"
    source = pickle.loads(pickle.dumps(open_source(path)))
    np.testing.assert_array_equal(source.read(0, 0, 12, 10), open_source(folder).read(0, 0, 12, 10))
    assert source.units == "radiance"
    assert source.fingerprint() == open_source(path).fingerprint()


def test_prisma_joins_its_detectors_and_masks_the_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vnir, swir = (rng.integers(1, 65536, (9, 6, 7)).astype(np.uint16) for _ in range(2))
    vnir[0, :, 0] = swir[0, :, 0] = 0  # outside the frame
    vnir[3, 4, 3] = 0  # one dark value inside it
    invalid = np.zeros(vnir.shape, bool)
    invalid[5, 1, 5] = True
    path = made.prisma(
        tmp_path / "PRS_L2D_STD_20201107101404_20201107101408_0001.he5", vnir, swir, invalid=invalid
    )
    source = open_source(path)
    both = np.concatenate([made.PRISMA_VNIR, made.PRISMA_SWIR])
    order = [k for k in np.argsort(both) if both[k] > 0]
    np.testing.assert_array_equal(source.axis.wavelength, both[order])
    expected = np.concatenate([vnir / 65535 * 0.8, 0.01 + swir / 65535 * 0.59], axis=1).transpose(1, 0, 2)
    expected[1, 5, 5] = np.nan
    expected[:, 0, 0] = np.nan
    np.testing.assert_allclose(source.read(0, 0, 9, 7), expected[order], rtol=1e-5)
    assert source.read(3, 3, 1, 1, bands=[1])[0, 0, 0] == 0
    assert source.transform[:6] == (30.0, 0.0, made.LEFT, 0.0, -30.0, made.TOP)
    notes = " ".join(describe(source)["warnings"])
    assert "2 bands that the product does not use were left out." in notes
    assert "overlap from 920 to 990 nm, where 4 bands lie" in notes


def sentinel2(folder: Path, **more: object) -> tuple[Path, dict[str, np.ndarray]]:
    rng = np.random.default_rng(2)
    bands = {
        band: rng.integers(1000, 9000, (120 // size * 10, 80 // size * 10)).astype(np.uint16)
        for band, size in made.S2_BANDS.items()
    }
    bands["B04"][3, 3] = 0
    return made.sentinel2(folder, bands, **more), bands  # type: ignore[arg-type]


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_sentinel2_has_ten_bands_on_the_fine_grid(tmp_path: Path, level: str) -> None:
    scl = np.full((60, 40), 4)
    scl[10, 20] = 9
    folder, bands = sentinel2(tmp_path, level=level, **({"scl": scl} if level == "L2A" else {}))
    source = open_source(folder)
    numbers = (1, 2, 3, 4, 5, 6, 7, 8, 11, 12)
    expected = np.stack(
        [
            (np.kron(bands[b].astype(float), np.ones((size // 10,) * 2)) - 1000 - k) / 10000
            for (b, size), k in zip(made.S2_BANDS.items(), numbers, strict=True)
        ]
    )
    expected[2, 3, 3] = np.nan
    if level == "L2A":
        expected[:, 20:22, 40:42] = np.nan
    np.testing.assert_allclose(source.read(0, 0, 120, 80), expected, atol=1e-6)
    np.testing.assert_allclose(
        source.read(17, 37, 9, 6, bands=[9, 0]), expected[[9, 0], 17:26, 37:43], atol=1e-6
    )
    assert source.axis.names == ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
    np.testing.assert_array_equal(source.axis.wavelength, 400.5 + 10 * np.arange(10))
    assert source.axis.fwhm[0] == 64.3
    zipped = open_source(made.zipped(folder, tmp_path / "S2.zip"))
    np.testing.assert_array_equal(zipped.read(17, 37, 9, 6), source.read(17, 37, 9, 6))


def test_a_missing_part_is_one_sentence(tmp_path: Path) -> None:
    folder, _ = sentinel2(tmp_path)
    next(folder.rglob("*_B11_20m.jp2")).unlink()
    with pytest.raises(InputError, match=r"lacks band B11 at 20 m; expected the product as it was delivered"):
        open_source(folder)
    enmap = made.enmap(tmp_path / "in", counts(10))
    next(enmap.glob("*SPECTRAL_IMAGE.TIF")).unlink()
    with pytest.raises(InputError, match="lacks the spectral image"):
        open_source(enmap)


def test_metadata_of_another_image_are_refused(tmp_path: Path) -> None:
    folder = made.enmap(tmp_path, counts(7))
    with pytest.raises(InputError, match="describe 10 bands but its image has 7"):
        open_source(folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "declares XML entities"),
        ("<a><b></a>", "is no valid XML"),
        ("\0\1\2", "is no metadata text"),
    ],
)
def test_hostile_and_broken_xml_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    folder = made.enmap(tmp_path, counts(10))
    next(folder.glob("*METADATA.XML")).write_text(text)
    with pytest.raises(InputError, match=sentence):
        open_source(folder)


@pytest.mark.parametrize("member", ["../ENMAP-METADATA.XML", "/tmp/a.TIF", "C:\\a.TIF", "a/../../b.xml"])
def test_members_that_leave_the_zip_are_refused(tmp_path: Path, member: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(member, "x")
    with pytest.raises(InputError, match="leads out of its folder"):
        open_source(tmp_path / "evil.zip")


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csakd_geo.io.products.files._GIGABYTE", 1 << 20)  # a real one takes long to write
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.TIF", bytes(1 << 24))
    with pytest.raises(InputError, match="would unpack to 1 files"):
        open_source(tmp_path / "bomb.zip")


def test_a_damaged_zip_and_an_unknown_sensor_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 no more")
    with pytest.raises(InputError, match="cannot be opened as a zip"):
        open_source(tmp_path / "a.zip")
    folder = made.enmap(tmp_path, counts(10))
    with pytest.raises(InputError, match="no reader for the sensor 'modis'; choose"):
        open_source(folder, sensor="modis")
    with pytest.raises(CsakdGeoError):
        open_source(folder, sensor="prisma")
    assert "enmap" in product_names()


def test_two_products_in_one_folder_must_be_told_apart(tmp_path: Path) -> None:
    folder = made.enmap(tmp_path, counts(10))
    for file in list(folder.iterdir()):
        shutil.copy(file, folder / file.name.replace("DT0000001867", "DT0000001868"))
    with pytest.raises(InputError, match=r"holds 2 products .* give the metadata file"):
        open_source(folder)
    source = open_source(sorted(folder.glob("*METADATA.XML"))[1])
    assert source.axis.size == 10


def test_info_understands_a_product(tmp_path: Path) -> None:
    folder = made.enmap(tmp_path, counts(10))
    result = CliRunner().invoke(main, ["info", str(folder)])
    assert result.exit_code == 0, result.output
    assert "EnMAP L2A" in result.output
    assert "overlap" in " ".join(result.output.split())


def test_info_reads_as_the_sensor_that_is_named(tmp_path: Path) -> None:
    folder = made.enmap(tmp_path, counts(10))
    result = CliRunner().invoke(main, ["info", str(folder), "--sensor", "enmap", "--json"])
    assert json.loads(result.stdout)["driver"] == "EnMAP L2A"
    result = CliRunner().invoke(main, ["info", str(folder), "--sensor", "landsat"])
    assert result.exit_code == 1
    assert "lacks the metadata text (*_MTL.txt) of a Landsat" in " ".join(result.stderr.split())


def test_products_are_fused_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    mixed = np.tensordot(rng.random((10, 3)), rng.random((3, 20, 16)), axes=1)  # (band, y, x) at 30 m
    gain = 0.0001 * np.arange(1, 11)[:, None, None]
    stored = np.clip((mixed * 0.25 - 0.001 * np.arange(10)[:, None, None]) / gain, 1, 32000).astype(np.int16)
    hsi = made.enmap(tmp_path, stored)
    fine = np.kron(mixed[:10] * 0.25, np.ones((3, 3)))
    bands = {
        band: np.round(fine[k, :: size // 10, :: size // 10] * 10000 + 1000).astype(np.uint16)
        for k, (band, size) in enumerate(made.S2_BANDS.items())
    }
    msi = made.zipped(made.sentinel2(tmp_path / "s2", bands), tmp_path / "S2A.zip")
    target = tmp_path / "out.tif"
    result = CliRunner().invoke(
        main,
        [
            "fuse",
            str(hsi),
            str(msi),
            "-o",
            str(target),
            "--method",
            "regression",
            "--shift",
            "none",
            "--quiet",
        ],
    )
    assert result.exit_code == 0, result.output
    with rasterio.open(target) as src:
        assert (src.count, src.shape, src.transform.a) == (10, (60, 48), 10)
        seen = src.read(6).astype(float) * src.scales[5] + src.offsets[5]
    expected = fine[np.argsort(made.ENMAP_NM)[5]]
    assert np.corrcoef(seen.ravel(), expected.ravel())[0, 1] > 0.9


def test_a_folder_without_a_product_is_still_a_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert find_sensor(tmp_path) is None
    with pytest.raises(InputError, match="is a folder; give the raster file"):
        open_source(tmp_path)


@pytest.mark.parametrize(("level", "satellite", "bands"), [("L2SP", 8, 7), ("L1TP", 9, 7), ("L2SP", 7, 6)])
def test_landsat_is_rescaled_and_masked(tmp_path: Path, level: str, satellite: int, bands: int) -> None:
    stored = counts(bands, low=7000, high=20000).astype(np.uint16)
    stored[1, 2, 2] = 0
    quality = np.full((12, 10), 21824)  # clear
    quality[0, 0], quality[4, 4], quality[6, 6], quality[7, 7] = (
        1,
        22280,
        23888,
        21952,
    )  # the last is clear water
    folder = made.landsat(tmp_path, stored, quality, level=level, satellite=satellite)
    source = open_source(folder)
    gain, offset = (2.75e-05, -0.2) if level == "L2SP" else (2.0e-05 / 0.5, -0.1 / 0.5)
    expected = stored * gain + offset
    expected[1, 2, 2] = expected[:, 0, 0] = expected[:, 4, 4] = expected[:, 6, 6] = np.nan
    np.testing.assert_allclose(source.read(0, 0, 12, 10), expected, atol=1e-6)
    assert source.units == "reflectance"
    assert np.all(np.diff(source.axis.wavelength) > 0)
    next(folder.glob("*QA_PIXEL.TIF")).unlink()
    with pytest.raises(InputError, match="lacks the quality band QA_PIXEL"):
        open_source(folder)


def made_product(folder: Path, sensor: str) -> Path:
    """A product of each sensor that comes with a metadata file."""
    if sensor == "enmap":
        return made.enmap(folder, counts(10))
    if sensor == "desis":
        return made.desis(folder, counts(4))
    if sensor == "hyperion":
        return made.hyperion(folder, counts(242))
    if sensor == "landsat":
        return made.landsat(folder, counts(7).astype(np.uint16), np.full((12, 10), 21824))
    if sensor == "planetscope":
        return made.planetscope(folder, counts(8).astype(np.uint16), np.ones((8, 12, 10), np.uint8))
    return sentinel2(folder)[0]


@pytest.mark.parametrize(
    ("sensor", "head"),
    [
        ("enmap", "*-METADATA.XML"),
        ("desis", "*-METADATA.xml"),
        ("hyperion", "*_MTL_L1T.TXT"),
        ("landsat", "*_MTL.txt"),
        ("sentinel2", "MTD_*.xml"),
    ],
)
def test_a_product_without_its_metadata_is_no_mosaic_of_its_bands(
    tmp_path: Path, sensor: str, head: str
) -> None:
    folder = made_product(tmp_path / "in", sensor)
    open_source(folder)
    next(folder.glob(head)).unlink()
    for path in (folder, folder.parent, made.zipped(folder, tmp_path / "product.zip")):
        with pytest.raises(InputError, match="lacks the metadata"):
            open_source(path)
    notes: list[str] = []
    (tmp_path / "product.zip").rename(tmp_path / "in" / "product.zip")
    made.raster(tmp_path / "in" / "hsi.tif", counts(12))
    assert [image.path.name for image in find_images(tmp_path / "in", notes)] == ["hsi.tif"]
    assert sum("lacks the metadata" in note for note in notes) >= 2


def test_a_scene_without_its_metadata_is_its_image_without_its_mask(tmp_path: Path) -> None:
    folder = made_product(tmp_path, "planetscope")
    next(folder.glob("*_metadata.xml")).unlink()
    np.testing.assert_array_equal(open_source(folder).read(0, 0, 12, 10), counts(8))


@pytest.mark.parametrize(
    ("sensor", "mask", "stays"),
    [
        ("enmap", "*_CLOUD.TIF", "The mask QL_QUALITY_CLOUD is not there"),
        ("desis", "*-QL_QUALITY-2.tif", "The mask QL_QUALITY-2 is not there"),
        ("planetscope", "*_udm2.tif", "The mask UDM2 is not there"),
    ],
)
def test_a_mask_that_is_not_there_is_told(tmp_path: Path, sensor: str, mask: str, stays: str) -> None:
    folder = made_product(tmp_path, sensor)
    assert not any("is not there" in text for text in describe(open_source(folder))["warnings"])
    next(folder.glob(mask)).unlink()
    assert any(stays in text for text in describe(open_source(folder))["warnings"])
