"""Blind PSF, phase and shift: what is found against what was made, and what the difference costs.

    python benchmarks/blind.py [DATA]

The sample's truth and, with DATA (the folder with aviris), the AVIRIS scenes are observed at ratio 4 with known PSF
width and displacement, noise 35 dB (HSI) and 40 dB (MSI). Widths in HSI pixels, displacements in MSI pixels (4 = one
HSI pixel). The last two columns are the PSNR in dB that coupled-map loses against the true PSF: with the one that
was found, and with the nominal one, as wide as an HSI pixel and where its georeference says.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from pairs import load_scene, read

from csakd_geo.degrade import PSF, observe
from csakd_geo.methods import get_method
from csakd_geo.metrics import score
from csakd_geo.pair import Block, Pair
from csakd_geo.psf import estimate_psf
from csakd_geo.response import estimate_response
from csakd_geo.sample import write_sample
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import gaussian_response

RATIO = 4
MADE = [
    (1.0, 0.0, 0.0),
    (0.7, 0.0, 0.0),
    (1.3, 0.0, 0.0),
    (1.0, 0.5, 0.5),
    (1.0, 1.0, 1.0),
    (0.8, 0.5, -0.5),
    (1.2, -1.0, 1.5),
    (1.0, 4.0, -4.0),
    (1.1, 6.0, 2.5),
    (1.0, 12.0, -8.0),
]


def fused_psnr(pair: Pair, psf: PSF, truth) -> float:
    """PSNR in dB of coupled-map where the PSF is taken for given."""
    method, block = get_method("coupled-map"), pair.blocks[0]
    fitted = method.fit(pair, estimate_response(pair, psf=psf))
    return score(method.apply(fitted, block.hsi, block.msi), truth, ratio=RATIO).psnr


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cube, _, _, axis = read(write_sample(Path(folder)).truth)
    scenes = [("sample", cube, axis)]
    for path in sorted((Path(sys.argv[1]) / "aviris").glob("*.tif")) if len(sys.argv) > 1 else []:
        scenes.append((path.stem, *load_scene(path)[:2]))
    bands = get_sensor("sentinel2-10m").axis
    print(
        "| scene | FWHM made | found | dy, dx made | found | error px | explained | confident | found costs | nominal costs |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    costs = []
    for name, cube, axis in scenes:
        height, width = (n // RATIO * RATIO for n in cube.shape[1:])
        cube = cube[:, :height, :width]
        srf = gaussian_response(bands, axis)
        for fwhm, dy, dx in MADE:
            psf = PSF(RATIO, fwhm * RATIO, dy, dx)
            hsi, msi = observe(cube, srf, psf=psf, snr_hsi=35, snr_msi=40)
            pair = Pair((Block(hsi, msi, np.ones(hsi.shape[1:], bool)),), RATIO, axis, bands)
            found, explained, confident = estimate_psf(pair, reach=4)
            error = float(np.hypot(found.dy - dy, found.dx - dx))
            best = fused_psnr(pair, psf, cube)
            costs.append([best - fused_psnr(pair, one, cube) for one in (found, PSF.nominal(RATIO))])
            print(
                f"| {name} | {fwhm:.2f} | {found.fwhm / RATIO:.2f} | {dy:+.1f}, {dx:+.1f} "
                f"| {found.dy:+.2f}, {found.dx:+.2f} | {error:.2f} | {explained:.3f} | {confident} "
                f"| {costs[-1][0]:+.2f} | {costs[-1][1]:+.2f} |",
                flush=True,
            )
    found_cost, nominal_cost = np.transpose(costs)
    print(
        f"\nOf {len(costs)} pairs: what was found costs {found_cost.mean():.3f} dB on average, {found_cost.max():.2f} at most; "
        f"the nominal PSF {nominal_cost.mean():.2f} dB, {nominal_cost.max():.2f} at most"
    )


if __name__ == "__main__":
    main()
