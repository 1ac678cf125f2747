"""AVIRIS-NG and AVIRIS-3: map-registered ENVI images, and NetCDF of L2A reflectance or L1B radiance."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from affine import Affine

from csakd_geo.errors import InputError
from csakd_geo.io.products.files import ProductFiles
from csakd_geo.io.products.hdf import HdfCube, attribute, crs_of, opened, plain
from csakd_geo.io.products.stack import Stack, open_layer
from csakd_geo.io.source import Source
from csakd_geo.spectral import SpectralAxis

TITLE = "AVIRIS-NG or AVIRIS-3, ENVI or .nc"
_FLIGHT = r"(?:ang|AV[35])\d{8}t\d{6}.*_(?:rfl|corr|rdn)(?:_[^/.]*)?"
_NETCDF = _FLIGHT + r"\.nc"
#: The ENVI image itself has no suffix, or one of these.
_SUFFIXES = ("", ".img", ".bin", ".dat")
_ENVI = _FLIGHT + r"(?:\.img|\.bin|\.dat)?"
#: Parts of names of other products of the same flight.
_OTHERS = {"glt", "igm", "loc", "obs", "unc", "ql", "h2o", "atm"}


def matches(files: ProductFiles) -> bool:
    """Whether the file is, or the folder holds, one AVIRIS image."""
    return _find(files) is not None


def open_product(files: ProductFiles, name: str) -> Source:
    """The image, rotated as it is delivered.

    Raises
    ------
    InputError
        If it is no AVIRIS image, or incomplete.
    """
    found = _find(files)
    if found is None:
        raise InputError(
            f"'{name}' is no AVIRIS-NG or AVIRIS-3 image; expected ang* or AV3* with rfl or rdn."
        )
    units = "radiance" if "_rdn" in found.rsplit("/", 1)[-1].lower() else "reflectance"
    if found.lower().endswith(".nc"):
        return _netcdf(files, found, name, units)
    layer = open_layer(files.gdal(found), name=name, nodata=-9999)
    return Stack.build(
        [layer],
        name=name,
        driver="AVIRIS ENVI",
        units=units,
        files=[str(files.root if files.zipped else files.root / found)],
    )


def _find(files: ProductFiles) -> str | None:
    """The image: what was given, what a given header describes, or the only one in a folder."""
    images = [name for name in files.find(_ENVI) if _header(files, name)] + files.find(_NETCDF)
    images = [name for name in images if not _OTHERS & set(re.split(r"[_.]", name.lower()))]
    if files.path.is_file() and not files.zipped:
        given = files.path.name
        stem = given[: -len(".hdr")] if given.lower().endswith(".hdr") else given
        return next((stem + end for end in _SUFFIXES if stem + end in images), None)
    if len(images) > 1:
        raise InputError(
            f"'{files.name}' holds {len(images)} AVIRIS images ({images[0]}, {images[1]} ...); give one of them."
        )
    return images[0] if images else None


def _header(files: ProductFiles, name: str) -> bool:
    """Whether an ENVI header lies beside an image."""
    return f"{name}.hdr" in files.names or f"{name.rsplit('.', 1)[0]}.hdr" in files.names


def _netcdf(files: ProductFiles, found: str, name: str, units: str) -> HdfCube:
    with opened(files.local(found), name) as file:
        if f"{units}/{units}" not in file:
            raise InputError(f"'{name}' lacks the dataset '{units}/{units}' of AVIRIS NetCDF products.")
        bands, image = file[units], file[f"{units}/{units}"]
        mapping = file["transverse_mercator"]
        wkt = mapping.attrs["crs_wkt" if "crs_wkt" in mapping.attrs else "spatial_ref"]
        place: Any = str(attribute(mapping, "GeoTransform", name=name)).split()
        return HdfCube.open(
            file,
            f"{units}/{units}",
            order="byx",
            name=name,
            driver="AVIRIS NetCDF",
            axis=SpectralAxis.build(
                np.asarray(bands["wavelength"][:], np.float64), fwhm=np.asarray(bands["fwhm"][:], np.float64)
            ),
            crs=crs_of(plain(wkt), name),
            transform=Affine.from_gdal(*(float(value) for value in place[:6])),
            units=units,
            nodata=float(plain(image.attrs.get("_FillValue", -9999.0))),
        )
