"""Fuse every pair that two folders hold: a recipe.

    python pipelines/batch.py HSI_DIR MSI_DIR OUT_DIR [--max-days 10] [--workers 2] [--method gsa]

These are the calls of ``csakd-geo pair`` and ``csakd-geo batch --stac``. Run it again and it goes on where it
stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csakd_geo.batch.catalog import write_collection
from csakd_geo.batch.find import find_pairs, write_manifest
from csakd_geo.batch.manifest import read_manifest
from csakd_geo.batch.run import Settings, run_batch
from csakd_geo.batch.summary import count_words, write_summary
from csakd_geo.stac import item_path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hsi", type=Path)
    parser.add_argument("msi", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--max-days", type=float)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--method", default="auto")
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    matches, notes = find_pairs(args.hsi, args.msi, max_days=args.max_days)
    for note in notes:
        print(note)
    manifest = write_manifest(args.output / "pairs.gpkg", matches)
    scenes, _ = read_manifest(manifest)
    outcomes = []
    for outcome in run_batch(scenes, Settings({"method": args.method}, stac=True), workers=args.workers):
        print(outcome.scene.name, outcome.status, f"{outcome.seconds:.1f} s", outcome.error)
        outcomes.append(outcome)
    print(count_words(outcomes))
    table, page = write_summary(args.output / "summary", outcomes, title="All pairs")
    print(f"{table}\n{page}")
    items = [item_path(o.scene.out) for o in outcomes if o.status != "failed"]
    if items:
        print(write_collection(args.output / "collection.json", items, name="pairs", title="All pairs"))
    if len(items) < len(outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
