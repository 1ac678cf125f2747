"""The numbers on the page, as plain values; `page` puts them into HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.evaluate import Evaluation, evaluate, match_bands
from csakd_geo.evaluate.consistency import Consistency, measure_consistency
from csakd_geo.evaluate.link import Link
from csakd_geo.io import Source
from csakd_geo.quicklook.view import (
    FALSE_COLOUR,
    TRUE_COLOUR,
    Bands,
    Lattice,
    limits,
    spectral_angles,
)
from csakd_geo.report.layers import Deviations, Layers, read_layers
from csakd_geo.report.pixels import (
    CUBE_SIDE,
    VIEW_SIDE,
    cells_of,
    cube_lattice,
    pack,
    pick,
    pick_hsi,
    picture,
)
from csakd_geo.uncertainty import TAIL

FloatArray = NDArray[np.floating]

#: Share of a band's variance that follows from the MSI below which its fine detail is called unsupported.
SUPPORTED = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """All that a page tells.

    Parameters
    ----------
    link : Link
    facts : dict
        Provenance of the product.
    consistency : Consistency
    evaluation : Evaluation or None
        Against the truth.
    layers : Layers
        What stands beside the product.
    inside : float
        Share of the truth's values within the 90 % interval; NaN without a truth or an interval.
    views : list of dict
        Per composite its caption and pictures by image name.
    data : dict
        What the scripts read: axis, lattice, cubes, maps and series.
    """

    link: Link
    facts: dict[str, Any]
    consistency: Consistency
    evaluation: Evaluation | None
    layers: Layers
    inside: float
    views: list[dict[str, Any]]
    data: dict[str, Any]

    @property
    def unsupported(self) -> NDArray[np.bool_]:
        """Which of ``link.bands`` the MSI cannot support."""
        return np.asarray(self.link.support < SUPPORTED)


def gather(product: Path, link: Link, facts: dict[str, Any], truth: Source | None) -> Content:
    """Measure and pick everything that the page shows.

    Parameters
    ----------
    product : Path
        Beside which layers may stand.
    link : Link
    facts : dict
    truth : Source, optional
    """
    evaluation = None if truth is None else evaluate(link.fused, truth, ratio=link.scene.grid.ratio)
    twins = [] if truth is None else _twins(link, truth)
    consistency = measure_consistency(link, side=CUBE_SIDE)
    bands = len(link.bands)
    lattice = cube_lattice(link, per_pixel=bands * (1 if truth is None else 2) + 9, per_cell=bands)
    rows, cols = cells_of(link, lattice)
    some_rows, row_of = np.unique(rows, return_inverse=True)
    some_cols, col_of = np.unique(cols, return_inverse=True)
    layers = read_layers(product, link, facts, lattice)
    deviations, inside = layers.deviations, math.nan
    fused = pick(lattice, link.fused, link.bands.tolist())
    cubes = {
        "fused": pack(fused),
        "hsi": pack(pick_hsi(link, some_rows, some_cols, link.hsi_bands.tolist())),
        "msi": pack(_points(link, lattice)),
    }
    if truth is not None:
        true = pick(lattice, truth, twins)
        cubes["truth"] = pack(true)
        if deviations is not None:
            inside = _inside(np.abs(fused - true), TAIL * deviations.sigma)
    if deviations is not None:
        cubes["amplitude"] = pack(np.sqrt(deviations.activity[None]))  # its steps are even in sigma
    data = {
        "axis": _axis(link),
        "msi_axis": [_plain(link.scene.msi.axis.wavelength[b]) for b in link.scene.msi_bands],
        "lattice": {
            "rows": lattice.rows.tolist(),
            "cols": lattice.cols.tolist(),
            "height": link.fused.height,
            "width": link.fused.width,
            "transform": list(link.fused.transform)[:6],
            "cell_row": row_of.tolist(),
            "cell_col": col_of.tolist(),
        },
        "cubes": cubes,
        "maps": _maps(link, lattice, consistency, truth),
        "series": _series(link, consistency, evaluation, twins)
        | ({} if deviations is None else _deviations(deviations, consistency)),
    }
    return Content(link, facts, consistency, evaluation, layers, inside, _views(link, truth, twins), data)


def _inside(error: FloatArray, reach: FloatArray) -> float:
    known = np.isfinite(error) & np.isfinite(reach)
    return float((error <= reach)[known].mean()) if known.any() else math.nan


def _points(link: Link, lattice: Lattice) -> FloatArray:
    """MSI pixels on the scale of the spectra, see ``Link.msi_scale``; NaN for bands that have no place there."""
    found = pick(lattice, link.scene.msi, list(link.scene.msi_bands))
    gain, offset = link.msi_scale[:, :, None, None]
    return np.asarray(gain * found + offset)


def _twins(link: Link, truth: Source) -> list[int]:
    """The truth's band of each band in ``link.bands``."""
    place = dict(match_bands(link.fused, truth).T.tolist())
    return [int(place[int(band)]) for band in link.bands]


