"""The list of scenes of a batch: read from GeoPackage, GeoParquet, CSV or a STAC ItemCollection."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

from csakd_geo.errors import InputError
from csakd_geo.options import FuseOptions

#: Columns that are no options; what else a manifest has is ignored, and said.
_COLUMNS = ("hsi", "msi", "out", "truth", "options")
#: Columns that `csakd-geo pair` adds for people, and what GIS programs number rows with.
_KNOWN = ("name", "id", "fid", "hsi_date", "msi_date", "days", "overlap", "geometry", "geom")
_PROJECTION = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")
SUFFIXES = (".gpkg", ".parquet", ".geoparquet", ".csv", ".json", ".geojson")


@dataclass(frozen=True, slots=True)
class Scene:
    """One row of a manifest.

    Parameters
    ----------
    row : int
        Its place in the manifest, from 1.
    name : str
        For people: the output's stem, or the row's number where there is none.
    hsi, msi : str
        Paths or addresses.
    out : Path
    options : dict
        Values for :class:`csakd_geo.options.FuseOptions`, unchecked.
    truth : str or None
        A true image to score the result against.
    problem : str
        Why this scene cannot be run; empty where it can.
    """

    row: int
    name: str
    hsi: str
    msi: str
    out: Path
    options: dict[str, Any] = field(default_factory=dict)
    truth: str | None = None
    problem: str = ""


def read_manifest(path: Path, *, folder: Path | None = None) -> tuple[list[Scene], list[str]]:
    """The scenes of a manifest; a row that is broken becomes a scene with a problem.

    Parameters
    ----------
    path : Path
        GeoPackage (its first layer), GeoParquet, CSV, or a STAC ItemCollection as JSON whose items have the
        assets ``hsi`` and ``msi``. Columns: hsi, msi, out, and optionally truth, any option of ``fuse`` by its
        name (aoi, method, ...), and ``options``, a JSON object of such. Relative paths start at its folder.
    folder : Path, optional
        Where relative outputs start instead.

    Returns
    -------
    scenes : list of Scene
        In the order of the rows.
    warnings : list of str

    Raises
    ------
    InputError
        It cannot be read, is of another kind, has no row, or misses a column.
    """
    if not path.is_file():
        raise InputError(f"The manifest '{path}' does not exist; check the path.")
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise InputError(
            f"The manifest '{path}' ends in '{kind}'; expected .gpkg, .parquet, .csv or .json (STAC ItemCollection)."
        )
    if kind in (".json", ".geojson"):
        rows = list(_items(path))
    else:
        read = {".gpkg": _geopackage, ".csv": _csv}.get(kind, _parquet)
        rows = [(row, "") for row in read(path)]
    if not rows:
        raise InputError(f"The manifest '{path}' has no row; expected one per scene.")
    columns = {key for row, _ in rows for key in row}
    missing = [name for name in ("hsi", "msi", "out") if name not in columns and not any(p for _, p in rows)]
    if missing:
        raise InputError(
            f"The manifest '{path}' has no column {' and no column '.join(missing)}; it has "
            f"{', '.join(sorted(columns))} and needs hsi, msi and out."
        )
    scenes = [_scene(k, *row, path.parent, folder) for k, row in enumerate(rows, start=1)]
    ignored = sorted(columns - {*_COLUMNS, *_KNOWN, *FuseOptions.model_fields, *_item_fields(columns)})
    warnings = [f"No option of fuse, ignored: column {', '.join(ignored)} of '{path}'."] if ignored else []
    return _distinct(scenes), warnings


def _item_fields(columns: set[str]) -> set[str]:
    """Properties of STAC items that have nothing to do with us."""
    common = {"datetime", "start_datetime", "end_datetime", "created", "updated", "title", "description"}
    return {name for name in columns if ":" in name} | common


def _scene(number: int, row: Mapping[str, Any], problem: str, base: Path, folder: Path | None) -> Scene:
    given = {key: value for key, value in row.items() if not _empty(value)}
    lacking = [name for name in ("hsi", "msi", "out") if not isinstance(given.get(name), str)]
    options: dict[str, Any] = {}
    if not problem and lacking:
        problem = f"Row {number} of the manifest has no {' and no '.join(lacking)}; fill it in."
    if not problem:
        options, problem = _options(number, given)
    out = Path(str(given.get("out", f"row {number}")))
    truth = given.get("truth")
    for name in ("aoi", "wavelengths"):
        if isinstance(options.get(name), str):
            options[name] = _placed(options[name], base)
    return Scene(
        row=number,
        name=out.stem,
        hsi=_placed(str(given.get("hsi", "")), base),
        msi=_placed(str(given.get("msi", "")), base),
        out=out if out.is_absolute() else (folder or base) / out,
        options=options,
        truth=None if truth is None else _placed(str(truth), base),
        problem=problem,
    )


def _options(number: int, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Options of a row: those of the JSON column, then those with a column of their own."""
    nested = given.get("options", {})
    if isinstance(nested, str):
        try:
            nested = json.loads(nested)
        except ValueError as error:
            return {}, f"The options in row {number} of the manifest are no valid JSON ({error})."
    if not isinstance(nested, dict):
        return (
            {},
            f'The options in row {number} of the manifest are no JSON object such as {{"method": "gsa"}}.',
        )
    own = {name: given[name] for name in FuseOptions.model_fields if name in given}
    return {**{str(k).replace("-", "_"): v for k, v in nested.items() if not _empty(v)}, **own}, ""


