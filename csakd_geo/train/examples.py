"""What the network learns from: prepared inputs with their truth, and made observations of a cube."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import PSF, apply_srf, observe
from csakd_geo.errors import ModelError
from csakd_geo.methods.csakd import network_inputs, prepare
from csakd_geo.methods.subspace import Subspace
from csakd_geo.pair import Block, Pair, degrade_pair
from csakd_geo.response import Response, estimate_response
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis, gaussian_response

if TYPE_CHECKING:
    from csakd_geo.models.card import ModelCard

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One window as a subspace model sees it, and the truth in spectra over the scene's scale.

    Parameters
    ----------
    hsi : ndarray (K, y, x)
    msi, base : ndarray (K, ry, rx)
    truth : ndarray (band, ry, rx)
    basis : ndarray (band, K)
        From the network's coefficients to spectra.
    mean : ndarray (band,)
    ratio : int
    usable : ndarray (y, x) bool
        LR pixels that may be learned from (or scored on).
    """

    hsi: FloatArray
    msi: FloatArray
    base: FloatArray
    truth: FloatArray
    basis: FloatArray
    mean: FloatArray
    ratio: int
    usable: BoolArray


def make_examples(
    card: ModelCard, pair: Pair, truths: tuple[FloatArray, ...], response: Response
) -> list[Example]:
    """Prepare a pair whose truth is known, block by block.

    Raises
    ------
    ModelError
        If the card is not of the residual subspace form.
    """
    if card.form != "subspace" or not card.network.residual:
        raise ModelError(f"Model '{card.name}' is not of the residual subspace form that is trained here.")
    fitted = prepare(card, pair, response)
    subspace = Subspace.of(fitted.inner(str(card.base)))
    scale = float(np.percentile(pair.hsi_spectra(), 99.5)) or 1.0
    kept = card.network.bands
    basis = np.zeros((len(subspace.mean), kept), np.float32)
    basis[:, : len(subspace.deviation)] = subspace.basis * subspace.deviation / scale
    examples = []
    for block, truth in zip(pair.blocks, truths, strict=True):
        hsi, msi, base = network_inputs(card, fitted, block.hsi, block.msi)
        if base is None:
            raise ModelError(f"Model '{card.name}' has no base.")
        examples.append(
            Example(
                hsi=np.ascontiguousarray(hsi, dtype=np.float32),
                msi=np.ascontiguousarray(msi, dtype=np.float32),
                base=np.ascontiguousarray(base, dtype=np.float32),
                truth=np.asarray(truth / scale, dtype=np.float32),
                basis=basis,
                mean=np.asarray(subspace.mean / scale, dtype=np.float32),
                ratio=pair.ratio,
                usable=block.valid,
            )
        )
    return examples


def wald_examples(card: ModelCard, pair: Pair, response: Response) -> list[Example]:
    """Examples from a pair itself, one level down: the HSI is the truth (Wald et al. 1997)."""
    lower, truths = degrade_pair(pair, response.psf)
    return make_examples(card, lower, truths, estimate_response(lower, psf=response.psf))


@dataclass(frozen=True, slots=True)
class Variation:
    """Ranges that made observations are drawn from; FWHM in LR pixels, phase in LR pixels, dB."""

    ratios: tuple[int, ...] = (2, 3, 4, 4, 4, 5, 6)
    fwhm: tuple[float, float] = (0.8, 1.3)
    phase: float = 0.15
    snr_hsi: tuple[float, float] = (28.0, 45.0)
    snr_msi: tuple[float, float] = (32.0, 45.0)
    sensors: tuple[str, ...] = (
        "sentinel2-10m",
        "sentinel2",
        "landsat8",
        "worldview3",
        "aviris-paper-4",
        "rgb",
    )
    random_bands: tuple[int, int] = (1, 9)


def vary(
    truth: FloatArray, axis: SpectralAxis, ranges: Variation, rng: np.random.Generator
) -> tuple[Pair, FloatArray]:
    """A random observation of a cube: bands, ratio, PSF, noise, scale, turn.

    Parameters
    ----------
    truth : ndarray (band, y, x)
    axis : SpectralAxis
        With wavelengths.
    ranges : Variation
    rng : numpy.random.Generator

    Returns
    -------
    pair : Pair
    truth : ndarray (band, y, x)
        Cropped to the ratio and otherwise as the pair saw it.
    """
    ratio = int(rng.choice(ranges.ratios))
    if rng.random() < 0.3:  # the same land from higher up
        truth = _halve(truth)
    if rng.random() < 0.3:  # a VNIR instrument
        keep = np.flatnonzero(axis.wavelength <= 1000)
        if len(keep) > 20:
            truth, axis = truth[keep], axis.take(keep)
    truth = np.rot90(truth, int(rng.integers(4)), axes=(1, 2))
    if rng.random() < 0.5:
        truth = truth[:, :, ::-1]
    height, width = (n // ratio * ratio for n in truth.shape[1:])
    truth = np.ascontiguousarray(truth[:, :height, :width])
    psf = PSF(
        ratio, ratio * rng.uniform(*ranges.fwhm), *(ratio * rng.uniform(-ranges.phase, ranges.phase, 2))
    )
    msi_axis, srf = _random_bands(axis, ranges, rng)
    hsi, msi = observe(
        truth,
        srf,
        psf=psf,
        snr_hsi=rng.uniform(*ranges.snr_hsi),
        snr_msi=rng.uniform(*ranges.snr_msi),
        seed=int(rng.integers(2**31)),
    )
    block = Block(hsi, msi, np.ones(hsi.shape[1:], bool))
    return Pair((block,), ratio, axis, msi_axis), truth


def _halve(truth: FloatArray) -> FloatArray:
    _, height, width = truth.shape
    even = truth[:, : height // 2 * 2, : width // 2 * 2]
    return np.asarray(even.reshape(len(truth), height // 2, 2, width // 2, 2).mean((2, 4)))


def _random_bands(
    axis: SpectralAxis, ranges: Variation, rng: np.random.Generator
) -> tuple[SpectralAxis, FloatArray]:
    """MSI bands of a known sensor, or random ones, that the HSI covers; none lies in a gap of it."""
    known = axis.wavelength[np.isfinite(axis.wavelength)]
    low, high = float(known.min()), float(known.max())
    if rng.random() < 0.6:
        bands = get_sensor(str(rng.choice(ranges.sensors))).axis
        gap = np.abs(bands.wavelength[:, None] - known).min(1)
        inside = (bands.wavelength > low + 15) & (bands.wavelength < high - 15)
        seen = np.flatnonzero(inside & (gap <= bands.filled_fwhm() / 2))
        if seen.size:
            bands = bands.take(seen)
            return bands, gaussian_response(bands, axis)
    count = int(rng.integers(ranges.random_bands[0], ranges.random_bands[1] + 1))
    top = high if rng.random() < 0.5 or low > 900 else min(high, 1000.0)
    edge = min(30.0, (top - low) / 4)
    centres = np.sort(rng.uniform(low + edge, top - edge, count))
    fwhm = rng.uniform(25, 150, count)
    distance = np.abs(centres[:, None] - known)
    nearest = known[distance.argmin(1)]
    bands = SpectralAxis.build(np.where(distance.min(1) <= fwhm / 2, centres, nearest), fwhm=fwhm)
    return bands, gaussian_response(bands, axis)


def expand(example: Example, coefficients: FloatArray) -> FloatArray:
    """Network coefficients (K, y, x) to spectra over the scene's scale (band, y, x)."""
    return apply_srf(coefficients, example.basis) + example.mean[:, None, None]
