"""From a prior estimate to the MAP estimate: against dense systems, and what ties between neighbours bring."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from simulated import land, made_pair

from csakd_geo.degrade import PSF, degrade
from csakd_geo.io import open_source
from csakd_geo.methods import step
from csakd_geo.methods.base import Fitted
from csakd_geo.methods.estimates import CoupledMAP
from csakd_geo.methods.step import Known
from csakd_geo.methods.ties import FIRMEST, Ties, find_likeness, find_surprise
from csakd_geo.metrics import score
from csakd_geo.pair import Block, Pair
from csakd_geo.response import estimate_response
from csakd_geo.sample import write_sample

FloatArray = NDArray[np.floating]


@pytest.mark.parametrize(("ratio", "dy"), [(2, 0.0), (3, 0.8), (4, -1.2)])
def test_solve_against_a_dense_system(ratio: int, dy: float) -> None:
    psf = PSF(ratio, 1.1 * ratio, dy, 0.3)
    height, width = 4, 3
    pixels = np.eye(height * width * ratio**2).reshape(-1, 1, height * ratio, width * ratio)
    operator = np.stack([degrade(pixel, psf).ravel() for pixel in pixels], axis=1)  # edges as they are
    right = np.random.default_rng(0).standard_normal((2, height * ratio, width * ratio))
    values = np.array([0.03, 2.0])
    found = Known.of(values, psf, height, width).solve(right.copy())
    for k, value in enumerate(values):
        system = value * np.eye(operator.shape[1]) + operator.T @ operator
        expected = np.linalg.solve(system, right[k].ravel()).reshape(right.shape[1:])
        np.testing.assert_allclose(found[k], expected, atol=1e-9 * np.abs(expected).max())


def laplacian(ties: Ties, height: int, width: int) -> FloatArray:
    """Dense, (pixel, pixel)."""
    pixels = np.eye(height * width, dtype=np.float32).reshape(-1, height, width)
    return ties.differences(pixels).reshape(len(pixels), -1)


def test_ties_are_a_laplacian_that_stops_at_edges() -> None:
    rng = np.random.default_rng(0)
    msi = rng.normal(0, 0.1, (2, 5, 6)).astype(np.float32)
    msi[:, :, 3:] += 200
    usual = Ties.of(msi, np.ones(2), np.ones((5, 6)))
    np.testing.assert_array_equal(usual.own, 1)
    found = laplacian(usual, 5, 6)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found.sum(0), 0, atol=1e-6)
    values = np.linalg.eigvalsh(found.astype(float))
    assert values.min() > -1e-6
    assert values.max() <= 2 + 1e-6
    assert values[1] < 1e-6 < values[2]  # two surfaces, each held together
    grid = -found.reshape(5, 6, 5, 6)
    assert grid[2, 1, 2, 2] > grid[2, 1, 3, 2] > 0.05  # beside, diagonal
    assert grid[2, 2, 2, 3] < 1e-6  # across the edge


def test_a_pixel_that_surprises_is_held_less_and_a_quiet_one_no_more_than_firmest() -> None:
    rng = np.random.default_rng(0)
    msi = rng.normal(0, 0.1, (2, 5, 6)).astype(np.float32)
    surprise = rng.gamma(0.5, 2, (5, 6))
    surprise[2, 3], surprise[0, 0] = 30, 0
    usual = laplacian(Ties.of(msi, np.ones(2), np.ones((5, 6))), 5, 6)
    held = Ties.of(msi, np.ones(2), surprise)
    found = laplacian(held, 5, 6)
    assert held.own[0, 0] == held.own.max() == pytest.approx(FIRMEST)
    assert held.own[2, 3] < 0.2
    root = np.sqrt(held.own.ravel())
    off = ~np.eye(30, dtype=bool)
    np.testing.assert_allclose(found[off], (usual * np.outer(root, root))[off], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.sum(0), 0, atol=1e-6)
    assert np.linalg.eigvalsh(found.astype(float)).max() <= 2 * FIRMEST + 1e-6


def test_surprise_is_the_length_of_what_was_not_expected() -> None:
    rng = np.random.default_rng(0)
    expected = np.array([[2.0, 1.9], [1.9, 2.0]])
    innovation = np.linalg.cholesky(expected) @ rng.standard_normal((2, 80 * 90))
    scale = np.linalg.cholesky(np.linalg.inv(expected)).T
    found = find_surprise(innovation.reshape(2, 80, 90), scale)
    assert found.mean() == pytest.approx(1, abs=0.05)
    odd = np.zeros((2, 9, 9))
    odd[:, 4, 4] = 1, -1  # against how the bands go together
    assert find_surprise(odd, scale)[4, 4] > 10 * find_surprise(np.abs(odd), scale)[4, 4]
    assert find_surprise(odd, scale)[4, 5] > 0.01 > find_surprise(odd, scale)[4, 8]  # around it, too


@pytest.mark.parametrize(("ratio", "tied"), [(2, False), (2, True), (4, True)])
def test_step_against_a_dense_system(ratio: int, tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    psf, kept, height, width = PSF(ratio, 1.1 * ratio, 0.4, -0.3), 3, 3, 2
    fine = height * ratio, width * ratio
    sense, level, misfit = rng.normal(0, 2, (2, kept)), rng.normal(0, 1, 2), np.array([0.5, 2.0])
    spread = rng.normal(0, 1, (kept, kept))
    precision = np.linalg.inv(spread @ spread.T + 0.3 * np.eye(kept))
    errors = step.prepare_errors(sense, precision, tied_at=ratio if tied else None)
    own = {"mean": np.zeros(kept), "basis": np.eye(kept), "inverse": np.eye(kept), "deviation": np.ones(kept)}
    arrays = {**own, **errors, "sense": sense, "level": level, "misfit": misfit}
    if tied:
        arrays["likeness"] = np.array([1.0, 0.5])
        arrays["surprise"] = rng.normal(0, 0.1, (2, 2))
    hsi, msi, z = (
        rng.normal(0, 1, shape).astype(np.float32)
        for shape in ((kept, height, width), (2, *fine), (kept, *fine))
    )
    fitted = Fitted("made", psf, 0, arrays)

    pixels = np.eye(fine[0] * fine[1]).reshape(-1, *fine)
    blur = np.stack([degrade(pixel[None], psf).ravel() for pixel in pixels], axis=1)
    left_hsi = (hsi - degrade(z, psf)).reshape(kept, -1)
    left_msi = (msi / misfit[:, None, None]).reshape(2, -1) - level[:, None] - sense @ z.reshape(kept, -1)
    over = np.eye(len(pixels))
    if tied:
        surprise = find_surprise(left_msi.reshape(msi.shape), arrays["surprise"])
        ties = Ties.of(msi, arrays["likeness"], surprise)
        over = step._LOOSE * np.diag(ties.own.ravel()) + step._TIGHT * ratio * laplacian(ties, *fine)
    system = np.kron(np.eye(kept), blur.T @ blur) + np.kron(sense.T @ sense, np.eye(len(pixels)))
    system += np.kron(precision, over)
    right = left_hsi @ blur + sense.T @ left_msi
    expected = np.linalg.solve(system, right.ravel()).reshape(z.shape)

    def error() -> float:
        found = step.step_from(fitted, hsi, msi, z, errors)
        return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))

    assert error() < (0.1 if tied else 1e-5)
    monkeypatch.setattr(step, "_STEPS", 400)
    monkeypatch.setattr(step, "_LOWEST", 0.01)
    assert error() < 1e-5


def test_likeness_counts_a_typical_step_and_leaves_out_a_band_of_noise() -> None:
    pair, _, _ = made_pair(land(bands=24, height=96, width=96))
    response = estimate_response(pair)
    rng = np.random.default_rng(0)
    noisy = tuple(
        replace(b, msi=np.concatenate([b.msi[:-1], rng.normal(0, 9, (1, *b.msi.shape[1:]))]))
        for b in pair.blocks
    )
    other = replace(pair, blocks=noisy)
    like = find_likeness(other, estimate_response(other, psf=response.psf))
    assert like[-1] * 9 < 0.2
    steps = like[:, None, None] * (noisy[0].msi[:, :, 1:] - noisy[0].msi[:, :, :-1])
    assert np.sqrt(np.median(np.square(steps).sum(0))) == pytest.approx(1 / 1.5, rel=0.05)
    flat = replace(pair, blocks=tuple(replace(b, msi=np.ones_like(b.msi)) for b in pair.blocks))
    assert np.isfinite(find_likeness(flat, response)).all()


def test_tied_errors_bring_the_sample_closer_to_its_truth(tmp_path: Path) -> None:
    made = write_sample(tmp_path)
    hsi, msi, truth = (open_source(path) for path in (made.hsi, made.msi, made.truth))
    cubes = [s.read(0, 0, s.height, s.width) for s in (hsi, msi, truth)]
    good = np.flatnonzero(hsi.axis.good)
    pair = Pair(
        (Block(cubes[0][good], cubes[1], np.ones(cubes[0].shape[1:], bool)),),
        4,
        hsi.axis.take(good),
        msi.axis,
    )
    response = estimate_response(pair)
    found = [
        score(method.apply(method.fit(pair, response), pair.blocks[0].hsi, cubes[1]), cubes[2][good], ratio=4)
        for method in (CoupledMAP(tied=False), CoupledMAP())
    ]
    assert found[1].psnr > found[0].psnr + 0.2
    assert found[1].sam < 0.99 * found[0].sam
