"""Every method side by side on a small window of a pair, before a long run."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from csakd_geo.choose import MIN_COMPARED, compare, large_enough
from csakd_geo.compare.comparison import Candidate, Comparison
from csakd_geo.compare.window import window_scene
from csakd_geo.draft import draft_job
from csakd_geo.engine.device import pick_device
from csakd_geo.engine.graph import lazy_cube
from csakd_geo.engine.scene import Scene
from csakd_geo.evaluate import PairEvaluation
from csakd_geo.evaluate.consistency import measure_consistency
from csakd_geo.evaluate.link import Link, link_product
from csakd_geo.io import open_source
from csakd_geo.job import Report, register
from csakd_geo.methods import METHODS
from csakd_geo.methods.base import Fitted, Method
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.models import fitting_models
from csakd_geo.options import FuseOptions
from csakd_geo.pair import Pair
from csakd_geo.quicklook.spectra import Spot, choose_spots, spectrum_at
from csakd_geo.quicklook.view import TRUE_COLOUR, Bands
from csakd_geo.response import Response
from csakd_geo.threads import one_blas_thread
from csakd_geo.tiling import TilePlan, Window

_BRIEF = 20.0  # seconds under which a method is timed twice: the first time may be spent on starting
_SPOTS = 2


def compare_methods(
    hsi: Any,
    msi: Any,
    options: FuseOptions,
    *,
    window: tuple[int, int, int, int] | None = None,
    report: Report,
) -> Comparison:
    """Fit every method and every model that fits the pair, and fuse one window with each.

    Each is fitted to the scene's sample as ``fuse`` does, and applied to the window with all the context that it
    asks for.

    Parameters
    ----------
    hsi, msi : path or DataArray
    options : FuseOptions
        Those of ``fuse``; ``method`` and ``model`` have no say.
    window : (int, int, int, int), optional
        Column, row, width and height in pixels of the MSI; it is widened to whole HSI pixels. By default the
        part of the sample with most detail, 64 HSI pixels a side or fewer.
    report : callable
        Called with a stage, its share done and a few words.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If the window holds too little of what both images show.
    CsakdGeoError
        If the pair cannot be fused at all.
    """
    report("compare", 0.0, "reading the scene")
    draft = draft_job(hsi, msi, options)
    with one_blas_thread():
        draft, pair, response, moved = register(draft)
    scene, warnings = draft.scene, [*draft.warnings, *([moved] if moved else [])]
    small = window_scene(scene, response.psf, window)
    compared = large_enough(pair)
    if not compared:
        warnings.append(
            f"The scene has fewer than {MIN_COMPARED} x {MIN_COMPARED} HSI pixels, so no scores were taken on "
            "held-out blocks; they would be noise."
        )
    runner = _Runner(scene, small, pair, response, compared, options.seed)
    methods = _methods(pair, pick_device(options.device))
    candidates = []
    for k, (name, method) in enumerate(methods.items()):
        report("compare", k / len(methods), name)
        candidates.append(runner.run(name, method))
    report("compare", 1.0, f"{len(methods)} methods")
    first, grid = runner.opened, small.grid
    return Comparison(
        tuple(candidates),
        scene.hsi,
        scene.msi,
        first.source,
        (grid.msi_col + grid.left, grid.msi_row + grid.top, grid.width, grid.height),
        grid.ratio,
        response.psf,
        (grid.shift_x, grid.shift_y),
        response.explained,
        tuple(runner.spots),
        first.composite(TRUE_COLOUR)[1],
        tuple(warnings),
    )


def _methods(pair: Pair, device: str) -> dict[str, Method]:
    """All that can be run on a pair, by the name that is shown."""
    found: dict[str, Method] = dict(METHODS)
    for entry in fitting_models(pair.hsi_axis, pair.msi_axis, ratio=pair.ratio):
        name = entry.card.name
        found[name if name.startswith(CSAKD.name) else f"{CSAKD.name} {name}"] = CSAKD(
            entry.path, device=device
        )
    return found


class _Runner:
    """What is the same for all methods; what only a first cube tells is found with it."""

    link: Link
    opened: Bands
    spots: list[Spot]

    def __init__(
        self, scene: Scene, small: Scene, pair: Pair, response: Response, compared: bool, seed: int
    ) -> None:
        self.scene, self.small, self.pair, self.response = scene, small, pair, response
        self.compared, self.seed = compared, seed

    def run(self, name: str, method: Method) -> Candidate:
        """Fit, fuse and score one method."""
        held_out: dict[str, float] = {}
        with one_blas_thread():
            if self.compared:
                held_out = compare([method], self.pair, self.response, seed=self.seed)[method.name]
            begun = time.perf_counter()
            fitted = method.fit(self.pair, self.response, seed=self.seed)
            fit_seconds = time.perf_counter() - begun
            cube, seconds = self._fuse(method, fitted)
        source = open_source(cube, name=name)
        if not hasattr(self, "link"):
            self.link = link_product(source, self.scene.hsi, self.scene.msi, dict(cube.attrs))
            self.opened = Bands.of(source)
            self.spots = choose_spots(Bands.of(self.scene.hsi), self.opened)[:_SPOTS]
        link = replace(self.link, fused=source)
        found = PairEvaluation(link, measure_consistency(link, side=1), ())
        bands = self.opened.composite(TRUE_COLOUR)[0]
        return Candidate(
            name,
            held_out,
            found.to_dict()["scores"],
            fit_seconds,
            seconds,
            source.read(0, 0, source.height, source.width, bands=bands),
            np.stack([spectrum_at(source, source, spot) for spot in self.spots]),
        )

    def _fuse(self, method: Method, fitted: Fitted) -> tuple[xr.DataArray, float]:
        """The window as `csakd_geo.fuse` would return it, computed, and the seconds that a megapixel takes."""
        grid, small = self.scene.grid, self.small.grid
        r, psf = grid.ratio, fitted.psf
        fine = Window(
            small.msi_row + small.top - grid.msi_row,
            small.msi_col + small.left - grid.msi_col,
            small.height,
            small.width,
        )
        row, col = fine.row // r, fine.col // r
        cells = Window(
            row, col, -(-(fine.row + fine.height) // r) - row, -(-(fine.col + fine.width) // r) - col
        )
        around = cells.grown(fitted.halo).intersect(self.scene.frame)
        block, valid = self.scene.block(around)
        taken: list[float] = []
        while not taken or (len(taken) < 2 and taken[0] < _BRIEF):
            begun = time.perf_counter()
            fused = method.apply(fitted, block.hsi, block.msi)
            taken.append(time.perf_counter() - begun)
        seconds = min(taken) / (valid.size / 1e6)
        fused[:, ~valid] = np.nan
        values = np.full((self.scene.hsi.axis.size, fine.height, fine.width), np.nan, np.float32)
        values[list(self.scene.hsi_bands)] = fused[:, *fine.slices(around.scaled(r))]
        facts = {
            "method": method.name,
            "ratio": r,
            "shift": [grid.shift_x, grid.shift_y],
            "psf_fwhm_hsi_pixels": psf.fwhm / r,
            "psf_phase_msi_pixels": [psf.dy, psf.dx],
            "hsi": self.scene.hsi.name,
            "msi": self.scene.msi.name,
            "units": self.scene.hsi.units,
        }
        side = max(small.lr_height, small.lr_width)
        plan = TilePlan(small.lr_height, small.lr_width, r, side, side, 0, "crop", 0)
        bands = tuple(range(self.scene.hsi.axis.size))
        return lazy_cube(self.small, method, fitted, plan, bands, facts).copy(data=values), seconds
