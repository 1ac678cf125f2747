"""What a CSAKD network sees of a scene, and how its answer becomes spectra.

A model of coefficients sees K normalised coefficients of the pair's own HSI subspace, or of its
domain's, and the MSI regressed onto the same coefficients; a model of ``bands`` (official checkpoints
are of this kind) sees both images in the HSI's units, scaled by the scene's percentiles. Where a
model is residual, the estimate of its base joins them in the same form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import apply_srf
from csakd_geo.errors import ModelError
from csakd_geo.methods.base import Fitted
from csakd_geo.methods.estimates import CoupledMAP
from csakd_geo.methods.linear import predict, regress
from csakd_geo.methods.step import REACH, tightened
from csakd_geo.methods.subspace import Subspace, pair_subspace
from csakd_geo.pair import Pair
from csakd_geo.response import Response

if TYPE_CHECKING:
    from csakd_geo.models.card import DomainSubspace, ModelCard

FloatArray = NDArray[np.floating]

_EDGE = 2  # LR pixels on top of the wider of the base's and the network's halo
_BASES = {CoupledMAP.name: CoupledMAP}
_OWN = "subspace"  # prefix of a fit's arrays
AGREE = "agree"  # prefix of what draws an answer to the images
_SHARE = 0.2  # of the covariance of the base's prior errors: what a network's are taken to have
_LEAST_SCALE = 0.1  # brightness of a scene over its domain's, at least, and its inverse at most


def prepare(card: ModelCard, pair: Pair, response: Response, *, seed: int = 0) -> Fitted:
    """What :func:`network_inputs` needs of a scene, without the attention sums.

    Parameters
    ----------
    card : ModelCard
    pair : Pair
    response : Response
    seed : int

    Returns
    -------
    Fitted
        Of method ``csakd``.

    Raises
    ------
    ModelError
        If the card asks for a base or a normalisation that is not known here.
    """
    base = _base(card)
    inner = base.fit(pair, response, seed=seed) if base is not None else None
    arrays = _scaling(card, pair, response) if card.form == "bands" else _mapping(card, pair, response, inner)
    halo = card.halo if inner is None else max(inner.halo, card.halo) + _EDGE
    if inner is not None and card.form != "bands":  # where every band of every answer would have to be held
        halo += inner.psf.halo + REACH
        arrays |= {f"{AGREE}.{name}": array for name, array in tightened(inner, _SHARE).items()}
    near = min(halo, -(-card.halo // pair.ratio))  # a stream forgets after so many pixels of its own grid
    fitted = Fitted("csakd", response.psf, halo, arrays, near=near)
    if inner is not None:
        fitted.arrays.update(fitted.nested(inner.method, inner))
        fitted.facts[inner.method] = inner.facts
    return fitted


def _base(card: ModelCard) -> CoupledMAP | None:
    """The method whose result the network refines."""
    if card.base is None:
        return None
    if card.base not in _BASES:
        raise ModelError(
            f"Model '{card.name}' refines '{card.base}', which is no base here; known: {', '.join(_BASES)}."
        )
    return _BASES[card.base]()


def _mapping(
    card: ModelCard, pair: Pair, response: Response, inner: Fitted | None
) -> dict[str, NDArray[Any]]:
    """For a model of coefficients: the subspace, and the map from the MSI onto its coordinates."""
    kept = card.network.bands
    if card.domain is not None:
        subspace = domain_subspace(card.domain)
        _require_same_scale(card.name, subspace, pair)
    elif inner is None:
        subspace = pair_subspace(pair, response, components=kept)
    else:
        subspace = Subspace.of(inner).leading(kept)
    margin = response.psf.halo
    targets = subspace.inverse @ (pair.hsi_spectra(margin) - subspace.mean[:, None])
    to_coordinates = regress(pair.msi_spectra(response.psf, margin), targets)
    own = {f"{_OWN}.{name}": array for name, array in subspace.arrays().items()}
    return {"msi_map": to_coordinates.astype(np.float32), **own}


def domain_subspace(domain: DomainSubspace) -> Subspace:
    """The subspace that a card states."""
    basis, noise = np.array(domain.basis), np.array(domain.noise)
    inverse = basis.T / np.square(noise)
    return Subspace(np.array(domain.mean), basis, inverse, np.array(domain.deviation))


def _require_same_scale(name: str, subspace: Subspace, pair: Pair) -> None:
    """Refuse an HSI in other units than those that the domain's subspace is in."""
    spectra = pair.hsi_spectra()
    away = float(np.linalg.norm(spectra.mean(1)) / np.linalg.norm(subspace.mean))
    if not _LEAST_SCALE < away < 1 / _LEAST_SCALE:
        raise ModelError(
            f"The HSI is {away:.3g} times as bright as the scenes that model '{name}' was trained on; it may be "
            "in other units: convert it, or choose a model that is tied to no domain."
        )


