"""Products as the operators of sensors deliver them, one module each.

A reader module has ``TITLE``, ``matches(files)`` and ``open_product(files, name)``, which returns a
`csakd_geo.io.source.Source` without reading pixels. ``COMPANION``, where it has one, is a pattern of names of files
that are delivered with an image and are none to fuse, such as masks.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from csakd_geo.errors import InputError

if TYPE_CHECKING:
    from csakd_geo.io.source import Source

__all__ = ["find_sensor", "is_companion", "open_product", "product_names"]

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


def is_companion(path: Path) -> bool:
    """Whether a file, by its name, is delivered with an image and is none to fuse: a mask, an uncertainty."""
    patterns = (getattr(_module(name), "COMPANION", None) for name in _MODULES)
    return any(pattern and re.fullmatch(pattern, path.name, re.IGNORECASE) for pattern in patterns)


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


def _module(name: str) -> ModuleType:
    return import_module(f"csakd_geo.io.products.{name}")
