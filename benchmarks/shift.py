"""Known shifts of real scenes against what ``csakd_geo.align.find_shift`` finds; all in HSI pixels.

    python benchmarks/shift.py DATA_FOLDER [NAME ...]

Made pairs: the HSI is made from a real cube at a place 0 to 3 of its pixels off its georeference, by
two footprints: the Gaussian that the estimator assumes, and a detector (a box one HSI pixel wide,
slightly blurred) that it does not know; noise 35 dB (HSI) and 40 dB (MSI), and 25 and 30 dB.
Real pairs: two sensors, or two cameras of one, whose MSI is cut by whole pixels of its own. Where
they truly lie is not known, so errors there are against what is found without a cut.
NAME restricts the run to scenes whose name begins so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rioxarray  # noqa: F401  (gives DataArrays their .rio)
import xarray as xr
from pairs import load_scene, read
from rasterio.transform import Affine
from scipy.special import ndtr

from csakd_geo.align import find_shift
from csakd_geo.degrade import add_noise
from csakd_geo.engine.scene import open_scene
from csakd_geo.grid import lay_grid
from csakd_geo.io import open_source
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import gaussian_response
from csakd_geo.threads import one_blas_thread

# along y and x, in HSI pixels
SHIFTS = [
    (0.0, 0.0),
    (0.25, -0.15),
    (-0.5, 0.5),
    (0.1, 1.0),
    (-1.3, 0.7),
    (2.0, -1.6),
    (-2.45, -2.1),
    (3.0, 3.0),
]
SETTINGS = [("Gaussian", 35.0, 40.0), ("detector", 35.0, 40.0), ("detector", 25.0, 30.0)]
SIDE = 80  # HSI pixels of Sentinel-2's scenes that are used
ROOM = 4  # HSI pixels around the HSI that the MSI alone shows


@dataclass(frozen=True)
class Made:
    """A real cube from which pairs are made."""

    name: str
    ratio: int
    cube: np.ndarray
    srf: np.ndarray


@dataclass(frozen=True)
class Real:
    """Two images of one place; the MSI has ``ratio`` pixels per HSI pixel."""

    name: str
    ratio: int
    hsi: np.ndarray
    msi: np.ndarray


def image(cube: np.ndarray, row: float, col: float, pixel: float) -> xr.DataArray:
    """A cube whose upper left corner lies at this row and column of the MSI's pixels."""
    array = xr.DataArray(cube.astype(np.float32), dims=("band", "y", "x"))
    at = Affine.translation(500_000 + 10 * col, 4_000_000 - 10 * row) * Affine.scale(10 * pixel, -10 * pixel)
    return array.rio.write_transform(at).rio.write_crs(32633)


