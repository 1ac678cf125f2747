from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from csakd_geo.errors import ModelError
from csakd_geo.models import VARIANTS, AttentionSums, DualTwoStream, NetworkConfig, count_parameters, winograd
from csakd_geo.models.blocks import Clra, DenseBlock, convolve_parts
from csakd_geo.models.fusers import CrossFuser, CrossSelfFuser

GOLDEN = (
    "teacher_20b_4m_csa",
    "student_20b_3m_fuser0",
    "student_20b_3m_fuser1",
    "student_20b_3m_fuser2",
    "student_172b_4m_csa",
    "student_20b_3m_fuser4",
)
SMALL: dict[str, Any] = {"bands": 6, "msi_bands": 3, "features": 8, "growth": 4, "depths": (1, 1, 1, 1)}


def golden_state(keys: list[str], shapes: list[tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights by the published rule: a linear congruence per key, scaled by the fan-in."""
    state = {}
    for k, (key, shape) in enumerate(zip(keys, shapes, strict=True)):
        i = np.arange(np.prod(shape), dtype=np.int64)
        uniform = ((i * 1103515245 + 12345 + (k + 1) * 2654435761) % 2**31) / 2**31 - 0.5
        scale = 0.7 * np.sqrt(12 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        state[key] = torch.from_numpy((uniform * scale).astype(np.float32).reshape(shape))
    return state


def golden_input(shape: tuple[int, ...], seed: int) -> Tensor:
    i = np.arange(np.prod(shape), dtype=np.int64)
    values = ((i * 1664525 + 1013904223 + seed * 2246822519) % 2**31) / 2**31 * 2 - 1
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def network(**changes: Any) -> DualTwoStream:
    torch.manual_seed(0)
    return DualTwoStream(NetworkConfig(**(SMALL | changes))).eval()


def pair(height: int = 5, width: int = 7, *, ratio: int = 3, n: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    bands, msi_bands = SMALL["bands"], SMALL["msi_bands"]
    hsi = torch.randn(n, bands, height, width, generator=generator)
    msi = torch.randn(n, msi_bands, ratio * height, ratio * width, generator=generator)
    return hsi, msi, torch.randn(n, bands, ratio * height, ratio * width, generator=generator)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_vectors(golden: Path, name: str, order: torch.memory_format) -> None:
    with np.load(golden / f"{name}.npz") as data:
        facts = json.loads(str(data["config"]))
        keys = [str(key) for key in data["keys"]]
        shapes = [tuple(json.loads(str(shape))) for shape in data["shapes"]]
        expected, expected_features = data["output"], data["feature_mean"]
    depths = VARIANTS["teacher"] if facts["student_layers"] is None else tuple(facts["student_layers"])
    config = NetworkConfig.official(
        facts["kind"],
        bands=facts["bands"],
        msi_bands=facts["msi_bands"],
        features=facts["num_base_chs"],
        growth=facts["num_agg_feat"],
        depths=depths,
        fuser=facts["adaptive_fuse"],
    )
    net = DualTwoStream(config).eval()
    state = golden_state(keys, shapes)
    net.load_state_dict({key.removeprefix("decoder."): value for key, value in state.items()}, strict=True)
    b, m, h, w, seed = (facts[k] for k in ("bands", "msi_bands", "lr_height", "lr_width", "seed"))
    hsi = golden_input((1, b, h, w), seed).contiguous(memory_format=order)
    msi = golden_input((1, m, 4 * h, 4 * w), seed + 7).contiguous(memory_format=order)
    with torch.no_grad():
        output, features = net(hsi, msi)
    assert count_parameters(net) == facts["parameters"]
    assert np.abs(output[0].numpy() - expected).max() < 1e-4 * expected.std()
    mean = features[0].mean((1, 2)).numpy()
    assert np.abs(mean - expected_features).max() < 1e-4 * expected_features.std()


@pytest.mark.parametrize(
    ("name", "msi_bands", "owned", "used"),
    [
        ("teacher", 4, 26_807_686, 26_807_686),
        ("teacher", 6, 26_812_330, 26_812_330),
        ("student", 4, 8_748_718, 7_449_946),
        ("student", 6, 8_753_362, 7_454_590),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, msi_bands: int, owned: int, used: int) -> None:
    with torch.device("meta"):
        net = DualTwoStream(NetworkConfig.official(name, bands=172, msi_bands=msi_bands))
    assert count_parameters(net) == owned
    assert count_parameters(net, used_only=True) == used


@pytest.mark.parametrize(("name", "published"), [("teacher", 941.77), ("student", 144.78)])
def test_multiplications_are_the_published_ones_less_the_folded_attention(
    name: str, published: float
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    net = DualTwoStream(NetworkConfig.official(name, bands=172, msi_bands=4)).eval()
    hsi, msi = torch.zeros(1, 172, 16, 16), torch.zeros(1, 4, 64, 64)  # a sixteenth of the published size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(hsi, msi)
    # query, key, value and output maps of the published code against one folded map
    folded = (4 * 86 * 64 - 86 * 86) * 64 * 64
    assert counter.get_total_flops() / 2 + folded == pytest.approx(published * 1e9 / 16, rel=2e-4)


def test_a_student_made_here_owns_no_dead_stack() -> None:
    config = NetworkConfig.named("student", **(SMALL | {"depths": (1, 1, 1, 1)}))
    net = DualTwoStream(config)
    assert not any(key.startswith("hmfeat.") for key in net.state_dict())
    assert count_parameters(net) == count_parameters(net, used_only=True)
    output, _ = net(*pair())
    output.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_dense_block_is_one_by_source_and_its_gradients_too() -> None:
    torch.manual_seed(0)
    block, x = DenseBlock(12, 6), torch.randn(2, 12, 9, 7)
    found = []
    for by_source in (False, True):
        block.zero_grad()
        block.by_source = by_source
        result = block(x)
        result.square().sum().backward()
        found.append((result, [weights.grad.clone() for weights in block.parameters()]))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("shape", [(24, 24), (25, 31), (48, 97)])
@pytest.mark.parametrize("channels", [(3, 2), (43, 215), (129, 86)])
def test_winograds_form_is_the_convolution(shape: tuple[int, int], channels: tuple[int, int]) -> None:
    if not winograd.available():
        pytest.skip("torch carries no NNPACK that runs on this CPU")
    torch.manual_seed(0)
    conv, x = nn.Conv2d(*channels, 3, padding=1), torch.randn(1, channels[0], *shape)
    with torch.inference_mode():
        expected = conv.double()(x.double())
        plain, conv = conv.float()(x), conv.float()
        with winograd.Winograd():
            found = conv(x)
            outside = [nn.Conv2d(channels[0], 4, 1)(x), conv(x[..., :9, :9]), conv.double()(x.double())]
    error = (found - expected).norm() / expected.norm()
    assert 0 < error < 1e-5
    assert not torch.equal(found, plain), "it ran as ever"
    assert [one.shape[1] for one in outside] == [4, channels[1], channels[1]]
    assert torch.equal(outside[2], expected)


def test_clra_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 9, 9)
    change = Clra(8, 4)(x) - 1.2 * x  # three dense blocks near the identity: 0.2 * x + x
    assert change.std() < 0.05


def test_convolving_parts_is_convolving_their_concatenation() -> None:
    parts = [torch.randn(2, channels, 6, 5) for channels in (3, 1, 4)]
    conv = torch.nn.Conv2d(8, 5, 3, padding=1)
    torch.testing.assert_close(convolve_parts(conv, *parts), conv(torch.cat(parts, 1)))


@pytest.mark.parametrize("fuser", range(5))
@pytest.mark.parametrize("ratio", [1, 2, 3, 10])
def test_shapes_follow_the_ratio(fuser: int, ratio: int) -> None:
    net = network(fuser=fuser)
    output, features = net(*pair(4, 5, ratio=ratio, n=2))
    assert output.shape == (2, 6, 4 * ratio, 5 * ratio)
    assert features.shape == (2, 8, 4 * ratio, 5 * ratio)


@pytest.mark.parametrize("student", [False, True])
def test_a_residual_network_starts_at_its_base(student: bool) -> None:
    net = network(student=student)
    hsi, msi, base = pair(8, 8)
    output, _ = net(hsi, msi, base)
    moved = (output - base).std() / base.std()
    assert 0 < moved < 0.02
    with torch.no_grad():
        net.last.weight.zero_()
    assert torch.equal(net(hsi, msi, base)[0], base)


def test_the_base_is_seen_not_only_added() -> None:
    net = network()
    hsi, msi, base = pair()
    one, two = net(hsi, msi, base)[1], net(hsi, msi, base + 1)[1]
    assert (one - two).abs().max() > 1e-3


def cross_attention_by_hand(fuser: CrossFuser, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor) -> Tensor:
    """Per sample and head, written as the definition reads, in float64."""
    out = []
    double = {k: v.detach().double() for k, v in fuser.state_dict().items()}

    def apply(name: str, x: Tensor) -> Tensor:
        weight, bias = double[f"{name}.weight"][:, :, 0, 0], double[f"{name}.bias"]
        return weight @ x.double().flatten(1) + bias[:, None]

    for n in range(len(x1)):
        q, k, v = apply("query_conv", x1[n]), apply("key_conv", x2[n]), apply("value_conv", x3[n])
        heads = []
        for head in range(4):
            part = slice(16 * head, 16 * head + 16)
            q_unit = q[part] / q[part].norm(dim=1, keepdim=True)
            k_unit = k[part] / k[part].norm(dim=1, keepdim=True)
            logits = q_unit @ k_unit.T * double["temperature"][head]
            heads.append(torch.softmax(logits, dim=-1) @ v[part])
        joined = torch.cat(heads).view(64, *x1.shape[2:])
        out.append(apply("output_conv", joined).view(x4[n].shape) + x4[n].double())
    return torch.stack(out)


def test_cross_attention_is_its_definition() -> None:
    torch.manual_seed(3)
    fuser = CrossFuser(8, released=False)
    with torch.no_grad():
        fuser.temperature.copy_(torch.tensor([1.0, 3.0, 9.0, -2.0]))
    streams = [torch.randn(2, 8, 9, 7) for _ in range(4)]
    expected = cross_attention_by_hand(fuser, *streams)
    torch.testing.assert_close(fuser(*streams).double(), expected, atol=1e-5, rtol=1e-5)
    one = [stream[:1] for stream in streams]
    given = fuser(*one, fuser.sums(one[0], one[1]))
    torch.testing.assert_close(given.double(), expected[:1], atol=1e-5, rtol=1e-5)
    matrices = fuser.matrices(fuser.sums(one[0], one[1]))
    assert matrices.shape == (4, 16, 16)
    assert torch.equal(fuser(*one, matrices), given)


def test_released_attention_ignores_queries_and_keys() -> None:
    fuser = CrossSelfFuser(8, released=True)
    streams = [torch.randn(1, 8, 6, 6) for _ in range(4)]
    before = fuser(*streams)
    before.sum().backward()
    assert fuser.query_conv.weight.grad is None
    assert fuser.key_conv.weight.grad is None
    assert fuser.value_conv.weight.grad is not None


@pytest.mark.parametrize("fuser", [2, 3])
def test_gradients_reach_query_key_and_temperature(fuser: int) -> None:
    net = network(fuser=fuser).train()
    output, features = net(*pair(8, 8, n=2))
    (output.square().mean() + features.square().mean()).backward()
    attention = net.fuse_att
    assert isinstance(attention, CrossFuser)
    for parameter in (attention.query_conv.weight, attention.key_conv.weight, attention.temperature):
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


def test_sums_add_up_and_do_not_see_halos() -> None:
    net = network(fuser=3)
    hsi, msi, _ = pair(40, 24)
    whole = net.attention_sums(hsi, msi)
    assert whole is not None
    halo, parts = 16, []
    for core in (slice(0, 20), slice(20, 40)):
        rows = slice(max(core.start - halo, 0), min(core.stop + halo, 40))
        inner = slice(3 * (core.start - rows.start), 3 * (core.stop - rows.start))
        tile = net.attention_sums(
            hsi[:, :, rows], msi[:, :, 3 * rows.start : 3 * rows.stop], core=(inner, slice(None))
        )
        assert tile is not None
        parts.append(tile)
    total = parts[0] + parts[1]
    for name, array in whole.to_arrays().items():
        assert array.dtype == np.float64
        np.testing.assert_allclose(total.to_arrays()[name], array, rtol=1e-5, atol=1e-4 * np.abs(array).max())
    assert not np.allclose(parts[0].qk, whole.qk, rtol=0.1)


def test_sums_over_a_batch_are_the_sums_of_its_samples() -> None:
    net = network(fuser=2)
    hsi, msi, _ = pair(n=2)
    both = net.attention_sums(hsi, msi)
    first, second = (net.attention_sums(hsi[i : i + 1], msi[i : i + 1]) for i in range(2))
    assert both is not None
    assert first is not None
    assert second is not None
    # the float32 convolutions round differently for one sample and for two
    np.testing.assert_allclose((first + second).qk, both.qk, rtol=0, atol=1e-6 * np.abs(both.qk).max())


@pytest.mark.parametrize("fuser", [2, 3])
def test_tiles_with_the_scenes_sums_equal_the_scene(fuser: int) -> None:
    net = network(fuser=fuser)
    attention = net.fuse_att
    assert isinstance(attention, CrossFuser)
    with torch.no_grad():
        attention.temperature.fill_(8.0)  # sharp enough that other statistics show
        net.last.weight.mul_(100)
    hsi, msi, base = pair(48, 8)
    with torch.no_grad():
        sums = net.attention_sums(hsi, msi)
        whole, _ = net(hsi, msi, base, sums)
        own, _ = net(hsi, msi, base)
        scale = float((whole - base).std())
        assert float((whole - own).abs().max()) < 1e-4 * scale
        worst = worst_own = 0.0
        for start in range(0, 48, 16):
            rows = slice(max(start - 16, 0), min(start + 32, 48))
            fine = slice(3 * rows.start, 3 * rows.stop)
            tile = hsi[:, :, rows], msi[:, :, fine], base[:, :, fine]
            inner = slice(3 * (start - rows.start), 3 * (start - rows.start) + 48)
            expected = whole[:, :, 3 * start : 3 * start + 48]
            worst = max(worst, float((net(*tile, sums)[0][:, :, inner] - expected).abs().max()))
            worst_own = max(worst_own, float((net(*tile)[0][:, :, inner] - expected).abs().max()))
    assert worst < 1e-4 * scale
    assert worst_own > 10 * worst


def test_networks_without_global_attention_have_no_sums() -> None:
    hsi, msi, _ = pair()
    assert network(fuser=4).attention_sums(hsi, msi) is None
    assert network(fuser=3, attention="released").attention_sums(hsi, msi) is None


def test_coarse_and_fine_halves_are_the_whole() -> None:
    net = network()
    hsi, msi, base = pair()
    halves = net.fine(hsi, msi, *net.coarse(hsi, msi), base=base)
    assert torch.equal(halves[0], net(hsi, msi, base)[0])


def test_inputs_are_left_as_they_were() -> None:
    net = network()
    inputs = pair()
    copies = [x.clone() for x in inputs]
    with torch.no_grad():
        net(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


def test_a_dead_channel_does_not_make_nan() -> None:
    net = network(fuser=2)
    attention = net.fuse_att
    assert isinstance(attention, CrossFuser)
    with torch.no_grad():
        for conv in (attention.query_conv, attention.key_conv):
            conv.weight[:3].zero_()
            assert conv.bias is not None
            conv.bias[:3].zero_()
    hsi, msi, base = pair()
    for statistics in (None, net.attention_sums(hsi, msi)):
        net.zero_grad()
        output, _ = net(hsi, msi, base, statistics)
        output.square().sum().backward()
        assert torch.isfinite(output).all()
        assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_bfloat16_autocast_stays_close() -> None:
    net = network()
    hsi, msi, base = pair(8, 8)
    with torch.no_grad():
        exact, _ = net(hsi, msi, base, net.attention_sums(hsi, msi))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough, _ = net(hsi, msi, base, net.attention_sums(hsi, msi))
    assert (exact - rough.float()).std() < 0.02 * exact.std()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hsi": (1, 5, 5, 7)}, "6 HSI and 3 MSI bands"),
        ({"msi": (1, 3, 15, 20)}, "one whole multiple"),
        ({"msi": (1, 3, 10, 21)}, "one whole multiple"),
        ({"msi": (1, 3, 4, 6)}, "one whole multiple"),
        ({"msi": (2, 3, 15, 21)}, "of one n"),
        ({"base": (1, 6, 15, 20)}, "output's shape"),
        ({"base": None}, "pass base"),
    ],
)
def test_unfit_tensors_are_refused(change: dict[str, Any], words: str) -> None:
    hsi, msi, base = pair()
    given: dict[str, Any] = {"hsi": hsi, "msi": msi, "base": base}
    given |= {k: None if shape is None else torch.zeros(shape) for k, shape in change.items()}
    with pytest.raises(ModelError, match=words):
        network()(given["hsi"], given["msi"], given["base"])
    with pytest.raises(ModelError, match="leave base out"):
        network(residual=False)(hsi, msi, base)


def test_sums_round_trip_and_are_frozen() -> None:
    rng = np.random.default_rng(0)
    sums = AttentionSums(rng.random((4, 16, 16)), rng.random((4, 16)), rng.random((4, 16)))
    again = AttentionSums.from_arrays(sums.to_arrays())
    assert all(np.array_equal(a, again.to_arrays()[k]) for k, a in sums.to_arrays().items())
    with pytest.raises(ValueError, match="read-only"):
        sums.qq[0, 0] = 1
    with pytest.raises(ModelError, match="lack kk"):
        AttentionSums.from_arrays({"qk": sums.qk, "qq": sums.qq})
    with pytest.raises(ModelError, match="shape"):
        AttentionSums(sums.qk[:3], sums.qq, sums.kk)
    with pytest.raises(ModelError, match="not finite"):
        AttentionSums(sums.qk * np.nan, sums.qq, sums.kk)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bands": 0}, "bands"),
        ({"bands": 2.0}, "whole number"),
        ({"depths": (1, 1, 1)}, "four stack depths"),
        ({"depths": (1, 1, 0, 1)}, "depth of hfeat"),
        ({"fuser": 5}, "Fuser 5"),
        ({"attention": "none"}, "Attention 'none'"),
        ({"groups": 4}, "groups do not divide"),
        ({"student": True, "growth": 5}, "multiple"),
        ({"owns_unused": True}, "never calls"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        NetworkConfig(**(SMALL | change))


def test_configurations_round_trip_through_json() -> None:
    config = NetworkConfig.official("student-large", bands=172, msi_bands=4)
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.depths == (2, 4, 4, 4)
    with pytest.raises(ModelError, match="no field colour"):
        NetworkConfig.from_dict(config.to_dict() | {"colour": 1})
    with pytest.raises(ModelError, match="incomplete"):
        NetworkConfig.from_dict({"bands": 3})
    with pytest.raises(ModelError, match="expected one of teacher"):
        NetworkConfig.named("pupil", bands=3, msi_bands=1)


def test_importing_models_does_not_import_torch() -> None:
    code = "import csakd_geo.models, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
