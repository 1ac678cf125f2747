from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from csakd_geo.errors import ModelError, OutputError
from csakd_geo.models import DualTwoStream, ModelCard, NetworkConfig, load_model, save_model
from csakd_geo.models.checkpoint import Model
from csakd_geo.models.onnx import export_onnx, load_onnx, statistics_path
from csakd_geo.models.onnx_check import TOLERANCE, Agreement, verify_onnx
from csakd_geo.models.onnx_graphs import OPSET, Shrink

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

SMALL: dict[str, Any] = {
    "bands": 5,
    "msi_bands": 3,
    "features": 8,
    "growth": 4,
    "depths": (1, 1, 1, 1),
    "student": True,
}
RELEASED: dict[str, Any] = {"attention": "released", "residual": False, "owns_unused": True}
CASES = {
    "released student": (RELEASED, 4),
    "residual CSA": ({}, 3),
    "cross attention": ({"fuser": 2, "residual": False}, 4),
    "sum": ({"fuser": 0}, 3),
    "gates": ({"fuser": 1, "residual": False, "student": False, "depths": (0, 1, 1, 1)}, 2),
    "pixel gates": ({"fuser": 4}, 4),
}


def strong(seed: int = 0, **changes: Any) -> DualTwoStream:
    """A network in which every weight matters, temperatures and biases included."""
    generator = torch.Generator().manual_seed(seed)
    network = DualTwoStream(NetworkConfig(**(SMALL | changes))).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim == 4 else 0
            scale = 0.7 / fan_in**0.5 if fan_in else 0.2
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        if network.config.needs_statistics:
            network.fuse_att.get_parameter("temperature").copy_(torch.tensor([1.0, 3.0, 8.0, 20.0]))
    return network


def stored(path: Path, network: DualTwoStream, **facts: Any) -> Model:
    base = "coupled-map" if network.config.residual else None
    save_model(path, network, ModelCard(name=path.stem, network=network.config, base=base, **facts))
    return load_model(path)


@pytest.fixture(scope="module", params=list(CASES))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, Path, int]:
    changes, ratio = CASES[request.param]
    folder = tmp_path_factory.mktemp("onnx")
    model = stored(folder / "m.safetensors", strong(**changes))
    written = export_onnx(model, folder / "m.onnx", ratio=ratio)
    expected = ["m.onnx", "m.statistics.onnx"] if model.network.config.needs_statistics else ["m.onnx"]
    assert [path.name for path in written] == expected
    there = {path.name for path in folder.iterdir()}
    assert there == {*expected, "m.safetensors"}  # no .data, no .part
    return model, folder / "m.onnx", ratio


def scene(model: Model, ratio: int, height: int, width: int) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(height)
    config, fine = model.network.config, (ratio * height, ratio * width)
    hsi = torch.randn(1, config.bands, height, width, generator=generator)
    msi = torch.randn(1, config.msi_bands, *fine, generator=generator)
    return [hsi, msi, torch.randn(1, config.bands, *fine, generator=generator) if config.residual else None]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.sqrt(np.square(found - expected).mean()) / expected.std())


def test_the_graphs_give_what_torch_gives(exported: tuple[Model, Path, int]) -> None:
    """By ONNX Runtime alone, inputs by name, sums from torch."""
    model, path, ratio = exported
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for height, width in ((7, 10), (13, 6), (21, 17)):
        hsi, msi, base = scene(model, ratio, height, width)
        with torch.inference_mode():
            sums = model.network.attention_sums(hsi, msi)
            expected = model.network(hsi, msi, base=base, statistics=sums)[0].numpy()
        inputs = {"hsi": hsi.numpy(), "msi": msi.numpy()}
        inputs |= {} if base is None else {"base": base.numpy()}
        inputs |= {} if sums is None else sums.to_arrays()
        assert {entry.name for entry in session.get_inputs()} == set(inputs)
        assert relative(session.run(None, inputs)[0], expected) < TOLERANCE