def footprints(kind: str, size: int, ratio: int, shift: float) -> np.ndarray:
    """Weights of the fine pixels in each coarse one along an axis, (coarse, fine)."""
    centres = (np.arange(size // ratio) + 0.5 + shift) * ratio - 0.5
    distance = (np.arange(size)[None] - centres[:, None]) / ratio
    if kind == "Gaussian":
        weights = np.exp(-4 * np.log(2) * distance**2)
    else:
        weights = ndtr((distance + 0.5) / 0.2) - ndtr((distance - 0.5) / 0.2)
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)  # cells outside the cube see nothing


def observed(case: Made, setting: tuple[str, float, float], dy: float, dx: float, seed: int):
    """HSI and MSI; the HSI lies dy, dx of its pixels down and right of where its georeference says."""
    kind, snr_hsi, snr_msi = setting
    r, rng = case.ratio, np.random.default_rng(seed)
    height, width = (n // r * r for n in case.cube.shape[1:])
    cube = case.cube[:, :height, :width]
    ky, kx = footprints(kind, height, r, dy), footprints(kind, width, r, dx)
    hsi = add_noise((ky @ cube @ kx.T)[:, ROOM:-ROOM, ROOM:-ROOM], snr_hsi, rng)
    msi = add_noise(np.tensordot(case.srf, cube, axes=1), snr_msi, rng)
    return image(hsi, ROOM * r, ROOM * r, r), image(msi, 0, 0, 1)


def find(hsi: xr.DataArray, msi: xr.DataArray, ratio: int):
    """Shift found along y and x in HSI pixels, and seconds."""
    begun = time.perf_counter()
    a, b = open_source(hsi), open_source(msi)
    scene = open_scene(a, b, lay_grid(a, b, ratio=ratio))
    with one_blas_thread():
        x, y = find_shift(scene).pixels
    return np.array([y, x]), time.perf_counter() - begun


def made_cases(data: Path) -> Iterator[Made]:
    """AVIRIS scenes with four Landsat-like bands, EnMAP blocks with Sentinel-2's."""
    four = get_sensor("aviris-paper-4").axis
    for path in sorted((data / "aviris").glob("*.tif")):
        cube, axis = load_scene(path)
        for ratio in (2, 4):
            yield Made(path.stem, ratio, cube, gaussian_response(four, axis))
    for path in sorted((data / "enmap_potsdam").glob("*.tif")):
        cube, _, _, axis = read(path)
        keep = axis.good & np.isfinite(cube).any((1, 2))
        srf = gaussian_response(get_sensor("sentinel2").axis, axis.with_good(keep))[:, keep]
        for ratio in (2, 3):
            yield Made(f"enmap_{path.stem[:7]}", ratio, np.nan_to_num(cube[keep]), srf)


def real_cases(data: Path) -> Iterator[Real]:
    """Hyperion and ALI, NEON's spectrometer and camera, Sentinel-2's 20 m and 60 m bands and its 10 m ones."""

    def pixels(path: str) -> np.ndarray:
        with rasterio.open(data / path) as src:
            return src.read().astype(np.float32)

    yield Real("paris_pan", 3, pixels("paris_pan/hyperion_hsi_30m.tif"), pixels("paris_pan/ali_pan_10m.tif"))
    neon = pixels("neon_sjer052/SJER_052_hyperspectral.tif")
    yield Real("neon_sjer052", 10, neon, pixels("neon_sjer052/SJER_052_rgb.tif"))
    for path in sorted((data / "sentinel2").glob("*_10m.tif")):
        name, fine = path.stem[:-4], pixels(f"sentinel2/{path.name}")
        for gsd, bands in ((20, [0, 1, 2, 3]), (60, [0, 3])):
            r = gsd // 10
            coarse = pixels(f"sentinel2/{name}_{gsd}m.tif")[:, :SIDE, :SIDE]
            yield Real(
                f"s2_{name[-6:]}_{gsd}m",
                r,
                coarse,
                fine[bands][:, : coarse.shape[1] * r, : coarse.shape[2] * r],
            )


def run_made(case: Made) -> None:
    for setting in SETTINGS:
        errors, seconds, missed = [], [], []
        for seed, shift in enumerate(SHIFTS):
            hsi, msi = observed(case, setting, *shift, seed)
            found, took = find(hsi, msi, case.ratio)
            seconds.append(took)
            errors.append(float(np.hypot(*(found - shift))))
            if errors[-1] > 0.1:
                missed.append(f"{shift[0]:+g} {shift[1]:+g}: {found[0]:+.2f} {found[1]:+.2f}")
        size = f"{hsi.shape[1]} x {hsi.shape[2]}"
        report(
            f"{case.name} | {case.ratio} | {size} | {setting[0]} {setting[1]:g}/{setting[2]:g} dB",
            errors,
            seconds,
            missed,
        )


def run_real(case: Real) -> None:
    r = case.ratio
    cut, seconds, errors, missed = 3 * r, [], [], []
    hsi = case.hsi[:, ROOM:-ROOM, ROOM:-ROOM]
    zero = None
    for dy, dx in [(round(y * r), round(x * r)) for y, x in SHIFTS]:
        # the MSI's pixels keep their numbers while its georeference moves, so the HSI is off the other way
        msi = case.msi[:, cut:-cut, cut:-cut]
        found, took = find(image(hsi, ROOM * r, ROOM * r, r), image(msi, cut - dy, cut - dx, 1), r)
        zero = found if zero is None else zero
        error = found - zero + np.array([dy, dx]) / r
        errors.append(float(np.hypot(*error)))
        seconds.append(took)
        if errors[-1] > 0.1:
            missed.append(f"{-dy / r:+.2f} {-dx / r:+.2f}: {found[0]:+.2f} {found[1]:+.2f}")
    size = f"{hsi.shape[1]} x {hsi.shape[2]}"
    report(
        f"{case.name} | {r} | {size} | real, {zero[0]:+.2f} {zero[1]:+.2f} as delivered",
        errors,
        seconds,
        missed,
    )


def report(words: str, errors: list[float], seconds: list[float], missed: list[str]) -> None:
    print(
        f"| {words} | {np.median(errors):.3f} | {max(errors):.3f} | {len(missed)} of {len(errors)} "
        f"| {'; '.join(missed)} | {np.median(seconds):.2f} |",
        flush=True,
    )


def main() -> None:
    data, names = Path(sys.argv[1]), tuple(sys.argv[2:]) or ("",)
    print("| scene | ratio | HSI pixels | how | median error | worst | over 0.1 | made: found (y x) | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in real_cases(data):
        if case.name.startswith(names):
            run_real(case)
    for case in made_cases(data):
        if case.name.startswith(names):
            run_made(case)


if __name__ == "__main__":
    main()
