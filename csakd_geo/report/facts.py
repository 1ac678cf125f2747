"""What a finished product says about how it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from csakd_geo.degrade import PSF
from csakd_geo.errors import InputError
from csakd_geo.io.formats import FORMATS

_PREFIX = "CSAKD_GEO_"
#: Without these a product cannot be held against its inputs.
_NEEDED = ("method", "ratio", "shift", "psf_fwhm_hsi_pixels", "psf_phase_msi_pixels")


def product_facts(product: Path) -> dict[str, Any]:
    """Provenance of a product: its tags without their prefix, in lower case; nested ones decoded.

    Parameters
    ----------
    product : Path
        What ``csakd-geo fuse`` wrote, of any format.

    Raises
    ------
    InputError
        If it is missing, or nothing that csakd-geo wrote.
    """
    if not product.exists():
        raise InputError(f"'{product}' does not exist; give what 'csakd-geo fuse' wrote.")
    readers = [FORMATS["zarr"]] if product.is_dir() else [FORMATS["netcdf"], FORMATS["cog"]]
    tags = next((found for form in readers if _PREFIX + "METHOD" in (found := form.tags(product))), {})
    facts = {k.removeprefix(_PREFIX).lower(): _decoded(v) for k, v in tags.items() if k.startswith(_PREFIX)}
    lacking = [name for name in _NEEDED if name not in facts]
    if lacking:
        raise InputError(
            f"'{product}' does not say how it was made ({', '.join(lacking)} missing); give what "
            "'csakd-geo fuse' wrote, not a copy that lost its tags."
        )
    return facts


def product_psf(facts: dict[str, Any]) -> PSF:
    """The PSF that a product was made with."""
    ratio = int(facts["ratio"])
    dy, dx = facts["psf_phase_msi_pixels"]
    return PSF(ratio, float(facts["psf_fwhm_hsi_pixels"]) * ratio, float(dy), float(dx))


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
