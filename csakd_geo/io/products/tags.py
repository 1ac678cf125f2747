"""What metadata files say: numbers of XML elements, and groups of ``KEY = VALUE`` lines."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import InputError

_LINE = re.compile(r"\s*(\w+)\s*=\s*\"?(.*?)\"?\s*$")


def local_name(element: Element) -> str:
    """Tag without its namespace."""
    return element.tag.rsplit("}", 1)[-1]


def every(root: Element, tag: str) -> list[Element]:
    """All elements of that tag, whatever their namespace."""
    return [element for element in root.iter() if local_name(element) == tag]


def numbers(root: Element, tag: str, *, name: str) -> NDArray[np.float64]:
    """Text of all elements of that tag as numbers.

    Raises
    ------
    InputError
        If one is no number.
    """
    texts = [(element.text or "").strip() for element in every(root, tag)]
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        raise InputError(f"The metadata of '{name}' give no number for {tag}; fetch it again.") from None


def per_band(root: Element, tag: str, size: int, *, name: str) -> NDArray[np.float64]:
    """Numbers of a tag that must stand once for each of `size` bands.

    Raises
    ------
    InputError
    """
    found = numbers(root, tag, name=name)
    if found.size != size:
        raise InputError(
            f"The metadata of '{name}' give {tag} for {found.size} bands, expected {size}; fetch it again."
        )
    return found


def groups(text: str) -> dict[str, dict[str, str]]:
    """Groups of an MTL or ODL text: name of the innermost group to its keys, in upper case."""
    found: dict[str, dict[str, str]] = {}
    open_groups = [""]
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        key, value = match[1].upper(), match[2]
        if key == "GROUP":
            open_groups.append(value.upper())
        elif key == "END_GROUP" and len(open_groups) > 1:
            open_groups.pop()
        else:
            found.setdefault(open_groups[-1], {})[key] = value
    return found


def number_of(fields: dict[str, str], key: str, *, name: str) -> float:
    """One number of a group.

    Raises
    ------
    InputError
        If it is not there, or no number.
    """
    try:
        return float(fields[key])
    except (KeyError, ValueError):
        raise InputError(f"The metadata of '{name}' give no number for {key}; fetch it again.") from None
