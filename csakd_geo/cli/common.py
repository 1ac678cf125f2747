"""Arguments and options that several commands have, in the same words."""

from __future__ import annotations

import math
from pathlib import Path

import click


def read_shift(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Hold that a shift is auto, none or two finite numbers."""
    if value is None or value in ("auto", "none"):
        return value
    parts = value.split(",")
    try:
        if len(parts) == 2 and all(math.isfinite(float(p)) for p in parts):
            return ",".join(str(float(p)) for p in parts)
    except ValueError as error:
        raise click.BadParameter("expected auto, none or two finite numbers DX,DY") from error
    raise click.BadParameter("expected auto, none or two finite numbers DX,DY")


hsi = click.argument("hsi", type=click.Path(path_type=str))
msi = click.argument("msi", type=click.Path(path_type=str))
ratio = click.option("--ratio", type=int, help="HSI pixel over MSI pixel; by default from the files.")
wavelengths = click.option(
    "--wavelengths", type=click.Path(path_type=Path), help="CSV or ENVI header for the HSI's bands."
)
hsi_sensor = click.option(
    "--hsi-sensor", help="Reader of the HSI, where it is not recognised: enmap, prisma, ..."
)
msi_sensor = click.option("--msi-sensor", help="Reader of the MSI: sentinel2, landsat, planetscope, ...")
shift = click.option(
    "--shift",
    callback=read_shift,
    help="auto (default), none, or DX,DY added to the HSI, in units of the MSI's CRS.",
)
device = click.option("--device", help="auto (default), cpu, cuda or cuda:N.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
