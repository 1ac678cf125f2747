"""`csakd-geo test` as a user types it: results, figures, messages, exit codes, and what is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import made
import numpy as np
import pytest
from click.testing import CliRunner, Result

from csakd_geo.cli import main
from csakd_geo.evaluate import evaluate

if TYPE_CHECKING:
    from csakd_geo.simulate import SimulatedPaths

BUNDLED = "csakd-student-aviris"
SCORES = ("psnr", "sam", "ergas", "rmse", "uiqi", "ssim", "cc")


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, args)))


def scored(*args: str | Path) -> tuple[dict[tuple[Any, ...], dict[str, Any]], Result]:
    """Rows by scene and method (and SNR or shift where swept), from the run's scores.json."""
    result = call("test", *args)
    assert result.exit_code == 0, result.output
    folder = Path(args[args.index("-o") + 1])
    assert [p.name for p in folder.iterdir() if p.name.startswith(".") or p.suffix == ".part"] == []
    rows = json.loads((folder / "scores.json").read_text("utf-8"))["rows"]
    swept = [[r[k] for k in ("snr", "shift") if r[k] is not None] for r in rows]
    return {(r["scene"], r["method"], *s): r for r, s in zip(rows, swept, strict=True)}, result


def refused(result: Result, *words: str, code: int = 1) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    assert "should not have" not in lines[0], lines[0]
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small pair and its truth."""
    folder = tmp_path_factory.mktemp("triple")
    pair = made.make_pair(folder, bands=14, height=64, width=64)
    made.write(folder / "truth.tif", pair.truth, wavelength=pair.wavelength, fwhm=20)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.subspace_model(tmp_path_factory.mktemp("model") / "small.safetensors", gain=1)


def write_official(root: Path, name: str, *, bands: int, seed: int = 0) -> None:
    """A tile of 64 x 64 pixels; lrhsiN lies N pixels off."""
    truth, wavelength = made.make_truth(bands, 64, 64, seed=seed)
    truth = truth * 3000

    def stored(cube: Any) -> Any:
        return np.moveaxis((cube - truth.min()) / (truth.max() - truth.min()), 0, 2)

    (root / f"{name}GT.npz.npy").parent.mkdir(parents=True, exist_ok=True)
    np.save(root / f"{name}GT.npz.npy", np.moveaxis(truth, 0, 2))
    np.savez(
        root / f"{name}hrmsi.npz", hrmsi4=stored(np.tensordot(made.responses(wavelength), truth, axes=1))
    )
    moved = {f"lrhsi{k or ''}": made.coarsen(np.roll(truth, (k, k), (1, 2)), 4) for k in range(4)}
    np.savez(root / f"{name}lrhsi.npz", **{key: stored(cube) for key, cube in moved.items()})


def test_the_sample_scores_as_its_fused_files_do(sample: SimulatedPaths, tmp_path: Path) -> None:
    data, out = sample.hsi.parent, tmp_path / "out"
    rows, result = scored(BUNDLED, data, "-o", out, "--methods", "bicubic,regression")
    assert sorted(p.name for p in out.iterdir()) == ["scores.csv", "scores.json", "scores.md"]
    assert set(rows) == {
        (scene, method) for scene in (data.name, "mean") for method in (BUNDLED, "bicubic", "regression")
    }
    for name, option in ((BUNDLED, "--model"), ("regression", "--method")):
        fused = tmp_path / f"{name}.tif"
        done = call("fuse", sample.hsi, sample.msi, "-o", fused, option, name, "--adapt-minutes", "0")
        assert done.exit_code == 0, done.output
        expected = evaluate(fused, sample.truth, ratio=4).scores
        row = rows[data.name, name]
        for score in SCORES:  # the file is rounded to int16
            assert row[score] == pytest.approx(getattr(expected, score), rel=2e-3), score
        assert row["seconds_per_megapixel"] == pytest.approx(row["seconds"] / (144 * 144 / 1e6))
        assert {**rows["mean", name], "scene": data.name} == row
    own = rows[data.name, BUNDLED]
    assert (own["kind"], own["parameters"], own["fuser"], own["attention"]) == ("model", 596054, 3, "cross")
    assert rows[data.name, "bicubic"]["psnr"] < own["psnr"] - 2
    assert f"| {BUNDLED} |    596,054 |" in result.stdout
    assert result.stdout.splitlines()[-3:] == [str(out / f"scores.{kind}") for kind in ("json", "csv", "md")]
    assert "aligned by the product" in (out / "scores.md").read_text("utf-8")


def test_tiles_of_the_authors_layout_and_a_model_that_fits_only_one(tmp_path: Path) -> None:
    data, out = tmp_path / "tiles", tmp_path / "out"
    write_official(data, "a/", bands=12)
    write_official(data, "b_", bands=10, seed=1)
    network = made.official_model(tmp_path / "net.pth", bands=12, msi_bands=4)
    rows, result = scored(
        *(network, data, "-o", out, "--methods", "bicubic,coupled-map", "--shift", "0,2", "--no-align")
    )
    good, bad, mean = (rows[scene, "net", 0] for scene in ("a/", "b_", "mean"))
    assert (good["failed"], good["attention"], good["fuser"]) == (None, "released", 3)
    assert "takes 12 HSI bands, but this pair has 10" in bad["failed"]
    assert bad["psnr"] is None
    assert (mean["psnr"], mean["failed"]) == (good["psnr"], "1 of 2 scenes failed")
    both = [rows[scene, "coupled-map", 0]["psnr"] for scene in ("a/", "b_")]
    assert rows["mean", "coupled-map", 0]["psnr"] == pytest.approx(np.mean(both))
    assert rows["mean", "coupled-map", 0]["psnr"] > rows["mean", "bicubic", 0]["psnr"] + 10
    assert rows["mean", "coupled-map", 2]["psnr"] < rows["mean", "coupled-map", 0]["psnr"] - 10
    assert (out / "shift.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "snr.png").exists()
    assert "net: 1 of 2 scenes failed" in result.stdout
    names = tmp_path / "names.txt"
    names.write_text("b_\n")
    refused(
        call("test", network, data, "-o", tmp_path / "no", "--list", names), "net", "only scene", "12 HSI"
    )
    refused(call("test", network, data, "-o", tmp_path / "no", "--msi-bands", "6"), "no key hrmsi6")
    assert [p.name for p in (tmp_path / "no").iterdir()] == []


def test_cubes_are_aligned_by_the_product(model: Path, tmp_path: Path) -> None:
    truth, wavelength = made.make_truth(14, 66, 64)
    cube = made.write(tmp_path / "cube.tif", truth, wavelength=wavelength, fwhm=20)
    ask = (model, cube, "--ratio", "4", "--msi-sensor", "sentinel2-10m", "--methods", "regression")
    rows, _ = scored(*ask, "-o", tmp_path / "out", "--shift", "0,2")
    plain, moved = (rows["cube", "regression", k]["psnr"] for k in (0, 2))
    assert moved == pytest.approx(plain, abs=1.5)
    left, _ = scored(*ask, "-o", tmp_path / "left", "--shift", "2..2", "--no-align")
    assert left["cube", "regression", 2]["psnr"] < plain - 5
    text = (tmp_path / "left" / "scores.md").read_text("utf-8")
    assert "Ratio 4, MSI sentinel2-10m, noise 35 and 40 dB." in text
    assert "HSI and MSI not aligned." in text


def test_a_noise_sweep_is_monotone_and_shows_the_model_without_attention(
    triple: Path, model: Path, tmp_path: Path
) -> None:
    plain = made.subspace_model(tmp_path / "plain.safetensors", fuser=0, gain=1)
    out = tmp_path / "out"
    rows, result = scored(
        *(model, triple, "-o", out, "--against", plain, "--methods", "bicubic", "--snr", "40,15,25", "--json")
    )
    names = {"small", "small, attention off", "plain", "bicubic"}
    assert set(rows) == {
        (scene, name, snr) for scene in (triple.name, "mean") for name in names for snr in (15.0, 25.0, 40.0)
    }
    psnr, sam = ([rows["mean", "bicubic", snr][s] for snr in (15.0, 25.0, 40.0)] for s in ("psnr", "sam"))
    assert psnr == sorted(psnr)
    assert sam == sorted(sam, reverse=True)
    assert psnr[2] > psnr[0] + 0.5
    assert rows["mean", "small, attention off", 15.0]["attention"] == "off"
    assert json.loads(result.stdout) == json.loads((out / "scores.json").read_text("utf-8"))
    assert (out / "snr.png").read_bytes().startswith(b"\x89PNG")
    assert "added to the HSI as it is" in (out / "scores.md").read_text("utf-8")


def test_what_cannot_be_tested_is_said_in_one_sentence(triple: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def ask(*args: str | Path, who: str | Path = model, data: Path = triple) -> Result:
        return call("test", who, data, "-o", out, *args)

    refused(ask(who="no-such"), "There is no model 'no-such'", BUNDLED)
    refused(ask("--against", "no-such"), "There is no model 'no-such'")
    refused(ask(data=tmp_path / "none"), "does not exist", "NAMEGT.npz.npy")
    refused(ask("--methods", "bicubic,nearest"), "no method 'nearest'")
    refused(ask("--methods", "csakd"), "needs a model")
    refused(ask("--methods", "bicubic,,gsa"), "--methods is 'bicubic,,gsa'")
    refused(ask("--snr", "30,loud"), "--snr is '30,loud'")
    refused(ask("--snr", "inf"), "--snr is 'inf'")
    refused(ask("--shift", "0,1.5"), "--shift is '0,1.5'")
    refused(ask("--shift=-1"), "--shift is '-1'")
    refused(ask("--shift", "3..1"), "--shift is '3..1'")
    refused(ask("--ratio", "4"), "--ratio has no meaning for triples")
    cube = made.write(
        tmp_path / "c.tif", made.make_truth(14, 8, 8)[0], wavelength=np.linspace(450, 900, 14), fwhm=20
    )
    degrade = ("--ratio", "4", "--msi-sensor", "sentinel2-10m", "--methods", "bicubic")
    refused(ask(*degrade, data=cube), "c: Only 4 HSI pixels are valid")
    refused(ask("--device", "abacus"), "Option 'device' cannot be 'abacus'")
    assert not out.exists() or list(out.iterdir()) == []


def test_results_are_not_replaced_unasked_and_ctrl_c_leaves_them(
    triple: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import csakd_geo.trial.run as run

    out = tmp_path / "out"
    out.mkdir()
    (out / "scores.csv").write_text("old")
    refused(call("test", model, triple, "-o", out), "already holds scores.csv", "--overwrite")
    calls = []

    def stopped(*args: Any, **options: Any) -> Any:
        calls.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "fuse", stopped)
    refused(call("test", model, triple, "-o", out, "--overwrite"), "Stopped on request")
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [("scores.csv", "old")]
    assert [(c["model"], c["adapt_minutes"]) for c in calls] == [(str(model), 0)]
