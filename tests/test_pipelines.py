"""The recipes of pipelines/, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from made import make_pair, make_truth, write

from csakd_geo.models import read_card


def run(script: Path, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, str(script), *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fuse_scene(repo: Path, tmp_path: Path) -> None:
    pair = make_pair(tmp_path, bands=8, height=64, width=64)
    output = tmp_path / "fused.tif"
    said = run(repo / "pipelines/fuse_scene.py", pair.hsi, pair.msi, output, "--method", "regression")
    assert "regression" in said
    with rasterio.open(output) as src:
        assert (src.count, src.height, src.width) == (8, 64, 64)
    assert (tmp_path / "fused.png").stat().st_size > 10_000


def test_distill(repo: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric", reason="the package lightning-fabric is not installed")
    for seed, name in enumerate("av"):
        cube, wavelength = make_truth(24, 72, 64, seed=seed)
        write(tmp_path / f"{name}.tif", cube, wavelength=wavelength, fwhm=20)
    config = yaml.safe_load((repo / "pipelines/distill.yaml").read_text())
    config |= {
        "output": "run",
        "steps": 2,
        "check_every": 1,
        "crop": 6,
        "batch": 1,
        "accumulate": 1,
        "tensorboard": False,
        "student": {"features": 8, "growth": 4, "depths": [0, 1, 1, 1]},
        "teacher": {"features": 12, "growth": 6, "depths": [1, 1, 1, 1]},
    }
    config["data"] |= {
        "train": ["a.tif"],
        "validation": ["v.tif"],
        "window": 64,
        "examples": 2,
        "validation_examples": 1,
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    pair = make_pair(tmp_path, bands=12, height=64, width=64)
    output = tmp_path / "fused.tif"
    said = run(repo / "pipelines/distill.py", path, "--pair", pair.hsi, pair.msi, output)
    assert "held-out PSNR" in said
    assert read_card(tmp_path / "run/my-student.safetensors").base == "coupled-map"
    with rasterio.open(output) as src:
        assert np.isfinite(src.read()).all()
    assert run(repo / "pipelines/distill.py", path, "--resume").count("held-out PSNR") == 1
