"""Finding scenes with a known truth in what a user names: a file, or a folder in one of three forms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csakd_geo.errors import GridError, InputError
from csakd_geo.io import Source, open_source
from csakd_geo.io.describe import find_bad_bands
from csakd_geo.io.official import TRUTH, list_tiles
from csakd_geo.simulate import sensor_responses
from csakd_geo.trial.scenes import Cube, Scene, Tile, Triple

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
    "the stored HSIs lrhsi to lrhsi3",
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
    stems = [path.stem for path, _ in sources]
    cubes: list[Scene] = [
        _cube(path.stem if stems.count(path.stem) == 1 else path.name, source, wanted, warnings)
        for path, source in sources
    ]
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


def _cube(name: str, source: Source, wanted: Wanted, warnings: list[str]) -> Cube:
    """A cube and the sensor that sees it; bands of the sensor outside the cube are left out."""
    if wanted.ratio is None or wanted.msi_sensor is None:
        raise InputError(
            f"'{source.name}' is an image without a pair; give --ratio and --msi-sensor to have one made from it, "
            f"or other data: {_FORMS.rpartition(', or')[0]}."
        )
    snr_hsi = SNR_HSI if wanted.snr_hsi is None else wanted.snr_hsi
    snr_msi = SNR_MSI if wanted.snr_msi is None else wanted.snr_msi
    if not (math.isfinite(snr_hsi) and math.isfinite(snr_msi)):
        raise InputError(
            f"Noise of {snr_hsi} dB in the HSI and {snr_msi} dB in the MSI is none; give decibels."
        )
    r = wanted.ratio
    if min(source.height, source.width) < r:
        raise GridError(
            f"'{source.name}' has {source.height} x {source.width} pixels, less than one HSI pixel at ratio {r}; "
            "choose a smaller ratio or a larger image."
        )
    axis = source.axis.with_good(find_bad_bands(source))
    bands, srf, left_out = sensor_responses(wanted.msi_sensor, axis, source.name)
    warnings += left_out
    good = np.flatnonzero(axis.good)
    return Cube(
        name=name,
        source=source,
        bands=tuple(int(b) for b in good),
        msi_axis=bands,
        srf=srf[:, good],
        ratio=r,
        snr_hsi=snr_hsi,
        snr_msi=snr_msi,
    )
