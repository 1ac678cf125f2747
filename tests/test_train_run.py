"""Whole training runs on small made-up archives: what they leave, and how they go on after a stop."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from made import coarsen, make_truth, responses, write
from safetensors.torch import load_file

from csakd_geo.errors import CsakdGeoError, InputError, ModelError
from csakd_geo.methods.network_form import domain_subspace
from csakd_geo.models import DualTwoStream, load_model, read_card
from csakd_geo.train.archive import RasterArchive, find_rasters
from csakd_geo.train.checkpoint import load_checkpoint, newest_checkpoint
from csakd_geo.train.config import read_train_config
from csakd_geo.train.pool import Pool
from csakd_geo.train.setup import make_card, open_archives
from csakd_geo.train.trainer import train

fabric = pytest.importorskip("lightning_fabric", reason="the package lightning-fabric is not installed")
pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")

BASE: dict[str, Any] = {
    "name": "tiny",
    "output": "run",
    "data": {
        "train": ["a.tif", "b.tif"],
        "validation": ["v.tif"],
        "window": 64,
        "examples": 3,
        "validation_examples": 1,
        "terms": "made up",
    },
    "student": {"features": 8, "growth": 4, "depths": [0, 1, 1, 1]},
    "teacher": {"features": 12, "growth": 6, "depths": [1, 1, 1, 1]},
    "steps": 4,
    "check_every": 2,
    "crop": 6,
    "batch": 1,
    "accumulate": 2,
    "threads": 1,
    "tensorboard": False,
    "accelerator": "cpu",
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of one area's kind."""
    folder = tmp_path_factory.mktemp("archive")
    for seed, name in enumerate("abv"):
        cube, wavelength = make_truth(24, 72, 64, seed=seed)
        write(folder / f"{name}.tif", cube, wavelength=wavelength, fwhm=20)
    return folder


def configure(archive: Path, output: Path, **changes: Any) -> Path:
    values = {**BASE, "output": str(output), **changes}
    data = values["data"]
    values["data"] = {**data, "train": [str(archive / n) for n in data["train"]]}
    values["data"]["validation"] = [str(archive / n) for n in data["validation"]]
    path = output.parent / f"{output.name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def history(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "history.csv").read_text().splitlines()))


def same(a: Path, b: Path) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


