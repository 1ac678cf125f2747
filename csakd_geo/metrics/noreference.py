r"""Scores without truth: HQNR, from spectra at the HSI's resolution and detail at the MSI's.

.. math:: \mathrm{HQNR} = (1 - D_\lambda)(1 - D_s)

*Spectral distortion* (Khan et al. 2009, with Q2n of Garzelli and Nencini 2009 for its index):
:math:`D_\lambda = 1 - Q2^n(\mathrm{PSF}(F), H)`, the fused cube F degraded with the PSF of the pair against the
HSI H, on blocks of 32 x 32 HSI pixels.

*Spatial distortion* (Alparone et al. 2008, as Aiazzi et al. 2014 and Vivone et al. 2021 join it to the former).
Pansharpening compares each band with the one PAN image. Here every MSI band m has a counterpart in the cube, its
projection :math:`P_m(X) = g_m \sum_b s_{mb} X_b + o_m` with response, gain and offset of the pair, so

.. math:: D_{s,m} = | Q(P_m(F), M_m) - Q(P_m(H), \mathrm{PSF}(M_m)) |, \quad D_s = \mathrm{mean}_m D_{s,m}

with Q = UIQI (Wang and Bovik 2002), at the MSI's resolution on the left and at the HSI's on the right, on blocks
of the same ground: about 32 x 32 MSI pixels, see `ground_side`. What the response cannot explain lowers both
alike and is not counted against the product.

An HSI pixel counts where all of its footprint lies on valid pixels; a block counts with its valid pixels.

References
----------
Alparone et al. 2008, Multispectral and panchromatic data fusion assessment without reference, PE&RS 74(2).
Khan et al. 2009, Pansharpening quality assessment using the modulation transfer functions of instruments,
IEEE TGRS 47(11).
Garzelli and Nencini 2009, Hypercomplex quality assessment of multi/hyperspectral images, IEEE GRSL 6(4).
Aiazzi et al. 2014, Full-scale assessment of pansharpening methods and data products, Proc. SPIE 9244.
Vivone et al. 2021, A new benchmark based on recent advances in multispectral pansharpening, IEEE GRSM 9(1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import finer
from csakd_geo.metrics.quality import UIQI_BLOCK, hypercomplex_quality, split_blocks, universal_quality

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

_LEAST = 16  # HSI pixels of a block; of fewer a covariance says little


@dataclass(frozen=True, slots=True, eq=False)
class NoReferenceScores:
    """HQNR and its parts.

    Parameters
    ----------
    d_lambda : float
        Spectral distortion, 0 is best; NaN where no block has enough pixels.
    fine, coarse : ndarray (msi_band,)
        UIQI of each MSI band against the fused cube's projection, and of the degraded band against the HSI's;
        NaN where the product cannot be projected.
    cells : int
        HSI pixels that the spectral distortion was taken over.
    """

    d_lambda: float
    fine: FloatArray
    coarse: FloatArray
    cells: int

    @property
    def d_s_bands(self) -> FloatArray:
        """Spatial distortion per MSI band, 0 is best."""
        return np.asarray(np.abs(self.fine - self.coarse))

    @property
    def d_s(self) -> float:
        """Mean spatial distortion."""
        return float(self.d_s_bands.mean())

    @property
    def hqnr(self) -> float:
        """Hybrid quality with no reference, 1 is best."""
        return (1 - self.d_lambda) * (1 - self.d_s)

    def to_dict(self) -> dict[str, Any]:
        """The three scores and the number of pixels."""
        return {"hqnr": self.hqnr, "d_lambda": self.d_lambda, "d_s": self.d_s, "pixels": self.cells}


class NoReferenceTally:
    """Running sums over windows of a scene.

    Windows are cut at multiples of 32 HSI pixels, so that the blocks are those of the whole scene.

    Parameters
    ----------
    msi_bands : int
    ratio : int
    """

    def __init__(self, msi_bands: int, ratio: int) -> None:
        self.ratio = ratio
        self._spectral = np.zeros(2)  # index times pixels, pixels
        self._fine, self._coarse = np.zeros((2, msi_bands))
        self._seen = 0

    def add_spectra(self, degraded: FloatArray, hsi: FloatArray, good: BoolArray) -> None:
        """Add a window for the spectral distortion.

        Parameters
        ----------
        degraded, hsi : ndarray (band, y, x)
        good : ndarray (y, x)
            Pixels to count; the others may hold anything.
        """
        for at in split_blocks(good.shape, UIQI_BLOCK):
            some = good[at]
            count = int(some.sum())
            if count >= _LEAST:
                a, b = (cube[:, *at][:, some].astype(np.float64) for cube in (degraded, hsi))
                self._spectral += hypercomplex_quality(a, b) * count, count

    def add_detail(
        self, fine: tuple[FloatArray, FloatArray], coarse: tuple[FloatArray, FloatArray], good: BoolArray
    ) -> None:
        """Add a window for the spatial distortion.

        Parameters
        ----------
        fine : pair of ndarray (msi_band, y * ratio, x * ratio)
            Projection of the fused cube, and the MSI.
        coarse : pair of ndarray (msi_band, y, x)
            Projection of the HSI, and the degraded MSI.
        good : ndarray (y, x)
            HSI pixels that count, and with them all MSI pixels inside.
        """
        inside = finer(good, self.ratio)
        for rows, cols in split_blocks(good.shape, ground_side(self.ratio)):
            count = int(good[rows, cols].sum())
            if count < _LEAST:
                continue
            large = tuple(slice(s.start * self.ratio, s.stop * self.ratio) for s in (rows, cols))
            for total, images, at, mask in (
                (self._fine, fine, large, inside),
                (self._coarse, coarse, (rows, cols), good),
            ):
                a, b = (image[:, *at][:, mask[at]].astype(np.float64) for image in images)
                total += universal_quality(a, b) * count
            self._seen += count

    def result(self) -> NoReferenceScores:
        """The scores of all that was added."""
        with np.errstate(invalid="ignore"):
            index, count = self._spectral
            return NoReferenceScores(
                d_lambda=float(1 - np.divide(index, count)),
                fine=self._fine / self._seen if self._seen else np.full_like(self._fine, np.nan),
                coarse=self._coarse / self._seen if self._seen else np.full_like(self._coarse, np.nan),
                cells=int(count),
            )


def ground_side(ratio: int) -> int:
    """HSI pixels per side of a block of the spatial distortion.

    The power of two nearest to 32 MSI pixels, which divides the 32 HSI pixels of the other blocks, and 4 at
    least.
    """
    return max(4, 1 << max(0, round(math.log2(UIQI_BLOCK / ratio))))
