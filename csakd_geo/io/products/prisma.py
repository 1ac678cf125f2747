"""PRISMA L2D: one HDF-EOS5 file with a VNIR and a SWIR cube (line, band, column)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from csakd_geo.errors import InputError
from csakd_geo.io.products.files import ProductFiles
from csakd_geo.io.products.hdf import HdfCube, attribute, crs_of, opened
from csakd_geo.io.products.stack import Stack
from csakd_geo.spectral import SpectralAxis

TITLE = "PRISMA L2D, .he5"
_FILE = r"PRS_L2D_.*\.he5"
_FIELDS = "HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/"
#: Of the error matrices: the L1 pixel was invalid.
_INVALID = (1,)
#: Outside the frame all bands are 0; these wavelengths in nm are looked at.
_PROBES = (560.0, 865.0, 1250.0, 1650.0)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What lies outside the tilted swath: pixels whose stored values are 0 in every probe band."""

    cubes: tuple[HdfCube, ...]
    bands: tuple[tuple[int, int], ...]

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """See `csakd_geo.io.products.stack.Mask`."""
        outside = np.ones((height, width), bool)
        for k, band in self.bands:
            cube = self.cubes[k]
            seen = cube.read(row, col, height, width, bands=[band])[0]
            outside &= ~(seen > np.float32(cube.offset[band]))  # NaN counts as empty
        return outside


def matches(files: ProductFiles) -> bool:
    """Whether the file is, or the folder holds, a PRISMA L2D product."""
    return files.head(_FILE) is not None


def open_product(files: ProductFiles, name: str) -> Stack:
    """Both cubes as one; bands without a wavelength are left out.

    Raises
    ------
    InputError
        If it is no PRISMA L2D product, or incomplete.
    """
    found = files.head(_FILE) or files.head(r".*\.he5")
    if found is None:
        raise InputError(f"'{name}' is no PRISMA L2D product; expected a file PRS_L2D_*.he5.")
    with opened(files.local(found), name) as file:
        transform = _transform(file, name)
        crs = crs_of(attribute(file, "Epsg_Code", name=name), name)
        cubes = [_cube(file, part, name, crs, transform) for part in ("Vnir", "Swir")]
    unused = [bool(np.isnan(w)) for cube in cubes for w in cube.axis.wavelength]
    keep = [
        k for cube, start in zip(cubes, (0, cubes[0].axis.size), strict=True) for k in _rising(cube, start)
    ]
    keep = [k for k in keep if not unused[k]]
    probes = []
    for wavelength in _PROBES:
        which = 0 if wavelength < 950 else 1
        distance = np.abs(cubes[which].axis.wavelength - wavelength)
        probes.append((which, int(np.nanargmin(distance))))
    notes = (f"{sum(unused)} bands that the product does not use were left out.",) if any(unused) else ()
    return Stack.build(
        cubes,
        name=name,
        driver="PRISMA L2D",
        units="reflectance",
        files=[str(files.local(found))],
        masks=[Frame(tuple(cubes), tuple(dict.fromkeys(probes)))],
        keep=keep,
        notes=notes,
    )


def _cube(file: Any, part: str, name: str, crs: Any, transform: Affine) -> HdfCube:
    centres = np.asarray(attribute(file, f"List_Cw_{part}", name=name), np.float64)
    fwhm = np.asarray(attribute(file, f"List_Fwhm_{part}", name=name), np.float64)
    used = centres > 0
    low = float(attribute(file, f"L2Scale{part}Min", name=name))
    high = float(attribute(file, f"L2Scale{part}Max", name=name))
    return HdfCube.open(
        file,
        f"{_FIELDS}{part.upper()}_Cube",
        order="ybx",
        name=name,
        driver="PRISMA L2D",
        axis=SpectralAxis.build(
            np.where(used, centres, np.nan),
            fwhm=np.where(used, fwhm, np.nan),
            names=[f"{part.upper()} {k + 1}" for k in range(centres.size)],
        ),
        crs=crs,
        transform=transform,
        units="reflectance",
        scale=(high - low) / 65535,
        offset=low,
        errors=f"{_FIELDS}{part.upper()}_PIXEL_L2_ERR_MATRIX",
        error_values=_INVALID,
    )


def _rising(cube: HdfCube, start: int) -> list[int]:
    """Bands of one detector by rising wavelength, so that only an overlap of the two is reported."""
    return [start + int(k) for k in np.argsort(cube.axis.wavelength, kind="stable")]


def _transform(file: Any, name: str) -> Affine:
    """The corners in the attributes are centres of the corner pixels, of 30 m."""
    rows, _, columns = _shape(file, name)

    def corner(key: str) -> float:
        return float(attribute(file, f"Product_{key}", name=name))

    left, top = corner("ULcorner_easting"), corner("ULcorner_northing")
    right, bottom = corner("LRcorner_easting"), corner("LRcorner_northing")
    across = (right - left) / max(columns - 1, 1)
    down = (top - bottom) / max(rows - 1, 1)
    if across <= 0 or down <= 0:
        raise InputError(
            f"The corners of '{name}' span {right - left:g} x {top - bottom:g} m; it is damaged."
        )
    return Affine(across, 0, left - across / 2, 0, -down, top + down / 2)


def _shape(file: Any, name: str) -> tuple[int, ...]:
    place = f"{_FIELDS}VNIR_Cube"
    if place not in file:
        raise InputError(f"'{name}' lacks the dataset '{place}'; it is no PRISMA L2D product, or incomplete.")
    return tuple(file[place].shape)
