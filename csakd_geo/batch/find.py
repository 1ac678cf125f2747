"""Pairs in two folders: images that show the same place within some days."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasterio.errors import CRSError
from rasterio.warp import transform_geom
from shapely import make_valid
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from csakd_geo.batch.frame import write_frame
from csakd_geo.batch.images import Image, find_images
from csakd_geo.errors import GridError, InputError, OutputError
from csakd_geo.footprint import footprint, outline
from csakd_geo.grid import find_ratio
from csakd_geo.io import Source


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """An HSI and an MSI of the same place.

    Parameters
    ----------
    hsi, msi : Image
    overlap : float
        Area that both show, as a share of the smaller of the two.
    days : float or None
        Between their dates; None where one has none.
    """

    hsi: Image
    msi: Image
    overlap: float
    days: float | None

    @property
    def guessed(self) -> bool:
        """Whether one has no CRS, so that their coordinates were taken to be in one system."""
        return self.hsi.source.crs is None or self.msi.source.crs is None


def find_pairs(
    hsi_folder: Path,
    msi_folder: Path,
    *,
    max_days: float | None = None,
    min_overlap: float = 0.5,
    every: bool = False,
) -> tuple[list[Match], list[str]]:
    """Pairs of two folders and those below them.

    An HSI goes with an MSI that has fewer bands and finer pixels, shows enough of the same place, and is
    close enough in time. Of several, the nearest in time is taken, then the one that shows most; one without
    a CRS, whose coordinates are taken to be in the other's, comes last and is noted.

    Parameters
    ----------
    hsi_folder, msi_folder : Path
        May be one folder.
    max_days : float, optional
        Days that the two may lie apart; any number by default.
    min_overlap : float, optional
        Share of the smaller footprint that both show, 0 to 1.
    every : bool, optional
        All MSIs that fit an HSI, not the best one alone.

    Returns
    -------
    matches : list of Match
    notes : list of str
        Images that could not be read, and HSIs without a partner, with the reason.

    Raises
    ------
    InputError
        A folder is missing or holds no image.
    """
    notes: list[str] = []
    hsis, msis = (find_images(folder, notes) for folder in (hsi_folder, msi_folder))
    matches: list[Match] = []
    for hsi in hsis:
        shown = [match for msi in msis if (match := _match(hsi, msi)) is not None]
        wide = [match for match in shown if match.overlap >= min_overlap]
        near = [m for m in wide if max_days is None or (m.days is not None and m.days <= max_days)]
        if near:
            best = sorted(near, key=lambda m: (m.guessed, math.inf if m.days is None else m.days, -m.overlap))
            taken = best if every else best[:1]
            matches += taken
            notes += [
                f"'{m.hsi.path}' and '{m.msi.path}' are paired by their coordinates alone: not both have a CRS."
                for m in taken
                if m.guessed
            ]
        elif hsi_folder != msi_folder or any(other.source.axis.size < hsi.source.axis.size for other in msis):
            notes.append(f"No MSI for '{hsi.path}': {_reason(shown, wide)}.")
    return matches, notes


def _reason(shown: Sequence[Match], wide: Sequence[Match]) -> str:
    """Why no MSI was good enough."""
    if not shown:
        return "none with fewer bands and finer pixels overlaps it"
    if not wide:
        most = max(shown, key=lambda m: m.overlap)
        return f"at most {most.overlap:.0%} of the smaller image overlaps ('{most.msi.path.name}')"
    dated = [m for m in wide if m.days is not None]
    if not dated:
        return "no date is known of it or of those that overlap it, so --max-days cannot be kept"
    nearest = min(dated, key=lambda m: m.days or 0.0)
    return f"the nearest that overlaps it is {nearest.days:.0f} days off ('{nearest.msi.path.name}')"


def _match(hsi: Image, msi: Image) -> Match | None:
    """A pair, if the two can be one and overlap."""
    if hsi.source.axis.size <= msi.source.axis.size:
        return None
    own = _in_crs_of(hsi.source, msi.source)
    other = outline(msi.source)
    if own is None:
        return None
    try:
        find_ratio(hsi.source, msi.source)
    except GridError:
        return None
    common = own.intersection(other).area
    if common <= 0:
        return None
    days = (
        None if hsi.date is None or msi.date is None else abs((hsi.date - msi.date).total_seconds()) / 86400
    )
    return Match(hsi, msi, float(common / min(own.area, other.area)), days)


def _in_crs_of(source: Source, other: Source) -> BaseGeometry | None:
    """Outline of an image in the CRS of another; None where it cannot be placed there."""
    own = outline(source)
    if source.crs is None or other.crs is None or source.crs == other.crs:
        return own
    try:
        moved = shape(transform_geom(source.crs, other.crs, mapping(own)))
    except CRSError:
        return None
    if not all(math.isfinite(v) for v in moved.bounds):
        return None
    return make_valid(moved)


def write_manifest(target: Path, matches: Sequence[Match], *, outputs: str = "fused") -> Path:
    """Write pairs as a manifest for `csakd-geo batch`.

    Parameters
    ----------
    target : Path
        ``.gpkg``, ``.parquet`` or ``.csv``; replaced if it exists, once the new one is whole. The first two
        also hold the common area of each pair, in longitude and latitude.
    matches : sequence of Match
    outputs : str, optional
        Folder of the outputs, from the manifest's.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        There is no pair, or pyarrow is missing for Parquet.
    OutputError
        The suffix is another, or the file cannot be written.
    """
    import geopandas

    kind = target.suffix.lower()
    if kind not in (".gpkg", ".parquet", ".csv"):
        raise OutputError(f"The manifest '{target.name}' must end in .gpkg, .parquet or .csv.")
    if not matches:
        raise InputError("No pair was found, so no manifest was written; look at the reasons above.")
    if not target.parent.is_dir():
        raise OutputError(f"The folder '{target.parent}' of the manifest does not exist; make it first.")
    rows = [_row(match, target.parent, outputs) for match in matches]
    frame = geopandas.GeoDataFrame(rows, geometry=[_common(m) for m in matches], crs="EPSG:4326")
    write_frame(frame, target)
    return target


def _row(match: Match, base: Path, outputs: str) -> dict[str, Any]:
    hsi, msi = match.hsi, match.msi
    return {
        "name": f"{hsi.name}__{msi.name}",
        "hsi": _relative(hsi.path, base),
        "msi": _relative(msi.path, base),
        "out": f"{outputs}/{hsi.name}__{msi.name}.tif",
        "hsi_date": None if hsi.date is None else hsi.date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "msi_date": None if msi.date is None else msi.date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "days": None if match.days is None else round(match.days, 3),
        "overlap": round(match.overlap, 4),
    }


def _relative(path: Path, base: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), base.resolve())).as_posix()
    except ValueError:  # on another drive
        return str(path.resolve())


def _common(match: Match) -> BaseGeometry | None:
    """The common area in longitude and latitude, where both have a CRS."""
    shapes: Iterable[BaseGeometry | None] = (footprint(match.hsi.source), footprint(match.msi.source))
    first, second = shapes
    if first is None or second is None:
        return None
    return make_valid(first).intersection(make_valid(second))
