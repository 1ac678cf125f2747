"""PSNR and SAM against what was swept: models in colour, classical methods behind them in grey."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Literal

from csakd_geo.trial.run import ATTENTION_OFF, Row
from csakd_geo.trial.tables import mean_rows

FUSERS = ("sum", "learned weights", "cross attention", "CSA", "pixel gates")
"""Names of the fusers by number."""
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (2, 1.5)))
_MARKS = "osD^vPX"
_GREYS = ("#8c8c8c", "#b9b9b9")
_AXES = {"snr": "SNR of the HSI (dB)", "shift": "HSI misregistered by (MSI pixels)"}
_SCORES = (("psnr", "PSNR (dB)", "higher is better"), ("sam", "SAM (degrees)", "lower is better"))
#: Share of the whole ordinate above which there is nothing to enlarge.
_WORTH = 0.5
_LEGEND: dict[str, Any] = {
    "frameon": False,
    "alignment": "left",
    "fontsize": 10,
    "handlelength": 3.2,
    "title_fontproperties": {"weight": "bold"},
}


def draw_sweep(rows: Sequence[Row], swept: Literal["snr", "shift"], *, caption: str) -> bytes:
    """A PNG of the means over the scenes.

    Parameters
    ----------
    rows : sequence of Row
    swept : {"snr", "shift"}
        Rows without a value for it are left out.
    caption : str
        What was done, drawn below the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    means = [row for row in mean_rows(rows) if getattr(row, swept) is not None and row.psnr is not None]
    models = list(dict.fromkeys(row.method for row in means if row.kind == "model"))
    classical = list(dict.fromkeys(row.method for row in means if row.kind == "classical"))
    shown = {score: _enlarged(means, score) for score, *_ in _SCORES}
    enlarge = any(_span(values) < _WORTH * _span(_finite(means, score)) for score, values in shown.items())
    figure = Figure(figsize=(12, 9.2 if enlarge else 5.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    handles: dict[str, Any] = {}
    for k, ax in enumerate(figure.subplots(2 if enlarge else 1, 2).flat):
        score, title, better = _SCORES[k % 2]
        for name in (*classical, *models):
            line = [row for row in means if row.method == name and math.isfinite(getattr(row, score))]
            x, y = [getattr(row, swept) for row in line], [getattr(row, score) for row in line]
            style = _of_model(name, models) if name in models else _of_classical(classical.index(name))
            handles[name] = ax.plot(x, y, label=_label(name, means), **style)[0]
        if k > 1:
            low, room = min(shown[score]), 0.08 * _span(shown[score]) or 0.5
            ax.set_ylim(low - room, max(shown[score]) + room)
            title, better = f"{title}: models and the best classical method", "enlarged"
        ax.set_xlabel(_AXES[swept])
        ax.set_xticks(sorted({getattr(row, swept) for row in means}))
        ax.set_title(title, loc="left", fontweight="bold", fontsize=11)
        ax.set_title(better, loc="right", fontsize=9, color="#555555")
        ax.grid(color="#ececec", lw=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    places = (("Models", models, "outside lower left", 1), ("Classical", classical, "outside lower right", 3))
    for heading, names, place, columns in places:
        look: dict[str, Any] = {"loc": place, "ncols": columns, "title": heading, **_LEGEND}
        figure.legend(handles=[handles[name] for name in names], **look)
    figure.suptitle(caption, x=0.008, ha="left", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _of_model(name: str, models: Sequence[str]) -> dict[str, Any]:
    """A colour per model; the same model without attention has the same colour and is dashed."""
    owner = name.removesuffix(ATTENTION_OFF)
    whole = [model for model in models if not model.endswith(ATTENTION_OFF)]
    k = whole.index(owner) if owner in whole else len(whole)
    off = name != owner
    return {
        "color": _COLOURS[k % len(_COLOURS)],
        "ls": (0, (3, 1.5)) if off else "-",
        "lw": 2.0 if off else 2.6,
        "marker": _MARKS[k % len(_MARKS)],
        "ms": 7,
        "mfc": "white" if off else _COLOURS[k % len(_COLOURS)],
        "zorder": 4,
    }


def _of_classical(k: int) -> dict[str, Any]:
    return {
        "color": _GREYS[k % len(_GREYS)],
        "ls": _DASHES[k % len(_DASHES)],
        "lw": 1.1,
        "marker": _MARKS[k % len(_MARKS)],
        "ms": 4,
        "mfc": "white",
        "zorder": 2,
    }


def _label(name: str, means: Sequence[Row]) -> str:
    row = next(row for row in means if row.method == name)
    if row.fuser is None:
        return name
    owner = name.removesuffix(ATTENTION_OFF)
    released = " as released" if row.attention == "released" else ""
    return f"{owner} ({FUSERS[row.fuser]}{released}){name.removeprefix(owner)}"


def _enlarged(means: Sequence[Row], score: str) -> list[float]:
    """Values of the models, and of the classical method that is best on the whole."""
    own = _finite([row for row in means if row.kind == "model"], score)
    lines = {row.method: _finite([r for r in means if r.method == row.method], score) for row in means}
    lines = {row.method: lines[row.method] for row in means if row.kind == "classical" and lines[row.method]}
    if not lines:
        return own or [0.0]
    best = (max if score == "psnr" else min)(lines.values(), key=lambda line: sum(line) / len(line))
    return own + best


def _finite(rows: Sequence[Row], score: str) -> list[float]:
    return [value for row in rows if math.isfinite(value := getattr(row, score))]


def _span(values: Sequence[float]) -> float:
    return max(values, default=0.0) - min(values, default=0.0)
