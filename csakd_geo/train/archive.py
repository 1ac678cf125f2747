"""Where training takes its truth from: fine hyperspectral rasters, or tiles of the authors' layout."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import add_noise
from csakd_geo.errors import InputError, SpectralError
from csakd_geo.io import Source, open_source
from csakd_geo.io.axes import read_wavelengths
from csakd_geo.io.cube import is_store
from csakd_geo.io.describe import find_bad_bands
from csakd_geo.io.official import list_tiles, read_tile
from csakd_geo.pair import Block, Pair
from csakd_geo.spectral import SpectralAxis
from csakd_geo.train.variation import Variation, covered_bands, vary

FloatArray = NDArray[np.floating]

RASTERS = (".tif", ".tiff", ".img", ".dat", ".bsq", ".bil", ".bip", ".vrt", ".jp2", ".nc")
_SAME_BAND = 1.0  # nm


class Archive(Protocol):
    """Scenes with known truth."""

    @property
    def axis(self) -> SpectralAxis:
        """Good bands of the first scene; of all of them, where a model of bands is trained."""

    @property
    def msi_axis(self) -> SpectralAxis:
        """Bands of the MSI that goes with it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scenes."""

    def observe(self, rng: np.random.Generator) -> tuple[Pair, FloatArray]:
        """A random observation and its truth (band, y, x)."""


@dataclass(frozen=True, slots=True, eq=False)
class RasterArchive:
    """Fine hyperspectral rasters, observed by Wald's protocol (see :func:`vary`).

    Parameters
    ----------
    sources : tuple of Source
    bands : tuple of ndarray of int
        Good bands of each.
    axis : SpectralAxis
        Of the good bands of the first raster; of all rasters where `uniform`.
    msi_axis : SpectralAxis
        The bands of the first sensor that the first raster covers.
    window : int
        Side of what is read at once, in pixels.
    variation : Variation
    """

    sources: tuple[Source, ...]
    bands: tuple[NDArray[np.intp], ...]
    axis: SpectralAxis
    msi_axis: SpectralAxis
    window: int
    variation: Variation

    @classmethod
    def open(
        cls,
        patterns: Sequence[str],
        variation: Variation,
        *,
        window: int,
        least: int,
        uniform: bool,
        wavelengths: Path | None = None,
    ) -> RasterArchive:
        """Find and check the rasters.

        Parameters
        ----------
        patterns : sequence of str
            Files, folders or glob patterns.
        variation : Variation
        window : int
        least : int
            Pixels per side that a raster must have.
        uniform : bool
            All rasters must have the same good bands (a model of bands).
        wavelengths : Path, optional
            CSV or ENVI header for all of them.

        Raises
        ------
        InputError, SpectralError
            No raster, one that is too small, or bands that do not go together.
        """
        axis = None if wavelengths is None else read_wavelengths(wavelengths)
        sources = tuple(open_source(path, axis=axis) for path in find_rasters(patterns))
        for source in sources:
            if min(source.height, source.width) < least:
                raise InputError(
                    f"'{source.name}' has {source.height} x {source.width} pixels, but one crop at the largest "
                    f"ratio takes {least} x {least}; leave it out, or choose smaller crops."
                )
            if not np.isfinite(source.axis.wavelength).all():
                raise SpectralError(
                    f"'{source.name}' states no wavelengths, which the response of the MSI is computed from; "
                    "give them with data.wavelengths."
                )
        good = [np.asarray(find_bad_bands(source)) for source in sources]
        if uniform:
            require_same_bands(sources)
            good = [np.logical_and.reduce(good)] * len(sources)
        bands = tuple(np.flatnonzero(mask) for mask in good)
        first = sources[0].axis.take(bands[0])
        msi_axis = covered_bands(variation.sensors[0], first)
        if msi_axis.size == 0:
            raise SpectralError(
                f"No band of '{variation.sensors[0]}' lies within '{sources[0].name}'; choose another sensor."
            )
        return cls(sources, bands, first, msi_axis, window, variation)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rasters."""
        return tuple(source.name for source in self.sources)

    def observe(self, rng: np.random.Generator) -> tuple[Pair, FloatArray]:
        """A random window of a random raster, seen by two made sensors; another may be laid over it."""
        index = self._draw(range(len(self.sources)), rng)
        axis = self.sources[index].axis.take(self.bands[index])
        alike = [k for k in range(len(self.sources)) if _same(axis, self.sources[k].axis.take(self.bands[k]))]
        one = self._window(index, rng)
        other = self._window(self._draw(alike, rng), rng) if self.variation.joined else None
        return vary(one, axis, self.variation, rng, other=other)

    def _draw(self, among: Sequence[int], rng: np.random.Generator) -> int:
        """A random raster; a large one is drawn more often than a small one."""
        areas = np.array([float(self.sources[k].height * self.sources[k].width) for k in among])
        return int(rng.choice(among, p=areas / areas.sum()))

    def _window(self, index: int, rng: np.random.Generator) -> FloatArray:
        source = self.sources[index]
        height, width = min(self.window, source.height), min(self.window, source.width)
        row, col = int(rng.integers(source.height - height + 1)), int(rng.integers(source.width - width + 1))
        return source.read(row, col, height, width, bands=self.bands[index].tolist())


