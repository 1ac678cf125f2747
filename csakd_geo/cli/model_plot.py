"""The picture of PSNR over time: models as bubbles whose area is their size, classical methods as rings."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csakd_geo.io.placing import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
_GREY = "#6b6b6b"
_LARGEST = 2600.0  # area of the largest bubble in points squared
_SMALLEST = 60.0
_RING = 46.0
_STEPS = (4, 12, 24, 40, 60, 85)  # points between a mark and its label


@dataclass(frozen=True, slots=True)
class Score:
    """Mean scores of one method: PSNR in dB and seconds per megapixel of the MSI."""

    method: str
    is_model: bool
    parameters: int | None
    psnr: float
    seconds: float


def draw_scores(scores: Sequence[Score], target: Path) -> None:
    """Draw PSNR over seconds per megapixel into a PNG file, replaced once the picture is whole.

    Raises
    ------
    OutputError
        The picture cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 6.2), dpi=130, layout="constrained", facecolor="white")
    ax = figure.subplots()
    ax.set_xscale("log")
    areas = _areas(scores)
    colours = itertools.cycle(_COLOURS)
    tints = [next(colours) if score.is_model else _GREY for score in scores]
    for score, area, tint in zip(scores, areas, tints, strict=True):
        face: Any = (tint, 0.35) if score.is_model else "white"
        ax.scatter(score.seconds, score.psnr, s=area, facecolor=face, edgecolor=tint, linewidth=1.5, zorder=3)
    _frame(ax, scores)
    figure.draw_without_rendering()  # the layout must stand before labels can be placed
    figure.set_layout_engine("none")
    _label(ax, scores, areas, tints)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_whole(target, buffer.getvalue())


def _areas(scores: Sequence[Score]) -> list[float]:
    """Areas in points squared, in proportion to the parameters but for very small networks."""
    most = max((score.parameters or 0 for score in scores if score.is_model), default=0) or 1
    return [
        max(_LARGEST * (score.parameters or 0) / most, _SMALLEST) if score.is_model else _RING
        for score in scores
    ]


def _frame(ax: Axes, scores: Sequence[Score]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    times, values = [score.seconds for score in scores], [score.psnr for score in scores]
    room = max(0.18 * math.log10(max(times) / min(times)), 0.25)
    ax.set_xlim(min(times) / 10**room, max(times) * 10**room)
    margin = max(0.16 * (max(values) - min(values)), 0.5)
    ax.set_ylim(min(values) - margin, max(values) + margin)
    few = math.log10(max(times) / min(times)) + 2 * room < 2
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("Seconds per megapixel")
    ax.set_ylabel("PSNR (dB)")
    ax.set_title("Quality and time", loc="left", fontweight="bold", fontsize=12)
    ax.set_title(
        "bubble area: parameters;  rings: classical methods;  upper left is best",
        loc="right",
        fontsize=9,
        color="#555555",
    )
    ax.grid(color="#e6e6e6", lw=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _label(ax: Axes, scores: Sequence[Score], areas: Sequence[float], tints: Sequence[str]) -> None:
    """Put each label where it covers neither a mark nor another label, the nearest such place."""
    from matplotlib.transforms import Bbox

    scale = ax.figure.dpi / 72
    centres = [ax.transData.transform((score.seconds, score.psnr)) for score in scores]
    radii = [math.sqrt(area / math.pi) * scale + 1 for area in areas]
    taken = [Bbox.from_extents(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    inside = ax.get_window_extent()
    order = sorted(range(len(scores)), key=lambda k: scores[k].is_model)
    for k in order:
        score, radius = scores[k], radii[k] / scale
        lines = [score.method] + ([_millions(score.parameters)] if score.parameters else [])
        note = ax.annotate(
            "\n".join(lines),
            (score.seconds, score.psnr),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=9.5 if score.is_model else 9,
            color="black" if score.is_model else _GREY,
            linespacing=1.15,
            zorder=5,
        )
        best: tuple[float, tuple[float, float], tuple[str, str], Bbox] | None = None
        for offset, (ha, va) in _places(radius):
            note.set(position=offset, ha=ha, va=va)
            box = note.get_window_extent()
            covered = sum(_shared(box, other) for other in taken) + _outside(box, inside)
            if best is None or covered < best[0]:
                best = (covered, offset, (ha, va), box)
            if covered == 0:
                break
        if best is None:
            continue
        _, offset, (ha, va), box = best
        note.set(position=offset, ha=ha, va=va)
        taken.append(box.padded(2))
        if math.hypot(*offset) > radius + _STEPS[1]:
            ax.annotate(
                "",
                (score.seconds, score.psnr),
                xytext=offset,
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": tints[k], "lw": 0.8, "shrinkB": radius},
                zorder=2,
            )


def _places(radius: float) -> Iterator[tuple[tuple[float, float], tuple[str, str]]]:
    """Offsets in points from near to far, right and left before above and below, with alignments."""
    for step in _STEPS:
        for angle in (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200):
            x, y = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            ha = "left" if x > 0.3 else "right" if x < -0.3 else "center"
            va = "bottom" if y > 0.5 else "top" if y < -0.5 else "center"
            yield ((radius + step) * x, (radius + step) * y), (ha, va)


def _shared(one: Bbox, other: Bbox) -> float:
    """Area that two boxes share."""
    width = float(min(one.x1, other.x1) - max(one.x0, other.x0))
    height = float(min(one.y1, other.y1) - max(one.y0, other.y0))
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: Bbox, frame: Bbox) -> float:
    return float(box.width * box.height - _shared(box, frame))


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.3g} M" if parameters >= 1e6 else f"{parameters / 1e3:.3g} k"
