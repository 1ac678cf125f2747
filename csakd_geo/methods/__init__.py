"""Fusion methods by name, in the order of their cost."""

from __future__ import annotations

from csakd_geo.errors import InputError
from csakd_geo.methods.base import Fitted, Method
from csakd_geo.methods.cnmf import CNMF
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.methods.estimates import CoupledMAP, SubspaceMAP
from csakd_geo.methods.injection import GSA, MTFGLP
from csakd_geo.methods.linear import Bicubic, Regression

__all__ = ["METHODS", "Fitted", "Method", "get_method", "method_table"]

_ALL: tuple[Method, ...] = (Bicubic(), Regression(), GSA(), MTFGLP(), CNMF(), SubspaceMAP(), CoupledMAP())
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""Methods that need nothing but the pair; ``csakd`` needs a model too."""


def get_method(name: str) -> Method:
    """Method of a name.

    Raises
    ------
    InputError
        If there is none of that name in :data:`METHODS`.
    """
    try:
        return METHODS[name]
    except KeyError:
        if name == CSAKD.name:
            raise InputError(
                f"Method '{name}' needs a model: give its file, or take one of {', '.join(METHODS)}."
            ) from None
        raise InputError(
            f"There is no method '{name}'; known: {', '.join((*METHODS, CSAKD.name))}."
        ) from None


def method_table() -> list[tuple[str, str, str]]:
    """Name, title and source of every method, ``csakd`` last."""
    rows = [(m.name, m.title, m.source) for m in METHODS.values()]
    return [*rows, (CSAKD.name, CSAKD.title, CSAKD.source)]
