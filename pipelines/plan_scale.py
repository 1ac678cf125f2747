"""Say what fusing every Sentinel-2 tile of a continent takes, for 1 to 1000 workers: a recipe.

    python pipelines/plan_scale.py [HSI MSI | --product FUSED.tif] [--continent europe] [-o scale.png]

Its cost per tile is measured now, on the pair or the sample, or read from a product. Rates and prices are examples.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple
from pathlib import Path
from tempfile import TemporaryDirectory

from csakd_geo.options import make_options
from csakd_geo.sample import write_sample
from csakd_geo.scale.roof import AREAS, Means, draw, scale, table, tiles_of, verdict
from csakd_geo.scale.work import TILE_PIXELS, measure, of_product

NUMBERS = {
    "price-per-core-hour": (0.05, "of a worker"),
    "storage-price": (0.02, "per GB and month"),
    "read": (2000.0, "MB/s from the store, all workers together"),
    "write": (1000.0, "MB/s to the store, all workers together"),
    "memory": (4.0, "GB per worker"),
    "disk": (250.0, "GB of working space per worker"),
    "pixels": (TILE_PIXELS, "of the MSI, per side of a tile"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pair", type=Path, nargs="*", metavar="HSI MSI")
    parser.add_argument("--product", type=Path, help="take the cost from its tags")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--continent", choices=AREAS, default="europe")
    parser.add_argument("--tiles", type=int, help="so many, instead of a continent's")
    parser.add_argument("--bands", type=int, help="of the HSI; by default as in the pair or product")
    parser.add_argument("-o", "--output", type=Path, default=Path("scale.png"))
    for name, (value, words) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"{words} ({value})")
    args = parser.parse_args()
    size = {"pixels": args.pixels, "bands": args.bands}
    with TemporaryDirectory() as folder:
        if args.product:
            work = of_product(args.product, **size)
        else:
            hsi, msi = args.pair or astuple(write_sample(Path(folder)))[:2]
            work = measure(hsi, msi, Path(folder), make_options({"method": args.method}), **size)
    tiles = args.tiles or tiles_of(args.continent)
    money = {"core_hour": args.price_per_core_hour, "gigabyte": args.storage_price}
    means = Means(args.read * 1e6, args.write * 1e6, args.memory * 1e9, args.disk * 1e9, **money)
    points = scale(work, means, scenes=tiles)
    title = f"{tiles} tiles of {args.pixels} x {args.pixels} pixels: {work.source}"
    print(f"{title}. Each:\n\n{work}\n\n{table(points)}\n\n{verdict(points, work, means, scenes=tiles)}")
    draw(points, args.output, title=title)


if __name__ == "__main__":
    main()
