"""Pairs in memory whose PSF, responses and noise are known; made with scipy, not with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from csakd_geo.pair import Block, Pair
from csakd_geo.spectral import SpectralAxis

Array = NDArray[np.floating]


def land(bands: int = 30, height: int = 96, width: int = 96, *, seed: int = 0) -> Array:
    """Six smooth spectra mixed by textures of several scales, about 0 to 1, (band, y, x)."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, bands)
    spectra = []
    for _ in range(6):
        spectrum = 0.15 + 0.5 * rng.random()
        for _ in range(3):
            spectrum = spectrum + 0.25 * rng.standard_normal() * np.exp(
                -((t - rng.random()) ** 2) / rng.uniform(0.01, 0.15)
            )
        spectra.append(np.clip(spectrum, 0.02, 1))
    fields = sum(
        weight * unit(gaussian_filter(rng.standard_normal((6, height, width)), (0, size, size)))
        for size, weight in ((0.7, 0.6), (2, 1.0), (6, 1.0))
    )
    shares = np.exp(1.5 * np.asarray(fields))
    shares /= shares.sum(0)
    return np.tensordot(np.stack(spectra, 1), shares, axes=1).astype(np.float32)


def unit(fields: Array) -> Array:
    return fields / fields.std((1, 2), keepdims=True)


def aviris(folder: Path, name: str, side: int = 100) -> Array:
    """A small AVIRIS scene, (band, y, x)."""
    with rasterio.open(folder / "aviris" / f"{name}.tif") as file:
        return np.asarray(file.read(window=((0, side), (0, side))), dtype=np.float32)


def broad_bands(count: int, bands: int, width: float = 0.12) -> Array:
    """Gaussian responses spread over the first two thirds of the spectrum, rows summing to 1."""
    t = np.linspace(0, 1, bands)
    centres = np.linspace(0.1, 0.65, count) if count > 1 else np.array([0.3])
    weights = np.exp(-4 * np.log(2) * ((t[None] - centres[:, None]) / width) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def coarsen(cube: Array, ratio: int, *, fwhm: float, dy: float = 0.0, dx: float = 0.0) -> Array:
    """Gaussian blur, then a sample at every block's centre moved by dy, dx (HR pixels)."""
    sigma = fwhm / 2.3548200450309493
    at_y = (np.arange(cube.shape[1] // ratio) + 0.5) * ratio - 0.5 + dy
    at_x = (np.arange(cube.shape[2] // ratio) + 0.5) * ratio - 0.5 + dx
    where = np.meshgrid(at_y, at_x, indexing="ij")
    blurred = gaussian_filter(cube.astype(np.float64), (0, sigma, sigma), mode="nearest")
    return np.stack([map_coordinates(band, where, order=3, mode="nearest") for band in blurred])


def noisy(cube: Array, snr_db: float | None, seed: int) -> tuple[Array, Array]:
    """White noise at an SNR per band, and its standard deviations."""
    if snr_db is None:
        return cube, np.zeros(len(cube))
    sigma = np.sqrt(np.square(cube).mean((1, 2)) * 10 ** (-snr_db / 10))
    noise = sigma[:, None, None] * np.random.default_rng(seed).standard_normal(cube.shape)
    return cube + noise, sigma


def axes(bands: int, msi_bands: int) -> tuple[SpectralAxis, SpectralAxis]:
    return (
        SpectralAxis.build(np.linspace(400, 2450, bands)),
        SpectralAxis.build(np.linspace(480, 1700, msi_bands)),
    )


def made_pair(
    truth: Array,
    *,
    ratio: int = 4,
    fwhm: float | None = None,
    dy: float = 0.0,
    dx: float = 0.0,
    srf: Array | None = None,
    snr: tuple[float | None, float | None] = (35.0, 40.0),
    gain: float = 1.0,
    offset: float = 0.0,
    seed: int = 1,
) -> tuple[Pair, Array, Array]:
    """A pair of one block, its truth (cropped to the ratio) and the HSI's true noise."""
    height, width = (n // ratio * ratio for n in truth.shape[1:])
    truth = truth[:, :height, :width]
    srf = broad_bands(4, len(truth)) if srf is None else srf
    hsi, sigma = noisy(coarsen(truth, ratio, fwhm=fwhm or ratio, dy=dy, dx=dx), snr[0], seed)
    msi, _ = noisy(np.tensordot(srf, truth, axes=1), snr[1], seed + 1)
    block = Block(
        hsi.astype(np.float32), (gain * msi + offset).astype(np.float32), np.ones(hsi.shape[1:], bool)
    )
    return Pair((block,), ratio, *axes(len(truth), len(srf))), truth, sigma


def rmse(a: Array, b: Array) -> float:
    return float(np.sqrt(np.square(a - b, dtype=np.float64).mean()))
