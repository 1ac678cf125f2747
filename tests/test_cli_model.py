"""``csakd-geo model`` as a user types it: results on stdout, one sentence on stderr, exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.image
import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result
from made import coarsen, make_truth, official_model, responses, subspace_model, write

from csakd_geo.cli import main
from csakd_geo.cli.model_plot import Score, draw_scores
from csakd_geo.models import bundled_models, load_model, read_card
from csakd_geo.models.registry import FOLDERS_VARIABLE

if TYPE_CHECKING:
    from csakd_geo.simulate import SimulatedPaths

BANDS = 12


def call(*args: object, folder: Path | None = None) -> Result:
    """Run ``csakd-geo model`` with user models in `folder` alone."""
    env = {FOLDERS_VARIABLE: str(folder or "/nonexistent"), "COLUMNS": "200"}
    return CliRunner().invoke(main, ["model", *map(str, args)], env=env)


def done(*args: object, folder: Path | None = None) -> str:
    result = call(*args, folder=folder)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*args: object, folder: Path | None = None) -> str:
    """The one sentence of a command that fails."""
    result = call(*args, folder=folder)
    assert result.exit_code == 1, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An official-layout student by the rule of the golden vectors, keys under ``decoder.``."""
    path = tmp_path_factory.mktemp("official") / "paper.pth"
    return official_model(path, bands=BANDS, msi_bands=4, features=8, growth=4, depths=(1, 1, 1, 1))


