"""Do 90 % intervals hold nine of ten truths? On scenes whose area did not set the constants.

    python benchmarks/uncertainty.py DATA [SCENE ...] [--json OUT.json]

Every scene is degraded by Wald's protocol (noise 35 and 40 dB), fused, and its errors are held against the
deviations that the pair alone gave. Transfer, steepness and unmodelled noise are chosen on a grid, with all scenes of an
area left out, and the coverage of 90 % intervals is printed for those. The truths are measurements too: their
noise, by spectral neighbours, is added to the deviations; "bare" is the coverage without that.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pairs import load_scene, paris_ms, read

from csakd_geo.align import find_shift
from csakd_geo.choose import fitting_model
from csakd_geo.degrade import PSF, observe
from csakd_geo.draft import draft_job
from csakd_geo.methods import get_method
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.options import make_options
from csakd_geo.pair import Block, Pair
from csakd_geo.quality import fit_agreement
from csakd_geo.response import estimate_noise, estimate_response
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis, gaussian_response
from csakd_geo.threads import one_blas_thread
from csakd_geo.uncertainty import TAIL, Trial, try_below
from csakd_geo.uncertainty.below import STEEPNESS, TRANSFER, UNMODELLED

SETTINGS = (
    (4, "aviris-paper-4"),
    (4, "sentinel2"),
    (3, "aviris-paper-4"),
    (2, "aviris-paper-4"),
    (2, "sentinel2"),
)
METHODS = ("regression", "coupled-map", "csakd")
TRANSFERS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
STEEP = (0.0, 0.5, 1.0)
NOISES = (0.0, 0.1, 0.25, 0.5, 0.75)
GRID = [(transfer, steep, noise) for transfer in TRANSFERS for steep in STEEP for noise in NOISES]
PIXELS, EVERY = 2000, 3  # of each scene, and every third band, are looked at


@dataclass(frozen=True)
class Case:
    """Squared errors of one fusion and what its deviations are made of."""

    area: str
    name: str
    ratio: int
    sensor: str
    method: str
    trial: Trial
    square: np.ndarray  # (band, n)
    activity: np.ndarray  # (n,)
    truth_noise: np.ndarray  # (band,) variance

    def coverage(
        self, transfer: float, steepness: float, unmodelled: float, *, bare: bool = False
    ) -> np.ndarray:
        """Share of truths in the 90 % interval, per band."""
        t = self.trial
        transfer *= self.ratio**steepness
        variance = transfer * (t.growth * t.alpha[:, None] + t.beta[:, None] * self.activity)
        variance += (unmodelled * t.noise + t.carried + (0 if bare else self.truth_noise))[:, None]
        variance = variance[::EVERY]
        return (self.square <= TAIL**2 * variance).mean(1)


def scenes(data: Path) -> Iterator[tuple[str, str, np.ndarray, SpectralAxis]]:
    """Area, name, cube and axis."""
    for path in sorted((data / "aviris").glob("*.tif")):
        area = path.stem
        if "airport" in area or "urban" in area:
            area = "airport and urban"
        elif "sandiego" in area:
            area = "sandiego"
        if area.startswith("indian"):
            cube, axis = load_scene(path, 1.0)
            cube = (np.maximum(cube, 1000) - 1000) / 500
        else:
            cube, axis = load_scene(path)
        yield area, path.stem, cube, axis
    for name, file in (
        ("enmap_potsdam A", "enmap_potsdam/block_A_128x64.tif"),
        ("enmap_potsdam B", "enmap_potsdam/block_B_96x64.tif"),
        ("paris_ms", "paris_ms/hyperion_hsi_30m.tif"),
        ("dlr_hysu", "dlr_hysu/DLR_HySU_HS_full.tif"),
    ):
        cube, _, _, axis = read(data / file)
        cube = cube[:, :, np.isfinite(cube).any((0, 1))]
        keep = np.isfinite(cube).all((1, 2)) & (np.ptp(cube.reshape(len(cube), -1), axis=1) > 0)
        cube = np.maximum(cube[keep], 0)
        yield name.split()[0], name, cube / cube.max(), axis.take(np.flatnonzero(keep))


def cases(data: Path, names: list[str]) -> Iterator[Case]:
    for area, name, whole, axis in scenes(data):
        if names and not any(name.startswith(n) for n in names):
            continue
        for ratio, sensor in SETTINGS:
            height, width = (n // ratio * ratio for n in whole.shape[1:])
            cube = whole[:, :height, :width]
            bands = get_sensor(sensor).axis
            inside = (bands.wavelength > axis.wavelength.min()) & (bands.wavelength < axis.wavelength.max())
            bands = bands.take(np.flatnonzero(inside))
            hsi, msi = observe(
                cube, gaussian_response(bands, axis), psf=PSF.nominal(ratio), snr_hsi=35, snr_msi=40
            )
            pair = Pair((Block(hsi, msi, np.ones(hsi.shape[1:], bool)),), ratio, axis, bands)
            response = estimate_response(pair)
            picked = np.random.default_rng(0).permutation(height * width)[:PIXELS]
            noise = np.square(estimate_noise(cube.reshape(len(cube), -1).astype(float)))
            for method_name in METHODS:
                if method_name == CSAKD.name:
                    path = fitting_model(axis, bands, ratio)
                    if path is None:
                        continue
                    method = CSAKD(path)
                else:
                    method = get_method(method_name)
                fitted = method.fit(pair, response)
                trial = try_below(pair, response, method, fitted)
                if trial is None:
                    continue
                found = trial.at_full_resolution(response.psf)
                print(f"{name}, x{ratio}, {sensor}, {method_name}", file=sys.stderr, flush=True)
                error = (method.apply(fitted, hsi, msi) - cube).reshape(len(cube), -1)[:, picked]
                activity = found.activity(msi).ravel()[picked]
                yield Case(
                    area,
                    name,
                    ratio,
                    sensor,
                    method_name,
                    trial,
                    np.square(error[::EVERY].astype(float)),
                    activity,
                    noise,
                )


def distances(case: Case) -> np.ndarray:
    """How far a case and its bands are from 90 % at every point of the grid."""
    shares = [case.coverage(*constants) for constants in GRID]
    return np.array([(s.mean() - 0.9) ** 2 + 0.25 * np.square(s - 0.9).mean() for s in shares])


def choose(found: list[tuple[str, np.ndarray]]) -> tuple[float, float, float]:
    """Transfer, steepness and unmodelled noise closest to 90 %, every area alike, from areas and distances."""
    areas = sorted({area for area, _ in found})
    means = [np.mean([far for own, far in found if own == area], axis=0) for area in areas]
    return GRID[int(np.argmin(np.mean(means, axis=0)))]


def count_changed(data: Path) -> str:
    """HSI pixels of a real pair of one date that are flagged as changed."""
    with tempfile.TemporaryDirectory() as folder:
        case = paris_ms(data, Path(folder))
        found = find_shift(
            draft_job(case.hsi, case.msi, make_options({"method": "regression"})).scene, least=1
        )
        block, agreement = found.pair.blocks[0], fit_agreement(found.pair, found.response)
        changed = agreement.changed(block.hsi, block.msi, block.valid)
    return f"{case.name}: {changed.sum()} of {changed.size} HSI pixels are flagged as changed"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", help="scenes; all by default")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    begun = time.perf_counter()
    print(count_changed(args.data), flush=True)
    with one_blas_thread():
        found = list(cases(args.data, args.names))
    areas, far = sorted({case.area for case in found}), [(case.area, distances(case)) for case in found]
    chosen = {area: choose([f for f in far if f[0] != area]) for area in areas if len(areas) > 1}
    rows = []
    for case in found:
        constants = chosen.get(case.area, (TRANSFER, STEEPNESS, UNMODELLED))
        share, bare = case.coverage(*constants), case.coverage(*constants, bare=True)
        low, high = np.quantile(share, [0.1, 0.9])
        rows.append(
            {
                "area": case.area,
                "scene": case.name,
                "setting": f"x{case.ratio}, {case.sensor}",
                "method": case.method,
                "coverage": round(float(share.mean()), 3),
                "bands_10": round(float(low), 3),
                "bands_90": round(float(high), 3),
                "bare": round(float(bare.mean()), 3),
                "uninformed": int((~case.trial.informed).sum()),
            }
        )
    print("| scene | " + " | ".join(METHODS) + " | bands | bare |")
    print("|---|" + "---:|" * (len(METHODS) + 2))
    for name in dict.fromkeys(row["scene"] for row in rows):
        own = [row for row in rows if row["scene"] == name]
        words = []
        for method in METHODS:
            values = [row["coverage"] for row in own if row["method"] == method]
            words.append(f"{100 * min(values):.0f} to {100 * max(values):.0f}" if values else "")
        spread = f"{100 * np.mean([r['bands_10'] for r in own]):.0f} to {100 * np.mean([r['bands_90'] for r in own]):.0f}"
        print(
            f"| {name} | "
            + " | ".join(words)
            + f" | {spread} | {100 * np.mean([r['bare'] for r in own]):.0f} |"
        )
    shares = np.array([row["coverage"] for row in rows])
    inside = (shares >= 0.85) & (shares <= 0.95)
    print(
        f"\n{len(rows)} fusions, areas left out: mean {shares.mean():.3f}, {inside.mean():.0%} within 85 to 95 %"
    )
    for method in METHODS:
        own = np.array([row["coverage"] for row in rows if row["method"] == method])
        if own.size:
            ok = ((own >= 0.85) & (own <= 0.95)).mean()
            print(
                f"  {method}: mean {own.mean():.3f}, lowest {own.min():.3f}, highest {own.max():.3f}, {ok:.0%} within"
            )
    for ratio in sorted({case.ratio for case in found}):
        own = [row["coverage"] for row in rows if row["setting"].startswith(f"x{ratio},")]
        print(f"  ratio {ratio}: mean {np.mean(own):.3f}")
    print("bare, without the truths' noise: mean", round(float(np.mean([row["bare"] for row in rows])), 3))
    print("chosen with an area left out:", {area: chosen[area] for area in chosen})
    print(
        f"chosen on all: transfer, steepness, unmodelled = {choose(far)}; in use: {(TRANSFER, STEEPNESS, UNMODELLED)}"
    )
    print(f"{time.perf_counter() - begun:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
