"""EO-1 Hyperion L1T: a folder with the MTL text and one GeoTIFF per band."""

from __future__ import annotations

import re

from csakd_geo.errors import InputError
from csakd_geo.io.products.files import ProductFiles
from csakd_geo.io.products.stack import Stack, open_layer
from csakd_geo.io.products.tags import groups, number_of
from csakd_geo.spectral import SpectralAxis

TITLE = "EO-1 Hyperion L1T or L1Gst, folder, zip or *_MTL_L1T.TXT"
PART = r"EO1H.*_B\d{3}_L1(?:T|GST)\.TIF"
_HEAD = r"EO1H.*_MTL_L1(?:T|GST)\.TXT"
#: The bands that are calibrated, of 242; the others hold zeros.
_CALIBRATED = (*range(8, 58), *range(77, 225))
_FIRST_SWIR = 71
#: Centre of the first band and step in nm of the two detectors, fitted to the mission's table; mean FWHM.
_VNIR, _SWIR, _FWHM = (355.59, 10.1753), (851.92, 10.0888), 11.0


def matches(files: ProductFiles) -> bool:
    """Whether the metadata text of a Hyperion L1T product is there."""
    return files.head(_HEAD) is not None


def open_product(files: ProductFiles, name: str) -> Stack:
    """Radiance in W/m2/sr/um of the calibrated bands; the wavelengths are nominal.

    Raises
    ------
    InputError
        If a part is missing.
    """
    head = files.head(_HEAD)
    if head is None:
        raise InputError(f"'{name}' lacks the metadata text (EO1H..._MTL_L1T.TXT) of a Hyperion L1T product.")
    stem = re.match(r"(EO1H.*)_MTL_(L1\w+)\.TXT", head.rsplit("/", 1)[-1], re.IGNORECASE)
    prefix, level = (re.escape(stem[1]), stem[2]) if stem else ("EO1H.*", "L1T")
    scaling = groups(files.text(head)).get("RADIANCE_SCALING", {})
    factors = {part: number_of(scaling, f"SCALING_FACTOR_{part}", name=name) for part in ("VNIR", "SWIR")}
    if min(factors.values()) <= 0:
        raise InputError(f"The scaling factors of '{name}' are not positive; fetch it again.")
    layers = []
    for band in _CALIBRATED:
        image = files.one(rf"{prefix}_B{band:03d}_{level}\.TIF", f"band B{band:03d}")
        part = "VNIR" if band < _FIRST_SWIR else "SWIR"
        start, step = _VNIR if part == "VNIR" else _SWIR
        place = band - (1 if part == "VNIR" else _FIRST_SWIR)
        axis = SpectralAxis.build([start + step * place], fwhm=[_FWHM], names=[f"B{band:03d}"], nominal=True)
        layers.append(open_layer(files.gdal(image), name=name, axis=axis, scale=1 / factors[part], nodata=0))
    return Stack.build(
        layers,
        name=name,
        driver=f"Hyperion {level}",
        units="radiance",
        files=[str(files.root if files.zipped else files.root / head)],
        notes=("44 of 242 bands are not calibrated and were left out.",),
    )
