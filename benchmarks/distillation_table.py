"""The tables and the figure of benchmarks/distillation.py."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

FORMS = {True: "refining coupled-map", False: "without a base"}
ORDER = (
    "reference",
    "student alone",
    "with response",
    "with features",
    "with both",
    "with both, offline",
    "teacher",
)


def write_docs(rows: list[dict], folder: Path) -> None:
    """Write distillation.md and distillation.png."""
    folder.mkdir(exist_ok=True)
    taught = [row for row in rows if row["kind"] == "distillation"]
    fused = [row for row in rows if row["kind"] == "fuser"]
    steps = sorted({row["steps"] for row in rows})
    text = f"""# Does distillation earn its place, and which fuser?

Written by `python benchmarks/distillation.py --table docs/distillation.json`; the numbers in it
([distillation.json](distillation.json)) are those of `python benchmarks/distillation.py DATA` on the AVIRIS scenes
ABU, San Diego and GatorSense (100 x 100 pixels, 189 to 205 bands). Ratio 4, four Landsat-like bands, MSI noise 40 dB.

- **Another area**: San Diego (two scenes) is scored; all other areas are learned from. Coefficients of each
  pair's own subspace.
- **Same area**: one Gulfport scene (airport-3) is scored; the four others are learned from. Coefficients of the
  area's subspace (`form: domain`).

All networks of one run see the same crops for {" or ".join(map(str, steps))} steps of 8 crops of 40 x 40 pixels,
start from the same seed, and are scored with their last weights, so nothing is chosen on what is scored.
Student: 16 features, grouped; teacher: 32 features, online co-training; "offline": the
teacher is trained first and frozen. The mean over seeds and, after the sign,
their standard deviation. "Reference" is what the losses are divided by: `coupled-map` where the network refines
it, else the cubic interpolation of the HSI.

This was run with an earlier `coupled-map` (ten directions, other weights): its reference is not today's.

![Differences to the student alone, and the fusers against noise](distillation.png)

## Distillation

HSI noise 35 dB. PSNR in dB / SAM in degrees.

{_distillation_table(taught)}

Change against the student alone of the same run, mean and standard error over seeds and settings:

{_difference_table(taught)}

## Fusers

Students alone, same area. PSNR in dB / SAM in degrees at the HSI noise given.

