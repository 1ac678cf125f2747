"""The errors of a fitted method, tried one resolution level down on its own pair."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import PSF, finer, upsample
from csakd_geo.methods.base import Fitted, Method
from csakd_geo.pair import Block, Pair, degrade_pair
from csakd_geo.quality import unchanged
from csakd_geo.response import Response, robust_misfit
from csakd_geo.uncertainty.law import Uncertainty, find_activity, find_detail, fit_law, spread_of

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

# Set by benchmarks/uncertainty.py: the variance of the details' errors over that one level down is
# TRANSFER * ratio ** STEEPNESS, and a part UNMODELLED of the HSI's noise variance is in them whatever is done.
TRANSFER, STEEPNESS, UNMODELLED = 1.0, 1.0, 0.25
_MSI_NOISE = 1.4  # deviation of the MSI's noise over its robust misfit at LR
_LEAST = 144  # HSI pixels, and
_CELLS = 3  # pixels of the degraded HSI per side, below which nothing is tried
_PIECE = 16  # pixels of the degraded HSI per side of what is tried at once
_ENOUGH = 20_000  # HSI pixels that are tried
_PATCH = 32  # HSI pixels per side of the patch that noise is put on
_NO_HELP = 0.85  # error over cubic interpolation's from which the MSI is no help; a better one gains a tenth
_DETAIL = 0.5  # least deviation of a detail that there is to be helped with, over the HSI's noise


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What was found in a pair; all variances in squared HSI units, ``(band,)``.

    Parameters
    ----------
    alpha, beta : ndarray
        Of the details' errors one level down, the HSI's noise taken out.
    growth : float
        Median activity at full resolution over that one level down.
    noise : ndarray
        Of the HSI.
    carried : ndarray
        What the method makes of both images' noise at full resolution.
    scale : ndarray (msi_band,)
    informed : ndarray of bool
    top : float
    """

    alpha: FloatArray
    beta: FloatArray
    growth: float
    noise: FloatArray
    carried: FloatArray
    scale: FloatArray
    informed: BoolArray
    top: float

    def at_full_resolution(
        self,
        psf: PSF,
        *,
        transfer: float = TRANSFER,
        steepness: float = STEEPNESS,
        unmodelled: float = UNMODELLED,
    ) -> Uncertainty:
        """Carry the errors up one level."""
        transfer *= psf.ratio**steepness
        alpha = transfer * self.growth * self.alpha + unmodelled * self.noise + self.carried
        return Uncertainty(alpha, transfer * self.beta, self.scale, psf, self.informed, self.top, True)


def fit_uncertainty(
    pair: Pair, response: Response, method: Method, fitted: Fitted, *, seed: int = 0
) -> Uncertainty:
    """Find what the errors of a fitted method are like on its pair.

    Parameters
    ----------
    pair : Pair
    response : Response
    method : Method
    fitted : Fitted
        Of the method on this pair.
    seed : int
        Of the noise that is carried through the method.
    """
    trial = try_below(pair, response, method, fitted, seed=seed)
    if trial is not None:
        return trial.at_full_resolution(response.psf)
    spread = pair.msi_spectra(response.psf).std(1)
    whole = np.maximum(pair.hsi_spectra().var(1), response.noise**2)
    none = np.zeros(len(whole), bool)
    return Uncertainty(whole, np.zeros(len(whole)), _positive(spread), response.psf, none, 0.0, False)


def try_below(
    pair: Pair, response: Response, method: Method, fitted: Fitted, *, seed: int = 0
) -> Trial | None:
    """Apply a fit one level down and compare with the HSI; None where the pair is too small for that.

    The fit itself is that of the full resolution: one level down a small pair has too few pixels to fit anew.
    """
    psf = response.psf
    pieces = _pieces(unchanged(pair, response))  # what changed is no error of the method
    if sum(int(piece.valid.sum()) for piece in pieces) < _LEAST:
        return None
    lower, truths = degrade_pair(replace(pair, blocks=tuple(pieces)), psf)
    scale = _positive(np.sqrt(np.mean([find_detail(b.msi, psf).var((1, 2)) for b in lower.blocks], axis=0)))
    errors, plain, below, above = [], [], [], []
    for piece, block, truth in zip(pieces, lower.blocks, truths, strict=True):
        seen = finer(block.valid, pair.ratio)
        errors.append((method.apply(fitted, block.hsi, block.msi) - truth)[:, seen])
        plain.append((upsample(block.hsi, psf) - truth)[:, seen])
        below.append(find_activity(block.msi, psf, scale)[seen])
        above.append(find_activity(piece.msi, psf, scale)[finer(seen, pair.ratio)])
    found, place, full = np.concatenate(errors, axis=1), np.concatenate(below), np.concatenate(above)
    if place.size < _LEAST:
        return None
    noise = np.square(response.noise)
    alpha, beta = fit_law(found, place, noise)
    fused, bare = (np.maximum(spread_of(e) - noise, 0) for e in (found, np.concatenate(plain, axis=1)))
    return Trial(
        alpha,
        beta,
        float(np.median(full) / max(np.median(place), 1e-12)),
        noise,
        _carried(
            pieces[0], (response.noise, _MSI_NOISE * robust_misfit(pair, response)[1]), method, fitted, seed
        ),
        scale,
        np.asarray((fused < _NO_HELP**2 * bare) | (bare <= _DETAIL**2 * noise)),
        float(full.max()),
    )


def _positive(spread: FloatArray) -> FloatArray:
    return np.asarray(np.maximum(spread, 1e-9 * max(float(spread.max()), 1e-30)).astype(float))


def _pieces(pair: Pair) -> list[Block]:
    """Parts of the pair's blocks, those with most valid pixels first, until there are enough."""
    found = []
    for block in pair.blocks:
        sides = [min(_PIECE * pair.ratio, n // pair.ratio * pair.ratio) for n in block.valid.shape]
        if min(sides) < _CELLS * pair.ratio:
            continue
        starts = [
            np.linspace(0, n - side, -(-n // side)).astype(int)
            for n, side in zip(block.valid.shape, sides, strict=True)
        ]
        found += [_part(block, y, x, sides[0], sides[1], pair.ratio) for y in starts[0] for x in starts[1]]
    found.sort(key=lambda piece: -int(piece.valid.sum()))
    kept: list[Block] = []
    for piece in found:
        if kept and sum(p.valid.size for p in kept) >= _ENOUGH:
            break
        kept.append(piece)
    return kept


def _part(block: Block, row: int, col: int, height: int, width: int, ratio: int) -> Block:
    rows, cols = slice(row, row + height), slice(col, col + width)
    fine = np.s_[:, row * ratio : (row + height) * ratio, col * ratio : (col + width) * ratio]
    return Block(block.hsi[:, rows, cols], block.msi[fine], block.valid[rows, cols])


def _carried(
    piece: Block, noise: tuple[FloatArray, FloatArray], method: Method, fitted: Fitted, seed: int
) -> FloatArray:
    """Variance (band,) of what a method makes of both images' noise, given as deviations."""
    height, width = (min(_PATCH, n) for n in piece.valid.shape)
    patch = _part(piece, 0, 0, height, width, fitted.psf.ratio)
    rng = np.random.default_rng(seed)
    noisy = [
        image + (level[:, None, None] * rng.standard_normal(image.shape)).astype(image.dtype)
        for image, level in zip((patch.hsi, patch.msi), noise, strict=True)
    ]
    change = method.apply(fitted, noisy[0], noisy[1]) - method.apply(fitted, patch.hsi, patch.msi)
    return np.asarray(change.astype(float).var((1, 2)))
