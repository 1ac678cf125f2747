"""The rows of benchmarks/quality.py as CSV, as Markdown held against the bars, and as a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import numpy as np
from quality_scenes import AREAS

#: The classical methods whose best figure sets the bar, each metric by itself.
SIX = ("bicubic", "regression", "gsa", "mtf-glp", "cnmf", "subspace-map")
PSNR_BAR, SAM_BAR = 1.0, 10.0  # dB above and per cent below the best of the six
PSNR_NOISE, SAM_NOISE = 0.05, 1.0  # dB and per cent: what another seed of noise moves a margin by
BASE = "coupled-map"  # that models refine
PARIS = ("paris_ms", 29.2, 3.1)  # the real MSI: PSNR above, SAM below


def as_csv(rows: list[dict]) -> str:
    """All rows; what is not known is empty."""
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


class Group:
    """All methods on one pair."""

    def __init__(self, rows: list[dict]) -> None:
        self.scene, self.setting, self.area = (rows[0][k] for k in ("scene", "setting", "area"))
        self.rows = {row["method"]: row for row in rows}
        six = [self.rows[m] for m in SIX if self.rows.get(m, {}).get("psnr") is not None]
        self.psnr = max((row["psnr"], row["method"]) for row in six)
        self.sam = min((row["sam"], row["method"]) for row in six)

    def margins(self, method: str) -> tuple[float, float] | None:
        """PSNR over the best of the six in dB, SAM below it in per cent; None where it did not run."""
        row = self.rows.get(method)
        if row is None or row["psnr"] is None:
            return None
        return row["psnr"] - self.psnr[0], 100 * (1 - row["sam"] / self.sam[0])


def groups_of(rows: list[dict]) -> Iterator[Group]:
    """The rows pair by pair."""
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        found.setdefault((row["setting"], row["scene"], row["noise_seed"]), []).append(row)
    return map(Group, found.values())


def as_markdown(rows: list[dict], caption: str) -> str:
    """Per pair the best of the six and the margins over it; then per setting; then what was missed."""
    groups = list(groups_of(rows))
    judged = [m for m in dict.fromkeys(row["method"] for row in rows) if m not in SIX]
    judged.sort(key=lambda m: m != BASE)
    first = [g for g in groups if g.setting in ("as it is", "default")]
    parts = [f"{caption}\n\n## Scenes as they are and in the default setting", _per_pair(first, judged)]
    swept = [g for g in groups if g not in first]
    if swept:
        parts += ["## Mean margins by setting", _per_setting(first + swept, judged)]
    parts += ["## Bars", *(_bars(groups, first, method) for method in judged)]
    return "\n\n".join(parts) + "\n"


def _per_pair(groups: list[Group], judged: list[str]) -> str:
    head = ["scene", "best PSNR of the six", "best SAM", *judged, *(f"{m}: margins" for m in judged)]
    lines = [head, ["---"] * len(head)]
    for g in groups:
        line = [g.scene, f"{g.psnr[0]:.2f} {g.psnr[1]}", f"{g.sam[0]:.3f} {g.sam[1]}"]
        for method in judged:
            row = g.rows.get(method, {})
            line.append("-" if row.get("psnr") is None else f"{row['psnr']:.2f} / {row['sam']:.3f}")
        lines.append(line + [_margin(g.margins(m)) for m in judged])
    lines.append(["mean", "", "", *[""] * len(judged), *(_margin(_mean(groups, m)) for m in judged)])
    left = sorted(
        {
            f"{r['method']}, {r['scene']}: {r['failed']}"
            for g in groups
            for r in g.rows.values()
            if r["failed"]
        }
    )
    return _table(lines) + "".join(f"\n\n{sentence}" for sentence in left)


def _per_setting(groups: list[Group], judged: list[str]) -> str:
    head = ["setting", "scenes", *judged, *(f"{m}: least PSNR, least SAM margin" for m in judged)]
    lines = [head, ["---"] * len(head)]
    for setting in dict.fromkeys(g.setting for g in groups):
        these = [g for g in groups if g.setting == setting]
        lines.append([setting, str(len(these)), *(_margin(_mean(these, m)) for m in judged)])
        for method in judged:
            margins = [m for g in these if (m := g.margins(method))]
            lines[-1].append(_margin(tuple(np.min(margins, axis=0))) if margins else "-")
    return _table(lines)


def _bars(groups: list[Group], first: list[Group], method: str) -> str:
    ran = [(g, m) for g in groups if (m := g.margins(method))]
    if not ran:
        return f"**{method}** ran on no pair."
    own = [m for g, m in ran if g in first]
    both = sum(p >= PSNR_BAR and s >= SAM_BAR for p, s in own)
    text = (
        f"**{method}**: PSNR at least {PSNR_BAR:g} dB above the best of the six on "
        f"{sum(p >= PSNR_BAR for p, _ in own)} of {len(own)} scenes, SAM at least {SAM_BAR:g} % below on "
        f"{sum(s >= SAM_BAR for _, s in own)}, both on {both}. Worse than the best of the six by more than "
        f"{PSNR_NOISE:g} dB in PSNR on {sum(m[0] < -PSNR_NOISE for _, m in ran)} and by more than {SAM_NOISE:g} % in "
        f"SAM on {sum(m[1] < -SAM_NOISE for _, m in ran)} of {len(ran)} pairs."
    )
    aviris = [g for g, _ in ran if g in first and g.setting == "default" and g.area in AREAS]
    if aviris:
        psnr, sam = _mean(aviris, method)
        text += (
            f" AVIRIS scenes ({len(aviris)}) in the default setting: {psnr:+.3f} dB, {sam:+.2f} % on average."
        )
    if method != BASE:
        over = [_over(g.rows[method], g.rows[BASE]) for g, _ in ran if g.margins(BASE)]
        text += f" Over {BASE} on the same pairs: {_margin(tuple(np.mean(over, axis=0)))} on average."
    name, psnr, sam = PARIS
    for g, _ in ran:
        if g.scene.startswith(name):
            row = g.rows[method]
            met = "met" if row["psnr"] > psnr and row["sam"] < sam else "missed"
            text += (
                f" {g.scene}: {row['psnr']:.2f} dB, {row['sam']:.3f} deg; {psnr} dB and {sam} deg are {met}."
            )
    worse = [
        f"{g.scene} ({g.setting}) {_margin(m)}" for g, m in ran if m[0] < -PSNR_NOISE or m[1] < -SAM_NOISE
    ]
    return text + (f" Worse: {'; '.join(worse)}." if worse else "")


def _over(row: dict, other: dict) -> tuple[float, float]:
    return row["psnr"] - other["psnr"], 100 * (1 - row["sam"] / other["sam"])


def _mean(groups: list[Group], method: str) -> tuple[float, float] | None:
    margins = [m for g in groups if (m := g.margins(method))]
    return (
        (float(np.mean([m[0] for m in margins])), float(np.mean([m[1] for m in margins])))
        if margins
        else None
    )


def _margin(margin: tuple[float, float] | None) -> str:
    return "-" if margin is None else f"{margin[0]:+.2f} dB, {margin[1]:+.1f} %"


def _table(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(rows: list[dict]) -> bytes:
    """Mean margins over the best of the six by setting, a PNG; the lines end at the worst scene."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = list(groups_of(rows))
    judged = sorted({row["method"] for row in rows} - set(SIX), key=lambda m: m != "coupled-map")
    settings = list(dict.fromkeys(g.setting for g in groups))
    figure = Figure(figsize=(11, 1.6 + 0.42 * len(settings)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    titles = ("PSNR above the best of the six (dB)", "SAM below the best of the six (%)")
    for k, (ax, title, bar) in enumerate(
        zip(figure.subplots(1, 2, sharey=True), titles, (PSNR_BAR, SAM_BAR), strict=True)
    ):
        for j, method in enumerate(judged):
            for y, setting in enumerate(settings):
                values = [m[k] for g in groups if g.setting == setting and (m := g.margins(method))]
                if not values:
                    continue
                at, colour = y + 0.16 * (j - (len(judged) - 1) / 2), f"C{j}"
                label = method if y == 0 else None
                ax.plot([min(values), max(values)], [at, at], color=colour, lw=1, alpha=0.6)
                ax.plot(np.mean(values), at, "o", color=colour, ms=6, label=label)
        ax.axvline(0, color="black", lw=0.8)
        ax.axvline(bar, color="#555555", lw=1, ls=(0, (4, 3)))
        ax.set_title(title, loc="left", fontsize=10)
        ax.grid(axis="x", color="#ececec")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    ax.set_yticks(range(len(settings)), settings)
    ax.invert_yaxis()
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False)
    figure.suptitle(
        "Points: mean over scenes; lines: worst to best scene; dashed: the bar",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
