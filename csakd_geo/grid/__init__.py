"""Geometry: where the pixels of a pair lie, and the grid that both are fused on."""

from csakd_geo.grid.frame import FusionGrid, lay_grid
from csakd_geo.grid.mapping import Georeferenced, PixelMapping, pixel_mapping
from csakd_geo.grid.ratio import find_ratio

__all__ = ["FusionGrid", "Georeferenced", "PixelMapping", "find_ratio", "lay_grid", "pixel_mapping"]
