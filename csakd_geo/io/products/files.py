"""The files of one product, in a folder or a zip, read no further than needed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from csakd_geo.errors import InputError

#: Folders below a product's own that are looked into, and files listed at most.
_DEPTH, _MOST = 6, 20_000
#: A metadata file is refused above this size in bytes.
_TEXT = 64 << 20
#: An archive is refused that unpacks to more than this, or to more than a gigabyte at more than this ratio.
_UNPACKED, _EXPANSION = 256 << 30, 200
_GIGABYTE = 1 << 30


@dataclass(frozen=True, slots=True)
class ProductFiles:
    """Names of a product's files, relative to its folder or zip, with forward slashes.

    Nothing is unpacked: GDAL reads members of a zip where they are.

    Parameters
    ----------
    path : Path
        What was given: a folder, a zip or a file.
    root : Path
        The folder or zip that the names lie in.
    names : tuple of str
        Sorted.
    """

    path: Path
    root: Path
    names: tuple[str, ...]

    @classmethod
    def open(cls, path: Path | str) -> ProductFiles:
        """List a folder, a zip, or the folder that a file lies in.

        Raises
        ------
        InputError
            If it does not exist, or the zip is damaged, reaches out of its folder or unpacks to far too much.
        """
        path = Path(path)
        if path.is_dir():
            return cls(path, path, tuple(sorted(_walk(path))))
        if not path.is_file():
            raise InputError(f"'{path}' does not exist; check the path.")
        if path.suffix.lower() == ".zip":
            return cls(path, path, _members(path))
        depth = _DEPTH if path.suffix.lower() in (".xml", ".txt") else 0  # what lies beside one file
        return cls(path, path.parent, tuple(sorted(_walk(path.parent, depth=depth))))

    @property
    def zipped(self) -> bool:
        """Whether the names are members of a zip."""
        return self.root.is_file()

    @property
    def name(self) -> str:
        """Of what was given, for messages."""
        return self.path.name or str(self.path)

    def find(self, pattern: str) -> list[str]:
        """Names whose last part matches a regular expression in full, upper or lower case."""
        wanted = re.compile(pattern, re.IGNORECASE)
        return [name for name in self.names if wanted.fullmatch(PurePosixPath(name).name)]

    def head(self, pattern: str) -> str | None:
        """The one metadata file of a product: the one that was given, else the only one that matches.

        Raises
        ------
        InputError
            If several match, so the product is not clear.
        """
        found = self.find(pattern)
        if self.path.is_file() and not self.zipped:
            return self.path.name if self.path.name in found else None
        if len(found) > 1:
            raise InputError(
                f"'{self.name}' holds {len(found)} products ({PurePosixPath(found[0]).name}, "
                f"{PurePosixPath(found[1]).name} ...); give the metadata file of one of them."
            )
        return found[0] if found else None

    def one(self, pattern: str, what: str) -> str:
        """The one name that matches.

        Raises
        ------
        InputError
            If there is none, or more than one.
        """
        found = self.find(pattern)
        if len(found) != 1:
            raise InputError(
                f"'{self.name}' {'lacks' if not found else f'holds {len(found)} files for'} {what}; "
                "expected the product as it was delivered, so fetch it again or unpack it whole."
            )
        return found[0]

    def gdal(self, name: str) -> str:
        """Path of a file for GDAL."""
        if self.zipped:
            return f"/vsizip/{{{self.root.resolve().as_posix()}}}/{name}"
        return str(self.root / name)

    def local(self, name: str) -> Path:
        """Path of a file for libraries that read no archives.

        Raises
        ------
        InputError
            If it lies in a zip.
        """
        if self.zipped:
            raise InputError(f"'{self.name}' is a zip of '{name}', which must be unpacked first; unpack it.")
        return self.root / name

    def text(self, name: str) -> str:
        """A metadata file.

        Raises
        ------
        InputError
            If it is far too large for one, cannot be read or is no text.
        """
        try:
            if self.zipped:
                with zipfile.ZipFile(self.root) as archive, archive.open(name) as stream:
                    data = stream.read(_TEXT + 1)
            else:
                with (self.root / name).open("rb") as stream:
                    data = stream.read(_TEXT + 1)
        except (OSError, zipfile.BadZipFile, RuntimeError) as error:
            raise InputError(
                f"'{name}' of '{self.name}' cannot be read ({error}); fetch it again."
            ) from error
        if len(data) > _TEXT or b"\0" in data:
            raise InputError(f"'{name}' of '{self.name}' is no metadata text; fetch the product again.")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return data.decode("latin-1")

    def xml(self, name: str) -> ElementTree.Element:
        """Root of an XML file.

        Raises
        ------
        InputError
            If it is no XML, or declares a document type or entities: no product does, and they can be traps.
        """
        text = self.text(name)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise InputError(
                f"'{name}' of '{self.name}' declares XML entities, which no product does; it was not read."
            )
        try:
            return ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise InputError(
                f"'{name}' of '{self.name}' is no valid XML ({error}); fetch it again."
            ) from error


def _walk(root: Path, *, depth: int = _DEPTH) -> Iterator[str]:
    """Files below a folder; links are not followed into other folders."""
    folders = [(root, 0)]
    count = 0
    while folders:
        folder, level = folders.pop()
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            entries = []  # a folder that may not be read has nothing to offer
        for entry in entries:
            if entry.is_symlink() and entry.is_dir():
                continue
            if entry.is_dir():
                if level < depth:
                    folders.append((entry, level + 1))
                continue
            count += 1
            if count > _MOST:
                return
            yield entry.relative_to(root).as_posix()


def _members(path: Path) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [entry for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"'{path.name}' cannot be opened as a zip ({error}); fetch it again.") from error
    for entry in members:
        parts = PurePosixPath(entry.filename).parts
        if entry.filename.startswith("/") or ".." in parts or set(":\\") & set(entry.filename):
            raise InputError(
                f"'{path.name}' has the member '{entry.filename}', which leads out of its folder."
            )
    size = sum(entry.file_size for entry in members)
    packed = max(1, path.stat().st_size)
    if len(members) > _MOST or size > _UNPACKED or (size > _GIGABYTE and size > _EXPANSION * packed):
        raise InputError(
            f"'{path.name}' would unpack to {len(members)} files of {size / 1e9:.0f} GB from "
            f"{packed / 1e9:.3f} GB, which no product does; it was not read."
        )
    return tuple(sorted(entry.filename for entry in members))
