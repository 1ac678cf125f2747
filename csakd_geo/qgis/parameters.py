"""Parameters of the algorithms, and what their values are on the command line."""

from __future__ import annotations

import os
from typing import Any

from qgis.core import (
    NULL,
    QgsFeatureSink,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingUtils,
    QgsVectorFileWriter,
)

from .options import CHOICE, FILE, INTEGER, NUMBER, SWITCH, Option

_ANY_FILE = "All files (*)"


class ImageParameter(QgsProcessingParameterRasterLayer):
    """A raster layer, or any path: csakd-geo reads products that QGIS cannot load as a layer."""

    def checkValueIsAcceptable(self, value: Any, _: QgsProcessingContext | None = None) -> bool:
        """Accept any text; whether the image can be read is for csakd-geo to say."""
        return bool(super().checkValueIsAcceptable(value, None))


def image_path(
    algorithm: QgsProcessingAlgorithm, values: dict[str, Any], name: str, context: QgsProcessingContext
) -> str:
    """What to pass for an image: the file of a layer, or the path that was given."""
    given = values.get(name)
    if isinstance(given, str) and os.path.exists(given):
        return given
    layer = algorithm.parameterAsRasterLayer(values, name, context)
    if layer is None:
        return str(algorithm.parameterAsString(values, name, context))
    if layer.providerType() != "gdal":
        raise QgsProcessingException(
            f"The layer '{layer.name()}' comes from a service ({layer.providerType()}); save it to a file first."
        )
    return str(layer.source())


def save_area(
    algorithm: QgsProcessingAlgorithm, values: dict[str, Any], name: str, context: QgsProcessingContext
) -> str | None:
    """Write the polygons of a feature source (or those selected) to a temporary file; None if there are none."""
    if values.get(name) in (None, "", NULL):
        return None
    source = algorithm.parameterAsSource(values, name, context)
    if source is None:
        raise QgsProcessingException(algorithm.invalidSourceError(values, name))
    path = str(QgsProcessingUtils.generateTempFilename("aoi.gpkg"))
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    writer = QgsVectorFileWriter.create(
        path, source.fields(), source.wkbType(), source.sourceCrs(), context.transformContext(), options
    )
    added = writer.addFeatures(source.getFeatures(), QgsFeatureSink.FastInsert)
    if not added or writer.hasError():
        raise QgsProcessingException(f"The area cannot be written to '{path}': {writer.errorMessage()}.")
    del writer  # closes the file
    return path


def make_parameter(option: Option) -> QgsProcessingParameterDefinition:
    """The parameter of one option."""
    name, label = option.name, option.label
    if option.kind == SWITCH:
        made = QgsProcessingParameterBoolean(name, label, defaultValue=False)
    elif option.kind == CHOICE:
        made = QgsProcessingParameterEnum(
            name,
            label,
            options=list(option.choices),
            defaultValue=option.off or None,
            optional=True,
            usesStaticStrings=True,
        )
    elif option.kind == FILE:
        made = QgsProcessingParameterFile(name, label, optional=True, fileFilter=_ANY_FILE)
    elif option.kind in (INTEGER, NUMBER):
        kinds = QgsProcessingParameterNumber
        kind = kinds.Integer if option.kind == INTEGER else kinds.Double
        made = kinds(name, label, type=kind, optional=True, minValue=option.minimum)
    else:
        made = QgsProcessingParameterString(name, label, optional=True)
    if option.advanced:
        made.setFlags(made.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
    return made


def option_value(
    algorithm: QgsProcessingAlgorithm, option: Option, values: dict[str, Any], context: QgsProcessingContext
) -> Any:
    """The value of one option, None where nothing was given."""
    if option.kind == SWITCH:
        return algorithm.parameterAsBool(values, option.name, context)
    if values.get(option.name) in (None, "", NULL):
        return None
    if option.kind == INTEGER:
        return algorithm.parameterAsInt(values, option.name, context)
    if option.kind == NUMBER:
        return algorithm.parameterAsDouble(values, option.name, context)
    if option.kind == CHOICE:
        return algorithm.parameterAsEnumString(values, option.name, context)
    return algorithm.parameterAsString(values, option.name, context)
