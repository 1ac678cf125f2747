"""The law that errors follow, and its fit to errors that were seen."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import nnls

from csakd_geo.degrade import PSF, degrade, upsample
from csakd_geo.spectral import SpectralAxis

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

TAIL = 1.6449  # standard deviations that hold 90 % of a normal distribution
_SMOOTH = 0.5  # sigma of the activity's window, in HSI pixels
_REACH = 4.0  # sigmas of it that are kept
_BINS, _PER_BIN = 6, 64  # classes of activity, and pixels that one needs


@dataclass(frozen=True, slots=True, eq=False)
class Uncertainty:
    """What the errors of a fusion are expected to be.

    Parameters
    ----------
    alpha, beta : ndarray (band,)
        Squared HSI units; the variance at activity ``a`` is ``alpha + beta * a``.
    scale : ndarray (msi_band,)
        The MSI's deviation, MSI units.
    psf : PSF
    informed : ndarray (band,) bool
        False where the MSI does not help to find the band's details.
    top : float
        Highest activity that was seen.
    tried : bool
        False where the pair was too small to be tried: ``alpha`` is then the band's whole variance.
    """

    alpha: FloatArray
    beta: FloatArray
    scale: FloatArray
    psf: PSF
    informed: BoolArray
    top: float
    tried: bool

    @property
    def halo(self) -> int:
        """LR pixels around one that its activity depends on."""
        return self.psf.halo + self.psf.context + math.ceil(_REACH * _SMOOTH)

    @property
    def peak(self) -> float:
        """Highest deviation to be expected, for the encoding."""
        return float(np.sqrt((self.alpha + self.beta * self.top).max()))

    def activity(self, msi: FloatArray) -> FloatArray:
        """Activity of a window, ``(msi_band, ry, rx)`` to ``(ry, rx)`` float32, without unit."""
        return find_activity(msi, self.psf, self.scale)

    def sigma(self, activity: FloatArray) -> FloatArray:
        """Standard deviations ``(band, y, x)`` float32 at an activity ``(y, x)``."""
        alpha, beta = (v.astype(np.float32)[:, None, None] for v in (self.alpha, self.beta))
        return np.asarray(np.sqrt(alpha + beta * activity.astype(np.float32)))

    def notes(self, axis: SpectralAxis) -> list[str]:
        """Sentences for the user on what these deviations are not, and on bands without help.

        Parameters
        ----------
        axis : SpectralAxis
            Of the bands.
        """
        if not self.tried:
            return [
                "The pair is too small to try the fusion one level down; its uncertainty is every band's whole "
                "deviation, far wider than the errors."
            ]
        alone = np.flatnonzero(~self.informed)
        if alone.size == 0:
            return []
        nm = axis.wavelength[alone]
        where = f" (between {nm.min():.0f} and {nm.max():.0f} nm)" if np.isfinite(nm).all() else ""
        return [
            f"The MSI does not help to find the details of {alone.size} of {len(self.informed)} bands{where}; "
            "their uncertainty is that of an interpolation."
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        arrays = {name: getattr(self, name).tolist() for name in ("alpha", "beta", "scale", "informed")}
        return arrays | {"psf": asdict(self.psf), "top": self.top, "tried": self.tried}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Uncertainty:
        """Inverse of :meth:`to_dict`."""
        alpha, beta, scale = (np.array(values[name], float) for name in ("alpha", "beta", "scale"))
        informed = np.array(values["informed"], bool)
        return cls(alpha, beta, scale, PSF(**values["psf"]), informed, values["top"], values["tried"])


def fit_law(errors: FloatArray, activity: FloatArray, noise: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``alpha`` and ``beta`` of errors whose size grows with the activity.

    In classes of equal count the squared 90 % quantile, without the noise, is fitted by non-negative least
    squares of relative weight.

    Parameters
    ----------
    errors : ndarray (band, n)
    activity : ndarray (n,)
    noise : ndarray (band,)
        Variance to take out.
    """
    bins = int(np.clip(activity.size // _PER_BIN, 1, _BINS))
    parts = np.array_split(np.argsort(activity, kind="stable"), bins)
    centres = np.array([activity[part].mean() for part in parts])
    spread = np.stack([spread_of(errors[:, part]) for part in parts], axis=1)
    left = np.maximum(spread - noise[:, None], 0)
    if bins == 1 or np.ptp(centres) <= 1e-9 * centres.max():
        return left.mean(1), np.zeros(len(errors))
    weight = 1 / np.maximum(spread, 1e-30)
    design = np.stack([np.ones(bins), centres / centres.max()], axis=1)
    found = np.array([nnls(design * w[:, None], y * w)[0] for w, y in zip(weight, left, strict=True)])
    return found[:, 0], found[:, 1] / centres.max()


def find_activity(msi: FloatArray, psf: PSF, scale: FloatArray) -> FloatArray:
    """Local mean square of the MSI's details over their scale, ``(msi_band, y, x)`` to ``(y, x)``."""
    power = np.square(find_detail(msi, psf) / scale[:, None, None].astype(msi.dtype)).mean(0)
    return np.asarray(gaussian_filter(power, _SMOOTH * psf.ratio, mode="nearest", truncate=_REACH))


def find_detail(msi: FloatArray, psf: PSF) -> FloatArray:
    """What an image shows and a PSF would hide, ``(band, y, x)``."""
    return np.asarray(msi - upsample(degrade(msi, psf), psf))


def spread_of(errors: FloatArray) -> FloatArray:
    """Squared deviation of errors (band, n) by their 90 % quantile."""
    return np.asarray(np.square(np.quantile(np.abs(errors), 0.9, axis=1) / TAIL).astype(float))
