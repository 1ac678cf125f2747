"""What a finished product says about how it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from csakd_geo.errors import InputError
from csakd_geo.io.formats import FORMATS

PREFIX = "CSAKD_GEO_"


def read_facts(product: Path) -> dict[str, Any]:
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
    forms = [FORMATS["zarr"]] if product.is_dir() else [FORMATS["netcdf"], FORMATS["cog"]]
    tags = next((found for form in forms if PREFIX + "METHOD" in (found := form.tags(product))), None)
    if tags is None:
        raise InputError(
            f"'{product}' has no provenance of csakd-geo, so it does not say how it was made; give what "
            "'csakd-geo fuse' wrote, not a copy that lost its tags."
        )
    return facts_of(tags)


def facts_of(tags: dict[str, str]) -> dict[str, Any]:
    """What the package's own tags say, by name in lower case; nested values decoded."""
    return {
        key.removeprefix(PREFIX).lower(): _decoded(v) for key, v in tags.items() if key.startswith(PREFIX)
    }


def tags_of(facts: dict[str, Any]) -> dict[str, str]:
    """Tags of a product: one readable value per fact, nested ones as JSON; :func:`facts_of` is the way back."""
    return {
        f"{PREFIX}{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in facts.items()
    }


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