def _axis(link: Link) -> dict[str, Any]:
    nm = link.fused.axis.wavelength[link.bands]
    known = bool(np.isfinite(nm).all())
    return {
        "label": "Wavelength (nm)" if known else "Band",
        "x": nm.tolist() if known else (link.bands + 1.0).tolist(),
        "band": (link.hsi_bands + 1).tolist(),
        "units": link.fused.units or link.scene.hsi.units,
        "nm": known,
    }


def _maps(
    link: Link, lattice: Lattice, consistency: Consistency, truth: Source | None
) -> list[dict[str, Any]]:
    """Maps on the lattice of the cubes."""
    found: list[tuple[str, str, str, FloatArray]] = []
    if truth is not None:
        angles = spectral_angles(lattice, Bands.of(link.fused), Bands.of(truth))
        found.append(("Error", "spectral angle between fused image and truth", "°", angles))
    rows, cols = cells_of(link, lattice)
    cells = consistency.hsi_map[np.ix_(rows // consistency.cells, cols // consistency.cells)]
    text = "degraded fused image less HSI, root mean square over bands, relative"
    found.append(("HSI consistency", text, "%", 100 * cells))
    if consistency.msi_map is not None:
        pixels = [np.floor(v).astype(np.intp) // consistency.pixels for v in (lattice.rows, lattice.cols)]
        text = "projected fused image less MSI, root mean square over bands, relative"
        found.append(("MSI consistency", text, "%", 100 * consistency.msi_map[np.ix_(*pixels)]))
    return [
        {"name": name, "text": text, "unit": unit, "top": _top(values), "cube": pack(values[None])}
        for name, text, unit, values in found
    ]


def _top(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return max(float(np.percentile(known, 99)), 1e-6) if known.size else 1.0


def _series(
    link: Link, consistency: Consistency, evaluation: Evaluation | None, twins: Sequence[int]
) -> dict[str, Any]:
    """Per-band curves."""
    r, psf, level = link.scene.grid.ratio, link.psf, consistency.hsi.level
    share = 100 / np.where(level > 0, level, np.nan)
    along_y, along_x = psf.taps()
    series: dict[str, Any] = {
        "support": _list(link.support),
        "supported": SUPPORTED,
        "hsi": _list(100 * consistency.hsi.relative),
        "hsi_bias": _list(share * consistency.hsi.bias),
        "noise": _list(share * link.response.noise[link.places]),
        "srf_names": link.msi_names,
        "srf": [_list(row[link.places]) for row in link.response.srf],
        "psf": {
            "at": (np.arange(-psf.margin, r + psf.margin) - (r - 1) / 2).tolist(),
            "y": along_y.tolist(),
            "x": along_x.tolist(),
            "half": r / 2,
        },
    }
    if evaluation is not None:
        scored = {band: k for k, band in enumerate(evaluation.bands)}
        chosen = [scored.get(band) for band in twins]
        for name, values in evaluation.per_band.items():
            series[name] = _list([math.nan if k is None else float(values[k]) for k in chosen])
    return series


def _deviations(deviations: Deviations, consistency: Consistency) -> dict[str, Any]:
    """Per-band curve and law of the deviations; the page makes those of a pixel from its amplitude,
    the root of its activity.
    """
    level = consistency.hsi.level
    return {
        "sigma": _list(100 * deviations.mean / np.where(level > 0, level, np.nan)),
        "informed": deviations.informed.tolist(),
        "alpha": _list(deviations.alpha),
        "beta": _list(deviations.beta),
        "tail": TAIL,
    }


def _views(link: Link, truth: Source | None, twins: Sequence[int]) -> list[dict[str, Any]]:
    """True and false colour of every image, on the product's pixels; HSI, fused and truth stretched alike."""
    fused, msi = Bands(link.fused, link.bands), Bands.of(link.scene.msi)
    lattice = Lattice.of(link.fused, side=VIEW_SIDE)
    rows, cols = cells_of(link, lattice)
    place = {int(band): k for k, band in enumerate(link.bands)}
    views = []
    for name, wanted, fallback in (
        ("True colour", TRUE_COLOUR, (0.75, 0.5, 0.25)),
        ("False colour", FALSE_COLOUR, (0.9, 0.4, 0.1)),
    ):
        bands, caption = fused.composite(wanted, places=fallback)
        image, chosen = pick(lattice, link.fused, bands), [place[band] for band in bands]
        stretch = limits(image)
        sharp, msi_caption = msi.composite(wanted, places=fallback)
        images = {
            "HSI": picture(pick_hsi(link, rows, cols, link.hsi_bands[chosen].tolist()), stretch),
            "MSI": picture(pick(lattice, link.scene.msi, sharp)),
            "Fused": picture(image, stretch),
        }
        if truth is not None:
            images["Truth"] = picture(pick(lattice, truth, [twins[k] for k in chosen]), stretch)
        views.append({"name": name, "caption": caption, "msi_caption": msi_caption, "images": images})
    return views


def _list(values: Sequence[float] | FloatArray) -> list[float | None]:
    return [_plain(v) for v in np.asarray(values).tolist()]


def _plain(value: float) -> float | None:
    """A number that JSON has, with seven digits; None for the others."""
    return float(f"{value:.7g}") if math.isfinite(value) else None
