"""PSF and SRF operators, their adjoint, the way back up, and noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csakd_geo.degrade import PSF, add_noise, adjoint, apply_srf, axis_gram, degrade, observe, upsample
from csakd_geo.errors import GridError

psfs = st.builds(
    lambda ratio, width, dy, dx: PSF(ratio, ratio * width, ratio * dy, ratio * dx),
    st.integers(2, 10),
    st.floats(0.3, 2.5),
    st.floats(-1.5, 1.5),
    st.floats(-1.5, 1.5),
)


def gaussian_matrix(size: int, ratio: int, *, fwhm: float, shift: float, pad: str) -> np.ndarray:
    """One axis of the PSF and decimation as a dense matrix, kept to 3 sigma, from the definition."""
    sigma = fwhm / 2.3548200450309493
    reach = int(np.ceil(3 * sigma + abs(shift) + ratio)) + 1
    matrix = np.zeros((size, size * ratio))
    for cell in range(size):
        centre = cell * ratio + (ratio - 1) / 2 + shift
        positions = np.arange(cell * ratio - reach, (cell + 1) * ratio + reach)
        weights = np.exp(-(((positions - centre) / sigma) ** 2) / 2)
        weights /= weights.sum()
        for position, weight in zip(positions, weights, strict=True):
            if pad == "edge":
                matrix[cell, np.clip(position, 0, size * ratio - 1)] += weight
            elif 0 <= position < size * ratio:
                matrix[cell, position] += weight
    return matrix


@given(psfs)
def test_taps_sum_to_one_and_have_the_parity_of_the_ratio(psf: PSF) -> None:
    for taps in psf.taps():
        assert taps.sum() == pytest.approx(1, abs=1e-12)
        assert (taps >= 0).all()
        assert len(taps) % 2 == psf.ratio % 2
        assert len(taps) == psf.ratio + 2 * psf.margin


@given(st.integers(2, 10), st.floats(0.3, 2.5))
def test_a_centred_psf_is_symmetric(ratio: int, width: float) -> None:
    ky, kx = PSF(ratio, ratio * width).taps()
    np.testing.assert_allclose(ky, ky[::-1], atol=1e-15)
    np.testing.assert_array_equal(ky, kx)


@given(psfs)
def test_taps_have_the_moments_of_the_psf(psf: PSF) -> None:
    ky, _ = psf.taps()
    position = np.arange(len(ky)) - (len(ky) - 1) / 2
    centre = ky @ position
    sigma = psf.fwhm / 2.3548
    if sigma < 0.7 or abs(psf.dy) > 0.5 * psf.ratio:  # too few samples; or cut off on one side by design
        return
    assert centre == pytest.approx(psf.dy, abs=0.05 * sigma + 0.02)
    assert np.sqrt(ky @ (position - centre) ** 2) == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("ratio", [2, 3, 4, 5])
@pytest.mark.parametrize(("dy", "dx"), [(0.0, 0.0), (0.7, -1.3)])
def test_degrade_is_the_gaussian_of_the_definition(ratio: int, dy: float, dx: float) -> None:
    psf = PSF(ratio, 1.2 * ratio, dy, dx)
    cube = np.random.default_rng(ratio).random((2, 9 * ratio, 7 * ratio))
    rows = gaussian_matrix(9, ratio, fwhm=psf.fwhm, shift=dy, pad="edge")
    cols = gaussian_matrix(7, ratio, fwhm=psf.fwhm, shift=dx, pad="edge")
    np.testing.assert_allclose(degrade(cube, psf), rows @ cube @ cols.T, atol=6e-3)


@given(psfs)
def test_adjoint_is_the_transpose(psf: PSF) -> None:
    rng = np.random.default_rng(1)
    fine = rng.standard_normal((2, 6 * psf.ratio, 5 * psf.ratio))
    coarse = rng.standard_normal((2, 6, 5))
    seen = np.vdot(degrade(fine, psf), coarse)
    assert seen == pytest.approx(np.vdot(fine, adjoint(coarse, psf)), abs=1e-9)


@given(psfs)
def test_gram_along_an_axis_is_the_operator_times_its_transpose(psf: PSF) -> None:
    rows = np.eye(7 * psf.ratio)[:, :, None] * np.ones(3 * psf.ratio)  # one fine row at a time
    operator = degrade(rows, psf)[:, :, 1].T
    np.testing.assert_allclose(axis_gram(psf.taps()[0], psf.ratio, 7), operator @ operator.T, atol=1e-12)


@given(psfs)
def test_constants_come_through(psf: PSF) -> None:
    fine = np.full((1, 4 * psf.ratio, 6 * psf.ratio), 7.25, np.float32)
    np.testing.assert_allclose(degrade(fine, psf), 7.25, rtol=1e-5)
    np.testing.assert_allclose(upsample(degrade(fine, psf), psf), 7.25, rtol=1e-5)
    assert degrade(fine, psf).dtype == upsample(fine, psf).dtype == np.float32


def test_a_very_narrow_psf_takes_the_nearest_pixel() -> None:
    cube = np.arange(36.0).reshape(1, 6, 6)
    np.testing.assert_allclose(degrade(cube, PSF(3, 0.01)), cube[:, 1::3, 1::3])


@given(st.integers(2, 10), st.floats(0.3, 2.5))
def test_a_centred_psf_is_the_block_mean_of_what_is_linear(ratio: int, width: float) -> None:
    psf = PSF(ratio, ratio * width)
    n, h = 4 + 2 * psf.halo, psf.halo
    y, x = np.mgrid[: n * ratio, : n * ratio]
    ramp = (2.0 * y - 3.0 * x)[None]
    mean = ramp.reshape(1, n, ratio, n, ratio).mean((2, 4))
    inner = np.s_[:, h : n - h, h : n - h]
    np.testing.assert_allclose(degrade(ramp, psf)[inner], mean[inner], atol=1e-9)


@given(psfs)
def test_linear_ramps_come_back_exactly(psf: PSF) -> None:
    r, n = psf.ratio, 12 + 2 * psf.halo
    axis = np.arange(n * r, dtype=np.float64)
    ramp = (2 * axis[:, None] - 3 * axis[None] + 5)[None]
    # the samples of the ramp where the PSF's centre lies, without its truncation
    at = (np.arange(n) + 0.5) * r - 0.5
    samples = (2 * (at + psf.dy)[:, None] - 3 * (at + psf.dx)[None] + 5)[None]
    back = upsample(samples, psf)
    edge = 4 * r
    np.testing.assert_allclose(back[:, edge:-edge, edge:-edge], ramp[:, edge:-edge, edge:-edge], atol=1e-9)


@pytest.mark.parametrize("dy", [-1.5, 0.0, 2.0])
def test_a_displaced_pair_comes_out_in_place(dy: float) -> None:
    psf = PSF(4, 4.0, dy, 0.5)
    y, x = np.mgrid[:160, :160]
    smooth = (np.sin(y / 15) * np.cos(x / 19))[None]
    back = upsample(degrade(smooth, psf), psf)
    inner = np.s_[:, 16:-16, 16:-16]
    # only the blur is left: (1 - attenuation) of the amplitude
    sigma = psf.fwhm / 2.3548
    blurred = smooth * np.exp(-(sigma**2) * (1 / 15**2 + 1 / 19**2) / 2)
    assert np.abs(back[inner] - blurred[inner]).max() < 4e-3


@given(psfs, st.integers(0, 3), st.integers(0, 3))
def test_windows_see_what_the_whole_sees(psf: PSF, y: int, x: int) -> None:
    r, halo = psf.ratio, psf.halo
    n = 8 + 2 * halo
    whole = np.random.default_rng(2).random((1, (n + 3) * r, (n + 3) * r)).astype(np.float32)
    part = whole[:, y * r : (y + n) * r, x * r : (x + n) * r]
    inner = np.s_[:, halo : n - halo, halo : n - halo]
    seen = degrade(whole, psf)[:, y : y + n, x : x + n]
    np.testing.assert_array_equal(degrade(part, psf)[inner], seen[inner])
    coarse = np.random.default_rng(3).random((1, 14, 14)).astype(np.float32)
    fine = np.s_[:, 3 * r : -3 * r, 3 * r : -3 * r]
    np.testing.assert_array_equal(
        upsample(coarse[:, y : y + 10, x : x + 10], psf)[fine],
        upsample(coarse, psf)[:, y * r : (y + 10) * r, x * r : (x + 10) * r][fine],
    )


def test_a_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(GridError, match="13 x 12 pixels cannot be divided by ratio 4"):
        degrade(np.zeros((1, 13, 12)), PSF.nominal(4))


def test_srf_is_a_weighted_sum() -> None:
    cube = np.random.default_rng(0).random((3, 2, 2)).astype(np.float32)
    srf = np.array([[0.5, 0.5, 0], [0, 0.25, 0.75]])
    seen = apply_srf(cube, srf)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen[1], 0.25 * cube[1] + 0.75 * cube[2], rtol=1e-6)


@pytest.mark.parametrize("snr", [10.0, 35.0])
def test_noise_has_the_asked_strength_in_every_band(snr: float) -> None:
    rng = np.random.default_rng(5)
    cube = np.stack([np.full((200, 200), 3.0), rng.random((200, 200)) * 100])
    noise = add_noise(cube, snr, np.random.default_rng(6)) - cube
    found = 10 * np.log10(np.square(cube).mean((1, 2)) / np.square(noise).mean((1, 2)))
    np.testing.assert_allclose(found, snr, atol=0.1)
    assert abs(noise.mean((1, 2)) / noise.std((1, 2))).max() < 0.03
    assert abs(np.corrcoef(noise.reshape(2, -1))[0, 1]) < 0.03


def test_observe_joins_both_sensors_and_repeats_itself() -> None:
    truth = np.random.default_rng(0).random((5, 12, 16)).astype(np.float32)
    srf = np.full((2, 5), 0.2)
    psf = PSF(4, 4.0)
    hsi, msi = observe(truth, srf, psf=psf)
    np.testing.assert_array_equal(hsi, degrade(truth, psf))
    np.testing.assert_allclose(msi, np.broadcast_to(truth.mean(0), (2, 12, 16)), rtol=1e-5)
    first, again = (observe(truth, srf, psf=psf, snr_hsi=20, snr_msi=30, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    other = observe(truth, srf, psf=psf, snr_hsi=20, snr_msi=30, seed=5)
    assert (other[0] != first[0]).any()
    assert (first[0] != hsi).any()
