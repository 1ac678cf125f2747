"""What a fit sees of two images: nested blocks of both, filled and masked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import PSF, degrade
from csakd_geo.errors import GridError

if TYPE_CHECKING:
    from csakd_geo.spectral import SpectralAxis

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One window of both images on the fusion grid, without NaN.

    Parameters
    ----------
    hsi : ndarray (hsi_band, y, x) float32
    msi : ndarray (msi_band, y * ratio, x * ratio) float32
    valid : ndarray (y, x) bool
        LR pixels where neither image was masked.
    """

    hsi: FloatArray
    msi: FloatArray
    valid: BoolArray


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A scene, or a fixed sample of it, as a fit sees it: good bands only, nothing missing.

    Parameters
    ----------
    blocks : tuple of Block
        One block for a small scene, several spread over a large one.
    ratio : int
    hsi_axis, msi_axis : SpectralAxis
        Of the bands in the blocks.
    warped : bool
        What is here lies between the HSI's own pixels and is interpolated from them.
    """

    blocks: tuple[Block, ...]
    ratio: int
    hsi_axis: SpectralAxis
    msi_axis: SpectralAxis
    warped: bool = False

    def __post_init__(self) -> None:
        for block in self.blocks:
            height, width = block.hsi.shape[1:]
            if block.msi.shape[1:] != (height * self.ratio, width * self.ratio):
                raise GridError(
                    f"An MSI block of {block.msi.shape[1:]} pixels does not nest an HSI block of "
                    f"{(height, width)} at ratio {self.ratio}."
                )

    @property
    def pixels(self) -> int:
        """Valid LR pixels."""
        return int(sum(block.valid.sum() for block in self.blocks))

    def interior(self, margin: int) -> list[BoolArray]:
        """Valid LR pixels at least ``margin`` away from a block's edge (all of a tiny block).

        Where next to none of the valid pixels lie that far inside, all of them.
        """
        masks = []
        for block in self.blocks:
            inner = np.zeros_like(block.valid)
            m = margin if min(inner.shape) > 4 * margin else 0
            inner[m : inner.shape[0] - m, m : inner.shape[1] - m] = True
            masks.append(inner & block.valid)
        if sum(int(mask.sum()) for mask in masks) < min(16, self.pixels):
            return [block.valid for block in self.blocks]
        return masks

    def hsi_spectra(self, margin: int = 0) -> FloatArray:
        """HSI spectra of the interior, (hsi_band, n) float64."""
        return self._gather([b.hsi for b in self.blocks], margin)

    def msi_spectra(self, psf: PSF, margin: int = 0) -> FloatArray:
        """Degraded MSI of the interior, (msi_band, n) float64, same pixels as the HSI's."""
        return self._gather([degrade(b.msi, psf) for b in self.blocks], margin)

    def _gather(self, cubes: list[FloatArray], margin: int) -> FloatArray:
        masks = self.interior(margin)
        return np.concatenate(
            [cube[:, mask].astype(np.float64) for cube, mask in zip(cubes, masks, strict=True)], axis=1
        )


def cut(pair: Pair, pixels: int) -> Pair:
    """The middle of the blocks, so many LR pixels or fewer."""
    r, room, kept = pair.ratio, pixels, []
    for block in pair.blocks:
        if room <= 0:
            break
        side = int(np.sqrt(room))
        y0, x0 = (max(0, (n - side) // 2) for n in block.valid.shape)
        low = np.s_[y0 : y0 + side, x0 : x0 + side]
        high = np.s_[y0 * r : (y0 + side) * r, x0 * r : (x0 + side) * r]
        part = Block(block.hsi[:, *low], block.msi[:, *high], block.valid[low])
        if part.valid.any():
            kept.append(part)
            room -= part.valid.size
    if not kept:  # all that is valid lies at the rim
        kept = [block for block in pair.blocks if block.valid.any()][:1]
    return replace(pair, blocks=tuple(kept))


def degrade_pair(pair: Pair, psf: PSF) -> tuple[Pair, tuple[FloatArray, ...]]:
    """Wald's protocol one level down: both images coarser by the ratio, the HSI is the truth.

    Blocks are cropped to multiples of the ratio.

    Returns
    -------
    pair : Pair
        Degraded HSI and degraded MSI.
    truth : tuple of ndarray (hsi_band, y, x)
        The HSI of each block, on the degraded MSI's grid.

    Raises
    ------
    GridError
        If a block has fewer HSI pixels than the ratio along an axis.
    """
    r = pair.ratio
    blocks, truth = [], []
    for block in pair.blocks:
        height, width = (n // r * r for n in block.valid.shape)
        if height == 0 or width == 0:
            size = " x ".join(map(str, block.valid.shape))
            raise GridError(
                f"An HSI of {size} pixels is too small to be degraded by ratio {r}; "
                f"at least {r} x {r} are needed."
            )
        hsi = block.hsi[:, :height, :width]
        msi = block.msi[:, : height * r, : width * r]
        cells = block.valid[:height, :width].reshape(height // r, r, width // r, r)
        blocks.append(Block(degrade(hsi, psf), degrade(msi, psf), np.asarray(cells.all((1, 3)))))
        truth.append(hsi)
    return replace(pair, blocks=tuple(blocks)), tuple(truth)
