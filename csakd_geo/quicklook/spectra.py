"""Three pixels whose spectra differ, and the panels that compare what each image says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import InputError
from csakd_geo.grid import pixel_mapping
from csakd_geo.io import Source
from csakd_geo.quicklook.view import Bands, Lattice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.floating]

#: A step in nm that is no neighbouring band any more, as at the water vapour bands.
_GAP = 25.0
_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7")  # Okabe and Ito: told apart by everyone
_GREY = "#7a7a7a"
_DASHES = (0, (4, 2))
#: Pixels per side and bands of the HSI that the choice looks at, at most.
_SIDE, _BANDS = 256, 40


@dataclass(frozen=True, slots=True)
class Spot:
    """A chosen pixel.

    Parameters
    ----------
    name, colour : str
    hsi_row, hsi_col : int
        Its pixel of the HSI.
    row, col : int
        The pixel of the fused image at the centre of that.
    """

    name: str
    colour: str
    hsi_row: int
    hsi_col: int
    row: int
    col: int


def choose_spots(hsi: Bands, fused: Bands) -> list[Spot]:
    """Up to three pixels of the HSI that the fused image covers, by the shape of their spectra.

    First the one nearest to the mean, then those that differ most from the ones before. The most different
    hundredth is passed over, because it is mostly noise; so are pixels darker than a quarter of the median and
    the outermost ones, where others are left.

    Raises
    ------
    InputError
        If no pixel has data in both.
    """
    a, b = hsi.source, fused.source
    lattice = Lattice.of(a, side=_SIDE)
    bands = np.unique(hsi.good[np.linspace(0, hsi.good.size - 1, _BANDS).astype(int)])
    x, y = np.meshgrid(lattice.cols, lattice.rows)
    col, row = (np.floor(c) for c in pixel_mapping(a, b)(x, y))
    spectra = lattice.pick(a, bands.tolist())
    norm = np.linalg.norm(spectra, axis=0)
    usable = np.isfinite(norm) & (norm > 0) & np.isfinite(lattice.pick(b, fused.good[:1].tolist())[0])
    if not usable.any():
        raise InputError(f"'{a.name}' and '{b.name}' share no pixel with data, so there is nothing to draw.")
    inner = (x > 1) & (x < a.width - 1) & (y > 1) & (y < a.height - 1)
    for wanted in (norm > np.median(norm[usable]) / 4, inner):
        if (usable & wanted).sum() >= len(_COLOURS):
            usable &= wanted
    shapes = spectra[:, usable].astype(np.float64)
    if bands.size == 1:  # one band has no shape: compare its brightness with the mean
        shapes = np.concatenate([shapes, np.full_like(shapes, shapes.mean())])
    shapes /= np.linalg.norm(shapes, axis=0)
    chosen = [int((shapes.mean(1) @ shapes).argmax())]
    while len(chosen) < min(len(_COLOURS), shapes.shape[1]):
        apart = np.arccos(np.clip(shapes[:, chosen].T @ shapes, -1, 1)).min(axis=0)
        apart[chosen] = -1
        order = np.argsort(apart, kind="stable")
        chosen.append(int(order[max(0, math.ceil(order.size * 0.99) - 1)]))
    places = zip(*(values[usable][chosen].astype(int).tolist() for values in (y, x, row, col)), strict=True)
    return [Spot(str(k + 1), _COLOURS[k], *place) for k, place in enumerate(places)]


def draw_spectra(
    axes: Sequence[Axes],
    spots: Sequence[Spot],
    captions: Sequence[str],
    *,
    hsi: Bands,
    msi: Bands,
    fused: Bands,
    truth: Bands | None,
) -> list[Any]:
    """Draw one panel per spot and return the handles of the legend.

    The MSI is drawn in its own values where both images name the same unit, else times one factor for all.
    """
    from matplotlib.lines import Line2D

    nm = fused.in_nm
    with_hsi = hsi.in_nm == nm and not (hsi.source.units and hsi.source.units != fused.source.units)
    centres = msi.source.axis.wavelength[msi.good]
    shown = msi.good[np.isfinite(centres)] if nm else msi.good[:0]
    curves = [spectrum_at(fused.source, fused.source, spot) for spot in spots]
    points = [spectrum_at(fused.source, msi.source, spot)[shown] for spot in spots]
    scaled = not (msi.source.units and msi.source.units == fused.source.units)
    gain = _gain(fused, curves, msi.source.axis.wavelength[shown], points) if scaled else 1.0
    for ax, spot, caption, curve, point in zip(axes, spots, captions, curves, points, strict=True):
        if with_hsi:
            values = hsi.source.read(spot.hsi_row, spot.hsi_col, 1, 1)[:, 0, 0]
            ax.plot(*broken_line(hsi, values, nm), color=_GREY, lw=1.2, zorder=2)
        ax.plot(*broken_line(fused, curve, nm), color=spot.colour, lw=2.2, zorder=3)
        if truth is not None and truth.in_nm == nm:
            values = spectrum_at(fused.source, truth.source, spot)
            ax.plot(*broken_line(truth, values, nm), color="black", lw=1.0, ls=_DASHES, zorder=4)
        if shown.size:
            ax.errorbar(
                msi.source.axis.wavelength[shown],
                point * gain,
                xerr=np.nan_to_num(msi.source.axis.filled_fwhm()[shown]) / 2,
                fmt="o",
                ms=6.5,
                mfc="white",
                mec="black",
                mew=1.3,
                ecolor="black",
                elinewidth=0.9,
                zorder=5,
            )
        _finish(ax, spot, caption, nm)
    axes[0].set_ylim(*_range([curve[fused.good] for curve in curves], [point * gain for point in points]))
    axes[0].set_ylabel(fused.source.units.capitalize() or "Value")
    handles = [Line2D([], [], color=_GREY, lw=1.3, label="HSI pixel around it")] if with_hsi else []
    handles.append(Line2D([], [], color=_COLOURS[0], lw=2.4, label="fused pixel (in the colour of its mark)"))
    if truth is not None and truth.in_nm == nm:
        handles.append(Line2D([], [], color="black", lw=1.0, ls=_DASHES, label="truth"))
    if shown.size:
        label = "MSI bands and their widths" + (" (times one factor)" if scaled else "")
        look: dict[str, Any] = {"marker": "o", "ms": 6.5, "mfc": "white", "mew": 1.3, "lw": 0.9}
        handles.append(Line2D([], [], color="black", label=label, **look))
    return handles


def spectrum_at(fused: Source, source: Source, spot: Spot) -> FloatArray:
    """Spectrum ``(band,)`` of an image at the spot's fused pixel, NaN outside it."""
    u, v = pixel_mapping(fused, source)(np.array([spot.col + 0.5]), np.array([spot.row + 0.5]))
    col, row = math.floor(u[0]), math.floor(v[0])
    if not (0 <= col < source.width and 0 <= row < source.height):
        return np.full(source.axis.size, np.nan, np.float32)
    return source.read(row, col, 1, 1)[:, 0, 0]


