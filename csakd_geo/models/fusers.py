"""The five ways of joining the four streams into one feature map (state key ``fuse_att``)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ModelError
from .attention import CHANNELS, HEADS, AttentionSums
from .blocks import convolve_parts
from .config import NetworkConfig

#: Rows of pixels whose queries and keys are held in float64 at a time while sums are taken.
_ROWS = 128
#: Floor of a sum of squares: a channel that is zero everywhere has cosine 0 instead of 0/0.
_TINY = 1e-30


class Fuser(nn.Module):
    """Join streams x1 (hsi), x2 (msi), x3 (coarse joint), x4 (fine joint) by their plain sum.

    Base of the other fusers. Streams have shape (n, features, y, x); so has the result. `statistics`
    are the attention sums of a whole scene, or ready mixing matrices (4, 16, 16); fusers without
    global attention do not look at them.
    """

    def forward(
        self, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor, statistics: AttentionSums | Tensor | None = None
    ) -> Tensor:
        """Return the joined features."""
        return x1 + x2 + x3 + x4


class WeightedFuser(Fuser):
    """Sum of the streams, each under the sigmoid of a learned weight per channel."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(4, features, 1, 1))

    def forward(
        self, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor, statistics: AttentionSums | Tensor | None = None
    ) -> Tensor:
        """Return the joined features."""
        return _gated_sum(torch.sigmoid(self.weights).unsqueeze(1), x1, x2, x3, x4)


