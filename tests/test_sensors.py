"""The sensor table against the responses that the operators publish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from csakd_geo.errors import SpectralError
from csakd_geo.sensors import get_sensor, sensor_names
from csakd_geo.spectral import SpectralAxis, gaussian_response

COUNTS = {
    "sentinel2-10m": 4,
    "sentinel2": 10,
    "landsat8": 7,
    "landsat9": 7,
    "landsat-pan": 1,
    "worldview3": 8,
    "planetscope": 4,
    "superdove": 8,
    "ali": 9,
    "ali-pan": 1,
    "rgb": 3,
    "aviris-paper-4": 4,
}


def test_every_sensor_is_complete() -> None:
    assert set(sensor_names()) == set(COUNTS)
    for name, count in COUNTS.items():
        sensor = get_sensor(name)
        assert sensor.name == name
        assert sensor.axis.size == len(sensor.gsd) == count
        assert sensor.axis.has_wavelengths
        assert (sensor.axis.fwhm > 0).all()
        assert sensor.kind == "msi"
        assert sensor.title
        assert sensor.source


def test_sentinel2_bands_lie_at_the_published_centres() -> None:
    # Sentinel-2A central wavelengths of ESA's MSI overview page.
    expected = {"B2": 492.4, "B3": 559.8, "B4": 664.6, "B8": 832.8}
    axis = get_sensor("Sentinel2-10m").axis
    assert dict(zip(axis.names, axis.wavelength.tolist(), strict=True)) == expected
    assert set(get_sensor("sentinel2-10m").gsd) == {10.0}


def test_an_unknown_name_is_answered_with_all_names() -> None:
    with pytest.raises(SpectralError, match=r"'sentinel3'.*ali, ali-pan.*worldview3"):
        get_sensor("sentinel3")


def test_only_the_colour_camera_is_a_guess() -> None:
    assert [name for name in sensor_names() if get_sensor(name).axis.nominal] == ["rgb"]


def test_aviris_sees_the_bands_of_the_paper() -> None:
    aviris = SpectralAxis.build(np.linspace(370, 2500, 224), fwhm=np.full(224, 10.0))
    response = gaussian_response(get_sensor("aviris-paper-4").axis, aviris)
    centres = response @ aviris.wavelength
    np.testing.assert_allclose(centres, [485, 560, 660, 830], atol=1.0)


@pytest.mark.realdata
def test_planetscope_constants_come_from_the_measured_responses(shared: Path) -> None:
    table = np.genfromtxt(
        shared / "data" / "srf" / "PlanetScopeSD_RSR_SatID_10xx.csv", delimiter=",", skip_header=1
    )
    grid = np.arange(table[0, 0], table[-1, 0], 0.01)
    axis = get_sensor("planetscope").axis
    for band in range(4):
        response = np.interp(grid, table[:, 0], table[:, band + 1])
        above = grid[response >= response.max() / 2]
        assert axis.wavelength[band] == pytest.approx((grid * response).sum() / response.sum(), abs=0.3)
        assert axis.fwhm[band] == pytest.approx(above[-1] - above[0], abs=0.3)
