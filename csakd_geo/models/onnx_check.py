"""The check of a network in ONNX Runtime against torch, in one piece and in tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .attention import AttentionSums
from .checkpoint import Model

if TYPE_CHECKING:
    from .onnx import OnnxNetwork

FloatArray = NDArray[np.float32]

#: RMSE over the standard deviation of torch's output up to which two results agree.
TOLERANCE = 1e-5
#: LR sizes of a check: not square and no multiples of 16, larger than a tile.
SIZES = ((21, 13), (19, 25), (31, 11))

_TILE = 12  # LR pixels per side of a tile


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far ONNX Runtime is from torch on one random scene: RMSE over torch's standard deviation.

    Parameters
    ----------
    lr_height, lr_width, halo
        HSI pixels.
    whole, tiled
        Error of the scene in one piece, and in tiles with this halo that share the scene's sums.
    """

    lr_height: int
    lr_width: int
    halo: int
    whole: float
    tiled: float

    @property
    def holds(self) -> bool:
        """Whether both are within `TOLERANCE`."""
        return self.whole <= TOLERANCE and self.tiled <= TOLERANCE


def verify_onnx(
    model: Model, onnx: OnnxNetwork, *, sizes: tuple[tuple[int, int], ...] = SIZES, seed: int = 0
) -> list[Agreement]:
    """Hold a network in ONNX Runtime against torch on random scenes, in one piece and in tiles.

    Parameters
    ----------
    model
        The network that it was exported from.
    onnx
        The two graphs.
    sizes
        LR height and width of each scene.
    seed
        Of the scenes.

    Raises
    ------
    ModelError
        The graphs hold another network's weights.
    """
    import torch

    from .reach import measured_reach

    if onnx.card.sha256 != model.card.sha256:
        raise ModelError(
            f"The ONNX file was exported from another model ({onnx.card.name} {onnx.card.version}) than "
            f"{model.card.name} {model.card.version}; export it anew."
        )
    config, r = model.network.config, onnx.ratio
    halo = measured_reach(model.network, r, tolerance=TOLERANCE / 4, seed=seed)
    draw = np.random.default_rng(seed)
    found = []
    for height, width in sizes:
        fine = (r * height, r * width)
        hsi = draw.standard_normal((1, config.bands, height, width), np.float32)
        msi = draw.standard_normal((1, config.msi_bands, *fine), np.float32)
        base = draw.standard_normal((1, config.bands, *fine), np.float32) if config.residual else None
        with torch.inference_mode():
            low, high = torch.from_numpy(hsi), torch.from_numpy(msi)
            sums = model.network.attention_sums(low, high)
            middle = None if base is None else torch.from_numpy(base)
            expected = model.network(low, high, base=middle, statistics=sums)[0].numpy()
        error = [
            float(np.sqrt(np.square(_in_tiles(onnx, hsi, msi, base, tile, halo) - expected).mean()))
            / (float(expected.std()) or 1.0)
            for tile in (max(height, width), _TILE)
        ]
        found.append(Agreement(height, width, halo, *error))
    return found


def _in_tiles(
    onnx: OnnxNetwork, hsi: FloatArray, msi: FloatArray, base: FloatArray | None, tile: int, halo: int
) -> FloatArray:
    """Sum statistics over all tiles, then fuse tile by tile; what lies beyond the scene is left out."""
    r, (height, width) = onnx.ratio, hsi.shape[2:]
    tiles = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]

    def cut(y: int, x: int, scale: int, halo: int) -> tuple[slice, slice]:
        rows = slice(max(y - halo, 0) * scale, min(y + tile + halo, height) * scale)
        return rows, slice(max(x - halo, 0) * scale, min(x + tile + halo, width) * scale)

    sums: AttentionSums | None = None
    for y, x in tiles:
        core = np.zeros((1, 1, *msi.shape[2:]), np.float32)
        core[..., *cut(y, x, r, 0)] = 1
        low, high = cut(y, x, 1, halo), cut(y, x, r, halo)
        part = onnx.sums(hsi[..., *low], msi[..., *high], core[..., *high])
        sums = part if sums is None or part is None else sums + part
    fused = np.empty((*hsi.shape[:2], *msi.shape[2:]), np.float32)
    for y, x in tiles:
        low, high, inner = cut(y, x, 1, halo), cut(y, x, r, halo), cut(y, x, r, 0)
        piece = None if base is None else base[..., *high]
        result = onnx.fuse(hsi[..., *low], msi[..., *high], base=piece, sums=sums)
        rows, columns = (slice(i.start - h.start, i.stop - h.start) for i, h in zip(inner, high, strict=True))
        fused[..., *inner] = result[..., rows, columns]
    return fused
