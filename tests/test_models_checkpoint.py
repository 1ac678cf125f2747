from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from csakd_geo.errors import ModelError, OutputError
from csakd_geo.models import (
    DualTwoStream,
    ModelCard,
    NetworkConfig,
    Normalisation,
    TrainingData,
    bundled_models,
    check,
    find_model,
    fitting_models,
    load_model,
    model_folders,
    read_card,
    save_model,
    weights_sha256,
)

SMALL: dict[str, Any] = {"bands": 6, "msi_bands": 3, "features": 8, "growth": 4, "depths": (1, 1, 2, 1)}
HSI = tuple(np.linspace(450.0, 900.0, 6))
MSI = (490.0, 560.0, 665.0)


@dataclass
class FakeAxis:
    wavelength: NDArray[np.float64]

    @property
    def size(self) -> int:
        return len(self.wavelength)


def axis(values: Any) -> FakeAxis:
    return FakeAxis(np.asarray(values, dtype=np.float64))


def make(**changes: Any) -> DualTwoStream:
    torch.manual_seed(0)
    return DualTwoStream(NetworkConfig(**(SMALL | changes)))


def official(**changes: Any) -> DualTwoStream:
    torch.manual_seed(0)
    return DualTwoStream(NetworkConfig(**(SMALL | {"attention": "released", "residual": False} | changes)))


def card_of(network: DualTwoStream, **changes: Any) -> ModelCard:
    base = "coupled-map" if network.config.residual else None
    facts = {"name": "test", "network": network.config, "base": base, "ratio": 4} | changes
    return ModelCard(**facts)


def full_card(network: DualTwoStream) -> ModelCard:
    return card_of(
        network,
        ratio=(2, 6),
        hsi_wavelengths=HSI,
        hsi_fwhm=(10.0,) * 6,
        msi_wavelengths=MSI,
        units="reflectance",
        normalisation=Normalisation(rule="scene-percentile"),
        training=(TrainingData(name="made up", terms="none"),),
        scores={"psnr": 31.5, "by_scene": {"a": [1, 2]}},
        provenance={"steps": 10},
    )


# Bundles


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize("fuser", range(5))
def test_bundles_round_trip(tmp_path: Path, student: bool, fuser: int) -> None:
    network = make(student=student, fuser=fuser)
    path = tmp_path / "m.safetensors"
    stored = save_model(path, network, full_card(network))
    model = load_model(path)
    assert model.card == stored == read_card(path)
    assert model.card.sha256 == weights_sha256(network.state_dict())
    assert model.network.config == network.config
    assert not model.network.training
    assert model.path == path
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in model.network.state_dict().items())
    assert model.network.state_dict().keys() == network.state_dict().keys()
    assert all(p.requires_grad and p.is_leaf for p in model.network.parameters())
    assert os.listdir(tmp_path) == ["m.safetensors"]
    (tmp_path / "other").write_text("")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode  # readable by whom other files are


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    network = make()
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_model(one, network, card_of(network))
    loaded = load_model(one)
    save_model(two, loaded.network, loaded.card)
    assert one.read_bytes() == two.read_bytes()
    assert load_model(two).sha256 == loaded.sha256


