"""Scenes as they are found and loaded, the row of each, and the tables: the parts of `csakd-geo test`."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import simulated
import torch
from test_official_layout import write_tile

from csakd_geo.errors import GridError, InputError, OutputError, SpectralError
from csakd_geo.evaluate import evaluate
from csakd_geo.io import open_source
from csakd_geo.job import fuse
from csakd_geo.models import load_model
from csakd_geo.sensors import get_sensor
from csakd_geo.trial import (
    Condition,
    Row,
    Wanted,
    as_csv,
    as_json,
    as_markdown,
    check_folder,
    draw_sweep,
    find_scenes,
    mean_rows,
    model_contenders,
    put_files,
    without_attention,
)

DEGRADE = Wanted(ratio=4, msi_sensor="sentinel2-10m")


def write_cube(path: Path, *, bands: int = 24, height: int = 66, width: int = 64, **more: Any) -> Any:
    truth, wavelength = made.make_truth(bands, height, width)
    made.write(path, truth, **{"wavelength": wavelength, "fwhm": 20, **more})
    return truth


def write_triple(folder: Path, prefix: str = "") -> made.Pair:
    pair = made.make_pair(folder / "made", bands=12, height=64, width=64)
    for path in (pair.hsi, pair.msi):
        path.rename(folder / f"{prefix}{path.name}")
    (folder / "made").rmdir()
    made.write(folder / f"{prefix}truth.tif", pair.truth, wavelength=pair.wavelength, fwhm=20)
    return pair


def values(array: Any) -> Any:
    source = open_source(array)
    return source.read(0, 0, source.height, source.width)


# Finding


def test_every_form_of_triple_is_found(tmp_path: Path) -> None:
    write_triple(tmp_path)
    (tmp_path / "two").mkdir()
    write_triple(tmp_path / "two")
    write_triple(tmp_path / "two", "a_b_")
    made.write(tmp_path / "fused.tif", np.zeros((1, 4, 4), np.float32))
    made.write(tmp_path / "lone_truth.tif", np.zeros((1, 4, 4), np.float32))
    (tmp_path / "hsi.tif.aux.xml").write_text("<PAMDataset/>")
    scenes, form, warnings = find_scenes(tmp_path, Wanted())
    assert [scene.name for scene in scenes] == [tmp_path.name, "two", "two/a_b"]
    assert (form.name, warnings) == ("triples of HSI, MSI and truth", [])
    inputs = scenes[2].load(Condition(), seed=0)
    assert inputs.hsi == tmp_path / "two" / "a_b_hsi.tif"
    assert inputs.truth.axis.size == 12


def test_the_authors_layout_comes_first_then_triples_then_cubes(tmp_path: Path) -> None:
    write_cube(tmp_path / "cube.tif")
    (tmp_path / "notes.dat").write_text("no image")
    scenes, form, warnings = find_scenes(tmp_path, DEGRADE)
    assert ([s.name for s in scenes], form.name) == (["cube"], "cubes degraded by Wald's protocol")
    assert warnings == ["'notes.dat' was left out, as it is no image that can be used."]
    write_triple(tmp_path)
    assert find_scenes(tmp_path, Wanted())[1].name == "triples of HSI, MSI and truth"
    write_tile(tmp_path, "deep/")
    scenes, form, _ = find_scenes(tmp_path, Wanted())
    assert ([s.name for s in scenes], form.name) == (["deep/"], "tiles of the authors' layout")


def test_what_holds_no_scene_is_refused_with_the_forms(tmp_path: Path) -> None:
    forms = ("NAMEGT.npz.npy", "hsi, msi and truth", "fine hyperspectral rasters")
    (tmp_path / "readme.txt").write_text("nothing here")
    for data in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError) as error:
            find_scenes(data, DEGRADE)
        assert all(form in str(error.value) for form in forms)
    with pytest.raises(InputError, match="cannot be opened as a raster"):
        find_scenes(tmp_path / "readme.txt", DEGRADE)


def test_incomplete_and_doubled_triples_are_refused(tmp_path: Path) -> None:
    pair = write_triple(tmp_path, "x_")
    truth = tmp_path / "x_truth.tif"
    kept = truth.read_bytes()
    truth.unlink()
    with pytest.raises(InputError, match=r"'x'.*0 truth files"):
        find_scenes(tmp_path, Wanted())
    truth.write_bytes(kept)
    (tmp_path / "x_truth.dat").write_bytes(kept)
    with pytest.raises(InputError, match="2 truth files"):
        find_scenes(tmp_path, Wanted())
    assert pair.ratio == 4


@pytest.mark.parametrize(
    ("wanted", "flag"),
    [
        (Wanted(ratio=4), "--ratio"),
        (Wanted(msi_sensor="ali"), "--msi-sensor"),
        (Wanted(snr_hsi=30.0), "--snr-hsi"),
        (Wanted(msi_bands=6), "--msi-bands"),
    ],
)
def test_options_without_meaning_are_refused(tmp_path: Path, wanted: Wanted, flag: str) -> None:
    write_triple(tmp_path)
    with pytest.raises(InputError, match=f"{flag} has no meaning for triples"):
        find_scenes(tmp_path, wanted)


def test_cubes_that_cannot_be_degraded_are_refused(tmp_path: Path) -> None:
    bare = tmp_path / "bare.tif"
    write_cube(bare, wavelength=None, fwhm=None)
    with pytest.raises(SpectralError, match="records no wavelengths"):
        find_scenes(bare, DEGRADE)
    write_cube(tmp_path / "small.tif", height=3)
    with pytest.raises(GridError, match="3 x 64 pixels, less than one HSI pixel"):
        find_scenes(tmp_path / "small.tif", DEGRADE)
    write_cube(tmp_path / "cube.tif")
    for wanted, sentence in (
        (Wanted(), "give --ratio and --msi-sensor"),
        (replace(DEGRADE, msi_sensor=None), "give --ratio and --msi-sensor"),
        (replace(DEGRADE, snr_msi=math.nan), "nan dB in the MSI"),
    ):
        with pytest.raises(InputError, match=sentence):
            find_scenes(tmp_path / "cube.tif", wanted)
    with pytest.raises(SpectralError, match="There is no sensor 'x'"):
        find_scenes(tmp_path / "cube.tif", replace(DEGRADE, msi_sensor="x"))


# Loading


def test_a_cube_is_degraded_by_a_gaussian_and_its_noise_is_that_asked_for(tmp_path: Path) -> None:
    truth = write_cube(tmp_path / "cube.tif")[:, :64]
    scene = find_scenes(tmp_path / "cube.tif", replace(DEGRADE, snr_hsi=200.0, snr_msi=200.0))[0][0]
    inputs = scene.load(Condition(), seed=0)
    assert inputs.truth.axis.wavelength[[0, -1]].tolist() == [450.0, 900.0]
    np.testing.assert_array_equal(values(inputs.msi).shape, (4, 64, 64))
    np.testing.assert_array_equal(inputs.truth.read(0, 0, 64, 64), truth)
    for shift in (0, 2):
        expected = simulated.coarsen(truth, 4, fwhm=4, dy=shift, dx=shift)
        inner = np.s_[:, 2:-2, 2:-2]
        loaded = values(scene.load(Condition(shift=shift), seed=0).hsi)
        assert made.relative(loaded[inner], expected[inner]) < 0.005
    clean = values(inputs.hsi)
    noise = values(scene.load(Condition(snr=20.0), seed=3).hsi) - clean
    snr = 10 * np.log10(np.square(clean).mean((1, 2)) / np.square(noise).mean((1, 2)))
    np.testing.assert_allclose(snr, 20, atol=1.5)
    assert abs(snr.mean() - 20) < 0.2
    assert scene.load(Condition(snr=20.0), seed=3).msi.identical(scene.load(Condition(snr=20.0), seed=3).msi)


def test_bands_of_the_sensor_outside_the_cube_and_bad_bands_are_left_out(tmp_path: Path) -> None:
    truth, wavelength = made.make_truth(24, 64, 64)
    truth[5] = 7.0
    truth[:, 3, 50] = np.nan
    made.write(tmp_path / "c.tif", truth, wavelength=wavelength, fwhm=20, nodata=np.nan)
    scenes, _, warnings = find_scenes(tmp_path, replace(DEGRADE, msi_sensor="sentinel2"))
    assert warnings == [
        "B11, B12 of sentinel2 lie outside the good bands of 'c.tif' (450 to 900 nm) and were left out."
    ]
    inputs = scenes[0].load(Condition(), seed=0)
    msi = open_source(inputs.msi)
    np.testing.assert_array_equal(msi.axis.wavelength, get_sensor("sentinel2").axis.wavelength[:8])
    assert inputs.truth.axis.size == open_source(inputs.hsi).axis.size == 23
    assert np.isnan(values(inputs.msi)).all(0).sum() == 1
    missing = np.isnan(values(inputs.hsi)).all(0)
    assert missing[0, 12]
    assert 1 <= missing.sum() <= 9


def test_noise_on_a_triple_spares_what_is_missing(tmp_path: Path) -> None:
    write_triple(tmp_path)
    stored = values(tmp_path / "hsi.tif")
    stored[:, :8] = np.nan
    stored[2] = np.nan
    made.write(
        tmp_path / "hsi.tif", stored, pixel=40, wavelength=np.linspace(450, 900, 12), fwhm=20, nodata=np.nan
    )
    scene = find_scenes(tmp_path, Wanted())[0][0]
    noisy = values(scene.load(Condition(snr=15.0), seed=0).hsi)
    np.testing.assert_array_equal(np.isnan(noisy), np.isnan(stored))
    lower, noise = np.delete(stored, 2, 0)[:, 8:], np.delete(noisy - stored, 2, 0)[:, 8:]
    snr = 10 * np.log10(np.square(lower).mean((1, 2)) / np.square(noise).mean((1, 2)))
    assert abs(snr.mean() - 15) < 0.3


def test_cubes_and_triples_are_shifted_the_same_way_and_the_product_finds_it(tmp_path: Path) -> None:
    write_triple(tmp_path)
    write_cube(tmp_path / "cube.tif", bands=12)
    triple = find_scenes(tmp_path, Wanted())[0][0]
    cube = find_scenes(tmp_path / "cube.tif", DEGRADE)[0][0]
    for scene in (cube, triple):
        inputs = scene.load(Condition(shift=2), seed=0)
        fused = fuse(inputs.hsi, inputs.msi, method="regression")
        np.testing.assert_allclose(fused.attrs["shift"], [20, -20], atol=3)
        found = evaluate(open_source(fused.compute()), inputs.truth, ratio=4).scores.psnr
        left = fuse(inputs.hsi, inputs.msi, method="regression", shift="none").compute()
        assert found > evaluate(open_source(left), inputs.truth, ratio=4).scores.psnr + 5


def test_a_tile_is_read_as_stored(tmp_path: Path) -> None:
    stored = write_tile(tmp_path, "t/")
    scene = find_scenes(tmp_path, Wanted(msi_bands=6))[0][0]
    inputs = scene.load(Condition(shift=3), seed=0)
    np.testing.assert_allclose(values(inputs.hsi), stored["lrhsi3"], rtol=1e-6)
    np.testing.assert_allclose(values(inputs.msi), stored["hrmsi6"], rtol=1e-6)
    np.testing.assert_allclose(inputs.truth.read(0, 0, 24, 16), stored["truth"], rtol=1e-6)
    noise = values(scene.load(Condition(snr=10.0), seed=0).hsi) - stored["lrhsi"]
    assert abs(10 * np.log10(np.square(stored["lrhsi"]).mean() / np.square(noise).mean()) - 10) < 1.5


# Contenders


def test_models_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    for name in ("one/m", "two/m", "gsa"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        made.subspace_model(tmp_path / f"{name}.safetensors", fuser=0)
    one, two, gsa = (str(tmp_path / f"{name}.safetensors") for name in ("one/m", "two/m", "gsa"))
    assert [c.name for c in model_contenders([one, one])] == ["m"]
    assert [c.name for c in model_contenders([one, two])] == ["one/m", "two/m"]
    assert [c.name for c in model_contenders([gsa])] == [f"{tmp_path.name}/gsa"]
    contender = model_contenders([one])[0]
    assert (contender.fuser, contender.attention, contender.kind) == (0, None, "model")
    network = load_model(one).network
    assert contender.parameters == sum(p.numel() for p in network.parameters())


def test_attention_is_switched_off_as_by_a_mixing_matrix_of_zeros(tmp_path: Path) -> None:
    path = made.subspace_model(tmp_path / "m.safetensors", fuser=3)
    plain = made.subspace_model(tmp_path / "plain.safetensors", fuser=4)
    with without_attention(model_contenders([str(path), str(plain)])) as both:
        assert [(c.name, c.attention) for c in both] == [
            ("m", "cross"),
            ("m, attention off", "off"),
            ("plain", None),
        ]
        copy = Path(both[1].options["model"])
        off, on = load_model(copy).network, load_model(path).network
        torch.manual_seed(0)
        hsi, msi, base = torch.randn(1, 10, 6, 6), torch.randn(1, 10, 24, 24), torch.randn(1, 10, 24, 24)
        with torch.no_grad():
            expected, _ = on(hsi, msi, base=base, statistics=torch.zeros(4, 16, 16))
            attended, _ = on(hsi, msi, base=base)
            found, _ = off(hsi, msi, base=base)
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(found, attended, rtol=1e-3)
    assert not copy.exists()


# Tables


def row(scene: str, method: str, psnr: float | None, **more: Any) -> Row:
    blank: dict[str, Any] = {"kind": "classical", "parameters": None, "fuser": None, "attention": None}
    known = dict.fromkeys(
        ("sam", "ergas", "rmse", "uiqi", "ssim", "cc", "seconds", "seconds_per_megapixel"), 2.0
    )
    facts = {**blank, "snr": None, "shift": None, **(known if psnr is not None else {}), **more}
    return Row(scene=scene, method=method, psnr=psnr, **facts)


ROWS = [
    row("a", "net", 30.0, kind="model", parameters=1234567, fuser=3, attention="cross", uiqi=math.nan),
    row("a", "gsa", 20.0),
    row("b", "net", None, kind="model", parameters=1234567, fuser=3, attention="cross", failed="no, it | is"),
    row("b", "gsa", math.inf),
]


def test_means_leave_failures_out_and_count_them() -> None:
    net, gsa = mean_rows(ROWS)
    assert (net.scene, net.method, net.psnr, net.failed) == ("mean", "net", 30.0, "1 of 2 scenes failed")
    assert (gsa.psnr, gsa.failed) == (math.inf, None)
    swept = [row(s, "gsa", p, snr=n) for s, n, p in (("a", 30.0, 1.0), ("a", 40.0, 2.0), ("b", 30.0, 5.0))]
    assert [(r.snr, r.psnr) for r in mean_rows(swept)] == [(30.0, 3.0), (40.0, 2.0)]
    lost = mean_rows([row("a", "x", None, failed="why")])[0]
    assert (lost.psnr, lost.failed) == (None, "1 of 1 scenes failed")


def test_json_and_csv_hold_all_rows_and_means_without_nan() -> None:
    found = json.loads(as_json(ROWS, "data"), parse_constant=lambda text: pytest.fail(text))
    assert found["data"] == "data"
    assert [(r["scene"], r["method"]) for r in found["rows"]] == [
        *(("a", "net"), ("a", "gsa"), ("b", "net"), ("b", "gsa")),
        *(("mean", "net"), ("mean", "gsa")),
    ]
    assert found["rows"][0] == {
        **{"scene": "a", "method": "net", "kind": "model", "parameters": 1234567, "fuser": 3},
        **{"attention": "cross", "snr": None, "shift": None, "psnr": 30.0, "sam": 2.0, "ergas": 2.0},
        **{"rmse": 2.0, "uiqi": None, "ssim": 2.0, "cc": 2.0, "seconds": 2.0},
        **{"seconds_per_megapixel": 2.0, "failed": None},
    }
    assert found["rows"][3]["psnr"] is None
    table = list(csv.DictReader(io.StringIO(as_csv(ROWS))))
    assert len(table) == 6
    assert (table[2]["failed"], table[2]["psnr"], table[3]["psnr"]) == ("no, it | is", "", "")
    assert list(table[0]) == list(found["rows"][0])


def test_markdown_has_the_means_first_and_the_reasons() -> None:
    text = as_markdown(ROWS, "What was done.")
    head, mean, a, b = text.split("\n## ")
    assert "What was done." in head
    assert mean.startswith("Mean of 2 scenes")
    assert "| net    |  1,234,567 |   30.00 |" in mean
    assert "net: 1 of 2 scenes failed" in mean
    assert a.startswith("a\n")
    assert b.startswith("b\n")
    assert "net: no, it | is" in b
    lines = [line for line in mean.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_results_are_whole_and_replace_those_of_an_earlier_trial(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "results"
    check_folder(folder, overwrite=False)
    put_files(folder, {"scores.json": b"1", "snr.png": b"2"})
    with pytest.raises(OutputError, match=r"already holds scores\.json, snr\.png"):
        check_folder(folder, overwrite=False)
    check_folder(folder, overwrite=True)
    assert put_files(folder, {"scores.json": b"3"}) == [folder / "scores.json"]
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"scores.json": b"3"}
    with pytest.raises(OutputError, match="is a file"):
        check_folder(folder / "scores.json", overwrite=True)


@pytest.mark.parametrize("far", [1.0, 40.0])
def test_a_sweep_is_drawn(far: float) -> None:
    from matplotlib.image import imread

    rows = [row("a", "gsa", 20.0 + k / far, snr=30.0 + k) for k in range(3)]
    for name, psnr in (("net", 60.0), ("net, attention off", 59.0), ("other", math.nan)):
        facts = {"kind": "model", "fuser": 3, "attention": "cross"}
        rows += [row("a", name, psnr + k, snr=30.0 + k, **facts) for k in range(3)]
    rows.append(row("a", "cnmf", None, snr=30.0, failed="why"))
    image = imread(io.BytesIO(draw_sweep(rows, "snr", caption="What was done.")), format="png")
    assert min(image.shape[:2]) > 600
    for colour in ((0xD5, 0x5E, 0x00), (0x8C, 0x8C, 0x8C)):  # the model's, and that of a classical method
        near = np.abs(image[..., :3] - np.array(colour) / 255).max(-1) < 0.02
        assert near.sum() > 100
