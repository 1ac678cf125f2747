"""The network as a method: what it sees of a scene, and how its answer becomes a cube.

A ``subspace`` model sees K normalised coefficients of the pair's own HSI subspace and the MSI
regressed onto the same coefficients; a ``bands`` model (official checkpoints are of this kind)
sees both images in the HSI's units, scaled by the scene's percentiles. Where a model is
residual, the estimate of its base joins them in the same form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import apply_srf
from csakd_geo.errors import ModelError
from csakd_geo.methods.base import Fitted
from csakd_geo.methods.linear import predict, regress
from csakd_geo.methods.subspace import CoupledMAP, Subspace, pair_subspace
from csakd_geo.pair import Pair
from csakd_geo.response import Response

if TYPE_CHECKING:
    from csakd_geo.models.attention import AttentionSums
    from csakd_geo.models.card import DomainSubspace, ModelCard
    from csakd_geo.models.checkpoint import Model

FloatArray = NDArray[np.floating]

_EDGE = 2  # LR pixels on top of the wider of the base's and the network's halo
_BASES = {CoupledMAP.name: CoupledMAP}
_OWN = "subspace"  # prefix of a fit's arrays
_LEAST_SCALE = 0.1  # brightness of a scene over its domain's, at least, and its inverse at most


class CSAKD:
    """A CSAKD network, from a bundle or an official checkpoint.

    Parameters
    ----------
    path : Path
        Model file; workers load it by themselves.
    device : str
        ``cpu`` or ``cuda[:N]``.
    statistics : {"scene", "tile"}
        Whether attention and scaling are taken once from the scene or anew in every window.
    """

    name = "csakd"
    title = "CSAKD: dual two-stream network with cross self-attention fusion, refining coupled-map"
    source = "Hsu et al., arXiv 2406.19666 and 2501.07953; residual subspace form of this package"

    def __init__(self, path: Path, *, device: str = "cpu", statistics: str = "scene") -> None:
        self.path, self.device, self.statistics = Path(path), device, statistics

    def fit(self, pair: Pair, response: Response, *, seed: int = 0) -> Fitted:
        """Everything the network needs of the scene: base, subspace or scale, attention sums."""
        model = _load(self.path, self.device)
        fitted = prepare(model.card, pair, response, seed=seed)
        if self.statistics == "scene":
            sums = None
            for block in pair.blocks:
                seen = network_inputs(model.card, fitted, block.hsi, block.msi)
                part = model.network.attention_sums(
                    _tensor(seen.hsi, self.device), _tensor(seen.msi, self.device)
                )
                sums = part if sums is None or part is None else sums + part
            if sums is not None:
                fitted.arrays.update({f"attention.{k}": v for k, v in sums.to_arrays().items()})
        return fitted

    def apply(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Run base and network on a window."""
        import torch

        model = _load(self.path, self.device)
        anew = self.statistics == "tile"
        seen = network_inputs(model.card, fitted, hsi, msi, anew=anew)
        with torch.inference_mode():
            output, _ = model.network(
                _tensor(seen.hsi, self.device),
                _tensor(seen.msi, self.device),
                base=None if seen.base is None else _tensor(seen.base, self.device),
                statistics=_sums(fitted),
            )
        weight, level = output_map(model.card, fitted, hsi if anew else None)
        return network_output(weight, level, output[0].float().cpu().numpy(), seen.rest)


def _load(path: Path, device: str) -> Model:
    """A model, once per process, device and state of its file, which another run may replace."""
    try:
        state = path.stat()
    except OSError as error:
        raise ModelError(f"Model {path} cannot be read: {error.strerror or error}.") from error
    return _loaded(str(path), device, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=4)
def _loaded(path: str, device: str, *_state: int) -> Model:
    from csakd_geo.models.checkpoint import load_model

    model = load_model(path)
    model.network.to(device)
    return model


def _tensor(array: FloatArray, device: str) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array[None], dtype=np.float32)).to(device)


def _sums(fitted: Fitted) -> AttentionSums | None:
    if "attention.qk" not in fitted.arrays:
        return None
    from csakd_geo.models.attention import AttentionSums

    return AttentionSums(*(fitted.arrays[f"attention.{k}"] for k in ("qk", "qq", "kk")))


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
        If the card asks for a base or a normalisation that is not known here, or for fewer
        coefficients than the base has.
    """
    base = _base(card)
    inner = base.fit(pair, response, seed=seed) if base is not None else None
    arrays = _scaling(card, pair, response) if card.form == "bands" else _mapping(card, pair, response, inner)
    halo = card.halo if inner is None else max(inner.halo, card.halo) + _EDGE
    fitted = Fitted(CSAKD.name, response.psf, halo, arrays)
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
        subspace = Subspace.of(inner)
    if len(subspace.deviation) > kept:
        raise ModelError(
            f"Model '{card.name}' sees {kept} coefficients, but its base has "
            f"{len(subspace.deviation)}; take a model of at least that many."
        )
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
class Inputs:
    """What the network sees of a window.

    Parameters
    ----------
    hsi : ndarray (K or band, y, x)
    msi : ndarray (K or msi_band, ry, rx)
    base : ndarray (K or band, ry, rx) or None
    rest : ndarray (band, ry, rx) or None
        What the base has outside the domain's subspace, in the HSI's units; it joins the answer.
    """

    hsi: FloatArray
    msi: FloatArray
    base: FloatArray | None = None
    rest: FloatArray | None = None


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
    a, base = fitted.arrays, _base(card)
    inner = None if base is None else fitted.inner(base.name)
    if card.form == "bands":
        slope, shift = _affine(card, fitted, hsi, anew)
        same_units = (msi - a["offset"][:, None, None]) / a["gain"][:, None, None]
        first = Inputs(hsi * slope + shift, same_units * slope + shift)
        if base is None or inner is None:
            return first
        return replace(first, base=base.apply(inner, hsi, msi) * slope + shift)
    subspace = Subspace.of(fitted.inner(_OWN))

    def scaled(coordinates: FloatArray) -> FloatArray:
        return _pad(coordinates / subspace.deviation[:, None, None], card.network.bands)

    first = Inputs(scaled(subspace.project(hsi)), scaled(predict(a["msi_map"], msi)))
    if base is None or inner is None:
        return first
    if card.domain is None:
        return replace(first, base=scaled(base.coordinates(inner, hsi, msi)))
    cube = base.apply(inner, hsi, msi)
    inside = subspace.project(cube)
    return replace(first, base=scaled(inside), rest=cube - subspace.expand(inside))


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
        slope, shift = _affine(card, fitted, hsi, hsi is not None)
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


def _affine(
    card: ModelCard, fitted: Fitted, hsi: FloatArray | None, anew: bool
) -> tuple[np.float32, np.float32]:
    """Slope and shift from HSI units to the network's range."""
    rule = card.normalisation
    if rule is None:
        raise ModelError(f"Model '{card.name}' states no normalisation.")
    limits = fitted.arrays["limits"]
    if anew and hsi is not None:
        limits = np.percentile(hsi, [rule.lower, rule.upper])
    slope = (rule.high - rule.low) / max(float(limits[1] - limits[0]), 1e-12)
    return np.float32(slope), np.float32(rule.low - float(limits[0]) * slope)


def _pad(x: FloatArray, channels: int) -> FloatArray:
    """Zero channels for an HSI that has fewer directions than the network takes."""
    return np.pad(x, ((0, channels - len(x)), (0, 0), (0, 0))) if len(x) < channels else x
