"""When an image was taken, from what its file says or from its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

#: Tags (lower case, blanks and dashes as underscores) that state the time of acquisition.
_TAGS = (
    "acquisition_date",
    "acquisition_datetime",
    "acquisition_time",
    "acquisitiondatetime",
    "date_acquired",
    "datetime",
    "sensing_time",
    "datatake_1_datatake_sensing_start",
    "product_start_time",
    "start_time",
    "starttime",
    "time_coverage_start",
)
_DAY = (
    r"(?P<year>19[6-9]\d|20\d\d)(?P<dash>[-_]?)(?P<month>0[1-9]|1[0-2])(?P=dash)(?P<day>0[1-9]|[12]\d|3[01])"
)
_TIME = r"(?:[Tt_ ]?(?P<hour>[01]\d|2[0-3]):?(?P<minute>[0-5]\d):?(?P<second>[0-5]\d))?"
_STAMP = re.compile(rf"(?<!\d){_DAY}{_TIME}(?!\d)")
#: EO-1 scenes: path and row, then year and day of the year.
_EO1 = re.compile(r"EO1[AH]\d{6}(?P<year>\d{4})(?P<yday>\d{3})")


def find_date(image: Path | str) -> datetime | None:
    """Time of acquisition of an image, UTC; None where nothing tells.

    The file's tags are asked first (GDAL's and ENVI's domains), then its name, then the name of its folder. A
    name with several dates counts by its first: in the products of Landsat, Sentinel-2, EnMAP, PRISMA and EO-1
    that is the acquisition, and what follows is the processing. Without a time of day it is midnight.

    Parameters
    ----------
    image : Path or str
    """
    try:
        with rasterio.open(image) as src:
            tags = {**src.tags(), **src.tags(ns="ENVI")}
    except (RasterioError, OSError):
        tags = {}  # a store, or an image that only its own reader opens: the name has to do
    plain = {re.sub(r"[\s\-]", "_", key.rpartition("#")[2]).lower(): text for key, text in tags.items()}
    path = Path(image)
    return first_date([*(plain[key] for key in _TAGS if key in plain), path.name, path.parent.name])


def first_date(texts: Iterable[str]) -> datetime | None:
    """The first date in the first text that has one, UTC.

    Parameters
    ----------
    texts : iterable of str
        ISO times such as ``2024-06-07T10:30:21Z``, or names such as ``S2A_MSIL2A_20240607T103021_N0510``.
    """
    for text in texts:
        found = _STAMP.search(text)
        if found is not None:
            parts = [int(found[name] or 0) for name in ("year", "month", "day", "hour", "minute", "second")]
            try:
                return datetime(parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], tzinfo=UTC)
            except ValueError:  # 31 February: digits that are no date
                continue
        found = _EO1.search(text)
        if found is not None:
            return datetime(int(found["year"]), 1, 1, tzinfo=UTC) + timedelta(days=int(found["yday"]) - 1)
    return None
