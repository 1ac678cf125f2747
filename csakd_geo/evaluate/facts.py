"""What a finished product says about how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from csakd_geo.degrade import PSF
from csakd_geo.errors import InputError
from csakd_geo.io.provenance import read_facts

#: Without these a product cannot be held against its inputs.
_NEEDED = ("method", "ratio", "shift", "psf_fwhm_hsi_pixels", "psf_phase_msi_pixels")


def product_facts(product: Path | xr.DataArray) -> dict[str, Any]:
    """Provenance of a product with all that is needed to hold it against its inputs.

    Parameters
    ----------
    product : Path or xarray.DataArray
        What ``csakd-geo fuse`` wrote, of any format, or `csakd_geo.fuse` returned.

    Raises
    ------
    InputError
        If it is missing, or nothing that csakd-geo wrote.
    """
    facts = read_facts(product) if isinstance(product, Path) else dict(product.attrs)
    lacking = [name for name in _NEEDED if name not in facts]
    if lacking:
        raise InputError(
            f"'{product if isinstance(product, Path) else product.name or 'DataArray'}' does not say how it was made ({', '.join(lacking)} missing); give what "
            "'csakd-geo fuse' wrote, not a copy that lost its tags."
        )
    return facts


def product_psf(facts: dict[str, Any]) -> PSF:
    """The PSF that a product was made with."""
    ratio = int(facts["ratio"])
    dy, dx = facts["psf_phase_msi_pixels"]
    return PSF(ratio, float(facts["psf_fwhm_hsi_pixels"]) * ratio, float(dy), float(dx))
