"""What tiles, super-tiles, blends, workers, order and resume change in the pixels, on the sample.

    python benchmarks/exactness.py [MODEL]

The first table is the relative RMSE of the lazy cube against the scene fused in one piece; the second
counts the float32 values that differ between files made with the same settings in other ways. The
model is the one that comes with the package; a few minutes on two cores.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from pairs import Case, sample_case

from csakd_geo import fuse
from csakd_geo.models import bundled_models

BLENDS = ("crop", "linear", "hann")
CUTS = ((32, 32), (32, 96), (48, 48), (48, 144), (64, 64), (96, 96))  # tile and super-tile in MSI pixels
SETTINGS = ("--shift", "none", "--tile", "32", "--supertile", "32", "--dtype", "float32", "--quiet")


def relative(found, expected) -> float:
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


def print_cuts(case: Case, model: str) -> None:
    """Tile sizes x super-tile sizes x blends against the scene in one piece."""
    whole = fuse(case.hsi, case.msi, model=model, shift="none", tile=1024)
    expected = whole.values
    print(f"Relative RMSE against the {expected.shape[1]} x {expected.shape[2]} scene in one piece:\n")
    print("| tile | super-tile | " + " | ".join(BLENDS) + " |")
    print("|---|---|" + "---|" * len(BLENDS))
    for tile, supertile in CUTS:
        cells = []
        for blend in BLENDS:
            cube = fuse(
                case.hsi, case.msi, model=model, shift="none", tile=tile, supertile=supertile, blend=blend
            )
            cells.append(f"{relative(cube.values, expected):.1e}")
        print(f"| {tile} | {supertile} | {' | '.join(cells)} |", flush=True)


def start(case: Case, model: str, target: Path, *more: str) -> subprocess.Popen[bytes]:
    args = ["fuse", case.hsi, case.msi, "-o", target, "--model", model, *SETTINGS, *more]
    return subprocess.Popen(
        [sys.executable, "-m", "csakd_geo.cli", *map(str, args)], stdout=subprocess.DEVNULL
    )


def run(case: Case, model: str, target: Path, *more: str) -> np.ndarray:
    """One run of the command; its pixels."""
    if start(case, model, target, *more).wait():
        raise SystemExit(f"csakd-geo fuse {' '.join(more)} failed.")
    with rasterio.open(target) as src:
        return src.read()


def killed(case: Case, model: str, target: Path, after: int) -> int:
    """Kill a run when so many super-tiles are kept; how many are."""
    tiles = target.with_name(target.name + ".part") / "tiles"
    process = start(case, model, target)
    while process.poll() is None and len(list(tiles.glob("*.npy"))) < after:
        time.sleep(0.002)
    process.kill()
    process.wait()
    return len(list(tiles.glob("*.npy")))


def reversed_order(case: Case, model: str) -> np.ndarray:
    """The super-tiles of the lazy cube computed one by one from the last to the first."""
    cube = fuse(case.hsi, case.msi, model=model, shift="none", tile=32, supertile=32).data
    found = np.empty(cube.shape, cube.dtype)
    starts = [np.cumsum((0, *sizes)) for sizes in cube.chunks]
    for index in reversed(list(np.ndindex(cube.numblocks))):
        place = tuple(slice(s[i], s[i + 1]) for s, i in zip(starts, index, strict=True))
        found[place] = cube.blocks[index].compute(scheduler="synchronous")
    return found


def print_ways(case: Case, model: str, folder: Path) -> None:
    """The same settings, run in other ways."""
    expected = run(case, model, folder / "threads.tif")
    rows = {
        "again": run(case, model, folder / "again.tif"),
        "--workers 2": run(case, model, folder / "workers.tif", "--workers", "2"),
        "super-tiles in reversed order": reversed_order(case, model),
    }
    kept = killed(case, model, folder / "resumed.tif", 9)
    rows[f"killed with {kept} super-tiles kept, --resume"] = run(
        case, model, folder / "resumed.tif", "--resume"
    )
    kept = killed(case, model, folder / "mixed.tif", 9)
    rows[f"killed with {kept} kept, --resume --workers 2"] = run(
        case, model, folder / "mixed.tif", "--resume", "--workers", "2"
    )
    print(f"\nOf {expected.size} float32 values, against one run on threads:\n")
    print("| way | values that differ | relative RMSE |")
    print("|---|---|---|")
    for name, found in rows.items():
        print(f"| {name} | {int((found != expected).sum())} | {relative(found, expected):.1e} |", flush=True)


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else str(bundled_models()[0])
    with tempfile.TemporaryDirectory() as folder:
        case = sample_case(Path(folder))
        print_cuts(case, model)
        print_ways(case, model, Path(folder))


if __name__ == "__main__":
    main()
