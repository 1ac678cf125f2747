"""The algorithms ``csakd:info`` and ``csakd:evaluate``: numbers, and a page of them for the results viewer."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
)

from .algorithm import Algorithm
from .parameters import ImageParameter, image_path
from .process import run_cli

#: Scores of ``csakd-geo evaluate --json``: what they are called, and their unit.
_AGAINST_TRUTH = {
    "psnr": ("PSNR", " dB"),
    "sam": ("SAM", "°"),
    **{name: (name.upper(), "") for name in ("ergas", "rmse", "uiqi", "ssim", "cc")},
    "pixels": ("Pixels compared", ""),
}
_AGAINST_INPUTS = {
    "hqnr": ("HQNR", ""),
    "d_lambda": ("D_lambda", ""),
    "d_s": ("D_s", ""),
    "hsi_consistency": ("HSI consistency", ""),
    "hsi_over_noise": ("HSI consistency over its noise", ""),
    "msi_consistency": ("MSI consistency", ""),
    "angle": ("Spectral angle to the HSI", "°"),
    "pixels": ("Pixels compared", ""),
}


class _Look(Algorithm):
    """A command that prints JSON."""

    def _add_page(self) -> None:
        self.addParameter(
            QgsProcessingParameterFileDestination(
                "OUTPUT", "Page", "HTML files (*.html)", optional=True, createByDefault=False
            )
        )

    def _write_page(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        title: str,
        rows: list[tuple[str, str]],
    ) -> dict[str, str]:
        path = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        if not path:
            return {}
        cells = "".join(
            f"<tr><th align='left'>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>\n"
            for name, value in rows
        )
        title = html.escape(title)
        Path(path).write_text(
            f"<!DOCTYPE html>\n<html><head><meta charset='utf-8'><title>{title}</title></head>\n"
            f"<body><h3>{title}</h3>\n<table>\n{cells}</table></body></html>\n",
            "utf-8",
        )
        return {"OUTPUT": path}


class Info(_Look):
    """Say what an image is."""

    command = "info"
    title = "Describe image"
    help = (
        "Says what an image is and what csakd-geo understands of it: size, position, bands, wavelengths, bands "
        "that a fusion will leave out and why, and what may go wrong."
    )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare the parameters."""
        self.addParameter(ImageParameter("IMAGE", "Image"))
        self._add_page()
        for name in ("BANDS", "GOOD_BANDS", "WIDTH", "HEIGHT"):
            self.addOutput(QgsProcessingOutputNumber(name, name.replace("_", " ").capitalize()))
        self.addOutput(QgsProcessingOutputString("CRS", "CRS"))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run ``csakd-geo info --json``."""
        image = image_path(self, parameters, "IMAGE", context)
        done = run_cli(["info", "--json", "--", image], feedback)
        if done.cancelled:
            return {}
        facts = json.loads(done.stdout)
        for sentence in facts.pop("warnings", []):
            feedback.pushWarning(sentence)
        rows = [(_label(key), _plain(value)) for key, value in facts.items()]
        for name, value in rows:
            feedback.pushInfo(f"{name}: {value}")
        numbers = {name: facts[name.lower()] for name in ("BANDS", "GOOD_BANDS", "WIDTH", "HEIGHT")}
        page = self._write_page(parameters, context, str(facts["name"]), rows)
        return {**numbers, "CRS": facts["crs"] or "", **page}


class Evaluate(_Look):
    """Score a fused image against the truth, or against the two images that it was made of."""

    command = "evaluate"
    title = "Score fused image"
    help = (
        "Compares a fused image with a <b>true image</b> of the same grid: PSNR, SSIM, UIQI and CC (higher is better), "
        "SAM, ERGAS and RMSE (lower is better). Ratio is that of the fusion: HSI pixel over MSI pixel.\n\n"
        "Without a true image give the <b>HSI</b> and the <b>MSI</b> that the fused image was made of: HQNR (1 is "
        "best) with its spectral and spatial parts D_lambda and D_s, and how far the fused image, degraded and "
        "projected, differs from the two. They find faults of detail and position, but do not rank methods that work."
    )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare the parameters."""
        self.addParameter(ImageParameter("FUSED", "Fused image"))
        self.addParameter(ImageParameter("TRUTH", "True image", optional=True))
        number = QgsProcessingParameterNumber
        self.addParameter(
            number(
                "RATIO", "With a true image: ratio of the fusion", number.Integer, defaultValue=4, minValue=1
            )
        )
        self.addParameter(ImageParameter("HSI", "Without: hyperspectral image (HSI)", optional=True))
        self.addParameter(ImageParameter("MSI", "Without: multispectral image (MSI)", optional=True))
        self._add_page()
        for name, (label, _) in {**_AGAINST_TRUTH, **_AGAINST_INPUTS}.items():
            self.addOutput(QgsProcessingOutputNumber(name.upper(), label))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run ``csakd-geo evaluate --json``."""
        names = ("FUSED", "TRUTH", "HSI", "MSI")
        fused, truth, hsi, msi = (image_path(self, parameters, name, context) for name in names)
        if truth and not (hsi or msi):
            ratio = self.parameterAsInt(parameters, "RATIO", context)
            arguments, labels, others = (
                [f"--ratio={ratio}", "--json", "--", fused, truth],
                _AGAINST_TRUTH,
                [truth],
            )
        elif hsi and msi and not truth:
            arguments, labels = [f"--hsi={hsi}", f"--msi={msi}", "--json", "--", fused], _AGAINST_INPUTS
            others = [hsi, msi]
        else:
            raise QgsProcessingException(
                "Give either a true image, or both the HSI and the MSI and no true image."
            )
        done = run_cli(["evaluate", *arguments], feedback)
        if done.cancelled:
            return {}
        scores = json.loads(done.stdout)["scores"]
        rows = [
            (label, "none" if scores[name] is None else f"{scores[name]:.6g}{unit}")
            for name, (label, unit) in labels.items()
        ]
        for name, value in rows:
            feedback.pushInfo(f"{name}: {value}")
        against = " and ".join(Path(other).name for other in others)
        page = self._write_page(parameters, context, f"{Path(fused).name} against {against}", rows)
        return {**{name.upper(): scores[name] for name in labels}, **page}


def _label(key: str) -> str:
    """The name of a fact as text: abbreviations in capitals."""
    words = [word.upper() if word in ("crs", "fwhm", "gsd") else word for word in key.split("_")]
    return words[0][0].upper() + " ".join(words)[1:]


def _plain(value: Any) -> str:
    """A fact as text."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(part) for part in value) or "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
