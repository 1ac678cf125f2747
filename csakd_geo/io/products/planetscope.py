"""PlanetScope ortho scenes: AnalyticMS images of four or eight bands with their UDM2 mask and metadata."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import InputError
from csakd_geo.io.products.files import ProductFiles
from csakd_geo.io.products.stack import Mask, Stack, open_layer, open_mask
from csakd_geo.io.products.tags import every
from csakd_geo.sensors import get_sensor

TITLE = "PlanetScope AnalyticMS (SR or not), folder, zip or *_metadata.xml"
_HEAD = r"\d{8}_\d{6}_.*AnalyticMS.*metadata.*\.xml"
#: Masks of a scene.
COMPANION = r"\d{8}_\d{6}_.*_udm2?(?:_.*)?\.tif"
#: Bands of UDM2, from 0, that mark a pixel unusable with 1: shadow, heavy haze, cloud.
_UNUSABLE = (2, 4, 5)
#: Bit 0 of the last band: black fill.
_FILL = 1


def matches(files: ProductFiles) -> bool:
    """Whether the metadata file of a PlanetScope scene is there."""
    return files.head(_HEAD) is not None


def open_product(files: ProductFiles, name: str) -> Stack:
    """Reflectance: of the surface where that image is there, else at the sensor; clouds are nodata.

    Raises
    ------
    InputError
        If a part is missing.
    """
    head = files.head(_HEAD)
    if head is None:
        raise InputError(f"'{name}' lacks the metadata file (*_AnalyticMS*_metadata*.xml) of PlanetScope.")
    scene = re.escape(head.rsplit("/", 1)[-1].split("AnalyticMS")[0])
    images = files.find(rf"{scene}AnalyticMS(?!.*udm).*\.tif")
    images.sort(key=lambda found: "_SR" not in found.rsplit("/", 1)[-1])  # of the surface first
    if not images:
        raise InputError(f"'{name}' lacks the image (*_AnalyticMS*.tif); fetch the scene again.")
    surface = "_SR" in images[0].rsplit("/", 1)[-1]
    layer = open_layer(files.gdal(images[0]), name=name, nodata=0)
    size = layer.axis.size
    if size not in (4, 8):
        raise InputError(f"'{name}' has an image of {size} bands; PlanetScope scenes have 4 or 8.")
    masks = _masks(files, scene)
    notes = [] if surface else ["The image is reflectance at the sensor, not of the surface."]
    if not masks:
        notes.append("The mask UDM2 is not there, so clouds and shadows stay.")
    scale = np.full(size, 1e-4) if surface else _coefficients(files, head, size, name)
    layer = open_layer(
        files.gdal(images[0]),
        name=name,
        axis=get_sensor("planetscope" if size == 4 else "superdove").axis,
        scale=scale,
        offset=0,
        nodata=0,
    )
    return Stack.build(
        [layer],
        name=name,
        driver=f"PlanetScope {'SR' if surface else 'TOA'}",
        units="reflectance",
        files=[str(files.root if files.zipped else files.root / images[0])],
        masks=masks,
        notes=notes,
    )


def _coefficients(files: ProductFiles, head: str, size: int, name: str) -> NDArray[np.float64]:
    """Counts to reflectance at the sensor, per band."""
    found = {}
    for block in every(files.xml(head), "bandSpecificMetadata"):
        number, value = (every(block, tag) for tag in ("bandNumber", "reflectanceCoefficient"))
        if number and value:
            found[(number[0].text or "").strip()] = (value[0].text or "").strip()
    try:
        return np.array([float(found[str(k + 1)]) for k in range(size)])
    except (KeyError, ValueError):
        raise InputError(
            f"The metadata of '{name}' lack reflectance coefficients for its {size} bands; fetch it again."
        ) from None


def _masks(files: ProductFiles, scene: str) -> list[Mask]:
    masks: list[Mask] = []
    for found in files.find(rf"{scene}.*udm2.*\.tif"):
        path = files.gdal(found)
        masks.append(open_mask(path, name="UDM2", values=(1,), bands=_UNUSABLE))
        masks.append(open_mask(path, name="UDM2", bits=_FILL, bands=(7,)))
    return masks
