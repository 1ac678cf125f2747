"""STAC: an item beside a product.

Everything is read back from the finished product, so an item can be made at any time. Items follow STAC
1.1.0, whose core schema pystac carries, with the extensions projection, raster, eo and processing; those
schemas live on the network and are not fetched.
"""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from shapely.geometry import mapping

from csakd_geo.dates import find_date, first_date
from csakd_geo.errors import InputError, OutputError
from csakd_geo.footprint import bbox, footprint, outline, rounded
from csakd_geo.io import Source, open_source
from csakd_geo.io.formats import FORMATS, find_format
from csakd_geo.io.placing import write_whole
from csakd_geo.io.provenance import read_facts
from csakd_geo.io.several import members

VERSION = "1.1.0"
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
    "fuse_stages",
    "options",
    "warnings",
)
_EDGE_POINTS = 9


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
    write_json(target, build_item(product, hsi=hsi, msi=msi))
    return target


def item_path(product: Path) -> Path:
    """Where the item of a product goes."""
    return product.with_name(product.stem + ".stac.json")


def build_item(
    product: Path, *, hsi: Path | str | None = None, msi: Path | str | None = None
) -> dict[str, Any]:
    """The item of a product as plain values, valid under the core schema; see `write_item`."""
    facts, source = read_facts(product), open_source(product)
    shown = footprint(source)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": list(_EXTENSIONS),
        "id": product.stem,
        "geometry": None if shown is None else rounded(mapping(shown)),
        "properties": {
            "title": f"{facts['hsi']} fused with {facts['msi']}",
            **_times(facts, product, hsi, msi),
            **_projection(source),
            **_processing(facts),
        },
        "links": [
            {"rel": "derived_from", "href": href(path, product.parent), "title": title}
            for title, image in (("HSI", hsi), ("MSI", msi))
            if image is not None
            for path in members(image)
        ],
        "assets": _assets(product, source, facts),
    }
    if shown is not None:
        item["bbox"] = bbox(shown)
    validate(item)
    return item


def _times(
    facts: dict[str, Any], product: Path, hsi: Path | str | None, msi: Path | str | None
) -> dict[str, Any]:
    """Times of acquisition where they are known; the one of the item is the HSI's."""
    processed = datetime.fromtimestamp(product.stat().st_mtime, UTC)
    found = {
        kind: first_date([facts[kind]]) if path is None else find_date(members(path)[0])
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
        ("report", ".html", "text/html", ["metadata"]),
        ("uncertainty", "_uncertainty.tif", _MEDIA["cog"], ["data"]),
        ("quality", "_quality.tif", _MEDIA["cog"], ["data", "quality"]),
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


def href(path: Path | str, start: Path) -> str:
    """How a file in the folder `start` refers to a path: relative where it can be; addresses stay as they are."""
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


def write_json(target: Path, content: dict[str, Any]) -> None:
    """Write JSON that appears when it is whole.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    write_whole(target, json.dumps(content, indent=1, allow_nan=False).encode())
