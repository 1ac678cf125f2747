"""What a comparison holds: the methods, each with its scores, its colours and its spectra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import PSF
from csakd_geo.io import Source
from csakd_geo.quicklook.spectra import Spot

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One method on the window.

    Parameters
    ----------
    name : str
        Of the method, or of the model.
    held_out : dict of str to float
        PSNR (dB), SAM (degrees) and ERGAS one level down; empty where the scene is too small for that.
    scores : dict of str to (float or None)
        Without truth, as `csakd_geo.evaluate.PairEvaluation` names them.
    fit_seconds, megapixel_seconds : float
        To fit the scene's sample, and per megapixel on one thread.
    image : ndarray (3 or 1, y, x)
        True colour, NaN where masked.
    spectra : ndarray (spot, band)
        Of all bands of the HSI.
    """

    name: str
    held_out: dict[str, float]
    scores: dict[str, float | None]
    fit_seconds: float
    megapixel_seconds: float
    image: FloatArray
    spectra: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """All methods on one window of a pair.

    Parameters
    ----------
    candidates : tuple of Candidate
    hsi, msi : Source
    fused : Source
        The first candidate's window, whose pixels all share.
    window : (int, int, int, int)
        Column, row, width and height in pixels of the MSI.
    ratio : int
    psf : PSF
    shift : (float, float)
        Added to the HSI's coordinates, in units of the MSI's CRS.
    explained : float
        Share of what varies in the HSI that the MSI explains.
    spots : tuple of Spot
        The pixels whose spectra are shown.
    caption : str
        What the images of the candidates show.
    warnings : tuple of str
    """

    candidates: tuple[Candidate, ...]
    hsi: Source
    msi: Source
    fused: Source
    window: tuple[int, int, int, int]
    ratio: int
    psf: PSF
    shift: tuple[float, float]
    explained: float
    spots: tuple[Spot, ...]
    caption: str
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "hsi": self.hsi.name,
            "msi": self.msi.name,
            "window": list(self.window),
            "ratio": self.ratio,
            "shift": list(self.shift),
            "psf_fwhm_hsi_pixels": self.psf.fwhm / self.psf.ratio,
            "msi_explains": self.explained,
            "methods": [
                {
                    "name": c.name,
                    "held_out": c.held_out or None,
                    "scores": c.scores,
                    "fit_seconds": c.fit_seconds,
                    "seconds_per_megapixel": c.megapixel_seconds,
                }
                for c in self.candidates
            ],
            "warnings": list(self.warnings),
        }
