"""The formats that a product can be written in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from csakd_geo.errors import OutputError
from csakd_geo.io.cog import Progress, RasterSpec
from csakd_geo.io.mosaic import Block


class Writer(Protocol):
    """Writes encoded blocks as one product; see `csakd_geo.io.cog.write_cog`."""

    def __call__(
        self,
        target: Path,
        spec: RasterSpec,
        blocks: Iterable[tuple[int, int, Block]],
        *,
        workdir: Path,
        progress: Progress | None = None,
        overviews: bool = ...,
    ) -> None:
        """Write the product; `target` is untouched if anything fails. Overviews where they are a choice."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format; its libraries are loaded when it is used.

    Parameters
    ----------
    name : str
        For ``--format``.
    suffixes : tuple of str
        Of targets that mean this format.
    writer, reader : str
        ``module:function`` in `csakd_geo.io`: the `Writer`, and what reads a product's tags.
    folder : bool
        Whether the product is a folder.
    beside : str
        ``module:function`` that names the files beside a target; empty where there are none.
    stages : tuple of (str, float)
        What the writer reports, and the share of its work that is done when each begins.
    levels : {"always", "choice", "never"}
        Whether a product has coarser levels.
    disk : float
        Bytes on the disk at the peak of writing, super-tiles included, over those of the uncompressed product.
    """

    name: str
    suffixes: tuple[str, ...]
    writer: str
    reader: str
    folder: bool = False
    beside: str = ""
    stages: tuple[tuple[str, float], ...] = (("write", 0.0), ("validate", 0.95))
    levels: Literal["always", "choice", "never"] = "never"
    disk: float = 2.0

    @property
    def write(self) -> Writer:
        """Writes a product of this format."""
        writer: Writer = _load(self.writer)
        return writer

    def files(self, target: Path) -> list[Path]:
        """The target, and what is written beside it."""
        return [target, *(_load(self.beside)(target) if self.beside else ())]

    def tags(self, target: Path) -> dict[str, str]:
        """Tags of the product at `target`; none where there is no product of this format."""
        reader: Callable[[Path], dict[str, str]] = _load(self.reader)
        return reader(target)


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format(
            "cog",
            (".tif", ".tiff"),
            "cog:write_cog",
            "envi:read_tags",
            stages=(("write", 0.0), ("overviews", 0.4), ("copy", 0.6), ("validate", 0.95)),
            levels="always",
            disk=3.7,  # a copy with its levels and the COG, where nothing compresses
        ),
        Format(
            "zarr", (".zarr",), "zarr:write_zarr", "zarr:read_tags", folder=True, levels="choice", disk=2.4
        ),
        Format("zarr2", (), "zarr:write_zarr2", "zarr:read_tags", folder=True, levels="choice", disk=2.4),
        Format("netcdf", (".nc",), "netcdf:write_netcdf", "netcdf:read_tags"),
        Format("envi", (".img", ".dat"), "envi:write_envi", "envi:read_tags", beside="envi:sidecars"),
    )
}


def find_format(target: Path, name: str | None = None) -> Format:
    """The format of a target: the one that is named, else that of its suffix.

    Raises
    ------
    OutputError
        If there is no such format, or neither says which.
    """
    if name is not None:
        if name not in FORMATS:
            raise OutputError(f"There is no format '{name}'; there are {', '.join(FORMATS)}.")
        return FORMATS[name]
    for entry in FORMATS.values():
        if target.suffix.lower() in entry.suffixes:
            return entry
    known = ", ".join(f"{' or '.join(e.suffixes)} ({e.name})" for e in FORMATS.values() if e.suffixes)
    raise OutputError(
        f"The output '{target.name}' must end in {known}; or give --format {'|'.join(FORMATS)}."
    )


def _load(place: str) -> Any:
    module, function = place.split(":")
    return getattr(import_module(f"csakd_geo.io.{module}"), function)
