"""One fusion made ready: a draft with everything that is estimated or trained for its scene.

The command line and Python share it: one writes a product, the other hands out a lazy cube.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csakd_geo._version import __version__
from csakd_geo.adapt import Networks
from csakd_geo.align import find_shift, shift_in_pixels
from csakd_geo.budget import wide_tile
from csakd_geo.choose import Choice, choose_method, make_safe
from csakd_geo.draft import Draft, draft_job
from csakd_geo.engine.backend import pick_backend
from csakd_geo.engine.graph import lazy_cube
from csakd_geo.engine.halo import Halos, find_halo
from csakd_geo.engine.scene import Scene, name_bands
from csakd_geo.errors import InputError
from csakd_geo.methods.base import Fitted
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.models import find_model
from csakd_geo.options import FuseOptions, make_options
from csakd_geo.pair import Pair
from csakd_geo.quality import Agreement, disagreement, fit_agreement, set_aside
from csakd_geo.response import Response, estimate_response, unrelated_bands
from csakd_geo.stripes import find_stripes
from csakd_geo.threads import one_blas_thread
from csakd_geo.tiling import TilePlan
from csakd_geo.uncertainty import Uncertainty, fit_uncertainty

if TYPE_CHECKING:
    import xarray as xr

Report = Callable[[str, float, str], None]
"""Called with a stage, its share done (0 to 1) and a few words."""

STACK = ("numpy", "scipy", "rasterio", "torch")  # whose versions decide the last bits
_FEWEST = 16**2  # HSI pixels from which on PSF, response and noise are well estimated
_MIN_EXPLAINED = 0.6  # share of the HSI's leading components below which a pair is suspect


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A fusion that is ready to compute.

    Parameters
    ----------
    draft : Draft
        Its scene lies on the corrected grid.
    choice : Choice
    fitted : Fitted
    plan : TilePlan
    level : float
        99.9th percentile of the HSI, for the encoding.
    notes : dict
        Provenance in plain values.
    warnings : tuple of str
    uncertainty : Uncertainty or None
    agreement : Agreement or None
        Of the two images, for the quality layer. Both are found where they are asked for.
    """

    draft: Draft
    choice: Choice
    fitted: Fitted
    plan: TilePlan
    level: float
    notes: dict[str, Any]
    warnings: tuple[str, ...] = field(default_factory=tuple)
    uncertainty: Uncertainty | None = None
    agreement: Agreement | None = None

    @property
    def scene(self) -> Scene:
        """The scene on its final grid."""
        return self.draft.scene


def prepare_job(draft: Draft, *, report: Report, keep_model: Path | None = None) -> Job:
    """Estimate response and shift, choose the method, train if that pays, fit.

    Parameters
    ----------
    draft : Draft
    report : callable
    keep_model : Path, optional
        Where an adapted model is saved before the first tile; a temporary file by default.
    """
    begun = time.perf_counter()
    with one_blas_thread():
        job = _prepare(draft, report, keep_model)
    return replace(job, notes={**job.notes, "fit_seconds": round(time.perf_counter() - begun, 1)})


