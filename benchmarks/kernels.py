"""Ways to compute a dense block on a CPU, as ratios in one run, and what they round.

    python benchmarks/kernels.py [--rounds 9] [--threads N]
    python benchmarks/kernels.py --waiting

A block of the published size over a tile of 256 MSI pixels and its halo: of concatenations or by source, with
torch's own convolutions in channels-last order or Winograd's in the other. The ways take turns; a figure is the ratio
of medians to the first one's, and the relative RMSE against float64. ``--waiting`` prints the time of the block by
source in Winograd's form where OpenMP's threads sleep after a loop over that where they wait as torch has them do, in
processes that take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import time

import torch

from csakd_geo.memory import kept_memory
from csakd_geo.models.blocks import DenseBlock
from csakd_geo.models.winograd import Winograd, available

SIDE, FEATURES, GROWTH = 272, 86, 43


def seconds(block: DenseBlock, x: torch.Tensor, by_source: bool, winograd: bool) -> float:
    """Of one call."""
    block.by_source = by_source
    with Winograd() if winograd else contextlib.nullcontext():
        begun = time.perf_counter()
        block(x)
        return time.perf_counter() - begun


def error(block: DenseBlock, x: torch.Tensor, by_source: bool, winograd: bool) -> float:
    """Relative RMSE of what the block adds."""
    block.by_source = by_source
    with Winograd() if winograd else contextlib.nullcontext():
        found = block(x) - x
    block.by_source = False
    expected = block.double()(x.double()) - x
    block.float()
    return float((found - expected).norm() / expected.norm())


def compare_waiting(rounds: int) -> None:
    """Print how long the block takes with sleeping threads, relative to waiting ones."""
    taken: dict[str, list[float]] = {"": [], "passive": []}
    for _ in range(rounds):
        for policy, seen in taken.items():
            kept = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
            kept |= {"OMP_WAIT_POLICY": policy} if policy else {}
            child = subprocess.run(
                [sys.executable, __file__, "--one"], env=kept, capture_output=True, text=True, check=True
            )
            seen.append(float(child.stdout))
    waiting, sleeping = (statistics.median(seen) for seen in taken.values())
    print(f"sleeping / waiting: {sleeping / waiting:.2f} (medians of {rounds} processes each)")


def time_one() -> float:
    """Median seconds of the block by source in Winograd's form."""
    if not available():
        raise SystemExit("torch has no convolutions in Winograd's form on this CPU.")
    block, x = DenseBlock(FEATURES, GROWTH).eval(), torch.randn(1, FEATURES, SIDE, SIDE)
    with torch.inference_mode(), kept_memory():
        return statistics.median([seconds(block, x, True, True) for _ in range(12)][4:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--waiting", action="store_true", help="compare what OpenMP's threads do in between")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(time_one())
        return
    torch.set_num_threads(given.threads)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {given.threads} threads, torch {torch.__version__}\n")
    if given.waiting:
        compare_waiting(given.rounds)
        return
    block, x = DenseBlock(FEATURES, GROWTH).eval(), torch.randn(1, FEATURES, SIDE, SIDE)
    x_last = x.contiguous(memory_format=torch.channels_last)
    ways = {
        (by_source, winograd): x if winograd else x_last
        for winograd in ((False, True) if available() else (False,))
        for by_source in (False, True)
    }
    print("| convolutions | dense block | time | relative RMSE |\n|---|---|---:|---:|")
    with torch.inference_mode(), kept_memory():
        taken = [
            [seconds(block, given_x, *way) for way, given_x in ways.items()] for _ in range(given.rounds + 1)
        ]
        medians = [statistics.median(column) for column in zip(*taken[1:], strict=True)]
        for (by_source, winograd), median in zip(ways, medians, strict=True):
            print(
                f"| {'Winograd' if winograd else 'torch'} | {'by source' if by_source else 'of concatenations'} "
                f"| {median / medians[0]:.2f} | {error(block, x, by_source, winograd):.1e} |"
            )


if __name__ == "__main__":
    main()
