"""Run by tests/test_qgis.py in the Python that has QGIS: draws a layer, or cancels a fusion.

qgis_session.py draw IMAGE PNG [IMAGE ...]      renders the images side by side, each in the style that QGIS finds
qgis_session.py cancel PLUGINS HSI MSI OUTPUT   starts csakd:fuse and cancels it while it fits
Prints one JSON object.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsRasterLayer,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor, QImage, QPainter

GAP, SIDE = 16, 576


def render(layer: QgsRasterLayer, extent: QgsRectangle) -> QImage:
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setOutputSize(QSize(SIDE, round(SIDE * extent.height() / extent.width())))
    settings.setExtent(extent)
    settings.setBackgroundColor(QColor("white"))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    return job.renderedImage()


def draw(target: str, paths: list[str]) -> dict[str, object]:
    layers = [QgsRasterLayer(path, Path(path).stem) for path in paths]
    assert all(layer.isValid() for layer in layers), paths
    images = [render(layer, layers[0].extent()) for layer in layers]
    width = sum(image.width() for image in images) + GAP * (len(images) - 1)
    sheet = QImage(width, images[0].height(), QImage.Format_RGB32)
    sheet.fill(QColor("white"))
    painter = QPainter(sheet)
    for place, image in enumerate(images):
        painter.drawImage(place * (SIDE + GAP), 0, image)
    painter.end()
    assert sheet.save(target), target
    renderer = layers[-1].renderer()
    stretches = (renderer.redContrastEnhancement, renderer.greenContrastEnhancement)
    stretches = (*stretches, renderer.blueContrastEnhancement)
    return {
        "renderer": renderer.type(),
        "bands": [renderer.redBand(), renderer.greenBand(), renderer.blueBand()],
        "stretch": [[s().minimumValue(), s().maximumValue()] for s in stretches],
    }


class Impatient(QgsProcessingFeedback):
    """Cancels when the fit is under way, and keeps what is said."""

    def __init__(self) -> None:
        super().__init__(False)
        self.said: list[str] = []
        self.cancelled_at = 0.0

    def pushInfo(self, info: str) -> None:
        self.said.append(info)

    def setProgressText(self, text: str) -> None:
        self.said.append(text)
        if text.startswith("Fit") and not self.isCanceled():
            self.cancelled_at = time.monotonic()
            self.cancel()


def cancel(plugins: str, hsi: str, msi: str, output: str) -> dict[str, object]:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    sys.path.insert(0, plugins)
    from csakd.fuse import Fuse

    feedback, context = Impatient(), QgsProcessingContext()
    values = {"HSI": hsi, "MSI": msi, "METHOD": "coupled-map", "OUTPUT": output}
    results, done = Fuse().create().run(values, context, feedback)
    return {
        "results": results,
        "done": done,
        "said": feedback.said,
        "seconds": time.monotonic() - feedback.cancelled_at,
    }


if __name__ == "__main__":
    application = QgsApplication([], False)
    application.initQgis()
    command, *words = sys.argv[1:]
    answer = draw(words[1], [words[0], *words[2:]]) if command == "draw" else cancel(*words)
    print(json.dumps(answer))
    application.exitQgis()
