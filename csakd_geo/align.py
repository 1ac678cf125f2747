"""How far the HSI lies off the MSI, found from the pair, and the HSI written where it belongs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from shapely import from_wkb

from csakd_geo._version import __version__
from csakd_geo.engine.scene import Scene, open_scene
from csakd_geo.errors import InputError, OutputError
from csakd_geo.grid import FusionGrid, Georeferenced, lay_grid, pixel_mapping
from csakd_geo.io import open_source
from csakd_geo.io.cog import RasterSpec, write_cog
from csakd_geo.io.encoding import Encoding
from csakd_geo.io.formats import FORMATS
from csakd_geo.io.lattice import covered, read_hsi
from csakd_geo.io.raster import RasterSource
from csakd_geo.io.source import Source
from csakd_geo.pair import Pair
from csakd_geo.response import Response, estimate_response
from csakd_geo.spectral import SpectralAxis
from csakd_geo.threads import one_blas_thread
from csakd_geo.tiling import Window

FloatArray = NDArray[np.floating]

_MIN_SHIFT = 0.1  # HSI pixels below which the grid is left and the PSF's phase tells the rest
_MIN_CELLS = 8  # HSI pixels per side under which no shift is searched
_MIN_REACH, _MAX_REACH = 3, 8  # HSI pixels that a shift is searched over, more in a larger scene
_MIN_EXPLAINED = 0.5  # share of the HSI's leading components below which no place is believable
_LEAST_EXPLAINED = 0.25  # the same, below which a pair stays where its files say it is
_MAX_STRAIN = 0.05  # HSI pixels that one translation may be wrong by
_BLOCK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Where the HSI lies, and the pair as it is seen from there.

    Parameters
    ----------
    scene : Scene
        On the grid that was moved, where that was called for.
    pair : Pair
        Its sample.
    response : Response
        Of that pair.
    shift : (float, float)
        What is to be added to the HSI's coordinates along x and y, in units of the MSI's CRS;
        zero where none is believable.
    pixels : (float, float)
        The same along x and y of the MSI's grid, in HSI pixels.
    reach : int
        HSI pixels per axis that were searched; 0 where the scene is too small for that.
    """

    scene: Scene
    pair: Pair
    response: Response
    shift: tuple[float, float]
    pixels: tuple[float, float]
    reach: int


