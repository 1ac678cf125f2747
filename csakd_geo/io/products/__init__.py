"""Products as the operators of sensors deliver them, one module each.

A reader module has ``TITLE``, ``matches(files)`` and ``open_product(files, name)``, which returns a
`csakd_geo.io.source.Source` without reading pixels. ``COMPANION``, where it has one, is a pattern of names of files
that are delivered with an image and are none to fuse, such as masks; ``PART`` is one of names of images that say
little without the product's metadata file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from csakd_geo.errors import InputError

if TYPE_CHECKING:
    from csakd_geo.io.source import Source

__all__ = ["find_incomplete", "find_sensor", "is_companion", "is_part", "open_product", "product_names"]

_MODULES = (
    "enmap",
    "prisma",
    "sentinel2",
    "emit",
    "landsat",
    "desis",
    "aviris",
    "hyperion",
    "planetscope",
    "neon",
)
#: Files that may stand for a product by themselves or name one; any other file is a plain raster.
_HEADS = (".xml", ".zip", ".he5", ".h5", ".hdf5", ".nc", ".txt", ".hdr", "")


def product_names() -> tuple[str, ...]:
    """Names for ``--sensor``, sorted."""
    return tuple(sorted(_MODULES))


def find_sensor(path: Path | str) -> str | None:
    """Which reader a folder, zip or file is for; None where it is no product that is known.

    Raises
    ------
    InputError
        If it is a damaged or dangerous zip, or a folder of several products.
    """
    path = Path(path)
    if not path.exists() or (path.is_file() and path.suffix.lower() not in _HEADS):
        return None
    from csakd_geo.io.products.files import ProductFiles

    files = ProductFiles.open(path)
    return next((name for name in _MODULES if _module(name).matches(files)), None)


def find_incomplete(path: Path) -> str | None:
    """Which reader a folder or zip without its metadata file is for, by the names of its images; else None.

    Raises
    ------
    InputError
        If it is a damaged or dangerous zip.
    """
    from csakd_geo.io.products.files import ProductFiles

    files = ProductFiles.open(path)
    return next((name for name, part in _patterns("PART") if files.find(part)), None)


def is_part(path: Path) -> bool:
    """Whether a file, by its name, is an image that says little without the metadata of its product."""
    return any(re.fullmatch(part, path.name, re.IGNORECASE) for _, part in _patterns("PART"))


def is_companion(path: Path) -> bool:
    """Whether a file, by its name, is delivered with an image and is none to fuse: a mask, an uncertainty."""
    return any(re.fullmatch(pattern, path.name, re.IGNORECASE) for _, pattern in _patterns("COMPANION"))


def open_product(path: Path | str, *, sensor: str, name: str | None = None) -> Source:
    """Open a product with the reader of `sensor`.

    Raises
    ------
    InputError
        If there is no such sensor, or the product is none of it, incomplete or damaged.
    """
    if sensor not in _MODULES:
        raise InputError(
            f"There is no reader for the sensor '{sensor}'; choose {', '.join(product_names())}."
        )
    from csakd_geo.io.products.files import ProductFiles

    files = ProductFiles.open(path)
    source: Source = _module(sensor).open_product(files, name or files.name)
    return source


def _patterns(kind: str) -> Iterator[tuple[str, str]]:
    """Readers that have such a pattern."""
    return ((name, getattr(_module(name), kind)) for name in _MODULES if hasattr(_module(name), kind))


def _module(name: str) -> ModuleType:
    return import_module(f"csakd_geo.io.products.{name}")
