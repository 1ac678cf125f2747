"""Places that fsspec reaches, such as ``s3://bucket/fused.zarr``: stores are put there whole, or not at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from csakd_geo.errors import CsakdGeoError, OutputError

#: What makes a folder a Zarr group or array.
MARKS = ("zarr.json", ".zgroup", ".zarray")
_READ_ONLY = ("http", "https")


def address_of(place: PurePath | str) -> str | None:
    """The address that a path or text means; None where it is a local path.

    A `Path` has lost one of the slashes of ``s3://``; it is put back.
    """
    pattern = (
        r"([A-Za-z][\w+.-]+):/(?!/)(.*)" if isinstance(place, PurePath) else r"([A-Za-z][\w+.-]+)://(.*)"
    )
    found = re.fullmatch(pattern, place.as_posix() if isinstance(place, PurePath) else place)
    if found is None:
        return None
    scheme, rest = found[1].lower(), found[2].rstrip("/")
    return f"file:///{rest.lstrip('/')}" if scheme == "file" else f"{scheme}://{rest}"


def local_place(target: Path) -> Path:
    """Where files that belong to a target are kept while it is made: beside it, or in the current folder.

    The name of an address gets a hash of all of it, so that two of one name do not meet.
    """
    address = address_of(target)
    if address is None:
        return target
    key = hashlib.sha256(address.encode()).hexdigest()[:8]
    return Path.cwd() / f"{target.stem}-{key}{target.suffix}"


def is_store_at(address: str) -> bool:
    """Whether a Zarr group or array is at an address.

    Raises
    ------
    OutputError
        If the address cannot be looked at.
    """
    with _plain(address):
        files, path = _file_system(address)
        return _is_store(files, path)


def check_address(address: str, *, overwrite: bool) -> None:
    """Refuse an address that cannot or must not be written.

    Parameters
    ----------
    address : str
    overwrite : bool
        Whether a store may be there.

    Raises
    ------
    OutputError
    """
    scheme = address.split("://", 1)[0]
    if scheme in _READ_ONLY:
        raise OutputError(
            f"Nothing can be written to '{address}': {scheme} is for reading; choose another output."
        )
    with _plain(address):
        files, path = _file_system(address)
        # without its root and with its successor beside it, it is what a run left that was killed in its last step
        if files.exists(path) and not files.exists(_part(path)):
            if not _is_store(files, path):
                raise OutputError(f"The output '{address}' exists and is no Zarr store; choose another name.")
            if not overwrite:
                raise OutputError(f"The output '{address}' exists; give --overwrite to replace it.")
        elif _is_store(files, path) and not overwrite:
            raise OutputError(f"The output '{address}' exists; give --overwrite to replace it.")
        files.pipe_file(f"{path}.probe", b"")  # a place that cannot be written is found before the work
        files.rm_file(f"{path}.probe")


def read_mark(address: str) -> bytes:
    """The metadata at the root of a store; empty where there is none."""
    with _plain(address):
        files, path = _file_system(address)
        for mark in (".zmetadata", *MARKS):
            if files.exists(f"{path}/{mark}"):
                return bytes(files.cat_file(f"{path}/{mark}"))
    return b""


def publish(
    folder: Path, address: str, check: Callable[[str], None], progress: Callable[[float], None]
) -> None:
    """Put a finished store at an address.

    Its files go to ``ADDRESS.part`` first, are checked there and then copied to their place, the metadata at
    the root last: a store that is not whole does not open. What was there before stays until the check is
    passed.

    Parameters
    ----------
    folder : Path
        The store.
    address : str
    check : callable
        Gets the address of the copy; raises if that is not what it should be.
    progress : callable
        Gets the share that has been sent.

    Raises
    ------
    OutputError
        If it cannot be written, or the check fails.
    """
    names = sorted(
        (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()), key=_root_last
    )
    with _plain(address):
        files, path = _file_system(address)
        part = _part(path)
        _remove(files, part)
        try:
            for k, name in enumerate(names, 1):
                files.put_file(str(folder / name), f"{part}/{name}")
                progress(k / len(names))
            check(_part(address))
            _remove(files, path)
            try:
                for name in names:
                    files.cp_file(f"{part}/{name}", f"{path}/{name}")
            except BaseException:
                _remove(files, path)
                raise
        finally:
            _remove(files, part)


def _part(path: str) -> str:
    return f"{path}.part"


def _root_last(name: str) -> tuple[bool, str]:
    return "/" not in name, name


def _is_store(files: Any, path: str) -> bool:
    return any(files.exists(f"{path}/{mark}") for mark in MARKS)


def _remove(files: Any, path: str) -> None:
    """Remove a store, its root first, so that it does not open while it goes."""
    files.invalidate_cache()
    for mark in (".zmetadata", *MARKS):
        if files.exists(f"{path}/{mark}"):
            files.rm_file(f"{path}/{mark}")
    if files.exists(path):
        files.rm(path, recursive=True)


def _file_system(address: str) -> tuple[Any, str]:
    """The file system of an address and the path in it."""
    from fsspec.core import url_to_fs

    scheme = address.split("://", 1)[0]
    options = {"auto_mkdir": True} if scheme in ("file", "local") else {}
    try:
        files, path = url_to_fs(address, **options)
    except ImportError as error:
        package = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
        needed = package.get(scheme, f"that fsspec asks for ({error})")
        raise OutputError(
            f"'{address}' needs the package {needed}; install it, for instance with pip install {needed}."
            if scheme in package
            else f"'{address}' needs a package {needed}."
        ) from error
    except ValueError as error:
        raise OutputError(f"'{address}' is no address that fsspec knows ({error}).") from error
    files.invalidate_cache()
    return files, path


@contextmanager
def _plain(address: str) -> Iterator[None]:
    """One sentence for whatever the library behind a file system raises; each has exceptions of its own."""
    try:
        yield
    except CsakdGeoError:
        raise
    except Exception as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise OutputError(
            f"'{address}' cannot be reached or written ({cause}); check the address, the access rights and the "
            "network."
        ) from error