def find_shift(scene: Scene, *, least: int = _MIN_REACH) -> Alignment:
    """Estimate what links a pair, and move the grid where it is off by 0.1 HSI pixel or more.

    Parameters
    ----------
    scene : Scene
    least : int
        HSI pixels that are searched at least, where a quarter of the scene is as many.

    Returns
    -------
    Alignment

    Raises
    ------
    CsakdGeoError
        If the pair has too few valid pixels, or nothing that relates its images.
    """
    given, grid, pair = scene, scene.grid, scene.sample()
    smallest = min(min(b.valid.shape) for b in pair.blocks)
    if smallest < _MIN_CELLS:
        return _unmoved(scene, pair, 0)
    reach = int(np.clip(smallest // 6, min(least, smallest // 4), _MAX_REACH))
    response = estimate_response(pair, centre=(grid.phase_y, grid.phase_x), reach=reach)
    if not response.confident:
        return _unmoved(scene, pair, reach)
    shift = _shift(scene, response)
    if float(np.hypot(*shift_in_pixels(scene.grid, shift))) >= _MIN_SHIFT:
        bounds = None if scene.area is None else from_wkb(scene.area).bounds
        scene = scene.with_grid(lay_grid(scene.hsi, scene.msi, ratio=grid.ratio, shift=shift, bounds=bounds))
        pair, grid = scene.sample(), scene.grid
        response = estimate_response(pair, centre=(grid.phase_y, grid.phase_x), reach=1)
        shift = _shift(scene, response)
    if response.explained < _LEAST_EXPLAINED:
        return _unmoved(given, pair if scene is given else given.sample(), reach)
    return Alignment(scene, pair, response, shift, shift_in_pixels(scene.grid, shift), reach)


def _unmoved(scene: Scene, pair: Pair, reach: int) -> Alignment:
    """The pair where its files say it is."""
    grid = scene.grid
    response = estimate_response(pair, phase=False, centre=(grid.phase_y, grid.phase_x))
    return Alignment(scene, pair, response, (0.0, 0.0), (0.0, 0.0), reach)


def _shift(scene: Scene, response: Response) -> tuple[float, float]:
    """The grid's own shift and what the PSF's displacement adds to it, in units of the MSI's CRS."""
    grid, psf = scene.grid, response.psf
    return (
        grid.shift_x + (psf.dx - grid.phase_x) * grid.transform[0],
        grid.shift_y + (psf.dy - grid.phase_y) * grid.transform[4],
    )


def shift_in_pixels(grid: FusionGrid, shift: tuple[float, float]) -> tuple[float, float]:
    """A shift in units of the MSI's CRS in HSI pixels."""
    return (
        shift[0] / (grid.transform[0] * grid.ratio),
        shift[1] / (grid.transform[4] * grid.ratio),
    )


@dataclass(frozen=True, slots=True)
class Aligned:
    """What came of :func:`align`.

    Parameters
    ----------
    path : Path
    shift : (float, float)
        Added to the HSI's coordinates along x and y, in units of the MSI's CRS.
    pixels : (float, float)
        The same in HSI pixels, along x and y of the MSI's grid.
    explained : float or None
        Share of what varies in the HSI that the MSI explains there; None where the shift was given.
    warnings : tuple of str
    """

    path: Path
    shift: tuple[float, float]
    pixels: tuple[float, float]
    explained: float | None
    warnings: tuple[str, ...]


def align(
    hsi: Any,
    msi: Any,
    target: Path | str,
    *,
    shift: tuple[float, float] | None = None,
    ratio: int | None = None,
    warp: bool = False,
    wavelengths: SpectralAxis | None = None,
    overwrite: bool = False,
) -> Aligned:
    """Write the HSI where the MSI shows it to be, as a COG with its wavelengths, units and tags.

    Parameters
    ----------
    hsi, msi : path or DataArray
    target : Path or str
        Ends in ``.tif`` or ``.tiff``.
    shift : (float, float), optional
        Added to the HSI's coordinates, in units of the MSI's CRS; found from the pair by default.
    ratio : int, optional
        HSI pixel over MSI pixel; by default from the files.
    warp : bool
        Resample (cubic) onto the cells of ``ratio`` x ``ratio`` MSI pixels, in the MSI's CRS. By default
        the pixels stay as they are, and only their position changes.
    wavelengths : SpectralAxis, optional
        Bands of the HSI, in place of what it says itself.
    overwrite : bool
        Whether a file at ``target`` is replaced.

    Returns
    -------
    Aligned

    Raises
    ------
    InputError
        If no shift can be told from the pair.
    CsakdGeoError
        If the files do not fit, or the target exists, has another suffix or cannot be written.
    """
    target = Path(target)
    if target.suffix.lower() not in FORMATS["cog"].suffixes:
        raise OutputError(
            f"The output '{target.name}' must end in {' or '.join(FORMATS['cog'].suffixes)}: align writes a GeoTIFF."
        )
    if target.exists() and not overwrite:
        raise OutputError(f"The output '{target}' exists; allow it to overwrite, or choose another name.")
    source, other = open_source(hsi, axis=wavelengths), open_source(msi)
    grid = lay_grid(source, other, ratio=ratio, shift=shift or (0.0, 0.0))
    scene, explained = open_scene(source, other, grid), None
    warnings = scene.outliers()
    if shift is None:
        with one_blas_thread():
            found = find_shift(scene)
        _check(found)
        shift, explained = found.shift, found.response.explained
    pixels = shift_in_pixels(scene.grid, shift)
    if warp:
        grid = replace(lay_grid(source, other, ratio=grid.ratio, shift=shift), nested=False)
        transform, crs = grid.lr_affine, CRS.from_wkt(grid.crs) if grid.crs else None
        height, width = grid.lr_height, grid.lr_width
        blocks = _warped(source, grid)
    else:
        (transform, strain), crs = moved_transform(source, other, shift), source.crs
        height, width = source.height, source.width
        blocks = _windows(source)
        if strain > _MAX_STRAIN:
            warnings.append(
                f"In the HSI's own CRS the shift differs by {strain:.2f} of its pixels over the scene; "
                "--warp takes it into account."
            )
    encoding = _encoding(source)
    clipped = 0

    def encoded() -> Iterator[tuple[int, int, NDArray[Any]]]:
        nonlocal clipped
        for row, col, values in blocks:
            stored, lost = encoding.encode(values)
            clipped += lost
            yield row, col, stored

    facts = {"shift": shift, "pixels": pixels, "msi": other.name, "msi_explains": explained, "warped": warp}
    spec = RasterSpec(
        height=height,
        width=width,
        transform=transform,
        crs=crs,
        axis=source.axis,
        encoding=encoding,
        units=source.units,
        tags={
            **_kept_tags(source),
            "CSAKD_GEO_ALIGNED": json.dumps(facts),
            "SOFTWARE": f"csakd-geo {__version__}",
        },
    )
    write_cog(target, spec, encoded(), workdir=target.parent)
    if clipped:
        warnings.append(f"{clipped} values did not fit {encoding.dtype} and were clipped.")
    return Aligned(target, shift, pixels, explained, tuple(warnings))


def _check(found: Alignment) -> None:
    """Refuse a shift that the pair does not tell."""
    if not found.reach:
        raise InputError(
            f"The images have less than {_MIN_CELLS} HSI pixels per side in common, too few to find a shift; "
            "give it with --shift DX,DY."
        )
    if found.shift == (0.0, 0.0) and found.response.explained < _MIN_EXPLAINED:
        raise InputError(
            f"No shift can be told: the MSI explains only {found.response.explained:.0%} of what varies in the "
            f"HSI at any place within {found.reach} HSI pixels. Check that both show the same place and season, "
            "or give the shift with --shift DX,DY."
        )


def moved_transform(
    hsi: Georeferenced, msi: Georeferenced, shift: tuple[float, float]
) -> tuple[Affine, float]:
    """The HSI's transform after a shift in the MSI's CRS, and how much that differs over the scene.

    Parameters
    ----------
    hsi, msi : Georeferenced
    shift : (float, float)
        In units of the MSI's CRS.

    Returns
    -------
    transform : Affine
        In the HSI's CRS.
    strain : float
        Largest error of one translation for the whole scene, in HSI pixels.
    """
    if shift == (0.0, 0.0):
        return hsi.transform, 0.0
    t = np.linspace(0, 1, 3)
    u, v = (axis.ravel() for axis in np.meshgrid(t * hsi.width, t * hsi.height))
    x, y = pixel_mapping(msi, hsi)(*pixel_mapping(hsi, msi, shift)(u, v))
    dx, dy = x - u, y - v
    strain = float(np.hypot(dx - dx.mean(), dy - dy.mean()).max())
    return hsi.transform * Affine.translation(float(dx.mean()), float(dy.mean())), strain


def _windows(source: Source) -> Iterator[tuple[int, int, FloatArray]]:
    for row in range(0, source.height, _BLOCK):
        for col in range(0, source.width, _BLOCK):
            height, width = min(_BLOCK, source.height - row), min(_BLOCK, source.width - col)
            yield row, col, source.read(row, col, height, width)


def _warped(source: Source, grid: FusionGrid) -> Iterator[tuple[int, int, FloatArray]]:
    """The HSI on LR cells; cells that lie mostly outside it are without data."""
    bands, r = list(range(source.axis.size)), grid.ratio
    for row in range(0, grid.lr_height, _BLOCK):
        for col in range(0, grid.lr_width, _BLOCK):
            window = Window(row, col, min(_BLOCK, grid.lr_height - row), min(_BLOCK, grid.lr_width - col))
            values = read_hsi(source, grid, window, bands)
            inside = covered(source, grid, window).reshape(window.height, r, window.width, r).mean((1, 3))
            values[:, inside < 0.5] = np.nan
            yield row, col, values


def _encoding(source: Source) -> Encoding:
    """What keeps the stored values as they are: 16-bit integers where they fit, else float32."""
    kind = np.dtype(source.dtype)
    if not source.integer or kind.itemsize > 2:
        return Encoding("float32")
    scale, offset = tuple(map(float, source.scale)), tuple(map(float, source.offset))
    if kind == np.uint16:
        return Encoding("uint16", scale, offset, 65535)
    return Encoding("int16", scale, offset, -32768)


def _kept_tags(source: Source) -> dict[str, str]:
    """Tags of a raster file that still hold."""
    if not isinstance(source, RasterSource):
        return {}
    with rasterio.open(source.path) as src:
        tags = src.tags()
    return {k: v for k, v in tags.items() if not k.startswith(("STATISTICS_", "CSAKD_GEO_"))}
