"""Scenes whose truth is known: tiles of the authors' layout, triples of files, or cubes degraded here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from csakd_geo.degrade import PSF, add_noise, apply_srf, degrade
from csakd_geo.errors import GridError, InputError, SpectralError
from csakd_geo.grid import lay_grid
from csakd_geo.io import Source, open_source
from csakd_geo.io.describe import find_bad_bands
from csakd_geo.io.official import TRUTH, list_tiles, read_tile
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis, gaussian_response

if TYPE_CHECKING:
    import xarray as xr
    from rasterio.crs import CRS

FloatArray = NDArray[np.floating]

SNR_HSI, SNR_MSI = 35.0, 40.0
"""Noise in dB of a cube's HSI and MSI where none is asked for."""
_ROLES = ("hsi", "msi", "truth")
#: Files that lie beside images without being any.
_BESIDE = frozenset(
    {".hdr", ".xml", ".ovr", ".msk", ".prj", ".tfw", ".json", ".csv", ".txt", ".md", ".png", ".jpg", ".pth"}
)
_FORMS = (
    f"tiles of the authors' layout (NAME{TRUTH}), triples (rasters hsi, msi and truth in one folder, or NAME_hsi, "
    "NAME_msi and NAME_truth), or fine hyperspectral rasters"
)


@dataclass(frozen=True, slots=True)
class Form:
    """One of the three kinds of data: its name, how its HSI is swept, and the fields of `Wanted` it heeds."""

    name: str
    noise: str
    shift: str
    fields: tuple[str, ...]


OFFICIAL = Form(
    "tiles of the authors' layout",
    "white Gaussian noise of that SNR per band added to the stored HSI",
    "the stored HSIs lrhsi, lrhsi1, lrhsi2, ...",
    ("names", "msi_bands"),
)
TRIPLES = Form(
    "triples of HSI, MSI and truth",
    "white Gaussian noise of that SNR per band added to the HSI as it is",
    "the position of the HSI moved",
    (),
)
CUBES = Form(
    "cubes degraded by Wald's protocol",
    "HSI simulated at that SNR",
    "HSI simulated with displaced footprints",
    ("ratio", "msi_sensor", "snr_hsi", "snr_msi"),
)


@dataclass(frozen=True, slots=True)
class Condition:
    """How the HSI is made worse: white noise of `snr` dB per band, `shift` MSI pixels off; None is neither."""

    snr: float | None = None
    shift: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """A pair as it is fused (paths or DataArrays), and its truth."""

    hsi: Path | xr.DataArray
    msi: Path | xr.DataArray
    truth: Source


class Scene(Protocol):
    """A pair with a truth, loaded when it is its turn."""

    @property
    def name(self) -> str:
        """For tables."""

    def load(self, condition: Condition, *, seed: int) -> Inputs:
        """The pair under a condition."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked of the data; None where nothing was.

    Parameters
    ----------
    names : Path or None
        List of tiles of the authors' layout.
    msi_bands : int or None
        Which MSI of these tiles, 4 by default.
    ratio : int or None
        By which cubes are degraded.
    msi_sensor : str or None
        That sees their MSI.
    snr_hsi, snr_msi : float or None
        Noise of pairs made from cubes in dB.
    """

    names: Path | None = None
    msi_bands: int | None = None
    ratio: int | None = None
    msi_sensor: str | None = None
    snr_hsi: float | None = None
    snr_msi: float | None = None

    def check(self, data: Path, form: Form) -> None:
        """Refuse what has no meaning for a form of data."""
        for field in self.__slots__:
            if getattr(self, field) is not None and field not in form.fields:
                flag = "--list" if field == "names" else f"--{field.replace('_', '-')}"
                raise InputError(
                    f"{flag} has no meaning for {form.name}, which '{data}' holds; leave it out."
                )


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile of the authors' layout; its pixels have the size 1 and no CRS."""

    root: Path
    name: str
    msi_bands: int

    def load(self, condition: Condition, *, seed: int) -> Inputs:
        """Read it; a shift chooses among the stored HSIs, noise is added to what is stored."""
        tile = read_tile(self.root, self.name, msi_bands=self.msi_bands, shift=condition.shift or 0)
        fine = Affine(1, 0, 0, 0, -1, tile.truth.shape[1])
        bands = SpectralAxis.unknown(len(tile.truth))
        hsi = _noisy(tile.hsi, condition.snr, seed)
        return Inputs(
            _array(hsi, bands, fine * Affine.scale(tile.ratio)),
            _array(tile.msi, SpectralAxis.unknown(len(tile.msi)), fine),
            open_source(_array(tile.truth, bands, fine), name=f"truth of {self.name}"),
        )


