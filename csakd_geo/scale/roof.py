"""Time and money for any number of workers, and what binds first.

A roofline: each resource alone would take some time, and the run takes the longest of these times. Each scene is
fused on its own: one process fits it and writes the product, its super-tiles go to any worker.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csakd_geo.budget import spell_bytes, spell_seconds
from csakd_geo.errors import InputError, OutputError
from csakd_geo.scale.work import Work

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORKERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_WALLS = ("read", "write", "scheduler", "one scene")  # that more workers do not move

#: Million km2 of land with islands, rounded: the figures of any atlas.
AREAS = {
    "africa": 30.4,
    "asia": 44.6,
    "europe": 10.2,
    "north-america": 24.7,
    "south-america": 17.8,
    "oceania": 8.5,
}
#: km2 per tile of the Sentinel-2 grid. ESA's grid has 56,686 tiles (as counted by the npm package
#: sentinel-2-grid) over MGRS's bands C to X, 80 S to 84 N, which is 99 % of the Earth's 510.1 million km2.
#: A tile covers (109.8 km)^2 = 12,056 km2, so each place is seen 1.35 times, at borders of UTM zones most.
KM2_PER_TILE = 0.99 * 510.1e6 / 56_686


def tiles_of(continent: str) -> int:
    """Sentinel-2 tiles of a continent, from its area; coasts add some 10 % that are mostly sea.

    Raises
    ------
    InputError
    """
    if continent not in AREAS:
        raise InputError(
            f"'{continent}' is no continent; expected one of {', '.join(AREAS)}, or give --tiles."
        )
    return round(AREAS[continent] * 1e6 / KM2_PER_TILE)


@dataclass(frozen=True, slots=True)
class Means:
    """What there is, and its price.

    Parameters
    ----------
    read, write : float
        Bytes per second that the store gives to and takes from all workers together.
    memory, disk : float
        Bytes of memory per worker, and of working space.
    task : float
        Seconds of the scheduler per task: Dask's documentation says 200 us on threads, 1 ms on a cluster.
    core_hour : float
        Price of a worker, one core, for an hour.
    gigabyte : float
        Price of keeping one for a month.
    """

    read: float = 2e9
    write: float = 1e9
    memory: float = 4e9
    disk: float = 250e9
    task: float = 1e-3
    core_hour: float = 0.05
    gigabyte: float = 0.02


@dataclass(frozen=True, slots=True)
class Point:
    """A run with so many workers: what each resource alone would take, in seconds."""

    workers: int
    times: dict[str, float]
    core_hour: float

    @property
    def bound(self) -> str:
        """What binds."""
        return max(self.times, key=lambda name: self.times[name])

    @property
    def seconds(self) -> float:
        """Wall time."""
        return self.times[self.bound]

    @property
    def price(self) -> float:
        """Of all workers until the end, whether they work or wait."""
        return self.workers * self.seconds / 3600 * self.core_hour


def scale(work: Work, means: Means, *, scenes: int, workers: Iterable[int] = WORKERS) -> list[Point]:
    """What a run over many scenes takes with so many workers.

    Parameters
    ----------
    work : Work
        Of one scene.
    means : Means
    scenes : int
    workers : iterable of int

    Returns
    -------
    list of Point
        Their times: ``compute`` (called ``memory`` where a worker has less of it than it needs, and neighbours
        stand idle for it), ``one scene`` (all are under way, and each has parts that only one process can do),
        ``disk`` (no room for more at once), ``read``, ``write``, ``scheduler``.
    """
    found = []
    for count in workers:
        share = 1.0 if work.memory is None else min(1.0, means.memory / work.memory)
        serial = work.fit + work.write + work.fuse / work.tasks
        at_once = min(scenes, math.floor(count * means.disk / work.disk))
        times = {
            "compute" if share == 1.0 else "memory": scenes
            * (work.fit + work.fuse + work.write)
            / max(1e-9, count * share),
            "one scene": serial,
            "disk": scenes * serial / at_once if at_once else math.inf,
            "read": scenes * work.read / means.read,
            "write": scenes * work.written / means.write,
            "scheduler": scenes * (work.tasks + 1) * means.task,
        }
        found.append(Point(count, times, means.core_hour))
    return found


def verdict(points: Sequence[Point], work: Work, means: Means, *, scenes: int) -> str:
    """What binds first, from how many workers on what does not grow with them, and what storage costs."""
    walls = {name: points[0].times[name] for name in _WALLS}
    wall = max(walls, key=lambda name: walls[name])
    found = [p for p in points if math.isfinite(p.seconds)]
    if not found:
        words = f"disk binds: one scene needs {spell_bytes(work.disk)}"
    elif found[0].bound == wall:
        words = f"{wall} binds at once"
    else:
        first = found[0]
        knee = first.workers * first.seconds / walls[wall]
        words = f"{first.bound} binds first; from about {knee:,.0f} workers on {wall} does, however many there are"
    kept = scenes * work.written / 1e9
    return (
        f"{words[0].upper()}{words[1:]}. Keeping {kept / 1e3:,.1f} TB of products costs "
        f"{kept * means.gigabyte:,.0f} a month."
    )


def table(points: Sequence[Point]) -> str:
    """Markdown: a row per number of workers."""
    rows = ["| workers | time | core-hours | price | what binds |", "|---:|---:|---:|---:|---|"]
    for p in points:
        if math.isinf(p.seconds):
            rows.append(f"| {p.workers} | - | - | - | {p.bound}: no room for one scene |")
            continue
        hours = p.workers * p.seconds / 3600
        rows.append(f"| {p.workers} | {_spell(p.seconds)} | {hours:,.0f} | {p.price:,.0f} | {p.bound} |")
    return "\n".join(rows)


def _spell(seconds: float) -> str:
    return (
        f"{seconds / 86400:,.1f} d" if seconds >= 172_800 else spell_seconds(seconds).removeprefix("about ")
    )


def draw(points: Sequence[Point], target: Path, *, title: str) -> None:
    """Draw time and price over the number of workers, both axes logarithmic; a PNG, replaced if it exists.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), dpi=120, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    workers = [p.workers for p in points]
    for k, name in enumerate(points[0].times):
        left.plot(workers, [p.times[name] for p in points], color=f"C{k}", lw=1.4, label=f"{name} alone")
    left.plot(workers, [p.seconds for p in points], color="black", lw=3.5, alpha=0.35, label="the run")
    right.plot(workers, [p.price for p in points], color="black", lw=2, marker="o", ms=4)
    right.set_ylim(bottom=0)
    _finish(left, "wall time")
    _finish(right, "price of the workers")
    left.set_yscale("log")
    ticks = {"1 min": 60, "1 h": 3600, "1 day": 86400, "1 month": 2.6e6, "1 year": 3.15e7, "10 years": 3.15e8}
    low, high = left.get_ylim()
    shown = {name: value for name, value in ticks.items() if low <= value <= high}
    left.set_yticks(list(shown.values()), list(shown))
    left.yaxis.minorticks_off()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        figure.savefig(staged, format="png")
        os.replace(staged, target)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise OutputError(f"The picture '{target}' cannot be written ({error}).") from error


def _finish(axes: Axes, label: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("workers of one core")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