def _empty(value: Any) -> bool:
    """Whether a cell holds nothing, as each format says it."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _placed(text: str, base: Path) -> str:
    """A path that starts at the manifest's folder; addresses and GDAL's own schemes stay."""
    text = text.strip()
    if text.startswith("file://"):
        return url2pathname(unquote(urlparse(text).path))
    scheme = re.match(r"\w{2,}:", text)  # one letter is a drive
    if not text or scheme or text.startswith("/vsi") or Path(text).is_absolute():
        return text
    return str(base / text)


def _distinct(scenes: list[Scene]) -> list[Scene]:
    """Later rows with the output of an earlier one get a problem."""
    count = Counter(str(scene.out) for scene in scenes)
    seen: set[str] = set()
    result = []
    for scene in scenes:
        key = str(scene.out)
        if count[key] > 1 and key in seen and not scene.problem:
            scene = replace(scene, problem=f"An earlier row writes '{scene.out}' too; give it another name.")
        seen.add(key)
        result.append(scene)
    return result


def _csv(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [{str(k).strip(): v for k, v in row.items() if k} for row in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The manifest '{path}' cannot be read as CSV in UTF-8 ({error}).") from error
    return rows


def _geopackage(path: Path) -> list[dict[str, Any]]:
    import pyogrio

    try:
        frame = pyogrio.read_dataframe(path, read_geometry=False)
    except Exception as error:  # pyogrio's errors share no public base
        raise InputError(f"The manifest '{path}' cannot be read as a GeoPackage ({error}).") from error
    rows: list[dict[str, Any]] = frame.to_dict("records")
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "GeoParquet needs the package pyarrow; install it with pip install 'csakd-geo[gis]'."
        ) from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"The manifest '{path}' cannot be read as Parquet ({error}).") from error
    kept = [name for name in table.column_names if name not in ("geometry", "geom")]
    rows: list[dict[str, Any]] = table.select(kept).to_pylist()
    return rows


def _items(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Row and problem of each item of a STAC ItemCollection."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The manifest '{path}' is no valid JSON ({error}).") from error
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list) or content.get("type") != "FeatureCollection":
        raise InputError(
            f"The manifest '{path}' is no STAC ItemCollection; expected a FeatureCollection of items with the "
            "assets hsi and msi."
        )
    for number, item in enumerate(features, start=1):
        item = item if isinstance(item, dict) else {}
        name = str(item.get("id") or number)
        properties = item.get("properties")
        row = dict(properties) if isinstance(properties, dict) else {}
        row.setdefault("out", re.sub(r"[^\w.-]+", "_", name) + ".tif")
        problem = _add_assets(row, item, name)
        yield row, problem


def _add_assets(row: dict[str, Any], item: Mapping[str, Any], name: str) -> str:
    """Put the hrefs of an item's assets into its row; returns what is wrong with them."""
    assets = item.get("assets")
    assets = assets if isinstance(assets, dict) else {}
    for key in ("hsi", "msi", "truth", "aoi"):
        asset = assets.get(key)
        href = asset.get("href") if isinstance(asset, dict) else None
        if isinstance(href, str):
            row[key] = href
        elif key in ("hsi", "msi"):
            return f"The STAC item '{name}' has no asset '{key}' with an href; each item needs hsi and msi."
        if key in ("hsi", "msi") and not any(
            _states_projection(found) for found in (row, asset) if isinstance(found, dict)
        ):
            return (
                f"The STAC item '{name}' states no projection for its asset '{key}' ({' or '.join(_PROJECTION)}); "
                "add it, or give the pair in a CSV."
            )
    return ""


def _states_projection(fields: Mapping[str, Any]) -> bool:
    return any(fields.get(key) for key in _PROJECTION)
