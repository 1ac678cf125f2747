"""Stripes of sensors that have them, and none where land runs along the columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated import Array, land

from csakd_geo.io import open_source
from csakd_geo.pair import Block, Pair
from csakd_geo.spectral import SpectralAxis
from csakd_geo.stripes import Stripes, find_stripes


def pair_of(hsi: Array, *, valid: Array | None = None) -> Pair:
    """A pair whose MSI is of no matter."""
    whole = np.ones(hsi.shape[1:], bool) if valid is None else valid
    msi = np.zeros((1, 2 * hsi.shape[1], 2 * hsi.shape[2]))
    return Pair((Block(hsi, msi, whole),), 2, SpectralAxis.unknown(len(hsi)), SpectralAxis.unknown(1))


def scene(seed: int = 0) -> Array:
    """Land with noise, and a road along the columns."""
    cube = land(height=48, width=40, seed=seed).astype(np.float64)
    cube[:, :, 20:22] *= 1.3
    return cube + 0.01 * cube.std() * np.random.default_rng(seed).standard_normal(cube.shape)


@pytest.mark.parametrize("along", ["columns", "rows"])
def test_bands_that_are_striped_are_found(along: str) -> None:
    cube = scene()
    odd = np.arange(3, len(cube), 4)
    axis = 2 if along == "columns" else 1
    shape = [odd.size, 1, 1]
    shape[axis] = cube.shape[axis]
    cube[odd] += 0.02 * cube.std() * np.random.default_rng(1).standard_normal(shape)
    found = find_stripes(pair_of(cube))
    assert found is not None
    assert found.along == along
    assert set(odd) <= set(found.bands)  # neighbours are not explained by a striped band either


@pytest.mark.parametrize("seed", range(5))
def test_land_has_none(seed: int) -> None:
    assert find_stripes(pair_of(scene(seed))) is None


def test_what_is_masked_does_not_count() -> None:
    cube = scene()
    valid = np.ones(cube.shape[1:], bool)
    valid[:, 30:] = False
    cube[:, ~valid] = np.nan
    assert find_stripes(pair_of(cube, valid=valid)) is None
    cube += 0.02 * np.nanstd(cube) * np.random.default_rng(1).standard_normal((len(cube), 1, cube.shape[2]))
    found = find_stripes(pair_of(cube, valid=valid))
    assert found is not None
    assert len(found.bands) > 0.8 * len(cube)
    hidden = Block(np.full_like(cube, np.nan), np.zeros((1, 96, 80)), np.zeros(cube.shape[1:], bool))
    pair = pair_of(cube, valid=valid)
    assert find_stripes(replace(pair, blocks=(*pair.blocks, hidden))) == found


def test_few_bands_and_few_pixels_tell_nothing() -> None:
    cube = scene()
    assert find_stripes(pair_of(cube[:7])) is None
    assert find_stripes(pair_of(cube[:, :15])) is None


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("enmap_potsdam/block_A_128x64.tif", 0.39),
        ("paris_ms/hyperion_hsi_30m.tif", 0.14),
        ("aviris/sandiego_1.tif", 0.0),
        ("dlr_hysu/DLR_HySU_HS_full.tif", 0.0),
    ],
)
def test_pushbrooms_in_orbit_have_them(name: str, share: float, shared_data: Path) -> None:
    source = open_source(shared_data / name)
    hsi = source.read(0, 0, source.height, source.width)
    hsi = hsi[[k for k, band in enumerate(hsi) if np.isfinite(band).all() and np.ptp(band) > 0]]
    found = find_stripes(pair_of(hsi))
    if share == 0:
        assert found is None
    else:
        assert isinstance(found, Stripes)
        assert found.along == "columns"
        assert len(found.bands) / len(hsi) == pytest.approx(share, abs=0.05)
