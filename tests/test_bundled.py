"""The models that come with the package: small, honest about their data, no harm to the sample."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio

import csakd_geo
from csakd_geo.metrics import score
from csakd_geo.models import bundled_models, load_model
from csakd_geo.sample import write_sample

MODELS = bundled_models()


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_bundled_model(path: Path) -> None:
    assert path.stat().st_size <= 5_000_000
    card = load_model(path).card
    assert card.training
    assert all(data.terms for data in card.training)
    names = " ".join(data.name.lower() for data in card.training)
    assert "indian" not in names, "the sample is made of Indian Pines"
    assert "san diego" not in names, "San Diego is held out"
    assert card.scores["held_out_error_over_base"] < 1


def test_the_default_on_the_sample_runs_the_bundled_network(tmp_path: Path) -> None:
    assert MODELS
    sample = write_sample(tmp_path)
    with rasterio.open(sample.truth) as src:
        truth = src.read() * float(src.scales[0]) + float(src.offsets[0])
    found = {
        method: score(csakd_geo.fuse(sample.hsi, sample.msi, method=method).values, truth, ratio=4)
        for method in ("auto", "coupled-map", "regression")
    }
    cube = csakd_geo.fuse(sample.hsi, sample.msi)
    assert cube.attrs["method"] == "csakd"
    assert cube.attrs["model"]["name"] == load_model(MODELS[0]).card.name
    assert found["auto"].psnr > found["coupled-map"].psnr - 0.1
    assert found["auto"].psnr > found["regression"].psnr + 0.5
    assert found["auto"].sam < found["regression"].sam + 0.05
