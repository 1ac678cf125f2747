"""3x3 convolutions with fewer multiplications, on CPUs: Winograd's minimal filtering, by NNPACK inside torch.

An 8x8 patch gives 6x6 results for 64 multiplications instead of 324 (Lavin and Gray, arXiv 1509.09308).
Rounding differs from a direct convolution's: 4e-6 of what a dense block adds instead of 2e-6
(``benchmarks/kernels.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

#: Pixels per side below which patches of 8x8 are mostly margin.
_LEAST = 24


def available() -> bool:
    """Whether torch carries NNPACK and it runs on this CPU; begins it, which must come before its use."""
    begin = getattr(torch, "_nnpack_available", None)
    return begin is not None and hasattr(torch, "_nnpack_spatial_convolution") and bool(begin())


class Winograd(TorchFunctionMode):
    """Inside, plain 3x3 convolutions of float32 tensors run in NNPACK; all else runs as ever.

    For inference in a process where :func:`available` has said yes.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call one function."""
        run = _conv2d if func is functional.conv2d else func
        return run(*args, **(kwargs or {}))


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    plain = (
        groups == 1
        and weight.shape[2:] == (3, 3)
        and x.dtype == torch.float32
        and min(x.shape[2:]) >= _LEAST
        and (_pair(stride), _pair(padding), _pair(dilation)) == ((1, 1), (1, 1), (1, 1))
    )
    if plain:
        found: Tensor = torch._nnpack_spatial_convolution(x, weight, bias, padding=1)
        return found
    return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else tuple(value)
