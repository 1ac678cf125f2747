"""STAC: an item beside a product, and a static catalog of many.

Everything is read back from the finished product, so an item can be made at any time. Items follow STAC
1.1.0, whose core schema pystac carries, with the extensions projection, raster, eo and processing; those
schemas live on the network and are not fetched.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_geom
from shapely.geometry import MultiPolygon, Polygon, mapping, shape
from shapely.geometry.base import BaseGeometry

from csakd_geo.dates import find_date, first_date
from csakd_geo.errors import GridError, InputError, OutputError
from csakd_geo.io import Source, open_source
from csakd_geo.io.failure import plain_errors
from csakd_geo.io.formats import FORMATS, find_format

_VERSION = "1.1.0"
_EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v2.0.0", "raster/v2.0.0", "eo/v2.0.0", "processing/v1.2.0")
)
_MEDIA = {
    "cog": "image/tiff; application=geotiff; profile=cloud-optimized",
    "zarr": "application/vnd.zarr; version=3",
    "zarr2": "application/vnd.zarr; version=2",
    "netcdf": "application/netcdf",
    "envi": "application/octet-stream",
}
#: Facts of a product that are kept as they are, under ``csakd:``.
_FACTS = (
    "method",
    "method_reason",
    "model",
    "held_out_scores",
    "ratio",
    "shift",
    "psf_fwhm_hsi_pixels",
    "psf_phase_msi_pixels",
    "msi_explains",
    "clipped_values",
    "fit_seconds",
    "fuse_seconds",
    "options",
    "warnings",
)
_PREFIX = "CSAKD_GEO_"
_EDGE_POINTS = 9


def read_facts(product: Path) -> dict[str, Any]:
    """Provenance of a product: its tags without their prefix, in lower case; nested ones decoded.

    Parameters
    ----------
    product : Path

    Raises
    ------
    InputError
        It is missing, or nothing that csakd-geo wrote.
    """
    if not product.exists():
        raise InputError(f"'{product}' does not exist; fuse first.")
    forms = [FORMATS["zarr"]] if product.is_dir() else [FORMATS["netcdf"], FORMATS["cog"]]
    tags = next((found for form in forms if _PREFIX + "METHOD" in (found := form.tags(product))), None)
    if tags is None:
        raise InputError(f"'{product}' has no provenance of csakd-geo; give what 'csakd-geo fuse' wrote.")
    return {
        key.removeprefix(_PREFIX).lower(): _decoded(v) for key, v in tags.items() if key.startswith(_PREFIX)
    }


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


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


def write_item(product: Path, *, hsi: Path | str | None = None, msi: Path | str | None = None) -> Path:
    """Write the STAC item of a product beside it, as ``<stem>.stac.json``.

    Its time is that of the HSI, found in the tags or the name of `hsi` (or in the name that the product kept);
    where nothing tells, it is the time of processing, and ``csakd:datetime_from`` says so.

    Parameters
    ----------
    product : Path
        What ``csakd-geo fuse`` wrote, of any format.
    hsi, msi : Path or str, optional
        The inputs, for their dates and for links ``derived_from``.

    Returns
    -------
    Path
        The item.

    Raises
    ------
    InputError
        There is no such product, or pystac is not installed.
    OutputError
        The item cannot be written.
    """
    target = item_path(product)
    _write(target, build_item(product, hsi=hsi, msi=msi))
    return target


def item_path(product: Path) -> Path:
    """Where the item of a product goes."""
    return product.with_name(product.stem + ".stac.json")


def build_item(
    product: Path, *, hsi: Path | str | None = None, msi: Path | str | None = None
) -> dict[str, Any]:
    """The item of a product as plain values, valid under the core schema; see `write_item`."""
    facts, source = read_facts(product), open_source(product)
    outline = footprint(source)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": _VERSION,
        "stac_extensions": list(_EXTENSIONS),
        "id": product.stem,
        "geometry": None if outline is None else _rounded(mapping(outline)),
        "properties": {
            "title": f"{facts['hsi']} fused with {facts['msi']}",
            **_times(facts, product, hsi, msi),
            **_projection(source),
            **_processing(facts),
        },
        "links": [
            {"rel": "derived_from", "href": _href(path, product.parent), "title": title}
            for title, path in (("HSI", hsi), ("MSI", msi))
            if path is not None
        ],
        "assets": _assets(product, source, facts),
    }
    if outline is not None:
        item["bbox"] = _bbox(outline)
    validate(item)
    return item


def _times(
    facts: dict[str, Any], product: Path, hsi: Path | str | None, msi: Path | str | None
) -> dict[str, Any]:
    """Times of acquisition where they are known; the one of the item is the HSI's."""
    processed = datetime.fromtimestamp(product.stat().st_mtime, UTC)
    found = {
        kind: first_date([facts[kind]]) if path is None else find_date(path)
        for kind, path in (("hsi", hsi), ("msi", msi))
    }
    known = sorted(date for date in found.values() if date is not None)
    times = {
        "datetime": _iso(found["hsi"] or (known[0] if known else processed)),
        "csakd:datetime_from": "hsi" if found["hsi"] else "msi" if known else "processing",
        "created": _iso(processed),
    }
    if len(known) == 2:
        times |= {"start_datetime": _iso(known[0]), "end_datetime": _iso(known[1])}
    return times


