"""The algorithm ``csakd:fuse``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingOutputRasterLayer,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterRasterDestination,
)

from .algorithm import Algorithm
from .options import FUSE
from .parameters import ImageParameter, image_path, make_parameter, option_value, save_area
from .process import run_cli
from .style import show_styled

#: Options that write a layer beside the image.
LAYERS = ("UNCERTAINTY", "QUALITY")


class Fuse(Algorithm):
    """Fuse a hyperspectral with a multispectral image."""

    command = "fuse"
    title = "Fuse HSI with MSI"
    help = (
        "Writes all bands of the hyperspectral image (HSI) on the pixel grid of the sharper multispectral image "
        "(MSI) of the same place, over the area that both show.\n\n"
        "<b>Method</b>: auto tries network and classical methods on held-out blocks of the pair and takes the "
        "better one; csakd is the network. <b>Model</b> is a trained network by its name; leave it empty to have "
        "one found that fits the pair.\n\n"
        "<b>Area</b>: polygons that bound the output.\n\n"
        "<b>Uncertainty</b> and <b>Quality</b> are written as layers of their own beside the image, on its pixels, and "
        "loaded with it.\n\n"
        "Empty advanced parameters take the defaults of csakd-geo. A file of the same name is replaced when the "
        "new one is whole; after cancel it is as it was, and Resume goes on with what was finished. The style "
        "(.qml) beside the output shows true colour by wavelengths."
    )

    def tags(self) -> list[str]:
        """Words to find it by."""
        return ["hyperspectral", "multispectral", "sharpening", "pansharpening", "csakd", "fusion"]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare the parameters."""
        known = self.installed
        self.addParameter(ImageParameter("HSI", "Hyperspectral image (HSI)"))
        self.addParameter(ImageParameter("MSI", "Multispectral image (MSI)"))
        self.addParameter(
            QgsProcessingParameterEnum(
                "METHOD",
                "Method",
                options=known.methods,
                defaultValue="auto",
                optional=True,
                usesStaticStrings=True,
            )
        )
        self.addParameter(
            QgsProcessingParameterEnum(
                "MODEL", "Model", options=known.models, optional=True, usesStaticStrings=True
            )
        )
        self.addParameter(
            QgsProcessingParameterFeatureSource(
                "AOI", "Area", types=[QgsProcessing.TypeVectorPolygon], optional=True
            )
        )
        model_file = QgsProcessingParameterFile(
            "MODEL_FILE",
            "Model from a file, instead of one by name",
            optional=True,
            fileFilter="Models (*.safetensors *.pth *.pt);;All files (*)",
        )
        model_file.setFlags(model_file.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
        self.addParameter(model_file)
        for option in FUSE:
            self.addParameter(make_parameter(option))
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", "Fused image"))
        for name in LAYERS:
            self.addOutput(QgsProcessingOutputRasterLayer(f"{name}_LAYER", name.capitalize()))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run ``csakd-geo fuse`` and write the style beside its output."""
        hsi, msi = (image_path(self, parameters, name, context) for name in ("HSI", "MSI"))
        output = str(self.parameterAsOutputLayer(parameters, "OUTPUT", context))
        arguments, layers = ["fuse", f"--output={output}", "--overwrite", "--log-json"], {}
        method = self.parameterAsEnumString(parameters, "METHOD", context)
        model = self.parameterAsString(parameters, "MODEL_FILE", context) or self.parameterAsEnumString(
            parameters, "MODEL", context
        )
        area = save_area(self, parameters, "AOI", context)
        for name, value in (("method", method), ("model", model), ("aoi", area)):
            if value:
                arguments.append(f"--{name}={value}")
        for option in FUSE:
            given = option.arguments(option_value(self, option, parameters, context))
            arguments += given
            if given and option.name in LAYERS:
                layers[f"{option.name}_LAYER"] = beside(output, option.name.lower())
        if run_cli([*arguments, "--", hsi, msi], feedback).cancelled:
            return {}
        show_styled(output, context, feedback)
        for layer in layers.values():
            load_with(output, layer, context)
        return {"OUTPUT": output, **layers}


def beside(output: str, kind: str) -> str:
    """Where ``csakd-geo fuse`` writes a layer of an image."""
    path = Path(output)
    return str(path.with_name(f"{path.stem}_{kind}.tif"))


def load_with(output: str, layer: str, context: QgsProcessingContext) -> None:
    """Have a layer loaded where the image that it belongs to is."""
    if context.willLoadLayerOnCompletion(output):
        project = context.layerToLoadOnCompletionDetails(output).project
        details = QgsProcessingContext.LayerDetails(Path(layer).stem, project)
        context.addLayerToLoadOnCompletion(layer, details)