@dataclass(frozen=True, slots=True, eq=False)
class OfficialArchive:
    """Tiles as the CSAKD authors store them: HSI, MSI and truth are given.

    Parameters
    ----------
    root : Path
    names : tuple of str
    axis, msi_axis : SpectralAxis
        Without wavelengths where none were given.
    shifts : int
        Up to which of the shifted HSIs are drawn.
    snr_hsi : (float, float) or None
        Noise that is added to the HSI, in dB.
    """

    root: Path
    names: tuple[str, ...]
    axis: SpectralAxis
    msi_axis: SpectralAxis
    shifts: int
    snr_hsi: tuple[float, float] | None

    @classmethod
    def open(
        cls,
        root: Path,
        names: Path | None,
        *,
        msi_bands: int,
        shifts: int,
        snr_hsi: tuple[float, float] | None,
        least: int,
        wavelengths: Path | None = None,
    ) -> OfficialArchive:
        """Find the tiles and check each one's shape.

        Raises
        ------
        InputError, SpectralError
            No tiles, a damaged one, one too small, or band counts that differ.
        """
        found = tuple(list_tiles(root, names))
        first = read_tile(root, found[0], msi_bands=msi_bands)
        for name in found:
            tile = read_tile(root, name, msi_bands=msi_bands, shift=shifts)
            if len(tile.truth) != len(first.truth):
                raise InputError(
                    f"Tile '{name}' has {len(tile.truth)} bands but '{found[0]}' has {len(first.truth)}; train "
                    "on tiles of one band count."
                )
            if min(tile.truth.shape[1:]) < least:
                size = " x ".join(map(str, tile.truth.shape[1:]))
                raise InputError(
                    f"Tile '{name}' has {size} pixels, but one crop takes {least} x {least}; choose smaller crops."
                )
        axis = (
            SpectralAxis.unknown(len(first.truth)) if wavelengths is None else read_wavelengths(wavelengths)
        )
        if axis.size != len(first.truth):
            raise SpectralError(
                f"{axis.size} wavelengths are given for the {len(first.truth)} bands of the tiles in '{root}'."
            )
        return cls(root, found, axis, SpectralAxis.unknown(len(first.msi)), shifts, snr_hsi)

    def observe(self, rng: np.random.Generator) -> tuple[Pair, FloatArray]:
        """A random tile; its HSI may be a shifted one, with noise."""
        name = self.names[int(rng.integers(len(self.names)))]
        shift = int(rng.integers(self.shifts + 1))
        tile = read_tile(self.root, name, msi_bands=self.msi_axis.size, shift=shift)
        snr = None if self.snr_hsi is None else float(rng.uniform(*self.snr_hsi))
        hsi = add_noise(tile.hsi, snr, rng)
        block = Block(hsi, tile.msi, np.ones(hsi.shape[1:], bool))
        return Pair((block,), tile.ratio, self.axis, self.msi_axis), tile.truth


def find_rasters(patterns: Sequence[str]) -> list[Path]:
    """Files, folders and patterns as a sorted list of raster files.

    Raises
    ------
    InputError
        A pattern finds nothing.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir() and not is_store(path):
            hits = [p for p in sorted(path.iterdir()) if p.suffix.lower() in RASTERS or is_store(p)]
        else:
            hits = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
        if not hits:
            raise InputError(
                f"'{pattern}' is no raster, no folder with rasters and no pattern that finds one."
            )
        found += hits
    return list(dict.fromkeys(found))


def require_same_bands(sources: Sequence[Source]) -> None:
    """Refuse rasters whose bands differ in number or place (SpectralError)."""
    first = sources[0]
    for source in sources[1:]:
        if source.axis.size != first.axis.size:
            raise SpectralError(
                f"'{source.name}' has {source.axis.size} bands but '{first.name}' has {first.axis.size}; a model "
                "of bands needs the same ones everywhere (or train in subspace form)."
            )
        if not _same(first.axis, source.axis):
            apart = np.abs(source.axis.wavelength - first.axis.wavelength)
            band = int(apart.argmax())
            raise SpectralError(
                f"Band {band + 1} of '{source.name}' lies {apart[band]:.1f} nm from that of '{first.name}'; a "
                "model of bands needs the same ones everywhere (or train in subspace form)."
            )


def _same(one: SpectralAxis, other: SpectralAxis) -> bool:
    """Whether two images have the same bands."""
    return one.size == other.size and bool(np.abs(one.wavelength - other.wavelength).max() <= _SAME_BAND)


def with_bands(archive: RasterArchive, bands: NDArray[np.intp]) -> RasterArchive:
    """The same rasters, read in these bands alone."""
    axis = archive.sources[0].axis.take(bands)
    return replace(
        archive,
        bands=(bands,) * len(archive.sources),
        axis=axis,
        msi_axis=covered_bands(archive.variation.sensors[0], axis),
    )
