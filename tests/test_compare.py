"""Every method on one window: scores against those of other ways to get them, the picture, bad windows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from made import make_pair
from matplotlib.axes import Axes
from PIL import Image
from scipy.ndimage import uniform_filter

import csakd_geo
from csakd_geo import choose
from csakd_geo.cli import main
from csakd_geo.cli.compare_plot import draw_comparison
from csakd_geo.compare import Comparison, compare_methods
from csakd_geo.compare.window import _busiest
from csakd_geo.degrade import PSF, degrade, upsample
from csakd_geo.draft import draft_job
from csakd_geo.evaluate import evaluate_pair
from csakd_geo.job import register
from csakd_geo.methods import METHODS
from csakd_geo.models import bundled_models
from csakd_geo.options import make_options
from csakd_geo.simulate import SimulatedPaths

WINDOW = (24, 40, 96, 64)  # column, row, width, height


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def silent(stage: str, share: float, words: str) -> None:
    """Report nothing."""


@pytest.fixture(scope="module")
def found(sample: SimulatedPaths) -> Comparison:
    return compare_methods(sample.hsi, sample.msi, make_options({}), window=WINDOW, report=silent)


def test_every_method_and_every_fitting_model_is_there(found: Comparison) -> None:
    names = [candidate.name for candidate in found.candidates]
    assert names[: len(METHODS)] == list(METHODS)
    assert len(names) == len(METHODS) + len([p for p in bundled_models() if p.suffix == ".safetensors"])
    assert found.window == WINDOW
    assert all(c.image.shape == (3, WINDOW[3], WINDOW[2]) for c in found.candidates)


@pytest.mark.parametrize("name", ["bicubic", "coupled-map"])
def test_the_window_is_that_of_the_whole_fusion(name: str, found: Comparison, sample: SimulatedPaths) -> None:
    cube = csakd_geo.fuse(sample.hsi, sample.msi, method=name)
    col, row, width, height = WINDOW
    part = cube[:, row : row + height, col : col + width].load()
    candidate = next(c for c in found.candidates if c.name == name)
    reds = [abs(part.wavelength.values - nm).argmin() for nm in (650, 550, 475)]
    # beyond its halo a method of the subspace is not quite without context
    np.testing.assert_allclose(candidate.image, part.values[reds], rtol=2e-3, atol=2e-3 * float(part.max()))
    scores = evaluate_pair(part, sample.hsi, sample.msi).to_dict()["scores"]
    for key in ("hqnr", "d_s", "hsi_over_noise", "hsi_consistency", "msi_consistency"):
        assert candidate.scores[key] == pytest.approx(scores[key], rel=0.01), key


def test_a_small_scene_has_no_held_out_scores_and_says_so(found: Comparison) -> None:
    assert all(not candidate.held_out for candidate in found.candidates)
    assert any("48 x 48" in sentence for sentence in found.warnings)


def test_the_picture_has_a_panel_per_image(found: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[int, ...]] = []
    real = Axes.imshow

    def imshow(self: Axes, image: Any, **how: Any) -> Any:
        shown.append(image.shape)
        return real(self, image, **how)

    monkeypatch.setattr(Axes, "imshow", imshow)
    image = Image.open(io.BytesIO(draw_comparison(found)))
    assert shown == [(WINDOW[3], WINDOW[2], 4)] * (2 + len(found.candidates))
    assert np.asarray(image.convert("RGB"), dtype=int).std() > 20


def test_the_window_is_where_most_detail_is(sample: SimulatedPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csakd_geo.compare.window._SIDE", 9)
    scene, psf = draft_job(sample.hsi, sample.msi, make_options({})).scene, PSF(4, 4.0)
    window = _busiest(scene, psf)
    with rasterio.open(sample.msi) as src:
        msi = src.read().astype(float) * np.reshape(src.scales, (-1, 1, 1))
    detail = msi - upsample(degrade(msi, psf), psf)
    power = (np.square(detail) / msi.var((1, 2), keepdims=True)).mean(0)
    means = uniform_filter(power, 36, origin=-18, mode="constant")[: 144 - 35 : 4, : 144 - 35 : 4]
    assert (window.row, window.col) == np.unravel_index(means.argmax(), means.shape)
    assert (window.height, window.width) == (9, 9)


@pytest.mark.slow
def test_held_out_scores_are_those_that_auto_sees(tmp_path: Path) -> None:
    made = make_pair(tmp_path, bands=12, height=208, width=208, noise=2e-3)
    target = tmp_path / "all.png"
    result = call("compare", made.hsi, made.msi, "-o", target, "--json", "--shift", "none")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    _, pair, response, _ = register(draft_job(made.hsi, made.msi, make_options({"shift": "none"})))
    methods = [METHODS["gsa"], METHODS["coupled-map"]]
    expected = choose.compare(methods, pair, response)
    listed = {method["name"]: method for method in told["methods"]}
    for name, scores in expected.items():
        assert listed[name]["held_out"] == pytest.approx(scores)
    assert target.stat().st_size > 10_000
    assert told["window"] == [0, 0, 208, 208]  # 52 x 52 HSI pixels are fewer than 64 x 64


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ("500,500,64,64", "holds nothing of what both images show; at least 32 x 32 MSI pixels are needed"),
        ("0,0,20,64", "holds 20 x 64 pixels"),
    ],
)
def test_a_bad_window_ends_in_one_sentence(
    window: str, words: str, sample: SimulatedPaths, tmp_path: Path
) -> None:
    target = tmp_path / "all.png"
    result = call("compare", sample.hsi, sample.msi, "--window", window, "-o", target)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "column 0 to 144 and row 0 to 144" in result.stderr
    assert not target.exists()


def test_a_malformed_window_is_wrong_usage(sample: SimulatedPaths) -> None:
    result = call("compare", sample.hsi, sample.msi, "--window", "1,2,3")
    assert result.exit_code == 2
    assert "COL,ROW,WIDTH,HEIGHT" in result.stderr


def test_a_picture_in_the_way_is_kept(sample: SimulatedPaths, tmp_path: Path) -> None:
    target = tmp_path / "all.png"
    target.write_text("important")
    result = call("compare", sample.hsi, sample.msi, "-o", target)
    assert result.exit_code == 1
    assert target.read_text() == "important"