FORMS: dict[str, dict[str, Any]] = {
    "subspace, residual": {},
    "subspace": {"base": None},
    "domain, residual": {"form": "domain"},
    "domain": {"form": "domain", "base": None},
    "bands, residual": {"form": "bands"},
    "bands": {"form": "bands", "base": None, "losses": {"relative": False}},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_run_leaves_models_that_fuse(archive: Path, tmp_path: Path, form: str) -> None:
    result = train(read_train_config(configure(archive, tmp_path / "run", **FORMS[form])))
    card = read_card(result.student)
    kind = form.split(",")[0]
    assert card.form == ("bands" if kind == "bands" else "subspace")
    assert (card.domain is not None) is (kind == "domain")
    assert card.base == ("coupled-map" if "residual" in form else None)
    assert card.ratio == (4, 4)
    assert [t.name for t in card.training] == ["a.tif", "b.tif"]
    assert card.training[0].terms == "made up"
    assert card.scores["held_out_sam"] == pytest.approx(result.best.sam, abs=1e-4)
    assert (card.hsi_wavelengths is None) is (kind == "subspace")
    if kind != "subspace":
        assert card.hsi_bands == 24
        np.testing.assert_allclose(card.hsi_wavelengths, np.linspace(450, 900, 24), atol=0.01)
    assert len(card.msi_wavelengths or ()) == (4 if kind == "bands" else 0)
    assert result.steps == 4
    assert result.best.error <= result.start.error
    assert result.teacher is not None
    assert read_card(result.teacher).network.features == 12
    rows = history(tmp_path / "run")
    assert [row["step"] for row in rows] == ["0", "2", "4"]
    assert float(rows[-1]["loss_response"]) > 0

    # the model fuses a pair as a user would
    from csakd_geo.job import fuse

    cube, wavelength = make_truth(24, 72, 64, seed=7)
    hsi = write(tmp_path / "hsi.tif", coarsen(cube, 4), pixel=40, wavelength=wavelength, fwhm=20)
    msi_cube = np.tensordot(responses(wavelength), cube, axes=1)
    msi = write(tmp_path / "msi.tif", msi_cube, wavelength=(492, 560, 665, 833))
    fused = fuse(hsi, msi, model=str(result.student), tile=64)
    values = fused.values
    assert values.shape == cube.shape
    error = np.sqrt(np.mean((values - cube) ** 2))
    if "residual" in form:  # an untrained residual network is its base
        base = fuse(hsi, msi, method="coupled-map").values
        assert error < 1.1 * np.sqrt(np.mean((base - cube) ** 2))
    assert np.isfinite(error)


def test_a_domain_is_the_archives_own_subspace(archive: Path, tmp_path: Path) -> None:
    config = read_train_config(configure(archive, tmp_path / "run", form="domain", components=6))
    learn, _ = open_archives(config)
    card = make_card(config, config.student, learn)
    assert card.domain is not None
    subspace = domain_subspace(card.domain)
    # five spectra under a varying light: five directions hold nearly everything
    cube, _ = make_truth(24, 72, 64, seed=0)
    left = cube - subspace.expand(subspace.project(cube))
    assert np.sqrt(np.square(left).mean()) < 0.02 * cube.std()
    np.testing.assert_allclose(subspace.inverse @ subspace.basis, np.eye(6), atol=1e-4)
    again = make_card(config, config.student, open_archives(config)[0])
    assert again.domain == card.domain


def test_an_hsi_in_other_units_is_refused_by_a_domain(archive: Path, tmp_path: Path) -> None:
    from csakd_geo.job import fuse

    result = train(read_train_config(configure(archive, tmp_path / "run", form="domain", steps=1)))
    cube, wavelength = make_truth(24, 72, 64, seed=7)
    hsi = write(tmp_path / "hsi.tif", 10_000 * coarsen(cube, 4), pixel=40, wavelength=wavelength, fwhm=20)
    msi = write(tmp_path / "msi.tif", np.tensordot(responses(wavelength), cube, axes=1))
    with pytest.raises(ModelError, match=r"The HSI is .* times as bright as the scenes that model 'tiny'"):
        fuse(hsi, msi, model=str(result.student))
    few = write(tmp_path / "few.tif", coarsen(cube[:20], 4), pixel=40, wavelength=wavelength[:20], fwhm=20)
    with pytest.raises(ModelError, match="takes 24 HSI bands, but this pair has 20"):
        fuse(few, msi, model=str(result.student))


def test_one_seed_is_one_run_and_another_is_not(archive: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        train(read_train_config(configure(archive, tmp_path / name, seed=seed)))
    assert same(tmp_path / "one/tiny-teacher.safetensors", tmp_path / "two/tiny-teacher.safetensors")
    last = [newest_checkpoint(tmp_path / n / "checkpoints") for n in ("one", "two", "other")]
    assert all(path is not None and path.name == "step-000000004" for path in last)
    one, two, other = (weights(path / "weights.safetensors") for path in last if path is not None)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["student.last.weight"], other["student.last.weight"])


def test_a_killed_run_goes_on_to_the_same_weights(archive: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 12, "check_every": 1, "ema": 0.9}
    whole = configure(archive, tmp_path / "whole", **options)
    train(read_train_config(whole))
    broken = configure(archive, tmp_path / "broken", **options)
    command = [sys.executable, "-m", "csakd_geo.cli", "train", str(broken), "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    folder, give_up = tmp_path / "broken/checkpoints", time.monotonic() + 90
    while time.monotonic() < give_up and process.poll() is None:
        found = newest_checkpoint(folder)
        if found is not None and found.name >= "step-000000003":
            break
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[1]
    process.kill()
    process.communicate()
    stopped = newest_checkpoint(folder)
    assert stopped is not None
    assert "step-000000003" <= stopped.name < "step-000000012"
    with pytest.raises(InputError, match=r"holds a run that got to step .* add --resume"):
        train(read_train_config(broken))
    result = train(read_train_config(broken), resume=True)
    assert result.steps == 12
    assert same(tmp_path / "whole/tiny.safetensors", tmp_path / "broken/tiny.safetensors")
    assert same(tmp_path / "whole/tiny-teacher.safetensors", tmp_path / "broken/tiny-teacher.safetensors")
    last = [
        folder.parent.parent / n / "checkpoints/step-000000012/weights.safetensors"
        for n in ("whole", "broken")
    ]
    assert same(*last)
    assert [p.name for p in folder.iterdir()] == ["step-000000012"]


def test_a_finished_run_is_not_run_again(archive: Path, tmp_path: Path) -> None:
    path = configure(archive, tmp_path / "run")
    first = train(read_train_config(path))
    before = (tmp_path / "run/tiny.safetensors").read_bytes()
    again = train(read_train_config(path), resume=True)
    assert again == first
    assert (tmp_path / "run/tiny.safetensors").read_bytes() == before


def test_other_settings_do_not_go_on(archive: Path, tmp_path: Path) -> None:
    train(read_train_config(configure(archive, tmp_path / "run")))
    changed = configure(archive, tmp_path / "run", student={**BASE["student"], "fuser": 0})
    with pytest.raises(InputError, match=r"made with student\.fuser = 3, but now it is 0"):
        train(read_train_config(changed), resume=True)


def test_nan_stops_and_keeps_the_last_checkpoint(archive: Path, tmp_path: Path) -> None:
    path = configure(archive, tmp_path / "run", rate=1e18, schedule={"kind": "constant"}, steps=50)
    with pytest.raises(ModelError, match="not a number"):
        train(read_train_config(path))
    kept = newest_checkpoint(tmp_path / "run/checkpoints")
    assert kept is not None
    checkpoint = load_checkpoint(kept)
    assert all(bool(v.isfinite().all()) for v in checkpoint.weights.values())
    assert not list((tmp_path / "run").glob("*.safetensors"))


@pytest.mark.skipif(os.name != "posix", reason="a limit on the size of files is set the POSIX way")
def test_a_full_disk_is_told_in_one_sentence(archive: Path, tmp_path: Path) -> None:
    import resource

    path = configure(archive, tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "csakd_geo.cli", "train", str(path), "--quiet"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "step-000000000' was not written" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "run/checkpoints").iterdir()) == []


def test_ctrl_c_says_how_to_go_on(archive: Path, tmp_path: Path) -> None:
    path = configure(archive, tmp_path / "run", steps=100_000, check_every=1)
    command = [sys.executable, "-m", "csakd_geo.cli", "train", str(path), "--quiet"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    give_up = time.monotonic() + 90
    while newest_checkpoint(tmp_path / "run/checkpoints") is None and time.monotonic() < give_up:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Stopped on request; the last checkpoint is" in said
    assert "--resume" in said
    assert "Traceback" not in said


def test_a_damaged_checkpoint_is_told(archive: Path, tmp_path: Path) -> None:
    path = configure(archive, tmp_path / "run")
    train(read_train_config(path))
    found = newest_checkpoint(tmp_path / "run/checkpoints")
    assert found is not None
    (found / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="is damaged"):
        train(read_train_config(path), resume=True)


def test_a_running_average_lags_behind(archive: Path, tmp_path: Path) -> None:
    for name, ema in (("plain", None), ("mean", 0.95)):
        train(read_train_config(configure(archive, tmp_path / name, ema=ema, steps=6, rate=0.003)))
    found = newest_checkpoint(tmp_path / "mean/checkpoints")
    assert found is not None
    checkpoint = load_checkpoint(found)
    torch.manual_seed(0)
    start = DualTwoStream(read_card(tmp_path / "mean/tiny.safetensors").network).state_dict()
    raw, average = checkpoint.part("student"), checkpoint.part("average")
    moved = (raw["last.weight"] - start["last.weight"]).norm()
    lagging = (average["module.last.weight"] - start["last.weight"]).norm()
    assert 0 < lagging < 0.7 * moved


def test_half_precision_stays_near_full(archive: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"base": None, "steps": 6, "best_by": "psnr"}
    full = train(read_train_config(configure(archive, tmp_path / "full", **options)))
    half = train(read_train_config(configure(archive, tmp_path / "half", precision="bf16-mixed", **options)))
    assert half.best.psnr == pytest.approx(full.best.psnr, abs=0.5)
    assert not same(full.student, half.student)
    assert full.best.psnr > full.start.psnr


def test_two_processes_train_one_network(archive: Path, tmp_path: Path) -> None:
    path = configure(archive, tmp_path / "run", devices=2, base=None)
    done = subprocess.run(
        [sys.executable, "-m", "csakd_geo.cli", "train", str(path), "--quiet"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("student:") == 1
    assert load_model(tmp_path / "run/tiny.safetensors").card.scores["held_out_psnr"] > 5
    alone = train(read_train_config(configure(archive, tmp_path / "alone", base=None)))
    assert not same(alone.student, tmp_path / "run/tiny.safetensors")


def test_a_frozen_teacher_teaches_and_does_not_change(archive: Path, tmp_path: Path) -> None:
    first = train(read_train_config(configure(archive, tmp_path / "first")))
    assert first.teacher is not None
    before = first.teacher.read_bytes()
    frozen = {**BASE["teacher"], "frozen": True, "start": str(first.teacher)}
    taught = train(read_train_config(configure(archive, tmp_path / "taught", teacher=frozen)))
    assert taught.teacher is None
    assert first.teacher.read_bytes() == before
    train(read_train_config(configure(archive, tmp_path / "alone", teacher=None)))
    rows = history(tmp_path / "taught")
    assert float(rows[-1]["loss_response"]) > 0
    assert "loss_teacher" not in rows[-1]
    last = [newest_checkpoint(tmp_path / n / "checkpoints") for n in ("taught", "alone")]
    one, two = (load_checkpoint(path).part("student") for path in last if path is not None)
    assert not torch.equal(one["last.weight"], two["last.weight"])


def test_a_model_to_start_from_has_to_fit(archive: Path, tmp_path: Path) -> None:
    first = train(read_train_config(configure(archive, tmp_path / "first")))
    start = {**BASE["student"], "start": str(first.student)}
    on = train(read_train_config(configure(archive, tmp_path / "on", student=start)))
    assert on.start.error == pytest.approx(first.best.error, abs=1e-6)
    other = {**start, "features": 10, "growth": 5}
    with pytest.raises(
        ModelError, match="another architecture than the student to train: its features is 8, but 10"
    ):
        train(read_train_config(configure(archive, tmp_path / "other", student=other)))


# data


def official(folder: Path) -> Path:
    root = folder / "tiles"
    root.mkdir()
    for k in range(3):
        cube, wavelength = make_truth(16, 48, 48, seed=k)
        low, high = cube.min(), cube.max()
        unit = (cube - low) / (high - low)
        np.save(root / f"t{k}GT.npz.npy", cube.transpose(1, 2, 0))
        msi = np.tensordot(responses(wavelength), unit, axes=1).transpose(1, 2, 0)
        np.savez(root / f"t{k}hrmsi.npz", hrmsi4=msi)
        keys = {
            f"lrhsi{s or ''}": coarsen(np.roll(unit, s, (1, 2)), 4).transpose(1, 2, 0) for s in (0, 1, 2, 3)
        }
        np.savez(root / f"t{k}lrhsi.npz", **keys)
    (folder / "train.txt").write_text("t0\nt1\n")
    (folder / "held.txt").write_text("t2\n")
    return root


def official_config(tmp_path: Path, **changes: Any) -> Path:
    values = {
        **BASE,
        "output": "run",
        "form": "bands",
        "base": None,
        "data": {
            "layout": "official",
            "train": ["tiles"],
            "validation": ["tiles"],
            "train_names": "train.txt",
            "validation_names": "held.txt",
            "examples": 4,
            "validation_examples": 1,
        },
        "student": {**BASE["student"], "attention": "released"},
        "teacher": {**BASE["teacher"], "attention": "released"},
        "augment": {"misregistration": 3, "snr_hsi": [35, 35]},
        "losses": {"relative": False},
        **changes,
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_tiles_of_the_authors_layout_are_trained_on(tmp_path: Path) -> None:
    official(tmp_path)
    config = read_train_config(official_config(tmp_path))
    learn, held = open_archives(config)
    assert learn.names == ("t0", "t1")
    assert held.names == ("t2",)
    seen = set()
    for number in range(12):
        pair, truth = learn.observe(np.random.default_rng(number))
        assert truth.shape == (16, 48, 48)
        assert pair.blocks[0].hsi.shape == (16, 12, 12)
        seen.add(round(float(np.abs(pair.blocks[0].hsi - coarsen(truth, 4)).mean()), 3))
    assert len(seen) > 2  # shifted HSIs are among them
    result = train(config)
    card = load_model(result.student).card
    assert (card.network.bands, card.network.msi_bands, card.ratio) == (16, 4, None)
    assert result.best.psnr > result.start.psnr


def test_tiles_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    root = official(tmp_path)
    (tmp_path / "held.txt").write_text("t1\n")
    with pytest.raises(InputError, match="'t1' is both trained on and held out"):
        train(read_train_config(official_config(tmp_path)))
    (tmp_path / "held.txt").write_text("t2\n")
    with pytest.raises(InputError, match="Tile 't0' has 48 x 48 pixels, but one crop takes 80 x 80"):
        train(read_train_config(official_config(tmp_path, crop=20)))
    cube = np.load(root / "t1GT.npz.npy")
    np.save(root / "t1GT.npz.npy", cube[:, :, :15])
    with np.load(root / "t1lrhsi.npz") as file:
        np.savez(root / "t1lrhsi.npz", **{k: file[k][:, :, :15] for k in file.files})
    with pytest.raises(InputError, match="Tile 't1' has 15 bands but 't0' has 16"):
        train(read_train_config(official_config(tmp_path)))


def test_rasters_that_do_not_go_together_are_told(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    shutil.copytree(archive, folder)

    def says(words: str, **changes: Any) -> None:
        with pytest.raises(CsakdGeoError, match=words) as error:
            train(read_train_config(configure(folder, tmp_path / "run", **changes)))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()

    data = BASE["data"]
    says(
        "'a.tif' has 72 x 64 pixels, but one crop",
        crop=16,
        data={**data, "ratios": [5], "window": 80},
    )
    says("is no raster, no folder with rasters", data={**data, "train": ["none*.tif"]})
    says("'v.tif' is both trained on and held out", data={**data, "train": ["a.tif", "v.tif"]})
    cube, wavelength = make_truth(20, 72, 64, seed=3)
    write(folder / "b.tif", cube, wavelength=wavelength, fwhm=20)
    says("'b.tif' has 20 bands but 'a.tif' has 24; a model of bands", form="bands")
    cube, wavelength = make_truth(24, 72, 64, seed=3)
    write(folder / "b.tif", cube, wavelength=wavelength + 15, fwhm=20)
    says("lies 15.0 nm from that of 'a.tif'", form="bands")
    write(folder / "b.tif", cube)
    says("'b.tif' states no wavelengths")
    write(folder / "b.tif", cube, wavelength=np.linspace(1000, 1700, 24), fwhm=20)
    says("No band of 'rgb' lies within 'b.tif'", data={**data, "train": ["b.tif"], "sensors": ["rgb"]})


def test_rasters_are_found_in_folders_patterns_and_stores(archive: Path, tmp_path: Path) -> None:
    import xarray as xr

    xr.DataArray(np.zeros((2, 3)), dims=("y", "x"), name="a").to_zarr(tmp_path / "s.zarr")
    (tmp_path / "notes.txt").write_text("none")
    shutil.copy(archive / "a.tif", tmp_path / "z.TIF")
    both = [tmp_path / "s.zarr", tmp_path / "z.TIF"]
    assert find_rasters([str(tmp_path)]) == both
    assert find_rasters([str(tmp_path / "s.zarr")]) == both[:1]
    assert find_rasters([str(tmp_path / "*.TIF"), str(tmp_path)]) == both[::-1]
    with pytest.raises(InputError, match="no pattern that finds one"):
        find_rasters([str(tmp_path / "x*")])


def test_an_example_is_its_seed_and_number(archive: Path, tmp_path: Path) -> None:
    config = read_train_config(configure(archive, tmp_path / "run"))
    learn, _ = open_archives(config)
    card = make_card(config, config.student, learn)
    kept, again, endless = (Pool(learn, card, size=s, seed=0, crop=6) for s in (3, 3, 0))
    np.testing.assert_array_equal(kept[2].hsi, again[2].hsi)
    assert kept[5] is kept[2]
    np.testing.assert_array_equal(endless[2].hsi, kept[2].hsi)
    assert not np.array_equal(endless[5].hsi, kept[2].hsi)
    other = Pool(learn, card, size=3, seed=1, crop=6)
    assert not np.array_equal(other[2].hsi, kept[2].hsi)


def test_masked_windows_are_not_learned_from(tmp_path: Path) -> None:
    cube, wavelength = make_truth(24, 72, 64)
    holed = cube.copy()
    holed[:, :16] = np.nan
    path = write(tmp_path / "a.tif", holed, wavelength=wavelength, fwhm=20, nodata=np.nan)
    variation = read_train_config(configure(tmp_path, tmp_path / "run")).augment.variation(
        read_train_config(configure(tmp_path, tmp_path / "run")).data
    )
    archive = RasterArchive.open([str(path)], variation.plain, window=72, least=24, uniform=False)
    pair, truth = archive.observe(np.random.default_rng(0))
    valid = pair.blocks[0].valid
    assert not valid[:4].any()
    assert valid[6:].all()
    assert np.isfinite(pair.blocks[0].hsi).all()
    assert np.isfinite(truth).all()
    holed[:, :60] = np.nan
    write(path, holed, wavelength=wavelength, fwhm=20, nodata=np.nan)
    masked = RasterArchive.open([str(path)], variation, window=72, least=24, uniform=False)
    config = read_train_config(configure(tmp_path, tmp_path / "run"))
    with pytest.raises(ModelError, match=r"No usable example was found in 20 windows of a\.tif"):
        Pool(masked, make_card(config, config.student, masked), size=1, seed=0, crop=6)[0]


def test_a_picture_and_scalars_are_logged(archive: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(read_train_config(configure(archive, tmp_path / "run", tensorboard=True)))
    log = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert {"loss/student", "student/psnr", "student/sam", "teacher/sam", "rate"} <= set(
        log.Tags()["scalars"]
    )
    assert [event.step for event in log.Scalars("student/psnr")] == [0, 2, 4]
    (tag,) = log.Tags()["images"]
    images = log.Images(tag)
    assert [image.step for image in images] == [0, 2, 4]
    assert images[0].width == 3 * 64
