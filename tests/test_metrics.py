"""The scores against golden numbers, hand-made cases and naive loops."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from csakd_geo.errors import InputError
from csakd_geo.metrics import (
    UIQI_BLOCK,
    NoReferenceTally,
    Scores,
    block_edges,
    data_range,
    hypercomplex_quality,
    q2n,
    score,
    score_blocks,
)
from csakd_geo.metrics.noreference import ground_side


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


def hamilton(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Product of quaternions, (4, n) each."""
    a1, b1, c1, d1 = p
    a2, b2, c2, d2 = q
    return np.stack(
        [
            a1 * a2 - b1 * b2 - c1 * c2 - d1 * d2,
            a1 * b2 + b1 * a2 + c1 * d2 - d1 * c2,
            a1 * c2 - b1 * d2 + c1 * a2 + d1 * b2,
            a1 * d2 + b1 * c2 - c1 * b2 + d1 * a2,
        ]
    )


def conjugate(p: np.ndarray) -> np.ndarray:
    return np.concatenate([p[:1], -p[1:]])


def cayley_dickson(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Product of hypercomplex numbers, (2^n, pixel) each, pixel by pixel."""
    if len(p) == 1:
        return p * q
    (a, b), (c, d) = np.split(p, 2), np.split(q, 2)
    times = cayley_dickson
    return np.concatenate([times(a, c) - times(conjugate(d), b), times(d, a) + times(b, conjugate(c))])


def naive_q2n(a: np.ndarray, b: np.ndarray, times: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    """The definition with products of pixels: E[z w*] - mean(z) mean(w)*, and so on."""
    mean_a, mean_b = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    cov = times(a, conjugate(b)).mean(1) - times(mean_a, conjugate(mean_b))[:, 0]
    norm = np.linalg.norm
    size = norm(mean_a) ** 2 + norm(mean_b) ** 2
    spread = np.square(a).sum(0).mean() + np.square(b).sum(0).mean() - size
    return float(4 * norm(cov) * norm(mean_a) * norm(mean_b) / (spread * size))


def test_q2n_of_four_bands_is_that_of_quaternions() -> None:
    a, b = (cube.reshape(4, -1) for cube in pair())
    assert hypercomplex_quality(a, b) == pytest.approx(naive_q2n(a, b, hamilton), rel=1e-10)


@pytest.mark.parametrize("bands", [1, 2, 3, 8, 11, 32])
def test_q2n_against_products_of_pixels(bands: int) -> None:
    a, b = (cube.reshape(bands, -1) for cube in pair(seed=bands, shape=(bands, 12, 12)))
    full = 1 << (bands - 1).bit_length()
    padded = [np.pad(cube, ((0, full - bands), (0, 0))) for cube in (a, b)]
    assert hypercomplex_quality(a, b) == pytest.approx(naive_q2n(*padded, cayley_dickson), rel=1e-10)
    assert hypercomplex_quality(a, b) == pytest.approx(hypercomplex_quality(b, a), rel=1e-10)


def test_octonions_keep_their_length() -> None:
    """Products of up to eight components multiply lengths; of sixteen they do not."""
    rng = np.random.default_rng(0)
    for size, keeps in ((2, True), (8, True), (16, False)):
        p, q = rng.standard_normal((2, size, 50))
        lengths = np.linalg.norm(cayley_dickson(p, q), axis=0)
        expected = np.linalg.norm(p, axis=0) * np.linalg.norm(q, axis=0)
        assert np.allclose(lengths, expected) == keeps


def test_q2n_of_one_band_is_uiqi() -> None:
    fused, truth = pair(shape=(1, 64, 96))
    assert q2n(fused, truth) == pytest.approx(naive_uiqi(fused, truth), rel=1e-9)
    assert q2n(-fused, truth) == pytest.approx(q2n(fused, truth), rel=1e-9)  # a modulus


@pytest.mark.parametrize("bands", [1, 5, 200])
def test_q2n_of_an_image_with_itself_is_one(bands: int) -> None:
    _, truth = pair(shape=(bands, 40, 33))
    assert q2n(truth, truth) == pytest.approx(1, abs=1e-12)
    assert q2n(2 * truth, truth) == pytest.approx((4 / 5) ** 2, rel=1e-9)  # 2 * 2 / (1 + 4) twice


def test_q2n_leaves_masked_pixels_out_and_weighs_blocks_by_the_others() -> None:
    fused, truth = pair(shape=(3, 32, 96))
    spoilt = truth.copy()
    spoilt[1, :, 40:64] = np.nan
    fused[:, 5, 70] = np.nan
    parts = []
    for columns in (np.arange(32), np.arange(32, 40), np.arange(64, 96)):
        at = np.array([(y, x) for y in range(32) for x in columns if (y, x) != (5, 70)]).T
        a, b = (cube[:, at[0], at[1]] for cube in (fused, truth))
        parts.append((hypercomplex_quality(a, b), at.shape[1]))
    values, weights = zip(*parts, strict=True)
    assert q2n(fused, spoilt) == pytest.approx(np.average(values, weights=weights), rel=1e-12)
    with pytest.raises(InputError, match="share no valid pixel"):
        q2n(fused, np.full_like(truth, np.nan))
    with pytest.raises(InputError, match="must agree"):
        q2n(fused, truth[:2])


@pytest.mark.parametrize(
    ("length", "edges"),
    [
        (5, [0, 5]),
        (32, [0, 32]),
        (47, [0, 47]),
        (48, [0, 32, 48]),
        (79, [0, 32, 79]),
        (100, [0, 32, 64, 100]),
    ],
)
def test_blocks_cover_an_axis(length: int, edges: list[int]) -> None:
    assert block_edges(length, 32) == edges


@pytest.mark.parametrize(
    ("ratio", "side"), [(1, 32), (2, 16), (3, 8), (4, 8), (5, 8), (6, 4), (10, 4), (90, 4)]
)
def test_blocks_of_the_same_ground(ratio: int, side: int) -> None:
    assert ground_side(ratio) == side
    assert UIQI_BLOCK % side == 0


def window(ratio: int = 4, cells: int = 32) -> dict[str, np.ndarray]:
    """Random images of a scene on both grids."""
    rng = np.random.default_rng(3)
    fine = {name: rng.random((2, cells * ratio, cells * ratio)) + 0.5 for name in ("ours", "msi")}
    low = {name: rng.random((2, cells, cells)) + 0.5 for name in ("hsi", "low")}
    spectra = {name: rng.random((5, cells, cells)) + 0.5 for name in ("degraded", "spectra")}
    return {**fine, **low, **spectra, "good": np.ones((cells, cells), bool)}


def tally(*parts: dict[str, np.ndarray], ratio: int = 4) -> NoReferenceTally:
    found = NoReferenceTally(2, ratio)
    for part in parts:
        found.add_spectra(part["degraded"], part["spectra"], part["good"])
        found.add_detail((part["ours"], part["msi"]), (part["hsi"], part["low"]), part["good"])
    return found


def test_hqnr_is_what_its_definition_says() -> None:
    one = window()
    found = tally(one).result()
    assert found.d_lambda == pytest.approx(1 - q2n(one["degraded"], one["spectra"]), rel=1e-12)

    def mean_uiqi(a: np.ndarray, b: np.ndarray, side: int) -> np.ndarray:
        total, count = np.zeros(2), 0
        for y in range(0, a.shape[1], side):
            for x in range(0, a.shape[2], side):
                for band in range(2):
                    f, t = (cube[band, y : y + side, x : x + side].ravel() for cube in (a, b))
                    (vf, cov), (_, vt) = np.cov(f, t, bias=True)
                    total[band] += 4 * cov * f.mean() * t.mean() / (vf + vt) / (f.mean() ** 2 + t.mean() ** 2)
                count += 1
        return total / count

    expected = np.abs(mean_uiqi(one["ours"], one["msi"], 32) - mean_uiqi(one["hsi"], one["low"], 8))
    np.testing.assert_allclose(found.d_s_bands, expected, rtol=1e-9)
    assert found.d_s == pytest.approx(expected.mean())
    assert found.hqnr == pytest.approx((1 - found.d_lambda) * (1 - expected.mean()))
    assert found.to_dict() == {
        "hqnr": found.hqnr, "d_lambda": found.d_lambda, "d_s": found.d_s, "pixels": 32 * 32,
    }  # fmt: skip


def test_a_perfect_product_has_hqnr_one() -> None:
    one = window()
    one |= {"degraded": one["spectra"], "ours": one["msi"], "hsi": one["low"]}
    found = tally(one).result()
    assert [found.hqnr, found.d_lambda, found.d_s] == pytest.approx([1, 0, 0], abs=1e-12)
    blurred = one | {"ours": gaussian_filter(one["msi"], (0, 2, 2))}  # right on average, without detail
    assert tally(blurred).result().d_s > 0.3


def test_windows_of_whole_blocks_give_the_scores_of_the_scene() -> None:
    ratio, cells = 4, 96
    whole = window(ratio, cells)
    whole["good"][30:50, 20:40] = False
    parts = []
    for top, bottom in ((0, 32), (32, 96)):
        for left, right in ((0, 64), (64, 96)):
            low = np.s_[..., top:bottom, left:right]
            high = np.s_[..., top * ratio : bottom * ratio, left * ratio : right * ratio]
            parts.append({k: v[high if k in ("ours", "msi") else low] for k, v in whole.items()})
    expected, found = tally(whole).result(), tally(*parts).result()
    assert found.d_lambda == pytest.approx(expected.d_lambda, rel=1e-12)
    np.testing.assert_allclose(found.d_s_bands, expected.d_s_bands, rtol=1e-12)
    assert found.cells == expected.cells == cells**2 - 400


def test_what_is_masked_may_hold_anything() -> None:
    one = window()
    one["good"][:, :16] = False
    expected = tally(one).result()
    for name, cube in one.items():
        if name != "good":
            cube[:, :, : cube.shape[2] // 2] = np.nan
    found = tally(one).result()
    assert found.hqnr == expected.hqnr
    assert np.isfinite(found.hqnr)
    one["good"][:] = False
    one["good"][:3, :5] = True  # 15 pixels say too little
    assert math.isnan(tally(one).result().hqnr)
