"""A dense block by source against one of concatenations on a CPU, as a ratio in one run.

    python benchmarks/kernels.py [--rounds 9] [--threads N]

A block of the published size over a tile of 256 MSI pixels and its halo, in both memory layouts. The two ways take
turns; the figure is the ratio of their medians.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch
from torch.nn import functional

from csakd_geo.models.blocks import RESIDUAL, SLOPE, DenseBlock, _by_source

SIDE, FEATURES, GROWTH = 272, 86, 43


def concatenated(block: DenseBlock, x: torch.Tensor) -> torch.Tensor:
    """The block as it is published."""
    *inner, last = block.children()
    seen = x
    for conv in inner:
        seen = torch.cat((seen, functional.leaky_relu(conv(seen), SLOPE, inplace=True)), dim=1)
    return torch.add(x, last(seen), alpha=RESIDUAL)


def by_source(block: DenseBlock, x: torch.Tensor) -> torch.Tensor:
    """The block as it is computed here."""
    return torch.add(x, _by_source(x, list(block.children())), alpha=RESIDUAL)


def seconds(way, block: DenseBlock, x: torch.Tensor) -> float:
    """Of one call."""
    begun = time.perf_counter()
    way(block, x)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {given.threads} threads, torch {torch.__version__}")
    block, x = DenseBlock(FEATURES, GROWTH).eval(), torch.randn(1, FEATURES, SIDE, SIDE)
    ways = (concatenated, by_source)
    with torch.inference_mode():
        for layout, name in (
            (torch.channels_last, "channels last"),
            (torch.contiguous_format, "channels first"),
        ):
            block, x = block.to(memory_format=layout), x.contiguous(memory_format=layout)
            taken = [[seconds(way, block, x) for way in ways] for _ in range(given.rounds + 1)][1:]
            plain, ours = (statistics.median(column) for column in zip(*taken, strict=True))
            print(f"{name}: by source {ours / plain:.2f} of the time of concatenations", flush=True)


if __name__ == "__main__":
    main()
