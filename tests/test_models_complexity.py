from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from csakd_geo.errors import ModelError
from csakd_geo.models import DualTwoStream, NetworkConfig
from csakd_geo.models.blocks import DenseBlock
from csakd_geo.models.complexity import complexity, peak_bytes
from csakd_geo.models.reach import measured_reach, structural_reach

SMALL: dict[str, Any] = {"bands": 6, "msi_bands": 3, "features": 8, "growth": 4, "depths": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("name", "msi_bands", "owned", "used", "gmac"),
    [
        ("teacher", 4, 26_807_686, 26_807_686, 941.77),
        ("student", 4, 8_748_718, 7_449_946, 144.78),
        ("teacher", 6, 26_812_330, 26_812_330, None),
        ("student", 6, 8_753_362, 7_454_590, None),
    ],
)
def test_the_published_counts(name: str, msi_bands: int, owned: int, used: int, gmac: float | None) -> None:
    found = complexity(NetworkConfig.official(name, bands=172, msi_bands=msi_bands), 64, 64, ratio=4)
    assert (found.parameters, found.used_parameters) == (owned, used)
    if gmac is not None:
        assert found.macs / 1e9 == pytest.approx(gmac, rel=2e-4)


def macs_by_hand(config: NetworkConfig, pixels: int, ratio: int) -> int:
    """Multiply-adds of every convolution, read off the description of the network."""
    nf, gc, bands, msi = config.features, config.growth, config.bands, config.msi_bands
    fine = pixels * ratio**2
    grouped = nf // 2 if config.student else 1

    def stack(depth: int, groups: int = 1) -> int:
        inner = sum((nf + k * gc) * gc for k in range(4)) + (nf + 4 * gc) * nf
        return depth * 3 * 9 * inner // groups

    hmfeat, mhfeat, hfeat, mfeat = config.depths
    both = bands + msi
    total = pixels * (9 * nf * (bands + both) + stack(mhfeat) + stack(hfeat, grouped))
    total += fine * (9 * nf * (msi + both + bands * config.residual) + stack(mfeat))
    total += fine * (0 if config.student else stack(hmfeat))
    total += fine * 9 * (nf * bands + bands * bands)
    total += fine * 4 * 64 * nf * (config.fuser in (2, 3))
    return total + fine * 4 * 4 * nf * (config.fuser in (3, 4))


@pytest.mark.parametrize("fuser", range(5))
@pytest.mark.parametrize("changes", [{"student": True}, {"attention": "released", "residual": False}])
def test_multiplications_by_hand(fuser: int, changes: dict[str, Any]) -> None:
    config = NetworkConfig(**(SMALL | changes | {"fuser": fuser}))
    assert complexity(config, 5, 7, ratio=3).macs == macs_by_hand(config, 35, 3)


@pytest.mark.parametrize(
    ("features", "growth", "channels"),
    [
        (4, 4, 3 * 4 + 8 * 4),  # last concatenation: x, x + 3 outputs, the fourth, x + 4 outputs
        (8, 1, 4 * 8 + 4 * 1),  # end: x, x + 4 outputs, the fifth, the sum
    ],
)
def test_peak_memory_of_a_dense_block_by_hand(features: int, growth: int, channels: int) -> None:
    block, x = DenseBlock(features, growth), torch.zeros(1, features, 6, 5)
    with torch.no_grad():
        assert peak_bytes(lambda: block(x), (x,)) == channels * 6 * 5 * 4


def test_memory_that_was_there_before_counts_only_as_input() -> None:
    x, weight = torch.zeros(1000), torch.zeros(1000)
    assert peak_bytes(lambda: x[:10] + weight[:10], (x,)) == 4 * (1000 + 10)
    assert peak_bytes(lambda: (x * 2).view(10, 100).sum(), (x,)) == 4 * (2000 + 1)
    assert peak_bytes(lambda: [x * k for k in (1, 2, 3)], (x,)) == 4 * 4000
    assert peak_bytes(lambda: [None for k in (1, 2, 3) if (x * k) is None], (x,)) == 4 * 2000


def test_peak_memory_is_what_the_allocator_sees() -> None:
    from torch.profiler import ProfilerActivity, profile

    config = NetworkConfig.official("student", bands=20, msi_bands=4, features=16, growth=8)
    network = DualTwoStream(config).eval()
    hsi, msi = torch.zeros(1, 20, 16, 16), torch.zeros(1, 4, 64, 64)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        network(hsi, msi)
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 4 * (hsi.numel() + msi.numel())
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    # a convolution's scratch space comes on top, and how large it is differs between machines
    assert 0.75 * peak < complexity(config, 16, 16, ratio=4).peak_bytes <= peak


def test_a_size_that_no_machine_could_hold_is_counted() -> None:
    config = NetworkConfig.official("student", bands=172, msi_bands=4)
    small, large = complexity(config, 64, 64, ratio=4), complexity(config, 64 * 256, 64 * 256, ratio=4)
    assert large.peak_bytes > 1e13
    assert large.macs == small.macs * 256**2
    assert large.peak_bytes == pytest.approx(small.peak_bytes * 256**2, rel=0.01)


