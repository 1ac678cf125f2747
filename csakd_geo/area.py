"""An area of interest from a vector file, in the MSI's CRS."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csakd_geo.errors import InputError

if TYPE_CHECKING:
    from csakd_geo.io.source import Source


@dataclass(frozen=True, slots=True)
class Area:
    """A geometry.

    Parameters
    ----------
    wkb : bytes
    bounds : (left, bottom, right, top)
    """

    wkb: bytes
    bounds: tuple[float, float, float, float]


def read_area(path: Path, msi: Source) -> Area:
    """The union of a vector file's polygons, reprojected to the MSI's CRS.

    Raises
    ------
    InputError
        If the file cannot be read, holds no polygon, or cannot be brought to the MSI's CRS.
    """
    import geopandas

    if not path.exists():
        raise InputError(f"The area of interest '{path}' does not exist.")
    try:
        frame = geopandas.read_file(path)
    except Exception as error:  # pyogrio's errors share no public base
        raise InputError(
            f"The area of interest '{path}' cannot be read as a vector file ({error})."
        ) from error
    polygons = frame[frame.geometry.notna() & frame.geom_type.isin(["Polygon", "MultiPolygon"])]
    if polygons.empty:
        raise InputError(f"The area of interest '{path}' holds no polygon; expected at least one.")
    if msi.crs is not None and polygons.crs is not None:
        polygons = polygons.to_crs(msi.crs.to_wkt())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # infinite coordinates, told below
        union = polygons.geometry.make_valid().union_all()
    if union.is_empty or not all(math.isfinite(v) for v in union.bounds):
        raise InputError(
            f"The area of interest '{path}' cannot be placed in the MSI's CRS; it lies far outside that CRS's "
            "area of use, so check that it shows the same place."
        )
    left, bottom, right, top = (float(v) for v in union.bounds)
    return Area(union.wkb, (left, bottom, right, top))
