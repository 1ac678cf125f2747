"""The two ONNX graphs of a network, traced from its own layers at one fixed ratio."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import ModelError
from .attention import CHANNELS, HEADS
from .blocks import SLOPE, convolve_parts
from .config import NetworkConfig
from .fusers import _TINY, CrossFuser, _heads, _softmax_cosine
from .network import DualTwoStream, enlarge

#: ONNX operator set of the graphs.
OPSET = 18
#: Shapes of a scene's attention sums, by name.
SUMS = {"qk": (HEADS, CHANNELS, CHANNELS), "qq": (HEADS, CHANNELS), "kk": (HEADS, CHANNELS)}
#: Weights of bicubic interpolation (a = -0.75, as in torch) half-way between two pixels.
_HALFWAY = (-0.09375, 0.59375, 0.59375, -0.09375)
#: What a graph computes.
Kind = Literal["fusion", "statistics", "fine"]
_TRACED = (5, 7)  # LR size of the inputs of the trace; the graph's size is free


class Applied(nn.Module):
    """The fusion itself: hsi, msi, then base and the sums qk, qq, kk where the network takes them."""

    def __init__(self, network: DualTwoStream, ratio: int) -> None:
        super().__init__()
        self.network = network
        self.shrink = Shrink(network.config.msi_bands, ratio)

    @staticmethod
    def inputs(config: NetworkConfig) -> list[str]:
        """Names of the inputs, in their order."""
        return [
            "hsi",
            "msi",
            *(["base"] if config.residual else []),
            *(SUMS if config.needs_statistics else []),
        ]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the fused tensor (1, bands, ratio * y, ratio * x)."""
        network = self.network
        given = dict(zip(self.inputs(network.config), inputs, strict=True))
        hsi, msi = given["hsi"], given["msi"]
        x3 = network.mhfeat(_activate(convolve_parts(network.mhconv1, hsi, self.shrink(msi))))
        x1 = network.hfeat(_activate(network.hconv1(hsi)))
        fuser, matrices = network.fuse_att, None
        if isinstance(fuser, CrossFuser) and network.config.needs_statistics:
            matrices = _matrices(fuser, *(given[name] for name in SUMS))
        output, _ = network.fine(hsi, msi, x1, x3, base=given.get("base"), statistics=matrices)
        return output


class Fine(nn.Module):
    """All that comes after the coarse streams: hsi, msi, x1, x3, then base and matrices where taken."""

    def __init__(self, network: DualTwoStream) -> None:
        super().__init__()
        self.network = network

    @staticmethod
    def names(config: NetworkConfig) -> list[str]:
        """Names of the inputs, in their order."""
        base = ["base"] if config.residual else []
        return ["hsi", "msi", "x1", "x3", *base, *(["matrices"] if config.needs_statistics else [])]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the fused tensor (1, bands, ratio * y, ratio * x)."""
        given = dict(zip(self.names(self.network.config), inputs, strict=True))
        output, _ = self.network.fine(
            given["hsi"],
            given["msi"],
            given["x1"],
            given["x3"],
            base=given.get("base"),
            statistics=given.get("matrices"),
        )
        return output


class Statistics(nn.Module):
    """The attention sums of one tile, over the pixels where core is 1: hsi, msi, core (1, 1, y, x)."""

    def __init__(self, network: DualTwoStream) -> None:
        super().__init__()
        if not isinstance(network.fuse_att, CrossFuser):
            raise ModelError("Only a network with global attention has sums to take.")
        self.network, self.fuser = network, network.fuse_att

    def forward(self, hsi: Tensor, msi: Tensor, core: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return qk (4, 16, 16), qq and kk (4, 16), float64."""
        network, fuser = self.network, self.fuser
        x1 = network.hfeat(_activate(network.hconv1(hsi)))
        x2 = network.mfeat(_activate(network.mconv1(msi)))
        # A 1x1 convolution and nearest upsampling may change places, and the LR grid is the smaller one.
        q = _heads(enlarge(fuser.query_conv(x1), msi) * core)[0].double()
        k = _heads(fuser.key_conv(x2) * core)[0].double()
        return torch.matmul(q, k.mT), q.square().sum(-1), k.square().sum(-1)


