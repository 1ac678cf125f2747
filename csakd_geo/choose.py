"""Which method runs: asked for, compared on held-out blocks one level down, or by preference.

One level down the HSI is the truth (Wald et al. 1997). The comparison wants at least 48 x 48
HSI pixels; on less it is noise, and a fixed order of preference decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import finer, upsample
from csakd_geo.errors import InputError, ModelError
from csakd_geo.methods import get_method
from csakd_geo.methods.base import Fitted, Method
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.metrics import score_blocks
from csakd_geo.models import find_model, fitting_models
from csakd_geo.pair import Block, Pair, degrade_pair
from csakd_geo.psf import thin
from csakd_geo.response import Response, estimate_response
from csakd_geo.spectral import SpectralAxis

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

MIN_COMPARED = 48  # HSI pixels per side below which a comparison is noise
CLASSICAL = ("coupled-map", "subspace-map", "cnmf", "gsa", "regression")
_CLEARLY = 0.03  # relative error that counts as a difference one level down
_NO_HELP = 0.75  # error over interpolation's, one level down, from which a method is not safe
_SIMPLE = ("regression", "bicubic")  # what is tried instead, the safest last
_HOLD = 4  # blocks per axis of the checkerboard that is held out


@dataclass(frozen=True, slots=True)
class Choice:
    """The method that runs, and why.

    Parameters
    ----------
    method : Method
    reason : str
        One sentence.
    scores : dict of str to dict
        PSNR (dB), SAM (degrees) and ERGAS on the held-out blocks, by method.
    """

    method: Method
    reason: str
    scores: dict[str, dict[str, float]]


def large_enough(pair: Pair) -> bool:
    """Whether a comparison (or adaptation) on this pair means something."""
    return sum(b.valid.size for b in pair.blocks) >= MIN_COMPARED**2 and all(
        min(b.valid.shape) >= 4 * pair.ratio for b in pair.blocks
    )


def held_out(shape: tuple[int, int]) -> BoolArray:
    """The cells of a window that are scored and never learned from: a coarse checkerboard."""
    y, x = (np.arange(n) * _HOLD // max(n, 1) for n in shape)
    return np.asarray((y[:, None] + x[None]) % 4 == 1)


def compare(
    methods: Sequence[Method], pair: Pair, response: Response, *, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Fit and score methods one level down on the held-out blocks.

    Returns
    -------
    dict
        ``{method: {"psnr": dB, "sam": degrees, "ergas": ...}}``.
    """
    lower, truths = degrade_pair(pair, response.psf)
    again = estimate_response(lower, psf=response.psf)
    masks = [finer(held_out(b.valid.shape) & b.valid, pair.ratio) for b in lower.blocks]
    ranges = np.ptp(np.concatenate([t.reshape(len(t), -1) for t in truths], axis=1), axis=1).astype(float)
    learn = replace(
        lower,
        blocks=tuple(Block(b.hsi, b.msi, b.valid & ~held_out(b.valid.shape)) for b in lower.blocks),
    )
    scores = {}
    for method in methods:
        fitted = method.fit(learn, again, seed=seed)
        blocks = []
        for block, truth, mask in zip(lower.blocks, truths, masks, strict=True):
            fused = method.apply(fitted, block.hsi, block.msi)
            blocks.append((fused, np.where(mask, truth, np.nan)))
        found = score_blocks(blocks, ratio=pair.ratio, data_range=ranges)
        scores[method.name] = {"psnr": found.psnr, "sam": found.sam, "ergas": found.ergas}
    return scores


def best_of(scores: dict[str, dict[str, float]]) -> str:
    """The first method, in order of preference, whose error is not clearly above the lowest.

    The error is half ERGAS, half SAM, each over the median method's. The truth one level down is
    the HSI with its noise, and what wins there by little need not win at full resolution.

    Parameters
    ----------
    scores : dict
        In order of preference.
    """
    ergas = float(np.median([s["ergas"] for s in scores.values()])) or 1.0
    sam = float(np.median([s["sam"] for s in scores.values()])) or 1.0
    error = {name: s["ergas"] / ergas + s["sam"] / sam for name, s in scores.items()}
    lowest = min(error.values())
    return next(name for name, e in error.items() if e <= lowest * (1 + _CLEARLY))


def error_below(method: Method, fitted: Fitted, pair: Pair, response: Response) -> float:
    """Error of a fit one level down over that of interpolating the HSI, all bands weighing the same.

    The fit itself is tried, so the smallest pair has an answer; it has seen the truth at that level, so the answer
    flatters it. NaN where the pair has fewer pixels than the ratio along an axis, or none that is valid below.

    Parameters
    ----------
    method : Method
    fitted : Fitted
        Of the method on this pair.
    pair : Pair
    response : Response
    """
    r = pair.ratio
    large = tuple(b for b in thin(pair).blocks if min(b.valid.shape) >= r)
    ours, plain, level = np.zeros((3, len(pair.hsi_axis.wavelength)))
    lower, truths = degrade_pair(replace(pair, blocks=large), response.psf)
    for block, truth in zip(lower.blocks, truths, strict=True):
        seen = finer(block.valid, r)
        true = truth[:, seen].astype(float)
        level += np.square(true - true.mean(1, keepdims=True)).sum(1) if seen.any() else 0
        ours += np.square(method.apply(fitted, block.hsi, block.msi)[:, seen] - true).sum(1)
        plain += np.square(upsample(block.hsi, response.psf)[:, seen] - true).sum(1)
    varied = level > 0
    total = float((plain[varied] / level[varied]).sum())
    return float(np.sqrt((ours[varied] / level[varied]).sum() / total)) if total > 0 else float("nan")


