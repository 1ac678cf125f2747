"""Where a product goes: what is refused before any work."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from csakd_geo.budget import Budget
from csakd_geo.errors import OutputError
from csakd_geo.io.address import address_of, check_address, local_place
from csakd_geo.io.cube import is_store
from csakd_geo.io.formats import Format, find_format
from csakd_geo.io.several import members, rasters_in


def check_target(
    target: Path, *, overwrite: bool, inputs: Sequence[str] = (), format: str | None = None
) -> Format:
    """Refuse a target that cannot or must not be written, before any work.

    Parameters
    ----------
    target : Path
    overwrite : bool
        Whether it may exist.
    inputs : sequence of str
        What it must not be, whatever ``overwrite`` says.
    format : str, optional
        Name of the format; by default the suffix says which.

    Returns
    -------
    Format

    Raises
    ------
    OutputError
    """
    address = address_of(target)
    if address is not None:
        found = find_format(target, format)
        if not found.folder:
            raise OutputError(
                f"The output '{address}' is an address, where only Zarr can be written; choose zarr, or a local path."
            )
        if address in {address_of(name) for name in inputs}:
            raise OutputError(f"The output '{address}' is one of the inputs; choose another name.")
        check_address(address, overwrite=overwrite)
        return found
    if target.is_dir() and format is None and not is_store(target):
        raise OutputError(
            f"The output '{target}' is a folder; give a file name such as {target / 'fused.tif'}."
        )
    found = find_format(target, format)
    if target.is_dir() and not (found.folder and is_store(target)):
        expected = "a Zarr store" if found.folder else "a file"
        raise OutputError(f"The output '{target}' is a folder, not {expected}; choose another name.")
    written = found.files(target)
    if len(set(written)) < len(written):
        raise OutputError(f"The output '{target}' would be its own header; choose another suffix.")
    kept = [path for name in inputs for member in members(name) for path in _files_of(Path(member))]
    for path in (path for path in written if path.exists()):
        if any(path.samefile(other) or path in other.resolve().parents for other in kept):
            raise OutputError(f"The output '{path}' is one of the inputs; choose another name.")
        if not overwrite:
            raise OutputError(f"The output '{path}' exists; give --overwrite to replace it.")
    if not target.parent.is_dir():
        raise OutputError(f"The folder '{target.parent}' of the output does not exist; make it first.")
    return found


def _files_of(source: Path) -> list[Path]:
    """An input, the header beside it and the images inside it, where they are."""
    beside = [path for path in (source, source.with_suffix(".hdr")) if path.exists()] if source.name else []
    return [*beside, *(rasters_in(source) if source.is_dir() else ())]


def check_space(target: Path, budget: Budget) -> None:
    """Refuse a run for which the disk has no room.

    Raises
    ------
    OutputError
    """
    folder = local_place(target).parent
    free = shutil.disk_usage(folder).free
    if free < budget.disk:
        raise OutputError(
            f"The run needs about {budget.disk / 1e9:.2g} GB on the disk of '{folder}' but only "
            f"{free / 1e9:.2g} GB are free; free some space or write elsewhere."
        )
