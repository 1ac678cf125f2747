"""What is known against a pixel: bits of the quality layer, and where the two images disagree.

A pixel has changed where, at the HSI's resolution, the MSI and the HSI seen through the estimated response
differ by more than the scene's other pixels do, and where that is so in a patch and not in one pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, convolve

from csakd_geo.degrade import PSF, apply_srf, degrade, finer
from csakd_geo.pair import Block, Pair
from csakd_geo.response import Response, robust_misfit

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

MASKED, FILLED, CLIPPED, EXTRAPOLATED, CHANGED = 1, 2, 4, 8, 16
#: Bit, name and meaning; what is not told of holds 0.
FLAGS = (
    (MASKED, "masked", "no data in the product"),
    (FILLED, "filled", "an input has a gap in this HSI pixel or the next, which was filled"),
    (CLIPPED, "clipped", "a band is stored at the limit of the product's type"),
    (EXTRAPOLATED, "extrapolated", "values beyond those the fit saw, or an image ends within the HSI pixel"),
    (CHANGED, "changed", "HSI and MSI disagree, as where something changed between their dates"),
)
_FAR = 5.0  # robust deviations of the disagreement
_PATCH = 4  # of the 3 x 3 HSI pixels around one that must disagree with it
_ROUNDS = 3  # of setting aside: what a cloud has spoilt of the response hides a part of it at first
_LEFT = 0.5  # of the pixels that must agree for the others to be the exception
_RELIEF = 3.0  # by which leaving them out divides the misfit: rare materials reach 1.4, thin small clouds 6
_ROOM = 0.05  # of a band's range beyond which a value counts as not seen by the fit


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """How HSI and MSI agree where nothing changed, and what values a fit saw.

    Parameters
    ----------
    psf : PSF
    operator : ndarray (msi_band, hsi_band)
        From the HSI to the MSI at LR.
    centre, spread : ndarray (msi_band,)
        Median and robust deviation of the degraded MSI minus the HSI through the operator.
    hsi_range, msi_range : ndarray (2, band)
        Lowest and highest value that the fit saw, with a little room.
    """

    psf: PSF
    operator: FloatArray
    centre: FloatArray
    spread: FloatArray
    hsi_range: FloatArray
    msi_range: FloatArray

    @property
    def halo(self) -> int:
        """LR pixels around one that its bits depend on."""
        return self.psf.halo + 1

    def changed(self, hsi: FloatArray, msi: FloatArray, valid: BoolArray) -> BoolArray:
        """LR pixels ``(y, x)`` of a window where the images disagree in a patch."""
        left = degrade(msi, self.psf) - apply_srf(hsi, self.operator)
        far = np.abs(left - self.centre[:, None, None]) > _FAR * self.spread[:, None, None]
        found = far.any(0) & valid
        around = convolve(found.astype(np.uint8), np.ones((3, 3), np.uint8), mode="constant")
        return np.asarray(found & (around >= _PATCH))

    def unseen(self, block: Block) -> BoolArray:
        """HR pixels with values that the fit has not seen the like of."""
        low, high = (
            ((cube < limits[0][:, None, None]) | (cube > limits[1][:, None, None])).any(0)
            for cube, limits in ((block.hsi, self.hsi_range), (block.msi, self.msi_range))
        )
        return np.asarray(high | finer(low, self.psf.ratio))

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        names = ("operator", "centre", "spread", "hsi_range", "msi_range")
        return {"psf": asdict(self.psf)} | {name: getattr(self, name).tolist() for name in names}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Agreement:
        """Inverse of :meth:`to_dict`."""
        arrays = {name: np.array(value, float) for name, value in values.items() if name != "psf"}
        return cls(psf=PSF(**values["psf"]), **arrays)


def fit_agreement(pair: Pair, response: Response) -> Agreement:
    """Find how the images of a pair agree.

    Parameters
    ----------
    pair : Pair
    response : Response
    """
    centre, spread = robust_misfit(pair, response)
    floor = 1e-3 * pair.msi_spectra(response.psf).std(1) + 1e-12
    fine = [
        b.msi[:, finer(b.valid, pair.ratio)]  # what the PSF hides is in the range as well
        for b in pair.blocks
    ]
    return Agreement(
        response.psf,
        response.operator,
        centre,
        np.maximum(spread, floor),
        _range([pair.hsi_spectra()]),
        _range(fine),
    )


def unchanged(pair: Pair, response: Response) -> Pair:
    """The pair without the pixels where its images disagree, as under a cloud in one of them."""
    agreement = fit_agreement(pair, response)
    blocks = [replace(b, valid=b.valid & ~agreement.changed(b.hsi, b.msi, b.valid)) for b in pair.blocks]
    return replace(pair, blocks=tuple(blocks))


def set_aside(
    pair: Pair, response: Response, estimate: Callable[[Pair], Response]
) -> tuple[Pair, Response, float]:
    """Leave out what changed, with the pixels beside it, and estimate the response from the rest.

    Parameters
    ----------
    pair : Pair
    response : Response
        Of the whole pair.
    estimate : callable
        The response of a part of the pair.

    Returns
    -------
    pair : Pair
        For fits. The one given, where nothing changed, less than half of it agrees, or leaving out helps little.
    response : Response
    share : float
        Of the pixels that were left out.
    """
    rest, found = pair, response
    for _ in range(_ROUNDS):
        still = unchanged(pair, found)
        if still.pixels == pair.pixels:
            return pair, found, 0.0
        blocks = [
            replace(b, valid=b.valid & ~binary_dilation(b.valid & ~kept.valid, np.ones((3, 3), bool)))
            for b, kept in zip(pair.blocks, still.blocks, strict=True)
        ]
        smaller = replace(pair, blocks=tuple(blocks))
        if smaller.pixels < max(_LEFT * pair.pixels, 16):
            return pair, response, 0.0
        settled = smaller.pixels == rest.pixels
        rest = smaller
        if settled:
            break
        found = estimate(rest)
    if np.mean(response.misfit / np.maximum(found.misfit, 1e-12)) < _RELIEF:
        return pair, response, 0.0
    return rest, found, 1 - rest.pixels / pair.pixels


def disagreement(share: float) -> str:
    """What a user is told of pixels that were set aside."""
    return (
        f"HSI and MSI disagree on {share:.1%} of the pixels, as under clouds or where something changed between their "
        "dates"
    )


def flag_block(agreement: Agreement, block: Block, *, partial: BoolArray) -> NDArray[np.uint8]:
    """Bits ``(ry, rx)`` of a window that hold for all that is written: filled, extrapolated, changed.

    Parameters
    ----------
    agreement : Agreement
    block : Block
        Of the window, whose outer ``halo`` LR pixels lack context.
    partial : ndarray (y, x) bool
        LR pixels in which an image ends.
    """
    r = agreement.psf.ratio
    filled = binary_dilation(
        ~block.valid, np.ones((3, 3), bool)
    )  # farther off, interpolation gives little weight
    low = FILLED * filled + EXTRAPOLATED * partial
    low = low + CHANGED * agreement.changed(block.hsi, block.msi, block.valid)
    return np.asarray(
        finer(low.astype(np.uint8), r) | (EXTRAPOLATED * agreement.unseen(block)).astype(np.uint8)
    )


def _range(parts: list[FloatArray]) -> FloatArray:
    low = np.min([part.min(1) for part in parts if part.size], axis=0)
    high = np.max([part.max(1) for part in parts if part.size], axis=0)
    room = _ROOM * (high - low)
    return np.stack([low - room, high + room]).astype(float)
