"""Ways to compute a dense block on a CPU, as ratios in one run, and what they round.

    python benchmarks/kernels.py [--rounds 9] [--threads N]

A block of the published size over a tile of 256 MSI pixels and its halo: of concatenations or by source, with
torch's own convolutions in channels-last order or Winograd's in the other. The ways take turns; a figure is the ratio
of medians to the first one's, and the relative RMSE against float64.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import time

import torch

from csakd_geo.engine.memory import kept_memory
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {given.threads} threads, torch {torch.__version__}\n")
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
