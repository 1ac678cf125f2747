"""Networks, their cards and files.

Importing this package does not import torch; the names that need it are fetched on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .attention import AttentionSums
from .card import DomainSubspace, ModelCard, Normalisation, TrainingData, check
from .checkpoint import Model, file_sha256, load_model, read_card, save_model, weights_sha256
from .config import VARIANTS, NetworkConfig
from .registry import ModelEntry, bundled_models, find_model, fitting_models, model_folders, user_models

if TYPE_CHECKING:
    from .network import DualTwoStream, count_parameters

__all__ = [
    "VARIANTS",
    "AttentionSums",
    "DomainSubspace",
    "DualTwoStream",
    "Model",
    "ModelCard",
    "ModelEntry",
    "NetworkConfig",
    "Normalisation",
    "TrainingData",
    "bundled_models",
    "check",
    "count_parameters",
    "file_sha256",
    "find_model",
    "fitting_models",
    "load_model",
    "model_folders",
    "read_card",
    "save_model",
    "user_models",
    "weights_sha256",
]

_NEEDS_TORCH = {"DualTwoStream": ".network", "count_parameters": ".network"}


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(importlib.import_module(_NEEDS_TORCH[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