def _scaling(card: ModelCard, pair: Pair, response: Response) -> dict[str, NDArray[Any]]:
    """For a model of bands: the MSI's gain and offset, and the values that span the network's range."""
    rule = card.normalisation
    if rule is None or rule.rule != "scene-percentile":
        raise ModelError(
            f"Model '{card.name}' states no scene-percentile normalisation, which a model of bands needs."
        )
    low, high = np.percentile(pair.hsi_spectra(), [rule.lower, rule.upper])
    return {
        "gain": response.gain.astype(np.float32),
        "offset": response.offset.astype(np.float32),
        "limits": np.array([low, max(high, low + 1e-12)], np.float32),
    }


@dataclass(frozen=True, slots=True, eq=False)
class BaseMap:
    """What the base's coordinates z become: ``weight @ z + level`` is what the network sees of them.

    Parameters
    ----------
    weight : ndarray (K or band, k)
    level : ndarray (K or band,)
    rest_weight, rest_level : ndarray (band, k), ndarray (band,), or None
        ``rest_weight @ z + rest_level`` is what the base has outside the subspace that the network sees,
        in the HSI's units; it joins the answer.
    """

    weight: FloatArray
    level: FloatArray
    rest_weight: FloatArray | None = None
    rest_level: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What the network sees of a window.

    Parameters
    ----------
    hsi : ndarray (K or band, y, x)
    msi : ndarray (K or msi_band, ry, rx)
    base : ndarray (K or band, ry, rx) or None
    rest : ndarray (band, ry, rx) or None
        What the base has outside the subspace that the network sees, in the HSI's units; it joins the answer.
    """

    hsi: FloatArray
    msi: FloatArray
    base: FloatArray | None = None
    rest: FloatArray | None = None


def image_inputs(
    card: ModelCard, fitted: Fitted, hsi: FloatArray, msi: FloatArray, *, anew: bool = False
) -> Inputs:
    """What the network sees of a window's two images; arguments as in :func:`network_inputs`."""
    a = fitted.arrays
    if card.form == "bands":
        slope, shift = _affine(card, fitted, hsi if anew else None)
        same_units = (msi - a["offset"][:, None, None]) / a["gain"][:, None, None]
        return Inputs(hsi * slope + shift, same_units * slope + shift)
    subspace = Subspace.of(fitted.inner(_OWN))

    def scaled(coordinates: FloatArray) -> FloatArray:
        return _pad(coordinates / subspace.deviation[:, None, None], card.network.bands)

    return Inputs(scaled(subspace.project(hsi)), scaled(predict(a["msi_map"], msi)))