def _prepare(draft: Draft, report: Report, keep_model: Path | None) -> Job:
    options = draft.options
    report("fit", 0.0, "reading the scene")
    draft, pair, response, shift_note = register(draft)
    warnings = list(draft.warnings)
    if shift_note:
        warnings.append(shift_note)
    shared = sum(int(block.valid.sum()) for block in pair.blocks)
    if shared < _FEWEST:
        warnings.append(
            f"Only {shared} valid HSI pixel{'s are' if shared > 1 else ' is'} shared, and PSF, response and noise are "
            f"estimated from them; take the result with care, or fuse a larger area ({_FEWEST} or more)."
        )
    pair, response, aside = set_aside(pair, response, partial(_respond, draft, phase=response.confident))
    if aside > 0:
        warnings.append(
            f"{disagreement(aside)}; no fit uses those, and what is written there is neither image's truth "
            "(--quality marks it)."
        )
    alone = unrelated_bands(pair, response)
    if 0 < alone.size < pair.msi_axis.size:
        names = name_bands(draft.scene.msi, [draft.scene.msi_bands[k] for k in alone])
        warnings.append(
            f"The HSI explains next to nothing of '{draft.scene.msi.name}' in {names}: noise, a place outside the "
            "HSI's range, or something else is shown there; it helps little and has little weight."
        )
    stripes = find_stripes(pair)
    if stripes is not None:
        names = name_bands(draft.scene.hsi, [draft.scene.hsi_bands[k] for k in stripes.bands])
        warnings.append(
            f"'{draft.scene.hsi.name}' is striped along its {stripes.along} in {names}; stripes stay in the result, "
            "so take them out first where they matter."
        )
    networks = Networks(pair, response, options, draft.device, report, keep_model)
    report("fit", 0.3, "choosing the method")
    if options.model is not None:
        choice = Choice(networks.make(find_model(options.model)), "model asked for", {})
    else:
        choice = choose_method(
            pair,
            response,
            method=options.method,
            network=networks.find,
            make=networks.make,
            seed=options.seed,
        )
    report("fit", 0.6, f"fitting {choice.method.name}")
    if options.method == "auto" and options.model is None:
        choice, fitted, note = make_safe(choice, pair, response, seed=options.seed)
    else:
        fitted, note = choice.method.fit(pair, response, seed=options.seed), ""
    if note:
        warnings.append(note)
    elif response.explained < _MIN_EXPLAINED:
        warnings.append(
            f"The MSI explains only {response.explained:.0%} of what varies in the HSI; check that both show "
            "the same place and season, and that --shift fits."
        )
    halos = _halos(options.halo, choice, fitted, pair)
    grid = draft.scene.grid
    plan = TilePlan(
        grid.lr_height,
        grid.lr_width,
        grid.ratio,
        draft.tile,
        draft.supertile,
        halos.near,
        options.blend,
        halos.far - halos.near,
    )
    if fitted.near is None and options.tile is None:
        plan = replace(plan, tile=wide_tile(plan.supertile, plan.ratio))
    timed: dict[str, float] = {}
    if isinstance(choice.method, CSAKD):
        report("fit", 0.8, "choosing the backend")
        method, timed = _backend(choice.method, fitted, pair, plan, options)
        choice = replace(choice, method=method)
    spectra = pair.hsi_spectra()
    notes = _notes(draft, choice, fitted, response, plan, networks.facts(choice.method))
    if isinstance(choice.method, CSAKD):
        notes["backend"] = f"{choice.method.backend} {choice.method.precision}"
        notes["backend_seconds_per_tile"] = timed
    uncertainty = agreement = None
    if options.uncertainty is not None:
        report("fit", 0.9, "uncertainty")
        uncertainty = fit_uncertainty(pair, response, choice.method, fitted, seed=options.seed)
        warnings += uncertainty.notes(draft.scene.hsi.axis.take(draft.scene.hsi_bands))
    if options.quality:
        agreement = fit_agreement(pair, response)
    report("fit", 1.0, choice.method.name)
    level = float(np.percentile(spectra, 99.9))
    return Job(draft, choice, fitted, plan, level, notes, tuple(warnings), uncertainty, agreement)


def _halos(wanted: int | str | None, choice: Choice, fitted: Fitted, pair: Pair) -> Halos:
    """What is asked for, measured or stated; what is asked for bounds the tiles' own."""
    if wanted == "auto":
        return find_halo(choice.method, fitted, pair)
    far = fitted.halo if wanted is None else int(wanted)
    return Halos(far, far if fitted.near is None else min(far, fitted.near))


def _backend(
    method: CSAKD, fitted: Fitted, pair: Pair, plan: TilePlan, options: FuseOptions
) -> tuple[CSAKD, dict[str, float]]:
    """The backend asked for, or the fastest."""
    if options.backend == "auto":
        return pick_backend(method, fitted, pair, plan, precision=options.precision)
    chosen = method.running(options.backend, options.precision)
    chosen.runtime(plan.ratio)  # what is missing is said now
    return chosen, {}