class Shrink(nn.Module):
    """Bicubic downsampling by a whole ratio as a strided convolution.

    All LR pixels lie alike between HR pixels, on one (odd ratio) or half-way between two (even), so the
    weights are constants. A runtime's own resizing takes 1 / ratio in float32 and drifts with the column.
    """

    def __init__(self, bands: int, ratio: int) -> None:
        super().__init__()
        self.ratio, self.margin = ratio, 1 if ratio == 2 else 0
        taps = torch.zeros(ratio + 2 * self.margin)
        if ratio % 2:
            taps[ratio // 2] = 1
        else:
            first = self.margin + ratio // 2 - 2
            taps[first : first + 4] = torch.tensor(_HALFWAY)
        self.register_buffer("weight", torch.outer(taps, taps).expand(bands, 1, -1, -1).contiguous())

    def forward(self, msi: Tensor) -> Tensor:
        """Map (n, bands, ratio * y, ratio * x) to (n, bands, y, x)."""
        if self.margin:
            msi = functional.pad(msi, (self.margin,) * 4, mode="replicate")
        weight = self.get_buffer("weight")
        return functional.conv2d(msi, weight, stride=self.ratio, groups=weight.shape[0])


def trace(network: DualTwoStream, ratio: int, kind: Kind) -> Any:
    """Trace one graph.

    Parameters
    ----------
    network
        In evaluation mode, on the CPU.
    ratio
        HSI pixel size / MSI pixel size.
    kind
        ``fusion`` is the whole, for use elsewhere, with the ``statistics`` that it takes; ``fine`` is what
        comes after the coarse streams, for tiled runs.

    Returns
    -------
    onnx.ModelProto
        With free height and width.

    Raises
    ------
    ModelError
        The network has no global attention, hence no sums.
    """
    config = network.config
    (h, w), r, nf = _TRACED, ratio, network.config.features
    shapes: dict[str, tuple[int, ...]] = {
        "hsi": (1, config.bands, h, w),
        "x1": (1, nf, h, w),
        "x3": (1, nf, h, w),
        "msi": (1, config.msi_bands, r * h, r * w),
        "base": (1, config.bands, r * h, r * w),
        "core": (1, 1, r * h, r * w),
        "matrices": (HEADS, CHANNELS, CHANNELS),
        **SUMS,
    }
    coarse = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    fine = {axis: r * size for axis, size in coarse.items()}
    module, names, results = _pieces(network, ratio, kind)
    inputs = [torch.ones(shapes[name], dtype=torch.float64 if name in SUMS else None) for name in names]
    free = tuple(
        None if len(shapes[name]) < 4 else coarse if shapes[name][2] == h else fine for name in names
    )
    with torch.no_grad(), _quiet(), _OutOfPlace():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=names,
            output_names=results,
            dynamic_shapes=(free,) if kind in ("fusion", "fine") else free,
            verbose=False,
        )
    if program is None:
        raise ModelError("The ONNX export of torch returned nothing; another version of torch may help.")
    return program.model_proto


def _pieces(network: DualTwoStream, ratio: int, kind: Kind) -> tuple[nn.Module, list[str], list[str]]:
    """Module, names of its inputs and of its results."""
    match kind:
        case "statistics":
            return Statistics(network), ["hsi", "msi", "core"], list(SUMS)
        case "fine":
            return Fine(network), Fine.names(network.config), ["fused"]
        case _:
            return Applied(network, ratio), Applied.inputs(network.config), ["fused"]


def _matrices(fuser: CrossFuser, qk: Tensor, qq: Tensor, kk: Tensor) -> Tensor:
    """`CrossFuser.matrices` in tensors: scaled in float64, so that sums of any area fit float32."""
    scale_q, scale_k = qq.max().clamp_min(_TINY), kk.max().clamp_min(_TINY)
    cosine = (qk / (scale_q * scale_k).sqrt()).float()
    return _softmax_cosine(cosine, (qq / scale_q).float(), (kk / scale_k).float(), fuser.temperature)


class _OutOfPlace(TorchFunctionMode):
    """Activations leave their input as it is; the exporter takes a third longer where they do not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call one function."""
        given = dict(kwargs or {})
        if func is functional.leaky_relu:
            given.pop("inplace", None)
        return func(*args, **given)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own remarks, which nobody can act on, from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _activate(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE)
