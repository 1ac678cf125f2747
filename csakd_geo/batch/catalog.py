"""A static STAC catalog of products: one collection over items that stay beside their products."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from csakd_geo.errors import InputError
from csakd_geo.stac import VERSION, href, validate, write_json


def write_collection(target: Path, items: Sequence[Path], *, name: str, title: str) -> Path:
    """Write a collection that is the root of a static catalog of items that stay where they are.

    The items get the links of their collection; all links are relative, so that the whole can be moved.

    Parameters
    ----------
    target : Path
        A ``.json`` file; replaced if it exists.
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
    read = {path: json.loads(path.read_text("utf-8")) for path in items}
    boxes = [item["bbox"] for item in read.values() if "bbox" in item] or [[-180.0, -90.0, 180.0, 90.0]]
    times = sorted(item["properties"]["datetime"] for item in read.values())
    collection = {
        "type": "Collection",
        "stac_version": VERSION,
        "id": name,
        "title": title,
        "description": "Hyperspectral images fused with multispectral ones by csakd-geo.",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [_joined(boxes)]},
            "temporal": {"interval": [[times[0], times[-1]]]},
        },
        "links": [
            {"rel": "root", "href": f"./{target.name}", "type": "application/json"},
            *(
                {"rel": "item", "href": href(path, target.parent), "type": "application/geo+json"}
                for path in items
            ),
        ],
    }
    validate(collection)
    for path, item in read.items():
        above = href(target, path.parent)
        kept = [link for link in item["links"] if link["rel"] not in ("root", "parent", "collection")]
        up = [
            {"rel": rel, "href": above, "type": "application/json"}
            for rel in ("root", "parent", "collection")
        ]
        write_json(path, {**item, "collection": name, "links": [*up, *kept]})
    write_json(target, collection)
    return target


def _joined(boxes: Sequence[Sequence[float]]) -> list[float]:
    """One box around all; around the whole globe where one of them crosses the 180th meridian."""
    west, south, east, north = (list(side) for side in zip(*boxes, strict=True))
    if any(w > e for w, e in zip(west, east, strict=True)):
        return [-180.0, min(south), 180.0, max(north)]
    return [min(west), min(south), max(east), max(north)]