def _respond(draft: Draft, pair: Pair, *, phase: bool) -> Response:
    """Response of a part of the registered pair."""
    grid = draft.scene.grid
    return estimate_response(pair, phase=phase, centre=(grid.phase_y, grid.phase_x))


def register(draft: Draft) -> tuple[Draft, Pair, Response, str]:
    """Estimate PSF and shift; move the grid where a shift of 0.1 HSI pixel or more is believable."""
    options, scene = draft.options, draft.scene
    if options.shift != "auto":
        pair = scene.sample()
        return draft, pair, _respond(draft, pair, phase=False), ""
    found = find_shift(scene, least=1)
    grid = found.scene.grid
    shift = grid.shift_x, grid.shift_y
    if shift == (scene.grid.shift_x, scene.grid.shift_y):
        return draft, found.pair, found.response, ""
    note = (
        f"The HSI is {np.hypot(*shift_in_pixels(grid, shift)):.2f} of its pixels off the MSI; corrected by "
        f"x {shift[0]:+.4g}, y {shift[1]:+.4g} in units of the MSI's CRS (--shift none turns this off)."
    )
    return replace(draft, scene=found.scene), found.pair, found.response, note


def _notes(
    draft: Draft,
    choice: Choice,
    fitted: Fitted,
    response: Response,
    plan: TilePlan,
    model: dict[str, Any],
) -> dict[str, Any]:
    """Provenance: what made this cube, in plain values."""
    scene, psf = draft.scene, fitted.psf
    grid = scene.grid
    return {
        "software": f"csakd_geo {__version__}",
        "versions": {name: version(name) for name in STACK},
        "method": choice.method.name,
        "method_reason": choice.reason,
        "model": model,
        "held_out_scores": choice.scores,
        "hsi": scene.hsi.name,
        "msi": scene.msi.name,
        "ratio": grid.ratio,
        "nested": grid.nested,
        "shift": [grid.shift_x, grid.shift_y],
        "psf_fwhm_hsi_pixels": round(psf.fwhm / psf.ratio, 4),
        "psf_phase_msi_pixels": [round(psf.dy, 3), round(psf.dx, 3)],
        "msi_explains": round(response.explained, 4),
        "msi_gain": [round(float(v), 6) for v in response.gain],
        "tile": plan.tile * plan.ratio,
        "supertile": plan.supertile * plan.ratio,
        "halo": plan.halo + plan.context,
        "options": draft.options.model_dump(mode="json"),
    }


def fuse(hsi: Any, msi: Any, *, report: Report | None = None, **options: Any) -> xr.DataArray:
    """Fuse a hyperspectral and a multispectral image of the same place.

    Everything that is fitted for the scene is fitted at the call; pixels are computed where the
    result is looked at, super-tile by super-tile.

    Parameters
    ----------
    hsi : path or xarray.DataArray
        Hyperspectral image, (band, y, x).
    msi : path or xarray.DataArray
        Multispectral image with finer pixels.
    report : callable, optional
        Called with a stage, its share done and a few words.
    **options
        See :class:`csakd_geo.options.FuseOptions`: ``model``, ``method``, ``ratio``, ``aoi``, ...

    Returns
    -------
    xarray.DataArray
        ``(band, y, x)`` Dask-backed float32 in the HSI's units, NaN where masked, on the MSI's
        grid, with CRS and wavelengths (nm). ``attrs`` tell what was found and done.

    Raises
    ------
    CsakdGeoError
        With one sentence on what does not fit and what to do.
    """
    asked = make_options(options)
    if asked.uncertainty is not None or asked.quality:
        raise InputError(
            "Uncertainty and quality are written beside a product, and a lazy cube is none; use the command "
            "'csakd-geo fuse', or csakd_geo.product.make_product."
        )
    draft = draft_job(hsi, msi, asked)
    job = prepare_job(draft, report=report or _silent)
    attrs = {**job.notes, "units": job.scene.hsi.units, "warnings": list(job.warnings)}
    return lazy_cube(job.scene, job.choice.method, job.fitted, job.plan, job.draft.bands, attrs)


def _silent(stage: str, share: float, words: str) -> None:
    """Report nothing."""
