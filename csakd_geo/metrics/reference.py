"""Scores of a fused cube against truth, on physical values, masked pixels left out.

PSNR, SAM, ERGAS and RMSE follow DESIGN (Wald 2000 for ERGAS; Kruse et al. 1993 for SAM);
UIQI is Wang and Bovik 2002 on blocks, SSIM is Wang et al. 2004. Everything is a sum over
pixels or blocks, so a scene is scored strip by strip in two passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from csakd_geo.errors import InputError
from csakd_geo.metrics.agreement import Agreement, BandSums
from csakd_geo.metrics.quality import UIQI_BLOCK, universal_quality

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

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


def score_blocks(
    blocks: Iterable[tuple[FloatArray, FloatArray]], *, ratio: int, data_range: FloatArray
) -> Scores:
    """Score a scene that arrives as blocks.

    See `score_bands`.
    """
    return score_bands(blocks, ratio=ratio, data_range=data_range)[0]


def score_bands(
    blocks: Iterable[tuple[FloatArray, FloatArray]], *, ratio: int, data_range: FloatArray
) -> tuple[Scores, Agreement]:
    """Score a scene that arrives as blocks, and each of its bands.

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
    sums: BandSums | None = None
    angles = np.zeros(2)  # their sum, and of how many spectra
    uiqi: list[float] = []
    ssim: list[float] = []
    for fused, truth in blocks:
        if sums is None:
            sums = BandSums(truth.shape[0])
        fused, truth = fused.astype(np.float64), truth.astype(np.float64)
        valid = np.asarray(np.isfinite(truth).all(0) & np.isfinite(fused).all(0))
        sums.add(fused[:, valid], truth[:, valid])
        angles += _angles(fused[:, valid], truth[:, valid])
        uiqi.extend(_uiqi_blocks(fused, truth, valid))
        ssim.extend(_ssim_windows(fused, truth, valid, data_range))
    found = None if sums is None else sums.result()
    if found is None or found.count == 0:
        raise InputError("The two cubes share no valid pixel, so there is nothing to score.")
    used = found.level > 0
    if not used.any():
        raise InputError("The truth is zero everywhere, so there is nothing to score against.")
    with np.errstate(divide="ignore"):
        # the square of the band's mean, as in Wald 2000
        relative = np.square(found.rmse[used] / found.mean[used])
    varied = np.isfinite(found.cc)
    scores = Scores(
        psnr=float(found.psnr[used].mean()),  # a perfect band has infinite PSNR
        sam=float(angles[0] / max(angles[1], 1)),
        ergas=float(100 / ratio * np.sqrt(relative.mean())),
        rmse=float(np.sqrt(np.square(found.rmse).mean())),
        uiqi=float(np.mean(uiqi)) if uiqi else float("nan"),
        ssim=float(np.mean(ssim)) if ssim else float("nan"),
        cc=float(found.cc[varied].mean()) if varied.any() else float("nan"),
        pixels=found.count,
    )
    return scores, found


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


def _angles(fused: FloatArray, truth: FloatArray) -> tuple[float, int]:
    """Sum of the angles between spectra (band, n), degrees, and how many have one."""
    norm = np.linalg.norm(truth, axis=0) * np.linalg.norm(fused, axis=0)
    seen = norm > 0
    cosine = (truth * fused).sum(0)[seen] / norm[seen]
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).sum()), int(seen.sum())


def _uiqi_blocks(fused: FloatArray, truth: FloatArray, valid: BoolArray) -> Iterator[float]:
    height, width = valid.shape
    size_y, size_x = min(UIQI_BLOCK, height), min(UIQI_BLOCK, width)
    for y in range(0, height - size_y + 1, size_y):
        for x in range(0, width - size_x + 1, size_x):
            window = np.s_[y : y + size_y, x : x + size_x]
            if valid[window].all():
                f, t = (cube[:, *window].reshape(len(cube), -1) for cube in (fused, truth))
                yield float(universal_quality(f, t).mean())


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
