"""The engine against a bare forward pass and against the plain way of tiling, as ratios in one run.

    python benchmarks/engine.py [--size 1024] [--backend auto] [--bf16] [--device cpu]
    python benchmarks/engine.py --memory [--size 2048]

A synthetic pair (random mixtures of six smooth spectra, 172 bands, ratio 4, four MSI bands) and a student of
the published size with random weights. Per precision:

* bare: the network alone over 256 pixel tiles without halo, same backend, nothing read or written;
* engine: read, fuse, encode int16, stage, COG with overviews, validated (fitting is not counted);
* plain: torch eager, 256 pixel tiles with 25 % overlap, Gaussian weights over the whole array in memory,
  written as a GeoTIFF with rasterio; in a process of its own, with torch's own settings.

The seam metric of each result is over that of the other on the same lines, where the other was not cut.
Bare and engine take turns, three times (``--rounds``); seconds are medians. ``--bf16`` adds bf16; on CPUs without
instructions for it the figure says little. ``--device cuda`` prints tiles per second, the share of the measured
matrix-product ceiling and the GPU's idle time instead of the plain way. ``--memory`` prints the peak resident memory of
one ``csakd-geo fuse`` against what its plan promised.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import rasterio
from pairs import write
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

from csakd_geo.degrade import PSF, degrade
from csakd_geo.draft import draft_job
from csakd_geo.engine.store import Store
from csakd_geo.job import prepare_job
from csakd_geo.memory import kept_memory, share_arena
from csakd_geo.metrics import seam_energy
from csakd_geo.options import make_options
from csakd_geo.product import write_job
from csakd_geo.spectral import SpectralAxis
from csakd_geo.threads import let_threads_sleep

BANDS, RATIO, TILE, OVERLAP = 172, 4, 256, 64
GMAC = 144.78  # of the student over a 256 pixel tile (csakd-geo model complexity)


def make_pair(folder: Path, size: int) -> tuple[Path, Path]:
    """HSI and MSI of ``size`` MSI pixels."""
    rng = np.random.default_rng(0)
    maps = np.stack([gaussian_filter(rng.standard_normal((size, size)), s) for s in (1, 2, 3, 4, 6, 8)])
    maps = np.exp(0.8 * maps / maps.std((1, 2), keepdims=True))
    maps = (maps / maps.sum(0)).astype(np.float32)
    spectra = 500 + 4500 * np.abs(gaussian_filter(rng.standard_normal((6, BANDS)), (0, 12)) * 8)
    low = np.tensordot(spectra.T, degrade(maps, PSF(RATIO, RATIO * 1.0)), 1)
    axis = SpectralAxis(
        np.linspace(410, 2450, BANDS), np.full(BANDS, 12.0), np.ones(BANDS, bool), ("",) * BANDS
    )
    response = np.exp(-0.5 * ((axis.wavelength - np.array([[490], [560], [665], [842]])) / 25) ** 2)
    high = np.tensordot((response / response.sum(1, keepdims=True)) @ spectra.T, maps, 1)
    paths = folder / f"hsi{size}.tif", folder / f"msi{size}.tif"
    for path, cube, pixel, bands in ((paths[0], low, 40, axis), (paths[1], high, 10, None)):
        cube = cube * (1 + 0.01 * rng.standard_normal(cube.shape))
        write(path, cube, from_origin(500000, 4600000, pixel, pixel), crs="EPSG:32633", axis=bands, nodata=-1)
    return paths


def make_model(path: Path):
    """A student as published, its weights random."""
    import torch

    from csakd_geo.models import DualTwoStream, NetworkConfig

    torch.manual_seed(0)
    network = DualTwoStream(NetworkConfig.official("student", bands=BANDS, msi_bands=4))
    torch.save({f"decoder.{name}": weights for name, weights in network.state_dict().items()}, path)
    return path


def quiet(stage: str, share: float, words: str) -> None:
    """No progress."""


def bare(job, size: int) -> float:
    """Seconds of the network alone over all tiles."""
    import torch

    method = job.choice.method
    runtime, low = method.runtime(RATIO), TILE // RATIO
    hsi = torch.randn(1, BANDS, low, low, device=runtime.device)
    msi = torch.randn(1, 4, TILE, TILE, device=runtime.device)
    with torch.inference_mode(), kept_memory():
        runtime.fine(hsi, msi, *runtime.coarse(hsi, msi), None, None)
        begun = time.perf_counter()
        for _ in range((size // TILE) ** 2):
            runtime.fine(hsi, msi, *runtime.coarse(hsi, msi), None, None)
        if runtime.device != "cpu":
            torch.cuda.synchronize()
    return time.perf_counter() - begun


def engine(job, target: Path) -> tuple[float, dict[str, float]]:
    """Seconds from reading to the validated COG, whole and by stage."""
    store = Store(target)
    begun = time.perf_counter()
    product = write_job(job, target, store, report=quiet)
    return time.perf_counter() - begun, product.seconds


def plain(job, hsi: Path, msi: Path, target: Path) -> float:
    """Seconds of the plain way, in a process that this package has set nothing for."""
    import torch

    task = (job.choice.method.path, job.fitted.to_bytes(), hsi, msi, target, torch.get_num_threads())
    os.environ.pop("OMP_WAIT_POLICY", None)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(slide, task)


def slide(path: Path, fit: bytes, hsi: Path, msi: Path, target: Path, threads: int) -> float:
    """Seconds of a sliding window with Gaussian weights over arrays in memory."""
    import torch

    from csakd_geo.methods.base import Fitted
    from csakd_geo.methods.network_form import network_inputs, network_output, output_map
    from csakd_geo.models import load_model

    torch.set_num_threads(threads)
    model, fitted = load_model(path), Fitted.from_bytes(fit)
    begun = time.perf_counter()
    with rasterio.open(hsi) as src:
        low = src.read()
    with rasterio.open(msi) as src:
        high, profile = src.read(), src.profile
    seen = network_inputs(model.card, fitted, low, high)
    low, high = torch.from_numpy(seen.hsi[None]), torch.from_numpy(np.float32(seen.msi)[None])
    size = high.shape[2]
    ramp = np.exp(-0.5 * ((np.arange(TILE) - (TILE - 1) / 2) / (TILE / 8)) ** 2)
    weight = torch.from_numpy(np.outer(ramp, ramp).astype(np.float32))
    total, sums = torch.zeros(BANDS, size, size), torch.zeros(size, size)
    starts = sorted({*range(0, size - TILE, TILE - OVERLAP), size - TILE})
    with torch.inference_mode():
        for y in starts:
            for x in starts:
                fine = slice(y, y + TILE), slice(x, x + TILE)
                coarse = slice(y // RATIO, (y + TILE) // RATIO), slice(x // RATIO, (x + TILE) // RATIO)
                answer, _ = model.network(low[:, :, *coarse], high[:, :, *fine])
                total[:, *fine] += answer[0] * weight
                sums[fine] += weight
    fused = network_output(*output_map(model.card, fitted), (total / sums).numpy())
    profile.update(count=BANDS, dtype="int16", nodata=-32768)
    with rasterio.open(target, "w", **profile) as dst:
        dst.write(np.clip(np.rint(fused), -32767, 32767).astype(np.int16))
    return time.perf_counter() - begun


def seam(path: Path, other: Path, msi: Path, step: int) -> float:
    """Seam metric of a file over that of another, which was not cut there; the MSI is the guide of both."""
    with rasterio.open(msi) as src:
        guide = src.read()
    found = []
    for one in (path, other):
        with rasterio.open(one) as src:
            cube = src.read(list(range(1, BANDS + 1, 24))).astype(np.float32)
        found.append(seam_energy(cube, step, guide=guide, period=RATIO))
    return found[0] / found[1]


def ceiling(device: str, dtype) -> float:
    """Multiply-adds per second of a matrix product, in units of 1e9."""
    import torch

    n = 8192 if device.startswith("cuda") else 3072
    a = torch.randn(n, n, device=device, dtype=dtype)
    times = []
    for _ in range(4):
        begun = time.perf_counter()
        a @ a
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return n**3 / min(times) / 1e9


class Idle:
    """Share of samples in which the GPU computed nothing."""

    def __enter__(self):
        self.samples, self.stop = [], threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def _look(self) -> None:
        command = [
            "nvidia-smi",
            "--query-gpu=utilization.gpu",
            "--format=csv,noheader,nounits",
            "-lms",
            "100",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            while not self.stop.is_set():
                self.samples.append(float(child.stdout.readline() or 0))
            child.terminate()

    def __exit__(self, *_) -> None:
        self.stop.set()
        self.thread.join(timeout=2)

    @property
    def share(self) -> float:
        return float(np.mean([100 - s for s in self.samples])) / 100 if self.samples else float("nan")


def measure_speed(given: argparse.Namespace, folder: Path) -> None:
    """Print the ratios."""
    share_arena()
    let_threads_sleep()
    import torch

    hsi, msi = make_pair(folder, given.size)
    model = make_model(folder / "student.pth")
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"matrix product: {ceiling(given.device, torch.float32):.0f} GMAC/s float32\n")
    print(
        "| precision | backend | bare s | engine s | fuse | write | engine / bare | plain s | plain / engine | seam engine | seam plain |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    reference = None
    for precision in ("float32", "bf16") if given.bf16 else ("float32",):
        options = make_options(
            {"model": str(model), "shift": "none", "backend": given.backend, "precision": precision}
            | {"device": given.device, "supertile": given.supertile, "tile": given.tile, "halo": given.halo}
        )
        job = prepare_job(draft_job(hsi, msi, options), report=quiet)
        target, rounds = folder / f"engine-{precision}.tif", []
        for _ in range(given.rounds):
            alone = bare(job, given.size)
            with Idle() if given.device.startswith("cuda") else nullcontext() as idle:
                rounds.append((alone, *engine(job, target)))
        seconds, took = (statistics.median(one[k] for one in rounds) for k in (0, 1))
        stages = {name: statistics.median(one[2][name] for one in rounds) for name in ("fuse", "write")}
        name = job.notes["backend"]
        if given.device.startswith("cuda"):
            tiles = (given.size / TILE) ** 2
            top = ceiling(given.device, torch.bfloat16 if precision == "bf16" else torch.float32)
            share = tiles * GMAC / stages["fuse"] / top
            print(
                f"{name}: {tiles / stages['fuse']:.1f} tiles/s, {share:.1%} of the ceiling, idle {idle.share:.0%}"
            )
        elif reference is None:
            reference = (
                plain(job, hsi, msi, folder / "plain.tif"),
                seam(folder / "plain.tif", target, msi, TILE - OVERLAP),
            )
        long, plain_seam = reference or (float("nan"), float("nan"))
        cut = job.plan.tile * RATIO  # a single tile has no seams
        edges = (
            seam(target, folder / "plain.tif", msi, cut) if reference and cut < given.size else float("nan")
        )
        print(
            f"| {precision} | {name} | {seconds:.1f} | {took:.1f} | {stages['fuse']:.1f} | {stages['write']:.1f} "
            f"| {took / seconds:.2f} | {long:.1f} | {long / took:.2f} | {edges:.3f} | {plain_seam:.3f} |",
            flush=True,
        )
        print(f"timed: {json.dumps(job.notes['backend_seconds_per_tile'])}", file=sys.stderr)


# VmHWM and not getrusage, which starts a child at the peak of the process that began it
PEAK = """
import re, sys
from pathlib import Path
from csakd_geo.cli import main
try:
    main()
