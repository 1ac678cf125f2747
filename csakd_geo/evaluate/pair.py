"""A fused file against the two images that it was made of: scores that need no truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from csakd_geo.errors import InputError
from csakd_geo.evaluate.consistency import Consistency, measure_consistency
from csakd_geo.evaluate.facts import product_facts
from csakd_geo.evaluate.link import Link, link_product
from csakd_geo.evaluate.truth import nullable
from csakd_geo.io import Source, open_source


@dataclass(frozen=True, slots=True, eq=False)
class PairEvaluation:
    """How far a product agrees with its inputs.

    Parameters
    ----------
    link : Link
        The product beside its inputs, and what relates them.
    consistency : Consistency
        HQNR and its parts, and the differences from both inputs.
    warnings : tuple of str
    """

    link: Link
    consistency: Consistency
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form; bands count from 1, values that are not finite are None."""
        link, found = self.link, self.consistency
        axis, msi = link.fused.axis, link.scene.msi.axis
        bands, msi_bands = link.bands.tolist(), list(link.scene.msi_bands)
        parts: dict[str, Any] = {"d_s": found.scores.d_s_bands}
        if found.msi is not None:
            parts |= {"relative": found.msi.relative, "bias": found.msi.bias, "cc": found.msi.cc}
        hsi = {"relative": found.hsi.relative, "bias": found.hsi.bias, "cc": found.hsi.cc}
        hsi["noise"] = found.noise
        scores = found.scores.to_dict() | {
            "hsi_consistency": found.hsi.overall,
            "msi_consistency": float("nan") if found.msi is None else found.msi.overall,
            "hsi_over_noise": found.over_noise,
            "angle": found.angle,
        }
        return {
            "scores": {name: nullable(value) for name, value in scores.items()},
            "ratio": link.scene.grid.ratio,
            "bands": [band + 1 for band in bands],
            "wavelength": [nullable(float(axis.wavelength[band])) for band in bands],
            "per_band": {name: [nullable(v) for v in values.tolist()] for name, values in hsi.items()},
            "msi_bands": link.msi_names,
            "msi_wavelength": [nullable(float(msi.wavelength[band])) for band in msi_bands],
            "per_msi_band": {name: [nullable(v) for v in values.tolist()] for name, values in parts.items()},
            "warnings": list(self.warnings),
        }


def evaluate_pair(
    fused: Path | str | xr.DataArray, hsi: Source | Path | str, msi: Source | Path | str
) -> PairEvaluation:
    """Score a product against the two images that it was made of.

    PSF and shift are those that the product states, the response is estimated again from the inputs, as in
    the report. The product is read once, in windows.

    Parameters
    ----------
    fused : Path, str or xarray.DataArray
        What ``csakd-geo fuse`` wrote, of any format, or `csakd_geo.fuse` returned; load that one first, or it is
        computed for every few bands again.
    hsi, msi : Source, Path or str
        The images that it was made of.

    Returns
    -------
    PairEvaluation

    Raises
    ------
    InputError
        If an image cannot be read, the product does not say how it was made, or no HSI pixel has its whole
        footprint on it.
    GridError, SpectralError
        If the images do not belong together.
    """
    facts = product_facts(Path(fused) if isinstance(fused, str) else fused)
    link = link_product(open_source(fused), hsi, msi, facts)
    found = measure_consistency(link, side=1)
    if not found.hsi.count:
        raise InputError(
            f"No HSI pixel has its whole footprint on valid pixels of '{link.fused.name}', so there is nothing to "
            "compare; fuse a larger area."
        )
    return PairEvaluation(link, found, tuple(link.remarks(facts)))
