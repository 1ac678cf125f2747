"""What it is worth to tie a prior's errors between neighbours, and to take them for larger where the MSI surprises:
coupled-map as it is, and with errors that are independent and equally large everywhere, on scenes with a truth.

    python benchmarks/ties.py DATA

Scenes and settings are those of `benchmarks/quality.py`, one factor varied at a time on one scene of each AVIRIS area,
without those that move the grid. Pairs are set up blind, as `csakd-geo fuse` does, and fused in one piece. Prints, by
setting, the mean and the least gain.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np
from quality_scenes import DEFAULT, find_truths, one_per_area, read, single_settings, usable

from csakd_geo.draft import draft_job
from csakd_geo.job import register
from csakd_geo.methods.estimates import CoupledMAP
from csakd_geo.metrics import score
from csakd_geo.options import make_options


def gain(task) -> tuple[str, float, float]:
    """The setting, and by how many dB and per cent SAM they are better."""
    truth, setting = task
    with tempfile.TemporaryDirectory() as folder:
        triple = truth.make(setting, Path(folder))
        draft, pair, response, _ = register(draft_job(triple.hsi, triple.msi, make_options({})))
        cube = read(triple.truth)[0][list(draft.scene.hsi_bands)]
    block = pair.blocks[0]
    height, width = block.msi.shape[1:]
    scores = []
    for method in (CoupledMAP(tied=False), CoupledMAP()):
        fused = method.apply(method.fit(pair, response), block.hsi, block.msi)
        scores.append(score(fused, cube[:, :height, :width], ratio=pair.ratio))
    return setting.label, scores[1].psnr - scores[0].psnr, 100 * (1 - scores[1].sam / scores[0].sam)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    truths = find_truths(args.data)
    areas = one_per_area(truths)
    tasks = [(truth, DEFAULT) for truth in truths]
    tasks += [
        (t, setting)
        for setting in single_settings()
        if not (setting.shift or setting.phase)
        for t in areas
        if usable(t, setting)
    ]
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # of the processes started below
    with multiprocessing.get_context("spawn").Pool() as pool:
        found = pool.map(gain, tasks, chunksize=1)
    print("| setting | scenes | mean gain | least gain |\n|---|---:|---:|---:|")
    for label in dict.fromkeys(label for label, _, _ in found):
        gains = np.array([(db, sam) for name, db, sam in found if name == label])
        mean, least = gains.mean(0), gains.min(0)
        print(
            f"| {label} | {len(gains)} | {mean[0]:+.2f} dB, {mean[1]:+.1f} % | {least[0]:+.2f} dB, {least[1]:+.1f} % |"
        )


if __name__ == "__main__":
    main()
