"""EnMAP L1C and L2A: METADATA.XML, SPECTRAL_IMAGE and quality rasters, as DLR delivers them."""

from __future__ import annotations

import re

from csakd_geo.errors import InputError
from csakd_geo.io.products.files import ProductFiles
from csakd_geo.io.products.stack import Stack, open_layer, open_mask
from csakd_geo.io.products.tags import numbers, per_band
from csakd_geo.spectral import SpectralAxis

TITLE = "EnMAP L1C or L2A, folder, zip or METADATA.XML"
PART = r"ENMAP.*-(?:SPECTRAL_IMAGE|QL_).*"
_HEAD = r"ENMAP.*-METADATA\.XML"
_IMAGE = r"-SPECTRAL_IMAGE(?:_COG)?\.(?:TIFF?|BSQ|BIL|BIP|JP2)"
#: Quality rasters, and their values that mean unusable: cloud and cloud shadow.
_QUALITY = ("CLOUD", "CLOUDSHADOW")


def matches(files: ProductFiles) -> bool:
    """Whether the metadata file of an EnMAP product is there."""
    return bool(files.find(_HEAD)) and files.head(_HEAD) is not None


def open_product(files: ProductFiles, name: str) -> Stack:
    """The image with the gains and offsets of its metadata; clouds and their shadows are nodata.

    Raises
    ------
    InputError
        If a part is missing, or the product is of another level.
    """
    head = files.head(_HEAD)
    if head is None:
        raise InputError(f"'{name}' lacks the metadata file (ENMAP...-METADATA.XML) of an EnMAP product.")
    if "L1B" in head.rsplit("/", 1)[-1]:
        raise InputError(f"'{name}' is EnMAP L1B, which lies on no map grid; take the L1C or L2A product.")
    prefix = re.escape(head.rsplit("/", 1)[-1][: -len("-METADATA.XML")])
    level = "L2A" if "L2A" in prefix else "L1C"
    root = files.xml(head)
    image = files.one(prefix + _IMAGE, "the spectral image")
    centres = numbers(root, "wavelengthCenterOfBand", name=name)
    size = centres.size
    axis = SpectralAxis.build(centres, fwhm=per_band(root, "FWHMOfBand", size, name=name))
    layer = open_layer(
        files.gdal(image),
        name=name,
        axis=axis,
        scale=per_band(root, "GainOfBand", size, name=name),
        offset=per_band(root, "OffsetOfBand", size, name=name),
        nodata=-32768 if level == "L2A" else 0,
    )
    layers = {
        kind: files.find(rf"{prefix}-QL_QUALITY_{kind}(?:_COG)?\.(?:TIFF?|BSQ|BIL|BIP|JP2)")
        for kind in _QUALITY
    }
    quality = [found for kind in _QUALITY for found in layers[kind]]
    missing = [
        f"The mask QL_QUALITY_{kind} is not there, so what it marks stays."
        for kind in _QUALITY
        if not layers[kind]
    ]
    return Stack.build(
        [layer],
        name=name,
        driver=f"EnMAP {level}",
        units="reflectance" if level == "L2A" else "radiance",
        files=[str(files.root if files.zipped else files.root / image)],
        masks=[open_mask(files.gdal(q), name=q, values=(1,)) for q in quality],
        notes=missing,
    )
