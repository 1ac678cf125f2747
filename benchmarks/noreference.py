"""How far the scores without truth rank fusions as the truth does: rank correlations on scenes with truth.

    python benchmarks/noreference.py [DATA] [--json FILE]
    python benchmarks/noreference.py --read FILE

Every method fuses every pair through the call that users make. Each product is scored against the truth (PSNR,
SAM, ERGAS) and against its two inputs (HQNR, D_lambda, D_s, consistency, and that over the HSI's noise), and so are the truth itself and
products with a fault. Spearman's
rank correlation is taken over the methods of a scene; signs are turned so that +1 means the same ranking. Without
DATA (the folder with aviris, paris_ms and enmap_potsdam) only the sample is run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from methods import run
from pairs import Case, read, scored_cases
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from csakd_geo.degrade import add_noise
from csakd_geo.evaluate import evaluate_pair
from csakd_geo.evaluate.consistency import measure_consistency
from csakd_geo.methods import METHODS
from csakd_geo.metrics import score

# name, heading, and the sign that makes larger better; 0 where 1 is best
BLIND = (
    ("hqnr", "HQNR", 1),
    ("d_lambda", "D_lambda", -1),
    ("d_s", "D_s", -1),
    ("hsi", "HSI consistency", -1),
    ("msi", "MSI consistency", -1),
    ("over_noise", "HSI consistency over noise", 0),
)
TRUE = (("psnr", "PSNR", 1), ("sam", "SAM", -1), ("ergas", "ERGAS", -1))


def blind_scores(found) -> dict[str, float]:
    """The scores without truth of one product."""
    scores = found.scores
    return {
        "hqnr": scores.hqnr,
        "d_lambda": scores.d_lambda,
        "d_s": scores.d_s,
        "hsi": found.hsi.overall,
        "msi": found.msi.overall,
        "over_noise": found.over_noise,
    }


class Held:
    """A cube in memory in a product's place."""

    def __init__(self, cube: np.ndarray) -> None:
        self.cube = cube

    def read(self, row: int, col: int, height: int, width: int, *, bands) -> np.ndarray:
        return self.cube[np.asarray(bands), row : row + height, col : col + width].copy()


def spoil(cube: np.ndarray, interpolated: np.ndarray, axis) -> dict[str, np.ndarray]:
    """A cube with one fault each."""
    rng = np.random.default_rng(0)
    ripple = np.where(np.arange(len(cube)) % 2, 1.1, 1.0)[:, None, None]
    unseen = (axis.wavelength > 1000)[:, None, None]  # beyond every band of a camera or of Sentinel-2 at 10 m
    return {
        "as it is": cube,
        "one MSI pixel off": np.roll(cube, 1, axis=2),
        "blurred, sigma 1 MSI pixel": gaussian_filter(cube, (0, 1, 1), mode="nearest"),
        "every second band 10 % brighter": cube * ripple,
        "noise of 30 dB": add_noise(cube, 30, rng),
        "interpolated HSI in all bands": interpolated,
        "interpolated HSI beyond 1000 nm": np.where(unseen, interpolated, cube),
    }


def score_case(case: Case, folder: Path) -> list[dict[str, object]]:
    """One row per method; where the truth has the product's pixels one of itself, and some of spoilt products."""
    rows: list[dict[str, object]] = []

    def add(method: str, found, scores=None) -> None:
        told = {} if scores is None else {name: getattr(scores, name) for name, *_ in TRUE}
        rows.append({"pair": case.name, "method": method, **blind_scores(found), **told})
        print(line(rows[-1]), flush=True)

    cubes = {}
    for method in (*METHODS, "csakd"):
        scores, _, _ = run(case, method, folder)
        found = evaluate_pair(folder / "fused.tif", case.hsi, case.msi)
        add(method, found.consistency, scores)
        cubes[method] = read(folder / "fused.tif")[0]
    (truth, *_), link = read(case.truth), found.link
    if truth.shape != cubes["csakd"].shape:
        return rows
    add("truth", measure_consistency(replace(link, fused=Held(truth)), side=1))
    if link.fused.axis.wavelength.max() > 1000:
        for name, cube in spoil(cubes["coupled-map"], cubes["bicubic"], link.fused.axis).items():
            told = measure_consistency(replace(link, fused=Held(cube.astype(np.float32))), side=1)
            add(f"fault: {name}", told, score(cube[link.bands], truth[link.bands], ratio=case.ratio))
    return rows


def line(row: dict[str, object]) -> str:
    """A row of the table of all products."""
    numbers = [f"{row[name]:.4f}" for name, *_ in BLIND]
    numbers += [f"{row[name]:.3f}" if name in row else "–" for name, *_ in TRUE]
    return f"| {row['pair']} | {row['method']} | " + " | ".join(numbers) + " |"


def column(rows, name: str, sign: int) -> np.ndarray:
    """One score of some rows, larger is better."""
    values = np.array([row[name] for row in rows])
    return sign * values if sign else -np.abs(np.log(values))