def test_an_old_model_survives_a_failed_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make()
    path = tmp_path / "m.safetensors"
    save_model(path, network, card_of(network))
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="No space left"):
        save_model(path, make(fuser=0), card_of(make(fuser=0)))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_unfit_saves_are_refused(tmp_path: Path) -> None:
    network = make()
    with pytest.raises(ModelError, match="another network"):
        save_model(tmp_path / "m.safetensors", network, card_of(make(fuser=0)))
    with pytest.raises(ModelError, match=r"ends otherwise"):
        save_model(tmp_path / "m.pth", network, card_of(network))
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(tmp_path / "absent" / "m.safetensors", network, card_of(network))
    assert os.listdir(tmp_path) == []


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the JSON header of a bundle in place."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def change_card(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def apply(header: dict[str, Any]) -> None:
        card = json.loads(header["__metadata__"]["csakd_geo_card"])
        change(card)
        header["__metadata__"]["csakd_geo_card"] = json.dumps(card)

    return apply


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_card(lambda c: c["network"].update(depths=[2, 1, 2, 1])), "does not hold the network"),
        (change_card(lambda c: c["network"].update(bands=7)), "does not hold the network"),
        (change_card(lambda c: c["network"].update(bands=-7)), "at least 1"),
        (change_card(lambda c: c["network"].update(bands="many")), "whole number"),
        (change_card(lambda c: c["network"].pop("bands")), "incomplete"),
        (change_card(lambda c: c.update(sha256="0" * 64)), "hash"),
        (change_card(lambda c: c.update(schema_version=2)), "schema_version"),
        (change_card(lambda c: c.update(surprise=1)), "surprise"),
        (change_card(lambda c: c.pop("name")), "name"),
        (change_card(lambda c: c.update(base=None)), "base"),
        (lambda h: h.pop("__metadata__"), "without a csakd_geo model card"),
        (lambda h: h["__metadata__"].update(csakd_geo_card="{"), "model card cannot be used"),
        (lambda h: h["__metadata__"].update(csakd_geo_card="[]"), "model card cannot be used"),
        (lambda h: h["last.weight"].update(shape=[6, 6, 9, 1]), "does not hold the network"),
        (lambda h: h["last.weight"].update(shape=[6, 6, 9, 9]), "damaged"),
        (lambda h: h["last.weight"].update(dtype="I32"), "not finite"),
    ],
)
def test_a_card_that_contradicts_its_weights_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    network = make()
    path = tmp_path / "m.safetensors"
    save_model(path, network, card_of(network))
    rewritten(path, change)
    with pytest.raises(ModelError, match=words):
        load_model(path)


def test_a_flipped_weight_is_found(tmp_path: Path) -> None:
    network = make()
    path = tmp_path / "m.safetensors"
    save_model(path, network, card_of(network))
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="hash"):
        load_model(path)


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    network = official()
    with torch.no_grad():
        network.last.weight[0, 0, 0, 0] = torch.nan
    torch.save(network.state_dict(), tmp_path / "m.pth")
    with pytest.raises(ModelError, match="not finite"):
        load_model(tmp_path / "m.pth")


