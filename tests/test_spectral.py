"""Band lists, their JSON form, nominal responses and band selection."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csakd_geo.errors import SpectralError
from csakd_geo.spectral import SpectralAxis, band_tags, gaussian_response, parse_bands

HSI = SpectralAxis.build(np.arange(400.0, 2501.0, 10.0), fwhm=np.full(211, 10.0))


def _gaussian(grid: np.ndarray, centre: float, fwhm: float) -> np.ndarray:
    weight = 2.0 ** (-(((grid - centre) / (fwhm / 2)) ** 2))
    return weight / weight.sum()


def test_uneven_lists_are_refused() -> None:
    with pytest.raises(SpectralError, match="3 wavelengths, 2 widths"):
        SpectralAxis.build([1.0, 2.0, 3.0], fwhm=[1.0, 1.0])


def test_values_cannot_be_changed_by_accident() -> None:
    source = np.array([500.0, 600.0])
    axis = SpectralAxis.build(source)
    source[0] = 0.0
    assert axis.wavelength[0] == 500.0
    with pytest.raises(ValueError, match="read-only"):
        axis.wavelength[0] = 1.0


@given(
    st.lists(
        st.tuples(
            st.one_of(st.just(np.nan), st.floats(1, 20000)),
            st.one_of(st.just(np.nan), st.floats(0.1, 500)),
            st.booleans(),
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_json_and_pickle_give_the_same_axis(rows: list[tuple[float, float, bool]], nominal: bool) -> None:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    axis = SpectralAxis.build(columns[0], fwhm=columns[1], good=columns[2], nominal=nominal)
    text = json.dumps(axis.to_dict(), allow_nan=False)
    assert SpectralAxis.from_dict(json.loads(text)).equals(axis)
    assert pickle.loads(pickle.dumps(axis)).equals(axis)


def test_equals_sees_each_field() -> None:
    axis = SpectralAxis.build([500.0, 600.0], fwhm=[5.0, 6.0])
    assert axis.equals(SpectralAxis.build([500.0, 600.0], fwhm=[5.0, 6.0]))
    assert not axis.equals(axis.with_good([True, False]))
    assert not axis.equals(SpectralAxis.build([500.0, 601.0], fwhm=[5.0, 6.0]))
    assert not axis.equals(SpectralAxis.build([500.0, 600.0]))
    assert not axis.equals(axis.take([0]))


def test_take_keeps_names_and_order() -> None:
    axis = SpectralAxis.build([500.0, 600.0, 700.0], good=[True, False, True]).take([2, 1])
    assert axis.names == ("Band 3", "Band 2")
    assert axis.wavelength.tolist() == [700.0, 600.0]
    assert axis.good.tolist() == [True, False]


def test_unknown_axis_has_no_wavelengths() -> None:
    axis = SpectralAxis.unknown(3)
    assert (axis.size, axis.has_wavelengths) == (3, False)
    half = SpectralAxis.build([500.0, np.nan])
    assert not half.has_wavelengths
    assert half.with_good([True, False]).has_wavelengths


def test_filled_fwhm_uses_the_nearer_neighbour() -> None:
    # A gap after 520, a step back (second detector) after 700, one recorded width.
    axis = SpectralAxis.build(
        [500.0, 510.0, 520.0, 690.0, 700.0, 640.0, 652.0],
        fwhm=[np.nan, 7.0, np.nan, np.nan, np.nan, np.nan, np.nan],
    )
    assert axis.filled_fwhm().tolist() == [10.0, 7.0, 10.0, 10.0, 10.0, 12.0, 12.0]
    assert np.isnan(SpectralAxis.build([500.0]).filled_fwhm()).all()


def test_band_tags_are_what_gdal_and_the_enmap_box_read() -> None:
    axis = SpectralAxis.build([665.25, np.nan], fwhm=[30.5, np.nan], good=[True, False], names=["red", "x"])
    imagery, default, description = band_tags(axis, 0)
    assert imagery == {"CENTRAL_WAVELENGTH_UM": "0.66525", "FWHM_UM": "0.0305"}
    assert default == {"wavelength": "665.25", "wavelength_units": "Nanometers", "fwhm": "30.5", "bbl": "1"}
    assert description == "red (665.25 nm)"
    assert band_tags(axis, 1) == ({}, {"bbl": "0"}, "x")
    named = SpectralAxis.build([665.25], names=["B4 (665 nm)"])
    assert band_tags(named, 0)[2] == "B4 (665 nm)"


@pytest.mark.parametrize("spacing", ["even", "uneven"])
def test_response_reproduces_the_band_integral(spacing: str) -> None:
    """Oracle: spectrum at 0.5 nm, integrated by each Gaussian directly."""
    centres = np.arange(400.0, 1001.0, 6.0)
    if spacing == "uneven":  # a second detector samples 700 to 800 nm again, three times as densely
        centres = np.concatenate([centres, np.arange(701.0, 799.0, 2.0)])
    hsi = SpectralAxis.build(centres, fwhm=np.full(centres.size, 7.0))
    msi = SpectralAxis.build([480.0, 560.0, 705.0, 790.0], fwhm=[65.0, 35.0, 15.0, 105.0])
    grid = np.arange(300.0, 1200.0, 0.5)
    spectrum = 0.2 + 0.1 * np.sin(grid / 60) + 0.4 / (1 + np.exp(-(grid - 715) / 12))
    seen = np.array([_gaussian(grid, c, 7.0) @ spectrum for c in centres])
    truth = np.array([_gaussian(grid, c, w) @ spectrum for c, w in zip(*_columns(msi), strict=True)])
    response = gaussian_response(msi, hsi)
    np.testing.assert_allclose(response.sum(axis=1), 1.0, atol=1e-12)
    assert (response >= 0).all()
    np.testing.assert_allclose(response @ seen, truth, rtol=2e-3)


def _columns(axis: SpectralAxis) -> tuple[np.ndarray, np.ndarray]:
    return axis.wavelength, axis.fwhm


def test_bad_bands_get_no_weight() -> None:
    mask = HSI.good.copy()
    mask[20:24] = False
    msi = SpectralAxis.build([620.0], fwhm=[80.0])
    response = gaussian_response(msi, HSI.with_good(mask))
    assert (response[0, 20:24] == 0).all()
    assert response[0, 24] > 0
    assert response.sum() == pytest.approx(1.0)


def test_a_band_narrower_than_the_sampling_is_the_nearest_band() -> None:
    response = gaussian_response(SpectralAxis.build([603.0], fwhm=[1.0]), HSI)
    assert response[0].argmax() == 20
    assert response[0, 20] > 0.9


@pytest.mark.parametrize(
    ("centre", "width", "mask_from", "mask_to"),
    [(2600.0, 30.0, 0, 0), (380.0, 60.0, 0, 0), (1373.0, 20.0, 93, 103), (1373.0, 20.0, 0, 211)],
)
def test_band_that_the_hsi_does_not_see(centre: float, width: float, mask_from: int, mask_to: int) -> None:
    mask = np.ones(211, dtype=bool)
    mask[mask_from:mask_to] = False
    with pytest.raises(SpectralError, match=r"lies outside|no good band"):
        gaussian_response(SpectralAxis.build([centre], fwhm=[width]), HSI.with_good(mask))


def test_band_without_width_is_refused() -> None:
    with pytest.raises(SpectralError, match="no wavelength or no width"):
        gaussian_response(SpectralAxis.build([600.0]), HSI)


@pytest.mark.parametrize(
    ("text", "bands"),
    [
        ("1", [0]),
        ("1,5-7", [0, 4, 5, 6]),
        ("7, 5-7 ,1", [6, 4, 5, 0]),
        ("450-480nm", [5, 6, 7, 8]),
        ("450nm - 480 NM", [5, 6, 7, 8]),
        ("450–480nm", [5, 6, 7, 8]),
        ("864nm", [46]),
        ("866.5nm,211", [47, 210]),
        ("395nm", [0]),
    ],
)
def test_parse_bands(text: str, bands: list[int]) -> None:
    assert parse_bands(text, HSI) == bands


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "bands 1 to 211"),
        ("212", "bands 1 to 211"),
        ("1-9" + "9" * 400, "bands 1 to 211"),
        ("9-5", "backwards"),
        ("", "no band number"),
        ("red", "'red'"),
        ("1.5", "'1.5'"),
        ("450nm-7", "'450nm-7'"),
        ("401-404nm", "holds no band"),
        ("3000nm", "400 to 2500 nm"),
    ],
)
def test_parse_bands_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(SpectralError, match=message):
        parse_bands(text, HSI)


def test_wavelengths_cannot_be_picked_where_none_are_known() -> None:
    with pytest.raises(SpectralError, match="records none"):
        parse_bands("865nm", SpectralAxis.unknown(4))
