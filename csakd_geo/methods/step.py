"""From a prior estimate of a window to the MAP estimate.

z minimises

    |y - S z|^2 + |G z - m|^2 + (z - z0)' (P^-1 x C) (z - z0)

with y the HSI's coordinates, S the PSF and decimation, G the MSI's response in the subspace over its own misfit, z0 a
prior estimate and P the covariance of its errors over the coordinates. Over the pixels, C is 1 where errors are taken
for independent. With A = G'G + P^-1 diagonal in a rotated basis each component is then a scalar image, and by the matrix
inversion lemma the only system to solve lives on the LR grid, where S S' is a small separable kernel.

Where they are tied (:mod:`csakd_geo.methods.ties`), C = b W + l L with W what each pixel's precision is over the scene's
and L the Laplacian of the graph whose ties W strengthens or loosens. That system has no closed form; the one for
independent errors brings its eigenvalues together, and a fixed number of Chebyshev's steps (Saad 2003, section 12.3.2)
goes most of the way, the same for every window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import PSF, adjoint, apply_srf, axis_gram, degrade
from csakd_geo.methods.base import Fitted
from csakd_geo.methods.subspace import Subspace
from csakd_geo.methods.ties import FIRMEST, Ties, find_surprise

FloatArray = NDArray[np.floating]

REACH = 6  # LR pixels beside the PSF's after which a step has decayed to 1e-5 of a scene
_LOOSE = (
    0.04  # b: precision of a pixel's error by itself, over that of independent errors (benchmarks/quality.py)
)
_TIGHT = 0.75  # l over the ratio: more pixels of one surface lie in an HSI pixel (benchmarks/quality.py)
_NEAR = 5.0  # l over the precision of the independent errors that stand in for the tied ones
_STEPS, _LOWEST = 24, 0.08  # Chebyshev's, and the least eigenvalue that they go for


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """The system of independent errors on a window, ready to be solved.

    Parameters
    ----------
    values : ndarray (K,)
        Of ``G'G + P^-1`` in its own basis.
    psf : PSF
    vectors : tuple of ndarray (y, y), (x, x)
        Of ``S S'`` along both axes.
    spectrum : ndarray (K, y, x)
    """

    values: FloatArray
    psf: PSF
    vectors: tuple[FloatArray, FloatArray]
    spectrum: FloatArray

    @classmethod
    def of(cls, values: FloatArray, psf: PSF, height: int, width: int) -> Known:
        """On a window of so many LR pixels."""
        ky, kx = psf.taps()
        eig_y, vec_y = np.linalg.eigh(axis_gram(ky, psf.ratio, height))
        eig_x, vec_x = np.linalg.eigh(axis_gram(kx, psf.ratio, width))
        spectrum = values[:, None, None] + eig_y[None, :, None] * eig_x[None, None, :]
        return cls(values, psf, (vec_y, vec_x), spectrum)

    def solve(self, right: FloatArray) -> FloatArray:
        """``(values + S'S)^-1 right``, exact, with the replicated edges that S has.

        Parameters
        ----------
        right : ndarray (K, ry, rx)
            Becomes the solution: one more would not fit beside it.
        """
        vec_y, vec_x = self.vectors
        for k, value in enumerate(self.values):
            plane = right[k : k + 1]
            seen = vec_y.T @ degrade(plane, self.psf)[0] @ vec_x
            inner = vec_y @ (seen / self.spectrum[k]) @ vec_x.T
            plane -= adjoint(inner[None].astype(right.dtype), self.psf)
            plane /= right.dtype.type(value)
        return right


def prepare_errors(
    sense: FloatArray, precision: FloatArray, *, tied_at: int | None = None
) -> dict[str, FloatArray]:
    """What a prior's errors are taken for, and the basis in which that system is diagonal.

    Parameters
    ----------
    sense : ndarray (msi_band, K)
        G.
    precision : ndarray (K, K)
        P^-1.
    tied_at : int, optional
        The ratio, where errors are tied.
    """
    alone = 1.0 if tied_at is None else _TIGHT * tied_at / _NEAR
    values, rotation = np.linalg.eigh(sense.T @ sense + alone * precision)
    arrays = {"precision": precision, "values": values, "rotation": rotation}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def tightened(fitted: Fitted, share: float) -> dict[str, FloatArray]:
    """:func:`prepare_errors` for a share of a fit's P."""
    sense, precision = (fitted.arrays[name].astype(np.float64) for name in ("sense", "precision"))
    return prepare_errors(sense, precision / share, tied_at=fitted.psf.ratio if _is_tied(fitted) else None)


def step_from(
    fitted: Fitted, hsi: FloatArray, msi: FloatArray, z: FloatArray, errors: dict[str, FloatArray]
) -> FloatArray:
    """From a prior estimate to the MAP estimate.

    Parameters
    ----------
    fitted : Fitted
        Of a MAP method.
    hsi, msi : ndarray (band, y, x), (msi_band, ry, rx)
    z : ndarray (K, ry, rx)
        The prior estimate.
    errors : dict
        See :func:`prepare_errors`; the fit's own arrays hold those of its prior.

    Returns
    -------
    ndarray (K, ry, rx)
        What to add to z.
    """
    known = Known.of(errors["values"], fitted.psf, *hsi.shape[1:])
    innovation = unexplained(fitted, msi, z)
    left = known.solve(apply_srf(_pull(fitted, hsi, innovation, z), errors["rotation"].T))
    if _is_tied(fitted):
        surprise = find_surprise(innovation, fitted.arrays["surprise"])
        left = _tied(known, Ties.of(msi, fitted.arrays["likeness"], surprise), errors, left)
    return apply_srf(left, errors["rotation"])


def _is_tied(fitted: Fitted) -> bool:
    return "likeness" in fitted.arrays


def _tied(known: Known, ties: Ties, errors: dict[str, FloatArray], left: FloatArray) -> FloatArray:
    """The step for tied errors from that for independent ones, both in the basis of the latter."""
    tight = _TIGHT * known.psf.ratio
    alone = tight / _NEAR
    precision = errors["rotation"].T @ errors["precision"] @ errors["rotation"]
    own = np.float32(_LOOSE) * ties.own - np.float32(alone)

    def beyond(w: FloatArray) -> FloatArray:
        """What ties change of the system, over the system without: its eigenvalues less 1."""
        differing = np.float32(tight) * ties.differences(w)
        differing += own * w
        return known.solve(apply_srf(differing, precision))

    highest = FIRMEST * (_LOOSE + 2 * tight) / alone
    middle, half = (highest + _LOWEST) / 2, (highest - _LOWEST) / 2
    ahead = half / middle
    step = left / np.float32(middle)
    found = step.copy()
    for _ in range(_STEPS - 1):
        left -= step
        left -= beyond(step)
        following = 1 / (2 * middle / half - ahead)
        step *= np.float32(following * ahead)
        step += np.float32(2 * following / half) * left
        ahead = following
        found += step
    return found


def unexplained(fitted: Fitted, msi: FloatArray, z: FloatArray) -> FloatArray:
    """``m - G z``: the MSI less what an estimate lets expect, over its misfit."""
    a = fitted.arrays
    return np.asarray(msi / a["misfit"][:, None, None] - a["level"][:, None, None] - apply_srf(z, a["sense"]))


def _pull(fitted: Fitted, hsi: FloatArray, innovation: FloatArray, z: FloatArray) -> FloatArray:
    """Where both images pull an estimate, ``S'(y - S z) + G'(m - G z)``."""
    psf = fitted.psf
    pull = apply_srf(innovation, fitted.arrays["sense"].T)
    for k, seen in enumerate(Subspace.of(fitted).project(hsi)):
        left_hsi = seen - degrade(z[k : k + 1], psf)
        pull[k : k + 1] += adjoint(left_hsi, psf)
    return pull
