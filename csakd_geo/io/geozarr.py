"""Attributes of the Zarr conventions that GeoZarr is made of: ``proj:``, ``spatial:`` and ``multiscales``.

Source: the drafts at https://github.com/zarr-conventions, version 1 of each. They come on top of CF's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from affine import Affine

if TYPE_CHECKING:
    from csakd_geo.io.cog import RasterSpec

_CONVENTIONS = {
    "proj": ("proj:", "geo-proj", "f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system"),
    "spatial": ("spatial", "spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinates"),
    "multiscales": ("multiscales", "multiscales", "d35379db-88df-4056-af3a-620245f8e347", "Pyramid layout"),
}


def geozarr_attributes(spec: RasterSpec, name: str, levels: Sequence[tuple[str, int]] = ()) -> dict[str, Any]:
    """Attributes of the group that holds a product.

    Parameters
    ----------
    spec : RasterSpec
    name : str
        Of the array in the group.
    levels : sequence of (str, int)
        Paths of the overviews' arrays and their decimations 2, 4, ..., each made of the one before.

    Returns
    -------
    dict
        JSON values.
    """
    used = [_convention("spatial")]
    t = spec.transform
    corners = [t * (col, row) for col in (0, spec.width) for row in (0, spec.height)]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    found: dict[str, Any] = {
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": [min(xs), min(ys), max(xs), max(ys)],
        **_placed(spec, 1),
    }
    if spec.crs is not None:
        used.append(_convention("proj"))
        authority = spec.crs.to_authority()
        if authority is None:
            found["proj:wkt2"] = spec.crs.to_wkt(version="WKT2_2019")
        else:
            found["proj:code"] = ":".join(authority)
    if levels:
        used.append(_convention("multiscales"))
        layout: list[dict[str, Any]] = [
            {"asset": name, "transform": {"scale": [1.0, 1.0]}, **_placed(spec, 1)}
        ]
        for path, factor in levels:
            step = {"derived_from": layout[-1]["asset"], "transform": {"scale": [2.0, 2.0]}}
            layout.append({"asset": path, **step, **_placed(spec, factor)})
        found["multiscales"] = {"layout": layout, "resampling_method": "average"}
    return {"zarr_conventions": used, **found}


def _placed(spec: RasterSpec, factor: int) -> dict[str, Any]:
    return {
        "spatial:shape": [-(-spec.height // factor), -(-spec.width // factor)],
        "spatial:transform": [float(v) for v in (spec.transform * Affine.scale(factor))[:6]],
    }


def _convention(key: str) -> dict[str, str]:
    name, repository, uuid, description = _CONVENTIONS[key]
    return {
        "name": name,
        "uuid": uuid,
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{repository}/refs/tags/v1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{repository}/blob/v1/README.md",
        "description": description,
    }
