"""The pairs that figures are measured on: the sample, and real scenes from a data folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import calculate_default_transform, reproject

from csakd_geo.degrade import PSF, add_noise, apply_srf, degrade
from csakd_geo.sample import write_sample
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis, gaussian_response

AVIRIS = [
    "abu_airport_1",
    "abu_airport_2",
    "abu_airport_3",
    "abu_urban_4",
    "abu_urban_5",
    "abu_beach_2",
    "abu_beach_3",
    "sandiego_0",
    "sandiego_1",
    "gatorsense_224",
    "indian_pines_200",
]


@dataclass(frozen=True)
class Case:
    """A pair of files with, where there is one, its truth."""

    name: str
    hsi: Path
    msi: Path
    truth: Path | None
    ratio: int


def write(path: Path, cube, transform, *, crs=None, axis: SpectralAxis | None = None, nodata=None) -> Path:
    """A plain float32 GeoTIFF with wavelengths."""
    profile = dict(
        driver="GTiff", count=len(cube), height=cube.shape[1], width=cube.shape[2], dtype="float32"
    )
    with rasterio.open(path, "w", transform=transform, crs=crs, nodata=nodata, **profile) as dst:
        dst.write(cube.astype(np.float32))
        for k in range(len(cube) if axis is not None else 0):
            tags = {"wavelength": f"{axis.wavelength[k]:.3f}", "wavelength_units": "Nanometers"}
            if np.isfinite(axis.fwhm[k]):
                tags["fwhm"] = f"{axis.fwhm[k]:.3f}"
            dst.update_tags(k + 1, bbl=str(int(axis.good[k])), **tags)
    return path


def read(path: Path):
    """Cube, transform, CRS and axis of a GeoTIFF; nodata is NaN."""
    from csakd_geo.io import open_source

    source = open_source(path)
    return source.read(0, 0, source.height, source.width), source.transform, source.crs, source.axis


def sample_case(folder: Path) -> Case:
    """The embedded sample: AVIRIS Indian Pines, ratio 4, Sentinel-2's 10 m bands."""
    made = write_sample(folder, overwrite=True)
    return Case("sample", made.hsi, made.msi, made.truth, 4)


def paris_ms(data: Path, folder: Path) -> Case:
    """Hyperion degraded x3 with the real ALI MSI; Hyperion itself is the truth."""
    cube, transform, crs, axis = read(data / "paris_ms" / "hyperion_hsi_30m.tif")
    hsi = write(
        folder / "paris_hsi_90m.tif",
        degrade(cube, PSF.nominal(3)),
        transform * Affine.scale(3),
        crs=crs,
        axis=axis,
    )
    base = data / "paris_ms"
    return Case("paris_ms x3", hsi, base / "ali_ms_30m.tif", base / "hyperion_hsi_30m.tif", 3)


