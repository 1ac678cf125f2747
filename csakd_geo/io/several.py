"""Several images as one: tiles and swaths, also of several UTM zones, side by side on the first one's grid."""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from csakd_geo.errors import GridError, InputError, SpectralError
from csakd_geo.grid import FusionGrid, pixel_mapping
from csakd_geo.io.address import address_of
from csakd_geo.io.lattice import covered, read_hsi
from csakd_geo.io.products import find_sensor
from csakd_geo.io.source import ImageFacts, Source, check_window
from csakd_geo.tiling import Window

#: Files of a folder that are images by themselves.
_RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".dat", ".nc", ".he5", ".h5")
#: Pixels by which a lattice may be off and still be the first one's; relative difference of pixel sizes.
_DRIFT, _SIZE = 0.01, 0.1
#: The common grid may have at most this many times the pixels of the images.
_EMPTY = 100
_EDGE_POINTS = 33


@dataclass(frozen=True, slots=True, eq=False)
class Several(ImageFacts):
    """Images on one grid as a `csakd_geo.io.source.Source`; made by `Several.build`.

    A band of a pixel comes from the first image that has a value there. Images whose pixels are pixels of the
    grid are read as they are, others are interpolated (cubic) window by window.

    Parameters
    ----------
    members : tuple of Source
    grids : tuple of FusionGrid
        Of each member: the common grid, and where it nests its origin in the member's pixels.
    boxes : tuple of (int, int, int, int)
        Top, left, bottom and right of each member in pixels of the grid.
    """

    members: tuple[Source, ...]
    grids: tuple[FusionGrid, ...]
    boxes: tuple[tuple[int, int, int, int], ...]

    @classmethod
    def build(cls, members: Sequence[Source], *, name: str | None = None) -> Several:
        """Lay the grid; the first image gives CRS, pixel size, bands and units.

        Raises
        ------
        InputError
            If there is no image, or their units differ.
        SpectralError
            If their bands differ.
        GridError
            If their pixel sizes differ, one has no CRS while another has, or they lie far apart.
        """
        if not members:
            raise InputError("The list of images is empty; give at least one.")
        first = members[0]
        for other in members[1:]:
            _check_alike(first, other)
        extents = [_extent(member, first) for member in members]
        top = math.floor(min(e[0] for e in extents) + _DRIFT)
        left = math.floor(min(e[1] for e in extents) + _DRIFT)
        height = math.ceil(max(e[2] for e in extents) - _DRIFT) - top
        width = math.ceil(max(e[3] for e in extents) - _DRIFT) - left
        if height * width > _EMPTY * sum(member.height * member.width for member in members):
            raise GridError(
                f"The images of '{name or first.name}' lie so far apart that their common grid would have "
                f"{height} x {width} pixels; fuse them one by one."
            )
        transform = first.transform * Affine.translation(left, top)
        return cls(
            name=name or (first.name if len(members) == 1 else f"{first.name} and {len(members) - 1} more"),
            driver=f"{len(members)} images",
            axis=first.axis.with_good(np.logical_and.reduce([member.axis.good for member in members])),
            crs=first.crs,
            transform=transform,
            height=height,
            width=width,
            dtype=str(np.result_type(*{member.dtype for member in members})),
            nodata=first.nodata,
            scale=first.scale,
            offset=first.offset,
            units=first.units,
            integer=all(member.integer for member in members),
            notes=_notes(members),
            members=tuple(members),
            grids=tuple(
                _grid(transform, first.crs, height, width, extent, (top, left), member)
                for member, extent in zip(members, extents, strict=True)
            ),
            boxes=tuple(
                (math.floor(t) - top, math.floor(m) - left, math.ceil(b) - top, math.ceil(r) - left)
                for t, m, b, r in extents
            ),
        )

    def read(
        self, row: int, col: int, height: int, width: int, *, bands: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Physical values ``(band, y, x)`` of a window; see `csakd_geo.io.source.Source.read`."""
        chosen = check_window(self, row, col, height, width, bands)
        out = np.full((len(chosen), height, width), np.nan, np.float32)
        for member, grid, (top, left, bottom, right) in zip(
            self.members, self.grids, self.boxes, strict=True
        ):
            y0, x0 = max(row, top), max(col, left)
            y1, x1 = min(row + height, bottom), min(col + width, right)
            if y0 >= y1 or x0 >= x1:
                continue
            part = out[:, y0 - row : y1 - row, x0 - col : x1 - col]
            if np.isfinite(part).all():
                continue
            seen = _read_member(member, grid, Window(y0, x0, y1 - y0, x1 - x0), chosen)
            part[...] = np.where(np.isnan(part), seen, part)
        return out

    def fingerprint(self) -> str:
        """That of every image."""
        return "|".join(member.fingerprint() for member in self.members)


def members(image: Path | str) -> list[Path | str]:
    """What a pattern such as ``tiles/S2_*.tif`` finds, sorted by name; the image itself where it is no pattern.

    ``*``, ``?``, ``[...]`` and ``**`` are those of `glob`. An address, a path for GDAL alone and the name of what
    exists are never a pattern.

    Raises
    ------
    InputError
        If the pattern finds nothing.
    """
    text, path = str(image), Path(image)
    if not set(text) & set("*?[") or address_of(image) or re.match(r"/vsi|\w{2,}:", text) or path.exists():
        return [image]
    base = next(folder for folder in path.parents if folder.is_dir())  # whose own name may have brackets
    found = sorted(glob.glob(str(path.relative_to(base)), root_dir=base, recursive=True))
    if not found:
        raise InputError(f"'{text}' does not exist, and as a pattern it finds nothing; check the path.")
    return [base / name for name in found]


def products_in(folder: Path) -> list[Path]:
    """Products of sensors in a folder, each a folder or zip of its own; none where it is itself one product."""
    entries = (entry for entry in _entries(folder) if entry.is_dir() or entry.suffix.lower() == ".zip")
    return [entry for entry in entries if find_sensor(entry) is not None]


def rasters_in(folder: Path) -> list[Path]:
    """Raster files of a folder, by their suffix."""
    return [entry for entry in _entries(folder) if entry.is_file() and entry.suffix.lower() in _RASTERS]


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _read_member(member: Source, grid: FusionGrid, window: Window, bands: list[int]) -> NDArray[np.float32]:
    if grid.nested:  # the window lies inside the member
        row, col = window.row + grid.hsi_row, window.col + grid.hsi_col
        return member.read(row, col, window.height, window.width, bands=bands)
    seen = read_hsi(member, grid, window, bands)
    seen[:, ~covered(member, grid, window)] = np.nan
    return seen


def _check_alike(first: Source, other: Source) -> None:
    if other.axis.size != first.axis.size:
        raise SpectralError(
            f"'{other.name}' has {other.axis.size} bands but '{first.name}' has {first.axis.size}; images are "
            "joined only where their bands are the same."
        )
    slack = np.fmax(np.nan_to_num(first.axis.fwhm) / 2, 2.0)
    apart = np.abs(other.axis.wavelength - first.axis.wavelength)
    if np.any(apart > slack):
        band = int(np.nanargmax(apart - slack))
        raise SpectralError(
            f"Band {band + 1} of '{other.name}' lies {apart[band]:.1f} nm from that of '{first.name}'; images are "
            "joined only where their bands are the same."
        )
    if other.units != first.units:
        raise InputError(
            f"'{other.name}' holds {other.units or 'unnamed values'} but '{first.name}' "
            f"{first.units or 'unnamed values'}; images are joined only in one unit."
        )
    if (other.crs is None) != (first.crs is None):
        bare = other if other.crs is None else first
        raise GridError(f"'{bare.name}' has no CRS but another image has; give it one to join them.")


def _extent(member: Source, first: Source) -> tuple[float, float, float, float]:
    """Top, left, bottom and right of an image in pixels of the first one."""
    to_first = pixel_mapping(member, first)
    t = np.linspace(0, 1, _EDGE_POINTS)
    zero, one = np.zeros_like(t), np.ones_like(t)
    x, y = to_first(
        np.concatenate([t, t, zero, one]) * member.width, np.concatenate([zero, one, t, t]) * member.height
    )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise GridError(f"'{member.name}' lies outside the area of use of the CRS of '{first.name}'.")
    u, v = to_first(
        np.array([member.width / 2, member.width / 2 + 1]), np.array([member.height / 2, member.height / 2])
    )
    size = math.hypot(u[1] - u[0], v[1] - v[0])
    if abs(size - 1) > _SIZE:
        raise GridError(
            f"A pixel of '{member.name}' is {size:.2f} pixels of '{first.name}' wide; images are joined only "
            "where their pixels have one size."
        )
    return float(y.min()), float(x.min()), float(y.max()), float(x.max())


def _grid(
    transform: Affine,
    crs: CRS | None,
    height: int,
    width: int,
    extent: tuple[float, float, float, float],
    origin: tuple[int, int],
    member: Source,
) -> FusionGrid:
    """The common grid as the reader of a member wants it: cells of one pixel."""
    top, left, bottom, right = extent
    nested = (
        max(abs(top - round(top)), abs(left - round(left))) <= _DRIFT
        and abs(bottom - top - member.height) <= _DRIFT
        and abs(right - left - member.width) <= _DRIFT
        and (crs is None or member.crs == crs)
    )
    return FusionGrid(
        ratio=1,
        crs=crs.to_wkt() if crs else None,
        transform=(transform.a, transform.b, transform.c, transform.d, transform.e, transform.f),
        lr_height=height,
        lr_width=width,
        msi_row=0,
        msi_col=0,
        top=0,
        left=0,
        height=height,
        width=width,
        nested=nested,
        hsi_row=origin[0] - round(top) if nested else 0,
        hsi_col=origin[1] - round(left) if nested else 0,
        phase_y=0.0,
        phase_x=0.0,
        shift_x=0.0,
        shift_y=0.0,
    )


def _notes(members: Sequence[Source]) -> tuple[str, ...]:
    own = dict.fromkeys(note for member in members for note in getattr(member, "notes", ()))
    if len(members) == 1:
        return tuple(own)
    zones = {str(member.crs) for member in members}
    place = f", warped from {len(zones)} CRSs" if len(zones) > 1 else ""
    return (
        f"{len(members)} images are joined on the grid of '{members[0].name}'{place}; where they overlap the "
        "first one in the list counts, and their values are not matched.",
        *own,
    )