@pytest.mark.parametrize("size", [(0, 4, 4), (4, 4, 0)])
def test_sizes_below_one_are_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(ModelError, match="at least 1"):
        complexity(NetworkConfig(**SMALL), size[0], size[1], ratio=size[2])
    with pytest.raises(ModelError, match="at least 1"):
        structural_reach(NetworkConfig(**SMALL), 0)


def seen_by_gradient(network: DualTwoStream, ratio: int, room: int) -> int:
    """LR pixels beyond one LR pixel that any of its fused values depends on; no two ways cancel."""
    size, config = 2 * room + 1, network.config
    hsi = torch.ones(1, config.bands, size, size, dtype=torch.float64, requires_grad=True)
    msi = torch.ones(1, config.msi_bands, ratio * size, ratio * size, dtype=torch.float64, requires_grad=True)
    own = slice(room * ratio, room * ratio + ratio)
    network(hsi, msi)[0][..., own, own].sum().backward()
    reach = []
    for tensor, scale in ((hsi, 1), (msi, ratio)):
        assert tensor.grad is not None
        places = tensor.grad[0].abs().sum(0).nonzero() // scale - room
        reach.append(int(places.abs().max()))
    return max(reach)


@pytest.mark.parametrize(
    ("depths", "student", "ratio"),
    [
        ((1, 1, 1, 1), False, 3),  # bilinear upsampling in the fine joint stream, or the coarse ones
        ((1, 1, 1, 1), True, 2),  # bicubic taps
        ((1, 1, 1, 1), True, 4),
        ((1, 1, 1, 2), True, 1),  # the fine MSI stream
        ((2, 1, 1, 1), False, 1),  # the fine joint stream
        ((3, 1, 1, 1), False, 2),
    ],
)
def test_structural_reach_is_where_gradients_end(
    depths: tuple[int, int, int, int], student: bool, ratio: int
) -> None:
    config = NetworkConfig(
        bands=1, msi_bands=1, features=4, growth=2, depths=depths, student=student, residual=False, fuser=0
    )
    network = DualTwoStream(config).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)
    expected = structural_reach(config, ratio)
    assert seen_by_gradient(network, ratio, expected + 2) == expected


def strong(seed: int = 0, **changes: Any) -> DualTwoStream:
    """A network whose convolutions matter: larger weights than at the start of training."""
    torch.manual_seed(seed)
    network = DualTwoStream(NetworkConfig(**(SMALL | changes))).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 4:
                parameter.mul_(4 if "MFB" in name else 1)
        network.last.weight.mul_(100 if network.config.residual else 1)
    return network


@pytest.mark.parametrize(
    ("ratio", "changes"), [(4, {}), (3, {"fuser": 2, "student": True}), (2, {"fuser": 0})]
)
def test_the_measured_halo_suffices_on_other_inputs_and_a_smaller_one_does_not(
    ratio: int, changes: dict[str, Any]
) -> None:
    network = strong(**changes)
    halo = measured_reach(network, ratio)
    assert 2 <= halo <= structural_reach(network.config, ratio)
    generator = torch.Generator().manual_seed(99)
    side, core, start = 56, 6, 25
    hsi = torch.randn(1, 6, side, side, generator=generator)
    msi = torch.randn(1, 3, ratio * side, ratio * side, generator=generator)
    base = torch.randn(1, 6, ratio * side, ratio * side, generator=generator)

    def patch(halo: int) -> torch.Tensor:
        low = slice(start - halo, start + core + halo)
        high = slice(ratio * low.start, ratio * low.stop)
        own = slice(ratio * halo, ratio * (halo + core))
        cut = hsi[..., low, low], msi[..., high, high], base[..., high, high]
        return network(*cut, statistics=sums)[0][..., own, own]

    with torch.inference_mode():
        sums = network.attention_sums(hsi, msi)
        whole = patch(25)
        error = [float((patch(h) - whole).std() / whole.std()) for h in (halo, halo - 2)]
    assert error[0] < 2e-5
    assert error[1] > 1e-5


def test_a_stricter_tolerance_needs_a_wider_halo() -> None:
    network = strong()
    wide, narrow = measured_reach(network, 4, tolerance=1e-6), measured_reach(network, 4, tolerance=1e-3)
    assert narrow < wide
    exact, most = measured_reach(network, 4, tolerance=0.0), structural_reach(network.config, 4)
    assert most - 3 <= exact <= most  # the outermost pixels may be lost in rounding


def test_importing_costs_no_torch() -> None:
    code = (
        "import sys, csakd_geo.models.complexity, csakd_geo.models.reach, csakd_geo.models.onnx, "
        "csakd_geo.models.onnx_check, csakd_geo.cli.model\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
