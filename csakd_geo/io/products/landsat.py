"""Landsat Collection 2, level 1 and level 2: a folder with the MTL text and one GeoTIFF per band."""

from __future__ import annotations

import math
import re

from csakd_geo.errors import InputError
from csakd_geo.io.products.files import ProductFiles
from csakd_geo.io.products.stack import Stack, open_layer, open_mask
from csakd_geo.io.products.tags import groups, number_of
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis

TITLE = "Landsat 4 to 9 Collection 2, level 1 or 2, folder, zip or *_MTL.txt"
PART = r"L[A-Z]0[4-9]_L.*_(?:B\d+|QA_PIXEL)\.TIF"
_HEAD = r"L[A-Z]0[4-9]_L.*_MTL\.txt"
#: Of QA_PIXEL: fill, dilated cloud, cirrus, cloud, cloud shadow.
_UNUSABLE = 0b11111
#: TM and ETM+: file number, centre and width in nm from the band edges of the handbook.
_TM = ((1, 485, 70), (2, 560, 80), (3, 660, 60), (4, 830, 140), (5, 1650, 200), (7, 2215, 270))


def matches(files: ProductFiles) -> bool:
    """Whether the metadata text of a Landsat product is there."""
    return files.head(_HEAD) is not None


def open_product(files: ProductFiles, name: str) -> Stack:
    """Reflectance at 30 m; clouds and their shadows are nodata.

    Level 1 is reflectance at the sensor, divided by the sine of the sun's elevation.

    Raises
    ------
    InputError
        If a part is missing.
    """
    head = files.head(_HEAD)
    if head is None:
        raise InputError(f"'{name}' lacks the metadata text (*_MTL.txt) of a Landsat Collection 2 product.")
    stem = head.rsplit("/", 1)[-1][: -len("_MTL.txt")]
    prefix = re.escape(stem)
    fields = groups(files.text(head))
    surface = stem.split("_")[1].startswith("L2")
    group = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS" if surface else "LEVEL1_RADIOMETRIC_RESCALING"
    rescale = fields.get(group, {})
    light = 1.0
    if not surface:
        light = math.sin(
            math.radians(number_of(fields.get("IMAGE_ATTRIBUTES", {}), "SUN_ELEVATION", name=name))
        )
        if light <= 0:
            raise InputError(f"The sun stood below the horizon of '{name}', so it holds no reflectance.")
    layers = []
    for number, axis in _bands(int(stem[2:4])):
        label = f"{'SR_' if surface else ''}B{number}"
        image = files.one(rf"{prefix}_{label}\.TIF", f"band {label}")
        layers.append(
            open_layer(
                files.gdal(image),
                name=image.rsplit("/", 1)[-1],
                axis=axis,
                scale=number_of(rescale, f"REFLECTANCE_MULT_BAND_{number}", name=name) / light,
                offset=number_of(rescale, f"REFLECTANCE_ADD_BAND_{number}", name=name) / light,
                nodata=0,
            )
        )
    quality = files.one(rf"{prefix}_QA_PIXEL\.TIF", "the quality band QA_PIXEL")
    return Stack.build(
        layers,
        name=name,
        driver=f"Landsat {int(stem[2:4])} {'L2' if surface else 'L1'}",
        units="reflectance",
        files=[str(files.root if files.zipped else files.root / head)],
        masks=[open_mask(files.gdal(quality), name="QA_PIXEL", bits=_UNUSABLE)],
    )


def _bands(satellite: int) -> list[tuple[int, SpectralAxis]]:
    """File numbers and axes of the reflective 30 m bands."""
    if satellite >= 8:
        axis = get_sensor("landsat8" if satellite == 8 else "landsat9").axis
        return [(k + 1, axis.take([k])) for k in range(axis.size)]
    return [
        (number, SpectralAxis.build([centre], fwhm=[width], names=[f"B{number}"]))
        for number, centre, width in _TM
    ]