finally:
    kilobytes = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
    print("PEAK", int(kilobytes) * 1024, file=sys.stderr)
"""


def measure_memory(given: argparse.Namespace, folder: Path) -> None:
    """Print the peak resident memory of a whole command, and what its plan said."""
    hsi, msi = make_pair(folder, given.size)
    model = make_model(folder / "student.pth")
    runs = {"network": ["--model", str(model)], "coupled-map": ["--method", "coupled-map"]}
    for words in runs.values() if given.method is None else [runs[given.method]]:
        arguments = ["fuse", str(hsi), str(msi), "-o", str(folder / "o.tif"), "--overwrite", *words]
        arguments += ["--memory", given.limit][: 0 if given.limit is None else 2]
        arguments += ["--tile", str(given.tile)][: 0 if given.tile is None else 2]
        begun = time.perf_counter()
        child = subprocess.run(
            [sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=False
        )
        found = re.search(r"PEAK (\d+)", child.stderr)
        promised = re.search(r"([\d.]+) (GB|MB)\s+memory", child.stderr)
        if child.returncode or not found or not promised:
            raise SystemExit(child.stderr)
        plan = float(promised[1]) * {"GB": 1e9, "MB": 1e6}[promised[2]]
        print(
            f"{given.size} x {given.size} x {BANDS}, {words[1].rpartition('/')[2]}: peak {int(found[1]) / 1e9:.2f} GB, "
            f"promised {plan / 1e9:.2f} GB, {time.perf_counter() - begun:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1024, help="MSI pixels per side, a multiple of 256")
    parser.add_argument("--supertile", type=int, help="MSI pixels per side of a super-tile")
    parser.add_argument("--tile", type=int, help="MSI pixels per side of a tile")
    parser.add_argument("--halo", help="HSI pixels of context, or auto; what the model states by default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--rounds", type=int, default=3, help="turns of bare and engine")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--method", choices=["network", "coupled-map"], help="one of the two of --memory")
    parser.add_argument("--limit", help="bound for --memory, such as 2GB")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (measure_memory if given.memory else measure_speed)(given, Path(folder))


if __name__ == "__main__":
    main()
