"""The images that a folder holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from csakd_geo.dates import find_date
from csakd_geo.errors import CsakdGeoError, InputError
from csakd_geo.io import Source, open_source
from csakd_geo.io.cube import is_store
from csakd_geo.io.products import find_sensor, is_companion, is_part

#: Files that may be images; an ENVI image may have any name, but then a header beside it.
_SUFFIXES = {
    ".tif",
    ".tiff",
    ".jp2",
    ".vrt",
    ".img",
    ".dat",
    ".bsq",
    ".bil",
    ".bip",
    ".nc",
    ".h5",
    ".he5",
    ".zip",
}


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """An image of a folder.

    Parameters
    ----------
    path : Path
    name : str
        Its place in the folder, flattened: ``p0/hsi.tif`` is ``p0_hsi``.
    source : Source
    date : datetime or None
        Of acquisition, UTC.
    """

    path: Path
    name: str
    source: Source
    date: datetime | None


def find_images(folder: Path, notes: list[str]) -> list[Image]:
    """Images of a folder and those below it; what cannot be read is added to `notes`.

    Raises
    ------
    InputError
        It is no folder, or holds no image.
    """
    if not folder.is_dir():
        raise InputError(f"'{folder}' is no folder; give the folder that holds the images.")
    found = []
    for path in _candidates(folder):
        try:
            source = open_source(path)
        except CsakdGeoError as error:
            notes.append(f"Left out: {error}")
            continue
        name = "_".join(path.relative_to(folder).with_suffix("").parts)
        found.append(Image(path, name, source, find_date(path)))
    if not found:
        raise InputError(
            f"'{folder}' holds no image that can be read; give the folder that holds the images."
        )
    return found


def _candidates(folder: Path) -> Iterator[Path]:
    """Images of a folder and those below: stores and sensors' products as a whole, files by their suffix.

    Masks and the like of a sensor's product are passed over.
    """
    if _is_product(folder):
        yield folder
        return
    if any(is_part(path) for path in folder.iterdir()):
        yield folder  # which, without its metadata, is told
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix in (".part", ".lock"):
            continue
        if path.is_dir():
            yield from [path] if is_store(path) else _candidates(path)
        elif _may_be_image(path):
            yield path


def _may_be_image(path: Path) -> bool:
    known = path.suffix.lower() in _SUFFIXES or (not path.suffix and path.with_suffix(".hdr").exists())
    return known and not (is_companion(path) or is_part(path))


def _is_product(folder: Path) -> bool:
    """Whether a folder is itself the product of a sensor, and not one that holds a product."""
    inside = (path for path in folder.iterdir() if path.is_dir() or path.suffix.lower() == ".zip")
    return _matches(folder) and not any(_matches(path) for path in inside)


def _matches(path: Path) -> bool:
    try:
        return find_sensor(path) is not None
    except CsakdGeoError:
        return False  # several products, or a damaged zip: each is looked at, and told, by itself
