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
from pairs import Case, neon, paris_pan, scored_cases

from csakd_geo.draft import draft_job
from csakd_geo.evaluate import evaluate
from csakd_geo.job import fuse, prepare_job
from csakd_geo.methods import METHODS
from csakd_geo.options import FuseOptions
from csakd_geo.product import write_job


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
        cases = scored_cases(args.data, folder, airborne=args.aviris)
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
