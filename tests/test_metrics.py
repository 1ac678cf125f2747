"""The scores against golden numbers, hand-made cases and naive loops."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from csakd_geo.errors import InputError
from csakd_geo.metrics import UIQI_BLOCK, Scores, data_range, score, score_blocks


def pair(seed: int = 0, shape: tuple[int, int, int] = (4, 40, 36)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) + 0.2
    return truth + 0.1 * rng.standard_normal(shape), truth


def test_golden_numbers(golden: Path) -> None:
    def f(n: int, a: int) -> np.ndarray:
        i = np.arange(n, dtype=np.int64)
        return ((i * 1664525 + 1013904223 + a * 2246822519) % 2**31) / 2**31

    shape, n = (12, 16, 20), 12 * 16 * 20
    truth = f(n, 1).reshape(shape) * 0.8 + 0.1
    estimate = truth + 0.02 * (f(n, 5).reshape(shape) - 0.5)
    expected = json.loads((golden / "metrics.json").read_text("utf-8"))
    found = score(estimate, truth, ratio=4).to_dict()
    assert {k: found[k] for k in expected} == pytest.approx(expected, rel=1e-9)


def test_definitions() -> None:
    fused, truth = pair()
    found = score(fused, truth, ratio=3)
    mse = np.square(fused - truth).mean((1, 2))
    assert found.psnr == pytest.approx(np.mean(10 * np.log10(truth.max((1, 2)) ** 2 / mse)), rel=1e-12)
    assert found.rmse == pytest.approx(np.sqrt(np.square(fused - truth).mean()), rel=1e-12)
    ergas = 100 / 3 * np.sqrt(np.mean(mse / truth.mean((1, 2)) ** 2))
    assert found.ergas == pytest.approx(ergas, rel=1e-12)
    angles = [
        math.degrees(math.acos(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))))
        for a, b in zip(fused.reshape(4, -1).T, truth.reshape(4, -1).T, strict=True)
    ]
    assert found.sam == pytest.approx(np.mean(angles), rel=1e-9)
    correlations = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(fused, truth, strict=True)]
    assert found.cc == pytest.approx(np.mean(correlations), rel=1e-9)
    assert found.pixels == 40 * 36


def test_by_hand() -> None:
    truth = np.array([[[3.0, 4.0]], [[4.0, 3.0]]])
    fused = np.array([[[3.0, 4.0]], [[4.0, 5.0]]])  # one value off by 2
    found = score(fused, truth, ratio=2)
    # band 1 is perfect, so its PSNR is infinite; band 2 has MSE 2, peak 4
    assert found.psnr == math.inf
    assert found.rmse == pytest.approx(1.0)
    assert found.ergas == pytest.approx(50 * math.sqrt((0 + 2 / 3.5**2) / 2))
    cosine = (16 + 15) / (math.sqrt(41) * 5)
    assert found.sam == pytest.approx(math.degrees(math.acos(cosine)) / 2)


def test_identity_is_perfect() -> None:
    _, truth = pair()
    found = score(truth, truth, ratio=4)
    assert found.psnr == math.inf
    assert (found.ergas, found.rmse) == (0, 0)
    assert found.sam == pytest.approx(0, abs=2e-6)
    assert [found.uiqi, found.ssim, found.cc] == pytest.approx([1, 1, 1], abs=1e-12)


def test_sam_is_blind_to_scale_and_clips_its_cosine() -> None:
    _, truth = pair()
    assert score(7.3 * truth, truth, ratio=4).sam == pytest.approx(0, abs=2e-6)
    assert score(-truth, truth, ratio=4).sam == pytest.approx(180, abs=2e-6)


def test_zero_spectra_have_no_angle() -> None:
    fused, truth = pair()
    expected = score(fused[:, 1:], truth[:, 1:], ratio=4).sam
    truth[:, 0] = 0
    assert score(fused, truth, ratio=4).sam == pytest.approx(expected, rel=1e-12)


def test_masked_pixels_do_not_count_in_either_image() -> None:
    fused, truth = pair()
    keep = np.ones((40, 36), bool)
    keep[3, 5] = keep[20, 30] = False
    broken_truth, broken_fused = truth.copy(), fused.copy()
    broken_truth[1, 3, 5] = np.nan  # one band is enough
    broken_fused[:, 20, 30] = np.nan
    found = score(broken_fused, broken_truth, ratio=4)
    line = score(fused[:, keep][:, None], truth[:, keep][:, None], ratio=4)
    for name in ("psnr", "sam", "ergas", "rmse", "cc", "pixels"):
        assert getattr(found, name) == pytest.approx(getattr(line, name), rel=1e-9), name


def test_what_lies_under_the_mask_never_matters() -> None:
    fused, truth = pair()
    truth[:, 34:38, 4:9] = np.nan
    one, other = fused.copy(), fused.copy()
    one[:, 34:38, 4:9], other[:, 34:38, 4:9] = 1e9, -3
    assert score(one, truth, ratio=4) == score(other, truth, ratio=4)


def test_strips_give_the_pixel_scores_of_the_whole() -> None:
    fused, truth = pair(shape=(3, 96, 64))
    truth[:, 40:50, 3] = np.nan
    whole = score(fused, truth, ratio=4)
    strips = ((fused[:, y : y + 32], truth[:, y : y + 32]) for y in range(0, 96, 32))
    parts = score_blocks(strips, ratio=4, data_range=data_range(truth))
    for name in ("psnr", "sam", "ergas", "rmse", "cc", "uiqi", "pixels"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-9), name


def test_float32_cubes_are_scored_in_float64() -> None:
    rng = np.random.default_rng(1)
    truth = (10_000 + rng.random((2, 300, 300))).astype(np.float32)
    fused = truth + np.float32(0.25)
    assert score(fused, truth, ratio=4).rmse == pytest.approx(0.25, rel=1e-3)
    assert score(fused, truth, ratio=4).cc == pytest.approx(1, abs=1e-6)


def naive_uiqi(fused: np.ndarray, truth: np.ndarray) -> float:
    values = []
    for y in range(0, truth.shape[1] - UIQI_BLOCK + 1, UIQI_BLOCK):
        for x in range(0, truth.shape[2] - UIQI_BLOCK + 1, UIQI_BLOCK):
            for band in range(len(truth)):
                t = truth[band, y : y + UIQI_BLOCK, x : x + UIQI_BLOCK].ravel()
                f = fused[band, y : y + UIQI_BLOCK, x : x + UIQI_BLOCK].ravel()
                (vt, cov), (_, vf) = np.cov(t, f, bias=True)
                values.append(4 * cov * t.mean() * f.mean() / ((vt + vf) * (t.mean() ** 2 + f.mean() ** 2)))
    return float(np.mean(values))


def test_uiqi_against_loops() -> None:
    fused, truth = pair(shape=(2, 70, 100))
    assert score(fused, truth, ratio=4).uiqi == pytest.approx(naive_uiqi(fused, truth), rel=1e-9)


def naive_ssim(fused: np.ndarray, truth: np.ndarray) -> float:
    axis = np.arange(-5, 6)
    kernel = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    per_band = []
    for f, t in zip(fused, truth, strict=True):
        size = t.max() - t.min()
        c1, c2 = (0.01 * size) ** 2, (0.03 * size) ** 2
        values = []
        for y in range(5, t.shape[0] - 5):
            for x in range(5, t.shape[1] - 5):
                a, b = t[y - 5 : y + 6, x - 5 : x + 6], f[y - 5 : y + 6, x - 5 : x + 6]
                ma, mb = (kernel * a).sum(), (kernel * b).sum()
                va, vb = (kernel * (a - ma) ** 2).sum(), (kernel * (b - mb) ** 2).sum()
                cov = (kernel * (a - ma) * (b - mb)).sum()
                values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
        per_band.append(np.mean(values))
    return float(np.mean(per_band))


def test_ssim_against_loops() -> None:
    fused, truth = pair(shape=(2, 24, 20))
    assert score(fused, truth, ratio=4).ssim == pytest.approx(naive_ssim(fused, truth), rel=1e-9)


def test_ssim_windows_stay_clear_of_the_mask() -> None:
    fused, truth = pair(shape=(1, 40, 20))
    upper = score(fused[:, :20], truth[:, :20], ratio=4)
    truth[:, 20:] = np.nan
    ranges = data_range(truth[:, :20])
    masked = score_blocks([(fused, truth)], ratio=4, data_range=ranges)
    assert masked.ssim == pytest.approx(upper.ssim, rel=1e-9)


def test_a_constant_band_is_judged_by_its_value() -> None:
    # 0.1 has no exact binary form: rounding must not pass for texture
    truth = np.stack([np.full((64, 64), 0.1), np.random.default_rng(0).random((64, 64))])
    fused = truth.copy()
    assert score(fused, truth, ratio=4).uiqi == pytest.approx(1, abs=1e-12)
    fused[0] *= 2
    twice = 2 * 2 / (1 + 4)  # luminance term alone
    found = score(fused, truth, ratio=4)
    assert found.uiqi == pytest.approx((twice + 1) / 2, abs=1e-9)
    assert found.cc == pytest.approx(1, abs=1e-9)  # of the band that varies
    assert found.ssim == pytest.approx(1, abs=1e-9)


def test_a_band_of_zeros_leaves_the_relative_scores_alone() -> None:
    fused, truth = pair()
    expected = score(fused[1:], truth[1:], ratio=4)
    truth[0] = fused[0] = 0
    found = score(fused, truth, ratio=4)
    assert [found.psnr, found.ergas, found.sam] == pytest.approx(
        [expected.psnr, expected.ergas, expected.sam]
    )


def test_tiny_images_have_no_ssim_but_the_rest() -> None:
    fused, truth = pair(shape=(3, 6, 5))
    found = score(fused, truth, ratio=4)
    assert math.isnan(found.ssim)
    assert math.isfinite(found.psnr + found.sam + found.ergas + found.uiqi + found.cc)


def test_sentences() -> None:
    fused, truth = pair()
    with pytest.raises(InputError, match=r"fused cube is \(4, 40, 35\).*truth is \(4, 40, 36\)"):
        score(fused[:, :, 1:], truth, ratio=4)
    with pytest.raises(InputError, match="share no valid pixel"):
        score(fused, np.full_like(truth, np.nan), ratio=4)
    with pytest.raises(InputError, match="share no valid pixel"):
        score_blocks([], ratio=4, data_range=np.ones(1))
    with pytest.raises(InputError, match="zero everywhere"):
        score(fused, np.zeros_like(truth), ratio=4)


def test_data_range_leaves_nodata_out() -> None:
    truth = np.array([[[1.0, np.nan, 4.0]], [[np.nan, np.nan, np.nan]]])
    np.testing.assert_array_equal(data_range(truth), [3, 0])


def test_scores_as_plain_numbers() -> None:
    scores = Scores(30, 2, 3, 0.1, 0.9, 0.8, 0.95, 100)
    assert scores.to_dict()["psnr"] == 30
    assert set(scores.to_dict()) == {"psnr", "sam", "ergas", "rmse", "uiqi", "ssim", "cc", "pixels"}