{_fuser_table(fused)}
"""
    (folder / "distillation.md").write_text(text, encoding="utf-8")
    (folder / "distillation.json").write_text(json.dumps(rows) + "\n", encoding="utf-8")
    _draw(taught, fused, folder / "distillation.png")


def _cell(rows: list[dict], name: str) -> str:
    psnr = [row["scores"][name]["psnr"] for row in rows]
    sam = [row["scores"][name]["sam"] for row in rows]
    if name == "reference" or len(rows) == 1:
        return f"{np.mean(psnr):.2f} / {np.mean(sam):.3f}"
    return (
        f"{np.mean(psnr):.2f} ± {np.std(psnr, ddof=1):.2f} / {np.mean(sam):.3f} ± {np.std(sam, ddof=1):.3f}"
    )


def _groups(rows: list[dict], *keys: str) -> dict[tuple, list[dict]]:
    found = defaultdict(list)
    for row in rows:
        found[tuple(row[key] for key in keys)].append(row)
    # the same area first, with a base first, from much noise to little
    return dict(sorted(found.items(), key=lambda item: [_rank(value) for value in item[0]]))


def _rank(value: object) -> object:
    return {True: 0, False: 1, "same area": 0, "another area": 1}.get(value, value)


def _table(head: list[str], lines: list[list[str]]) -> str:
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join(
        ["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)]
    )


def _distillation_table(rows: list[dict]) -> str:
    groups = _groups(rows, "setting", "residual")
    head = ["network"] + [
        f"{setting}, {FORMS[residual]} ({len(group)} seeds)" for (setting, residual), group in groups.items()
    ]
    return _table(head, [[name, *(_cell(group, name) for group in groups.values())] for name in ORDER])


def differences(rows: list[dict], name: str, score: str) -> np.ndarray:
    """Change of a score against the student alone, one number per run."""
    return np.array([row["scores"][name][score] - row["scores"]["student alone"][score] for row in rows])


def _difference_table(rows: list[dict]) -> str:
    lines = []
    for residual, form in FORMS.items():
        group = [row for row in rows if row["residual"] is residual]
        if len(group) < 2:
            continue
        for name in ORDER[2:]:
            cells = []
            for score, digits in (("psnr", 3), ("sam", 4)):
                change = differences(group, name, score)
                error = change.std(ddof=1) / np.sqrt(len(change))
                cells.append(f"{change.mean():+.{digits}f} ± {error:.{digits}f}")
            lines.append([f"{name}, {form}", *cells, str(len(group))])
    return _table(["network", "PSNR dB", "SAM deg", "runs"], lines)


def _fuser_table(rows: list[dict]) -> str:
    groups = _groups(rows, "residual", "noise")
    head = ["fuser"] + [
        f"{noise:g} dB, {FORMS[residual]} ({len(group)})" for (residual, noise), group in groups.items()
    ]
    names = [name for name in rows[0]["scores"] if name != "reference"] if rows else []
    return _table(
        head, [[name, *(_cell(g, name) for g in groups.values())] for name in ["reference", *names]]
    )


def _draw(taught: list[dict], fused: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12.5, 4.2), layout="constrained")
    colours = {True: "#1b6ca8", False: "#d1603d"}
    names = ORDER[2:-1]  # the teacher's differences are of another size and stand in the table
    for axis, score, unit in zip(
        axes[:2], ("psnr", "sam"), ("dB, higher is better", "deg, lower is better"), strict=True
    ):
        for residual, shift in ((True, -0.12), (False, 0.12)):
            group = [row for row in taught if row["residual"] is residual]
            for k, name in enumerate(names):
                change = differences(group, name, score)
                at = np.full(len(change), k + shift)
                axis.plot(at, change, "o", ms=4, mfc="none", color=colours[residual], alpha=0.7)
                if len(change):
                    axis.plot(
                        [k + shift - 0.1, k + shift + 0.1], [change.mean()] * 2, color=colours[residual], lw=3
                    )
        axis.axhline(0, color="0.4", lw=0.8)
        axis.set_xticks(range(len(names)), [n.removeprefix("with ").replace(", ", ",\n") for n in names])
        axis.set_title(f"{score.upper()} of distilled students\nover the student alone ({unit})", fontsize=10)
    for residual, form in FORMS.items():
        axes[0].plot([], [], "o", mfc="none", color=colours[residual], label=form)
    axes[0].margins(y=0.25)
    axes[0].legend(frameon=False, fontsize=8, loc="upper right")
    _draw_fusers(axes[2], [row for row in fused if row["residual"]])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_fusers(axis, rows: list[dict]) -> None:
    """PSNR over the base's against noise, one line per fuser."""
    names = [name for name in rows[0]["scores"] if name != "reference"] if rows else []
    noises = sorted({row["noise"] for row in rows})
    for k, name in enumerate(names):
        means, spreads = [], []
        for noise in noises:
            gain = [
                row["scores"][name]["psnr"] - row["scores"]["reference"]["psnr"]
                for row in rows
                if row["noise"] == noise
            ]
            means.append(np.mean(gain))
            spreads.append(np.std(gain, ddof=1) if len(gain) > 1 else 0.0)
        at = np.array(noises) + (k - len(names) / 2) * 0.35
        style = "--" if "released" in name else "-"
        axis.errorbar(
            at, means, spreads, fmt="o" + style, ms=3.5, lw=1.2, capsize=2, label=name, color=f"C{k}"
        )
    axis.axhline(0, color="0.4", lw=0.8)
    axis.set_xticks(noises, [f"{n:g}" for n in noises])
    axis.set_xlabel("HSI noise, dB")
    axis.set_title("PSNR over coupled-map's, by fuser\n(dB, higher is better)", fontsize=10)
    axis.legend(frameon=False, fontsize=7, loc="upper right")
