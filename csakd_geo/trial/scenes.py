"""Scenes whose truth is known: tiles of the authors' layout, triples of files, or cubes degraded here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from csakd_geo.degrade import PSF, add_noise, apply_srf, degrade
from csakd_geo.errors import InputError
from csakd_geo.grid import lay_grid
from csakd_geo.io import Source, open_source
from csakd_geo.io.official import read_tile
from csakd_geo.spectral import SpectralAxis

if TYPE_CHECKING:
    import xarray as xr
    from rasterio.crs import CRS

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Condition:
    """How the HSI is made worse: white noise of `snr` dB per band, `shift` MSI pixels off; None is neither."""

    snr: float | None = None
    shift: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """A pair as it is fused (paths or DataArrays), and its truth."""

    hsi: Path | xr.DataArray
    msi: Path | xr.DataArray
    truth: Source


class Scene(Protocol):
    """A pair with a truth, loaded when it is its turn."""

    @property
    def name(self) -> str:
        """For tables."""

    def load(self, condition: Condition, *, seed: int) -> Inputs:
        """The pair under a condition."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile of the authors' layout; its pixels have the size 1 and no CRS."""

    root: Path
    name: str
    msi_bands: int

    def load(self, condition: Condition, *, seed: int) -> Inputs:
        """Read it; a shift chooses among the stored HSIs, noise is added to what is stored."""
        tile = read_tile(self.root, self.name, msi_bands=self.msi_bands, shift=condition.shift or 0)
        fine = Affine(1, 0, 0, 0, -1, tile.truth.shape[1])
        bands = SpectralAxis.unknown(len(tile.truth))
        hsi = _noisy(tile.hsi, condition.snr, seed)
        return Inputs(
            _array(f"HSI of {self.name}", hsi, bands, fine * Affine.scale(tile.ratio)),
            _array(f"MSI of {self.name}", tile.msi, SpectralAxis.unknown(len(tile.msi)), fine),
            open_source(_array(f"truth of {self.name}", tile.truth, bands, fine)),
        )


@dataclass(frozen=True, slots=True)
class Triple:
    """Three files; the HSI is read as it is unless the condition changes it."""

    name: str
    hsi: Path
    msi: Path
    truth: Path

    def load(self, condition: Condition, *, seed: int) -> Inputs:
        """Add noise to the HSI, and move its transform up and left, so that it shows what lies down and right."""
        truth = open_source(self.truth)
        if condition.snr is None and not condition.shift:
            return Inputs(self.hsi, self.msi, truth)
        hsi = open_source(self.hsi)
        transform = hsi.transform
        if condition.shift:
            off = -condition.shift / lay_grid(hsi, open_source(self.msi)).ratio
            transform = transform * Affine.translation(off, off)
        values = _noisy(hsi.read(0, 0, hsi.height, hsi.width), condition.snr, seed)
        return Inputs(_array(hsi.name, values, hsi.axis, transform, hsi.crs, hsi.units), self.msi, truth)


@dataclass(frozen=True, slots=True, eq=False)
class Cube:
    """A fine cube that is degraded by Wald's protocol (Wald et al. 1997), in memory."""

    name: str
    source: Source
    bands: tuple[int, ...]
    msi_axis: SpectralAxis
    srf: NDArray[np.float64]
    ratio: int
    snr_hsi: float
    snr_msi: float

    def load(self, condition: Condition, *, seed: int) -> Inputs:
        """Degrade it; a shift displaces the footprint of every HSI pixel down and right."""
        source, r = self.source, self.ratio
        axis = source.axis.take(self.bands)
        truth = source.read(0, 0, source.height // r * r, source.width // r * r, bands=self.bands)
        missing = np.asarray(np.isnan(truth).any(0))
        if missing.all():
            raise InputError(f"'{source.name}' has no pixel with data in all good bands.")
        filled = np.where(missing, np.median(truth[:, ~missing], axis=1)[:, None, None], truth)
        off = float(condition.shift or 0)
        psf = PSF(r, float(r), dy=off, dx=off)
        rng = np.random.default_rng(seed)
        hsi = add_noise(degrade(filled, psf), self.snr_hsi if condition.snr is None else condition.snr, rng)
        msi = add_noise(apply_srf(filled, self.srf), self.snr_msi, rng)
        hsi[:, degrade(missing[None].astype(np.float32), psf)[0] > 0] = np.nan
        msi[:, missing] = np.nan
        place = (source.transform, source.crs, source.units)
        return Inputs(
            _array(
                f"HSI of {self.name}", hsi, axis, source.transform * Affine.scale(r), source.crs, source.units
            ),
            _array(f"MSI of {self.name}", msi, self.msi_axis, *place),
            open_source(_array(source.name, truth, axis, *place)),
        )


def _noisy(cube: FloatArray, snr: float | None, seed: int) -> FloatArray:
    """White noise per band; what is missing stays missing and does not count for the power."""
    seen = np.isfinite(cube)
    known = np.where(seen, cube, 0)
    power = np.square(known, dtype=np.float64).sum((1, 2)) / np.maximum(seen.sum((1, 2)), 1)
    filled = np.where(seen, cube, np.sqrt(power)[:, None, None].astype(cube.dtype))
    return np.where(seen, add_noise(filled, snr, np.random.default_rng(seed)), cube)


def _array(
    name: str,
    cube: FloatArray,
    axis: SpectralAxis,
    transform: Affine,
    crs: CRS | None = None,
    units: str = "",
) -> xr.DataArray:
    """A cube ``(band, y, x)`` with what is known of its bands and place."""
    import rioxarray  # noqa: F401 (it registers the accessor)
    import xarray as xr

    coords: dict[str, Any] = {"good": ("band", axis.good)}
    for key, values in (("wavelength", axis.wavelength), ("fwhm", axis.fwhm)):
        if np.isfinite(values).any():
            coords[key] = ("band", values)
    array = xr.DataArray(cube, dims=("band", "y", "x"), coords=coords, attrs={"units": units}, name=name)
    if crs is not None:
        array = array.rio.write_crs(crs)
    placed: xr.DataArray = array.rio.write_transform(transform)
    return placed
