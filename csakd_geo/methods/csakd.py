"""The network as a method: what it sees of a scene, and how its answer becomes a cube.

A ``subspace`` model sees K normalised coefficients of the pair's own HSI subspace, the MSI
regressed onto the same coefficients, and the base estimate; a ``bands`` model (official
checkpoints) sees both images in the HSI's units, scaled to [-1, 1] by the scene's percentiles.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import ModelError
from csakd_geo.methods.base import Fitted
from csakd_geo.methods.linear import predict, regress
from csakd_geo.methods.subspace import CoupledMAP, Subspace
from csakd_geo.pair import Pair
from csakd_geo.response import Response

if TYPE_CHECKING:
    from csakd_geo.models.attention import AttentionSums
    from csakd_geo.models.card import ModelCard
    from csakd_geo.models.checkpoint import Model

FloatArray = NDArray[np.floating]

_EDGE = 2  # LR pixels on top of the wider of the base's and the network's halo
_BASES = {CoupledMAP.name: CoupledMAP}


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
                hsi, msi, _ = network_inputs(model.card, fitted, block.hsi, block.msi)
                part = model.network.attention_sums(_tensor(hsi, self.device), _tensor(msi, self.device))
                sums = part if sums is None or part is None else sums + part
            if sums is not None:
                fitted.arrays.update({f"attention.{k}": v for k, v in sums.to_arrays().items()})
        return fitted

    def apply(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Run base and network on a window."""
        import torch

        model = _load(self.path, self.device)
        hsi_in, msi_in, base = network_inputs(model.card, fitted, hsi, msi, anew=self.statistics == "tile")
        with torch.inference_mode():
            output, _ = model.network(
                _tensor(hsi_in, self.device),
                _tensor(msi_in, self.device),
                base=None if base is None else _tensor(base, self.device),
                statistics=_sums(fitted),
            )
        return network_output(
            model.card, fitted, output[0].float().cpu().numpy(), hsi, anew=self.statistics == "tile"
        )


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
    if card.form == "bands":
        return _prepare_bands(card, pair, response)
    if card.base not in _BASES:
        raise ModelError(
            f"Model '{card.name}' refines '{card.base}', which is no base here; known: {', '.join(_BASES)}."
        )
    base = _BASES[card.base]()
    inner = base.fit(pair, response, seed=seed)
    subspace, psf = Subspace.of(inner), response.psf
    if len(subspace.deviation) > card.network.bands:
        raise ModelError(
            f"Model '{card.name}' sees {card.network.bands} coefficients, but its base has "
            f"{len(subspace.deviation)}; take a model of at least that many."
        )
    margin = psf.halo
    targets = subspace.inverse @ (pair.hsi_spectra(margin) - subspace.mean[:, None])
    to_coordinates = regress(pair.msi_spectra(psf, margin), targets)
    fitted = Fitted(
        CSAKD.name,
        psf,
        max(inner.halo, card.halo) + _EDGE,
        {"msi_map": to_coordinates.astype(np.float32)},
        {base.name: inner.facts},
    )
    fitted.arrays.update(fitted.nested(base.name, inner))
    return fitted


def _prepare_bands(card: ModelCard, pair: Pair, response: Response) -> Fitted:
    rule = card.normalisation
    if rule is None or rule.rule != "scene-percentile":
        raise ModelError(
            f"Model '{card.name}' states no scene-percentile normalisation, which a model of bands needs."
        )
    if card.network.residual:
        raise ModelError(f"Model '{card.name}' is residual in the band domain, which is not supported here.")
    low, high = np.percentile(pair.hsi_spectra(), [rule.lower, rule.upper])
    arrays = {
        "gain": response.gain.astype(np.float32),
        "offset": response.offset.astype(np.float32),
        "limits": np.array([low, max(high, low + 1e-12)], np.float32),
    }
    return Fitted(CSAKD.name, response.psf, card.halo, arrays)


def network_inputs(
    card: ModelCard, fitted: Fitted, hsi: FloatArray, msi: FloatArray, *, anew: bool = False
) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    """What the network sees of a window.

    Parameters
    ----------
    card : ModelCard
    fitted : Fitted
    hsi : ndarray (band, y, x)
    msi : ndarray (msi_band, ry, rx)
    anew : bool
        Scale a model of bands by this window instead of by the scene.

    Returns
    -------
    hsi : ndarray (K or band, y, x)
    msi : ndarray (K or msi_band, ry, rx)
    base : ndarray (K, ry, rx) or None
    """
    a = fitted.arrays
    if card.form == "bands":
        slope, shift = _mapping(card, fitted, hsi, anew)
        same_units = (msi - a["offset"][:, None, None]) / a["gain"][:, None, None]
        return hsi * slope + shift, same_units * slope + shift, None
    inner = _inner(card, fitted)
    subspace = Subspace.of(inner)
    scale = 1 / subspace.deviation[:, None, None]
    base = _BASES[str(card.base)]().coordinates(inner, hsi, msi)
    inputs = (subspace.project(hsi), predict(a["msi_map"], msi), base)
    padded = [_pad(x * scale, card.network.bands) for x in inputs]
    return padded[0], padded[1], padded[2]


def network_output(
    card: ModelCard, fitted: Fitted, output: FloatArray, hsi: FloatArray, *, anew: bool = False
) -> FloatArray:
    """The network's answer as a cube (band, ry, rx) in the HSI's units; inverse of the inputs' scaling."""
    if card.form == "bands":
        slope, shift = _mapping(card, fitted, hsi, anew)
        return np.asarray((output - shift) / slope)
    subspace = Subspace.of(_inner(card, fitted))
    kept = len(subspace.deviation)
    return subspace.expand(output[:kept] * subspace.deviation[:, None, None])


def _inner(card: ModelCard, fitted: Fitted) -> Fitted:
    return fitted.inner(str(card.base))


def _mapping(card: ModelCard, fitted: Fitted, hsi: FloatArray, anew: bool) -> tuple[np.float32, np.float32]:
    """Slope and shift from HSI units to the network's range."""
    rule = card.normalisation
    if rule is None:
        raise ModelError(f"Model '{card.name}' states no normalisation.")
    limits = np.percentile(hsi, [rule.lower, rule.upper]) if anew else fitted.arrays["limits"]
    slope = (rule.high - rule.low) / max(float(limits[1] - limits[0]), 1e-12)
    return np.float32(slope), np.float32(rule.low - float(limits[0]) * slope)


def _pad(x: FloatArray, channels: int) -> FloatArray:
    """Zero channels for an HSI that has fewer directions than the network takes."""
    return np.pad(x, ((0, channels - len(x)), (0, 0), (0, 0))) if len(x) < channels else x
