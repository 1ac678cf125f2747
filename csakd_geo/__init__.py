"""Fuse a hyperspectral image with a sharper multispectral image of the same place.

`csakd_geo.fuse` is the whole job in one call; the command line (`csakd-geo`) runs the same code.
Importing the package is cheap: `fuse`, and all that it needs, loads when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csakd_geo._version import __version__

if TYPE_CHECKING:
    from csakd_geo.job import fuse

__all__ = ["__version__", "fuse"]


def __getattr__(name: str) -> Any:
    if name == "fuse":
        from csakd_geo.job import fuse

        return fuse
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
