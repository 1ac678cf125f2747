"""Fuse a hyperspectral image with a sharper multispectral image of the same place.

`csakd_geo.fuse` is the whole job in one call; the command line (`csakd-geo`) runs the same code.
`csakd_geo.open_cube` opens an image or product with its wavelengths. Importing the package is cheap: both, and
all that they need, load when they are first asked for, and then cubes have the accessor ``.csakd``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csakd_geo._version import __version__

if TYPE_CHECKING:
    from csakd_geo.accessor import open_cube
    from csakd_geo.job import fuse

__all__ = ["__version__", "fuse", "open_cube"]


def __getattr__(name: str) -> Any:
    if name in ("fuse", "open_cube"):
        from csakd_geo.accessor import open_cube  # and the accessor that their cubes have

        if name == "open_cube":
            return open_cube
        from csakd_geo.job import fuse

        return fuse
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