def make_safe(choice: Choice, pair: Pair, response: Response, *, seed: int = 0) -> tuple[Choice, Fitted, str]:
    """Fit the method chosen; where it is hardly better than interpolation, take a simpler one that is safe.

    Where images have little in common (another place, clouds in one of them) a method that trusts both invents
    detail. That shows one level down.

    Returns
    -------
    choice : Choice
    fitted : Fitted
    warning : str
        Empty where the choice stands.
    """
    fitted = choice.method.fit(pair, response, seed=seed)
    error = error_below(choice.method, fitted, pair, response)
    if not error > _NO_HELP:
        return choice, fitted, ""
    for name in _SIMPLE:
        method = get_method(name)
        other = method.fit(pair, response, seed=seed)
        if name == _SIMPLE[-1] or error_below(method, other, pair, response) <= _NO_HELP:
            break
    what = "the HSI is interpolated without the MSI" if name == _SIMPLE[-1] else f"'{name}' is used instead"
    reason = f"{choice.method.name} is no better than interpolation one level down"
    return (
        replace(choice, method=method, reason=reason),
        other,
        f"With this MSI '{choice.method.name}' is hardly better than interpolation of the HSI (error {error:.0%} of "
        f"it one level down), so {what}; check that both images show the same place and date, and mask clouds.",
    )


def choose_method(
    pair: Pair,
    response: Response,
    *,
    method: str,
    network: Callable[[], Path | None],
    make: Callable[[Path], CSAKD],
    seed: int = 0,
) -> Choice:
    """Pick the method for a pair.

    Parameters
    ----------
    pair : Pair
    response : Response
    method : str
        ``auto``, ``csakd`` or a classical method's name.
    network : callable
        The model that fits the pair, found or trained when called; None if there is none.
    make : callable
        A :class:`CSAKD` of a model file.
    seed : int

    Raises
    ------
    ModelError
        If ``csakd`` was asked for and no model fits.
    """
    if method not in ("auto", CSAKD.name):
        return Choice(get_method(method), "asked for", {})
    path = network()
    if method == CSAKD.name:
        if path is None:
            raise ModelError(f"No bundled or registered model fits this pair and {_no_training(pair)}.")
        return Choice(make(path), "asked for", {})
    if not large_enough(pair):
        if path is None:
            return Choice(get_method(CLASSICAL[0]), "preferred; no model fits this pair", {})
        if pair.warped:
            why = "preferred; the HSI was interpolated onto the grid, which models have not learned from"
            return Choice(get_method(CLASSICAL[0]), why, {})
        return Choice(
            make(path),
            f"preferred; under {MIN_COMPARED} x {MIN_COMPARED} HSI pixels a comparison would be noise",
            {},
        )
    candidates: list[Method] = [] if path is None else [make(path)]
    candidates += [get_method(name) for name in CLASSICAL]
    scores = compare(candidates, pair, response, seed=seed)
    best = best_of(scores)
    chosen = next(m for m in candidates if m.name == best)
    return Choice(chosen, "preferred of those that are best on held-out blocks one level down", scores)


def _no_training(pair: Pair) -> str:
    """Why none was trained, and what to do."""
    if large_enough(pair):
        return (
            "training is off (--adapt-minutes 0), or too few pixels are valid for it; give --model FILE, allow "
            f"training, or use --method {CLASSICAL[0]}"
        )
    return (
        f"it is under {MIN_COMPARED} x {MIN_COMPARED} HSI pixels, too small to train one; give --model FILE "
        f"or use --method {CLASSICAL[0]}"
    )


def check_names(*, method: str, model: str | None) -> None:
    """Refuse a method or model that there is not, before any work.

    Raises
    ------
    InputError
        If the method is unknown, or a classical one was asked for together with a model.
    ModelError
        If the model is unknown.
    """
    if method not in ("auto", CSAKD.name):
        get_method(method)
        if model is not None:
            raise InputError(
                f"--model runs the network, but --method {method} was asked for; leave one of them out."
            )
    if model is not None:
        find_model(model)


def fitting_model(hsi_axis: SpectralAxis, msi_axis: SpectralAxis, ratio: int) -> Path | None:
    """The best bundled or registered model for a pair, or None."""
    found = fitting_models(hsi_axis, msi_axis, ratio=ratio)
    return found[0].path if found else None
