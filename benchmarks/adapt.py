"""Does training on the pair itself pay? A large labelled-synthetic scene, adapted and compared.

    python benchmarks/adapt.py DATA [--minutes 3] [--side 600]

The scene is synthetic and named so: real EnMAP spectra (shared data, Potsdam) placed over real
Sentinel-2 textures by their likeness in ten Sentinel-2 bands; the MSI then keeps only the four
10 m bands. Half of the HSI pixels' spectra therefore cannot be told from the MSI alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from pairs import read
from scipy.spatial import cKDTree

from csakd_geo.adapt import Networks
from csakd_geo.degrade import PSF, observe
from csakd_geo.methods import get_method
from csakd_geo.metrics import score
from csakd_geo.options import FuseOptions
from csakd_geo.pair import Block, Pair
from csakd_geo.response import estimate_response
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import gaussian_response


def scene(data: Path, side: int, tile: str):
    """The synthetic cube (band, y, x) and its axis."""
    spectra, _, _, axis = read(data / "enmap_potsdam" / "block_A_128x64.tif")
    flat = spectra.reshape(len(spectra), -1)
    keep = np.isfinite(flat).all(1)
    flat, axis = np.maximum(flat[keep], 0), axis.take(np.flatnonzero(keep))
    sensor = get_sensor("sentinel2").axis
    seen = gaussian_response(sensor, axis) @ flat
    fine, _, _, _ = read(data / "sentinel2" / f"{tile}_10m.tif")
    coarse, _, _, _ = read(data / "sentinel2" / f"{tile}_20m.tif")
    coarse = coarse.repeat(2, 1).repeat(2, 2)
    # B2 B3 B4 [B5 B6 B7] B8 [B8A B11 B12], in the sensor's order
    texture = np.stack([*fine[:3], *coarse[:3], fine[3], *coarse[3:]])[:, :side, :side]
    height, width = texture.shape[1:]
    columns = texture.reshape(len(texture), -1)
    # ranks, so that illumination and units of the two sensors do not matter
    order = np.argsort(np.argsort(columns, axis=1), axis=1) / columns.shape[1]
    matched = np.stack([np.quantile(s, o) for s, o in zip(seen, order, strict=True)])
    spread = seen.std(1, keepdims=True)
    distance, index = cKDTree((seen / spread).T).query((matched / spread).T, k=4)
    weight = 1 / (distance + 1e-3)
    weight /= weight.sum(1, keepdims=True)
    cube = np.zeros((len(flat), height * width), np.float32)
    for k in range(4):
        cube += (flat[:, index[:, k]] * weight[:, k]).astype(np.float32)
    return cube.reshape(-1, height, width) / 1e4, axis


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--side", type=int, default=600)
    parser.add_argument("--ratio", type=int, default=4)
    parser.add_argument("--start", type=Path, help="model to start from; by default a student is distilled")
    parser.add_argument("--tile", default="S2A_MSIL1C_20170527_T33UUB")
    args = parser.parse_args()
    cube, axis = scene(args.data, args.side // args.ratio * args.ratio, args.tile)
    bands = get_sensor("sentinel2-10m").axis
    psf = PSF.nominal(args.ratio)
    hsi, msi = observe(cube, gaussian_response(bands, axis), psf=psf, snr_hsi=35, snr_msi=40)
    pair = Pair((Block(hsi, msi, np.ones(hsi.shape[1:], bool)),), args.ratio, axis, bands)
    print(f"synthetic scene: HSI {hsi.shape}, MSI {msi.shape} (band, y, x)")
    response = estimate_response(pair)
    for name in ("regression", "coupled-map"):
        method = get_method(name)
        begun = time.perf_counter()
        s = score(method.apply(method.fit(pair, response), hsi, msi), cube, ratio=args.ratio)
        print(f"{name}: PSNR {s.psnr:.2f} dB, SAM {s.sam:.3f} deg, {time.perf_counter() - begun:.0f} s")
    options = FuseOptions(method="csakd", adapt_minutes=args.minutes)

    def report(stage: str, share: float, words: str) -> None:
        if stage == "train":
            print(f"  {share:4.0%} {words}", flush=True)

    networks = Networks(pair, response, options, "cpu", report, None)
    path = networks.train(args.start)
    if path is None:
        print("nothing was trained")
        return
    method = networks.make(path)
    s = score(method.apply(method.fit(pair, response), hsi, msi), cube, ratio=args.ratio)
    print(
        f"csakd adapted {args.minutes:g} min: PSNR {s.psnr:.2f} dB, SAM {s.sam:.3f} deg; {networks.trained}"
    )


if __name__ == "__main__":
    main()
