"""Train a student and its teacher on an archive of one sensor, then fuse a pair with it: a recipe.

    python pipelines/distill.py pipelines/distill.yaml [--resume] [--pair HSI.tif MSI.tif OUT.tif]

The configuration is the one of ``csakd-geo train`` (docs/training.md); this script makes the same
calls. A folder of scenes and one held-out scene are all that has to be named in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import csakd_geo
from csakd_geo.train.config import read_train_config
from csakd_geo.train.trainer import train


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--pair", nargs=3, type=Path, metavar=("HSI", "MSI", "OUT"))
    args = parser.parse_args()

    config = read_train_config(args.config)
    result = train(config, resume=args.resume, report=show)
    print(
        f"{result.student}: held-out PSNR {result.start.psnr:.2f} -> {result.best.psnr:.2f} dB, "
        f"SAM {result.start.sam:.3f} -> {result.best.sam:.3f} deg after {result.steps} steps, "
        f"{result.seconds:.0f} s"
    )
    if args.pair is not None:
        hsi, msi, output = args.pair
        cube = csakd_geo.fuse(hsi, msi, model=str(result.student))
        cube.rio.to_raster(output, dtype="float32")
        print(f"{output}: {cube.shape} (band, y, x), {cube.attrs['method']}")


def show(stage: str, share: float, words: str) -> None:
    """One line per stage, kept up to date."""
    print(f"\r{stage} {share:4.0%} {words:<60}", end="\n" if share >= 1 else "", flush=True)


if __name__ == "__main__":
    main()