# Official checkpoints


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "decoder.", "_orig_mod.decoder.", "module.decoder._orig_mod."])
@pytest.mark.parametrize("nest", [(), ("state_dict",), ("model",), ("net",), ("model", "state_dict")])
def test_prefixes_and_nesting_are_seen_through(tmp_path: Path, prefix: str, nest: tuple[str, ...]) -> None:
    network = official(student=True, owns_unused=True)
    content: Any = prefixed(network.state_dict(), prefix)
    for name in nest:
        content = {name: content, "epoch": 3, "note": "text"}
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    model = load_model(path)
    assert model.network.config == network.config
    assert all(torch.equal(v, model.network.state_dict()[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("fuser", range(5))
@pytest.mark.parametrize(
    "shape",
    [
        {"student": False},
        {"student": False, "depths": (3, 2, 1, 2), "groups": 2},
        {"student": True, "owns_unused": True, "depths": (2, 3, 3, 2), "growth": 8},
        {"student": True, "owns_unused": True, "groups": 2},
        {"student": True, "depths": (0, 1, 1, 1)},
    ],
)
def test_the_shape_is_read_from_the_weights(tmp_path: Path, fuser: int, shape: dict[str, Any]) -> None:
    network = official(fuser=fuser, **shape)
    path = tmp_path / "renamed.safetensors"  # the content counts, not the ending
    torch.save(prefixed(network.state_dict(), "decoder."), path)
    assert load_model(path).network.config == network.config


def test_an_imported_card_claims_nothing(tmp_path: Path) -> None:
    torch.save(official().state_dict(), tmp_path / "theirs.pth", _use_new_zipfile_serialization=False)
    model = load_model(tmp_path / "theirs.pth")
    card = model.card
    assert card.name == "theirs"
    assert card.attention == "released"
    for field in ("ratio", "hsi_wavelengths", "msi_wavelengths", "hsi_fwhm", "units", "base"):
        assert getattr(card, field) is None
    assert card.normalisation is not None
    assert (card.normalisation.low, card.normalisation.high) == (-1, 1)
    stored = save_model(tmp_path / "ours.safetensors", model.network, card)
    assert stored.sha256 == card.sha256
    assert load_model(tmp_path / "ours.safetensors").card == card


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    torch.save({k: v.half() for k, v in official().state_dict().items()}, tmp_path / "m.pth")
    assert load_model(tmp_path / "m.pth").network.last.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "mconv1.weight"}, "mconv1.weight"),
        (lambda s: {k: v for k, v in s.items() if k != "last.weight"}, "last.weight"),
        (lambda s: s | {"mconv1.weight": torch.zeros(3)}, "misshapen"),
        (lambda s: s | {"fuse.weight": torch.zeros(6, 0, 3, 3)}, "misshapen"),
        (lambda s: s | {"hmfeat.0.MFB1.conv1.bias": torch.zeros(9)}, "hmfeat.0.MFB1.conv1.bias"),
        (lambda s: s | {"extra.weight": torch.zeros(9)}, "left over"),
        (lambda s: prefixed(s, "decoder.") | {"extra": torch.zeros(9)}, "besides the network"),
        (lambda s: prefixed(s, "teacher.") | prefixed(s, "student."), "2 networks"),
        (lambda s: {"conv.weight": torch.zeros(1)}, "no dual two-stream network"),
        (lambda s: list(s.values()), "no dual two-stream network"),
        (lambda s: 3, "no dual two-stream network"),
    ],
)
def test_unrelated_checkpoints_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], words: str
) -> None:
    torch.save(change(dict(official().state_dict())), tmp_path / "m.pth")
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path / "m.pth")


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    state = dict(official().state_dict())
    state["hconv1.weight"] = torch.zeros(1).expand(1_000_000, 1_000_000, 3, 3)
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(ModelError, match="claim"):
        load_model(tmp_path / "m.pth")


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_pickled_code_never_runs(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "created"
    path = tmp_path / "m.pth"
    content = {"state_dict": dict(official().state_dict()), "hook": Bomb(target)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ModelError, match="run code"):
        load_model(path)
    assert not target.exists()
    if kind == "pickle":  # the bomb is live: a plain unpickler does create the file
        pickle.loads(path.read_bytes())["hook"].close()
        assert target.exists()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_damaged_files_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.bin"
    network = official()
    if kind == "safetensors":
        save_model(tmp_path / "m.safetensors", network, card_of(network))
        path = tmp_path / "m.safetensors"
    else:
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    for keep in (0, 1, 7, 8, 9, 100, len(data) // 3, len(data) - 1000, len(data) - 1):
        path.write_bytes(data[:keep])
        with pytest.raises(ModelError):
            load_model(path)
    rng = np.random.default_rng(0)
    for _ in range(30):
        path.write_bytes(data[:4] + rng.bytes(len(data) - 4))
        with pytest.raises(ModelError):
            load_model(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not a model at all")
    with pytest.raises(ModelError, match="is no model"):
        load_model(tmp_path / "text.pth")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path / "absent.pth")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match=r"no whole \.safetensors"):
        read_card(tmp_path / "text.pth")


# Cards and pairs


def test_a_fitting_pair_gives_no_warning() -> None:
    card = full_card(make())
    pair = {"hsi_axis": axis(HSI), "msi_axis": axis(np.add(MSI, 9.9))}
    assert check(card, **pair, ratio=2) == []
    assert check(card, **pair, ratio=6) == []


@pytest.mark.parametrize(
    ("hsi", "msi", "ratio", "words"),
    [
        (HSI, MSI, 7, "ratio of 2 to 6, but this pair's is 7"),
        (HSI, MSI, 1, "ratio of 2 to 6"),
        (HSI[:5], MSI, 4, "6 HSI bands, but this pair has 5"),
        (HSI, MSI[:2], 4, "3 MSI bands, but this pair has 2"),
        (np.add(HSI, [0, 0, 5.1, 0, 0, 0]), MSI, 4, "HSI band 3 at 630.0 nm"),
        (HSI, np.add(MSI, [0, -10.1, 0]), 4, "MSI band 2 at 560.0 nm"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(hsi: Any, msi: Any, ratio: int, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        check(full_card(make()), hsi_axis=axis(hsi), msi_axis=axis(msi), ratio=ratio)


def test_what_is_not_stated_gives_one_warning() -> None:
    network = official()
    card = card_of(network, ratio=None)
    warnings = check(card, hsi_axis=axis(HSI), msi_axis=axis(MSI), ratio=4)
    assert len(warnings) == 1
    for word in ("ratio", "HSI wavelengths", "MSI wavelengths", "units"):
        assert word in warnings[0]
    (warning,) = check(full_card(make()), hsi_axis=axis([np.nan] * 6), msi_axis=axis(MSI), ratio=4)
    assert "HSI wavelengths" in warning
    assert "MSI" not in warning
    with pytest.raises(ModelError, match="6 HSI bands"):
        check(card, hsi_axis=axis(HSI[:3]), msi_axis=axis(MSI), ratio=4)


def test_a_subspace_model_takes_any_bands() -> None:
    network = make(msi_bands=6)
    card = card_of(network, form="subspace", normalisation=Normalisation(rule="subspace-std"))
    assert card.components == 6
    assert check(card, hsi_axis=axis([np.nan] * 200), msi_axis=axis(MSI), ratio=4) == []
    with pytest.raises(ModelError, match="ratio of 4"):
        check(card, hsi_axis=axis(HSI), msi_axis=axis(MSI), ratio=5)


@pytest.mark.parametrize(
    "changes",
    [
        {"hsi_wavelengths": HSI[:5]},
        {"msi_fwhm": (1.0,)},
        {"hsi_wavelengths": (*HSI[:5], -1.0)},
        {"hsi_wavelengths": (*HSI[:5], np.nan)},
        {"form": "subspace"},
        {"ratio": 0},
        {"ratio": (4, 2)},
        {"base": None},
        {"sha256": "abc"},
        {"name": ""},
        {"halo": -1},
    ],
)
def test_impossible_cards_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ModelCard"):
        card_of(make(), **changes)


def test_cards_round_trip_through_json() -> None:
    card = full_card(make())
    assert ModelCard.from_json(card.to_json()) == card
    assert json.loads(card.to_json())["network"]["depths"] == [1, 1, 2, 1]


# Registry


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("CSAKD_GEO_MODELS", os.pathsep.join((str(tmp_path / "absent"), str(other))))
    return other


def test_models_are_found_by_name_and_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make()
    path = folder / "mine.safetensors"
    save_model(path, network, card_of(network))
    assert find_model("mine") == find_model("mine.safetensors") == find_model(path) == path
    with pytest.raises(ModelError, match=r"no model 'yours'.*mine"):
        find_model("yours")
    monkeypatch.delenv("CSAKD_GEO_MODELS")
    assert folder not in model_folders()
    assert [entry.name for entry in model_folders()] == ["models"]


def test_bundled_models_load_and_state_their_facts() -> None:
    for path in bundled_models():
        card = load_model(path).card
        assert card.normalisation is not None
        assert card.ratio is not None
        assert card.training


def test_fitting_models_come_best_first(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    exact, universal, foreign = make(), make(msi_bands=6, features=12), official()
    save_model(folder / "z-exact.safetensors", exact, full_card(exact))
    save_model(folder / "b-any.safetensors", universal, card_of(universal, form="subspace", ratio=(2, 8)))
    save_model(folder / "c-foreign.safetensors", foreign, card_of(foreign, name="foreign"))
    torch.save(foreign.state_dict(), folder / "d-official.pth")
    (folder / "e-broken.safetensors").write_bytes(b"nothing")

    def names(hsi: Any, msi: Any, ratio: int) -> list[str]:
        own = fitting_models(axis(hsi), axis(msi), ratio=ratio)
        return [entry.path.stem for entry in own if entry.path.parent == folder]

    assert names(HSI, MSI, 4) == ["z-exact", "b-any"]
    assert "e-broken" in caplog.text
    assert names(HSI, MSI, 8) == ["b-any"]
    assert names(np.add(HSI, 30), MSI, 4) == ["b-any"]
    assert names([np.nan] * 6, MSI, 4) == ["b-any"]
    assert names(HSI, MSI, 10) == []
