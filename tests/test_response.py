"""What is found blind in a pair, against pairs made by scipy with known answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from simulated import Array, aviris, broad_bands, land, made_pair, rmse

from csakd_geo.degrade import PSF
from csakd_geo.errors import SpectralError
from csakd_geo.io import open_source
from csakd_geo.pair import Block, Pair
from csakd_geo.psf import estimate_psf
from csakd_geo.response import estimate_noise, estimate_response
from csakd_geo.spectral import SpectralAxis
from csakd_geo.threads import one_blas_thread

if TYPE_CHECKING:
    from csakd_geo.simulate import SimulatedPaths


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_blas_thread():
        yield


PLACES = [  # ratio, FWHM and displacement in LR pixels
    (2, 1.4, 0.3, -0.8),
    (3, 1.0, 0.0, 0.0),
    (4, 0.8, -0.6, 0.45),
    (5, 1.7, 0.9, -0.1),
]


def check_place(pair: Pair, psf: PSF, *, ratio: int, fwhm: float, dy: float, dx: float) -> None:
    assert psf.fwhm == pytest.approx(fwhm * ratio, rel=0.08)
    assert psf.dy == pytest.approx(dy * ratio, abs=0.2)
    assert psf.dx == pytest.approx(dx * ratio, abs=0.2)


@pytest.mark.parametrize(("ratio", "fwhm", "dy", "dx"), PLACES)
def test_width_and_displacement_of_made_scenes(ratio: int, fwhm: float, dy: float, dx: float) -> None:
    truth = land(height=32 * ratio, width=30 * ratio, seed=ratio)
    pair, _, _ = made_pair(truth, ratio=ratio, fwhm=fwhm * ratio, dy=dy * ratio, dx=dx * ratio)
    psf, explained, confident = estimate_psf(pair)
    check_place(pair, psf, ratio=ratio, fwhm=fwhm, dy=dy, dx=dx)
    assert explained > 0.9
    assert confident == ((dy, dx) != (0, 0))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "ratio", "fwhm", "dy", "dx"),
    [
        ("abu_airport_1", 4, 1.0, 0.3, -0.55),
        ("abu_beach_3", 4, 1.3, 0.0, 0.0),
        ("sandiego_0", 5, 0.9, -0.8, 0.7),
    ],
)
def test_width_and_displacement_of_real_spectra(
    shared_data: Path, name: str, ratio: int, fwhm: float, dy: float, dx: float
) -> None:
    truth = aviris(shared_data, name)
    pair, truth, _ = made_pair(truth, ratio=ratio, fwhm=fwhm * ratio, dy=dy * ratio, dx=dx * ratio)
    response = estimate_response(pair)
    check_place(pair, response.psf, ratio=ratio, fwhm=fwhm, dy=dy, dx=dx)
    seen = np.tensordot(response.operator, truth, axes=1) + response.offset[:, None, None]
    msi = pair.blocks[0].msi
    assert rmse(seen, msi) < 0.1 * msi.std()
    assert (response.misfit < 0.1 * msi.std((1, 2))).all()


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["abu_beach_3", "gatorsense_224"])
def test_one_band_that_explains_little_of_the_hsi_is_explained_by_it(shared_data: Path, name: str) -> None:
    truth = aviris(shared_data, name, side=88)
    truth = truth[np.ptp(truth.reshape(len(truth), -1), axis=1) > 0]
    pair, _, _ = made_pair(truth, srf=broad_bands(1, len(truth)), ratio=4, fwhm=4.4, dy=1.2, dx=-0.6)
    check_place(pair, estimate_psf(pair)[0], ratio=4, fwhm=1.1, dy=0.3, dx=-0.15)


def test_search_around_a_known_place() -> None:
    r = 3
    pair, _, _ = made_pair(land(height=120, width=120), ratio=r, dy=2.6 * r, dx=-1.2 * r)
    psf, explained, _ = estimate_psf(pair, centre=(2.0 * r, -r))
    check_place(pair, psf, ratio=r, fwhm=1, dy=2.6, dx=-1.2)
    wide, wide_explained, confident = estimate_psf(pair, reach=3)
    check_place(pair, wide, ratio=r, fwhm=1, dy=2.6, dx=-1.2)
    assert confident
    assert wide_explained == pytest.approx(explained, abs=0.01)
    # what lies out of reach is not found, and the search stays within its limit
    lost, lost_explained, _ = estimate_psf(pair)
    assert lost_explained < explained - 0.1
    assert max(abs(lost.dy), abs(lost.dx)) <= 1.5 * r


def test_without_phase_only_the_width_is_searched() -> None:
    pair, _, _ = made_pair(land(), fwhm=5.0)
    psf, _, confident = estimate_psf(pair, phase=False)
    assert (psf.dy, psf.dx) == (0, 0)
    assert psf.fwhm == pytest.approx(5, rel=0.08)
    assert not confident
    moved, _, _ = made_pair(land(), fwhm=5.0, dy=1.5, dx=-0.5)
    psf, _, _ = estimate_psf(moved, phase=False, centre=(1.5, -0.5))
    assert (psf.dy, psf.dx) == (1.5, -0.5)
    assert psf.fwhm == pytest.approx(5, rel=0.08)


def test_several_blocks_count_together() -> None:
    whole = [made_pair(land(seed=k), fwhm=4.4, dy=0.9, seed=k)[0] for k in range(3)]
    pair = replace(whole[0], blocks=tuple(p.blocks[0] for p in whole))
    check_place(pair, estimate_psf(pair)[0], ratio=4, fwhm=1.1, dy=0.225, dx=0)


def test_other_units_change_gain_and_offset_alone() -> None:
    truth = land(seed=3)
    plain, _, _ = made_pair(truth, dy=0.8)
    other, _, _ = made_pair(truth, dy=0.8, gain=3, offset=10)
    one, two = estimate_response(plain), estimate_response(other)
    assert (two.psf.dy, two.psf.fwhm) == pytest.approx((one.psf.dy, one.psf.fwhm), abs=0.02)
    np.testing.assert_allclose(two.gain, 3 * one.gain, rtol=0.03)
    np.testing.assert_allclose(two.offset, 3 * one.offset + 10, atol=0.03)
    np.testing.assert_allclose(one.gain, 1, rtol=0.15)
    np.testing.assert_allclose(two.misfit, 3 * one.misfit, rtol=0.03)


def test_the_operator_predicts_the_msi_from_the_truth() -> None:
    pair, truth, _ = made_pair(land(seed=4), gain=3, offset=10, snr=(40, None))
    response = estimate_response(pair)
    msi = pair.blocks[0].msi
    seen = np.tensordot(response.operator, truth, axes=1) + response.offset[:, None, None]
    for band in range(len(msi)):
        assert rmse(seen[band], msi[band]) < 0.06 * msi[band].std()
    assert (response.srf >= 0).all()
    np.testing.assert_allclose(response.srf.sum(1), 1, rtol=1e-9)
    np.testing.assert_allclose(response.operator, response.gain[:, None] * response.srf)
    # the response lies about where it was put
    t = np.linspace(0, 1, len(truth))
    np.testing.assert_allclose(response.srf @ t, broad_bands(4, len(truth)) @ t, atol=0.12)


def test_bands_without_variance_get_no_weight_far_from_the_nominal_band(sample: SimulatedPaths) -> None:
    """The last bands of the sample are noise; unknown wavelengths leave them any weight."""
    sources = open_source(sample.hsi), open_source(sample.msi)
    hsi, msi = (source.read(0, 0, source.height, source.width) for source in sources)
    axes = [source.axis for source in sources]
    pair = Pair((Block(hsi, msi, np.ones(hsi.shape[1:], bool)),), 4, *axes)
    far = np.abs(axes[0].wavelength - axes[1].wavelength[:, None]) > 2 * axes[1].filled_fwhm()[:, None] + 100
    astray = (estimate_response(pair, psf=PSF.nominal(4)).srf * far).sum(1)
    blind = replace(pair, msi_axis=SpectralAxis.unknown(axes[1].size))
    assert astray.max() < 0.1
    assert astray.max() < 0.5 * (estimate_response(blind, psf=PSF.nominal(4)).srf * far).sum(1).max()


def test_a_given_psf_is_taken_as_it_is() -> None:
    pair, _, _ = made_pair(land(), dy=0.8)
    psf = PSF(4, 4.5, 0.7, 0.1)
    response = estimate_response(pair, psf=psf)
    assert response.psf == psf
    assert not response.confident
    assert response.explained > 0.8


@pytest.mark.parametrize("snr", [20.0, 30.0])
def test_white_noise_is_measured_band_by_band(snr: float) -> None:
    pair, _, sigma = made_pair(land(bands=60, height=160, width=160), snr=(snr, 40))
    found = estimate_noise(pair.hsi_spectra())
    ratio = (found / sigma)[2:-2]  # bands with neighbours on both sides
    assert np.median(ratio) == pytest.approx(1, abs=0.2)
    assert (np.abs(ratio - 1) < 0.3).mean() > 0.9
    assert (found > 0).all()


def test_noise_of_one_band_alone_is_seen() -> None:
    rng = np.random.default_rng(0)
    pair_spectra = made_pair(land(bands=40), snr=(45, 40))[0].hsi_spectra()
    spectra = pair_spectra.copy()
    spectra[17] += 0.1 * rng.standard_normal(spectra.shape[1])
    found, before = estimate_noise(spectra), estimate_noise(pair_spectra)
    assert found[17] == pytest.approx(0.1, rel=0.15)
    np.testing.assert_allclose(np.delete(found, range(14, 21)), np.delete(before, range(14, 21)))


@pytest.mark.parametrize("bands", [1, 2, 3])
def test_noise_of_few_bands_is_a_positive_number(bands: int) -> None:
    found = estimate_noise(np.random.default_rng(0).random((bands, 50)))
    assert found.shape == (bands,)
    assert (found > 0).all()
    assert np.isfinite(found).all()
    assert (estimate_noise(np.full((bands, 50), 0.3)) > 0).all()


def unrelated(seed: int) -> Pair:
    one, _, _ = made_pair(land(seed=seed))
    other, _, _ = made_pair(land(seed=seed + 50))
    return replace(one, blocks=(replace(one.blocks[0], msi=other.blocks[0].msi),))


@pytest.mark.parametrize("seed", range(4))
def test_unrelated_images_give_no_confidence(seed: int) -> None:
    _, explained, confident = estimate_psf(unrelated(seed))
    assert not confident
    assert explained < 0.5


def flat(pair: Pair, *, hsi: bool = False, msi: bool = False) -> Pair:
    def level(cube: Array) -> Array:
        return np.full_like(cube, 0.1)

    block = pair.blocks[0]
    return replace(
        pair,
        blocks=(
            Block(
                level(block.hsi) if hsi else block.hsi, level(block.msi) if msi else block.msi, block.valid
            ),
        ),
    )


@pytest.mark.parametrize(("hsi", "msi"), [(True, False), (False, True), (True, True)])
def test_a_flat_image_tells_nothing_and_breaks_nothing(hsi: bool, msi: bool) -> None:
    pair = flat(made_pair(land(height=64, width=64))[0], hsi=hsi, msi=msi)
    psf, explained, confident = estimate_psf(pair)
    assert not confident
    assert explained == pytest.approx(0, abs=1e-6)
    assert np.isfinite([psf.fwhm, psf.dy, psf.dx]).all()
    sentence = "HSI has one value per band" if hsi else "No MSI band is related to the HSI"
    with pytest.raises(SpectralError, match=sentence):
        estimate_response(pair)


def test_a_dead_msi_band_has_no_response_and_spares_the_others() -> None:
    pair, _, _ = made_pair(land())
    block = pair.blocks[0]
    msi = block.msi.copy()
    msi[2] = 0.5
    response = estimate_response(replace(pair, blocks=(replace(block, msi=msi),)))
    assert (response.operator[2] == 0).all()
    assert response.offset[2] == pytest.approx(0.5)
    assert (response.operator[[0, 1, 3]].sum(1) > 0.8).all()


def test_too_few_pixels() -> None:
    pair, _, _ = made_pair(land(height=64, width=64))
    valid = np.zeros((16, 16), bool)
    valid[4:7, 4:9] = True
    few = replace(pair, blocks=(replace(pair.blocks[0], valid=valid),))
    with pytest.raises(SpectralError, match="Only 15 HSI pixels are valid in both images; at least 16"):
        estimate_response(few)


def test_masked_pixels_do_not_count() -> None:
    pair, _, _ = made_pair(land(), dy=1.2)
    block = pair.blocks[0]
    valid = block.valid.copy()
    valid[:, :8] = False
    hsi = block.hsi.copy()
    hsi[:, :, :8] = 77
    masked = estimate_response(replace(pair, blocks=(Block(hsi, block.msi, valid),)))
    clean = estimate_response(replace(pair, blocks=(Block(block.hsi, block.msi, valid),)))
    assert masked.psf == clean.psf
    np.testing.assert_array_equal(masked.operator, clean.operator)
    check_place(pair, masked.psf, ratio=4, fwhm=1, dy=0.3, dx=0)


def test_valid_pixels_at_the_rim_alone_are_used() -> None:
    pair, _, _ = made_pair(land())
    valid = np.zeros((24, 24), bool)
    valid[0] = valid[:, 0] = True
    response = estimate_response(replace(pair, blocks=(replace(pair.blocks[0], valid=valid),)))
    assert np.isfinite(response.operator).all()
    assert np.isfinite(response.noise).all()


@pytest.mark.parametrize(("bands", "msi_bands"), [(2, 1), (3, 3), (8, 1)])
def test_few_bands(bands: int, msi_bands: int) -> None:
    pair, _, _ = made_pair(land(bands=bands), srf=broad_bands(msi_bands, bands, width=0.6), dx=0.8)
    response = estimate_response(pair)
    assert response.srf.shape == (msi_bands, bands)
    assert np.isfinite(response.misfit).all()
    assert response.psf.dx == pytest.approx(0.8, abs=0.3)


def test_the_same_pair_gives_the_same_answer() -> None:
    one, two = (estimate_response(made_pair(land(), dy=0.5)[0]) for _ in range(2))
    assert one.psf == two.psf
    np.testing.assert_array_equal(one.operator, two.operator)
    np.testing.assert_array_equal(one.noise, two.noise)
