"""From fine to coarse: PSF and SRF operators, their adjoint, the cubic way back up, noise.

An LR pixel is a block of ``ratio`` x ``ratio`` HR pixels. Its footprint is a separable Gaussian
centred on the block, displaced by ``dy``, ``dx`` HR pixels. Kernels have the parity of the
ratio, so a centred PSF is symmetric about the block's centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import GridError

FloatArray = NDArray[np.floating]

_FWHM_TO_SIGMA = 1.0 / (2.0 * math.sqrt(2.0 * math.log(2.0)))
_REACH = 3.0  # sigmas kept on each side


@dataclass(frozen=True, slots=True)
class PSF:
    """Separable Gaussian footprint of an LR pixel.

    Parameters
    ----------
    ratio : int
        HR pixels per LR pixel and axis.
    fwhm : float
        Full width at half maximum in HR pixels.
    dy, dx : float
        Displacement of the footprint's centre from the block's centre, in HR pixels
        (down and right are positive).
    """

    ratio: int
    fwhm: float
    dy: float = 0.0
    dx: float = 0.0

    @classmethod
    def nominal(cls, ratio: int) -> PSF:
        """The default of Wald's protocol here: FWHM of one LR pixel, centred."""
        return cls(ratio, float(ratio))

    @property
    def margin(self) -> int:
        """HR pixels by which the kernel reaches out of its block."""
        sigma = max(self.fwhm, 1e-3) * _FWHM_TO_SIGMA
        reach = _REACH * sigma + max(abs(self.dy), abs(self.dx))
        return max(0, math.ceil(reach - self.ratio / 2))

    @property
    def halo(self) -> int:
        """LR pixels by which the kernel reaches out of its block."""
        return -(-self.margin // self.ratio)

    @property
    def context(self) -> int:
        """LR pixels around one that :func:`upsample` looks at."""
        return math.ceil(max(abs(self.dy), abs(self.dx)) / self.ratio + 0.5) + 1

    def taps(self) -> tuple[FloatArray, FloatArray]:
        """Kernel weights along y and x, each of length ``ratio + 2 * margin`` and sum 1."""
        sigma = max(self.fwhm, 1e-3) * _FWHM_TO_SIGMA
        position = np.arange(-self.margin, self.ratio + self.margin) - (self.ratio - 1) / 2

        def weights(shift: float) -> FloatArray:
            # subtracting the smallest distance keeps a very narrow kernel from underflowing
            distance = ((position - shift) / sigma) ** 2 / 2
            w = np.exp(-(distance - distance.min()))
            return np.asarray(w / w.sum())

        return weights(self.dy), weights(self.dx)


def degrade(cube: FloatArray, psf: PSF) -> FloatArray:
    """Blur and decimate a cube; edges are replicated.

    Parameters
    ----------
    cube : ndarray (band, y, x)
        HR data without NaN; y and x are multiples of the ratio.
    psf : PSF

    Returns
    -------
    ndarray (band, y / ratio, x / ratio)

    Raises
    ------
    GridError
        If y or x is no multiple of the ratio.
    """
    _, height, width = cube.shape
    r, m = psf.ratio, psf.margin
    if height % r or width % r:
        raise GridError(
            f"A cube of {height} x {width} pixels cannot be divided by ratio {r}; crop it to multiples of {r}."
        )
    ky, kx = psf.taps()
    padded = np.pad(cube, ((0, 0), (m, m), (m, m)), mode="edge") if m else cube
    rows = np.zeros((len(cube), height // r, padded.shape[2]), cube.dtype)
    for k, w in enumerate(ky):
        rows += float(w) * padded[:, k : k + height : r]
    out = np.zeros((len(cube), height // r, width // r), cube.dtype)
    for k, w in enumerate(kx):
        out += float(w) * rows[:, :, k : k + width : r]
    return out


def adjoint(cube: FloatArray, psf: PSF) -> FloatArray:
    """Transpose of :func:`degrade`: spread each LR pixel over its footprint.

    Replicated edges come back to where they were taken from.

    Parameters
    ----------
    cube : ndarray (band, y, x)

    Returns
    -------
    ndarray (band, y * ratio, x * ratio)
    """
    bands, height, width = cube.shape
    r, m = psf.ratio, psf.margin
    ky, kx = psf.taps()
    rows = np.zeros((bands, height * r + 2 * m, width), cube.dtype)
    for k, w in enumerate(ky):
        rows[:, k : k + height * r : r] += float(w) * cube
    rows = _fold(rows, m, 1)
    out = np.zeros((bands, height * r, width * r + 2 * m), cube.dtype)
    for k, w in enumerate(kx):
        out[:, :, k : k + width * r : r] += float(w) * rows
    return np.ascontiguousarray(_fold(out, m, 2))


def _fold(cube: FloatArray, margin: int, axis: int) -> FloatArray:
    """Add what lies in the margins of an axis to its first and last cell, and drop the margins."""
    if margin == 0:
        return cube
    moved = np.moveaxis(cube, axis, 0)
    inner = moved[margin:-margin]
    inner[0] += moved[:margin].sum(0)
    inner[-1] += moved[-margin:].sum(0)
    return np.moveaxis(inner, 0, axis)


def axis_gram(taps: FloatArray, ratio: int, size: int) -> FloatArray:
    """``S S'`` along one axis, (size, size), for ``S`` = :func:`degrade` with its replicated edges.

    Parameters
    ----------
    taps : ndarray
        Along this axis, from :meth:`PSF.taps`.
    ratio : int
    size : int
        LR pixels.
    """
    margin = (len(taps) - ratio) // 2
    matrix = np.zeros((size, size * ratio))
    columns = np.arange(size)[:, None] * ratio - margin + np.arange(len(taps))
    rows = np.broadcast_to(np.arange(size)[:, None], columns.shape)
    np.add.at(matrix, (rows, np.clip(columns, 0, size * ratio - 1)), np.broadcast_to(taps, columns.shape))
    return np.asarray(matrix @ matrix.T)


def upsample(cube: FloatArray, psf: PSF) -> FloatArray:
    """Cubic interpolation (Keys 1981, a = -1/2) from LR pixel centres to HR pixel centres.

    The PSF's displacement is where the LR samples lie, so a shifted pair comes out in place.
    Edges are replicated.

    Parameters
    ----------
    cube : ndarray (band, y, x)

    Returns
    -------
    ndarray (band, y * ratio, x * ratio)
    """
    return _upsample_axis(_upsample_axis(cube, 1, psf.ratio, psf.dy), 2, psf.ratio, psf.dx)


def _upsample_axis(cube: FloatArray, axis: int, ratio: int, shift: float) -> FloatArray:
    size = cube.shape[axis]
    position = (np.arange(ratio) - (ratio - 1) / 2 - shift) / ratio  # in LR pixels, of each phase
    first = np.floor(position).astype(int)
    pad_low = int(max(0, 1 - first.min()))
    pad_high = int(max(0, first.max() + 2))
    pads = [(0, 0)] * cube.ndim
    pads[axis] = (pad_low, pad_high)
    padded = np.moveaxis(np.pad(cube, pads, mode="edge"), axis, 0)
    out = np.empty((size, ratio, *padded.shape[1:]), cube.dtype)
    weights = cubic_weights(position - first)
    for phase in range(ratio):
        start = pad_low + int(first[phase]) - 1
        out[:, phase] = sum(
            float(w[phase]) * padded[start + k : start + k + size] for k, w in enumerate(weights)
        )
    return np.moveaxis(out.reshape(size * ratio, *padded.shape[1:]), 0, axis)


def cubic_weights(t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Weights of the samples at -1, 0, 1 and 2 for a value at ``t`` from 0 to 1 (Keys 1981, a = -1/2)."""
    t2, t3 = t * t, t * t * t
    return (
        (-t3 + 2 * t2 - t) / 2,
        (3 * t3 - 5 * t2 + 2) / 2,
        (-3 * t3 + 4 * t2 + t) / 2,
        (t3 - t2) / 2,
    )


def finer(image: NDArray[Any], ratio: int) -> NDArray[Any]:
    """Each pixel of an image (y, x) ``ratio`` x ``ratio`` times."""
    return np.repeat(np.repeat(image, ratio, 0), ratio, 1)


def apply_srf(cube: FloatArray, srf: FloatArray) -> FloatArray:
    """Weighted sums over bands: ``(msi_band, hsi_band) x (hsi_band, y, x) -> (msi_band, y, x)``."""
    return np.asarray(np.tensordot(srf.astype(cube.dtype, copy=False), cube, axes=1))


def add_noise(cube: FloatArray, snr_db: float | None, rng: np.random.Generator) -> FloatArray:
    """White Gaussian noise, per band at ``10 log10(mean square / variance) = snr_db``.

    ``None`` means no noise.
    """
    if snr_db is None:
        return cube
    power = np.mean(np.square(cube, dtype=np.float64), axis=(1, 2), keepdims=True)
    sigma = np.sqrt(power * 10 ** (-snr_db / 10))
    return np.asarray(cube + sigma * rng.standard_normal(cube.shape), dtype=cube.dtype)


def observe(
    truth: FloatArray,
    srf: FloatArray,
    *,
    psf: PSF,
    snr_hsi: float | None = None,
    snr_msi: float | None = None,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """What the two sensors would see of a truth (Wald et al. 1997): HSI and MSI.

    Parameters
    ----------
    truth : ndarray (band, y, x)
    srf : ndarray (msi_band, band)
    psf : PSF
    snr_hsi, snr_msi : float or None
        Signal to noise in dB; None adds none.
    seed : int

    Returns
    -------
    hsi : ndarray (band, y / ratio, x / ratio)
    msi : ndarray (msi_band, y, x)
    """
    rng = np.random.default_rng(seed)
    hsi = add_noise(degrade(truth, psf), snr_hsi, rng)
    msi = add_noise(apply_srf(truth, srf), snr_msi, rng)
    return hsi, msi
