"""MAP estimates in the HSI's own subspace: subspace-map and coupled-map.

Both step from a prior estimate (:mod:`csakd_geo.methods.step`), whose errors are measured one level down on the pair
itself; they differ in the prior, and in whether its errors are tied between neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from csakd_geo.degrade import finer
from csakd_geo.methods.base import Fitted, Method, Projection
from csakd_geo.methods.cnmf import CNMF
from csakd_geo.methods.injection import GSA
from csakd_geo.methods.step import REACH, prepare_errors, step_from, unexplained
from csakd_geo.methods.subspace import KEPT, Subspace, pair_subspace
from csakd_geo.methods.ties import find_likeness, find_surprise
from csakd_geo.pair import Pair, cut, degrade_pair
from csakd_geo.response import Response

FloatArray = NDArray[np.floating]

_PIXELS = 4_000  # LR pixels that the typical surprise is taken from
_LEAST = 1e-6  # of it
_UNKNOWN = 0.1  # error variance of a prior that cannot be tried one level down, over the HSI's own


@dataclass(frozen=True, slots=True)
class _Trust:
    """What cannot be measured on a pair, chosen on scenes with a truth.

    Parameters
    ----------
    finer : float
        Variance of the prior's errors at full resolution over that one level down.
    finer_misfit : float
        Deviation of the MSI's misfit at full resolution over that at LR.
    """

    finer: float
    finer_misfit: float


_ALONE, _TIED = _Trust(0.6, 1.4), _Trust(0.8, 2.0)  # benchmarks/quality.py, with another seed of noise
_WARPED = _Trust(0.1, 0.35)  # benchmarks/methods.py: interpolation errs at LR, and the MSI has no part in it


class Prior(Method, Protocol):
    """A method that can give its result in a subspace, without the bands in between."""

    def coordinates(
        self, fitted: Fitted, subspace: Projection, hsi: FloatArray, msi: FloatArray
    ) -> FloatArray:
        """``project(apply(...))``, ``(K, y, x)``."""
        ...


class _MAP:
    """What subspace-map and coupled-map share; they differ in where the prior comes from."""

    name: str
    title: str
    source: str
    tied: bool
    priors: tuple[Prior, ...]

    def fit(self, pair: Pair, response: Response, *, seed: int = 0) -> Fitted:
        """Subspace, priors and the covariance of the prior's errors, found one level down."""
        psf = response.psf
        subspace = pair_subspace(pair, response, components=KEPT)
        fits = [prior.fit(pair, response, seed=seed) for prior in self.priors]
        blend, covariance = self._prior_errors(pair, response, subspace, fits)
        misfit = self._trust(pair).finer_misfit * response.misfit
        sense = response.operator @ subspace.basis / misfit[:, None]
        level = (response.operator @ subspace.mean + response.offset) / misfit
        arrays = {
            **subspace.arrays(),
            **prepare_errors(sense, np.linalg.inv(covariance), tied_at=pair.ratio if self.tied else None),
            "sense": sense.astype(np.float32),
            "level": level.astype(np.float32),
            "misfit": misfit.astype(np.float32),
            "blend": blend.astype(np.float32),
        }
        if self.tied:
            arrays["likeness"] = find_likeness(pair, response).astype(np.float32)
        halo = max(f.halo for f in fits) + psf.halo + REACH
        fitted = Fitted(self.name, psf, halo, arrays, {f.method: f.facts for f in fits})
        for f in fits:
            fitted.arrays.update(fitted.nested(f.method, f))
        if self.tied:
            fitted.arrays["surprise"] = self._surprise(pair, fitted, sense @ covariance @ sense.T)
        return fitted

    def _surprise(self, pair: Pair, fitted: Fitted, expected: FloatArray) -> FloatArray:
        """What brings the MSI's surprise to 1 on average, (msi_band, msi_band)."""
        scale = np.linalg.cholesky(np.linalg.inv(expected + np.eye(len(expected)))).T
        found = []
        for block in cut(pair, _PIXELS).blocks:
            innovation = unexplained(fitted, block.msi, self._prior(fitted, block.hsi, block.msi))
            found.append(find_surprise(innovation, scale)[finer(block.valid, pair.ratio)])
        typical = float(np.concatenate(found).mean())
        return np.asarray(scale / np.sqrt(max(typical, _LEAST)), np.float32)

    def _trust(self, pair: Pair) -> _Trust:
        if pair.warped:
            return _WARPED
        return _TIED if self.tied else _ALONE

    def _prior_errors(
        self, pair: Pair, response: Response, subspace: Subspace, fits: list[Fitted]
    ) -> tuple[FloatArray, FloatArray]:
        """Blend weights (prior, K) and error covariance (K, K) of the blended prior.

        Measured one level down, where the HSI is the truth, and scaled to full resolution. What
        a scene is too small to tell comes from its own variance.
        """
        kept = len(subspace.deviation)
        large = tuple(b for b in pair.blocks if min(b.valid.shape) >= pair.ratio)
        lower, truths = degrade_pair(replace(pair, blocks=large), response.psf)
        z: FloatArray = np.zeros((kept, 0))
        z0: FloatArray = np.zeros((len(fits), kept, 0))
        for block, truth in zip(lower.blocks, truths, strict=True):
            valid = np.repeat(np.repeat(block.valid, pair.ratio, 0), pair.ratio, 1)
            z = np.append(z, subspace.project(truth)[:, valid], axis=1)
            estimates = [
                prior.coordinates(f, subspace, block.hsi, block.msi)[:, valid]
                for prior, f in zip(self.priors, fits, strict=True)
            ]
            z0 = np.append(z0, np.stack(estimates), axis=2)
        blend = np.stack([_blend(z[k], z0[:, k]) for k in range(kept)], axis=1)
        error = z - np.einsum("pk,pkn->kn", blend, z0)
        unknown = _UNKNOWN * np.diag(np.square(subspace.deviation, dtype=np.float64))
        covariance = (error @ error.T + kept * unknown) / (error.shape[1] + kept)
        # the truth is the HSI itself, whose noise is 1 in these coordinates and no error of the prior
        spread, vectors = np.linalg.eigh(covariance)
        spread = np.maximum(spread - 0.8, 0.05 * spread + 1e-6)
        return blend, self._trust(pair).finer * (vectors * spread) @ vectors.T

    def apply(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Solve a window."""
        return Subspace.of(fitted).expand(self.coordinates(fitted, hsi, msi))

    def coordinates(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """The solution in the subspace, ``(K, y, x)``."""
        z = self._prior(fitted, hsi, msi)
        return np.asarray(z + step_from(fitted, hsi, msi, z, fitted.arrays))

    def _prior(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """The blended prior estimate, ``(K, y, x)``."""
        subspace = Subspace.of(fitted)
        estimates = [
            weight[:, None, None] * prior.coordinates(fitted.inner(prior.name), subspace, hsi, msi)
            for prior, weight in zip(self.priors, fitted.arrays["blend"], strict=True)
        ]
        return np.asarray(np.sum(estimates, axis=0))


def _blend(truth: FloatArray, estimates: FloatArray) -> FloatArray:
    """Non-negative weights summing to 1 that bring estimates (prior, n) closest to truth (n,)."""
    error = estimates - truth
    gram = error @ error.T
    size = np.trace(gram) / len(gram) + 1e-30
    gram = gram / size + 0.1 * np.eye(len(gram))
    heavy = 1e3
    rows = np.concatenate([np.linalg.cholesky(gram).T, np.full((1, len(gram)), heavy)])
    weights, _ = nnls(rows, np.append(np.zeros(len(gram)), heavy))
    return np.asarray(weights / weights.sum())


class SubspaceMAP(_MAP):
    """MAP with GSA as the prior."""

    name = "subspace-map"
    title = "MAP estimate in the HSI's subspace, prior from GSA"
    source = "Wei et al. 2015, IEEE TGRS 53(7) (Bayesian fusion in a subspace); prior weight from the pair"
    tied = False

    def __init__(self) -> None:
        self.priors = (GSA(),)


class CoupledMAP(_MAP):
    """MAP whose prior blends CNMF and GSA as they prove one level down, its errors tied between neighbours."""

    name = "coupled-map"
    title = "MAP estimate in the HSI's subspace, prior blended from CNMF and GSA, errors tied between alike neighbours"
    source = "This package; Wei et al. 2015, Yokoya et al. 2012 and Rue and Held 2005 for the parts"

    def __init__(self, *, tied: bool = True) -> None:
        self.priors, self.tied = (CNMF(), GSA()), tied