def summarise(rows: list[dict[str, object]]) -> None:
    """Print rank correlations, what choosing by a score costs, where the truth stands, and what faults do."""
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    methods = (*METHODS, "csakd")
    fused = {p: [r for r in rows if r["pair"] == p and r["method"] in methods] for p in pairs}
    truth = {row["pair"]: row for row in rows if row["method"] == "truth"}

    print("\nPer pair\n")
    table(
        "pair",
        [f"HQNR, {h}" for _, h, _ in TRUE],
        "best by PSNR",
        "best by HQNR",
        "PSNR lost",
        "its HQNR",
        "truth's",
    )
    for pair, some in fused.items():
        hqnr, psnr = column(some, "hqnr", 1), column(some, "psnr", 1)
        cells = [f"{spearmanr(hqnr, column(some, name, sign))[0]:+.2f}" for name, _, sign in TRUE]
        cells += [str(some[values.argmax()]["method"]) for values in (psnr, hqnr)]
        cells += [f"{lost(some, 'hqnr', 1):.2f} dB", f"{hqnr.max():.4f}"]
        print(
            f"| {pair} | {' | '.join(cells)} | {truth[pair]['hqnr']:.4f} |"
            if pair in truth
            else f"| {pair} | {' | '.join(cells)} | – |"
        )

    print("\nPer score: mean rank correlation over the pairs (least), and what choosing by it costs\n")
    table("score", [h for _, h, _ in TRUE], "PSNR, without bicubic", "PSNR lost, mean", "most")
    for name, heading, sign in BLIND:
        cells = [correlation(fused.values(), name, sign, other, turn) for other, _, turn in TRUE]
        sharp = [[row for row in some if row["method"] != "bicubic"] for some in fused.values()]
        cells.append(correlation(sharp, name, sign, "psnr", 1))
        costs = [lost(some, name, sign) for some in fused.values()]
        print(f"| {heading} | {' | '.join(cells)} | {np.mean(costs):.2f} dB | {np.max(costs):.2f} dB |")
    every = [row for some in fused.values() for row in some]
    mixed = [
        f"{spearmanr(column(every, 'hqnr', 1), column(every, name, sign))[0]:+.2f} with {heading}"
        for name, heading, sign in TRUE
    ]
    print(f"\nHQNR over all {len(every)} products, scenes mixed: {', '.join(mixed)}.")
    print(f"PSNR lost by always taking one method: {always(fused)}.")
    worst = sum(column(s, "hqnr", 1).argmin() == column(s, "psnr", 1).argmin() for s in fused.values())
    print(f"The worst by PSNR is the worst by HQNR on {worst} of {len(fused)} pairs.")
    if truth:
        above = sum(row["hqnr"] < max(column(fused[pair], "hqnr", 1)) for pair, row in truth.items())
        print(f"On {above} of {len(truth)} pairs some product has a higher HQNR than the truth itself.")

    faults = list(dict.fromkeys(r["method"] for r in rows if r["method"].startswith("fault")))
    print(
        f"\nMeans over the {len(truth)} pairs whose truth has the product's pixels: methods, then coupled-map with a fault\n"
    )
    table("product", [h for _, h, _ in (*BLIND, *TRUE)])
    for name in (*methods, "truth", *faults):
        print(means(name, [row for row in rows if row["method"] == name and row["pair"] in truth]))


def table(first: str, *heads) -> None:
    """Print the head of a table."""
    flat = [first, *(h for head in heads for h in ([head] if isinstance(head, str) else head))]
    print(f"| {' | '.join(flat)} |\n|{'---|' * len(flat)}")


def means(name: str, rows) -> str:
    """A row of means."""
    numbers = [f"{np.mean([row[key] for row in rows]):.4f}" for key, *_ in BLIND]
    numbers += [f"{np.mean([row[key] for row in rows]):.2f}" if key in rows[0] else "–" for key, *_ in TRUE]
    return f"| {name.removeprefix('fault: ')} | {' | '.join(numbers)} |"


def correlation(pairs, name: str, sign: int, other: str, turn: int) -> str:
    """Mean and least over pairs of the rank correlation of two scores over methods."""
    each = [spearmanr(column(some, name, sign), column(some, other, turn))[0] for some in pairs]
    return f"{np.mean(each):+.2f} ({np.min(each):+.2f})"


def lost(rows, name: str, sign: int) -> float:
    """PSNR of the best less that of the one chosen by a score."""
    psnr = column(rows, "psnr", 1)
    return float(psnr.max() - psnr[column(rows, name, sign).argmax()])


def always(fused) -> str:
    """What each method loses to the best of every pair, the three that lose least."""
    best = {pair: column(some, "psnr", 1).max() for pair, some in fused.items()}
    losses: dict[str, list[float]] = {}
    for pair, some in fused.items():
        for row in some:
            losses.setdefault(str(row["method"]), []).append(best[pair] - row["psnr"])
    ranked = sorted((float(np.mean(values)), name) for name, values in losses.items())[:3]
    return ", ".join(f"{name} {mean:.2f} dB" for mean, name in ranked)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--json", type=Path, help="write the rows")
    parser.add_argument("--read", type=Path, help="summarise rows that were written before")
    args = parser.parse_args()
    if args.read is not None:
        summarise(json.loads(args.read.read_text()))
        return
    rows = []
    heads = [heading for _, heading, _ in (*BLIND, *TRUE)]
    print("| pair | method | " + " | ".join(heads) + " |\n|---|---|" + "---|" * len(heads))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in scored_cases(args.data, folder, airborne=True):
            rows += score_case(case, folder)
            if args.json is not None:
                args.json.write_text(json.dumps(rows, indent=1))
    summarise(rows)


if __name__ == "__main__":
    main()
