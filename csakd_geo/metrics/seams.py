"""Seams of tiles, which need no truth: steps on the tiles' borders against those elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import InputError

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]


class _Steps:
    """Second moments of the guide's and the bands' steps at some lines, per band."""

    def __init__(self, guides: int, bands: int) -> None:
        self.count = np.zeros(bands)
        self.gg = np.zeros((bands, guides, guides))
        self.gb = np.zeros((bands, guides))
        self.bb = np.zeros(bands)

    def add(self, guide: FloatArray, steps: FloatArray, present: BoolArray) -> None:
        """Add steps, (guide, n) and (band, n), of the bands that are present."""
        self.count += steps.shape[1] * present
        self.gg += (guide @ guide.T) * present[:, None, None]
        self.gb += steps @ guide.T
        self.bb += np.square(steps).sum(1)

    def unexplained(self, share: FloatArray) -> FloatArray:
        """Mean square, per band, of what ``share`` (band, guide) of the guide leaves."""
        left = self.bb - 2 * (share * self.gb).sum(1) + np.einsum("bi,bij,bj->b", share, self.gg, share)
        return np.asarray(np.maximum(left, 1e-12 * self.bb) / np.maximum(self.count, 1))


def seam_energy(
    cube: FloatArray,
    step: int,
    *,
    guide: FloatArray | None = None,
    offset: tuple[int, int] = (0, 0),
    period: int = 1,
) -> float:
    """Energy of the steps across the tile lattice over that of the steps elsewhere; 1 means no seam.

    A step is the difference of two pixels less the mean of the differences on both sides (Minami
    and Zakhor 1995), so slopes do not count. What the scene itself has on the lattice does: with few
    lines the ratio lies between a half and two by chance. With a guide, the part of the steps that is
    linear in the guide's is taken off first, fitted away from the lattice by least squares. That is
    most of the scene; seams of a thousandth of the values show in what is left.

    Parameters
    ----------
    cube : ndarray (band, y, x)
        NaN where masked; a band without values is left out.
    step : int
        Pixels between the lines of the lattice.
    guide : ndarray (band, y, x), optional
        An image of the same pixels that has no seams: the MSI.
    offset : (int, int)
        Row and column of the first line: the pixel after it.
    period : int
        The lattice is compared with lines so many pixels apart: the ratio of the fusion, since
        steps between two pixels of the HSI differ from steps inside one.

    Returns
    -------
    float
        Median over bands of the ratio of mean squares.

    Raises
    ------
    InputError
        If the shapes differ, ``step`` is no multiple of ``period``, or there is nothing to compare.
    """
    return seam_energy_strips([(cube, guide)], step, offset=offset, period=period)


def seam_energy_strips(
    strips: Iterable[tuple[FloatArray, FloatArray | None]],
    step: int,
    *,
    offset: tuple[int, int] = (0, 0),
    period: int = 1,
) -> float:
    """:func:`seam_energy` of a scene that arrives as strips of whole rows, from top to bottom.

    Parameters
    ----------
    strips : iterable of (cube, guide or None)
        Each (band, y, x) with any number of rows.
    step, offset, period
        As in :func:`seam_energy`.
    """
    if period < 1 or step <= period or step % period:
        raise InputError(f"Lattice lines every {step} pixels cannot be compared with lines every {period}.")
    kept: FloatArray | None = None  # the three rows above, for the steps across a strip's border
    top, bands = 0, 0
    on = off = _Steps(0, 0)
    for cube, guide in strips:
        if guide is not None and guide.shape[1:] != cube.shape[1:]:
            raise InputError(f"The guide has {guide.shape[1:]} pixels but the cube {cube.shape[1:]}.")
        rows = np.concatenate([cube, *([] if guide is None else [guide])]).astype(np.float64)
        if kept is None:
            bands, kept = cube.shape[0], rows[:, :0]
            on, off = (_Steps(rows.shape[0] - bands, bands) for _ in range(2))
        tall = np.concatenate([kept, rows], axis=1)
        for pixels, first in ((rows, -offset[1]), (tall.swapaxes(1, 2), top - kept.shape[1] - offset[0])):
            found = _steps_across(pixels)
            lines = first + 2 + np.arange(found.shape[2])
            away = np.minimum(lines % step, -lines % step)  # the line next to a seam sees half of it
            for steps, chosen in ((on, away == 0), (off, (lines % period == 0) & (away > 1))):
                values = found[:, :, chosen].reshape(found.shape[0], -1)
                present = np.asarray(np.isfinite(values).any(1))
                values = values[:, np.isfinite(values[present]).all(0)]
                values[~present] = 0
                steps.add(values[bands:], values[:bands], present[:bands])
        kept, top = tall[:, -3:], top + rows.shape[1]
    seen: BoolArray = (on.count > 0) & (off.count > 0) & (on.bb + off.bb > 0)
    if not seen.any():
        raise InputError(
            f"No line of a lattice of {step} pixels lies inside the valid pixels, or all are flat."
        )
    share = np.einsum("bij,bj->bi", np.linalg.pinv(off.gg, hermitian=True), off.gb)
    with np.errstate(divide="ignore"):  # steps on the lattice and nowhere else
        return float(np.median(on.unexplained(share)[seen] / off.unexplained(share)[seen]))


def _steps_across(pixels: FloatArray) -> FloatArray:
    """Steps between columns i + 1 and i + 2 beyond the slope around, (band, y, x - 3)."""
    slopes = np.diff(pixels, axis=2)
    return np.asarray(slopes[:, :, 1:-1] - (slopes[:, :, :-2] + slopes[:, :, 2:]) / 2)
