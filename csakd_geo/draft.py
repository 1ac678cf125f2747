"""What can be said of a fusion from the files alone: grid, tiles, memory, disk and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csakd_geo.adapt import foresee
from csakd_geo.area import read_area
from csakd_geo.budget import Budget, estimate, pick_cutting
from csakd_geo.choose import check_names
from csakd_geo.engine.device import pick_device
from csakd_geo.engine.scene import Scene, open_scene
from csakd_geo.errors import SpectralError
from csakd_geo.grid import lay_grid
from csakd_geo.io import open_source
from csakd_geo.io.axes import read_wavelengths
from csakd_geo.io.describe import notes_of
from csakd_geo.io.formats import FORMATS
from csakd_geo.options import FuseOptions
from csakd_geo.spectral import parse_bands

if TYPE_CHECKING:
    from csakd_geo.io.source import Source

# bytes on the disk over the product's, while the deviations of all bands are written: super-tiles, product, and
# the deviations twice with their levels, where nothing compresses
_WITH_BANDS = 4.7


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """What is known before anything is fitted.

    Parameters
    ----------
    scene : Scene
    options : FuseOptions
    bands : tuple of int
        HSI bands to write, zero-based.
    tile, supertile : int
        LR cells per side.
    device : str
    budget : Budget
    warnings : tuple of str
    """

    scene: Scene
    options: FuseOptions
    bands: tuple[int, ...]
    tile: int
    supertile: int
    device: str
    budget: Budget
    warnings: tuple[str, ...]


def draft_job(hsi: Any, msi: Any, options: FuseOptions) -> Draft:
    """Open the inputs, lay the grid, cut it, and say what it will take.

    Parameters
    ----------
    hsi, msi : path or DataArray
    options : FuseOptions

    Raises
    ------
    CsakdGeoError
        With one sentence on what does not fit.
    """
    check_names(method=options.method, model=options.model)
    axis = None if options.wavelengths is None else read_wavelengths(options.wavelengths)
    hsi_source = open_source(hsi, axis=axis, sensor=options.hsi_sensor)
    msi_source = open_source(msi, sensor=options.msi_sensor)
    warnings = [*_look(hsi_source, msi_source), *notes_of(hsi_source), *notes_of(msi_source)]
    area = None if options.aoi is None else read_area(options.aoi, msi_source)
    given = options.shift if isinstance(options.shift, tuple) else (0.0, 0.0)
    grid = lay_grid(
        hsi_source,
        msi_source,
        ratio=options.ratio,
        shift=given,
        bounds=None if area is None else area.bounds,
    )
    scene = open_scene(hsi_source, msi_source, grid, area=None if area is None else area.wkb)
    bands = _bands(hsi_source, options.bands)
    device = pick_device(options.device)
    method, unchecked = foresee(scene, options, device)
    cutting = pick_cutting(scene, method, options, bands=len(bands))
    disk = FORMATS[options.format or "cog"].disk
    if options.uncertainty == "bands":
        disk = max(disk, _WITH_BANDS)
    budget = estimate(scene, method, cutting, disk=disk)
    warnings += unchecked + scene.outliers() + scene.faults()
    return Draft(scene, options, bands, cutting.tile, cutting.supertile, device, budget, tuple(warnings))


def _look(hsi: Source, msi: Source) -> list[str]:
    """Refuse swapped inputs; say what the files leave open."""
    if msi.axis.size > hsi.axis.size:
        raise SpectralError(
            f"The MSI '{msi.name}' has {msi.axis.size} bands and the HSI '{hsi.name}' only {hsi.axis.size}; "
            "are the two inputs swapped? Give the hyperspectral image first."
        )
    warnings = []
    lacking = [f"the {kind} '{s.name}'" for s, kind in ((hsi, "HSI"), (msi, "MSI")) if s.crs is None]
    if len(lacking) == 1:
        warnings.append(f"No CRS in {lacking[0]}; its coordinates are taken to be in the other image's.")
    elif lacking:
        warnings.append(f"No CRS in {' and '.join(lacking)}; the output will have none, only positions.")
    if not hsi.axis.has_wavelengths:
        warnings.append(f"The HSI '{hsi.name}' states no wavelengths; the output will have none either.")
    return warnings


def _bands(hsi: Source, text: str | None) -> tuple[int, ...]:
    if text is None:
        return tuple(range(hsi.axis.size))
    return tuple(parse_bands(text, hsi.axis))