def test_whole_and_tiled_agree_with_torch(exported: tuple[Model, Path, int]) -> None:
    model, path, _ = exported
    found = verify_onnx(model, load_onnx(path), seed=5)
    assert len(found) == 3
    for scene in found:
        assert scene.holds, scene
        assert 0 < scene.whole < TOLERANCE
        assert 0 < scene.tiled < TOLERANCE
        assert 0 < scene.halo < 11  # smaller than the scenes, so that tiles do not see all of them


def test_a_halo_that_is_too_small_shows(
    exported: tuple[Model, Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path, _ = exported
    monkeypatch.setattr("csakd_geo.models.reach.measured_reach", lambda *_, **__: 1)
    (found,) = verify_onnx(model, load_onnx(path), sizes=((19, 17),))
    assert found.whole < TOLERANCE < found.tiled
    assert not found.holds


def test_other_weights_show(exported: tuple[Model, Path, int]) -> None:
    model, path, _ = exported
    opened = load_onnx(path)
    weight = model.network.fuse.weight
    with torch.no_grad():
        weight[0, 0, 0, 0] += 0.01
    try:
        (found,) = verify_onnx(model, opened, sizes=((9, 11),))
    finally:
        with torch.no_grad():
            weight[0, 0, 0, 0] -= 0.01
    assert found.whole > TOLERANCE


def test_sums_of_parts_are_those_of_the_scene(exported: tuple[Model, Path, int]) -> None:
    model, path, ratio = exported
    opened = load_onnx(path)
    hsi, msi, _ = scene(model, ratio, 9, 11)
    with torch.inference_mode():
        expected = model.network.attention_sums(hsi, msi)
    left = np.zeros((1, 1, 9 * ratio, 11 * ratio), np.float32)
    left[..., : 4 * ratio] = 1
    parts = [opened.sums(hsi.numpy(), msi.numpy(), core) for core in (left, 1 - left)]
    if expected is None:
        assert parts == [None, None]
        assert not statistics_path(path).exists()
        return
    whole = parts[0] + parts[1]
    for name, array in expected.to_arrays().items():
        assert parts[0].to_arrays()[name].dtype == np.float64
        np.testing.assert_allclose(whole.to_arrays()[name], array, rtol=1e-5, atol=1e-5 * np.abs(array).max())
        assert np.abs(parts[0].to_arrays()[name] - array).max() > 0.1 * np.abs(array).max()


def test_attention_sums_matter_in_the_graph(exported: tuple[Model, Path, int]) -> None:
    model, path, ratio = exported
    if not model.network.config.needs_statistics:
        return
    hsi, msi, base = scene(model, ratio, 7, 9)
    sums = model.network.attention_sums(hsi, msi)
    hugely = type(sums)(sums.qk * 1e12, sums.qq * 1e12, sums.kk * 1e12)  # a scene of any area: same cosines
    other = type(sums)(-sums.qk, sums.qq, sums.kk)
    given = {"base": None if base is None else base.numpy()}
    one, two, three = (
        load_onnx(path).fuse(hsi.numpy(), msi.numpy(), sums=s, **given) for s in (sums, hugely, other)
    )
    assert relative(two, one) < TOLERANCE
    assert relative(three, one) > 1e-3


def test_files_state_what_they_are(exported: tuple[Model, Path, int]) -> None:
    import onnx

    model, path, ratio = exported
    for file in path.parent.glob("*.onnx"):
        proto = onnx.load(file)
        onnx.checker.check_model(proto, full_check=True)
        assert [(entry.domain, entry.version) for entry in proto.opset_import if not entry.domain] == [
            ("", OPSET)
        ]
        facts = {entry.key: entry.value for entry in proto.metadata_props}
        assert ModelCard.from_json(facts["csakd_geo_card"]) == model.card
        assert facts["csakd_geo_ratio"] == str(ratio)
        assert facts["csakd_geo_graph"] == ("statistics" if ".statistics" in file.name else "fusion")
        for entry in (*proto.graph.input, *proto.graph.output):
            free = [d.dim_param for d in entry.type.tensor_type.shape.dim if d.dim_param]
            assert len(free) == (0 if entry.name in ("qk", "qq", "kk") else 2), entry.name
    opened = load_onnx(path)
    assert (opened.card, opened.ratio) == (model.card, ratio)


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 5, 6, 10])
def test_shrinking_is_torchs_bicubic(ratio: int) -> None:
    msi = torch.randn(1, 3, 7 * ratio, 9 * ratio, generator=torch.Generator().manual_seed(ratio))
    expected = functional.interpolate(msi, size=(7, 9), mode="bicubic", align_corners=False)
    torch.testing.assert_close(Shrink(3, ratio)(msi), expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return stored(tmp_path / "small.safetensors", strong(), ratio=(2, 4))


def refused(error: type[Exception], match: str, model: Model, target: Path, **wanted: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in model.path.parent.iterdir()}
    with pytest.raises(error, match=match) as caught:
        export_onnx(model, target, **({"ratio": 3} | wanted))
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in model.path.parent.iterdir()} == before


