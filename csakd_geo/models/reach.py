"""How far a network sees: the halo in LR pixels that a tile needs, by its shape and as measured."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING

from ..errors import ModelError
from .config import NetworkConfig

if TYPE_CHECKING:
    from torch import Tensor

    from .attention import AttentionSums
    from .network import DualTwoStream

#: Relative RMSE up to which a tile counts as equal to the whole.
TOLERANCE = 1e-5
#: 3x3 convolutions in a row inside one CLRA block; each sees one more pixel on every side.
_PER_CLRA = 15
#: LR pixels per side of the patch that is compared, and the context that it is first compared with.
_CORE, _CONTEXT = 4, 20


def structural_reach(config: NetworkConfig, ratio: int) -> int:
    """Count the LR pixels beyond a tile that its result can depend on at all.

    With a halo of this size a tile is exact, whatever the weights. Attention over the scene is left out:
    its sums are taken beforehand.

    Parameters
    ----------
    config
        The network's shape.
    ratio
        HSI pixel size / MSI pixel size.

    Raises
    ------
    ModelError
        A ratio below 1.
    """
    if ratio < 1:
        raise ModelError(f"A ratio is a whole number of at least 1; found {ratio}.")
    hmfeat, mhfeat, hfeat, mfeat = (_PER_CLRA * depth + 1 for depth in config.depths)
    if config.student:
        hmfeat = 1  # the stack is never called
    ends = 2  # fine pixels that `fuse` and `last` see around a feature
    past = math.ceil(ends / ratio)  # LR pixels in which those lie
    bicubic = 1 if ratio == 2 else 0  # four taps around a centre leave the LR pixel only there
    bilinear = math.ceil((ends + hmfeat - 0.5) / ratio + 0.5) if ratio > 1 else ends + hmfeat
    fine = math.ceil((ends + mfeat) / ratio)
    return max(past + hfeat, past + mhfeat + bicubic, bilinear, fine)


def measured_reach(network: DualTwoStream, ratio: int, *, tolerance: float = TOLERANCE, seed: int = 0) -> int:
    """Find the smallest halo whose patch agrees with one that sees at least twice as far.

    The inputs are random, the worst case: neighbouring pixels of real images resemble each other. The
    attention's sums are taken once and are the same for every halo, so only convolutions count.

    Parameters
    ----------
    network
        In evaluation mode.
    ratio
        HSI pixel size / MSI pixel size.
    tolerance
        Accepted RMSE over the standard deviation of the output.
    seed
        Of the inputs.

    Returns
    -------
    int
        LR pixels; never more than `structural_reach`.

    Raises
    ------
    ModelError
        A ratio below 1.
    """
    most = structural_reach(network.config, ratio)
    far = min(_CONTEXT, most)
    while True:
        halo = _smallest_halo(network, ratio, far, tolerance, seed)
        if far == most or 2 * halo <= far:
            return halo
        far = min(2 * far, most)


def _smallest_halo(network: DualTwoStream, ratio: int, far: int, tolerance: float, seed: int) -> int:
    import torch

    generator = torch.Generator().manual_seed(seed)
    config, side = network.config, _CORE + 2 * far

    def draw(channels: int, size: int) -> Tensor:
        return torch.randn(1, channels, size, size, generator=generator)

    hsi, msi = draw(config.bands, side), draw(config.msi_bands, ratio * side)
    base = draw(config.bands, ratio * side) if config.residual else None

    def patch(halo: int, sums: AttentionSums | None) -> Tensor:
        low = slice(far - halo, far + _CORE + halo)
        high = slice(ratio * low.start, ratio * low.stop)
        inner = slice(ratio * halo, ratio * (halo + _CORE))
        cut = None if base is None else base[..., high, high]
        output: Tensor = network(hsi[..., low, low], msi[..., high, high], base=cut, statistics=sums)[0]
        return output[..., inner, inner]

    with torch.inference_mode():
        sums = network.attention_sums(hsi, msi)
        whole = patch(far, sums)
        scale = float(whole.std()) or 1.0

        def agrees(halo: int) -> bool:
            return float((patch(halo, sums) - whole).square().mean().sqrt()) <= tolerance * scale

        return bisect_left(range(far), True, key=agrees)  # the error falls with the halo
