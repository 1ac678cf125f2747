"""NEON airborne reflectance: an HDF5 file with one cube (line, sample, band) below its site's group."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from csakd_geo.errors import InputError
from csakd_geo.io.products.files import ProductFiles
from csakd_geo.io.products.hdf import HdfCube, attribute, crs_of, opened, plain
from csakd_geo.spectral import SpectralAxis

TITLE = "NEON surface reflectance, .h5"
_FILE = r".*\.(?:h5|hdf5)"
_ROTATION = re.compile(r"rotation\s*=\s*([-+.\d]+)", re.IGNORECASE)


def matches(files: ProductFiles) -> bool:
    """Whether an HDF5 file has NEON's groups; a folder must hold no other HDF5 file."""
    found = files.find(_FILE)
    if files.path.is_file():
        found = [files.path.name] if files.path.name in found else []
    if len(found) != 1 or files.zipped:
        return False
    try:
        with opened(files.local(found[0]), found[0]) as file:
            return _site(file) is not None
    except InputError:
        return False  # whoever opens it next says what is wrong with it


def open_product(files: ProductFiles, name: str) -> HdfCube:
    """The cube; bands in the water windows that the file names are bad.

    Raises
    ------
    InputError
        If it is no NEON reflectance file, or incomplete.
    """
    found = files.head(_FILE)
    if found is None:
        raise InputError(f"'{name}' is no NEON reflectance file; expected one HDF5 file (.h5).")
    with opened(files.local(found), name) as file:
        site = _site(file)
        if site is None:
            raise InputError(f"'{name}' lacks NEON's dataset SITE/Reflectance/Reflectance_Data.")
        image = file[f"{site}/Reflectance/Reflectance_Data"]
        facts = file[f"{site}/Reflectance/Metadata"]
        spectra = facts["Spectral_Data"]
        centres = np.asarray(spectra["Wavelength"][:], np.float64)
        axis = SpectralAxis.build(
            centres,
            fwhm=np.asarray(spectra["FWHM"][:], np.float64) if "FWHM" in spectra else None,
            good=~_windows(file[f"{site}/Reflectance"], centres),
        )
        place = facts["Coordinate_System"]
        return HdfCube.open(
            file,
            f"{site}/Reflectance/Reflectance_Data",
            order="yxb",
            name=name,
            driver="NEON",
            axis=axis,
            crs=crs_of(plain(place["EPSG Code"][()]), name),
            transform=_transform(str(plain(place["Map_Info"][()])), name),
            units="reflectance",
            scale=1 / float(attribute(image, "Scale_Factor", name=name)),
            nodata=float(attribute(image, "Data_Ignore_Value", name=name)),
        )


def _site(file: Any) -> str | None:
    return next((key for key in file if f"{key}/Reflectance/Reflectance_Data" in file), None)


def _windows(group: Any, centres: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Bands inside the water windows that the group's attributes name, in nm."""
    bad = np.zeros(centres.size, bool)
    for key, value in group.attrs.items():
        if re.fullmatch(r"Band_Window_\d+_Nanometers", key):
            low, high = (float(v) for v in np.asarray(value).ravel()[:2])
            bad |= (centres >= low) & (centres <= high)
    return bad


def _transform(text: str, name: str) -> Affine:
    """From ENVI's map info: system, reference column and row from 1, x and y there, pixel sizes, ..."""
    cells = [cell.strip() for cell in text.split(",")]
    try:
        column, row, x, y, across, down = (float(cell) for cell in cells[1:7])
    except ValueError:
        raise InputError(f"The map info of '{name}' cannot be read: '{text[:80]}'.") from None
    turn = _ROTATION.search(text)
    origin = Affine.translation(x, y) * Affine.rotation(-float(turn[1]) if turn else 0.0)
    return origin * Affine.scale(across, -down) * Affine.translation(1 - column, 1 - row)
