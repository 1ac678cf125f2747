"""A cloud in one of the images: what it does to the rest of the scene, with and without setting it aside.

    python benchmarks/clouds.py DATA

Soft clouds over 3, 10 and 25 % of AVIRIS scenes (ratio 4, four bands, noise of 35 and 40 dB), in the MSI or in the
HSI. PSNR of coupled-map over the pixels that lie at least 8 pixels away from any cloud, in dB: without clouds, fitted
on all pixels, and fitted on those where the images agree.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from pairs import load_scene
from scipy.ndimage import binary_dilation, gaussian_filter

from csakd_geo.degrade import PSF, observe
from csakd_geo.methods import get_method
from csakd_geo.pair import Block, Pair
from csakd_geo.quality import set_aside
from csakd_geo.response import estimate_response
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import gaussian_response

RATIO = 4
SCENES = ("indian_pines_200", "abu_airport_1", "sandiego_0", "abu_beach_3")


def cover(shape: tuple[int, int], share: float) -> np.ndarray:
    """Opacity (y, x) of soft clouds over a share of a scene."""
    field = gaussian_filter(np.random.default_rng(1).standard_normal(shape), 9)
    edge = np.quantile(field, 1 - share)
    return np.clip(2 * (field - edge) / (field.max() - edge), 0, 1) * 0.8


def spoil(image: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """An image (band, y, x) under white clouds of an opacity (y, x)."""
    white = 0.9 * np.percentile(image, 99, axis=(1, 2))[:, None, None]
    return (image * (1 - opacity) + opacity * white).astype(np.float32)


def fuse(pair: Pair, *, aside: bool) -> tuple[np.ndarray, float]:
    """The fused cube, and the share of pixels that no fit used."""
    method, (block,), fitted_on, left_out = get_method("coupled-map"), pair.blocks, pair, 0.0
    response = estimate_response(pair)
    if aside:
        fitted_on, response, left_out = set_aside(pair, response, estimate_response)
    return method.apply(method.fit(fitted_on, response), block.hsi, block.msi), left_out


def psnr(cube: np.ndarray, truth: np.ndarray, clear: np.ndarray) -> float:
    """Mean over bands, of the clear pixels alone."""
    error = np.square(cube[:, clear] - truth[:, clear]).mean(1)
    return float((10 * np.log10(truth[:, clear].max(1) ** 2 / error)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    given = parser.parse_args()
    bands, psf = get_sensor("aviris-paper-4").axis, PSF.nominal(RATIO)
    losses = []
    print("| scene | cloud in | cover | no cloud | all pixels | set aside | left out |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in SCENES:
        cube, axis = load_scene(given.data / "aviris" / f"{name}.tif")
        height, width = (n // RATIO * RATIO for n in cube.shape[1:])
        truth = cube[:, :height, :width]
        hsi, msi = observe(truth, gaussian_response(bands, axis), psf=psf, snr_hsi=35, snr_msi=40)
        valid = np.ones(hsi.shape[1:], bool)
        without = Pair((Block(hsi.astype(np.float32), msi.astype(np.float32), valid),), RATIO, axis, bands)
        plain, _ = fuse(without, aside=False)
        for share in (0.03, 0.10, 0.25):
            opacity = cover((height, width), share)
            clear = ~binary_dilation(opacity > 0, iterations=8)
            low = opacity.reshape(height // RATIO, RATIO, width // RATIO, RATIO).mean((1, 3))
            for where in ("MSI", "HSI"):
                images = (spoil(hsi, low), msi) if where == "HSI" else (hsi, spoil(msi, opacity))
                pair = replace(without, blocks=(Block(*(i.astype(np.float32) for i in images), valid),))
                (naive, _), (ours, left_out) = (fuse(pair, aside=aside) for aside in (False, True))
                found = [psnr(fused, truth, clear) for fused in (plain, naive, ours)]
                losses.append([found[0] - found[1], found[0] - found[2]])
                cells = " | ".join(f"{value:.2f}" for value in found)
                print(f"| {name} | {where} | {share:.0%} | {cells} | {left_out:.0%} |", flush=True)
    for label, lost in zip(("all pixels", "set aside"), np.transpose(losses), strict=True):
        print(
            f"{label}: {lost.mean():.1f} dB lost on average, {lost.max():.1f} at most, "
            f"{np.count_nonzero(lost < 0.5)} of {lost.size} under 0.5"
        )


if __name__ == "__main__":
    main()
