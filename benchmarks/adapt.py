"""Does training on the pair itself pay? A large labelled-synthetic scene, adapted and compared.

    python benchmarks/adapt.py DATA [--minutes 2 5 15] [--side 1000]
    python benchmarks/adapt.py DATA --scene sandiego_1 --ratio 2

The scene is synthetic and named so: real EnMAP spectra (Potsdam) placed over real Sentinel-2 textures by their
likeness in ten Sentinel-2 bands; the MSI then keeps only the four 10 m bands. Two Sentinel-2 crops of 600 x 600
pixels lie side by side, and below them the same two in turn and upside down, so the scene is no larger than 1200.
With ``--scene`` a real AVIRIS scene takes its place.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from pairs import load_scene, read
from scipy.spatial import cKDTree

from csakd_geo.adapt import Networks
from csakd_geo.degrade import PSF, observe
from csakd_geo.methods import get_method
from csakd_geo.metrics import score
from csakd_geo.options import FuseOptions
from csakd_geo.pair import Block, Pair
from csakd_geo.response import estimate_response
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis, gaussian_response


def sentinel2(data: Path) -> list[np.ndarray]:
    """Ten Sentinel-2 bands (band, y, x) of each crop, in the sensor's order."""
    crops = []
    for path in sorted((data / "sentinel2").glob("*_10m.tif")):
        fine, coarse = (read(path.with_name(path.name.replace("10m", res)))[0] for res in ("10m", "20m"))
        coarse = coarse.repeat(2, 1).repeat(2, 2)
        # B2 B3 B4 [B5 B6 B7] B8 [B8A B11 B12]
        crops.append(np.stack([*fine[:3], *coarse[:3], fine[3], *coarse[3:]]))
    return crops


def textures(data: Path, side: int):
    """Both crops side by side, and below them in turn and upside down, (band, y, x)."""
    first, second = sentinel2(data)
    rows = [np.concatenate([first, second], 2), np.concatenate([second[:, ::-1], first[:, ::-1]], 2)]
    return np.concatenate(rows, 1)[:, :side, :side]


def clothe(texture, spectra, axis: SpectralAxis, *, nearest: int):
    """Spectra (band, ...) placed over a texture (10, y, x) by their likeness in ten Sentinel-2 bands."""
    flat = spectra.reshape(len(spectra), -1)
    seen = gaussian_response(get_sensor("sentinel2").axis, axis) @ flat
    height, width = texture.shape[1:]
    columns = texture.reshape(len(texture), -1)
    # ranks, so that illumination and units of the two sensors do not matter
    order = np.argsort(np.argsort(columns, axis=1), axis=1) / columns.shape[1]
    matched = np.stack([np.quantile(s, o) for s, o in zip(seen, order, strict=True)])
    spread = seen.std(1, keepdims=True)
    distance, index = cKDTree((seen / spread).T).query((matched / spread).T, k=[*range(1, nearest + 1)])
    weight = 1 / (distance + 1e-3)
    weight /= weight.sum(1, keepdims=True)
    cube = np.zeros((len(flat), height * width), np.float32)
    for k in range(nearest):
        cube += (flat[:, index[:, k]] * weight[:, k]).astype(np.float32)
    return cube.reshape(-1, height, width)


def scene(data: Path, side: int):
    """The synthetic cube (band, y, x) and its axis."""
    spectra, _, _, axis = read(data / "enmap_potsdam" / "block_A_128x64.tif")
    flat = spectra.reshape(len(spectra), -1)
    keep = np.isfinite(flat).all(1)
    flat, axis = np.maximum(flat[keep], 0), axis.take(np.flatnonzero(keep))
    return clothe(textures(data, side), flat, axis, nearest=4) / 1e4, axis


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[3.0], help="each is a run of its own")
    parser.add_argument("--side", type=int, default=600)
    parser.add_argument("--ratio", type=int, default=4)
    parser.add_argument("--scene", help="name of a file in DATA/aviris, without its suffix")
    parser.add_argument("--start", type=Path, help="model to start from; by default a student is distilled")
    args = parser.parse_args()
    if args.scene:
        cube, axis = load_scene(args.data / "aviris" / f"{args.scene}.tif")[:2]
        cube = cube[:, *(slice(n // args.ratio * args.ratio) for n in cube.shape[1:])]
    else:
        cube, axis = scene(args.data, args.side // args.ratio * args.ratio)
    bands = get_sensor("sentinel2-10m").axis
    psf = PSF.nominal(args.ratio)
    hsi, msi = observe(cube, gaussian_response(bands, axis), psf=psf, snr_hsi=35, snr_msi=40)
    pair = Pair((Block(hsi, msi, np.ones(hsi.shape[1:], bool)),), args.ratio, axis, bands)
    print(f"{args.scene or 'synthetic scene'}: HSI {hsi.shape}, MSI {msi.shape} (band, y, x)\n")
    print(
        "| method | PSNR dB | SAM deg | trained s | fit and apply s | training |\n|---|---:|---:|---:|---:|---|",
        flush=True,
    )
    response = estimate_response(pair)

    def show(label: str, method, trained: float = 0.0, words: object = "") -> None:
        begun = time.perf_counter()
        s = score(method.apply(method.fit(pair, response), hsi, msi), cube, ratio=args.ratio)
        seconds = time.perf_counter() - begun
        print(
            f"| {label} | {s.psnr:.2f} | {s.sam:.3f} | {trained:.0f} | {seconds:.0f} | {words} |", flush=True
        )

    for name in ("regression", "gsa", "subspace-map", "coupled-map"):
        show(name, get_method(name))
    for minutes in args.minutes:
        options = FuseOptions(method="csakd", adapt_minutes=minutes)
        networks = Networks(pair, response, options, "cpu", lambda *_: None, None)
        begun = time.perf_counter()
        path = networks.train(args.start)
        if path is None:
            print(f"{minutes:g} min: nothing was trained")
            continue
        show(f"csakd, {minutes:g} min", networks.make(path), time.perf_counter() - begun, networks.trained)


if __name__ == "__main__":
    main()
