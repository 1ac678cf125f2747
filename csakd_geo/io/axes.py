"""Reading band lists: from ENVI headers, band tags, GDAL's IMAGERY domain, CF coordinates and plain tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import SpectralError
from csakd_geo.spectral import SpectralAxis

if TYPE_CHECKING:
    import rasterio
    import xarray as xr

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan", re.IGNORECASE)
_WITH_UNIT = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:nm|nanomet(?:er|re)s?|[uµμ]m|micromet(?:er|re)s?|microns?)\b", re.IGNORECASE
)
#: Units of an ENVI header or tag that are no lengths, so the numbers are no wavelengths.
_NO_LENGTH = ("index", "wavenumber", "ghz", "mhz")


@dataclass(frozen=True, slots=True)
class _Found:
    """What one place of a file says about the bands; None where it is silent."""

    wavelength: NDArray[np.float64] | None = None
    fwhm: NDArray[np.float64] | None = None
    good: NDArray[np.bool_] | None = None


def axis_from_dataset(src: rasterio.io.DatasetReader) -> SpectralAxis:
    """Bands of an open rasterio dataset.

    Each of wavelengths, widths and quality comes from the first place that records it: the ENVI domain, an
    ENVI ``.hdr`` beside the file, tags of the bands (``wavelength``, ``fwhm``, ``bbl``), the IMAGERY domain
    (rounded to nm where GDAL derives it, so it comes late), and descriptions such as ``B4 (665 nm)``.
    Lengths may be in nm, um or m: no optical sensor leaves a doubt which, whatever the unit tag says.

    Parameters
    ----------
    src : rasterio.io.DatasetReader

    Returns
    -------
    SpectralAxis
        Unknown values are NaN; a band without a flag is good.
    """
    names = [text or f"Band {k}" for k, text in enumerate(src.descriptions, 1)]
    return _first(_places(src), src.count, names)


def axis_from_dataarray(array: xr.DataArray, dim: str = "band") -> SpectralAxis:
    """Bands of a DataArray from CF coordinates ``wavelength``, ``fwhm``, ``good`` along `dim`.

    Parameters
    ----------
    array : xarray.DataArray
        Units of the coordinates may be nm, um or m; the ``long_name`` of rioxarray gives the names.
    dim : str
        The dimension of the bands.

    Returns
    -------
    SpectralAxis
    """
    size = int(array.sizes[dim])

    def along(*keys: str) -> NDArray[Any] | None:
        for key in keys:
            if key in array.coords and array.coords[key].dims == (dim,):
                return np.asarray(array.coords[key].values)
        return None

    centres = along("wavelength", "wavelengths", "center_wavelength")
    widths = along("fwhm")
    flags = along("good", "good_wavelengths", "bbl")
    found = _found(
        None if centres is None else centres.astype(np.float64),
        None if widths is None else widths.astype(np.float64),
        None if flags is None else np.nan_to_num(flags.astype(np.float64)) != 0,
    )
    long_name = array.attrs.get("long_name")
    names: Sequence[Any] = long_name if isinstance(long_name, (tuple, list)) else ()
    if len(names) != size:
        names = [f"Band {k}" for k in range(1, size + 1)]
    return _first(iter([found]), size, [str(n) for n in names])


def read_wavelengths(path: Path | str) -> SpectralAxis:
    """Band list from an ENVI header or a table with columns wavelength, fwhm, good (the last two optional).

    Parameters
    ----------
    path : Path or str
        Columns are parted by commas, semicolons, tabs or blanks; a heading is skipped.

    Raises
    ------
    SpectralError
        If the file cannot be read or holds no wavelengths.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise SpectralError(f"The band list '{path}' cannot be read: {error.strerror}.") from error
    if text.startswith("ENVI"):
        found = _from_envi(parse_envi_header(text))
    else:
        lines = [re.split(r"[,;\s]+", line.strip().strip(",;")) for line in text.splitlines()]
        rows = [line for line in lines if all(_NUMBER.fullmatch(cell) for cell in line)]
        if len({len(row) for row in rows}) > 1:
            raise SpectralError(f"The band list '{path}' has rows of unequal length; give one band a row.")
        columns = np.array(rows, dtype=np.float64).T if rows else np.empty((0, 0))
        wavelength, fwhm, good = (columns[k] if k < len(columns) else None for k in range(3))
        found = _found(wavelength, fwhm, None if good is None else good != 0)
    if found.wavelength is None or not np.isfinite(found.wavelength).any():
        raise SpectralError(
            f"The band list '{path}' holds no wavelengths; expected one row per band with the wavelength "
            "in nm first, or an ENVI header."
        )
    size = found.wavelength.size
    return _first(iter([found]), size, [f"Band {k}" for k in range(1, size + 1)])


