"""MB/s of raw int16 to the staged super-tiles and to each format, and the peak memory of each writer.

    python benchmarks/writing.py              # 172 bands x 1024 x 1024
    python benchmarks/writing.py --side 2048 --only cog

Each format is written in a process of its own, whose peak memory is that of this format alone. The cube is made:
smooth fields with noise of 5 counts in 3000, which compresses like a real one (int16 zstd-1: about 1.7 times).
Staging includes the checksum; a format includes overviews, reading back and checking.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from csakd_geo.engine.store import Store
from csakd_geo.io.cog import RasterSpec
from csakd_geo.io.encoding import Encoding
from csakd_geo.io.formats import FORMATS
from csakd_geo.spectral import SpectralAxis
from csakd_geo.tiling import Window

SUPERTILE = 512
SUFFIX = {"cog": ".tif", "zarr": ".zarr", "zarr2": ".zarr", "netcdf": ".nc", "envi": ".img"}
BARS = {"staged": 300, "cog": 120}  # MB/s


def make_supertile(bands: int, area: Window) -> NDArray[np.int16]:
    """One super-tile of the made cube, ``(band, y, x)``: the same wherever it is cut."""
    rng = np.random.default_rng([area.row, area.col])
    y = np.arange(area.row, area.row + area.height, dtype=np.float32)[:, None]
    x = np.arange(area.col, area.col + area.width, dtype=np.float32)
    light = np.sin(y / 37) * np.cos(x / 53) + 0.5 * np.sin((x + 2 * y) / 11)
    spectrum = 1500 + 900 * np.sin(np.linspace(0, 5, bands, dtype=np.float32))
    cube = spectrum[:, None, None] * (1 + 0.3 * light)
    noise = rng.integers(-9, 10, cube.shape, np.int16)  # uniform, standard deviation 5.5
    return cube.astype(np.int16) + noise


def supertiles(side: int) -> list[Window]:
    return [
        Window(row, col, min(SUPERTILE, side - row), min(SUPERTILE, side - col))
        for row in range(0, side, SUPERTILE)
        for col in range(0, side, SUPERTILE)
    ]


def make_spec(bands: int, side: int) -> RasterSpec:
    axis = SpectralAxis.build(np.linspace(420, 2450, bands), fwhm=np.full(bands, 9.0))
    return RasterSpec(
        side,
        side,
        Affine(10, 0, 500_000, 0, -10, 5_800_000),
        CRS.from_epsg(32633),
        axis,
        Encoding("int16", (1e-4,), (0.0,), -32768),
        "reflectance",
    )


def stage(target: Path, bands: int, side: int) -> float:
    """Seconds that Store.put takes for all super-tiles; they stay for the formats."""
    store, seconds = Store(target), 0.0
    store.begin({}, b"")
    for area in supertiles(side):
        cube = make_supertile(bands, area)
        begun = time.perf_counter()
        store.put(area, cube)
        seconds += time.perf_counter() - begun
    return seconds


def write(name: str, store: Store, target: Path, bands: int, side: int) -> tuple[float, dict[str, float]]:
    """Seconds of writing a format from the staged super-tiles, and of each of its stages."""
    stages: dict[str, float] = {}
    writer = FORMATS[name].write  # what it imports is no writing
    last = begun = time.perf_counter()

    def progress(stage: str, share: float) -> None:
        nonlocal last
        now = time.perf_counter()
        stages[stage] = stages.get(stage, 0.0) + now - last
        last = now

    def blocks() -> Iterator[tuple[int, int, NDArray[np.int16]]]:
        for area, cube in store.blocks(supertiles(side)):
            yield area.row, area.col, cube

    writer(target, make_spec(bands, side), blocks(), workdir=store.folder, progress=progress)
    return time.perf_counter() - begun, stages


def peak() -> float:
    """Peak memory of this process in MB; what mapped files hold in the page cache counts while it is mapped."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bands", type=int, default=172)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--only", choices=FORMATS, help="One format instead of all.")
    parser.add_argument("--folder", type=Path, help="Where to write; a temporary folder by default.")
    parser.add_argument("--child", choices=["staged", *FORMATS], help=argparse.SUPPRESS)
    args = parser.parse_args()
    megabytes = args.bands * args.side**2 * 2 / 1e6
    if args.child == "staged":
        seconds = stage(args.folder / "staged", args.bands, args.side)
        print(
            f"{'staged':8} {megabytes / seconds:7.0f} MB/s  {seconds:6.1f} s, peak {peak():.0f} MB",
            flush=True,
        )
    elif args.child:
        start = peak()
        store = Store(args.folder / "staged")
        target = args.folder / f"{args.child}{SUFFIX[args.child]}"
        seconds, stages = write(args.child, store, target, args.bands, args.side)
        files = [target] if target.is_file() else [p for p in target.rglob("*") if p.is_file()]
        size = sum(p.stat().st_size for p in files) / 1e6
        parts = ", ".join(f"{k} {v:.1f}" for k, v in stages.items())
        print(
            f"{args.child:8} {megabytes / seconds:7.0f} MB/s  {seconds:6.1f} s ({parts})  {size:6.0f} MB, "
            f"peak {peak():.0f} MB of which {start:.0f} before",
            flush=True,
        )
    else:
        run(args, megabytes)


def run(args: argparse.Namespace, megabytes: float) -> None:
    """Each in a process of its own: a child of a large process would start with that one's peak memory."""
    print(
        f"{args.bands} x {args.side} x {args.side} int16, {megabytes:.0f} MB; {os.cpu_count()} cores",
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name in ["staged", args.only] if args.only else ["staged", *FORMATS]:
            child = [sys.executable, __file__, "--child", name, "--folder", folder]
            subprocess.run([*child, "--bands", str(args.bands), "--side", str(args.side)], check=True)
    print("Bars: " + ", ".join(f"{name} {value} MB/s" for name, value in BARS.items()))


if __name__ == "__main__":
    main()