class GatedFuser(Fuser):
    """Sum of the streams, each under a gate per pixel that is computed from all four."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.attention_conv = nn.Conv2d(4 * features, 4, 1)

    def forward(
        self, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor, statistics: AttentionSums | Tensor | None = None
    ) -> Tensor:
        """Return the joined features."""
        return _gated_sum(_pixel_gates(self.attention_conv, x1, x2, x3, x4), x1, x2, x3, x4)


class CrossFuser(Fuser):
    """Cross attention: channels of x3 mixed by how x1's queries match x2's keys, plus x4.

    In mode ``cross`` each head's 16x16 mixing matrix is the softmax of cosine logits
    ``sum(q k) / sqrt(sum(q**2) sum(k**2))`` times a learned temperature, the sums running over pixels.
    In mode ``released`` every entry of it is 1, which is what the published code computes: its softmax
    rows are summed, so its queries and keys have no effect and are not evaluated.

    With the matrices given, attention is one linear map per pixel: value, mixing and output
    convolution are folded into one matrix (features, features).

    Parameters
    ----------
    features
        Channels of the streams.
    released
        Compute what the published code computes.
    """

    def __init__(self, features: int, *, released: bool) -> None:
        super().__init__()
        inner = HEADS * CHANNELS
        self.query_conv = nn.Conv2d(features, inner, 1)
        self.key_conv = nn.Conv2d(features, inner, 1)
        self.value_conv = nn.Conv2d(features, inner, 1)
        self.output_conv = nn.Conv2d(inner, features, 1)
        self.released = released
        if not released:
            self.temperature = nn.Parameter(torch.ones(HEADS))

    def forward(
        self, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor, statistics: AttentionSums | Tensor | None = None
    ) -> Tensor:
        """Return the joined features."""
        return self.attend(x1, x2, x3, x4, statistics)

    def attend(
        self, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor, statistics: AttentionSums | Tensor | None
    ) -> Tensor:
        """Return the attended x3 plus x4, shape (n, features, y, x)."""
        if self.released:
            matrices = x3.new_ones(HEADS, CHANNELS, CHANNELS)
        elif statistics is None:
            matrices = self._own_matrices(x1, x2)
        elif isinstance(statistics, AttentionSums):
            matrices = self.matrices(statistics)
        else:
            matrices = statistics
        weight, bias = self._fold(matrices)
        pixels = x3.flatten(2)
        shape = (x3.shape[0], *weight.shape[-2:])
        attended = torch.baddbmm(bias.to(x3.dtype), weight.to(x3.dtype).expand(shape), pixels)
        return attended.view(x3.shape).add_(x4)

    def matrices(self, sums: AttentionSums) -> Tensor:
        """Turn a scene's sums into its mixing matrices, shape (4, 16, 16), float32."""
        device = self.temperature.device
        qk, qq, kk = (
            torch.tensor(array, dtype=torch.float32, device=device)
            for array in _unit_sums(sums).to_arrays().values()
        )
        return _softmax_cosine(qk, qq, kk, self.temperature)

    @torch.no_grad()
    def sums(self, x1: Tensor, x2: Tensor) -> AttentionSums:
        """Sum over all pixels and samples of the streams x1 and x2, in float64 and in row order."""
        exact = torch.float32 if x1.device.type == "mps" else torch.float64
        total: AttentionSums | None = None
        for start in range(0, x1.shape[2], _ROWS):
            q = _heads(self.query_conv(x1[:, :, start : start + _ROWS])).to(exact)
            k = _heads(self.key_conv(x2[:, :, start : start + _ROWS])).to(exact)
            parts = (torch.matmul(q, k.mT), q.square().sum(-1), k.square().sum(-1))
            part = AttentionSums(*(array.sum(0).cpu().double().numpy() for array in parts))
            total = part if total is None else total + part
        if total is None:
            raise ModelError("Attention sums need at least one row of pixels; found none.")
        return total

    def _own_matrices(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Mixing matrices (n, 4, 16, 16) from these very pixels, with gradients."""
        q, k = _heads(self.query_conv(x1)), _heads(self.key_conv(x2))
        with torch.autocast(x1.device.type, enabled=False):
            q, k = q.float(), k.float()
            return _softmax_cosine(
                torch.matmul(q, k.mT), q.square().sum(-1), k.square().sum(-1), self.temperature
            )

    def _fold(self, matrices: Tensor) -> tuple[Tensor, Tensor]:
        """Fold value, mixing and output maps: weight (..., features, features), bias (..., features, 1)."""
        value_bias, output_bias = self.value_conv.bias, self.output_conv.bias
        if value_bias is None or output_bias is None:
            raise ModelError("The attention convolutions have lost their biases.")
        with torch.autocast(matrices.device.type, enabled=False):
            value = self.value_conv.weight.float().flatten(1).unflatten(0, (HEADS, CHANNELS))
            output = self.output_conv.weight.float().flatten(1).unflatten(1, (HEADS, CHANNELS))
            mixed = torch.einsum("fhc,...hcd->...fhd", output, matrices.float())
            weight = torch.einsum("...fhd,hdg->...fg", mixed, value)
            head_bias = value_bias.float().unflatten(0, (HEADS, CHANNELS))
            bias = torch.einsum("...fhd,hd->...f", mixed, head_bias) + output_bias.float()
        return weight, bias.unsqueeze(-1)


class CrossSelfFuser(CrossFuser):
    """Cross self-attention (CSA): x1, x2, x3 and the attended stream under gates per pixel."""

    def __init__(self, features: int, *, released: bool) -> None:
        super().__init__(features, released=released)
        self.attention_weights = nn.Conv2d(4 * features, 4, 1)

    def forward(
        self, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor, statistics: AttentionSums | Tensor | None = None
    ) -> Tensor:
        """Return the joined features."""
        attended = self.attend(x1, x2, x3, x4, statistics)
        return _gated_sum(_pixel_gates(self.attention_weights, x1, x2, x3, attended), x1, x2, x3, attended)


def make_fuser(config: NetworkConfig) -> Fuser:
    """Build the fuser that `config` names."""
    released = config.attention == "released"
    match config.fuser:
        case 0:
            return Fuser()
        case 1:
            return WeightedFuser(config.features)
        case 2:
            return CrossFuser(config.features, released=released)
        case 3:
            return CrossSelfFuser(config.features, released=released)
        case _:
            return GatedFuser(config.features)


def _pixel_gates(conv: nn.Conv2d, *streams: Tensor) -> Tensor:
    """Sigmoid gates (4, n, 1, y, x) from a 1x1 convolution over all streams."""
    return torch.sigmoid(convolve_parts(conv, *streams)).movedim(1, 0).unsqueeze(2)


def _gated_sum(gates: Tensor, *streams: Tensor) -> Tensor:
    """Sum of the streams times their gates; gates broadcast against (4, n, features, y, x)."""
    out = streams[0] * gates[0]
    for gate, stream in zip(gates[1:], streams[1:], strict=True):
        out = out.addcmul_(stream, gate)
    return out


def _heads(x: Tensor) -> Tensor:
    """View (n, 64, y, x) as (n, 4, 16, pixels)."""
    heads: Tensor = x.flatten(2).unflatten(1, (HEADS, CHANNELS))
    return heads


def _unit_sums(sums: AttentionSums) -> AttentionSums:
    """Scale sums of any area so that they are safe in float32; cosines do not change."""
    scale_q = max(float(sums.qq.max()), _TINY)
    scale_k = max(float(sums.kk.max()), _TINY)
    return AttentionSums(sums.qk / (scale_q * scale_k) ** 0.5, sums.qq / scale_q, sums.kk / scale_k)


def _softmax_cosine(qk: Tensor, qq: Tensor, kk: Tensor, temperature: Tensor) -> Tensor:
    """Mixing matrices (..., 4, 16, 16) from sums over pixels and one temperature per head."""
    norms = qq.clamp_min(_TINY).sqrt().unsqueeze(-1) * kk.clamp_min(_TINY).sqrt().unsqueeze(-2)
    return functional.softmax(qk / norms * temperature[:, None, None], dim=-1)