def parse_envi_header(text: str) -> dict[str, str]:
    """Fields of an ENVI header with lower-case keys and underscores, as GDAL's ENVI domain has them."""
    fields = re.findall(r"^[ \t]*([^={}\r\n]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\r\n]*)", text, re.MULTILINE)
    return {key.lower().replace(" ", "_"): value.strip() for key, value in fields}


def envi_fields(src: rasterio.io.DatasetReader) -> dict[str, str]:
    """Fields of the dataset's ENVI domain, else of an ENVI header of as many bands beside the file."""
    tags: dict[str, str] = src.tags(ns="ENVI")
    if tags:
        return tags
    path = Path(src.name)
    for header in (path.with_suffix(".hdr"), path.with_name(path.name + ".hdr")):
        if header == path or not header.is_file():
            continue
        text = header.read_text(encoding="latin-1")
        fields = parse_envi_header(text) if text.startswith("ENVI") else {}
        if fields.get("bands") == str(src.count):
            return fields
    return {}


def _places(src: rasterio.io.DatasetReader) -> Iterator[_Found]:
    fields = envi_fields(src)
    yield _from_envi(fields)
    unit = {
        "wavelength_units": fields.get("wavelength_units", "")
    }  # GDAL repeats ENVI's numbers, not every unit
    yield _from_tags([unit | src.tags(i) for i in src.indexes], "wavelength", "fwhm", "bbl")
    yield _from_tags([src.tags(i, ns="IMAGERY") for i in src.indexes], "CENTRAL_WAVELENGTH_UM", "FWHM_UM", "")
    matches = [_WITH_UNIT.search(text or "") for text in src.descriptions]
    values = [float(m[1]) for m in matches if m is not None]
    yield _found(np.array(values)) if len(values) == src.count else _Found()


def _first(places: Iterator[_Found], size: int, names: Sequence[str]) -> SpectralAxis:
    """Axis from the first place that records each quantity for all bands."""
    wavelength = fwhm = good = None
    for place in places:
        if wavelength is None and place.wavelength is not None and place.wavelength.size == size:
            wavelength = place.wavelength
        if fwhm is None and place.fwhm is not None and place.fwhm.size == size:
            fwhm = place.fwhm
        if good is None and place.good is not None and place.good.size == size:
            good = place.good
    centres = np.full(size, np.nan) if wavelength is None else wavelength
    return SpectralAxis.build(centres, fwhm=fwhm, good=good, names=names)


def _from_envi(fields: Mapping[str, str]) -> _Found:
    if any(word in fields.get("wavelength_units", "").lower() for word in _NO_LENGTH):
        return _Found(good=_flags(fields.get("bbl")))
    return _found(_list(fields.get("wavelength")), _list(fields.get("fwhm")), _flags(fields.get("bbl")))


def _from_tags(tags: Sequence[Mapping[str, str]], centre: str, width: str, flag: str) -> _Found:
    def column(key: str) -> NDArray[np.float64] | None:
        cells = [_NUMBER.match(tag.get(key, "").strip()) for tag in tags]
        if not any(cells):
            return None
        return np.array([float(cell[0]) if cell else np.nan for cell in cells])

    flags = column(flag)
    units = " ".join({tag.get("wavelength_units", "") for tag in tags}).lower()
    if any(word in units for word in _NO_LENGTH):
        return _Found(good=None if flags is None else flags != 0)
    return _found(column(centre), column(width), None if flags is None else flags != 0)


def _found(
    wavelength: NDArray[np.float64] | None = None,
    fwhm: NDArray[np.float64] | None = None,
    good: NDArray[np.bool_] | None = None,
) -> _Found:
    """Both lengths in nm; their common unit is read off the wavelengths, or the widths if there are none."""
    if wavelength is not None:
        factor = _to_nm(wavelength, limits=(1e-3, 100.0))
        wavelength = _positive(wavelength * factor)
        fwhm = None if fwhm is None else _positive(fwhm * factor)
    elif fwhm is not None:
        fwhm = _positive(fwhm * _to_nm(fwhm, limits=(1e-5, 0.8)))
    return _Found(wavelength, fwhm, good)


def _to_nm(values: NDArray[np.float64], *, limits: tuple[float, float]) -> float:
    """Factor to nm: below the limits the median can only be m, or um."""
    known = values[np.isfinite(values) & (values > 0)]
    if known.size == 0:
        return 1.0
    middle = float(np.median(known))
    return 1e9 if middle < limits[0] else 1e3 if middle < limits[1] else 1.0


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values > 0, values, np.nan)


def _list(text: str | None) -> NDArray[np.float64] | None:
    cells = _NUMBER.findall(text or "")
    return np.array([float(cell) for cell in cells]) if cells else None


def _flags(text: str | None) -> NDArray[np.bool_] | None:
    values = _list(text)
    return None if values is None else values != 0