def broken_line(bands: Bands, values: FloatArray, nm: bool) -> tuple[FloatArray, FloatArray]:
    """Abscissa and values of the usable bands, with NaN wherever the line must break."""
    x = bands.source.axis.wavelength[bands.good] if nm else bands.good + 1.0
    steps = np.diff(x)
    limit = max(_GAP, 2.5 * float(np.median(steps)) if steps.size else 0.0) if nm else 1.5
    breaks = np.flatnonzero(steps > limit) + 1
    return np.insert(x, breaks, np.nan), np.insert(values[bands.good].astype(np.float64), breaks, np.nan)


def _range(curves: Sequence[FloatArray], points: Sequence[FloatArray]) -> tuple[float, float]:
    """Lower and upper end of the ordinate; a few bands that stick out, as beside water vapour, do not count."""
    ends = [np.nanpercentile(c, (1, 99)) for c in curves if np.isfinite(c).any()]
    known = np.concatenate([*ends, *(p[np.isfinite(p)] for p in points), [0.0]])
    low, high = float(known.min()), float(known.max())
    room = 0.08 * (high - low) or 1.0
    return low - room / 2, high + room


def _gain(
    fused: Bands, curves: Sequence[FloatArray], centres: FloatArray, points: Sequence[FloatArray]
) -> float:
    """Factor that brings MSI values nearest to the spectra, by least squares over all spots."""
    above = below = 0.0
    for curve, point in zip(curves, points, strict=True):
        expected = np.interp(centres, fused.source.axis.wavelength[fused.good], curve[fused.good])
        both = np.isfinite(expected) & np.isfinite(point)
        above += float((expected * point)[both].sum())
        below += float(np.square(point)[both].sum())
    return above / below if above > 0 and below > 0 else 1.0


def _finish(ax: Axes, spot: Spot, caption: str, nm: bool) -> None:
    ax.set_title(f"     Pixel {spot.name}", loc="left", fontweight="bold", fontsize=12)
    ax.set_title(caption, loc="right", fontsize=9, color="#555555")
    ax.plot(0.012, 1.045, "o", ms=10, color=spot.colour, transform=ax.transAxes, clip_on=False)
    ax.set_xlabel("Wavelength (nm)" if nm else "Band")
    ax.grid(color="#e6e6e6", lw=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
