"""A product beside the two images it was made of, on the grid of the fusion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import PSF
from csakd_geo.engine.scene import Scene, open_scene
from csakd_geo.errors import GridError, SpectralError
from csakd_geo.evaluate.facts import product_psf
from csakd_geo.grid import lay_grid
from csakd_geo.io import Source, open_source
from csakd_geo.io.axes import read_wavelengths
from csakd_geo.pair import Pair
from csakd_geo.quality import set_aside
from csakd_geo.response import Response, estimate_response
from csakd_geo.spectral import parse_bands
from csakd_geo.tiling import Window

FloatArray = NDArray[np.floating]

_LATTICE = 0.05  # MSI pixels by which a product may lie beside the grid


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A product, its inputs, and what relates them.

    Parameters
    ----------
    fused : Source
    scene : Scene
        The inputs on the grid that the product was made on.
    psf : PSF
        As the product states it.
    response : Response
        SRF, gain and offset, estimated from the inputs with that PSF as the fusion did.
    bands : ndarray (n,) of int
        Bands of the product that hold data, zero-based.
    places : ndarray (n,) of int
        Their places among ``scene.hsi_bands``.
    support : ndarray (n,)
        Share of the variance of each of these bands, at the HSI's resolution, that is linear in the MSI's.
    msi_scale : ndarray (2, msi_band)
        Gain and offset that bring each MSI band to the HSI's values at its centre; NaN where it has none.
    """

    fused: Source
    scene: Scene
    psf: PSF
    response: Response
    bands: NDArray[np.intp]
    places: NDArray[np.intp]
    support: FloatArray
    msi_scale: FloatArray

    @property
    def hsi_bands(self) -> NDArray[np.intp]:
        """Bands of the HSI that belong to ``bands``."""
        return np.asarray(self.scene.hsi_bands, dtype=np.intp)[self.places]

    @property
    def whole(self) -> bool:
        """Whether the product holds every good band of the HSI, so that it can be projected onto the MSI's."""
        return bool(len(self.bands) == len(self.scene.hsi_bands))

    @property
    def operator(self) -> FloatArray:
        """From ``bands`` to the MSI's, gains included, (msi_band, n) float32."""
        return self.response.operator[:, self.places].astype(np.float32)

    @property
    def msi_names(self) -> list[str]:
        """Names of ``scene.msi_bands`` without the wavelength that may follow."""
        names = self.scene.msi.axis.names
        return [(names[band] or str(band + 1)).partition(" (")[0] for band in self.scene.msi_bands]

    def remarks(self, facts: dict[str, Any]) -> list[str]:
        """Sentences on what makes the comparison less than whole."""
        sentences = []
        names, told = (self.scene.hsi.name, self.scene.msi.name), (facts.get("hsi"), facts.get("msi"))
        if names != told:
            sentences.append(
                f"The product was made of {told[0]} and {told[1]}; it is held against {names[0]} and {names[1]}."
            )
        if not self.whole:
            sentences.append(
                "The product holds some of the HSI's bands only, so it cannot be projected onto the MSI's."
            )
        return sentences

    def read(self, window: Window, bands: NDArray[np.intp]) -> FloatArray:
        """The product in a window of the frame's HR pixels, ``(band, y, x)``, NaN outside it."""
        grid = self.scene.grid
        inside = window.intersect(Window(grid.top, grid.left, grid.height, grid.width))
        out = np.full((len(bands), window.height, window.width), np.nan, np.float32)
        if not inside.empty:
            part = self.fused.read(
                inside.row - grid.top,
                inside.col - grid.left,
                inside.height,
                inside.width,
                bands=bands.tolist(),
            )
            out[:, *inside.slices(window)] = part
        return out