def _iso(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _projection(source: Source) -> dict[str, Any]:
    ring = outline(source)
    found: dict[str, Any] = {
        "proj:code": None,
        "proj:shape": [source.height, source.width],
        "proj:transform": [float(v) for v in tuple(source.transform)[:6]],
        "proj:bbox": [float(v) for v in ring.bounds],
    }
    if source.crs is not None:
        code = source.crs.to_epsg(confidence_threshold=100)
        found["proj:code"] = None if code is None else f"EPSG:{code}"
        if code is None:
            found["proj:wkt2"] = source.crs.to_wkt(version="WKT2_2019")
    return found


def _processing(facts: dict[str, Any]) -> dict[str, Any]:
    name, _, number = facts["software"].partition(" ")
    model = facts.get("model") or {}
    used = f" by the model {model['name']} (sha256 {model['file_sha256']})" if model else ""
    return {
        "processing:software": {name: number, **facts["versions"]},
        "processing:lineage": (
            f"All bands of {facts['hsi']} on the pixel grid of {facts['msi']}, ratio {facts['ratio']}, "
            f"fused with the method {facts['method']}{used}."
        ),
        **{f"csakd:{key}": facts[key] for key in _FACTS if key in facts},
    }


def _assets(product: Path, source: Source, facts: dict[str, Any]) -> dict[str, Any]:
    name = facts["options"].get("format") or find_format(product).name
    found: dict[str, Any] = {
        "fused": {
            "href": f"./{product.name}",
            "type": _MEDIA[name],
            "title": "Fused cube",
            "roles": ["data"],
            **_resolution(source),
            "bands": [_band(source, k) for k in range(source.axis.size)],
        }
    }
    for key, suffix, kind, roles in (
        ("quicklook", ".quicklook.png", "image/png", ["overview"]),
        ("model", ".model.safetensors", "application/octet-stream", ["model"]),
        ("report", ".report.html", "text/html", ["metadata"]),
    ):
        beside = product.with_name(product.stem + suffix)
        if beside.exists():
            found[key] = {"href": f"./{beside.name}", "type": kind, "roles": roles}
    for beside in FORMATS[name].files(product)[1:]:
        found[beside.suffix.lstrip(".")] = {"href": f"./{beside.name}", "roles": ["metadata"]}
    return found


def _resolution(source: Source) -> dict[str, float]:
    """Pixel size in metres, where the CRS has a length unit."""
    if source.crs is None or not source.crs.is_projected:
        return {}
    metres = float(source.crs.linear_units_factor[1])
    return {"raster:spatial_resolution": math.sqrt(abs(source.transform.determinant)) * metres}


def _band(source: Source, k: int) -> dict[str, Any]:
    """One band: names and type as the core has them, wavelengths in um as the eo extension has them."""
    axis, nodata = source.axis, source.nodata
    band: dict[str, Any] = {
        "name": f"B{k + 1}",
        "description": axis.names[k] + ("" if axis.good[k] else " (bad)"),
        "data_type": source.dtype,
        "raster:scale": float(source.scale[k]),
        "raster:offset": float(source.offset[k]),
    }
    if nodata is not None:
        band["nodata"] = "nan" if math.isnan(nodata) else nodata
    if source.units:
        band["unit"] = source.units
    for key, values in (
        ("eo:center_wavelength", axis.wavelength),
        ("eo:full_width_half_max", axis.fwhm),
    ):
        if math.isfinite(values[k]):
            band[key] = float(f"{values[k] / 1000:.7g}")
    return band


def _rounded(value: Any) -> Any:
    """A GeoJSON geometry with coordinates to 1e-7 degree, a centimetre."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    return round(value, 7) if isinstance(value, float) else value


def _bbox(outline: BaseGeometry) -> list[float]:
    """West, south, east, north; west is the greater one where the 180th meridian is crossed."""
    west, south, east, north = outline.bounds
    if isinstance(outline, MultiPolygon) and west <= -180 and east >= 180:
        west = min(part.bounds[0] for part in outline.geoms if part.bounds[2] >= 180)
        east = max(part.bounds[2] for part in outline.geoms if part.bounds[0] <= -180)
    return [round(float(v), 7) for v in (west, south, east, north)]


def _href(path: Path | str, start: Path) -> str:
    """Relative where it can be; addresses stay as they are."""
    text = str(path)
    if "://" in text or text.startswith("/vsi"):
        return text
    try:
        return Path(os.path.relpath(Path(text).resolve(), start.resolve())).as_posix()
    except ValueError:  # on another drive
        return Path(text).resolve().as_uri()


def validate(item: dict[str, Any]) -> None:
    """Check an item or collection against the core schema that pystac carries; nothing is fetched.

    Raises
    ------
    InputError
        pystac or jsonschema is not installed.
    OutputError
        It is not valid, which is a fault of this package or of the tags that it read.
    """
    try:
        import_module("jsonschema")  # pystac validates with it
        from pystac.errors import STACValidationError
        from pystac.validation import validate_dict
    except ImportError as error:
        raise InputError(
            f"STAC needs the package {error.name}; install it with pip install 'csakd-geo[gis]'."
        ) from error
    try:
        validate_dict(item, extensions=[])
    except STACValidationError as error:
        raise OutputError(f"'{item['id']}' makes no valid STAC: {error}.") from error


def write_collection(folder: Path, items: Sequence[Path], *, name: str, title: str) -> Path:
    """Write ``collection.json``, a static catalog of items that stay where they are.

    The items get the links of their collection; all links are relative, so that the whole can be moved.

    Parameters
    ----------
    folder : Path
    items : sequence of Path
        At least one.
    name, title : str
        Id of the collection, and its title.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        There is no item.
    OutputError
        A file cannot be written.
    """
    if not items:
        raise InputError("There is no finished scene to make a STAC collection of.")
    target = folder / "collection.json"
    read = {path: json.loads(path.read_text("utf-8")) for path in items}
    boxes = [item["bbox"] for item in read.values() if "bbox" in item] or [[-180.0, -90.0, 180.0, 90.0]]
    times = sorted(item["properties"]["datetime"] for item in read.values())
    collection = {
        "type": "Collection",
        "stac_version": _VERSION,
        "id": name,
        "title": title,
        "description": "Hyperspectral images fused with multispectral ones by csakd-geo.",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [_joined(boxes)]},
            "temporal": {"interval": [[times[0], times[-1]]]},
        },
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            *({"rel": "item", "href": _href(path, folder), "type": "application/geo+json"} for path in items),
        ],
    }
    validate(collection)
    for path, item in read.items():
        href = _href(target, path.parent)
        kept = [link for link in item["links"] if link["rel"] not in ("root", "parent", "collection")]
        up = [
            {"rel": rel, "href": href, "type": "application/json"} for rel in ("root", "parent", "collection")
        ]
        _write(path, {**item, "collection": name, "links": [*up, *kept]})
    _write(target, collection)
    return target


def _joined(boxes: Sequence[Sequence[float]]) -> list[float]:
    """One box around all; around the whole globe where one of them crosses the 180th meridian."""
    west, south, east, north = (list(side) for side in zip(*boxes, strict=True))
    if any(w > e for w, e in zip(west, east, strict=True)):
        return [-180.0, min(south), 180.0, max(north)]
    return [min(west), min(south), max(east), max(north)]


def _write(target: Path, content: dict[str, Any]) -> None:
    """Write JSON that appears when it is whole."""
    part = target.with_name(f".{target.name}.part")
    with plain_errors(target):
        try:
            part.write_text(json.dumps(content, indent=1, allow_nan=False), "utf-8")
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
