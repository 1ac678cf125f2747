"""The rasters beside a product: its uncertainty and its quality layer, written window by window.

``OUT_uncertainty.tif`` and ``OUT_quality.tif`` are COGs on the product's grid, whatever the product's format is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.shutil
from numpy.typing import NDArray
from rasterio import windows
from rio_cogeo.cogeo import cog_validate

from csakd_geo.engine.kernel import output_window
from csakd_geo.errors import InputError, OutputError
from csakd_geo.io.address import address_of
from csakd_geo.io.cog import write_cog
from csakd_geo.io.encoding import HEADROOM, Encoding
from csakd_geo.io.envi import read_tags
from csakd_geo.io.failure import plain_errors
from csakd_geo.io.gdal import gdal_settings
from csakd_geo.io.geotiff import open_raster
from csakd_geo.io.mosaic import Mosaic
from csakd_geo.io.provenance import PREFIX, tags_of
from csakd_geo.job import Job, Report
from csakd_geo.options import FuseOptions
from csakd_geo.pair import Block
from csakd_geo.quality import CLIPPED, FLAGS, MASKED, Agreement, flag_block
from csakd_geo.spectral import SpectralAxis
from csakd_geo.tiling import Window, align
from csakd_geo.uncertainty import TAIL, Uncertainty

BoolArray = NDArray[np.bool_]

UNCERTAINTY, QUALITY = "uncertainty", "quality"
_SIDE = 256  # MSI pixels per side that are made at once
_COLOURS = {1: (90, 90, 90), 2: (60, 120, 220), 4: (220, 50, 50), 8: (240, 170, 30), 16: (160, 60, 200)}


def layer_paths(target: Path, options: FuseOptions) -> dict[str, Path]:
    """Layers that are asked for, by kind, and where they go."""
    wanted = {UNCERTAINTY: options.uncertainty is not None, QUALITY: options.quality}
    return {kind: layer_path(target, kind) for kind, on in wanted.items() if on}


def layer_path(target: Path, kind: str) -> Path:
    """Where a product's layer of a kind goes."""
    return target.with_name(f"{target.stem}_{kind}.tif")


def check_layers(target: Path, options: FuseOptions, *, overwrite: bool) -> None:
    """Refuse layers that cannot or must not be written, before any work.

    Raises
    ------
    OutputError
    """
    paths = layer_paths(target, options)
    address = address_of(target)
    if paths and address is not None:
        raise OutputError(
            f"Uncertainty and quality stand beside a local product, not at '{address}'; leave them out."
        )
    for kind, path in paths.items():
        if path.is_dir() or (path.exists() and not overwrite):
            raise OutputError(f"The {kind} layer '{path}' exists; give --overwrite to replace it.")


def has_layers(target: Path, options: FuseOptions, request: str) -> bool:
    """Whether all layers that are asked for stand beside a product of this request."""
    paths = layer_paths(target, options).values()
    return all(read_tags(path).get(PREFIX + "REQUEST") == request for path in paths)


