"""The plugin and its Processing provider."""

from __future__ import annotations

from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithm import icon
from .align import Align
from .fuse import Fuse
from .look import Evaluate, Info


class Provider(QgsProcessingProvider):
    """The algorithms under the id ``csakd``."""

    def id(self) -> str:
        """The part of an algorithm's id before the colon."""
        return "csakd"

    def name(self) -> str:
        """The name in the toolbox."""
        return "CSAKD fusion"

    def icon(self) -> QIcon:
        """The icon in the toolbox."""
        return icon()

    def loadAlgorithms(self) -> None:
        """Add the algorithms."""
        for algorithm in (Fuse, Align, Info, Evaluate):
            self.addAlgorithm(algorithm())

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """What csakd-geo writes and QGIS shows; the first is the default."""
        return ["tif", "img"]


class Plugin:
    """What QGIS loads and unloads."""

    def __init__(self) -> None:
        self._provider: Provider | None = None

    def initProcessing(self) -> None:
        """Add the provider; qgis_process calls this alone."""
        self._provider = Provider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        """Add the provider in the desktop."""
        self.initProcessing()

    def unload(self) -> None:
        """Take the provider out."""
        if self._provider is not None:
            QgsApplication.processingRegistry().removeProvider(self._provider)
            self._provider = None
