"""A pair of images on its grid, with what is good in them: what every task reads from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from scipy.ndimage import distance_transform_edt
from shapely import from_wkb

from csakd_geo.degrade import finer
from csakd_geo.errors import GridError, InputError
from csakd_geo.grid import FusionGrid
from csakd_geo.io.describe import band_health
from csakd_geo.io.lattice import covered, interpolates, read_hsi, read_msi
from csakd_geo.io.source import Source
from csakd_geo.pair import Block, Pair
from csakd_geo.tiling import Window

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

_WHOLE = 400 * 400  # LR cells up to which a fit sees the whole scene
_BLOCKS, _SIDE = 4, 96  # otherwise: blocks per axis and their side in LR cells
_FAR = 5.0  # widths of a band's 1st to 99th percentile beyond these: no fit believes such a value
_IMPOSSIBLE = 10.0  # widths of the believable range beyond which a value is taken for nodata
_FEW = 0.02  # share of pixels up to which such values are outliers and not the scene
_NEXT = 0.02  # of a band's range that is compared with a pile of values at its end
_NEAR = 3  # LR cells within which a masked pixel repeats the nearest valid one
_LISTED = 6  # bands that a sentence names one by one
_SPECTRA = 100_000  # of each sampled window that the fill values are taken from


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Two sources on one grid; pickles, so that workers on other machines can read it.

    Parameters
    ----------
    hsi, msi : Source
    grid : FusionGrid
    hsi_bands, msi_bands : tuple of int
        Good bands, zero-based.
    hsi_fill, msi_fill : ndarray (band,)
        The scene's medians: what masked pixels are filled with, unless a valid one is near.
    area : bytes or None
        WKB of the area of interest in the MSI's CRS.
    hsi_range, msi_range : ndarray (2, band) or None
        Lowest and highest value that a fit believes; pixels beyond are fused but not learned from.
    hsi_saturated, msi_saturated : tuple of float
        Share of the pixels of each good band that pile up at its highest value.
    """

    hsi: Source
    msi: Source
    grid: FusionGrid
    hsi_bands: tuple[int, ...]
    msi_bands: tuple[int, ...]
    hsi_fill: FloatArray
    msi_fill: FloatArray
    area: bytes | None = None
    hsi_range: FloatArray | None = None
    msi_range: FloatArray | None = None
    hsi_saturated: tuple[float, ...] = ()
    msi_saturated: tuple[float, ...] = ()

    @property
    def frame(self) -> Window:
        """The whole frame in LR cells."""
        return Window(0, 0, self.grid.lr_height, self.grid.lr_width)

    def block(self, window: Window) -> tuple[Block, BoolArray]:
        """Both images of a window of LR cells, filled, and the HR pixels that may be written.

        Returns
        -------
        block : Block
        valid : ndarray (y * ratio, x * ratio) bool
            False where either image is masked or the pixel lies outside footprint or area.
        """
        hsi, msi = self._read(window)
        missing_hsi, missing_msi = np.isnan(hsi), np.isnan(msi)
        if missing_hsi.any() or missing_msi.any():
            # a filled pixel takes the value of a near valid one, which may lie just outside
            around = window.grown(_NEAR).intersect(self.frame)
            hsi, msi = self._read(around)
            _fill(hsi, self.hsi_fill, _NEAR)
            _fill(msi, self.msi_fill, _NEAR * self.grid.ratio)
            r = self.grid.ratio
            hsi = hsi[:, *window.slices(around)]
            msi = msi[:, *window.scaled(r).slices(around.scaled(r))]
        low, high = np.asarray(~missing_hsi.any(0)), ~missing_msi.any(0)
        r = self.grid.ratio
        whole = high.reshape(window.height, r, window.width, r).all((1, 3))
        valid = high & finer(low, r)
        valid &= covered(self.hsi, self.grid, window)
        if self.area is not None:
            valid &= self._inside(window)
        return Block(np.ascontiguousarray(hsi), np.ascontiguousarray(msi), low & whole), valid

    def _read(self, window: Window) -> tuple[FloatArray, FloatArray]:
        hsi = read_hsi(self.hsi, self.grid, window, self.hsi_bands)
        msi = read_msi(self.msi, self.grid, window, self.msi_bands)
        for cube, limits in ((hsi, self.hsi_range), (msi, self.msi_range)):
            if limits is not None and np.isfinite(limits).all():
                _drop_impossible(cube, limits)
        return hsi, msi

    def _inside(self, window: Window) -> BoolArray:
        fine = window.scaled(self.grid.ratio)
        transform = self.grid.affine * Affine.translation(fine.col, fine.row)
        shape = [from_wkb(self.area)]
        return np.asarray(geometry_mask(shape, (fine.height, fine.width), transform, invert=True))

    def sample(self) -> Pair:
        """What fits see: the whole of a small scene, a fixed set of blocks of a large one.

        Raises
        ------
        InputError
            If no LR cell is valid in both images.
        """
        blocks = [self._believable(self.block(window)[0]) for window in self.sample_windows()]
        kept = tuple(b for b in blocks if b.valid.any())
        if not kept:
            raise InputError(
                f"No pixel is valid in both '{self.hsi.name}' and '{self.msi.name}' on their common area; "
                "check their nodata values."
            )
        return Pair(
            kept,
            self.grid.ratio,
            self.hsi.axis.take(self.hsi_bands),
            self.msi.axis.take(self.msi_bands),
            warped=interpolates(self.hsi, self.grid),
        )

    def _believable(self, block: Block) -> Block:
        """The block without the pixels that lie far outside what the scene holds elsewhere."""
        if self.hsi_range is None or self.msi_range is None:
            return block
        r = self.grid.ratio
        low = _within(block.hsi, self.hsi_range)
        high = _within(block.msi, self.msi_range)
        whole = high.reshape(low.shape[0], r, low.shape[1], r).all((1, 3))
        return replace(block, valid=np.asarray(block.valid & low & whole))

    def sample_windows(self) -> list[Window]:
        """Windows of LR cells that :meth:`sample` reads."""
        height, width = self.grid.lr_height, self.grid.lr_width
        if height * width <= _WHOLE:
            return [self.frame]

        def starts(size: int) -> list[int]:
            side = min(_SIDE, size)
            count = min(_BLOCKS, max(1, size // side))
            return [int(v) for v in np.linspace(0, size - side, count)]

        return [
            Window(y, x, min(_SIDE, height), min(_SIDE, width)) for y in starts(height) for x in starts(width)
        ]

    def faults(self) -> list[str]:
        """Sentences on bands that are left out though nothing marks them bad, and on saturated ones."""
        sentences = []
        for source, bands, full in (
            (self.hsi, self.hsi_bands, self.hsi_saturated),
            (self.msi, self.msi_bands, self.msi_saturated),
        ):
            dead = sorted(set(np.flatnonzero(source.axis.good).tolist()) - set(bands))
            if dead:
                sentences.append(
                    f"'{source.name}' has no data or one value nearly everywhere in {name_bands(source, dead)}, left out."
                )
            piled = [band for band, share in zip(bands, full, strict=False) if share > 0]
            if piled:
                sentences.append(
                    f"'{source.name}' looks saturated in {name_bands(source, piled)} (up to {max(full):.0%} of the "
                    "pixels hold the highest value); bright detail there is lost."
                )
        return sentences

    def outliers(self) -> list[str]:
        """One sentence per image that holds values far outside the rest."""
        sentences = []
        for source, limits in ((self.hsi, self.hsi_range), (self.msi, self.msi_range)):
            if limits is not None and np.isfinite(limits).all():
                sentences.append(
                    f"'{source.name}' holds a few values far outside the rest (beyond {limits[0].min():.4g} to "
                    f"{limits[1].max():.4g}); no fit uses those pixels, and the farthest are taken for nodata. "
                    "If they are fill values, declare them as nodata."
                )
        return sentences

    def with_grid(self, grid: FusionGrid) -> Scene:
        """The same images on another grid."""
        return replace(self, grid=grid)


def name_bands(source: Source, bands: Sequence[int]) -> str:
    """Bands in words: a few by number and name, more by their count."""
    if len(bands) > _LISTED:
        return f"{len(bands)} bands, {bands[0] + 1} to {bands[-1] + 1} the first and last"
    nm = source.axis.wavelength
    words = [f"{b + 1} ({nm[b]:.0f} nm)" if np.isfinite(nm[b]) else str(b + 1) for b in bands]
    return f"band{'s' if len(words) > 1 else ''} {', '.join(words)}"


def _drop_impossible(cube: FloatArray, limits: FloatArray) -> None:
    """Make nodata, in place, of values so far beyond the believable ones that they are fill values."""
    room = _IMPOSSIBLE * (limits[1] - limits[0])
    low, high = (limits[0] - room)[:, None, None], (limits[1] + room)[:, None, None]
    cube[(cube < low) | (cube > high)] = np.nan


def _within(cube: FloatArray, limits: FloatArray) -> BoolArray:
    return np.asarray(((cube >= limits[0][:, None, None]) & (cube <= limits[1][:, None, None])).all(0))


def _believed(values: FloatArray, images: list[FloatArray]) -> FloatArray:
    """Lowest and highest believable value per band, (2, band); infinite where nothing is suspect.

    Limits come from a sample (band, n); what lies beyond is counted in whole images (band, n).
    """
    low, high = np.nanpercentile(values, [1, 99], axis=1)
    room = _FAR * (high - low)
    limits = np.stack([low - room, high + room])
    beyond = sum(int(((i < limits[0][:, None]) | (i > limits[1][:, None])).any(0).sum()) for i in images)
    share = beyond / max(sum(i.shape[1] for i in images), 1)
    everything = np.stack([np.full(len(low), -np.inf), np.full(len(low), np.inf)])
    return limits if 0 < share <= _FEW else everything


def _varied(values: FloatArray) -> BoolArray:
    """Whether bands (band, n) hold more than one value in more than a hundredth of their pixels."""
    low, high = np.nanpercentile(values, [0.5, 99.5], axis=1)
    return np.asarray(low < high)


def _saturated(values: FloatArray) -> FloatArray:
    """Share of each band's pixels (band, n) that pile up at its highest value; 0 where that is no pile.

    A pile is five times as high as all that lies within a fiftieth of the band's range below it.
    """
    top = np.nanmax(values, axis=1, keepdims=True)
    reach = _NEXT * (top - np.nanpercentile(values, 1, axis=1)[:, None])
    at = (values == top).mean(1)
    below = ((values < top) & (values >= top - reach)).mean(1)
    return np.asarray(np.where((at > _FEW) & (below > 0) & (at > 5 * below), at, 0.0))


def _fill(cube: FloatArray, medians: FloatArray, reach: int) -> None:
    """Fill NaN in place: the nearest valid pixel's value within ``reach`` pixels, else the median.

    A pixel that misses one band counts as missing for the search, but keeps its other bands.
    """
    missing = np.isnan(cube)
    masked = missing.any(0)
    if not masked.any():
        return
    if masked.all():
        cube[...] = np.where(missing, medians[:, None, None], cube)
        return
    distance, (rows, columns) = distance_transform_edt(masked, return_indices=True)
    for band, gaps, median in zip(cube, missing, medians, strict=True):
        nearest = band[rows, columns]
        band[gaps] = np.where(distance > reach, median, nearest)[gaps]


def open_scene(hsi: Source, msi: Source, grid: FusionGrid, *, area: bytes | None = None) -> Scene:
    """Find good bands and fill values of a pair; a band that is empty on the common area is not good.

    Parameters
    ----------
    hsi, msi : Source
    grid : FusionGrid
    area : bytes, optional
        WKB in the MSI's CRS.

    Raises
    ------
    InputError
        If an image has no good band or no valid pixel on the common area.
    """
    bands = []
    for source in (hsi, msi):
        good = np.flatnonzero(band_health(source).good)
        if good.size == 0:
            raise InputError(
                f"'{source.name}' has no usable band: all are nodata, constant or flagged bad; "
                "check its nodata value and bad band list."
            )
        bands.append(tuple(int(b) for b in good))
    blank = Scene(hsi, msi, grid, bands[0], bands[1], np.empty(0), np.empty(0), area)
    parts = [blank._read(window) for window in blank.sample_windows()]
    fills, ranges, piles = [], [], []
    for k, source in enumerate((hsi, msi)):
        images = [part[k].reshape(len(bands[k]), -1) for part in parts]
        values = np.concatenate([v[:, :: max(1, v.shape[1] // _SPECTRA)] for v in images], axis=1)
        seen = np.isfinite(values).any(1)
        seen[seen] = _varied(values[seen])
        if not seen.any():
            raise InputError(
                f"'{source.name}' has no valid pixel, or one value per band, on the common area; check that both "
                "images hold data there."
            )
        bands[k] = tuple(band for band, some in zip(bands[k], seen, strict=True) if some)
        fills.append(np.nanmedian(values[seen], axis=1).astype(np.float32))
        piles.append(tuple(_saturated(values[seen]).tolist()))
        ranges.append(_believed(values[seen], [image[seen] for image in images]))
    if len(bands[1]) > len(bands[0]):
        raise GridError(
            f"The MSI '{msi.name}' has more bands ({len(bands[1])}) than the HSI '{hsi.name}' ({len(bands[0])}); "
            "are the two inputs swapped?"
        )
    return Scene(
        hsi, msi, grid, bands[0], bands[1], fills[0], fills[1], area, ranges[0], ranges[1], piles[0], piles[1]
    )