def write_layers(
    job: Job, target: Path, product: Mosaic, *, workdir: Path, request: str, report: Report
) -> None:
    """Write the layers that a job was asked for.

    Parameters
    ----------
    job : Job
    target : Path
        The product.
    product : Mosaic
        The encoded values of the target.
    workdir : Path
    request : str
        What the layers belong to; kept in their tags.
    report : callable

    Raises
    ------
    OutputError
        If a layer cannot be written; those before it and the product are whole.
    """
    paths = layer_paths(target, job.draft.options)
    facts = {"request": request, "software": job.notes["software"], "product": target.name}
    if UNCERTAINTY in paths and job.uncertainty is not None:
        report("layers", 0.0, UNCERTAINTY)
        _write_uncertainty(job, job.uncertainty, paths[UNCERTAINTY], product, facts, workdir)
    if QUALITY in paths and job.agreement is not None:
        report("layers", 0.5, QUALITY)
        _write_quality(job, job.agreement, paths[QUALITY], product, facts, workdir)
    if paths:
        report("layers", 1.0, "done")


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A window of the product and what it is made from.

    Parameters
    ----------
    row, col, height, width : int
        In the product.
    inner : tuple of slice
        The same window in the block's HR pixels.
    block : Block or None
        None where an input cannot be read and that was allowed.
    partial : ndarray (y, x) bool
        LR pixels of the block in which an image ends.
    """

    row: int
    col: int
    height: int
    width: int
    inner: tuple[slice, slice]
    block: Block | None
    partial: BoolArray


def _pieces(job: Job, halo: int) -> Iterator[_Piece]:
    """The product in windows, each read with its halo."""
    scene, grid = job.scene, job.scene.grid
    side = align(_SIDE, grid.ratio)
    for y in range(0, grid.lr_height, side):
        for x in range(0, grid.lr_width, side):
            area = Window(y, x, side, side).intersect(scene.frame)
            window = output_window(scene, area)
            if window.empty:
                continue
            seen = area.grown(halo).intersect(scene.frame)
            try:
                block = scene.block(seen)[0]
            except InputError:
                if job.draft.options.unreadable == "fail":
                    raise
                block = None
            yield _Piece(
                window.row - grid.top,
                window.col - grid.left,
                window.height,
                window.width,
                window.slices(seen.scaled(grid.ratio)),
                block,
                _partial(job, seen),
            )


def _partial(job: Job, window: Window) -> BoolArray:
    """LR pixels of a window that reach out of an image."""
    scene, grid = job.scene, job.scene.grid
    rows, cols = window.row + np.arange(window.height), window.col + np.arange(window.width)
    out = []
    for cells, first, size, hsi_first, hsi_size in (
        (rows, grid.msi_row, scene.msi.height, grid.hsi_row, scene.hsi.height),
        (cols, grid.msi_col, scene.msi.width, grid.hsi_col, scene.hsi.width),
    ):
        start = first + cells * grid.ratio
        beyond = (start < 0) | (start + grid.ratio > size)
        if grid.nested:
            beyond |= (hsi_first + cells < 0) | (hsi_first + cells >= hsi_size)
        out.append(beyond)
    return np.asarray(out[0][:, None] | out[1][None, :])


def _masked(product: Mosaic, piece: _Piece) -> tuple[BoolArray, BoolArray]:
    """Pixels of a window without data in any band, and those with a band at a limit of the type."""
    encoding = product.spec.encoding
    values = product.read(Window(piece.row, piece.col, piece.height, piece.width))
    if encoding.dtype == "float32":
        return np.asarray(np.isnan(values).all(0)), np.zeros(values.shape[1:], bool)
    low, high = encoding.limits
    return np.asarray((values == encoding.nodata).all(0)), np.asarray(
        ((values == low) | (values == high)).any(0)
    )


def _write_uncertainty(
    job: Job, found: Uncertainty, path: Path, product: Mosaic, facts: dict[str, Any], workdir: Path
) -> None:
    """Deviations of every band, or the one activity that they all follow from."""
    places = [k for k, band in enumerate(job.draft.bands) if band in job.scene.hsi_bands]
    rows = [job.scene.hsi_bands.index(job.draft.bands[k]) for k in places]
    alpha, beta = np.full((2, len(job.draft.bands)), np.nan)
    informed = np.zeros(len(alpha), bool)
    alpha[places], beta[places], informed[places] = found.alpha[rows], found.beta[rows], found.informed[rows]
    law = replace(found, alpha=alpha, beta=beta)
    form, whole = job.draft.options.uncertainty, product.spec
    facts = facts | {
        UNCERTAINTY: form,
        "interval_90": TAIL,
        "tried": found.tried,
        "informed": informed.astype(int).tolist(),
        "alpha": [None if math.isnan(v) else v for v in alpha],
        "beta": [None if math.isnan(v) else v for v in beta],
        "wavelength": [None if math.isnan(v) else float(v) for v in whole.axis.wavelength],
        "sigma_units": whole.units,
    }
    if form == "bands":
        encoding = _sigma_encoding(found.peak, job.draft.options.dtype)
        notes = tuple({"informed": str(int(v))} for v in informed)
        spec = replace(whole, encoding=encoding, tags=tags_of(facts), notes=notes)
    else:
        axis = SpectralAxis.build([math.nan], names=["activity"])
        spec = replace(whole, axis=axis, encoding=Encoding("float32"), units="", tags=tags_of(facts))

    def blocks() -> Iterator[tuple[int, int, NDArray[Any]]]:
        for piece in _pieces(job, found.halo):
            activity = np.full((piece.height, piece.width), np.nan, np.float32)
            if piece.block is not None:
                activity = found.activity(piece.block.msi)[piece.inner]
                activity[_masked(product, piece)[0]] = np.nan
            values = law.sigma(activity) if form == "bands" else activity[None]
            yield piece.row, piece.col, spec.encoding.encode(values)[0]

    write_cog(path, spec, blocks(), workdir=workdir)


def _sigma_encoding(peak: float, dtype: str) -> Encoding:
    """Of deviations up to a peak; a power of ten as for the product."""
    if dtype == "float32":
        return Encoding("float32")
    power = math.ceil(math.log10(max(peak, 1e-30) / HEADROOM))
    return Encoding("uint16", (float(f"1e{power}"),), (0.0,), 65535)


def _write_quality(
    job: Job, agreement: Agreement, path: Path, product: Mosaic, facts: dict[str, Any], workdir: Path
) -> None:
    """The bits; overviews repeat the nearest pixel, for means of bits mean nothing."""
    staged, ready = workdir / "quality.staged.tif", workdir / "quality.tif"
    spec = product.spec
    profile = {
        "driver": "GTiff",
        "count": 1,
        "dtype": "uint8",
        "height": spec.height,
        "width": spec.width,
        "crs": spec.crs,
        "transform": spec.transform,
        "tiled": True,
        "compress": "DEFLATE",
    }
    facts = facts | {"flags": {name: {"bit": bit, "meaning": words} for bit, name, words in FLAGS}}
    with plain_errors(path), gdal_settings(GDAL_PAM_ENABLED="NO"):
        with open_raster(staged, "w", **profile) as dst:
            dst.update_tags(**tags_of(facts))
            dst.set_band_description(1, QUALITY)
            dst.write_colormap(1, {value: _colour(value) for value in range(256)})
            for piece in _pieces(job, agreement.halo):
                masked, clipped = _masked(product, piece)
                flags = np.zeros((piece.height, piece.width), np.uint8)
                if piece.block is not None:
                    flags = flag_block(agreement, piece.block, partial=piece.partial)[piece.inner]
                flags = np.where(masked, MASKED, flags | CLIPPED * clipped)
                place = windows.Window(piece.col, piece.row, piece.width, piece.height)
                dst.write(flags.astype(np.uint8), 1, window=place)
        options = {"compress": "DEFLATE", "overview_resampling": "NEAREST", "blocksize": spec.blocksize}
        rasterio.shutil.copy(staged, ready, driver="COG", **options)
        staged.unlink()
        valid, errors, _ = cog_validate(ready, quiet=True)
        if not valid:
            raise OutputError(
                f"The quality layer is no valid COG ({'; '.join(errors[:3])}); please report this."
            )
        os.replace(ready, path)


def _colour(flags: int) -> tuple[int, int, int, int]:
    """The colour of the highest bit that is set; no bit is white."""
    highest = max((bit for bit in _COLOURS if flags & bit), default=0)
    return (*_COLOURS[highest], 255) if highest else (255, 255, 255, 255)
