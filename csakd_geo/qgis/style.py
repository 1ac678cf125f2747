"""How an image of many bands is drawn: three of them picked by wavelength, each stretched from 2 to 98 %."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from osgeo import gdal
from qgis.core import (
    QgsContrastEnhancement,
    QgsMapLayer,
    QgsMultiBandColorRenderer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsRasterLayer,
    QgsRasterMinMaxOrigin,
    QgsSingleBandGrayRenderer,
)

#: Wavelengths in nm of red, green and blue; the first set that the image has is taken.
_COMPOSITES = (
    ("true colour", (650.0, 550.0, 475.0)),
    ("NIR, red, green", (835.0, 655.0, 555.0)),
    ("SWIR, NIR, red", (1650.0, 835.0, 655.0)),
)
_REACH = 45.0  # nm at which a band may stand for a colour
_PLACES = (0.75, 0.5, 0.25)  # along the bands, where no composite fits
_TO_NM = {"nanometers": 1.0, "nanometer": 1.0, "nm": 1.0, "micrometers": 1e3, "micrometer": 1e3, "um": 1e3}


class Composite(NamedTuple):
    """One-based bands for red, green and blue (one for grey), and what they are."""

    bands: list[int]
    label: str


def pick_bands(path: str) -> Composite:
    """Choose the bands to draw of a raster file; ValueError where GDAL cannot read it."""
    dataset = gdal.Open(path)
    if dataset is None:
        raise ValueError(f"GDAL cannot read '{path}'")
    count = dataset.RasterCount
    good, wavelength = [], {}
    for number in range(1, count + 1):
        tags = dataset.GetRasterBand(number).GetMetadata()
        if str(tags.get("bbl", "1")).strip() not in ("0", "0.0"):
            good.append(number)
        wavelength[number] = _nanometres(tags)
    good = good or list(range(1, count + 1))
    if len(good) < 3:
        return Composite([good[0]], f"band {good[0]}")
    for label, targets in _COMPOSITES:
        bands = [_nearest(good, wavelength, target) for target in targets]
        if all(abs(wavelength[b] - t) <= _REACH for b, t in zip(bands, targets)):  # noqa: B905 - Python 3.9
            return Composite(bands, f"{label}: {', '.join(f'{wavelength[b]:.0f}' for b in bands)} nm")
    bands = [good[round(place * (len(good) - 1))] for place in _PLACES]
    return Composite(bands, f"bands {', '.join(map(str, bands))}")


def _nearest(bands: list[int], wavelength: dict[int, float], target: float) -> int:
    return min(bands, key=lambda band: abs(wavelength[band] - target))


def _nanometres(tags: dict[str, str]) -> float:
    try:
        value = float(tags["wavelength"])
    except (KeyError, ValueError):
        return math.inf
    return value * _TO_NM.get(str(tags.get("wavelength_units", "nm")).strip().lower(), math.inf)


def style_layer(layer: QgsRasterLayer) -> Composite:
    """Give a layer its bands and stretch."""
    picked = pick_bands(layer.source())
    if len(picked.bands) == 3:
        renderer = QgsMultiBandColorRenderer(layer.dataProvider(), *picked.bands)
    else:
        renderer = QgsSingleBandGrayRenderer(layer.dataProvider(), picked.bands[0])
    layer.setRenderer(renderer)
    layer.setContrastEnhancement(
        QgsContrastEnhancement.StretchToMinimumMaximum, QgsRasterMinMaxOrigin.CumulativeCut
    )
    return picked


def write_style(path: str) -> tuple[str, Composite]:
    """Write the style beside an image, where QGIS finds it each time the image is added.

    Returns the file written and the bands. ValueError says that QGIS cannot read the image or write there.
    """
    layer = QgsRasterLayer(path, Path(path).stem)
    if not layer.isValid():
        raise ValueError(f"QGIS cannot read '{path}'")
    picked = style_layer(layer)
    target = str(Path(path).with_suffix(".qml"))
    message, written = layer.saveNamedStyle(target)
    del layer  # closes the file, which leaves the statistics behind that the stretch came from
    if path.lower().endswith(".tif"):
        Path(path + ".aux.xml").unlink(missing_ok=True)
    if not written:
        raise ValueError(message)
    return target, picked


def show_styled(output: str, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> None:
    """Write the style of an image that was made, and have it loaded in that; without one it is loaded all the same."""
    try:
        style, picked = write_style(output)
        Styler.attach(output, context)
        feedback.pushInfo(f"Shown as {picked.label} (style '{style}').")
    except (ValueError, RuntimeError, OSError) as error:
        feedback.pushWarning(f"The image is written, but no style for it: {error}.")


class Styler(QgsProcessingLayerPostProcessorInterface):
    """Gives a layer that Processing loads the style beside its file, which QGIS leaves out there."""

    kept: list[Styler] = []  # noqa: RUF012 - QGIS holds no reference of its own

    @classmethod
    def attach(cls, path: str, context: QgsProcessingContext) -> None:
        """Style the layer of `path` once it is loaded, where it will be."""
        if context.willLoadLayerOnCompletion(path):
            cls.kept.append(cls())
            context.layerToLoadOnCompletionDetails(path).setPostProcessor(cls.kept[-1])

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        """Load the style; QGIS calls this in its main thread."""
        layer.loadNamedStyle(str(Path(layer.source()).with_suffix(".qml")))
        layer.triggerRepaint()
