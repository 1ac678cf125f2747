"""Blind PSF, phase and shift: what is found against what was made, on the sample's scene.

    python benchmarks/blind.py [AVIRIS_FOLDER]

The sample's truth is observed at ratio 4 with known PSF width and displacement, noise 35 dB
(HSI) and 40 dB (MSI). Widths in HSI pixels, displacements in MSI pixels (4 = one HSI pixel).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from pairs import read

from csakd_geo.degrade import PSF, observe
from csakd_geo.pair import Block, Pair
from csakd_geo.psf import estimate_psf
from csakd_geo.sample import write_sample
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis, gaussian_response

RATIO = 4
MADE = [
    (1.0, 0.0, 0.0),
    (0.8, 0.5, -0.5),
    (1.2, -1.0, 1.5),
    (1.0, 4.0, -4.0),
    (1.1, 6.0, 2.5),
    (1.0, 12.0, -8.0),
]


def main() -> None:
    scenes = []
    with tempfile.TemporaryDirectory() as folder:
        cube, _, _, axis = read(write_sample(Path(folder)).truth)
        scenes.append(("sample", cube, axis))
    for path in sorted(Path(sys.argv[1]).glob("*_[0-9].tif"))[::3] if len(sys.argv) > 1 else []:
        import rasterio

        with rasterio.open(path) as src:
            cube = src.read().astype(np.float32)
        cube = cube[np.ptp(cube.reshape(len(cube), -1), axis=1) > 0]
        scenes.append((path.stem, cube, SpectralAxis.build(np.linspace(400, 2450, len(cube)))))
    bands = get_sensor("sentinel2-10m").axis
    print("| scene | FWHM made | found | dy, dx made | found | error px | explained | confident |")
    print("|---|---|---|---|---|---|---|---|")
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
            print(
                f"| {name} | {fwhm:.2f} | {found.fwhm / RATIO:.2f} | {dy:+.1f}, {dx:+.1f} "
                f"| {found.dy:+.2f}, {found.dx:+.2f} | {error:.2f} | {explained:.3f} | {confident} |"
            )


if __name__ == "__main__":
    main()
