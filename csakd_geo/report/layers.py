"""What stands beside a product: its standard deviations on the page's lattice, and how many pixels have which flag."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.evaluate.link import Link
from csakd_geo.io import open_source
from csakd_geo.io.envi import read_tags
from csakd_geo.io.provenance import PREFIX, facts_of
from csakd_geo.layers import QUALITY, UNCERTAINTY, layer_path
from csakd_geo.quality import FLAGS
from csakd_geo.quicklook.view import Lattice
from csakd_geo.report.pixels import pick

FloatArray = NDArray[np.floating]

_READ = 1 << 22  # flags read at a time


@dataclass(frozen=True, slots=True, eq=False)
class Deviations:
    """Standard deviations of a product, as one activity per pixel and the law that all bands follow.

    Parameters
    ----------
    alpha, beta : ndarray (band,)
        Of ``Link.bands``; the variance at activity ``a`` is ``alpha + beta * a``, squared units of the product.
    informed : ndarray (band,) bool
    tried : bool
        False where the pair was too small to be tried.
    activity : ndarray (y, x)
        On the page's lattice; NaN where there is no data.
    """

    alpha: FloatArray
    beta: FloatArray
    informed: NDArray[np.bool_]
    tried: bool
    activity: FloatArray

    @property
    def sigma(self) -> FloatArray:
        """Standard deviations ``(band, y, x)``."""
        alpha, beta = (v[:, None, None] for v in (self.alpha, self.beta))
        return np.asarray(np.sqrt(alpha + beta * self.activity))

    @property
    def mean(self) -> FloatArray:
        """Mean standard deviation of each band over the lattice."""
        known = self.sigma[:, np.isfinite(self.activity)]
        return np.asarray(known.mean(1) if known.size else np.full(len(known), math.nan))


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """What stands beside a product.

    Parameters
    ----------
    deviations : Deviations or None
    flags : dict of str to float, or None
        Share of the product's pixels that have a flag, by its name.
    remarks : tuple of str
        Sentences on layers that are not shown.
    """

    deviations: Deviations | None
    flags: dict[str, float] | None
    remarks: tuple[str, ...]


def read_layers(product: Path, link: Link, facts: dict[str, Any], lattice: Lattice) -> Layers:
    """Read the layers beside a product that were written with it.

    Parameters
    ----------
    product : Path
    link : Link
    facts : dict
        Provenance of the product.
    lattice : Lattice
        Where the page has spectra.

    Raises
    ------
    InputError
        If a layer cannot be read.
    """
    found, remarks = {}, []
    for kind in (UNCERTAINTY, QUALITY):
        path = layer_path(product, kind)
        if not path.exists():
            continue
        if read_tags(path).get(PREFIX + "REQUEST") == facts.get("request", ""):
            found[kind] = path
        else:
            remarks.append(f"'{path.name}' was not written with this product and is left out.")
    return Layers(
        _read_deviations(found[UNCERTAINTY], link, lattice) if UNCERTAINTY in found else None,
        _count_flags(found[QUALITY]) if QUALITY in found else None,
        tuple(remarks),
    )


def _read_deviations(path: Path, link: Link, lattice: Lattice) -> Deviations:
    """The law is in the tags of both forms; the activity is stored, or follows from the band that it moves most."""
    told, layer = facts_of(read_tags(path)), open_source(path)
    alpha, beta = (np.array(told[name], float)[link.bands] for name in ("alpha", "beta"))  # None is NaN
    if told["uncertainty"] == "compact":
        activity = pick(lattice, layer, [0])[0].astype(float)
    else:
        most = int(np.nanargmax(beta))
        sigma = pick(lattice, layer, [int(link.bands[most])])[0].astype(float)
        excess = np.maximum(np.square(sigma) - alpha[most], 0)
        activity = excess / beta[most] if beta[most] > 0 else 0 * excess
    informed = np.array(told["informed"], bool)[link.bands]
    return Deviations(alpha, beta, informed, bool(told["tried"]), activity)


def _count_flags(path: Path) -> dict[str, float]:
    """Flags of all pixels."""
    layer, count, bits = open_source(path), np.zeros(256, np.int64), np.arange(256)
    step = max(1, _READ // layer.width)
    for row in range(0, layer.height, step):
        flags = layer.read(row, 0, min(step, layer.height - row), layer.width)
        count += np.bincount(flags.astype(np.uint8).ravel(), minlength=256)
    return {name: float(count[(bits & bit) > 0].sum() / count.sum()) for bit, name, _ in FLAGS}
