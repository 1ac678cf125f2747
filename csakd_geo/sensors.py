"""Multispectral sensors that a pair may come from: nominal Gaussian responses and pixel sizes.

Centre is the response-weighted mean wavelength and FWHM the distance of the outermost half-power points,
both computed from the response tables that the operators publish, where there are such; otherwise the band
edges of the mission's handbook. They are priors: the response is estimated from the pair itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from csakd_geo.errors import SpectralError
from csakd_geo.spectral import SpectralAxis

#: Name, centre in nm, FWHM in nm, GSD in m (0 where it depends on the flight).
_Band = tuple[str, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Sensor:
    """One sensor, or the part of it that comes as one product.

    Parameters
    ----------
    name : str
        Key of the registry.
    title : str
        For people.
    axis : SpectralAxis
        Band centres and FWHM in nm.
    gsd : tuple of float
        Pixel size of each band in m; 0 where it depends on the flight.
    kind : {"msi", "hsi"}
    source : str
        Where the numbers come from.
    """

    name: str
    title: str
    axis: SpectralAxis
    gsd: tuple[float, ...]
    kind: Literal["msi", "hsi"]
    source: str


_S2_SOURCE = "Sentinel-2A mean responses, ESA COPE-GSEG-EOPG-TN-15-0007 issue 3.0"
_L8_SOURCE = "Ball Aerospace relative spectral responses v1.2 of Landsat 8 OLI, instrument mean"
_ALI_SOURCE = "EO-1 User Guide, USGS 2003: band edges of ALI"

_SENTINEL2: tuple[_Band, ...] = (
    ("B2", 492.4, 64.3, 10),
    ("B3", 559.8, 34.8, 10),
    ("B4", 664.6, 30.6, 10),
    ("B5", 704.1, 14.0, 20),
    ("B6", 740.5, 13.6, 20),
    ("B7", 782.8, 19.0, 20),
    ("B8", 832.8, 104.8, 10),
    ("B8A", 864.7, 20.5, 20),
    ("B11", 1613.7, 89.7, 20),
    ("B12", 2202.4, 173.6, 20),
)
_OLI: tuple[_Band, ...] = (
    ("B1 coastal", 443.0, 16.0, 30),
    ("B2 blue", 482.6, 60.1, 30),
    ("B3 green", 561.3, 57.4, 30),
    ("B4 red", 654.6, 37.5, 30),
    ("B5 NIR", 864.6, 28.2, 30),
    ("B6 SWIR1", 1609.1, 84.7, 30),
    ("B7 SWIR2", 2201.2, 186.7, 30),
)
_WORLDVIEW3: tuple[_Band, ...] = (
    ("coastal", 427.5, 47.3, 1.24),
    ("blue", 481.8, 59.2, 1.24),
    ("green", 546.7, 69.0, 1.24),
    ("yellow", 604.8, 39.4, 1.24),
    ("red", 660.4, 59.7, 1.24),
    ("red edge", 723.2, 38.6, 1.24),
    ("NIR1", 826.7, 120.1, 1.24),
    ("NIR2", 922.1, 86.0, 1.24),
)
_DOVE_R: tuple[_Band, ...] = (
    ("blue", 491.8, 49.8, 3),
    ("green", 565.0, 39.8, 3),
    ("red", 666.7, 36.7, 3),
    ("NIR", 864.2, 38.6, 3),
)
_SUPERDOVE: tuple[_Band, ...] = (
    ("coastal blue", 441.5, 21, 3),
    ("blue", 490, 50, 3),
    ("green I", 531, 36, 3),
    ("green", 565, 36, 3),
    ("yellow", 610, 20, 3),
    ("red", 665, 30, 3),
    ("red edge", 705, 16, 3),
    ("NIR", 865, 40, 3),
)
_ALI: tuple[_Band, ...] = (
    ("1p", 443, 20, 30),
    ("1", 482.5, 65, 30),
    ("2", 565, 80, 30),
    ("3", 660, 60, 30),
    ("4", 790, 30, 30),
    ("4p", 867.5, 45, 30),
    ("5p", 1250, 100, 30),
    ("5", 1650, 200, 30),
    ("7", 2215, 270, 30),
)


def _sensor(name: str, title: str, bands: tuple[_Band, ...], source: str, *, nominal: bool = False) -> Sensor:
    labels, centres, widths, gsd = zip(*bands, strict=True)
    axis = SpectralAxis.build(centres, fwhm=widths, names=labels, nominal=nominal)
    return Sensor(name, title, axis, tuple(float(g) for g in gsd), "msi", source)


_SENSORS: dict[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        _sensor(
            "sentinel2-10m",
            "Sentinel-2 MSI, the four 10 m bands",
            tuple(b for b in _SENTINEL2 if b[3] == 10),
            _S2_SOURCE,
        ),
        _sensor("sentinel2", "Sentinel-2 MSI, the ten bands at 10 and 20 m", _SENTINEL2, _S2_SOURCE),
        _sensor("landsat8", "Landsat 8 OLI, seven bands", _OLI, _L8_SOURCE),
        _sensor(
            "landsat9", "Landsat 9 OLI-2, seven bands", _OLI, _L8_SOURCE + " (OLI-2 has the same design)"
        ),
        _sensor("landsat-pan", "Landsat 8/9 OLI panchromatic", (("PAN", 591.7, 172.4, 15),), _L8_SOURCE),
        _sensor(
            "worldview3",
            "WorldView-3, eight VNIR bands",
            _WORLDVIEW3,
            "DigitalGlobe relative spectral responses of WorldView-3",
        ),
        _sensor(
            "planetscope",
            "PlanetScope Dove-R (PS2.SD), four bands",
            _DOVE_R,
            "Planet relative spectral responses of PS2.SD, satellites 10xx",
        ),
        _sensor(
            "superdove",
            "PlanetScope SuperDove (PSB.SD), eight bands",
            _SUPERDOVE,
            "Planet imagery product specification: band edges of PSB.SD",
        ),
        _sensor("ali", "EO-1 ALI, nine multispectral bands", _ALI, _ALI_SOURCE),
        _sensor("ali-pan", "EO-1 ALI panchromatic", (("PAN", 585, 210, 10),), _ALI_SOURCE),
        _sensor(
            "rgb",
            "A colour camera, bands red, green, blue",
            (("red", 610, 90, 0), ("green", 540, 95, 0), ("blue", 465, 85, 0)),
            "typical Bayer filters, not a measured camera",
            nominal=True,
        ),
        _sensor(
            "aviris-paper-4",
            "Four Landsat TM-like bands for degraded AVIRIS scenes",
            (("blue", 485, 70, 0), ("green", 560, 80, 0), ("red", 660, 60, 0), ("NIR", 830, 140, 0)),
            "band edges of Landsat TM 1 to 4",
        ),
    )
}


def sensor_names() -> tuple[str, ...]:
    """Names that `get_sensor` knows, sorted."""
    return tuple(sorted(_SENSORS))


def get_sensor(name: str) -> Sensor:
    """Sensor by its name (upper or lower case).

    Raises
    ------
    SpectralError
        If there is none; the message lists all names.
    """
    try:
        return _SENSORS[name.strip().lower()]
    except KeyError:
        known = ", ".join(sensor_names())
        raise SpectralError(f"There is no sensor '{name}'; choose one of {known}.") from None
