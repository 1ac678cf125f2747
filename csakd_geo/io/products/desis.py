"""DESIS L1C and L2A: METADATA.xml, SPECTRAL_IMAGE.tif and QL_QUALITY-2.tif, as DLR delivers them."""

from __future__ import annotations

import re

from csakd_geo.errors import InputError
from csakd_geo.io.products.files import ProductFiles
from csakd_geo.io.products.stack import Stack, open_layer, open_mask
from csakd_geo.io.products.tags import numbers, per_band
from csakd_geo.spectral import SpectralAxis

TITLE = "DESIS L1C or L2A, folder, zip or METADATA.xml"
PART = r"DESIS-HSI-(?:L1C|L2A).*-(?:SPECTRAL_IMAGE|QL_).*"
_HEAD = r"DESIS-HSI-(?:L1C|L2A).*-METADATA\.xml"
#: Bands of QL_QUALITY-2, from 0, that mark a pixel unusable with 1: shadow, cloud over land, over water.
_UNUSABLE = (0, 5, 6)


def matches(files: ProductFiles) -> bool:
    """Whether the metadata file of a DESIS product is there."""
    return files.head(_HEAD) is not None


def open_product(files: ProductFiles, name: str) -> Stack:
    """The image with the gains and offsets of its metadata; of L2A, clouds and shadows are nodata.

    Raises
    ------
    InputError
        If a part is missing.
    """
    head = files.head(_HEAD)
    if head is None:
        raise InputError(
            f"'{name}' lacks the metadata file (DESIS-HSI-L2A-...-METADATA.xml) of a DESIS L1C or L2A product."
        )
    stem = head.rsplit("/", 1)[-1][: -len("-METADATA.xml")]
    prefix, surface = re.escape(stem), "L2A" in stem
    root = files.xml(head)
    image = files.one(rf"{prefix}-SPECTRAL_IMAGE\.tiff?", "the spectral image")
    centres = numbers(root, "wavelengthCenterOfBand", name=name)
    size = centres.size
    layer = open_layer(
        files.gdal(image),
        name=name,
        axis=SpectralAxis.build(centres, fwhm=per_band(root, "wavelengthWidthOfBand", size, name=name)),
        scale=per_band(root, "gainOfBand", size, name=name),
        offset=per_band(root, "offsetOfBand", size, name=name),
        nodata=-32768,
    )
    quality = files.find(rf"{prefix}-QL_QUALITY-2\.tiff?") if surface else []
    return Stack.build(
        [layer],
        name=name,
        driver=f"DESIS {'L2A' if surface else 'L1C'}",
        units="reflectance" if surface else "radiance",
        files=[str(files.root if files.zipped else files.root / image)],
        masks=[open_mask(files.gdal(q), name=q, values=(1,), bands=_UNUSABLE) for q in quality],
        notes=()
        if quality or not surface
        else ("The mask QL_QUALITY-2 is not there, so clouds and shadows stay.",),
    )
