"""Convolution blocks of the dual two-stream network; attribute names are the published state keys."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2
RESIDUAL = 0.2


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each seeing the input and all earlier outputs.

    Parameters
    ----------
    features, growth
        Channels of the input and output, and of each inner convolution.
    groups
        Groups of every convolution.
    """

    #: Whether sums of what each tensor gives take the place of concatenations; equal but for rounding.
    by_source = False

    def __init__(self, features: int, growth: int, *, groups: int = 1) -> None:
        super().__init__()
        for index in range(1, 6):
            width = features + (index - 1) * growth
            out = growth if index < 5 else features
            conv = nn.Conv2d(width, out, 3, padding=1, groups=groups)
            nn.init.kaiming_normal_(conv.weight, a=0.0, mode="fan_in")
            with torch.no_grad():
                conv.weight.mul_(0.1)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            self.add_module(f"conv{index}", conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, features, y, x) to the same shape."""
        *inner, last = cast("list[nn.Conv2d]", list(self.children()))
        if self.by_source and last.groups == 1:
            return torch.add(x, _by_source(x, [*inner, last]), alpha=RESIDUAL)
        seen = x
        for conv in inner:
            seen = torch.cat((seen, functional.leaky_relu(conv(seen), SLOPE, inplace=True)), dim=1)
        return torch.add(x, last(seen), alpha=RESIDUAL)


def _by_source(x: Tensor, convs: list[nn.Conv2d]) -> Tensor:
    """The dense block's last convolution, equal to that of the concatenations but for rounding.

    What each tensor gives to all later convolutions is one convolution; nothing is concatenated. Which is the
    faster hangs on the kernels (``benchmarks/kernels.py``). Sums of parts want float32.
    """
    widths = [x.shape[1], *(conv.out_channels for conv in convs[:-1])]
    parts = [conv.weight.split(widths[: k + 1], dim=1) for k, conv in enumerate(convs)]
    growth = widths[1]
    bias = torch.cat([conv.bias for conv in convs if conv.bias is not None])
    waiting = functional.conv2d(x, torch.cat([part[0] for part in parts]), bias, padding=1)
    for k in range(1, len(convs)):
        source = functional.leaky_relu(waiting[:, :growth], SLOPE)
        given = functional.conv2d(source, torch.cat([part[k] for part in parts[k:]]), padding=1)
        waiting = given.add_(waiting[:, growth:])
    return waiting


class Clra(nn.Module):
    """Cascaded local residual aggregation: three dense blocks in a row and a skip around them."""

    def __init__(self, features: int, growth: int, *, groups: int = 1) -> None:
        super().__init__()
        self.MFB1 = DenseBlock(features, growth, groups=groups)
        self.MFB2 = DenseBlock(features, growth, groups=groups)
        self.MFB3 = DenseBlock(features, growth, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, features, y, x) to the same shape."""
        return torch.add(x, self.MFB3(self.MFB2(self.MFB1(x))), alpha=RESIDUAL)


def stack(depth: int, features: int, growth: int, *, groups: int = 1) -> nn.Sequential:
    """Put `depth` CLRA blocks in a row."""
    return nn.Sequential(*(Clra(features, growth, groups=groups) for _ in range(depth)))


def convolve_parts(conv: nn.Conv2d, *parts: Tensor) -> Tensor:
    """Apply an ungrouped convolution to the concatenation of `parts` without making that copy.

    Parameters
    ----------
    conv
        Convolution whose input channels are those of all parts together.
    *parts
        Tensors (n, channels, y, x), in the order of the concatenation.

    Returns
    -------
    Tensor
        Shape (n, out channels, y, x), equal to ``conv(cat(parts))`` but for rounding.
    """
    weights = conv.weight.split([part.shape[1] for part in parts], dim=1)
    padding = conv.padding
    out = functional.conv2d(parts[0], weights[0], conv.bias, padding=padding)
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        out = out.add_(functional.conv2d(part, weight, padding=padding))
    return out
