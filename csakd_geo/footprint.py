"""Where an image lies: its outline in its own CRS, and in longitude and latitude."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_geom
from shapely.geometry import MultiPolygon, Polygon, mapping, shape
from shapely.geometry.base import BaseGeometry

from csakd_geo.errors import GridError
from csakd_geo.io import Source

_EDGE_POINTS = 9


def footprint(source: Source) -> BaseGeometry | None:
    """Outline of an image in longitude and latitude; None without a CRS.

    Edges are cut into eighths before they are projected, and the outline at the 180th meridian.

    Raises
    ------
    GridError
        The CRS cannot be brought to longitude and latitude there.
    """
    if source.crs is None:
        return None
    ring = outline(source)
    try:
        found = shape(transform_geom(source.crs, CRS.from_epsg(4326), mapping(ring)))
    except CRSError as error:
        raise GridError(f"'{source.name}' cannot be placed in longitude and latitude ({error}).") from error
    if not all(math.isfinite(v) for v in found.bounds):
        raise GridError(f"'{source.name}' lies outside the area of use of its CRS; check its transform.")
    return found


def outline(source: Source) -> Polygon:
    """Outline of an image in its own CRS, edges cut into eighths."""
    t = np.linspace(0, 1, _EDGE_POINTS)[:-1]
    zero = np.zeros_like(t)
    u, v = np.concatenate([t, zero + 1, 1 - t, zero]), np.concatenate([zero, t, zero + 1, 1 - t])
    u, v, m = u * source.width, v * source.height, source.transform
    return Polygon(np.stack([m.a * u + m.b * v + m.c, m.d * u + m.e * v + m.f], axis=1))


def rounded(value: Any) -> Any:
    """A GeoJSON geometry with coordinates to 1e-7 degree, a centimetre."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    return round(value, 7) if isinstance(value, float) else value


def bbox(outline: BaseGeometry) -> list[float]:
    """West, south, east, north; west is the greater one where the 180th meridian is crossed."""
    west, south, east, north = outline.bounds
    if isinstance(outline, MultiPolygon) and west <= -180 and east >= 180:
        west = min(part.bounds[0] for part in outline.geoms if part.bounds[2] >= 180)
        east = max(part.bounds[2] for part in outline.geoms if part.bounds[0] <= -180)
    return [round(float(v), 7) for v in (west, south, east, north)]
