"""A QGIS plugin: the commands of ``csakd-geo`` as algorithms of the Processing toolbox.

``csakd-geo qgis install`` copies this folder into a QGIS profile. It runs in QGIS's own Python (3.9 or
newer) and imports nothing of the package; the commands run in the interpreter that installed it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .provider import Plugin


def classFactory(_: Any) -> Plugin:
    """Make the plugin; QGIS calls this."""
    from .provider import Plugin

    return Plugin()
