"""What a user may ask of a fusion: one set of options for command line, YAML file and Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from csakd_geo.errors import InputError
from csakd_geo.tiling import Blend


class FuseOptions(BaseModel):
    """Options of ``fuse``; the defaults alone give a good result.

    Parameters
    ----------
    model : str or None
        Name of a bundled or registered model, or a file.
    method : str
        ``auto``, ``csakd`` or a classical method.
    ratio : int or None
        HSI pixel over MSI pixel; None takes it from the files.
    tile, supertile : int or None
        MSI pixels per side that are computed and stored at once; None chooses.
    halo : int, "auto" or None
        HSI pixels of context around a tile; "auto" measures it, None takes what the method states.
    blend : {"crop", "linear", "hann"}
    statistics : {"scene", "tile"}
    dtype : {"int16", "float32"}
    format : {"cog", "zarr", "zarr2", "netcdf", "envi"} or None
        Of the file or folder that is written; None takes it from the name's suffix.
    overviews : bool
        Coarser levels in a Zarr store; a COG always has them.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    backend : {"auto", "torch", "onnxruntime", "openvino", "torch-compile"}
        What runs a network; ``auto`` takes the fastest of the first three that is installed where that pays.
    precision : {"float32", "bf16"}
        Of a network's convolutions; with backend ``auto``, bf16 is used where it is faster.
    memory : str or None
        Such as ``4GB``: super-tiles and tiles are chosen to stay below; None stays small by itself.
    aoi : Path or None
        Vector file whose features bound the output.
    bands : str or None
        HSI bands to write: numbers from 1, or wavelengths such as ``450-680nm``.
    wavelengths : Path or None
        CSV or ENVI header with the HSI's wavelengths, where its file states none.
    hsi_sensor, msi_sensor : str or None
        Readers of the inputs, such as ``enmap``; None recognises them.
    shift : "auto", "none" or (float, float)
        Offset added to the HSI's coordinates, in units of the MSI's CRS (metres in UTM).
    adapt_minutes : float or None
        Train on the pair for that long; 0 trains nothing. None trains, for 3 minutes at most, only
        where ``csakd`` is asked for and no model fits: elsewhere no gain is predicted.
    unreadable : {"fail", "nodata"}
        What a part of the output becomes whose input cannot be read: the run fails once everything else
        is done, or it holds no data there.
    workers : int or None
        Worker processes on this machine, each with one super-tile at a time; None uses threads.
    scheduler : str or None
        Address of a Dask scheduler whose workers compute, such as ``tcp://host:8786``.
    seed : int
    uncertainty : {"bands", "compact"} or None
        Write standard deviations beside the product: of every band, or the one activity from which those
        of all bands follow.
    quality : bool
        Write beside the product which pixels are masked, filled, clipped, extrapolated or changed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    method: str = "auto"
    ratio: int | None = Field(default=None, ge=2, le=64)
    tile: int | None = Field(default=None, ge=16, le=8192)
    supertile: int | None = Field(default=None, ge=16, le=16384)
    halo: Annotated[int, Field(ge=0)] | Literal["auto"] | None = None
    blend: Blend = "crop"
    statistics: Literal["scene", "tile"] = "scene"
    dtype: Literal["int16", "float32"] = "int16"
    format: Literal["cog", "zarr", "zarr2", "netcdf", "envi"] | None = None
    overviews: bool = False
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    backend: Literal["auto", "torch", "onnxruntime", "openvino", "torch-compile"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    memory: str | None = Field(default=None, pattern=r"^\s*\d+(\.\d+)?\s*[kKMGT]?i?B?\s*$")
    aoi: Path | None = None
    bands: str | None = None
    wavelengths: Path | None = None
    hsi_sensor: str | None = None
    msi_sensor: str | None = None
    shift: Literal["auto", "none"] | tuple[FiniteFloat, FiniteFloat] = "auto"
    adapt_minutes: float | None = Field(default=None, ge=0, le=1440)
    unreadable: Literal["fail", "nodata"] = "fail"
    workers: int | None = Field(default=None, ge=1, le=256)
    scheduler: str | None = Field(default=None, pattern=r"^[a-z]+://.+$")
    seed: int = Field(default=0, ge=0)
    uncertainty: Literal["bands", "compact"] | None = None
    quality: bool = False

    @field_validator("shift", "halo", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """``"DX,DY"`` and ``"8"`` as they come from a command line."""
        if value is False:  # YAML reads "no" and "off" so
            return "none"
        if isinstance(value, str) and "," in value:
            return tuple(part.strip() for part in value.split(","))
        return value

    @field_validator("bands", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """A YAML list or number of bands."""
        if isinstance(value, (list, tuple)):
            return ",".join(str(v) for v in value)
        return str(value) if isinstance(value, int) else value


def make_options(values: dict[str, Any]) -> FuseOptions:
    """Check options.

    Raises
    ------
    InputError
        Names the first option that is unknown or has an impossible value.
    """
    try:
        return FuseOptions.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "options"
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(FuseOptions.model_fields))
            raise InputError(f"There is no option '{name}'; known: {known}.") from error
        raise InputError(f"Option '{name}' cannot be {first['input']!r}: {first['msg'].lower()}.") from error


def read_config(path: Path) -> dict[str, Any]:
    """Options from a YAML file, named as in :class:`FuseOptions` (dashes allowed).

    Raises
    ------
    InputError
        If the file is missing, no YAML, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The configuration '{path}' cannot be read ({error}).") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"The configuration '{path}' is no valid YAML{where}; correct it.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"The configuration '{path}' must be a mapping of option names to values.")
    options = {str(key).replace("-", "_"): value for key, value in values.items()}
    for name in ("aoi", "wavelengths", "truth"):
        if isinstance(options.get(name), str):  # relative to the file that names it
            options[name] = str(path.parent / options[name])
    return options
