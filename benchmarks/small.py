"""What is safe on a few HSI pixels: methods on corners of AVIRIS scenes, blind.

    python benchmarks/small.py DATA

DATA is the folder with aviris. Corners of 4 to 15 HSI pixels a side are observed with a nominal PSF, four bands at 485,
560, 660 and 830 nm, HSI noise of 35 dB and MSI noise of 40 dB; everything is estimated from the corner alone. Means
over the scenes that are large enough, and how often a method is the best by each score. The network has seen some of
these scenes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from pairs import load_scene

from csakd_geo.degrade import PSF, observe
from csakd_geo.methods import get_method
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.metrics import score
from csakd_geo.models import bundled_models
from csakd_geo.pair import Block, Pair
from csakd_geo.response import estimate_response
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import gaussian_response

CORNERS = [(4, 4), (4, 6), (4, 8), (4, 12), (4, 15), (10, 7), (10, 10)]  # ratio, HSI pixels per side
CLASSICAL = ("bicubic", "regression", "gsa", "subspace-map", "coupled-map")


def scores(cube, axis, ratio: int, methods) -> list[tuple[float, float]]:
    """PSNR and SAM of each method on one corner."""
    bands = get_sensor("aviris-paper-4").axis
    srf = gaussian_response(bands, axis)
    hsi, msi = observe(cube, srf, psf=PSF.nominal(ratio), snr_hsi=35, snr_msi=40)
    pair = Pair((Block(hsi, msi, np.ones(hsi.shape[1:], bool)),), ratio, axis, bands)
    response = estimate_response(pair)
    fused = (method.apply(method.fit(pair, response), hsi, msi) for method in methods)
    return [(s.psnr, s.sam) for s in (score(one, cube, ratio=ratio) for one in fused)]


def main() -> None:
    scenes = [load_scene(path) for path in sorted((Path(sys.argv[1]) / "aviris").glob("*.tif"))]
    methods = [*(get_method(name) for name in CLASSICAL), CSAKD(bundled_models()[0])]
    names = [method.name for method in methods]
    print("| HSI pixels | ratio | scenes | " + " | ".join(names) + " |\n|---|---|---|" + "---|" * len(names))
    for ratio, side in CORNERS:
        fine = ratio * side
        found = np.array(
            [
                scores(cube[:, :fine, :fine], axis, ratio, methods)
                for cube, axis in scenes
                if min(cube.shape[1:]) >= fine
            ]
        )
        best = [
            np.bincount(order, minlength=len(names))
            for order in (found[..., 0].argmax(1), found[..., 1].argmin(1))
        ]
        cells = [
            f"{psnr:.2f} / {sam:.2f} ({best[0][k]}, {best[1][k]})"
            for k, (psnr, sam) in enumerate(found.mean(0))
        ]
        print(f"| {side} x {side} | {ratio} | {len(found)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
