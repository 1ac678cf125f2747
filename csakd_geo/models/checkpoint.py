"""Reading and writing models: one ``.safetensors`` bundle with its card, or an official ``.pth``."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OutputError
from .card import ModelCard, Normalisation
from .config import NetworkConfig
from .official import infer_config, network_state

if TYPE_CHECKING:
    from torch import Tensor

    from .network import DualTwoStream

_CARD_KEY = "csakd_geo_card"
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Model:
    """A network that is ready for inference, with its facts.

    Parameters
    ----------
    network
        In evaluation mode, float32, on the CPU.
    card
        Facts; those that an imported file does not state are None.
    path
        Where it was read from.
    sha256
        Hash of the whole file, weights and card alike (`card.sha256` is that of the weights alone).
    """

    network: DualTwoStream
    card: ModelCard
    path: Path
    sha256: str


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read a bundle of this package, or a ``.pth`` checkpoint of the official code.

    The kind of file is found by content. A ``.pth`` is read without ever running pickled code.

    Raises
    ------
    ModelError
        The file is missing, damaged, hostile or unrelated, or its card contradicts its weights.
    """
    path = Path(path)
    data = _read(path)
    if _is_safetensors(data):
        card, state = _read_bundle(path, data)
        config = card.network
    elif data[:4] == b"PK\x03\x04" or data[:1] == b"\x80":
        state = network_state(_read_pickle(path, data), source=path.name)
        _refuse_bombs(path, state, len(data))
        config = infer_config(state, source=path.name)
        card = _import_card(path, config)
    else:
        raise ModelError(f"{path} is no model: expected a .safetensors bundle or a PyTorch .pth checkpoint.")
    network = _build(path, config, state)
    digest = weights_sha256(network.state_dict())
    if card.sha256 not in (None, digest):
        raise ModelError(f"{path} is damaged: its weights do not have the hash that its card states.")
    card = card.model_copy(update={"sha256": digest})
    return Model(network=network, card=card, path=path, sha256=hashlib.sha256(data).hexdigest())


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Read the card of a bundle without its weights (and without torch).

    Raises
    ------
    ModelError
        The file is missing, damaged, or not a bundle of this package.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            header = file.read(length) if len(start) == 8 and length <= _LONGEST_HEADER else b""
    except OSError as error:
        raise ModelError(f"Model {path} cannot be read: {error.strerror or error}.") from error
    return _card_of(path, start + header)


def save_model(path: str | os.PathLike[str], network: DualTwoStream, card: ModelCard) -> ModelCard:
    """Write weights and card as one bundle that appears only when whole.

    Parameters
    ----------
    path
        Target, replaced if it exists; must end in ``.safetensors``.
    network
        Network to store, in float32.
    card
        Its facts; `sha256` is filled in.

    Returns
    -------
    ModelCard
        The card as stored.

    Raises
    ------
    ModelError
        The card describes another network, or the name has another ending.
    OutputError
        The folder cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ModelError(f"A model is written as one .safetensors file; {path.name} ends otherwise.")
    if card.network != network.config:
        raise ModelError(f"The card of {card.name} describes another network than the one to be saved.")
    state = {key: tensor.detach().cpu().float().contiguous() for key, tensor in network.state_dict().items()}
    card = card.model_copy(update={"sha256": weights_sha256(state)})
    data = save(state, metadata={_CARD_KEY: card.to_json()})
    part = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder may be the very thing that is missing
            part.unlink(missing_ok=True)
        raise OutputError(f"Model {path} cannot be written: {error.strerror or error}.") from error
    return card


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hash of a model's whole file, `Model.sha256`, without building the network.

    Raises
    ------
    ModelError
        The file is missing or cannot be read.
    """
    return hashlib.sha256(_read(Path(path))).hexdigest()


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and float32 values of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(state):
        array = state[key].detach().cpu().float().contiguous().numpy()
        digest.update(f"{key}{list(array.shape)}".encode())
        digest.update(array.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"Model {path} cannot be read: {error.strerror or error}.") from error


def _is_safetensors(data: bytes) -> bool:
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= _LONGEST_HEADER


def _card_of(path: Path, data: bytes) -> ModelCard:
    """Read the card from a bundle's first bytes."""
    length = int.from_bytes(data[:8], "little")
    if not _is_safetensors(data) or len(data) < 8 + length:
        raise ModelError(f"{path} is no whole .safetensors bundle; it may be truncated, so fetch it again.")
    try:
        text = json.loads(data[8 : 8 + length])["__metadata__"][_CARD_KEY]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{path} is a .safetensors file without a csakd_geo model card; expected one written by save_model."
        ) from error
    return ModelCard.from_json(text)


def _read_bundle(path: Path, data: bytes) -> tuple[ModelCard, dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    card = _card_of(path, data)
    try:
        state: dict[str, Tensor] = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path} is damaged or truncated ({error}); fetch it again.") from error
    return card, state


def _read_pickle(path: Path, data: bytes) -> Any:
    """Unpickle tensors and plain containers only."""
    import torch

    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is damaged or holds Python objects besides tensors, which are refused because they can "
            "run code; store its state_dict() alone."
        ) from error
    except Exception as error:  # a damaged archive fails in many ways, none of them worth a traceback
        raise ModelError(f"{path} is damaged or no PyTorch checkpoint; fetch it again.") from error


def _refuse_bombs(path: Path, state: Mapping[str, Tensor], size: int) -> None:
    """Refuse tensors that claim far more numbers than the file can hold."""
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if claimed > 4 * size:
        raise ModelError(f"{path} is damaged: its tensors claim {claimed} bytes, but the file has {size}.")


def _build(path: Path, config: NetworkConfig, state: Mapping[str, Tensor]) -> DualTwoStream:
    import torch

    from .network import DualTwoStream

    with torch.device("meta"):
        network = DualTwoStream(config)
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if found != expected:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise ModelError(
            f"{path} does not hold the network that it describes: {len(wrong)} weights are missing, left over "
            f"or of another shape, the first being {wrong[0]}."
        )
    if not all(tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in state.values()):
        raise ModelError(f"{path} holds weights that are not finite numbers; train or fetch it again.")
    network.load_state_dict({key: t.float().contiguous() for key, t in state.items()}, assign=True)
    return network.eval()


def _import_card(path: Path, config: NetworkConfig) -> ModelCard:
    """Make the card of a checkpoint that has none: what the official code does, and nothing more."""
    return ModelCard(
        name=path.stem,
        network=config,
        normalisation=Normalisation(rule="scene-percentile", lower=0.1, upper=99.9, low=-1.0, high=1.0),
        provenance={"imported_from": path.name},
    )