def test_bad_targets_and_ratios_are_refused_before_any_work(model: Model, tmp_path: Path) -> None:
    refused(ModelError, "ratio of 2 to 4, not 5", model, tmp_path / "x.onnx", ratio=5)
    refused(OutputError, "ends in .onnx", model, tmp_path / "x.pb")
    refused(OutputError, "does not exist", model, tmp_path / "no" / "x.onnx")
    (tmp_path / "there.onnx").write_text("kept")
    refused(OutputError, "exists", model, tmp_path / "there.onnx")
    (tmp_path / "other.statistics.onnx").write_text("kept")
    refused(OutputError, "statistics.onnx exists", model, tmp_path / "other.onnx")
    (tmp_path / "folder.onnx").mkdir()
    refused(OutputError, "is a folder", model, tmp_path / "folder.onnx", overwrite=True)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_one_sentence_says_what_to_install(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    refused(ModelError, r'pip install "csakd-geo\[onnx\]"', model, tmp_path / "x.onnx")


def test_nothing_appears_unless_it_agrees(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = [Agreement(9, 9, 3, 1e-7, 1e-3)]
    monkeypatch.setattr("csakd_geo.models.onnx_check.verify_onnx", lambda *_, **__: wrong)
    monkeypatch.setattr("csakd_geo.models.onnx._graph", lambda *_, **__: b"")
    monkeypatch.setattr("csakd_geo.models.onnx._from_bytes", lambda *_, **__: None)
    refused(ModelError, "relative error 1.0e-03", model, tmp_path / "x.onnx")


def test_a_comparison_that_is_no_number_does_not_hold() -> None:
    assert Agreement(9, 9, 3, 1e-7, 1e-7).holds
    assert not Agreement(9, 9, 3, float("nan"), 1e-7).holds
    assert not Agreement(9, 9, 3, 1e-7, float("nan")).holds


def test_foreign_and_mixed_files_are_told_apart(exported: tuple[Model, Path, int], tmp_path: Path) -> None:
    import onnx

    model, path, _ = exported
    other, opened = stored(tmp_path / "two.safetensors", strong(1)), load_onnx(path)
    with pytest.raises(ModelError, match="another model"):
        verify_onnx(other, opened)
    if not model.network.config.needs_statistics:
        return
    first, second = tmp_path / "one.onnx", tmp_path / "one.statistics.onnx"
    first.write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"needs one\.statistics\.onnx"):
        load_onnx(first)
    proto = onnx.load(statistics_path(path))
    next(entry for entry in proto.metadata_props if entry.key == "csakd_geo_ratio").value = "9"
    onnx.save(proto, second)
    with pytest.raises(ModelError, match="not of one export"):
        load_onnx(first)
    second.write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match="not of one export"):
        load_onnx(first)
    second.write_bytes(b"no graph at all")
    with pytest.raises(ModelError, match="damaged or no ONNX file"):
        load_onnx(first)
    del proto.metadata_props[:]
    onnx.save(proto, second)
    with pytest.raises(ModelError, match="no ONNX file of this package"):
        load_onnx(second)
    with pytest.raises(ModelError, match="cannot be read"):
        load_onnx(tmp_path / "none.onnx")
