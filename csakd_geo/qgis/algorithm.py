"""What the algorithms share."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsProcessingAlgorithm
from qgis.PyQt.QtGui import QIcon

from .installed import Installed, read_installed

FOLDER = Path(__file__).parent


def icon() -> QIcon:
    """The icon of the provider and its algorithms."""
    return QIcon(str(FOLDER / "icon.svg"))


class Algorithm(QgsProcessingAlgorithm):
    """One command of ``csakd-geo``.

    A subclass sets `command`, `title` and `help`.
    """

    command = ""
    title = ""
    help = ""

    @property
    def installed(self) -> Installed:
        """What ``csakd-geo qgis install`` wrote."""
        return read_installed(FOLDER)

    def name(self) -> str:
        """The algorithm's name, after the provider's."""
        return self.command

    def displayName(self) -> str:
        """The name in the toolbox."""
        return self.title

    def shortHelpString(self) -> str:
        """The help beside the dialog."""
        return self.help

    def icon(self) -> QIcon:
        """The icon in the toolbox."""
        return icon()

    def createInstance(self) -> Algorithm:
        """Another one of the same kind."""
        return type(self)()

    def canExecute(self) -> tuple[bool, str]:
        """Whether it can run, and why not."""
        problem = self.installed.problem
        return not problem, problem
