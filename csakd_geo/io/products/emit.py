"""EMIT L2A reflectance and L1B radiance: NetCDF in sensor geometry, put on its map grid by its own table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from csakd_geo.errors import InputError
from csakd_geo.io.products.files import ProductFiles
from csakd_geo.io.products.hdf import HdfCube, attribute, crs_of, opened, plain
from csakd_geo.io.source import ImageFacts, check_window
from csakd_geo.spectral import SpectralAxis

TITLE = "EMIT L2A RFL or L1B RAD, .nc"
_FILE = r"EMIT_(?:L2A_RFL|L1B_RAD)_.*\.nc"
#: Files of a granule that are no image to fuse.
COMPANION = r"EMIT_(?:L2A_MASK|L2A_RFLUNCERT|L1B_OBS)_.*\.nc"
_STAMP = re.compile(r"_(\d{8}T\d{6})")
#: Flags of the mask product that mean unusable; water and the aggregate are not among them.
_FLAGS = ("cloud flag", "cirrus flag", "spacecraft flag")


@dataclass(frozen=True, slots=True, eq=False)
class OrthoCube(ImageFacts):
    """A cube in sensor geometry as a `csakd_geo.io.source.Source` on the grid of its lookup table.

    The table tells for each pixel of the grid which pixel of the cube it shows, counted from 1; 0 is none.
    A window reads its part of the table and the rectangle of the cube that this points into.

    Parameters
    ----------
    raw : HdfCube
        Rows are lines and columns are samples of the sensor.
    flags : HdfCube or None
        Same lines and samples; a pixel with a flag above 0 in any of `flag_bands` is no data.
    """

    raw: HdfCube
    flags: HdfCube | None
    flag_bands: tuple[int, ...]

    def read(
        self, row: int, col: int, height: int, width: int, *, bands: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Physical values ``(band, y, x)`` of a window; see `csakd_geo.io.source.Source.read`."""
        chosen = check_window(self, row, col, height, width, bands)
        out = np.full((len(chosen), height, width), np.nan, np.float32)
        place = (slice(row, row + height), slice(col, col + width))
        with opened(self.raw.path, self.name) as file:
            # a negative entry repeats the nearest pixel where none was seen
            sample = np.abs(np.asarray(file["location/glt_x"][place], np.int64))
            line = np.abs(np.asarray(file["location/glt_y"][place], np.int64))
        seen = (sample > 0) & (line > 0) & (sample <= self.raw.width) & (line <= self.raw.height)
        if not seen.any():
            return out
        line, sample = line[seen] - 1, sample[seen] - 1
        top, left = int(line.min()), int(sample.min())
        size = int(line.max()) - top + 1, int(sample.max()) - left + 1
        values = self.raw.read(top, left, *size, bands=chosen)
        if self.flags is not None:
            flagged = self.flags.read(top, left, *size, bands=self.flag_bands) > 0
            values[:, flagged.any(axis=0)] = np.nan
        out[:, seen] = values[:, line - top, sample - left]
        return out

    def fingerprint(self) -> str:
        """That of the cube and its mask."""
        return "|".join(cube.fingerprint() for cube in (self.raw, self.flags) if cube is not None)


def matches(files: ProductFiles) -> bool:
    """Whether the file is, or the folder holds, an EMIT image."""
    return files.head(_FILE) is not None


def open_product(files: ProductFiles, name: str) -> OrthoCube:
    """The image on its map grid; clouds are nodata where the mask product lies beside it.

    Raises
    ------
    InputError
        If it is no EMIT image, or incomplete.
    """
    found = files.head(_FILE) or files.head(r".*\.nc")
    if found is None:
        raise InputError(
            f"'{name}' is no EMIT image; expected a file EMIT_L2A_RFL_*.nc or EMIT_L1B_RAD_*.nc."
        )
    path = files.local(found)
    with opened(path, name) as file:
        image = "reflectance" if "reflectance" in file else "radiance"
        raw = _raw(file, image, name)
        place = attribute(file, "geotransform", name=name)
        crs = crs_of(attribute(file, "spatial_ref", name=name), name)
        table = file["location/glt_x"].shape
    flags, bands = _flags(files, found, raw)
    note = (
        "The product lies in sensor geometry; it is put on its map grid by its lookup table, nearest pixel.",
        *(() if flags else ("No mask product (EMIT_L2A_MASK) lies beside it, so clouds are not masked.",)),
    )
    return OrthoCube(
        name=name,
        driver=raw.driver,
        axis=raw.axis,
        crs=crs,
        transform=Affine.from_gdal(*(float(v) for v in np.asarray(place).ravel()[:6])),
        height=int(table[0]),
        width=int(table[1]),
        dtype=raw.dtype,
        nodata=raw.nodata,
        scale=raw.scale,
        offset=raw.offset,
        units=image,
        integer=False,
        notes=note,
        raw=raw,
        flags=flags,
        flag_bands=bands,
    )


def _raw(file: Any, image: str, name: str) -> HdfCube:
    bands = file["sensor_band_parameters"]
    centres = np.asarray(bands["wavelengths"][:], np.float64)
    good = bands["good_wavelengths"][:] != 0 if "good_wavelengths" in bands else None
    return HdfCube.open(
        file,
        image,
        order="yxb",
        name=name,
        driver="EMIT L2A" if image == "reflectance" else "EMIT L1B",
        axis=SpectralAxis.build(centres, fwhm=bands["fwhm"][:], good=good),
        crs=None,
        transform=Affine.identity(),
        units=image,
        nodata=float(plain(file[image].attrs.get("_FillValue", -9999.0))),
    )


def _flags(files: ProductFiles, found: str, raw: HdfCube) -> tuple[HdfCube | None, tuple[int, ...]]:
    """The mask product of the same moment, if it lies beside the image, and its bands to look at."""
    stamp = _STAMP.search(found)
    masks = files.find(rf"EMIT_L2A_MASK_.*{stamp[1]}.*\.nc") if stamp else []
    if not masks:
        return None, ()
    path = files.local(masks[0])
    with opened(path, masks[0]) as file:
        labels = [str(plain(text)).lower() for text in file["sensor_band_parameters/mask_bands"][:]]
        bands = tuple(k for k, label in enumerate(labels) if label.endswith(_FLAGS))
        flags = HdfCube.open(
            file,
            "mask",
            order="yxb",
            name=masks[0],
            driver="EMIT mask",
            axis=SpectralAxis.unknown(len(labels)),
            crs=None,
            transform=Affine.identity(),
            units="",
        )
    if (flags.height, flags.width) != (raw.height, raw.width) or not bands:
        raise InputError(f"'{masks[0]}' is no mask of '{found}': its size or its bands differ; remove it.")
    return flags, bands