def base_coordinates(card: ModelCard, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray | None:
    """The base's result in its own subspace, (k, ry, rx); None where the network has no base."""
    base = _base(card)
    return None if base is None else base.coordinates(fitted.inner(base.name), hsi, msi)


def base_map(card: ModelCard, fitted: Fitted, hsi: FloatArray | None = None) -> BaseMap | None:
    """How the base's coordinates enter the network and its answer.

    Parameters
    ----------
    card : ModelCard
    fitted : Fitted
    hsi : ndarray (band, y, x), optional
        The window, where a model of bands is scaled by it instead of by the scene.
    """
    base = _base(card)
    if base is None:
        return None
    own = Subspace.of(fitted.inner(base.name))
    if card.form == "bands":
        slope, shift = _affine(card, fitted, hsi)
        return BaseMap(own.basis * slope, own.mean * slope + shift)
    seen = Subspace.of(fitted.inner(_OWN))
    if card.domain is None and len(own.deviation) == len(seen.deviation):
        weight = np.diag(1 / seen.deviation)
        return BaseMap(_pad(weight, card.network.bands), np.zeros(card.network.bands, np.float32))
    inside, level = seen.inverse @ own.basis, seen.inverse @ (own.mean - seen.mean)
    return BaseMap(
        _pad(inside / seen.deviation[:, None], card.network.bands),
        _pad(level / seen.deviation, card.network.bands),
        own.basis - seen.basis @ inside,
        own.mean - seen.mean - seen.basis @ level,
    )


def network_inputs(
    card: ModelCard, fitted: Fitted, hsi: FloatArray, msi: FloatArray, *, anew: bool = False
) -> Inputs:
    """What the network sees of a window.

    Parameters
    ----------
    card : ModelCard
    fitted : Fitted
    hsi : ndarray (band, y, x)
    msi : ndarray (msi_band, ry, rx)
    anew : bool
        Scale a model of bands by this window instead of by the scene.
    """
    seen = image_inputs(card, fitted, hsi, msi, anew=anew)
    z, mapped = base_coordinates(card, fitted, hsi, msi), base_map(card, fitted, hsi if anew else None)
    if z is None or mapped is None:
        return seen
    base = _moved(mapped.weight, mapped.level, z)
    if mapped.rest_weight is None or mapped.rest_level is None:
        return replace(seen, base=base)
    return replace(seen, base=base, rest=_moved(mapped.rest_weight, mapped.rest_level, z))


def _moved(weight: FloatArray, level: FloatArray, z: FloatArray) -> FloatArray:
    return np.asarray(apply_srf(z, weight) + level[:, None, None].astype(z.dtype))


def output_map(
    card: ModelCard, fitted: Fitted, hsi: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """How the network's answer becomes a spectrum: ``weight @ answer + level``.

    Parameters
    ----------
    card : ModelCard
    fitted : Fitted
    hsi : ndarray (band, y, x), optional
        The window, where a model of bands is scaled by it instead of by the scene.

    Returns
    -------
    weight : ndarray (band, K), or () for a model of bands, whose answer is only scaled
    level : ndarray (band,)
    """
    if card.form == "bands":
        slope, shift = _affine(card, fitted, hsi)
        return np.asarray(1 / slope, np.float32), np.full(card.network.bands, -shift / slope, np.float32)
    subspace = Subspace.of(fitted.inner(_OWN))
    weight = np.zeros((len(subspace.mean), card.network.bands), np.float32)
    weight[:, : len(subspace.deviation)] = subspace.basis * subspace.deviation
    return weight, subspace.mean.astype(np.float32)


def network_output(
    weight: FloatArray, level: FloatArray, output: FloatArray, rest: FloatArray | None = None
) -> FloatArray:
    """The network's answer (K or band, y, x) as spectra (band, y, x); see :func:`output_map`."""
    cube = output * weight if weight.ndim == 0 else apply_srf(output, weight)
    cube += level[:, None, None]
    if rest is not None:
        cube += rest
    return np.asarray(cube)


def _affine(card: ModelCard, fitted: Fitted, hsi: FloatArray | None) -> tuple[np.float32, np.float32]:
    """Slope and shift from HSI units to the network's range, of the scene or of a window that is given."""
    rule = card.normalisation
    if rule is None:
        raise ModelError(f"Model '{card.name}' states no normalisation.")
    limits = fitted.arrays["limits"] if hsi is None else np.percentile(hsi, [rule.lower, rule.upper])
    slope = (rule.high - rule.low) / max(float(limits[1] - limits[0]), 1e-12)
    return np.float32(slope), np.float32(rule.low - float(limits[0]) * slope)


def _pad(x: FloatArray, rows: int) -> FloatArray:
    """Zero rows for an HSI that has fewer directions than the network takes."""
    return np.pad(x, ((0, rows - len(x)), *((0, 0),) * (x.ndim - 1))) if len(x) < rows else x
