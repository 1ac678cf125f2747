"""The picture of ``csakd-geo compare``: both inputs and every method in true colour, and two spectra."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.quicklook.spectra import broken_line, spectrum_at
from csakd_geo.quicklook.view import TRUE_COLOUR, Bands, Lattice, limits, rgba

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from csakd_geo.compare import Candidate, Comparison
    from csakd_geo.quicklook.spectra import Spot

FloatArray = NDArray[np.floating]

# Okabe and Ito without yellow, which white drowns; then greys
_COLOURS = ("#999999", "#56B4E9", "#0072B2", "#CC79A7", "#E69F00", "#009E73", "#D55E00", "#000000")
_COLUMNS, _SIDE, _DPI = 5, 3.1, 130
_GREY = "#555555"


def draw_comparison(found: Comparison) -> bytes:
    """Draw inputs, all methods, and the spectra of two pixels.

    HSI and methods share one stretch. The window has every pixel of it drawn.

    Parameters
    ----------
    found : Comparison

    Returns
    -------
    bytes
        A PNG.
    """
    from matplotlib.figure import Figure

    lattice = Lattice.of(found.fused)
    panels = 2 + len(found.candidates)
    rows = -(-panels // _COLUMNS)
    aspect = float(np.clip(lattice.rows.size / lattice.cols.size, 0.35, 2.0))
    heights = [rows * (_SIDE * aspect + 0.85), 4.8]
    figure = Figure(
        figsize=(_COLUMNS * _SIDE, sum(heights)), dpi=_DPI, layout="constrained", facecolor="white"
    )
    above, below = np.ravel(np.array(figure.subfigures(2, 1, height_ratios=heights, hspace=0.02)))
    axes = above.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for ax in axes[panels:]:
        ax.set_visible(False)

    hsi, msi = Bands.of(found.hsi), Bands.of(found.msi)
    for ax, bands, title in ((axes[0], hsi, "HSI"), (axes[1], msi, "MSI")):
        chosen, caption = bands.composite(TRUE_COLOUR)
        seen = lattice.pick(bands.source, chosen)
        if title == "HSI":
            common = limits(seen)
        _show(ax, seen, limits(seen), title, caption, found.spots, lattice.step)
    for ax, candidate in zip(axes[2:], found.candidates, strict=False):
        image = candidate.image[:, :: lattice.step, :: lattice.step]
        _show(ax, image, common, candidate.name, _words(candidate), found.spots, lattice.step)

    lower = below.subplots(2, len(found.spots), sharex=True, squeeze=False, height_ratios=(1.6, 1))
    for k, spot in enumerate(found.spots):
        _spectra(lower[:, k], found, hsi, k, spot)
    figure.suptitle(
        f"{found.hsi.name} and {found.msi.name}, {found.fused.width} x {found.fused.height} pixels",
        x=0.008,
        ha="left",
        fontsize=12,
    )
    handles, labels = lower[0, 0].get_legend_handles_labels()
    below.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _words(candidate: Candidate) -> str:
    """The scores under a panel's name that are to be trusted."""
    over = candidate.scores["hsi_over_noise"]
    parts = [f"PSNR {candidate.held_out['psnr']:.2f} dB"] if candidate.held_out else []
    parts += [] if over is None else [f"{over:.2f} of the noise"]
    return ", ".join([*parts, f"{candidate.megapixel_seconds:.1f} s/Mpx"])


def _show(
    ax: Axes,
    image: FloatArray,
    stretch: FloatArray,
    title: str,
    text: str,
    spots: tuple[Spot, ...],
    step: int,
) -> None:
    ax.imshow(rgba(image, stretch), interpolation="nearest")
    ax.set_title(title, loc="left", fontweight="bold", fontsize=10, pad=16)
    ax.text(0, 1.02, text, transform=ax.transAxes, fontsize=8, color=_GREY, va="bottom")
    for spot in spots:
        place = spot.col / step, spot.row / step
        ax.plot(*place, "o", ms=8, mfc="none", mec="black", mew=2.8)
        ax.plot(*place, "o", ms=8, mfc="none", mec=spot.colour, mew=1.6)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_facecolor("#e4e4e4")


def _spectra(axes: Sequence[Axes], found: Comparison, hsi: Bands, k: int, spot: Spot) -> None:
    """All methods' spectra of one pixel with the HSI pixel around it, and below how they differ."""
    around = spectrum_at(found.fused, found.hsi, spot)
    spectra = np.stack([candidate.spectra[k] for candidate in found.candidates])
    middle = np.median(spectra, axis=0)
    dashed: dict[str, Any] = {"color": "black", "lw": 0.9, "ls": (0, (2, 2)), "zorder": 9}
    axes[0].plot(*broken_line(hsi, around, hsi.in_nm), label="HSI pixel around it", **dashed)
    for candidate, spectrum, colour in zip(found.candidates, spectra, cycle(_COLOURS), strict=False):
        axes[0].plot(*broken_line(hsi, spectrum, hsi.in_nm), color=colour, lw=1.2, label=candidate.name)
        axes[1].plot(*broken_line(hsi, spectrum - middle, hsi.in_nm), color=colour, lw=1.0)
    _limit(axes[0], spectra[:, hsi.good], zero=True)
    _limit(axes[1], (spectra - middle)[:, hsi.good], zero=False)
    axes[0].plot(0.012, 1.09, "o", ms=8, color=spot.colour, transform=axes[0].transAxes, clip_on=False)
    axes[0].set_title(f"     Pixel {spot.name}", loc="left", fontweight="bold", fontsize=10)
    axes[1].set_xlabel("Wavelength (nm)" if hsi.in_nm else "Band", fontsize=9)
    if k == 0:
        axes[0].set_ylabel(found.hsi.units.capitalize() or "Value", fontsize=9)
        axes[1].set_ylabel("less their\nmedian", fontsize=9)
    for ax in axes:
        ax.tick_params(labelsize=8)
        ax.grid(color="#e6e6e6", lw=0.7)
        ax.spines[["top", "right"]].set_visible(False)


def _limit(ax: Axes, values: FloatArray, *, zero: bool) -> None:
    """An ordinate for nearly all of some values; a few bands that stick out do not count."""
    known = values[np.isfinite(values)]
    if known.size:
        low, high = (float(v) for v in np.percentile(known, (0.5, 99.5)))
        room = 0.08 * (high - low) or 1.0
        ax.set_ylim((min(0.0, low) if zero else low) - room, high + room)
