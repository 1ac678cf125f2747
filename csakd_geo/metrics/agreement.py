"""Agreement of two images band by band, from sums over pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """An estimate against what it should be, per band.

    Parameters
    ----------
    rmse, bias : ndarray (band,)
        Root mean square and mean of estimate less image, in the image's units.
    mean, level, peak : ndarray (band,)
        Mean, root mean square and maximum of the image.
    cc : ndarray (band,)
        Pearson's correlation; NaN where a band is constant in either.
    count : int
        Pixels compared.
    """

    rmse: FloatArray
    bias: FloatArray
    mean: FloatArray
    level: FloatArray
    peak: FloatArray
    cc: FloatArray
    count: int

    @property
    def psnr(self) -> FloatArray:
        """Peak squared over mean square difference, dB; infinite where there is none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(20 * np.log10(np.abs(self.peak) / self.rmse))

    @property
    def relative(self) -> FloatArray:
        """RMSE over level."""
        return np.asarray(self.rmse / np.where(self.level > 0, self.level, np.nan))

    @property
    def overall(self) -> float:
        """Root of the summed squared differences over that of the summed squares, all bands."""
        total = float(np.sqrt(np.square(self.level).sum()))
        return float(np.sqrt(np.square(self.rmse).sum())) / total if total > 0 else float("nan")


class BandSums:
    """Running sums per band of an estimate and what it should be."""

    def __init__(self, bands: int) -> None:
        self._count = np.zeros(bands)
        self._sums = np.zeros((6, bands))
        self._peak = np.full(bands, -np.inf)

    def add(self, ours: FloatArray, theirs: FloatArray, *, bands: slice = slice(None)) -> None:
        """Add pixels without NaN, both (band, n), of some of the bands."""
        if ours.shape[1] == 0:
            return
        f, t = ours.astype(np.float64), theirs.astype(np.float64)
        of = "bn,bn->b"
        moments = [f.sum(1), t.sum(1), *(np.einsum(of, a, b) for a, b in ((f, f), (t, t), (f, t)))]
        self._peak[bands] = np.maximum(self._peak[bands], t.max(1))
        self._count[bands] += f.shape[1]
        f -= t
        self._sums[:, bands] += np.stack([*moments, np.einsum(of, f, f)])

    def result(self) -> Agreement:
        """Figures of all bands; NaN where nothing was compared."""
        with np.errstate(divide="ignore", invalid="ignore"):
            f, t, ff, tt, ft, error = self._sums / self._count
            spread_f, spread_t = ff - f * f, tt - t * t
            # what rounding leaves of a constant band is no variance
            varied = (spread_f > 1e-12 * ff) & (spread_t > 1e-12 * tt)
            cc = np.where(varied, (ft - f * t) / np.sqrt(spread_f * spread_t), np.nan)
        count = int(self._count.max(initial=0))
        return Agreement(np.sqrt(error), f - t, t, np.sqrt(tt), self._peak.copy(), cc, count)
