"""Fuse one scene and write it as a COG, with a quicklook: the recipe to start from.

    python pipelines/fuse_scene.py HSI.tif MSI.tif OUT.tif [--method coupled-map] [--aoi area.gpkg]

This is what ``csakd-geo fuse`` does, in the calls that a batch script of your own would make.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csakd_geo.draft import draft_job
from csakd_geo.io import open_source
from csakd_geo.options import make_options
from csakd_geo.product import make_product
from csakd_geo.quicklook import draw_quicklook
from csakd_geo.target import check_target


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hsi", type=Path)
    parser.add_argument("msi", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--method", default="auto")
    parser.add_argument("--aoi", type=Path)
    args = parser.parse_args()

    check_target(args.output, overwrite=False)
    draft = draft_job(args.hsi, args.msi, make_options({"method": args.method, "aoi": args.aoi}))
    job, _ = make_product(draft, args.output, report=print)
    for sentence in job.warnings:
        print("warning:", sentence)
    picture = args.output.with_suffix(".png")
    draw_quicklook(picture, hsi=job.scene.hsi, msi=job.scene.msi, fused=open_source(args.output))
    print(f"{args.output}: {job.choice.method.name} ({job.choice.reason}); picture: {picture}")


if __name__ == "__main__":
    main()
