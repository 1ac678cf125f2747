"""Errors that a user can act on.

Each message is one sentence or two: what was found, what was expected, what to do.
The command line prints the message alone and exits with 1; a traceback is a bug.
"""


class CsakdGeoError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(CsakdGeoError):
    """An input file or array cannot be used: missing, unreadable, empty, wrong shape or type."""


class GridError(CsakdGeoError):
    """Two inputs do not fit one fusion grid: no overlap, wrong ratio, unusable transform."""


class SpectralError(CsakdGeoError):
    """Bands or wavelengths are missing, unordered or do not fit what was asked."""


class ModelError(CsakdGeoError):
    """A model file is broken, hostile, or does not fit the pair."""


class OutputError(CsakdGeoError):
    """The target cannot be written: exists, is a directory, no space, locked."""
