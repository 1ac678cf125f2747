"""One picture of a fusion: both inputs, the result, its error or a false colour, and three spectra."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import OutputError
from csakd_geo.io import Source
from csakd_geo.io.placing import write_whole
from csakd_geo.quicklook.spectra import Spot, choose_spots, draw_spectra
from csakd_geo.quicklook.view import (
    FALSE_COLOUR,
    TRUE_COLOUR,
    Bands,
    Extent,
    Lattice,
    is_metre,
    limits,
    rgba,
    spectral_angles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_quicklook"]

FloatArray = NDArray[np.floating]

_WIDTH, _DPI = 18.0, 150
_GREY = "#555555"


def draw_quicklook(
    target: Path,
    *,
    hsi: Source,
    msi: Source,
    fused: Source,
    truth: Source | None = None,
    title: str = "",
) -> None:
    """Draw inputs, result and spectra into one PNG.

    All images are shown on the fused image's pixels (every n-th one where it has more than 1000 per side),
    HSI, fused and truth with one stretch. With a truth, it and the spectral angle between it and the fused
    image are shown, else a false colour. Three pixels are chosen that differ in the shape of their spectra;
    the choice depends on the images only. Bad bands and atmospheric windows interrupt the lines.

    Parameters
    ----------
    target : Path
        A ``.png`` file; replaced if it exists, once the picture is whole.
    hsi, msi, fused : Source
    truth : Source, optional
        Over its whole area all its bands are read, in strips.
    title : str, optional
        By default the name of the fused image.

    Raises
    ------
    InputError
        If an image cannot be read, has no usable band, or no pixel of the HSI has data in the fused image.
    SpectralError
        If the bands of fused image and truth do not match.
    OutputError
        If the picture cannot be written.
    """
    from matplotlib.figure import Figure

    target = Path(target)
    if target.is_dir():
        raise OutputError(f"'{target}' is a folder; give the name of a PNG file.")
    ours, coarse, sharp = Bands.of(fused), Bands.of(hsi), Bands.of(msi)
    reference = None if truth is None else Bands.of(truth)
    spots = choose_spots(coarse, ours)
    lattice = Lattice.of(fused)
    extent, labels = lattice.extent()

    panels = 4 if reference is None else 5
    aspect = float(np.clip(lattice.rows.size / lattice.cols.size, 0.35, 2.0))
    heights = [(_WIDTH - 1.5) / panels * aspect + 1.2, 4.2]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.4), dpi=_DPI, layout="constrained", facecolor="white")
    above, below = np.ravel(np.array(figure.subfigures(2, 1, height_ratios=heights, hspace=0.02)))
    axes = above.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0]

    bands, caption = ours.composite(TRUE_COLOUR)
    image = lattice.pick(fused, bands)
    common = limits(image)

    def show(ax: Axes, heading: str, source: Bands, *, alike: bool) -> None:
        """Draw a composite, stretched as the fused image's where it is of the same kind."""
        other, text = source.composite(TRUE_COLOUR)
        seen = lattice.pick(source.source, other)
        alike &= len(other) == len(bands) and source.source.units == fused.units
        ax.imshow(rgba(seen, common if alike else limits(seen)), extent=extent, interpolation="nearest")
        _head(ax, f"{heading}  {_facts(source.source)}", text)

    show(axes[0], "HSI", coarse, alike=True)
    show(axes[1], "MSI", sharp, alike=False)
    axes[2].imshow(rgba(image, common), extent=extent, interpolation="nearest")
    _head(axes[2], f"Fused  {_facts(fused)}", caption)
    if reference is None:
        bands, caption = ours.composite(FALSE_COLOUR, places=(0.9, 0.4, 0.1))
        image = lattice.pick(fused, bands)
        axes[3].imshow(rgba(image, limits(image)), extent=extent, interpolation="nearest")
        _head(axes[3], "Fused, false colour", caption)
    else:
        show(axes[3], "Truth", reference, alike=True)
        _draw_angles(above, axes[4], spectral_angles(lattice, ours, reference), extent)
    for ax in axes:
        _finish_map(ax, spots, lattice, extent)
        ax.set_xlabel(labels[0])
    axes[0].set_ylabel(labels[1])

    unit = labels[0].partition("(")[2].rstrip(")")
    places = [_place(spot, lattice, extent) for spot in spots]
    captions = [f"at {x:.6g}, {y:.7g} {unit}".rstrip() for x, y in places]
    lower = below.subplots(1, len(spots), sharey=True, squeeze=False)[0]
    handles = draw_spectra(lower, spots, captions, hsi=coarse, msi=sharp, fused=ours, truth=reference)
    below.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=10.5
    )
    figure.suptitle(title or fused.name, x=0.008, ha="left", fontsize=15, fontweight="bold")
    _save(figure, target)


