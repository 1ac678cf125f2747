"""What two ways of computing the network's blocks save on a CPU, as ratios in one run.

    python benchmarks/kernels.py [--rounds 5] [--threads N]

* A dense block of the published size over a tile of 256 MSI pixels and its halo: convolutions of each tensor by
  itself (``_by_source``) against convolutions of concatenations, in both memory layouts.
* A student of the published size (172 bands, ratio 4) over the same tile: torch with huge pages against torch
  without; each in a process of its own, as torch looks once.

Every figure is the median of the rounds; the two that are compared take turns.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time

import torch
from torch.nn import functional

from csakd_geo.models import DualTwoStream, NetworkConfig
from csakd_geo.models.blocks import RESIDUAL, SLOPE, DenseBlock, _by_source

SIDE, RATIO, BANDS, MSI_BANDS, FEATURES, GROWTH = 272, 4, 172, 4, 86, 43


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


def seconds(call, *arguments) -> float:
    """Of one call."""
    begun = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begun


def blocks(rounds: int) -> None:
    """Print the dense block's times."""
    block = DenseBlock(FEATURES, GROWTH).eval()
    x = torch.randn(1, FEATURES, SIDE, SIDE)
    for layout, name in ((torch.channels_last, "channels last"), (torch.contiguous_format, "channels first")):
        block, x = block.to(memory_format=layout), x.contiguous(memory_format=layout)
        ways = (concatenated, by_source)
        for way in ways:
            way(block, x)
        taken = [[seconds(way, block, x) for way in ways] for _ in range(rounds)]
        plain, ours = (statistics.median(column) for column in zip(*taken, strict=True))
        print(f"dense block, {name}: by source {ours / plain:.2f} of the time of concatenations", flush=True)


def forward(rounds: int) -> float:
    """Seconds of the student's forward pass."""
    torch.manual_seed(0)
    network = DualTwoStream(NetworkConfig.official("student", bands=BANDS, msi_bands=MSI_BANDS)).eval()
    network = network.to(memory_format=torch.channels_last)
    low, high = (
        torch.randn(1, bands, side, side).contiguous(memory_format=torch.channels_last)
        for bands, side in ((BANDS, SIDE // RATIO), (MSI_BANDS, SIDE))
    )
    network(low, high)
    return statistics.median(seconds(network, low, high) for _ in range(rounds))


def pages(rounds: int, threads: int) -> None:
    """Print what huge pages are worth."""
    taken: dict[str, list[float]] = {"0": [], "1": []}
    for _ in range(2):
        for enabled, found in taken.items():
            command = [sys.executable, __file__, "--forward", f"--rounds={rounds}", f"--threads={threads}"]
            environ = os.environ | {"THP_MEM_ALLOC_ENABLE": enabled}
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
            found.append(float(done.stdout))
    without, having = (statistics.mean(found) for found in taken.values())
    print(f"student over a tile: with huge pages {having / without:.2f} of the time without")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--forward", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with torch.inference_mode():
        if given.forward:
            print(forward(given.rounds))
            return
        machine = platform.processor() or platform.machine()
        print(f"{machine}, {given.threads} threads, torch {torch.__version__}")
        blocks(given.rounds)
    pages(given.rounds, given.threads)


if __name__ == "__main__":
    main()
