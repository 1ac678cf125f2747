"""Finding models by name, and those that fit a pair."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from ..errors import ModelError
from .card import Axis, ModelCard, check
from .checkpoint import read_card

#: Environment variable: folders of user models, joined by the platform's path separator.
FOLDERS_VARIABLE = "CSAKD_GEO_MODELS"
_SUFFIXES = (".safetensors", ".pth", ".pt")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model on disk whose card has been read, but not its weights."""

    path: Path
    card: ModelCard


def bundled_models() -> list[Path]:
    """List the models that come with this package."""
    return _models_in(Path(str(resources.files(__package__).joinpath("weights"))))


def user_models() -> list[Path]:
    """List the user's models: in the folders of CSAKD_GEO_MODELS, or else in the user data folder."""
    return [path for folder in model_folders() for path in _models_in(folder)]


def model_folders() -> list[Path]:
    """Return the folders that are searched for the user's models, whether they exist or not."""
    stated = os.environ.get(FOLDERS_VARIABLE)
    if stated:
        return [Path(part).expanduser() for part in stated.split(os.pathsep) if part]
    import platformdirs

    return [platformdirs.user_data_path("csakd-geo", appauthor=False) / "models"]


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Find a model file.

    Parameters
    ----------
    name_or_path
        Path of a file, or the name of a user's or bundled model (its file name, with or without ending);
        a user's model hides a bundled one of the same name.

    Raises
    ------
    ModelError
        There is no such model.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    known = user_models() + bundled_models()
    name = os.fspath(name_or_path)
    for candidate in known:
        if name in (candidate.stem, candidate.name):
            return candidate
    names = ", ".join(dict.fromkeys(candidate.stem for candidate in known)) or "none"
    raise ModelError(f"There is no model {name!r}, neither as a file nor by name; known models: {names}.")


def fitting_models(hsi_axis: Axis, msi_axis: Axis, *, ratio: int) -> list[ModelEntry]:
    """List the models that are known to fit a pair, best first.

    Models made for exactly these bands come first, then those that take any; the user's before bundled
    ones. A model whose card leaves ratio or band centres open is never listed.

    Parameters
    ----------
    hsi_axis, msi_axis
        Spectral axes of the good bands.
    ratio
        HSI pixel size / MSI pixel size.
    """
    stated = all(bool(np.isfinite(axis.wavelength).all()) for axis in (hsi_axis, msi_axis))
    entries = []
    for path in user_models() + bundled_models():
        if path.suffix != ".safetensors":
            continue
        try:
            card = read_card(path)
        except ModelError as error:
            _log.warning("A model was passed over. %s", error)
            continue
        known = card.hsi_wavelengths is not None and (
            card.msi_wavelengths is not None or card.form == "subspace"
        )
        if card.ratio is None or not (card.hsi_bands is None or (known and stated)):
            continue
        try:
            check(card, hsi_axis=hsi_axis, msi_axis=msi_axis, ratio=ratio)
        except ModelError as error:
            _log.debug("Model %s does not fit: %s", path, error)
            continue
        entries.append(ModelEntry(path, card))
    return sorted(entries, key=lambda entry: entry.card.hsi_bands is None)


def _models_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.suffix in _SUFFIXES and not path.name.startswith(".")]
    return sorted(found, key=lambda path: (path.stem, _SUFFIXES.index(path.suffix)))