def link_product(
    fused: Source, hsi: Source | Path | str, msi: Source | Path | str, facts: dict[str, Any]
) -> Link:
    """Lay the product's grid again and estimate what relates the images.

    Parameters
    ----------
    fused : Source
    hsi, msi : Source, Path or str
        The inputs.
    facts : dict
        Of the product; see `product_facts`.

    Raises
    ------
    GridError
        If the product does not lie on the grid of these inputs.
    SpectralError
        If its bands are not theirs.
    """
    options = facts.get("options") or {}
    first, second = _open_inputs(hsi, msi, options)
    t = fused.transform
    right, bottom = t * (fused.width, fused.height)
    shift = tuple(float(v) for v in facts["shift"])
    grid = lay_grid(
        first,
        second,
        ratio=int(facts["ratio"]),
        shift=(shift[0], shift[1]),
        bounds=(t.c, min(bottom, t.f), right, max(bottom, t.f)),
    )
    off = ~grid.output_affine * (t.c, t.f)
    if (grid.height, grid.width) != (fused.height, fused.width) or max(map(abs, off)) > _LATTICE:
        raise GridError(
            f"'{fused.name}' has {fused.height} x {fused.width} pixels but '{first.name}' and '{second.name}' "
            f"give {grid.height} x {grid.width} there; give the two images that it was made of."
        )
    written = _written(first, fused, options.get("bands"))
    scene = open_scene(first, second, grid)
    place = {band: k for k, band in enumerate(scene.hsi_bands)}
    kept = [(k, place[band]) for k, band in enumerate(written) if band in place and fused.axis.good[k]]
    if not kept:
        raise SpectralError(f"No band of '{fused.name}' is good in '{first.name}'; look at both with info.")
    kept.sort(key=lambda pair: _nm(fused, pair[0]))
    bands, places = np.array(kept, dtype=np.intp).T
    psf, pair = product_psf(facts), scene.sample()
    _, response, _ = set_aside(pair, estimate_response(pair, psf=psf), partial(estimate_response, psf=psf))
    return Link(
        fused,
        scene,
        psf,
        response,
        bands,
        places,
        explained_bands(pair, psf)[places],
        _msi_scale(pair, psf),
    )


def _open_inputs(
    hsi: Source | Path | str, msi: Source | Path | str, options: dict[str, Any]
) -> tuple[Source, Source]:
    """Both inputs, opened with the options of the fusion where they are paths."""
    table = options.get("wavelengths")
    axis = read_wavelengths(Path(table)) if table and Path(table).exists() else None
    if isinstance(hsi, (str, Path)):
        hsi = open_source(hsi, axis=axis, sensor=options.get("hsi_sensor"))
    if isinstance(msi, (str, Path)):
        msi = open_source(msi, sensor=options.get("msi_sensor"))
    return hsi, msi


def _written(hsi: Source, fused: Source, text: str | None) -> list[int]:
    """Bands of the HSI that the product holds, in its order."""
    bands = list(range(hsi.axis.size)) if text is None else list(parse_bands(text, hsi.axis))
    if len(bands) != fused.axis.size:
        raise SpectralError(
            f"'{fused.name}' has {fused.axis.size} bands where {len(bands)} of '{hsi.name}' were asked for; give "
            "the HSI that it was made of."
        )
    return bands


def _nm(source: Source, band: int) -> float:
    value = float(source.axis.wavelength[band])
    return value if np.isfinite(value) else float(band)


def _msi_scale(pair: Pair, psf: PSF) -> FloatArray:
    """Least-squares line from each MSI band to the HSI band at its centre, at LR."""
    hsi, msi = pair.hsi_spectra(psf.halo), pair.msi_spectra(psf, psf.halo)
    nm, centres = pair.hsi_axis.wavelength, pair.msi_axis.wavelength
    found = np.full((2, len(msi)), np.nan)
    for k, centre in enumerate(centres):
        if np.isfinite(nm).all() and nm.min() <= centre <= nm.max() and np.ptp(msi[k]) > 0:
            found[:, k] = np.polyfit(msi[k], hsi[np.abs(nm - centre).argmin()], 1)
    return found


def explained_bands(pair: Pair, psf: PSF) -> FloatArray:
    """Share of each HSI band's variance, at LR, that an affine function of the degraded MSI explains.

    Parameters
    ----------
    pair : Pair
    psf : PSF

    Returns
    -------
    ndarray (hsi_band,)
        0 to 1.
    """
    hsi, msi = pair.hsi_spectra(psf.halo), pair.msi_spectra(psf, psf.halo)
    msi -= msi.mean(1, keepdims=True)
    _, sizes, directions = np.linalg.svd(msi, full_matrices=False)
    directions = directions[sizes > 1e-9 * sizes[0]]
    hsi -= hsi.mean(1, keepdims=True)
    total = np.einsum("bn,bn->b", hsi, hsi)
    told = np.square(hsi @ directions.T).sum(1)
    return np.asarray(told / np.where(total > 0, total, np.inf))
