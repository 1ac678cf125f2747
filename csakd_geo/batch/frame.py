"""Tables with shapes as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from csakd_geo.errors import InputError, OutputError
from csakd_geo.io.failure import plain_errors


def write_frame(frame: Any, target: Path) -> None:
    """Write a GeoDataFrame as GeoPackage, GeoParquet or CSV (without shapes); it appears when it is whole.

    Raises
    ------
    InputError
        pyarrow is missing for Parquet.
    OutputError
        The file cannot be written.
    """
    from pyogrio.errors import DataSourceError

    part = target.with_name(f".{target.stem}.part{target.suffix}")
    with plain_errors(target):
        try:
            if target.suffix.lower() == ".gpkg":
                frame.to_file(part, driver="GPKG", layer="scenes")
            elif target.suffix.lower() == ".csv":
                frame.drop(columns="geometry").to_csv(part, index=False)
            else:
                frame.to_parquet(part, index=False)
            os.replace(part, target)
        except ImportError as error:
            raise InputError(
                f"'{target.name}' needs the package pyarrow; install it with pip install 'csakd-geo[gis]'."
            ) from error
        except DataSourceError as error:
            raise OutputError(f"'{target}' was not written ({error}).") from error
        finally:
            part.unlink(missing_ok=True)
