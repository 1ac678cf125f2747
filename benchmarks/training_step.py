"""Wall time and peak memory of one training step of the published networks.

    python benchmarks/training_step.py [--steps 3] [--threads N] [--crop 128] [--batch 1]

172 HSI and 4 MSI bands, ratio 4, random numbers as data; every figure is from a process of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time

ROLES = ("student alone", "teacher alone", "student and teacher", "student, frozen teacher")


def measure(role: str, args: argparse.Namespace) -> dict:
    import resource

    import numpy as np
    import torch

    from csakd_geo.models import DualTwoStream, NetworkConfig
    from csakd_geo.train.batch import Batch
    from csakd_geo.train.losses import LossWeights
    from csakd_geo.train.steps import Steps

    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    nets = {
        name: DualTwoStream(
            NetworkConfig.named(name, bands=172, msi_bands=4, attention="cross", residual=False)
        )
        for name in ("student", "teacher")
    }
    learner = nets["teacher" if role == "teacher alone" else "student"]
    guide = nets["teacher"] if "teacher" in role and "alone" not in role else None
    steps = Steps(learner, guide, rate=1e-4, weights=LossWeights(), relative=False, frozen="frozen" in role)
    del nets
    fine, coarse = args.crop, args.crop // 4
    batch = Batch(
        hsi=torch.rand(args.batch, 172, coarse, coarse),
        msi=torch.rand(args.batch, 4, fine, fine),
        base=None,
        reference=torch.rand(args.batch, 172, fine, fine),
        truth=torch.rand(args.batch, 172, fine, fine),
        usable=torch.ones(args.batch, 1, fine, fine, dtype=torch.bool),
        weight=torch.tensor(1.0),
        level=torch.zeros(172),
    )
    steps.step([batch], factor=1.0)  # memory is laid out, kernels are chosen
    seconds = []
    for _ in range(args.steps):
        at = time.perf_counter()
        steps.step([batch], factor=1.0)
        seconds.append(time.perf_counter() - at)
    unit = 1 if platform.system() == "Darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {
        "role": role,
        "seconds": float(np.median(seconds)),
        "gib": peak / 2**30,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--role", choices=ROLES, help="measure this one here and print JSON")
    args = parser.parse_args()
    if args.role:
        print(json.dumps(measure(args.role, args)))
        return
    options = [f"--{k}={getattr(args, k)}" for k in ("steps", "threads", "crop", "batch")]
    print("| one step of | seconds | peak memory GiB | threads |\n|---|---:|---:|---:|")
    for role in ROLES:
        command = [sys.executable, __file__, *options, "--role", role]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"| {role} | {row['seconds']:.1f} | {row['gib']:.2f} | {row['threads']} |", flush=True)


if __name__ == "__main__":
    main()
