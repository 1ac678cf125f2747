"""From a configuration to the data of a run and the cards of its models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import InputError, SpectralError
from csakd_geo.methods.subspace import find_subspace
from csakd_geo.models.card import DomainSubspace, ModelCard, Normalisation, TrainingData
from csakd_geo.spectral import SpectralAxis
from csakd_geo.train.archive import (
    Archive,
    OfficialArchive,
    RasterArchive,
    require_same_bands,
    with_bands,
)
from csakd_geo.train.config import NetworkOptions, TrainConfig

FloatArray = NDArray[np.floating]

_DOMAIN_SEED = 4241
_DOMAIN_WINDOWS, _DOMAIN_SPECTRA = 16, 4000  # windows, and spectra of each at most
_DOMAIN_NOISE = 0.05  # of a band's deviation: what no direction is spent on


def open_archives(config: TrainConfig) -> tuple[Archive, Archive]:
    """What is trained on, and what is held out.

    Raises
    ------
    InputError, SpectralError
        Images that are missing, too small or do not go together, or that are in both.
    """
    data, least = config.data, config.crop * max(config.data.ratios)
    if data.layout == "official":
        return _official(config, least)
    variation, uniform = config.augment.variation(data), config.form != "subspace"
    learn, held = (
        RasterArchive.open(
            patterns,
            ranges,
            window=data.window,
            least=least,
            uniform=uniform,
            wavelengths=data.wavelengths,
        )
        for patterns, ranges in ((data.train, variation), (data.validation, variation.plain))
    )
    _require_apart(learn, held)
    if uniform:
        require_same_bands((*learn.sources, *held.sources))
        both = np.intersect1d(learn.bands[0], held.bands[0])
        learn, held = with_bands(learn, both), with_bands(held, both)
    return learn, held


def _official(config: TrainConfig, least: int) -> tuple[Archive, Archive]:
    data = config.data
    if len(data.train) != 1 or len(data.validation) != 1:
        raise InputError(
            "In the official layout data.train and data.validation are one folder each; say with "
            "data.train_names and data.validation_names which of its tiles are meant."
        )
    learn, held = (
        OfficialArchive.open(
            Path(root),
            names,
            msi_bands=data.msi_bands,
            shifts=round(config.augment.misregistration),
            snr_hsi=config.augment.snr_hsi,
            least=least,
            wavelengths=data.wavelengths,
        )
        for root, names in (
            (data.train[0], data.train_names),
            (data.validation[0], data.validation_names),
        )
    )
    if learn.axis.size != held.axis.size:
        raise SpectralError(
            f"The tiles to train on have {learn.axis.size} bands but the held-out ones {held.axis.size}; they "
            "must have the same."
        )
    if learn.root == held.root:
        _require_apart(learn, held)
    return learn, held


def _require_apart(learn: Archive, held: Archive) -> None:
    """Refuse an image that is trained on and held out."""
    shared = sorted(set(learn.names) & set(held.names))
    if shared:
        raise InputError(
            f"'{shared[0]}' is both trained on and held out, so its score would tell nothing; take it out of one."
        )


def make_card(config: TrainConfig, options: NetworkOptions, archive: Archive) -> ModelCard:
    """The card of a network to train."""
    data, bands = config.data, config.form == "bands"
    domain = find_domain(archive, config.components) if config.form == "domain" else None
    counts = (archive.axis.size, archive.msi_axis.size) if bands else (config.components, config.components)
    network = options.network(bands=counts[0], msi_bands=counts[1], residual=config.base is not None)
    rule = Normalisation(rule="subspace-std")
    if bands:
        rule = Normalisation(rule="scene-percentile", lower=0.1, upper=99.9, low=-1.0, high=1.0)
    tied: dict[str, Any] = {}
    if config.form != "subspace":
        tied = {
            "hsi_wavelengths": _stated(archive.axis),
            "hsi_fwhm": _stated(archive.axis, fwhm=True),
        }
    if bands:
        tied |= {
            "msi_wavelengths": _stated(archive.msi_axis),
            "msi_fwhm": _stated(archive.msi_axis, fwhm=True),
        }
    ratios = (min(data.ratios), max(data.ratios))
    return ModelCard(
        name=config.name if options is config.student else f"{config.name}-teacher",
        version="1",
        network=network,
        form="bands" if bands else "subspace",
        ratio=None if data.layout == "official" else ratios,
        units=data.units,
        normalisation=rule,
        base=config.base,
        domain=domain,
        tile=512,
        training=tuple(
            TrainingData(name=name, source=data.source, terms=data.terms) for name in archive.names[:100]
        ),
        **tied,
    )


def find_domain(archive: Archive, components: int) -> DomainSubspace:
    """The subspace of an archive's own spectra, from a fixed sample of its windows."""
    rng, spectra = np.random.default_rng(_DOMAIN_SEED), []
    for _ in range(_DOMAIN_WINDOWS):
        pair, truth = archive.observe(rng)
        seen = pair.blocks[0].valid.repeat(pair.ratio, 0).repeat(pair.ratio, 1)
        values = truth[:, seen]
        spectra.append(values[:, :: max(1, values.shape[1] // _DOMAIN_SPECTRA)].astype(np.float64))
    every = np.concatenate(spectra, axis=1)
    noise = np.maximum(_DOMAIN_NOISE * every.std(1), 1e-12 * np.abs(every).max())
    found = find_subspace(every, noise, components)

    def plain(values: FloatArray) -> list[float]:
        return [float(f"{value:.8g}") for value in values]

    return DomainSubspace(
        mean=tuple(plain(found.mean)),
        noise=tuple(plain(noise)),
        basis=tuple(tuple(plain(row)) for row in found.basis),
        deviation=tuple(plain(found.deviation)),
    )


def _stated(axis: SpectralAxis, *, fwhm: bool = False) -> tuple[float, ...] | None:
    """Centres or widths in nm, where all are known."""
    values = axis.fwhm if fwhm else axis.wavelength
    return tuple(float(v) for v in values) if np.isfinite(values).all() else None
