"""The algorithm ``csakd:align``."""

from __future__ import annotations

import json
from typing import Any

from osgeo import gdal
from qgis.core import (
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterRasterDestination,
)

from .algorithm import Algorithm
from .options import ALIGN
from .parameters import ImageParameter, image_path, make_parameter, option_value
from .process import run_cli
from .style import show_styled


class _GeoTiff(QgsProcessingParameterRasterDestination):
    """A raster to write; align writes GeoTIFF alone."""

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """What the dialog offers."""
        return ["tif"]


class Align(Algorithm):
    """Write a hyperspectral image where the multispectral one shows it to be."""

    command = "align"
    title = "Align HSI to MSI"
    help = (
        "Finds how far the hyperspectral image (HSI) lies off the multispectral image (MSI) of the same place, and "
        "writes it where it belongs, as a GeoTIFF. Fuse does this by itself; this is for other tools.\n\n"
        "Pixels stay as they are and only their position changes. With <b>Resample</b> they are interpolated "
        "(cubic) onto cells of whole MSI pixels, in the MSI's CRS.\n\n"
        "Returns the shift that was added to the HSI's coordinates, in units of the MSI's CRS. Where none can be "
        "told from the pair, nothing is written; give it as Shift.\n\n"
        "Empty parameters take the defaults of csakd-geo. The style (.qml) beside the output shows true colour by "
        "wavelengths."
    )

    def tags(self) -> list[str]:
        """Words to find it by."""
        return ["hyperspectral", "registration", "co-registration", "coregistration", "shift", "csakd"]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare the parameters."""
        self.addParameter(ImageParameter("HSI", "Hyperspectral image (HSI)"))
        self.addParameter(ImageParameter("MSI", "Multispectral image (MSI)"))
        for option in ALIGN:
            self.addParameter(make_parameter(option))
        self.addParameter(_GeoTiff("OUTPUT", "Aligned image"))
        for axis in "XY":
            self.addOutput(QgsProcessingOutputNumber(f"SHIFT_{axis}", f"Shift along {axis.lower()}"))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run ``csakd-geo align`` and write the style beside its output."""
        hsi, msi = (image_path(self, parameters, name, context) for name in ("HSI", "MSI"))
        output = str(self.parameterAsOutputLayer(parameters, "OUTPUT", context))
        arguments = ["align", f"--output={output}", "--overwrite"]
        for option in ALIGN:
            arguments += option.arguments(option_value(self, option, parameters, context))
        done = run_cli([*arguments, "--", hsi, msi], feedback)
        if done.cancelled:
            return {}
        feedback.pushInfo(done.stdout.strip())
        show_styled(output, context, feedback)
        x, y = json.loads(gdal.Open(output).GetMetadataItem("CSAKD_GEO_ALIGNED"))["shift"]
        return {"OUTPUT": output, "SHIFT_X": x, "SHIFT_Y": y}
