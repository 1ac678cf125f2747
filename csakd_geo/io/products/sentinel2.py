"""Sentinel-2 L1C and L2A: a .SAFE folder or zip; ten bands at 10 and 20 m on the 10 m grid."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np

from csakd_geo.errors import InputError
from csakd_geo.io.products.files import ProductFiles
from csakd_geo.io.products.stack import Mask, Stack, open_layer, open_mask
from csakd_geo.io.products.tags import every, numbers
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis

TITLE = "Sentinel-2 L1C or L2A, .SAFE folder, zip or MTD_MSI*.xml"
PART = r"T\d{2}[A-Z]{3}_\d{8}T\d{6}_(?:B\d[\dA]|AOT|SCL|TCI|WVP)(?:_\d0m)?\.jp2"
_HEAD = r"MTD_MSIL(?:1C|2A)\.xml"
#: Bands in the order of the registry, with the number that the metadata give them.
_NUMBERS = {"B2": 1, "B3": 2, "B4": 3, "B5": 4, "B6": 5, "B7": 6, "B8": 7, "B8A": 8, "B11": 11, "B12": 12}
#: Of the scene classification: no data, defective, cloud shadow, clouds, thin cirrus.
_UNUSABLE = (0, 1, 3, 8, 9, 10)


def matches(files: ProductFiles) -> bool:
    """Whether the metadata file of a Sentinel-2 product is there."""
    return files.head(_HEAD) is not None


def open_product(files: ProductFiles, name: str) -> Stack:
    """Reflectance at 10 m, the 20 m bands repeated; clouds and their shadows are nodata.

    Raises
    ------
    InputError
        If a part is missing.
    """
    head = files.head(_HEAD)
    if head is None:
        raise InputError(
            f"'{name}' lacks the metadata file (MTD_MSIL1C.xml or MTD_MSIL2A.xml) of Sentinel-2."
        )
    level = "L2A" if "L2A" in head.upper() else "L1C"
    root = files.xml(head)
    quantum = numbers(
        root, "BOA_QUANTIFICATION_VALUE" if level == "L2A" else "QUANTIFICATION_VALUE", name=name
    )
    if quantum.size != 1 or quantum[0] <= 0:
        raise InputError(f"The metadata of '{name}' give no quantification value; fetch it again.")
    offsets = _offsets(root, "BOA_ADD_OFFSET" if level == "L2A" else "RADIO_ADD_OFFSET", name)
    centres = _centres(root)
    nominal = get_sensor("sentinel2")
    layers, factors = [], []
    for k, (band, number) in enumerate(_NUMBERS.items()):
        label, size = _label(band), round(nominal.gsd[k])
        image = (
            files.one(rf".*_{label}_{size}m\.jp2", f"band {band} at {size} m")
            if level == "L2A"
            else files.one(rf".*_{label}\.jp2", f"band {band}")
        )
        axis = SpectralAxis.build(
            [centres.get(number, nominal.axis.wavelength[k])], fwhm=[nominal.axis.fwhm[k]], names=[band]
        )
        layers.append(
            open_layer(
                files.gdal(image),
                name=image.rsplit("/", 1)[-1],
                axis=axis,
                scale=1 / quantum[0],
                offset=offsets.get(number, 0.0) / quantum[0],
                nodata=0,
            )
        )
        factors.append(size // 10)
    masks = _masks(files, level)
    return Stack.build(
        layers,
        name=name,
        driver=f"Sentinel-2 {level}",
        units="reflectance",
        files=[str(files.root if files.zipped else files.root / head)],
        factors=factors,
        masks=masks,
        notes=() if masks else ("The mask MSK_CLASSI is not there, so clouds stay.",),
    )


def _label(band: str) -> str:
    """B2 is B02 in the names of files."""
    return f"B{int(band[1:]):02d}" if band[1:].isdigit() else band


def _masks(files: ProductFiles, level: str) -> list[Mask]:
    if level == "L2A":
        found = files.one(r".*_SCL_20m\.jp2", "the scene classification (SCL) at 20 m")
        return [open_mask(files.gdal(found), name="SCL", factor=2, values=_UNUSABLE)]
    # since baseline 04.00: opaque clouds, cirrus, snow at 60 m
    return [
        open_mask(files.gdal(found), name="MSK_CLASSI", factor=6, values=(1,), bands=(0, 1))
        for found in files.find(r"MSK_CLASSI_B00\.jp2")
    ]


def _offsets(root: Element, tag: str, name: str) -> dict[int, float]:
    """Counts to add per band number; none before baseline 04.00."""
    found = {}
    for element in every(root, tag):
        try:
            found[int(element.attrib["band_id"])] = float(element.text or "")
        except (KeyError, ValueError):
            raise InputError(f"The metadata of '{name}' give a broken {tag}; fetch it again.") from None
    return found


def _centres(root: Element) -> dict[int, float]:
    """Central wavelengths in nm of this satellite, as far as they are told."""
    found = {}
    for element in every(root, "Spectral_Information"):
        centre = element.findtext("Wavelength/CENTRAL")
        number = element.attrib.get("bandId", "")
        if centre and number.isdigit():
            value = float(centre) if centre.replace(".", "", 1).isdigit() else np.nan
            if value > 0:
                found[int(number)] = value
    return found