def enmap(data: Path, folder: Path, *, crs: int = 3035) -> Case:
    """EnMAP block A degraded x3 against a Sentinel-2-like MSI in another CRS with another origin.

    The truth is the EnMAP block itself, warped once (cubic) to the MSI's grid.
    """
    ratio, seed = 3, 0
    cube, transform, source_crs, axis = read(data / "enmap_potsdam" / "block_A_128x64.tif")
    height, width = (n // ratio * ratio for n in cube.shape[1:])
    cube = cube[:, :height, :width]
    empty = np.isnan(cube).all((1, 2))
    axis = axis.with_good(axis.good & ~empty)
    rng = np.random.default_rng(seed)
    coarse = degrade(np.nan_to_num(cube), PSF.nominal(ratio))
    coarse = add_noise(coarse, 35.0, rng)
    coarse[empty] = -9999.0
    hsi = write(
        folder / "enmap_hsi_90m.tif",
        coarse,
        transform * Affine.scale(ratio),
        crs=source_crs,
        axis=axis,
        nodata=-9999.0,
    )
    bounds = rasterio.transform.array_bounds(height, width, transform)
    target_crs = CRS.from_epsg(crs)
    target, w, h = calculate_default_transform(source_crs, target_crs, width, height, *bounds, resolution=30)
    target = target * Affine.translation(0.37, -0.21)
    truth = np.full((len(cube), h, w), np.nan, np.float32)
    reproject(
        cube,
        truth,
        src_transform=transform,
        src_crs=source_crs,
        dst_transform=target,
        dst_crs=target_crs,
        src_nodata=np.nan,
        dst_nodata=np.nan,
        resampling=Resampling.cubic,
        UNIFIED_SRC_NODATA="NO",
    )
    bands = get_sensor("sentinel2").axis
    srf = gaussian_response(bands, axis)
    msi = apply_srf(np.nan_to_num(truth), srf)
    outside = np.isnan(truth[~empty]).any(0)
    msi = add_noise(msi, 40.0, rng)
    msi[:, outside] = -9999.0
    msi_path = write(folder / f"enmap_msi_{crs}.tif", msi, target, crs=target_crs, axis=bands, nodata=-9999.0)
    truth_path = write(
        folder / f"enmap_truth_{crs}.tif", truth, target, crs=target_crs, axis=axis, nodata=np.nan
    )
    return Case(f"enmap x3, EPSG:{crs}", hsi, msi_path, truth_path, ratio)


def paris_pan(data: Path) -> Case:
    """Real Hyperion with the real ALI panchromatic band; no truth."""
    base = data / "paris_pan"
    return Case("paris_pan", base / "hyperion_hsi_30m.tif", base / "ali_pan_10m.tif", None, 3)


def neon(data: Path) -> Case:
    """NEON imaging spectrometer (no CRS in the file) with a 0.1 m camera; no truth."""
    base = data / "neon_sjer052"
    return Case("neon_sjer052", base / "SJER_052_hyperspectral.tif", base / "SJER_052_rgb.tif", None, 10)


def load_scene(path: Path, scale: float | None = None):
    """A cube over its maximum or a scale, and its axis; constant bands are dropped, unknown wavelengths are nominal."""
    with rasterio.open(path) as source:
        cube = source.read().astype(np.float32)
        stated = [source.tags(i + 1).get("wavelength") for i in range(source.count)]
    known = all(stated)
    centres = np.array([float(v) for v in stated]) if known else np.linspace(400, 2450, len(cube))
    keep = np.ptp(cube.reshape(len(cube), -1), axis=1) > 0
    cube = np.clip(cube[keep], 0, None)
    return cube / (scale or cube.max()), SpectralAxis.build(centres[keep], nominal=not known)


def aviris(data: Path, folder: Path, name: str) -> Case:
    """One AVIRIS scene x4 with four Gaussian bands; noise 35 and 40 dB."""
    cube, axis = load_scene(data / "aviris" / f"{name}.tif")
    height, width = (n // 4 * 4 for n in cube.shape[1:])
    cube = cube[:, :height, :width]
    bands = get_sensor("aviris-paper-4").axis
    from csakd_geo.degrade import observe

    hsi, msi = observe(cube, gaussian_response(bands, axis), psf=PSF.nominal(4), snr_hsi=35, snr_msi=40)
    at = Affine.translation(500_000, 4_000_000) * Affine.scale(4, -4)
    crs = CRS.from_epsg(32611)
    return Case(
        name,
        write(folder / f"{name}_hsi.tif", hsi, at * Affine.scale(4), crs=crs, axis=axis),
        write(folder / f"{name}_msi.tif", msi, at, crs=crs, axis=bands),
        write(folder / f"{name}_truth.tif", cube, at, crs=crs, axis=axis),
        4,
    )


def scored_cases(data: Path | None, folder: Path, *, airborne: bool) -> list[Case]:
    """The pairs whose truth is known: the sample, those of the data folder, and its AVIRIS scenes if wanted."""
    (folder / "sample").mkdir()
    cases = [sample_case(folder / "sample")]
    if data is not None:
        cases += [paris_ms(data, folder), enmap(data, folder), enmap(data, folder, crs=25833)]
        cases += [aviris(data, folder, name) for name in AVIRIS] if airborne else []
    return cases
