"""Made observations of a cube: what sensors with other bands, blur, noise and position would see of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import PSF, degrade, observe
from csakd_geo.pair import Block, Pair
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis, gaussian_response
from csakd_geo.train.land import make_land

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Variation:
    """Ranges that made observations are drawn from.

    Parameters
    ----------
    ratios : tuple of int
        Each as likely as it is often named.
    fwhm : (float, float)
        Of the PSF, in LR pixels.
    phase : float
        Largest displacement of the PSF from the block's centre, in LR pixels.
    misregistration : float
        Largest shift of the HSI on top of that, in MSI pixels.
    snr_hsi, snr_msi : (float, float) or None
        In dB; None adds no noise.
    sensors : tuple of str
        MSI sensors whose bands are taken, as far as the HSI covers them.
    random_share : float
        Share of observations with random bands instead, `random_bands` of them (least, most).
    centre_shift : float
        Largest shift of a band's centre against what its axis says, in nm.
    width_change : float
        Largest change of a band's width against what its axis says, as a share.
    vnir : float
        Share of observations that end at 1000 nm.
    turned : float
        Share of observations of land that is turned by any angle, with pixels up to `coarser` times as large.
    coarser : float
        At least 1.
    joined : float
        Share of observations of land that is laid over other land, where there is any.
    """

    ratios: tuple[int, ...] = (2, 3, 4, 4, 4, 5, 6)
    fwhm: tuple[float, float] = (0.8, 1.3)
    phase: float = 0.15
    misregistration: float = 0.0
    snr_hsi: tuple[float, float] | None = (28.0, 45.0)
    snr_msi: tuple[float, float] | None = (32.0, 45.0)
    sensors: tuple[str, ...] = (
        "sentinel2-10m",
        "sentinel2",
        "landsat8",
        "worldview3",
        "aviris-paper-4",
        "rgb",
    )
    random_share: float = 0.4
    random_bands: tuple[int, int] = (1, 9)
    centre_shift: float = 0.0
    width_change: float = 0.0
    vnir: float = 0.3
    turned: float = 0.7
    coarser: float = 1.7
    joined: float = 0.65

    @property
    def plain(self) -> Variation:
        """Observations of the land as it is."""
        return replace(self, turned=0.0, joined=0.0)


def vary(
    truth: FloatArray,
    axis: SpectralAxis,
    ranges: Variation,
    rng: np.random.Generator,
    *,
    other: FloatArray | None = None,
) -> tuple[Pair, FloatArray]:
    """A random observation of a cube: land, bands, ratio, PSF, position, noise.

    Parameters
    ----------
    truth : ndarray (band, y, x)
        NaN where masked; such pixels take their band's median, and LR pixels that saw one are not valid.
    axis : SpectralAxis
        With wavelengths.
    ranges : Variation
    rng : numpy.random.Generator
    other : ndarray (band, y, x), optional
        Land in the same bands that may be laid over the first; what both cover is observed.

    Returns
    -------
    pair : Pair
    truth : ndarray (band, y, x)
        Cropped to the ratio and otherwise as the pair saw it.
    """
    ratio = int(rng.choice(ranges.ratios))
    truth, missing = make_land(
        _filled(truth),
        None if other is None else _filled(other),
        rng,
        turned=ranges.turned,
        coarser=ranges.coarser,
        joined=ranges.joined,
    )
    if rng.random() < ranges.vnir:  # a VNIR instrument
        keep = np.flatnonzero(axis.wavelength <= 1000)
        if len(keep) > 20:
            truth, axis = truth[keep], axis.take(keep)
    height, width = (n // ratio * ratio for n in truth.shape[1:])
    truth, missing = np.ascontiguousarray(truth[:, :height, :width]), missing[:height, :width]
    reach = ratio * ranges.phase + ranges.misregistration
    psf = PSF(ratio, ratio * rng.uniform(*ranges.fwhm), *rng.uniform(-reach, reach, 2))
    msi_axis, srf = _bands(axis, ranges, rng)
    hsi, msi = observe(
        truth,
        srf,
        psf=psf,
        snr_hsi=None if ranges.snr_hsi is None else rng.uniform(*ranges.snr_hsi),
        snr_msi=None if ranges.snr_msi is None else rng.uniform(*ranges.snr_msi),
        seed=int(rng.integers(2**31)),
    )
    valid = degrade(missing[None].astype(np.float32), psf)[0] <= 0
    return Pair((Block(hsi, msi, valid),), ratio, axis, msi_axis), truth


def _filled(cube: FloatArray) -> tuple[FloatArray, BoolArray]:
    """A cube without NaN, and where it had any, (y, x)."""
    missing = np.asarray(~np.isfinite(cube).all(0))
    if missing.any() and not missing.all():
        median = np.median(cube[:, ~missing], axis=1).astype(cube.dtype)
        cube = np.where(missing, median[:, None, None], cube)
    return cube, missing


def _bands(
    axis: SpectralAxis, ranges: Variation, rng: np.random.Generator
) -> tuple[SpectralAxis, FloatArray]:
    """MSI bands and what they really respond to."""
    if rng.random() < ranges.random_share:
        bands = _random_bands(axis, ranges, rng)
    else:
        bands = covered_bands(str(rng.choice(ranges.sensors)), axis)
        if bands.size == 0:
            bands = _random_bands(axis, ranges, rng)
    centres = bands.wavelength + rng.uniform(-1, 1, bands.size) * ranges.centre_shift
    widths = bands.filled_fwhm() * (1 + rng.uniform(-1, 1, bands.size) * ranges.width_change)
    gap = np.abs(centres[:, None] - _known(axis)).min(1)
    centres = np.where(gap <= widths / 2, centres, bands.wavelength)
    return bands, gaussian_response(SpectralAxis.build(centres, fwhm=widths), axis)


def covered_bands(sensor: str, axis: SpectralAxis) -> SpectralAxis:
    """The bands of a sensor that an HSI covers; none lies in a gap of it or within 15 nm of its ends."""
    bands, known = get_sensor(sensor).axis, _known(axis)
    gap = np.abs(bands.wavelength[:, None] - known).min(1)
    inside = (bands.wavelength > known.min() + 15) & (bands.wavelength < known.max() - 15)
    return bands.take(np.flatnonzero(inside & (gap <= bands.filled_fwhm() / 2)))


def _random_bands(axis: SpectralAxis, ranges: Variation, rng: np.random.Generator) -> SpectralAxis:
    """Bands anywhere that the HSI covers; none lies in a gap of it."""
    known = _known(axis)
    low, high = float(known.min()), float(known.max())
    count = int(rng.integers(ranges.random_bands[0], ranges.random_bands[1] + 1))
    top = high if rng.random() < 0.5 or low > 900 else min(high, 1000.0)
    edge = min(30.0, (top - low) / 4)
    centres = np.sort(rng.uniform(low + edge, top - edge, count))
    fwhm = rng.uniform(25, 150, count)
    distance = np.abs(centres[:, None] - known)
    nearest = known[distance.argmin(1)]
    return SpectralAxis.build(np.where(distance.min(1) <= fwhm / 2, centres, nearest), fwhm=fwhm)


def _known(axis: SpectralAxis) -> FloatArray:
    return axis.wavelength[np.isfinite(axis.wavelength)]
