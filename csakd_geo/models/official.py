"""State dicts of the official code: finding the network in them and its shape from its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from .config import Attention, NetworkConfig

if TYPE_CHECKING:
    from torch import Tensor

#: Where trainers put the state dict inside a checkpoint.
_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights")
_NESTING = 3
_ANCHOR = "hconv1.weight"


def network_state(content: Any, *, source: str) -> dict[str, Tensor]:
    """Find the one network in a checkpoint and strip the prefixes of its keys.

    Any prefix goes (``decoder.``, ``module.``), and so do the ``_orig_mod.`` of compiled networks.

    Parameters
    ----------
    content
        What the checkpoint holds: a state dict, or dicts around one.
    source
        Name of the file, for messages.

    Returns
    -------
    dict
        Tensors by bare key, such as ``hconv1.weight``.

    Raises
    ------
    ModelError
        No such network, more than one, or weights that belong to something else.
    """
    state = _unwrap(content, _NESTING)
    prefixes = [key.removesuffix(_ANCHOR) for key in state if f".{key}".endswith(f".{_ANCHOR}")]
    if not prefixes:
        raise ModelError(f"{source} holds no dual two-stream network; expected a CSAKD checkpoint.")
    if len(prefixes) > 1:
        raise ModelError(
            f"{source} holds {len(prefixes)} networks ({', '.join(sorted(prefixes))}); store one of them alone."
        )
    foreign = [key for key in state if not key.startswith(prefixes[0])]
    if foreign:
        raise ModelError(
            f"{source} holds {len(foreign)} entries besides the network, the first being {foreign[0]}; store "
            "its state_dict() alone."
        )
    return {key.removeprefix(prefixes[0]): tensor for key, tensor in state.items()}


def infer_config(state: Mapping[str, Tensor], *, source: str) -> NetworkConfig:
    """Read a network's shape from the shapes of its tensors.

    Parameters
    ----------
    state
        Tensors by bare key.
    source
        Name of the file, for messages.

    Raises
    ------
    ModelError
        Tensors are missing, or no network has these shapes.
    """
    try:
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        features, bands = shapes["hconv1.weight"][:2]
        msi_bands = shapes["mconv1.weight"][1]
        growth = shapes["hfeat.0.MFB1.conv1.weight"][0]
        student = shapes["hfeat.0.MFB1.conv1.weight"][1] != features
        depths = (
            _depth(state, "hmfeat"),
            _depth(state, "mhfeat"),
            _depth(state, "hfeat"),
            _depth(state, "mfeat"),
        )
        return NetworkConfig(
            bands=bands,
            msi_bands=msi_bands,
            features=features,
            growth=growth,
            depths=depths,
            student=student,
            groups=features // shapes["fuse.weight"][1],
            fuser=_fuser(state),
            attention=_attention(state),
            residual=shapes["hmconv1.weight"][1] > bands + msi_bands,
            owns_unused=student and depths[0] > 0,
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ModelError(
            f"{source} holds no whole dual two-stream network ({error} is missing or misshapen)."
        ) from error


def _unwrap(content: Any, levels: int) -> dict[str, Tensor]:
    """Return the first dict of tensors that holds a network; empty where there is none."""
    from torch import Tensor

    if not isinstance(content, Mapping):
        return {}
    tensors = {
        key.replace("_orig_mod.", ""): value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if any(f".{key}".endswith(f".{_ANCHOR}") for key in tensors):
        return tensors
    inner = (content[name] for name in _CONTAINERS if levels and name in content)
    return next((state for item in inner if (state := _unwrap(item, levels - 1))), {})


def _depth(state: Mapping[str, Tensor], name: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(f"{name}.")})


def _fuser(state: Mapping[str, Tensor]) -> int:
    for number, key in (
        (3, "fuse_att.attention_weights.weight"),
        (2, "fuse_att.query_conv.weight"),
        (1, "fuse_att.weights"),
        (4, "fuse_att.attention_conv.weight"),
    ):
        if key in state:
            return number
    return 0


def _attention(state: Mapping[str, Tensor]) -> Attention:
    return "cross" if "fuse_att.temperature" in state else "released"
