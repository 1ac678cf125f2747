"""Run by tests/test_qgis.py in the Python that has QGIS: draws a layer, cancels a fusion, loads its result.

qgis_session.py draw IMAGE PNG                  renders the image in the style that QGIS finds
qgis_session.py cancel PLUGINS HSI MSI OUTPUT   starts csakd:fuse and cancels it while it fits
qgis_session.py load PLUGINS ALGORITHM HSI MSI OUTPUT [NAME=VALUE ...]
                                                runs it and loads its result as the toolbox does
qgis_session.py offers PLUGINS                  tells what the dialogs offer as names of rasters to write
Prints one JSON object.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingUtils,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor, QImage

SIDE = 576


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


def draw(path: str, picture: str) -> dict[str, object]:
    layer = QgsRasterLayer(path, Path(path).stem)
    assert layer.isValid(), path
    assert render(layer, layer.extent()).save(picture), picture
    renderer = layer.renderer()
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


def load(plugins: str, algorithm: str, hsi: str, msi: str, output: str, *more: str) -> dict[str, object]:
    sys.path.insert(0, plugins)
    run = getattr(import_module(f"csakd.{algorithm}"), algorithm.capitalize())().create().run
    feedback, context = QgsProcessingFeedback(False), QgsProcessingContext()
    target = QgsProcessingOutputLayerDefinition(output, QgsProject.instance())
    values = {"HSI": QgsRasterLayer(hsi, "a layer"), "MSI": msi, "OUTPUT": target}
    results, done = run({**values, **dict(pair.split("=") for pair in more)}, context, feedback)
    assert done, feedback.textLog()
    layer = QgsProcessingUtils.mapLayerFromString(output, context)
    plain = layer.renderer().usesBands()
    context.layerToLoadOnCompletionDetails(output).postProcessor().postProcessLayer(layer, context, feedback)
    beside = {}
    for path, details in context.layersToLoadOnCompletion().items():
        if path != output:
            found = QgsRasterLayer(path, details.name)
            assert details.project == QgsProject.instance()
            beside[details.name] = {"type": found.renderer().type(), "size": [found.width(), found.height()]}
    return {"plain": plain, "styled": layer.renderer().usesBands(), "beside": beside, "results": results}


def offers(plugins: str) -> dict[str, object]:
    sys.path.insert(0, plugins)
    provider = import_module("csakd.provider").Provider()
    QgsApplication.processingRegistry().addProvider(provider)
    algorithms = {name: provider.algorithm(name) for name in ("fuse", "align")}
    return {name: a.parameterDefinition("OUTPUT").createFileFilter() for name, a in algorithms.items()}


if __name__ == "__main__":
    application = QgsApplication([], False)
    application.initQgis()
    command, *words = sys.argv[1:]
    answer = {"draw": draw, "cancel": cancel, "load": load, "offers": offers}[command](*words)
    print(json.dumps(answer))
    application.exitQgis()