@pytest.fixture(scope="module")
def wavelengths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen bands of which twelve are good."""
    path = tmp_path_factory.mktemp("bands") / "bands.csv"
    rows = [f"{450 + 40 * k},10,{int(k not in (3, 7))}" for k in range(BANDS + 2)]
    path.write_text("\n".join(["wavelength,fwhm,good", *rows]))
    return path


@pytest.fixture(scope="module")
def imported(checkpoint: Path, wavelengths: Path) -> Path:
    target = checkpoint.with_name("paper.safetensors")
    facts = ("--name", "paper student", "--ratio", 4, "--units", "reflectance")
    bands = ("--hsi-wavelengths", wavelengths, "--msi-sensor", "aviris-paper-4")
    assert done("import", checkpoint, "-o", target, *facts, *bands) == f"{target}\n"
    return target


def test_an_imported_checkpoint_states_its_facts_and_keeps_its_weights(
    checkpoint: Path, imported: Path
) -> None:
    card = read_card(imported)
    assert (card.name, card.ratio, card.units) == ("paper student", 4, "reflectance")
    assert card.hsi_wavelengths == tuple(450.0 + 40 * k for k in range(14) if k not in (3, 7))
    assert card.hsi_fwhm == (10.0,) * BANDS
    assert card.msi_wavelengths == (485.0, 560.0, 660.0, 830.0)
    assert card.attention == "released"
    assert card.provenance == {"imported_from": "paper.pth"}
    assert load_model(imported).card.sha256 == load_model(checkpoint).card.sha256


def test_an_import_says_what_the_card_leaves_open(checkpoint: Path, tmp_path: Path) -> None:
    result = call("import", checkpoint, "-o", tmp_path / "bare.safetensors")
    assert result.exit_code == 0
    assert [word in result.stderr for word in ("ratio", "HSI wavelengths", "MSI's bands")] == [True] * 3
    assert read_card(tmp_path / "bare.safetensors").name == "paper"


def test_imports_that_cannot_be_right_are_refused(
    checkpoint: Path, imported: Path, wavelengths: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.safetensors"
    (tmp_path / "few.csv").write_text("\n".join(str(500 + 10 * k) for k in range(5)))
    few = refused("import", checkpoint, "-o", out, "--hsi-wavelengths", tmp_path / "few.csv")
    assert "5 HSI bands" in few
    assert "takes 12" in few
    assert "10 MSI bands" in refused("import", checkpoint, "-o", out, "--msi-sensor", "sentinel2")
    assert "no sensor" in refused("import", checkpoint, "-o", out, "--msi-sensor", "hubble")
    assert "cannot be read" in refused("import", checkpoint, "-o", out, "--hsi-wavelengths", tmp_path / "no")
    assert "cannot be read" in refused("import", tmp_path / "no.pth", "-o", out)
    assert "card already" in refused("import", imported, "-o", out)
    assert ".safetensors" in refused("import", checkpoint, "-o", tmp_path / "x.pth")
    (tmp_path / "junk.pth").write_bytes(b"\x80junk")
    assert "damaged" in refused("import", tmp_path / "junk.pth", "-o", out)
    assert not out.exists()
    out.write_text("kept")
    assert "--overwrite" in refused("import", checkpoint, "-o", out)
    assert out.read_text() == "kept"
    done("import", checkpoint, "-o", out, "--overwrite")
    assert read_card(out).network.bands == BANDS


def test_info_of_file_name_and_checkpoint(checkpoint: Path, imported: Path) -> None:
    facts = json.loads(done("info", imported, "--size", "32x16", "--json"))
    assert facts["card"] == read_card(imported).model_dump(mode="json")
    assert (facts["lr_size"], facts["ratio"]) == ([32, 16], 4)
    assert facts["complexity"]["parameters"] > facts["complexity"]["used_parameters"] > 0
    half = json.loads(done("info", "paper", "--size", "16x16", "--json", folder=imported.parent))
    assert half["complexity"]["macs"] * 2 == facts["complexity"]["macs"]
    assert 0 < facts["reach"]["measured"] <= facts["reach"]["structural"] == 17
    text = done("info", imported)
    digest = facts["card"]["sha256"]
    for word in (
        "paper student",
        "released",
        "450 to 970 nm",
        "485 to 830 nm",
        "reflectance",
        digest,
        "GMAC",
    ):
        assert word in text
    assert "not stated" in done("info", checkpoint)


def test_info_of_the_bundled_model() -> None:
    name = bundled_models()[0].stem
    card = read_card(bundled_models()[0])
    text = done("info", name, "--ratio", 2, "--size", "16x16")
    assert card.training
    for word in (card.base, "2 to 10", *(data.name for data in card.training), *card.scores):
        assert str(word) in text
    assert "MiB for 16 x 16 HSI pixels, ratio 2" in text


def test_export_and_verify(imported: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    target = tmp_path / "paper.onnx"
    assert done("export", imported, "--onnx", target).splitlines() == [str(target)]
    assert [path.name for path in tmp_path.iterdir()] == ["paper.onnx"]
    text = done("verify", imported, target)
    assert text.count("yes") == 3
    assert done("verify", imported, target, "--size", "9x20", "--seed", 7).count("9 x 20") == 1
    assert "exists" in refused("export", imported, "--onnx", target)
    other = subspace_model(tmp_path / "other.safetensors", depths=(0, 1, 1, 1), features=8, growth=4)
    assert "another model" in refused("verify", other, target)
    assert "cannot be read" in refused("verify", imported, tmp_path / "none.onnx")
    (tmp_path / "junk.onnx").write_text("junk")
    assert "no ONNX file" in refused("verify", imported, tmp_path / "junk.onnx")


def test_a_checkpoint_fuses_as_it_is_and_imported(checkpoint: Path, imported: Path, tmp_path: Path) -> None:
    """The product of the bundle is that of the checkpoint, and what torch says of the same window."""
    cube = make_truth(14, 48, 48)[0][[k for k in range(14) if k not in (3, 7)]]
    centres = [450.0 + 40 * k for k in range(14) if k not in (3, 7)]
    hsi = write(tmp_path / "hsi.tif", coarsen(cube, 4), pixel=40, wavelength=centres, fwhm=10)
    srf = responses(np.array(centres), (485, 560, 660, 830))
    msi = write(
        tmp_path / "msi.tif", np.tensordot(srf, cube, axes=1), wavelength=(485, 560, 660, 830), fwhm=70
    )
    found = []
    for name, model in (("a.tif", checkpoint), ("b.tif", imported)):
        args = [
            "fuse",
            hsi,
            msi,
            "-o",
            tmp_path / name,
            "--model",
            model,
            "--dtype",
            "float32",
            "--shift",
            "none",
        ]
        result = CliRunner().invoke(main, list(map(str, args)))
        assert result.exit_code == 0, result.output
        assert ("was not checked" in result.stderr) is (model == checkpoint)
        with rasterio.open(tmp_path / name) as src:
            found.append(src.read())
    np.testing.assert_array_equal(*found)
    coarse = coarsen(cube, 4).astype(np.float32)
    low, high = np.percentile(coarse, [0.1, 99.9])
    fine = np.tensordot(srf, cube, axes=1).astype(np.float32)
    with torch.inference_mode():
        inputs = [torch.from_numpy(2 * (x - low) / (high - low) - 1)[None].float() for x in (coarse, fine)]
        answer = load_model(checkpoint).network(*inputs)[0][0].numpy()
    expected = (answer + 1) / 2 * (high - low) + low
    # gains and offsets between the sensors are estimated, so the MSI is not fed as it was made
    assert np.corrcoef(found[0].ravel(), expected.ravel())[0, 1] > 0.98


def test_a_result_that_differs_exits_with_1(imported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from csakd_geo.models.onnx_check import Agreement

    monkeypatch.setattr("csakd_geo.models.onnx.load_onnx", lambda _: None)
    monkeypatch.setattr(
        "csakd_geo.models.onnx_check.verify_onnx", lambda *_, **__: [Agreement(9, 9, 4, 1e-7, 2e-5)]
    )
    result = call("verify", imported, "paper.onnx")
    assert result.exit_code == 1
    assert "2.0e-05" in result.stdout
    assert "relative error 2.0e-05, allowed 1e-05" in result.stderr


def test_exports_that_cannot_be_are_refused(imported: Path, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    target = tmp_path / "x.onnx"
    assert "give --ratio" in refused("export", checkpoint, "--onnx", target)
    assert "2 to 10; give --ratio" in refused("export", bundled_models()[0].stem, "--onnx", target)
    assert "ratio of 4, not 3" in refused("export", imported, "--onnx", target, "--ratio", 3)
    assert "no model" in refused("export", "nothing", "--onnx", target)
    assert list(tmp_path.iterdir()) == []


def test_list_shows_all_and_survives_a_damaged_file(imported: Path, checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(imported, tmp_path / "mine.safetensors")
    shutil.copy(checkpoint, tmp_path / "raw.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"no model")
    result = call("list", "--json", folder=tmp_path)
    assert result.exit_code == 0
    assert result.stderr.count("Warning") == 1
    assert "broken.safetensors" in result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert set(rows) == {"paper student", "raw", *(path.stem for path in bundled_models())}
    assert rows["raw"]["note"] == "official checkpoint, not imported"
    mine = rows["paper student"]
    assert (mine["bands"], mine["msi_bands"], mine["ratio"], mine["where"]) == (BANDS, 4, 4, "user")
    assert (mine["hsi_range"], mine["msi_range"]) == ([450, 970], [485, 830])
    assert (mine["base"], mine["attention"]) == (None, "released")
    text = done("list", folder=tmp_path)
    for word in ("paper student", "12 + 4", "450 to 970 nm", "official checkpoint, not imported", "bundled"):
        assert word in text


def test_methods_survive_a_damaged_model(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"junk")
    result = CliRunner().invoke(main, ["methods"], env={FOLDERS_VARIABLE: str(tmp_path)})
    assert result.exit_code == 0
    assert "csakd-student-aviris" in result.stdout
    assert "broken.safetensors" in result.stderr


def test_list_for_a_pair_shows_what_fits(sample: SimulatedPaths, tmp_path: Path) -> None:
    subspace_model(tmp_path / "fits.safetensors", depths=(0, 1, 1, 1))
    official_model(tmp_path / "raw.pth", bands=200, msi_bands=4)
    done("import", tmp_path / "raw.pth", "-o", tmp_path / "other.safetensors", "--ratio", 4)
    rows = json.loads(
        done("list", "--hsi", sample.hsi, "--msi", sample.msi, "--json", folder=tmp_path),
    )
    names = [row["name"] for row in rows]
    assert names[0] == "fits"
    assert set(names) <= {"fits", *(path.stem for path in bundled_models())}
    assert call("list", "--hsi", sample.hsi).exit_code == 2
    assert "does not exist" in refused("list", "--hsi", tmp_path / "no.tif", "--msi", sample.msi)


def test_complexity_of_the_published_networks() -> None:
    facts = json.loads(done("complexity", "--json"))["networks"]
    assert (facts["teacher"]["parameters"], facts["student"]["used_parameters"]) == (26_807_686, 7_449_946)
    assert facts["teacher"]["macs"] / 1e9 == pytest.approx(941.77, rel=2e-4)
    assert facts["student"]["macs"] / 1e9 == pytest.approx(144.78, rel=2e-4)
    lines = done("complexity", "--markdown", "--msi-bands", 6).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert any("26,812,330" in line for line in lines)
    assert any("8,753,362" in line for line in lines)
    assert "26,807,686" in done("complexity")


def scores(path: Path, rows: Sequence[tuple[str, str, int | None, float | None, float | None]]) -> Path:
    keys = ("method", "kind", "parameters", "psnr", "seconds_per_megapixel")
    listed: list[dict[str, Any]] = [
        dict(zip(keys, row, strict=True)) | {"scene": scene, "sam": 1.0}
        for row in rows
        for scene in ("one", "mean")
    ]
    path.write_text(json.dumps({"rows": listed}))
    return path


ROWS = [
    ("bicubic", "classical", None, 27.0, 0.4),
    ("gsa", "classical", None, 31.0, 1.0),
    ("coupled-map", "classical", None, 35.9, 12.0),
    ("small", "model", 600_000, 36.0, 15.0),
    ("large", "model", 26_800_000, 37.0, 400.0),
    ("lost", "model", 5, None, None),
]


def test_scores_become_a_picture(tmp_path: Path) -> None:
    wanted = (
        "complexity",
        "--json",
        "--scores",
        scores(tmp_path / "s.json", ROWS),
        "--plot",
        tmp_path / "p.png",
    )
    result = call(*wanted)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)
    assert "not drawn: lost" in result.stderr
    picture = matplotlib.image.imread(tmp_path / "p.png")[..., :3]
    assert picture.shape[0] > 600
    reddish = (picture[..., 0] > picture[..., 2] + 0.1).sum()
    blueish = (picture[..., 2] > picture[..., 0] + 0.1).sum()
    assert blueish > 10 * reddish > 0  # the large model is the second colour, and its bubble the larger one
    assert "exists" in refused(*wanted)
    assert call(*wanted, "--overwrite").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"s.json", "p.png"}


def test_labels_cover_neither_marks_nor_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    kept: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        kept.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    draw = np.random.default_rng(3)
    crowd = [
        Score(f"classical-{k}", False, None, 30 + draw.normal(), 10 ** (0.5 + draw.normal() / 5))
        for k in range(7)
    ]
    crowd += [
        Score(f"model-{k}", True, 10**6 * (3 * k + 1), 31 + draw.normal(), 10.0 + 9 * k) for k in range(5)
    ]
    draw_scores(crowd, tmp_path / "crowd.png")
    ax = kept[0].axes[0]
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
    assert len(boxes) == len(crowd)
    marks = ax.transData.transform([(score.seconds, score.psnr) for score in crowd])
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])
        assert not any(box.contains(*mark) for mark in marks)
        inside = ax.get_window_extent()
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rows": [{"scene": "mean"}]}', '{"rows": []}', '{"rows": 3}']
)
def test_scores_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    sentence = refused("complexity", "--scores", tmp_path / "s.json", "--plot", tmp_path / "p.png")
    assert "s.json" in sentence
    assert not (tmp_path / "p.png").exists()


def test_wrong_usage_exits_with_2(tmp_path: Path) -> None:
    assert call("complexity", "--plot", tmp_path / "p.png").exit_code == 2
    assert call("complexity", "--json", "--markdown").exit_code == 2
    assert call("info", "x", "--size", "0x4").exit_code == 2
    assert "cannot be read" in refused(
        "complexity", "--scores", tmp_path / "no", "--plot", tmp_path / "p.png"
    )
    assert "no model" in refused("info", "nothing")
    for name in ("list", "info", "import", "export", "verify", "complexity"):
        result = call(name, "--help")
        assert result.exit_code == 0
        assert result.stdout.startswith("Usage: ")
