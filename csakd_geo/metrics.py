"""Scores of a fused cube against truth, on physical values, masked pixels left out.

PSNR, SAM, ERGAS and RMSE follow DESIGN (Wald 2000 for ERGAS; Kruse et al. 1993 for SAM);
UIQI is Wang and Bovik 2002 on blocks, SSIM is Wang et al. 2004. Everything is a sum over
pixels or blocks, so a scene is scored strip by strip in two passes. Seams need no truth:
`seam_energy` compares the steps on the tiles' borders with those elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from csakd_geo.errors import InputError

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

UIQI_BLOCK = 32
_SSIM_SIGMA, _SSIM_RADIUS = 1.5, 5


@dataclass(frozen=True, slots=True)
class Scores:
    """PSNR (dB), SAM (degrees), ERGAS, RMSE (data units), UIQI, SSIM and CC of one cube."""

    psnr: float
    sam: float
    ergas: float
    rmse: float
    uiqi: float
    ssim: float
    cc: float
    pixels: int

    def to_dict(self) -> dict[str, float]:
        """Plain numbers by name."""
        return asdict(self)


class _Totals:
    """Running per-band sums of the pixel-wise scores."""

    def __init__(self, bands: int) -> None:
        self.pixels = 0
        self.angles = 0.0
        self.spectra = 0
        self.sum_t, self.sum_f, self.sum_tt, self.sum_ff, self.sum_tf, self.sum_ee = np.zeros((6, bands))
        self.peak = np.full(bands, -np.inf)

    def add(self, fused: FloatArray, truth: FloatArray) -> None:
        """Add pixels, both (band, n) float64 without NaN."""
        if truth.shape[1] == 0:
            return
        self.pixels += truth.shape[1]
        self.sum_t += truth.sum(1)
        self.sum_f += fused.sum(1)
        self.sum_tt += np.square(truth).sum(1)
        self.sum_ff += np.square(fused).sum(1)
        self.sum_tf += (truth * fused).sum(1)
        self.sum_ee += np.square(truth - fused).sum(1)
        self.peak = np.maximum(self.peak, truth.max(1))
        norm = np.linalg.norm(truth, axis=0) * np.linalg.norm(fused, axis=0)
        seen = norm > 0
        cosine = (truth * fused).sum(0)[seen] / norm[seen]
        self.angles += float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).sum())
        self.spectra += int(seen.sum())


def score_blocks(
    blocks: Iterable[tuple[FloatArray, FloatArray]], *, ratio: int, data_range: FloatArray
) -> Scores:
    """Score a scene that arrives as blocks.

    Parameters
    ----------
    blocks : iterable of (fused, truth)
        Each (band, y, x), NaN where masked. UIQI and SSIM windows do not cross blocks, so
        blocks should be whole scenes or strips of a multiple of 32 rows.
    ratio : int
        For ERGAS.
    data_range : ndarray (band,)
        Maximum minus minimum of each true band, for SSIM's constants.

    Raises
    ------
    InputError
        If no pixel is valid in both, or the truth is zero everywhere.
    """
    totals: _Totals | None = None
    uiqi: list[float] = []
    ssim: list[float] = []
    for fused, truth in blocks:
        if totals is None:
            totals = _Totals(truth.shape[0])
        fused, truth = fused.astype(np.float64), truth.astype(np.float64)
        valid = np.asarray(np.isfinite(truth).all(0) & np.isfinite(fused).all(0))
        totals.add(fused[:, valid], truth[:, valid])
        uiqi.extend(_uiqi_blocks(fused, truth, valid))
        ssim.extend(_ssim_windows(fused, truth, valid, data_range))
    if totals is None or totals.pixels == 0:
        raise InputError("The two cubes share no valid pixel, so there is nothing to score.")
    n = totals.pixels
    mse = totals.sum_ee / n
    used = totals.sum_tt > 0
    if not used.any():
        raise InputError("The truth is zero everywhere, so there is nothing to score against.")
    with np.errstate(divide="ignore"):  # a perfect band has infinite PSNR
        psnr = 10 * np.log10(np.square(totals.peak[used]) / mse[used])
        # the square of the band's mean, as in Wald 2000
        relative = mse[used] / np.square(totals.sum_t[used] / n)
    left = totals.sum_tt - totals.sum_t**2 / n, totals.sum_ff - totals.sum_f**2 / n
    # what rounding leaves of a constant band is no variance
    varied = (left[0] > 1e-12 * totals.sum_tt) & (left[1] > 1e-12 * totals.sum_ff)
    covariance = (totals.sum_tf - totals.sum_t * totals.sum_f / n)[varied]
    correlation = covariance / np.sqrt(left[0][varied] * left[1][varied])
    return Scores(
        psnr=float(psnr.mean()),
        sam=totals.angles / max(totals.spectra, 1),
        ergas=float(100 / ratio * np.sqrt(relative.mean())),
        rmse=float(np.sqrt(mse.mean())),
        uiqi=float(np.mean(uiqi)) if uiqi else float("nan"),
        ssim=float(np.mean(ssim)) if ssim else float("nan"),
        cc=float(correlation.mean()) if varied.any() else float("nan"),
        pixels=n,
    )


def score(fused: FloatArray, truth: FloatArray, *, ratio: int) -> Scores:
    """Score one cube in memory.

    Parameters
    ----------
    fused, truth : ndarray (band, y, x)
        Physical values, NaN where masked.
    ratio : int

    Raises
    ------
    InputError
        If the shapes differ or no pixel is valid in both.
    """
    if fused.shape != truth.shape:
        raise InputError(
            f"The fused cube is {fused.shape} (band, y, x) but the truth is {truth.shape}; they must agree."
        )
    return score_blocks([(fused, truth)], ratio=ratio, data_range=data_range(truth))


def data_range(truth: FloatArray) -> FloatArray:
    """Maximum minus minimum per band, NaN left out; (band,)."""
    flat = np.ma.masked_invalid(truth.reshape(truth.shape[0], -1))
    return np.asarray((flat.max(1) - flat.min(1)).filled(0.0), dtype=np.float64)


def _uiqi_blocks(fused: FloatArray, truth: FloatArray, valid: BoolArray) -> Iterator[float]:
    height, width = valid.shape
    size_y, size_x = min(UIQI_BLOCK, height), min(UIQI_BLOCK, width)
    for y in range(0, height - size_y + 1, size_y):
        for x in range(0, width - size_x + 1, size_x):
            window = np.s_[y : y + size_y, x : x + size_x]
            if not valid[window].all():
                continue
            t = truth[:, *window].reshape(truth.shape[0], -1)
            f = fused[:, *window].reshape(truth.shape[0], -1)
            mt, mf = t.mean(1), f.mean(1)
            cov = ((t - mt[:, None]) * (f - mf[:, None])).mean(1)
            spread, size = t.var(1) + f.var(1), mt**2 + mf**2
            # of two constant blocks only the means can differ
            varied = spread > 1e-24 * size
            contrast = np.where(varied, 2 * cov / np.where(varied, spread, 1), 1.0)
            luminance = np.where(size > 0, 2 * mt * mf / np.where(size > 0, size, 1), 1.0)
            yield float((contrast * luminance).mean())


def _ssim_windows(
    fused: FloatArray, truth: FloatArray, valid: BoolArray, ranges: FloatArray
) -> Iterator[float]:
    inner = np.zeros_like(valid)
    r = _SSIM_RADIUS
    if min(valid.shape) <= 2 * r:
        return
    inner[r:-r, r:-r] = True
    if not valid.all():
        broken = gaussian_filter((~valid).astype(np.float64), _SSIM_SIGMA, radius=r, mode="constant") > 0
        inner &= ~broken
    if not inner.any():
        return

    def blur(a: FloatArray) -> FloatArray:
        return np.asarray(gaussian_filter(a, _SSIM_SIGMA, radius=r))

    for band in range(truth.shape[0]):
        if ranges[band] <= 0:
            continue
        c1, c2 = (0.01 * ranges[band]) ** 2, (0.03 * ranges[band]) ** 2
        t, f = np.where(valid, truth[band], 0.0), np.where(valid, fused[band], 0.0)
        mt, mf = blur(t), blur(f)
        vt, vf, cov = blur(t * t) - mt**2, blur(f * f) - mf**2, blur(t * f) - mt * mf
        value = (2 * mt * mf + c1) * (2 * cov + c2) / ((mt**2 + mf**2 + c1) * (vt + vf + c2))
        yield float(value[inner].mean())


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
