"""Scenes with a known truth and the settings that pairs are made of them in, for benchmarks/quality.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pairs import enmap, load_scene, paris_ms, read, write
from rasterio.transform import Affine

from csakd_geo.degrade import PSF, observe
from csakd_geo.errors import SpectralError
from csakd_geo.models import load_model
from csakd_geo.sensors import get_sensor
from csakd_geo.spectral import SpectralAxis, gaussian_response
from csakd_geo.trial import Wanted, find_scenes
from csakd_geo.trial.scenes import Triple

#: Words of scene names and model cards that name one place; whoever saw a part of it saw the area.
AREAS = {
    "ABU airport and urban": ("airport", "urban"),
    "ABU beach-2": ("beach2",),
    "ABU beach-3": ("beach3",),
    "San Diego": ("sandiego",),
    "GatorSense": ("gatorsense",),
    "Indian Pines": ("indianpines",),
}
UNMOVED = ", --shift none"  # ends the name of a pair that is fused where its files say
_PIXEL, _CRS = 4.0, "EPSG:32611"  # metres


@dataclass(frozen=True, slots=True)
class Setting:
    """How a pair is made from a truth; the defaults are the default setting.

    Parameters
    ----------
    ratio, bands : int
        Bands of the MSI; see :func:`msi_axis`.
    phase : float
        Displacement of the PSF along x and y from where its block says, MSI pixels.
    width : float
        FWHM of the PSF in HSI pixels; 1 is nominal.
    longer : float
        By how many nm the MSI's responses lie above what its wavelengths say.
    snr : float
        Of the HSI in dB; the MSI has 5 dB more.
    shift : float
        Error of the HSI's georeference along x and y, HSI pixels.
    """

    ratio: int = 4
    bands: int = 4
    phase: float = 0.0
    width: float = 1.0
    longer: float = 0.0
    snr: float = 35.0
    shift: float = 0.0

    @property
    def label(self) -> str:
        """What differs from the default."""
        words = {
            "ratio": f"ratio {self.ratio}",
            "bands": f"{self.bands} MSI band{'s' if self.bands > 1 else ''}",
            "phase": f"PSF {self.phase:g} px off",
            "width": f"PSF {self.width - 1:+.0%} wide",
            "longer": f"SRF {self.longer:g} nm off",
            "snr": f"HSI {self.snr:g} dB",
            "shift": f"shift {self.shift:g} px",
        }
        return ", ".join(words[f] for f in words if getattr(self, f) != getattr(DEFAULT, f)) or "default"


DEFAULT = Setting()
#: Each factor by itself around the default.
FACTORS: dict[str, tuple[float, ...]] = {
    "ratio": (2, 3, 6, 10),
    "bands": (1, 3, 6, 9),
    "phase": (0.5, 1.0),
    "width": (0.7, 1.3),
    "longer": (10.0,),
    "snr": (25.0, 30.0, 45.0),
    "shift": (0.5, 1.0),
}


def single_settings() -> list[Setting]:
    """One factor varied at a time, without the default itself."""
    return [replace(DEFAULT, **{name: value}) for name, values in FACTORS.items() for value in values]


def crossed_settings() -> list[Setting]:
    """Ratio, bands and noise crossed, where more than one differs from the default."""
    crossed = [
        Setting(ratio=r, bands=b, snr=s)
        for r in (2, 3, 4, 6, 10)
        for b in (1, 3, 4, 6, 9)
        for s in (25.0, 35.0, 45.0)
    ]
    single = {DEFAULT, *single_settings()}
    return [setting for setting in crossed if setting not in single]


def msi_axis(bands: int) -> SpectralAxis:
    """1: ALI PAN; 3: visible; 4: with NIR (485, 560, 660, 830 nm); 6: with two SWIR; 9: ALI."""
    four = get_sensor("aviris-paper-4").axis
    whole = {1: get_sensor("ali-pan").axis, 3: four.take([0, 1, 2]), 4: four, 9: get_sensor("ali").axis}
    return whole[bands] if bands in whole else get_sensor("landsat8").axis.take(range(1, 1 + bands))


@dataclass(frozen=True, slots=True)
class Truth:
    """A fine cube: its name and how it is read from the data folder."""

    name: str
    path: Path

    @property
    def area(self) -> str:
        """The place that it shows."""
        return area_of(self.name) or self.name

    def load(self):
        """Cube (band, y, x) without missing values, and its axis."""
        if self.path.parent.name == "aviris":
            return load_scene(self.path)
        cube, _, _, axis = read(self.path)
        good = np.flatnonzero(axis.good & ~np.isnan(cube).any((1, 2)))
        return np.clip(cube[good], 0, None), axis.take(good)

    def make(self, setting: Setting, folder: Path, *, seed: int = 0) -> Triple:
        """Write the pair and its truth.

        Raises
        ------
        SpectralError
            If the MSI has bands that the cube does not cover.
        """
        cube, axis = self.load()
        r, bands = setting.ratio, msi_axis(setting.bands)
        height, width = (n // r * r for n in cube.shape[1:])
        cube = cube[:, :height, :width]
        seen = replace(bands, wavelength=bands.wavelength + setting.longer)
        srf = gaussian_response(seen, axis)
        psf = PSF(r, setting.width * r, setting.phase, setting.phase)
        hsi, msi = observe(cube, srf, psf=psf, snr_hsi=setting.snr, snr_msi=setting.snr + 5, seed=seed)
        at = Affine.translation(500_000, 4_000_000) * Affine.scale(_PIXEL, -_PIXEL)
        off = Affine.translation(setting.shift, setting.shift)
        return Triple(
            self.name,
            write(folder / "hsi.tif", hsi, at * Affine.scale(r) * off, crs=_CRS, axis=axis),
            write(folder / "msi.tif", msi, at, crs=_CRS, axis=bands),
            write(folder / "truth.tif", cube, at, crs=_CRS, axis=axis),
        )


def find_truths(data: Path) -> list[Truth]:
    """Fine cubes of the data folder."""
    paths = sorted((data / "aviris").glob("*.tif"))
    paths += [data / "dlr_hysu/DLR_HySU_HS_full.tif", data / "enmap_potsdam/block_B_96x64.tif"]
    names = {"DLR_HySU_HS_full": "hyspex_hysu", "block_B_96x64": "enmap_potsdam_b"}
    return [Truth(names.get(path.stem, path.stem), path) for path in paths if path.exists()]


def one_per_area(truths: list[Truth]) -> list[Truth]:
    """The first cube of each AVIRIS area."""
    return list({truth.area: truth for truth in reversed(truths) if truth.area in AREAS}.values())


def stored_pairs(data: Path, folder: Path, more: list[Path]) -> list[Triple]:
    """Pairs that are as they are: ALI as the MSI, EnMAP in two CRSs, and triples of other folders."""
    cases = []
    if (data / "paris_ms").is_dir():
        cases.append(paris_ms(data, folder))
    if (data / "enmap_potsdam").is_dir():
        cases += [enmap(data, folder, crs=crs) for crs in (3035, 25833)]
    found = [Triple(case.name, case.hsi, case.msi, case.truth) for case in cases]
    # the truth of paris_ms is the HSI itself, where the HSI lies: a cube moved onto the MSI is off it
    found += [replace(pair, name=pair.name + UNMOVED) for pair in found if pair.name.startswith("paris")]
    for place in more:
        scenes, _, _ = find_scenes(place, Wanted())
        found += [scene for scene in scenes if isinstance(scene, Triple)]
    return found


def area_of(name: str) -> str | None:
    """The area that a scene's name or a line of a model card tells of."""
    plain = "".join(c for c in name.lower() if c.isalnum())
    return next((area for area, words in AREAS.items() if any(w in plain for w in words)), None)


def seen_areas(model: Path) -> set[str]:
    """Areas that a model has trained on or was picked on, as its card says."""
    card = load_model(model).card
    lines = [data.name for data in card.training] + str(card.scores.get("held_out", "")).split(",")
    return {area for line in lines if (area := area_of(line))}


def usable(truth: Truth, setting: Setting) -> bool:
    """Whether a truth covers the MSI's bands and leaves 8 x 8 HSI pixels."""
    cube, axis = truth.load()
    try:
        gaussian_response(msi_axis(setting.bands), axis)
    except SpectralError:
        return False
    return min(cube.shape[1:]) >= 8 * setting.ratio
