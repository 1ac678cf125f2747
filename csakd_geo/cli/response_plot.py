"""The picture of ``csakd-geo response``: responses found and nominal, the footprint, the HSI's noise."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from csakd_geo.cli.response import Linked

_FOUND, _NOMINAL, _GREY = "#0072B2", "#D55E00", "#6b6b6b"
_GAP = 3.0  # times the usual step between bands: the line is broken there


def draw_response(linked: Linked) -> bytes:
    """Draw what was found in a pair against what is nominal.

    Returns
    -------
    bytes
        A PNG.
    """
    from matplotlib.figure import Figure

    count = linked.msi.size
    columns = 1 if count < 4 else 2
    rows = -(-count // columns)
    height = max(5.6, 1.35 * rows + 1.4)
    figure = Figure(figsize=(5.0 + 3.4 * columns, height), dpi=120, layout="constrained", facecolor="white")
    halves = figure.add_gridspec(1, 2, width_ratios=[1.7 * columns, 2.2])
    left, right = figure.add_subfigure(halves[0, 0]), figure.add_subfigure(halves[0, 1])
    axes = left.subplots(rows, columns, sharex=True, squeeze=False)
    for k in range(rows * columns):
        ax = axes[k % rows, k // rows]
        if k < count:
            _draw_band(ax, linked, k)
        else:
            ax.set_visible(False)
    known = linked.hsi.has_wavelengths
    left.supxlabel("wavelength, nm" if known else "HSI band", fontsize=9)
    title = "Spectral response of each MSI band,\ntimes the HSI's mean signal"
    left.suptitle(title, fontsize=11, x=0.01, ha="left", fontweight="bold")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if len(handles) > 1:
        axes[0, 0].legend(handles, labels, fontsize=7, frameon=False, loc="upper right")
    top, bottom = right.subplots(2, 1, height_ratios=[1.25, 1])
    _draw_footprint(top, linked)
    _draw_noise(bottom, linked)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _axis(linked: Linked) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Where each band is drawn, and the bands in that order."""
    if not linked.hsi.has_wavelengths:
        return np.arange(linked.hsi.size) + 1.0, np.arange(linked.hsi.size)
    return linked.hsi.wavelength, np.argsort(linked.hsi.wavelength, kind="stable")


def _broken(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The curve with a hole where bands are missing."""
    steps = np.diff(x)
    gaps = np.flatnonzero(steps > _GAP * np.median(steps)) + 1
    return np.insert(x, gaps, np.nan), np.insert(y.astype(float), gaps, np.nan)


def _draw_band(ax: Axes, linked: Linked, k: int) -> None:
    x, order = _axis(linked)
    got = linked.alignment.response
    signal = linked.signal
    curve = (got.srf[k] * signal)[order]
    at, values = _broken(x[order], curve / max(float(curve.max()), 1e-12))
    ax.fill_between(at, values, color=_FOUND, alpha=0.3, linewidth=0)
    ax.plot(at, values, color=_FOUND, linewidth=1.2, label="found")
    nominal = (linked.nominal[k] * signal)[order]
    if np.isfinite(nominal).all():
        at, values = _broken(x[order], nominal / nominal.max())
        ax.plot(at, values, color=_NOMINAL, linewidth=1.2, linestyle="--", label="nominal")
    ax.set_ylim(0, 1.12)
    ax.set_yticks([])
    ax.spines[["top", "left", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.set_title(
        f"{linked.msi.names[k]}   gain {got.gain[k]:.3g}, offset {got.offset[k]:.3g}, misfit {got.misfit[k]:.2g}",
        fontsize=8,
        loc="left",
        pad=2,
    )


def _draw_footprint(ax: Axes, linked: Linked) -> None:
    """The HSI pixel that the file states, and where it was found to look."""
    from matplotlib.patches import Circle, Rectangle

    found, psf = linked.alignment, linked.alignment.response.psf
    r, grid = psf.ratio, linked.alignment.scene.grid
    dx, dy = found.pixels
    if found.shift == (0.0, 0.0):
        dx, dy = (psf.dx - grid.phase_x) / r, (psf.dy - grid.phase_y) / r
    radius = psf.fwhm / r / 2
    reach = max(1.0, max(abs(dx), abs(dy)) + radius + 0.25)
    if reach * r <= 24:
        edges = np.arange(-math.ceil(reach * r) - r % 2, math.ceil(reach * r) + 2) / r + (r % 2) / (2 * r)
        for edge in edges:
            ax.axhline(edge, color="#e4e4e4", linewidth=0.6, zorder=0)
            ax.axvline(edge, color="#e4e4e4", linewidth=0.6, zorder=0)
    ax.add_patch(
        Rectangle(
            (-0.5, -0.5),
            1,
            1,
            fill=False,
            edgecolor=_NOMINAL,
            linestyle="--",
            linewidth=1.4,
            label="HSI pixel, as filed",
        )
    )
    ax.add_patch(Circle((dx, dy), radius, facecolor=_FOUND, alpha=0.3, linewidth=0))
    ax.add_patch(
        Circle(
            (dx, dy),
            radius,
            fill=False,
            edgecolor=_FOUND,
            linewidth=1.4,
            label="half-height of the PSF, found",
        )
    )
    ax.plot([0], [0], "+", color=_NOMINAL, markersize=8)
    ax.plot([dx], [dy], "+", color=_FOUND, markersize=8)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(reach, -reach)
    ax.set_aspect("equal")
    ax.tick_params(labelsize=8)
    ax.set_xlabel("HSI pixels to the right", fontsize=8)
    ax.set_ylabel("HSI pixels down", fontsize=8)
    ax.set_title(
        f"PSF: FWHM {psf.fwhm / r:.2f} HSI pixels,\noff by x {dx:+.2f}, y {dy:+.2f}",
        fontsize=9,
        loc="left",
        fontweight="bold",
    )
    ax.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _draw_noise(ax: Axes, linked: Linked) -> None:
    """Signal to noise of the HSI's bands in dB."""
    x, order = _axis(linked)
    spectra = linked.alignment.pair.hsi_spectra()
    power = np.square(spectra).mean(1)
    ratio = 10 * np.log10(np.maximum(power, 1e-30) / np.square(linked.alignment.response.noise))
    ax.plot(*_broken(x[order], ratio[order]), color=_GREY, linewidth=1.2)
    ax.set_ylim(bottom=min(0.0, float(ratio.min())))
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.set_xlabel("wavelength, nm" if linked.hsi.has_wavelengths else "HSI band", fontsize=8)
    ax.set_title("Signal to noise of the HSI's bands, dB", fontsize=9, loc="left", fontweight="bold")
