"""GDAL's settings while this package reads and writes."""

from __future__ import annotations

import os
from typing import Any

import rasterio

#: Bytes of GDAL's block cache; its own choice is a twentieth of the machine's memory.
CACHE = 256_000_000

_DEFAULTS: dict[str, Any] = {
    # Addresses: files beside an image are asked for by name, not by listing its folder; and what does not
    # answer is given up within seconds.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    "GDAL_HTTP_CONNECTTIMEOUT": 5,
    "GDAL_HTTP_LOW_SPEED_TIME": 10,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1000,
    "GDAL_HTTP_MAX_RETRY": 2,
    "GDAL_HTTP_RETRY_DELAY": 1,
}


def gdal_settings(*, cache: int = CACHE, **more: str) -> rasterio.Env:
    """A context in which GDAL's memory is bounded and its waiting too.

    A setting that is in the environment is left as it is there.

    Parameters
    ----------
    cache : int
        Bytes of the block cache.
    **more
        Further settings of GDAL.
    """
    known = _DEFAULTS | {"GDAL_CACHEMAX": cache}
    given = {name: value for name, value in known.items() if name not in os.environ}
    return rasterio.Env(**given, **more)