@dataclass(frozen=True, slots=True)
class Triple:
    """Three files; the HSI is read as it is unless the condition changes it."""

    name: str
    hsi: Path
    msi: Path
    truth: Path

    def load(self, condition: Condition, *, seed: int) -> Inputs:
        """Add noise to the HSI, and move its transform up and left, so that it shows what lies down and right."""
        truth = open_source(self.truth)
        if condition.snr is None and not condition.shift:
            return Inputs(self.hsi, self.msi, truth)
        hsi = open_source(self.hsi)
        transform = hsi.transform
        if condition.shift:
            off = -condition.shift / lay_grid(hsi, open_source(self.msi)).ratio
            transform = transform * Affine.translation(off, off)
        values = _noisy(hsi.read(0, 0, hsi.height, hsi.width), condition.snr, seed)
        return Inputs(_array(values, hsi.axis, transform, hsi.crs, hsi.units), self.msi, truth)


@dataclass(frozen=True, slots=True, eq=False)
class Cube:
    """A fine cube that is degraded by Wald's protocol (Wald et al. 1997), in memory."""

    name: str
    source: Source
    bands: tuple[int, ...]
    msi_axis: SpectralAxis
    srf: NDArray[np.float64]
    ratio: int
    snr_hsi: float
    snr_msi: float

    def load(self, condition: Condition, *, seed: int) -> Inputs:
        """Degrade it; a shift displaces the footprint of every HSI pixel down and right."""
        source, r = self.source, self.ratio
        axis = source.axis.take(self.bands)
        truth = source.read(0, 0, source.height // r * r, source.width // r * r, bands=self.bands)
        missing: NDArray[np.bool_] = np.isnan(truth).any(0)
        if missing.all():
            raise InputError(f"'{source.name}' has no pixel with data in all good bands.")
        filled = np.where(missing, np.median(truth[:, ~missing], axis=1)[:, None, None], truth)
        off = float(condition.shift or 0)
        psf = PSF(r, float(r), dy=off, dx=off)
        rng = np.random.default_rng(seed)
        hsi = add_noise(degrade(filled, psf), self.snr_hsi if condition.snr is None else condition.snr, rng)
        msi = add_noise(apply_srf(filled, self.srf), self.snr_msi, rng)
        hsi[:, degrade(missing[None].astype(np.float32), psf)[0] > 0] = np.nan
        msi[:, missing] = np.nan
        place = (source.transform, source.crs, source.units)
        return Inputs(
            _array(hsi, axis, source.transform * Affine.scale(r), source.crs, source.units),
            _array(msi, self.msi_axis, *place),
            open_source(_array(truth, axis, *place), name=source.name),
        )


def find_scenes(data: Path, wanted: Wanted) -> tuple[list[Scene], Form, list[str]]:
    """Scenes of a folder or file: tiles of the authors' layout, else triples, else cubes.

    Parameters
    ----------
    data : Path
    wanted : Wanted

    Returns
    -------
    scenes : list of Scene
    form : Form
    warnings : list of str
        What was left out.

    Raises
    ------
    InputError, GridError, SpectralError
        If there is no scene, a triple is incomplete, a cube cannot be degraded, or an option has no meaning
        for this form of data.
    """
    if not data.exists():
        raise InputError(f"'{data}' does not exist; expected {_FORMS}.")
    if data.is_dir():
        if wanted.names is not None or next(data.rglob(f"*{TRUTH}"), None) is not None:
            wanted.check(data, OFFICIAL)
            bands = 4 if wanted.msi_bands is None else wanted.msi_bands
            return [Tile(data, name, bands) for name in list_tiles(data, wanted.names)], OFFICIAL, []
        triples: list[Scene] = list(_triples(data))
        if triples:
            wanted.check(data, TRIPLES)
            return triples, TRIPLES, []
    sources, left = _open_rasters(data)
    if not sources:
        count = len(list(data.iterdir()))
        raise InputError(f"'{data}' holds no scene (entries in it: {count}); expected {_FORMS}.")
    wanted.check(data, CUBES)
    warnings = [f"'{path.name}' was left out, as it is no image that can be used." for path in left]
    cubes: list[Scene] = [_cube(path, source, wanted, warnings) for path, source in sources]
    return cubes, CUBES, warnings


def _rasters(folder: Path) -> list[Path]:
    """Files that may be images."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix.lower() not in _BESIDE and not path.name.startswith(".")
    ]


def _triples(folder: Path) -> Iterator[Triple]:
    """Triples of a folder and of the folders in it."""
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        groups: dict[str, dict[str, list[Path]]] = {}
        for path in _rasters(place):
            prefix, _, role = path.stem.rpartition("_")
            if role in _ROLES:
                groups.setdefault(prefix, {}).setdefault(role, []).append(path)
        for prefix, found in sorted(groups.items()):
            parts = ([] if place == folder else [place.name]) + ([prefix] if prefix else [])
            name = "/".join(parts) or folder.resolve().name
            if len(found) == 1:  # a lone file that happens to be called so
                continue
            wrong = [f"{len(found.get(role, []))} {role}" for role in _ROLES if len(found.get(role, [])) != 1]
            if wrong:
                raise InputError(
                    f"Scene '{name}' in '{place}' has {' and '.join(wrong)} files; expected one each of hsi, msi "
                    "and truth."
                )
            yield Triple(name, *(found[role][0] for role in _ROLES))


def _open_rasters(data: Path) -> tuple[list[tuple[Path, Source]], list[Path]]:
    """Images of a folder, and files that are none; a file given by itself must be one."""
    if data.is_file():
        return [(data, open_source(data))], []
    opened, left = [], []
    for path in _rasters(data):
        try:
            opened.append((path, open_source(path)))
        except InputError:
            left.append(path)
    return opened, left


def _cube(path: Path, source: Source, wanted: Wanted, warnings: list[str]) -> Cube:
    """A cube and the sensor that sees it; bands of the sensor outside the cube are left out."""
    if wanted.ratio is None or wanted.msi_sensor is None:
        raise InputError(
            f"'{source.name}' is an image without a pair; give --ratio and --msi-sensor to have one made from it, "
            f"or other data: {_FORMS.rpartition(', or')[0]}."
        )
    r, sensor = wanted.ratio, get_sensor(wanted.msi_sensor)
    if min(source.height, source.width) < r:
        raise GridError(
            f"'{source.name}' has {source.height} x {source.width} pixels, less than one HSI pixel at ratio {r}; "
            "choose a smaller ratio or a larger image."
        )
    axis = source.axis.with_good(find_bad_bands(source))
    if not np.isfinite(axis.wavelength[axis.good]).any():
        raise SpectralError(
            f"'{source.name}' records no wavelengths for its good bands, so the bands of {sensor.name} cannot be "
            "simulated; put an ENVI header beside it or write wavelength tags."
        )
    kept, rows = [], []
    for band in range(sensor.axis.size):
        try:
            rows.append(gaussian_response(sensor.axis.take(band), axis)[0])
        except SpectralError:  # outside the good bands; named below
            continue
        kept.append(band)
    if not kept:
        raise SpectralError(
            f"No band of {sensor.name} lies within the good bands of '{source.name}'; choose another sensor."
        )
    if len(kept) < sensor.axis.size:
        names = ", ".join(sensor.axis.names[b] for b in range(sensor.axis.size) if b not in kept)
        warnings.append(f"Outside the good bands of '{source.name}', and left out: {names} of {sensor.name}.")
    good = np.flatnonzero(axis.good)
    return Cube(
        name=path.stem,
        source=source,
        bands=tuple(int(b) for b in good),
        msi_axis=sensor.axis.take(kept),
        srf=np.stack(rows)[:, good],
        ratio=r,
        snr_hsi=SNR_HSI if wanted.snr_hsi is None else wanted.snr_hsi,
        snr_msi=SNR_MSI if wanted.snr_msi is None else wanted.snr_msi,
    )


def _noisy(cube: FloatArray, snr: float | None, seed: int) -> FloatArray:
    """White noise per band; what is missing stays missing and does not count for the power."""
    seen = np.isfinite(cube)
    known = np.where(seen, cube, 0)
    power = np.square(known, dtype=np.float64).sum((1, 2)) / np.maximum(seen.sum((1, 2)), 1)
    filled = np.where(seen, cube, np.sqrt(power)[:, None, None].astype(cube.dtype))
    return np.where(seen, add_noise(filled, snr, np.random.default_rng(seed)), cube)


def _array(
    cube: FloatArray, axis: SpectralAxis, transform: Affine, crs: CRS | None = None, units: str = ""
) -> xr.DataArray:
    """A cube ``(band, y, x)`` with what is known of its bands and place."""
    import rioxarray  # noqa: F401 (it registers the accessor)
    import xarray as xr

    coords: dict[str, Any] = {"good": ("band", axis.good)}
    for key, values in (("wavelength", axis.wavelength), ("fwhm", axis.fwhm)):
        if np.isfinite(values).any():
            coords[key] = ("band", values)
    array = xr.DataArray(cube, dims=("band", "y", "x"), coords=coords, attrs={"units": units})
    if crs is not None:
        array = array.rio.write_crs(crs)
    placed: xr.DataArray = array.rio.write_transform(transform)
    return placed
