"""The version of the package; every other place reads or is held against this one."""

__version__ = "0.1.0"
