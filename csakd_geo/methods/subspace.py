"""MAP fusion in the HSI's own subspace: subspace-map and coupled-map.

The fused cube is ``mean + D E z``: D the bands' noise, E the K leading directions of the
noise-whitened HSI. z minimises

    |y - S z|^2 + |G z - m|^2 + (z - z0)' P^-1 (z - z0)

with y the HSI's coordinates, S the PSF and decimation, G the MSI's response in the subspace
over its own misfit, z0 a prior estimate and P the covariance of its errors, measured one
level down on the pair itself. With A = G'G + P^-1 diagonal in a rotated basis each component
is a scalar image, and by the matrix inversion lemma the only system to solve lives on the LR
grid, where S S' is a small separable kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from csakd_geo.degrade import PSF, adjoint, apply_srf, axis_gram, degrade
from csakd_geo.methods.base import Fitted, Method, Projection
from csakd_geo.methods.cnmf import CNMF
from csakd_geo.methods.injection import GSA
from csakd_geo.pair import Pair, degrade_pair
from csakd_geo.response import Response

FloatArray = NDArray[np.floating]

COMPONENTS = 10  # that a network sees
KEPT = 14  # that the MAP estimates solve for (benchmarks/quality.py)
REACH = 6  # LR pixels after which the inverse on the LR grid has decayed
_UNKNOWN = 0.1  # error variance of a prior that cannot be tried one level down, over the HSI's own
_LEAST = 0.1  # least deviation of a coordinate, in units of the noise


@dataclass(frozen=True, slots=True)
class _Trust:
    """What cannot be measured on a pair, chosen on scenes with a truth.

    Parameters
    ----------
    unmodelled : float
        Least error of the HSI under the model (shape of the PSF, warps) over its own deviation.
    finer : float
        Variance of the prior's errors at full resolution over that one level down.
    finer_misfit : float
        Deviation of the MSI's misfit at full resolution over that at LR.
    """

    unmodelled: float
    finer: float
    finer_misfit: float


_NESTED = _Trust(0.02, 0.6, 1.4)  # benchmarks/quality.py
_WARPED = _Trust(
    0.05, 0.2, 0.7
)  # benchmarks/methods.py: interpolation errs at LR, and the MSI has no part in it


def _trust(pair: Pair) -> _Trust:
    return _WARPED if pair.warped else _NESTED


@dataclass(frozen=True, slots=True, eq=False)
class Subspace:
    """The HSI's own coordinates.

    Parameters
    ----------
    mean : ndarray (band,)
    basis : ndarray (band, K)
        ``D E``: from coordinates to HSI units.
    inverse : ndarray (K, band)
        ``E' D^-1``.
    deviation : ndarray (K,)
        Standard deviation of the HSI's coordinates; at least a tenth of the noise's, so that a direction
        in which nothing varies is not blown up where it is normalised.
    """

    mean: FloatArray
    basis: FloatArray
    inverse: FloatArray
    deviation: FloatArray

    def project(self, cube: FloatArray) -> FloatArray:
        """``(band, y, x)`` to coordinates ``(K, y, x)``."""
        shift = self.inverse @ self.mean
        return apply_srf(cube, self.inverse) - shift[:, None, None].astype(cube.dtype)

    def expand(self, z: FloatArray) -> FloatArray:
        """Coordinates ``(K, y, x)`` to ``(band, y, x)``."""
        out = apply_srf(z, self.basis)
        out += self.mean[:, None, None].astype(out.dtype)
        return out

    def leading(self, count: int) -> Subspace:
        """The subspace of the first directions alone."""
        return Subspace(self.mean, self.basis[:, :count], self.inverse[:count], self.deviation[:count])

    def arrays(self) -> dict[str, FloatArray]:
        """For :class:`Fitted`."""
        return {
            "mean": self.mean.astype(np.float32),
            "basis": self.basis.astype(np.float32),
            "inverse": self.inverse.astype(np.float32),
            "deviation": self.deviation.astype(np.float32),
        }

    @classmethod
    def of(cls, fitted: Fitted) -> Subspace:
        """From :class:`Fitted`."""
        a = fitted.arrays
        return cls(a["mean"], a["basis"], a["inverse"], a["deviation"])


def find_subspace(spectra: FloatArray, noise: FloatArray, components: int = COMPONENTS) -> Subspace:
    """Leading directions of the noise-whitened spectra.

    Parameters
    ----------
    spectra : ndarray (band, n)
    noise : ndarray (band,)
    components : int
    """
    mean = spectra.mean(1)
    white = (spectra - mean[:, None]) / noise[:, None]
    values, vectors = np.linalg.eigh(white @ white.T / max(spectra.shape[1], 1))
    kept = min(components, len(values))
    basis = vectors[:, ::-1][:, :kept]
    # a sign convention: two runs on one machine or on two give one basis
    basis = basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(kept)])
    deviation = np.maximum(np.sqrt(np.maximum(values[::-1][:kept], 0)), _LEAST)
    return Subspace(mean, noise[:, None] * basis, basis.T / noise[None], deviation)


def pair_subspace(pair: Pair, response: Response, *, components: int = COMPONENTS) -> Subspace:
    """The subspace of a pair's own HSI, its noise taken from the pair."""
    spectra = pair.hsi_spectra()
    noise = np.maximum(response.noise, _trust(pair).unmodelled * spectra.std(1))
    return find_subspace(spectra, noise, components)


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
    priors: tuple[Prior, ...]

    def fit(self, pair: Pair, response: Response, *, seed: int = 0) -> Fitted:
        """Subspace, priors and the covariance of the prior's errors, found one level down."""
        psf = response.psf
        subspace = pair_subspace(pair, response, components=KEPT)
        fits = [prior.fit(pair, response, seed=seed) for prior in self.priors]
        blend, covariance = self._prior_errors(pair, response, subspace, fits)
        misfit = _trust(pair).finer_misfit * response.misfit
        sense = response.operator @ subspace.basis / misfit[:, None]
        level = (response.operator @ subspace.mean + response.offset) / misfit
        precision = np.linalg.inv(covariance)
        values, rotation = np.linalg.eigh(sense.T @ sense + precision)
        fitted = Fitted(
            self.name,
            psf,
            max(f.halo for f in fits) + psf.halo + REACH,
            {
                **subspace.arrays(),
                "sense": sense.astype(np.float32),
                "level": level.astype(np.float32),
                "misfit": misfit.astype(np.float32),
                "values": values.astype(np.float32),
                "rotation": rotation.astype(np.float32),
                "blend": blend.astype(np.float32),
            },
            {f.method: f.facts for f in fits},
        )
        for f in fits:
            fitted.arrays.update(fitted.nested(f.method, f))
        return fitted

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
        return blend, _trust(pair).finer * (vectors * spread) @ vectors.T

    def apply(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Solve a window."""
        return Subspace.of(fitted).expand(self.coordinates(fitted, hsi, msi))

    def coordinates(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """The solution in the subspace, ``(K, y, x)``."""
        a, subspace = fitted.arrays, Subspace.of(fitted)
        estimates = [
            weight[:, None, None] * prior.coordinates(fitted.inner(prior.name), subspace, hsi, msi)
            for prior, weight in zip(self.priors, a["blend"], strict=True)
        ]
        z = np.asarray(np.sum(estimates, axis=0))
        return np.asarray(z + step_from(fitted, hsi, msi, z, a["values"], a["rotation"]))


def step_from(
    fitted: Fitted, hsi: FloatArray, msi: FloatArray, z: FloatArray, values: FloatArray, rotation: FloatArray
) -> FloatArray:
    """From a prior estimate z (K, ry, rx) to the MAP estimate.

    Parameters
    ----------
    fitted : Fitted
        Of a MAP method.
    hsi, msi : ndarray (band, y, x), (msi_band, ry, rx)
    z : ndarray (K, ry, rx)
    values, rotation : ndarray (K,), (K, K)
        ``G'G + P^-1``, diagonalised.
    """
    a, psf, subspace = fitted.arrays, fitted.psf, Subspace.of(fitted)
    left_hsi = subspace.project(hsi) - degrade(z, psf)
    left_msi = msi / a["misfit"][:, None, None] - a["level"][:, None, None] - apply_srf(z, a["sense"])
    right = apply_srf(left_msi, a["sense"].T) + adjoint(left_hsi, psf)
    return apply_srf(_solve(apply_srf(right, rotation.T), values, psf), rotation)


def tightened(fitted: Fitted, share: float) -> tuple[FloatArray, FloatArray]:
    """Values and rotation of :func:`step_from` for a prior whose errors have a share of this one's covariance."""
    a = {name: fitted.arrays[name].astype(np.float64) for name in ("values", "rotation", "sense")}
    sensed = a["sense"].T @ a["sense"]
    precision = (a["rotation"] * a["values"]) @ a["rotation"].T - sensed
    values, rotation = np.linalg.eigh(sensed + precision / share)
    return values.astype(np.float32), rotation.astype(np.float32)


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


def _solve(right: FloatArray, values: FloatArray, psf: PSF) -> FloatArray:
    """``(values + S'S)^-1 right``, exact, with the replicated edges that S has.

    Parameters
    ----------
    right : ndarray (K, ry, rx)
    values : ndarray (K,)
    """
    seen = degrade(right, psf)
    ky, kx = psf.taps()
    eig_y, vec_y = np.linalg.eigh(axis_gram(ky, psf.ratio, seen.shape[1]))
    eig_x, vec_x = np.linalg.eigh(axis_gram(kx, psf.ratio, seen.shape[2]))
    spectrum = values[:, None, None] + eig_y[None, :, None] * eig_x[None, None, :]
    inner = vec_y @ ((vec_y.T @ seen @ vec_x) / spectrum) @ vec_x.T
    return np.asarray((right - adjoint(inner.astype(right.dtype), psf)) / values[:, None, None])


class SubspaceMAP(_MAP):
    """MAP with GSA as the prior."""

    name = "subspace-map"
    title = "MAP estimate in the HSI's subspace, prior from GSA"
    source = "Wei et al. 2015, IEEE TGRS 53(7) (Bayesian fusion in a subspace); prior weight from the pair"

    def __init__(self) -> None:
        self.priors = (GSA(),)


class CoupledMAP(_MAP):
    """MAP whose prior blends CNMF and GSA as they prove one level down."""

    name = "coupled-map"
    title = "MAP estimate in the HSI's subspace, prior blended from CNMF and GSA"
    source = "This package (DESIGN 11); Wei et al. 2015 and Yokoya et al. 2012 for the parts"

    def __init__(self) -> None:
        self.priors = (CNMF(), GSA())