def _save(figure: Any, target: Path) -> None:
    """Write the whole picture beside its target, then rename it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_whole(target, buffer.getvalue())


def _draw_angles(figure: Any, ax: Axes, angles: FloatArray, extent: Extent) -> None:
    known = angles[np.isfinite(angles)]
    top = max(float(np.percentile(known, 99)), 1e-3) if known.size else 1.0
    drawn = ax.imshow(angles, extent=extent, interpolation="nearest", cmap="inferno", vmin=0, vmax=top)
    bar = figure.colorbar(drawn, cax=ax.inset_axes((1.03, 0.0, 0.045, 1.0)), extend="max")
    bar.set_label("degrees")
    bar.outline.set_visible(False)
    mean = f"mean {known.mean():.2f}°" if known.size else "no pixel with data in both"
    _head(ax, "Spectral angle", f"fused to truth, {mean}")


def _head(ax: Axes, heading: str, text: str) -> None:
    ax.set_title(heading, loc="left", fontweight="bold", fontsize=12, pad=20)
    ax.text(0, 1.015, text, transform=ax.transAxes, fontsize=9.5, color=_GREY, va="bottom")


def _place(spot: Spot, lattice: Lattice, extent: Extent) -> tuple[float, float]:
    """A spot's coordinates on the axes of a map."""
    left, right, bottom, top = extent
    width, height = lattice.cols.size * lattice.step, lattice.rows.size * lattice.step
    return (
        left + (spot.col + 0.5) / width * (right - left),
        top + (spot.row + 0.5) / height * (bottom - top),
    )


def _finish_map(ax: Axes, spots: Sequence[Spot], lattice: Lattice, extent: Extent) -> None:
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    for spot in spots:
        x, y = _place(spot, lattice, extent)
        ax.plot(x, y, "o", ms=9, mfc="none", mec="black", mew=3.8)
        ax.plot(x, y, "o", ms=9, mfc="none", mec=spot.colour, mew=2.2)
        ax.annotate(
            spot.name,
            (x, y),
            xytext=(8, 5),
            textcoords="offset points",
            color=spot.colour,
            fontsize=13,
            fontweight="bold",
            path_effects=[withStroke(linewidth=3, foreground="black")],
        )
    ax.set_facecolor("#e4e4e4")
    ax.set_xlim(extent[0], extent[1])
    ax.set_ylim(extent[2], extent[3])
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        plain = ScalarFormatter(useOffset=False)
        plain.set_scientific(False)
        axis.set_major_formatter(plain)
    ax.tick_params(labelsize=9, length=3)


def _facts(source: Source) -> str:
    """Pixel size and number of bands, short."""
    t = source.transform
    size = f"{math.hypot(t.a, t.d):.4g}"
    if source.crs is not None:
        unit = source.crs.units_factor[0]
        size += " m" if is_metre(unit) else f" {unit}"
    return f"{size}, {source.axis.size} band{'s' if source.axis.size > 1 else ''}"
