"""Scores of every method on the sample and on real pairs, through the same calls that users make.

    python benchmarks/methods.py [DATA] [--aviris] [--json FILE]

Without DATA (the folder with paris_ms, enmap_potsdam, ... ) only the sample is run. Pairs
without truth are fused with the defaults and only checked for what can be: shape and valid share.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from pairs import Case, aviris, enmap, neon, paris_ms, paris_pan, sample_case

from csakd_geo.draft import draft_job
from csakd_geo.evaluate import evaluate
from csakd_geo.job import fuse, prepare_job
from csakd_geo.methods import METHODS
from csakd_geo.options import FuseOptions
from csakd_geo.product import write_job

AVIRIS = [
    "abu_airport_1",
    "abu_airport_2",
    "abu_airport_3",
    "abu_urban_4",
    "abu_urban_5",
    "abu_beach_2",
    "abu_beach_3",
    "sandiego_0",
    "sandiego_1",
    "gatorsense_224",
    "indian_pines_200",
]


def run(case: Case, method: str, folder: Path):
    """Fuse to a file as the command does; scores and seconds."""
    from csakd_geo.engine.store import Store

    target = folder / "fused.tif"
    begun = time.perf_counter()
    draft = draft_job(case.hsi, case.msi, FuseOptions(method=method, adapt_minutes=0))
    job = prepare_job(draft, report=lambda *_: None)
    write_job(job, target, Store(target), report=lambda *_: None)
    seconds = time.perf_counter() - begun
    return evaluate(target, case.truth, ratio=case.ratio).scores, seconds, job.choice.method.name


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--aviris", action="store_true", help="also the AVIRIS scenes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sample").mkdir()
        cases = [sample_case(folder / "sample")]
        if args.data is not None:
            cases += [
                paris_ms(args.data, folder),
                enmap(args.data, folder),
                enmap(args.data, folder, crs=25833),
            ]
            cases += [aviris(args.data, folder, n) for n in AVIRIS] if args.aviris else []
        print("| pair | method | PSNR dB | SAM deg | ERGAS | SSIM | seconds |\n|---|---|---|---|---|---|---|")
        for case in cases:
            for method in (*METHODS, "csakd", "auto"):
                s, seconds, ran = run(case, method, folder)
                shown = f"auto = {ran}" if method == "auto" else method
                print(
                    f"| {case.name} | {shown} | {s.psnr:.2f} | {s.sam:.3f} | {s.ergas:.3f} | {s.ssim:.4f} "
                    f"| {seconds:.1f} |",
                    flush=True,
                )
                rows.append(
                    {"pair": case.name, "method": method, "ran": ran, "seconds": seconds, **s.to_dict()}
                )
        for case in [paris_pan(args.data), neon(args.data)] if args.data is not None else []:
            begun = time.perf_counter()
            cube = fuse(case.hsi, case.msi)
            values = cube.values
            share = float(np.isfinite(values).all(0).mean())
            print(
                f"{case.name}: {cube.attrs['method']}, {values.shape} (band, y, x), {share:.1%} valid, "
                f"shift {cube.attrs['shift']}, {time.perf_counter() - begun:.1f} s"
            )
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
