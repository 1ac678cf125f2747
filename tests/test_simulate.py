"""Wald's protocol to files: geometry, spectra, noise, what is missing, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from rio_cogeo.cogeo import cog_validate

from csakd_geo import simulate as module
from csakd_geo.degrade import PSF, observe
from csakd_geo.errors import GridError, InputError, OutputError, SpectralError
from csakd_geo.io import open_source
from csakd_geo.sensors import get_sensor
from csakd_geo.simulate import SimulatedPaths, simulate
from csakd_geo.spectral import SpectralAxis, gaussian_response

WAVELENGTH = np.arange(400.0, 1001.0, 10.0)
TRANSFORM = Affine(20.0, 0.0, 500_000.0, 0.0, -20.0, 4_000_000.0)


def cube(values: np.ndarray, wavelength: np.ndarray | None = WAVELENGTH, **attrs: object) -> xr.DataArray:
    array = xr.DataArray(values, dims=("band", "y", "x"), attrs=attrs)
    if wavelength is not None:
        array = array.assign_coords(
            wavelength=("band", wavelength), fwhm=("band", np.full(len(wavelength), 10.0))
        )
    return array.rio.write_crs("EPSG:32633").rio.write_transform(TRANSFORM)


def noise_like(height: int = 40, width: int = 48, bands: int = WAVELENGTH.size) -> np.ndarray:
    rng = np.random.default_rng(7)
    return (100 + 20 * rng.standard_normal((bands, height, width))).astype(np.float32)


def run(array: xr.DataArray, folder: Path, **options: object) -> SimulatedPaths:
    settings = {"ratio": 4, "msi_sensor": "sentinel2-10m", **options}
    return simulate(open_source(array), folder, **settings)  # type: ignore[arg-type]


def pixels(path: Path) -> np.ndarray:
    source = open_source(path)
    return source.read(0, 0, source.height, source.width)


@pytest.mark.parametrize("ratio", [2, 3, 4, 5])
def test_hsi_pixels_are_where_their_values_say(tmp_path: Path, ratio: int) -> None:
    """A symmetric blur keeps a plane, so a cube of map coordinates must come out as coordinates."""
    height, width = 43, 50
    x = TRANSFORM.c + TRANSFORM.a * (np.arange(width) + 0.5) - 500_000
    y = TRANSFORM.f + TRANSFORM.e * (np.arange(height) + 0.5) - 4_000_000
    planes = np.broadcast_to(2 * x[None] + 3 * y[:, None], (WAVELENGTH.size, height, width))
    paths = run(cube(planes.astype(np.float32)), tmp_path, ratio=ratio)
    with rasterio.open(paths.hsi) as src:
        assert src.shape == (height // ratio, width // ratio)
        found = src.read(1)[3:-3, 3:-3]
        cols, rows = np.meshgrid(np.arange(src.width) + 0.5, np.arange(src.height) + 0.5)
        east, north = src.transform * (cols, rows)
        expected = 2 * (east - 500_000) + 3 * (north - 4_000_000)
        assert src.crs.to_epsg() == 32633
    np.testing.assert_allclose(found, expected[3:-3, 3:-3], rtol=0, atol=1e-2)
    with rasterio.open(paths.truth) as truth, rasterio.open(paths.msi) as msi:
        assert truth.shape == msi.shape == (height // ratio * ratio, width // ratio * ratio)
        assert truth.transform == msi.transform == TRANSFORM


def test_msi_bands_lie_at_their_wavelengths(tmp_path: Path) -> None:
    """A spectrum that equals its wavelength is seen at the centre of each symmetric response."""
    values = np.broadcast_to(WAVELENGTH[:, None, None], (WAVELENGTH.size, 8, 8)).astype(np.float32).copy()
    values[:, 0, 0] += 1  # so that no band is constant
    paths = run(cube(values), tmp_path)
    msi = open_source(paths.msi)
    np.testing.assert_allclose(msi.axis.wavelength, [492.4, 559.8, 664.6, 832.8], atol=1e-3)
    np.testing.assert_allclose(pixels(paths.msi)[:, 4, 4], msi.axis.wavelength, atol=1.0)


def test_noise_is_that_of_observe_and_has_the_strength_asked_for(tmp_path: Path) -> None:
    values = noise_like()
    paths = run(cube(values), tmp_path, snr_hsi=30.0, snr_msi=25.0, seed=3)
    axis = SpectralAxis.build(WAVELENGTH, fwhm=np.full(WAVELENGTH.size, 10.0))
    srf = gaussian_response(get_sensor("sentinel2-10m").axis, axis)
    hsi, msi = observe(values, srf, psf=PSF.nominal(4), snr_hsi=30.0, snr_msi=25.0, seed=3)
    np.testing.assert_allclose(pixels(paths.hsi), hsi, rtol=2e-6)
    np.testing.assert_allclose(pixels(paths.msi), msi, rtol=2e-6)
    clean = run(cube(values), tmp_path / "clean")
    for noisy, quiet, snr in ((paths.hsi, clean.hsi, 30.0), (paths.msi, clean.msi, 25.0)):
        signal, error = pixels(quiet), pixels(noisy) - pixels(quiet)
        assert 10 * np.log10(np.mean(signal**2) / np.mean(error**2)) == pytest.approx(snr, abs=0.3)


def test_same_seed_same_pixels(tmp_path: Path) -> None:
    array = cube(noise_like())
    first, again, other = (
        pixels(run(array, tmp_path / name, snr_hsi=30.0, seed=seed).hsi)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_groups_of_bands_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = cube(noise_like())
    whole = run(array, tmp_path / "whole", snr_hsi=30.0, snr_msi=30.0)
    monkeypatch.setattr(module, "_GROUP_VALUES", 5 * 40 * 48)
    parts = run(array, tmp_path / "parts", snr_hsi=30.0, snr_msi=30.0)
    np.testing.assert_allclose(pixels(parts.hsi), pixels(whole.hsi), rtol=1e-6)
    np.testing.assert_allclose(pixels(parts.msi), pixels(whole.msi), rtol=1e-6)
    assert np.array_equal(pixels(parts.truth), pixels(whole.truth))


def test_missing_pixels_and_bad_bands_stay_missing_and_spoil_nothing_else(tmp_path: Path) -> None:
    values = noise_like()
    full = run(cube(values), tmp_path / "full")
    holed = values.copy()
    holed[5, 21, 30] = np.nan  # in HSI pixel (5, 7)
    holed[10] = np.nan
    holed[11] = 3.0
    flags = np.ones(WAVELENGTH.size)
    flags[12] = 0
    paths = run(cube(holed).assign_coords(good=("band", flags)), tmp_path / "holed")
    bad = [10, 11, 12]
    hsi, truth = open_source(paths.hsi), open_source(paths.truth)
    for source in (hsi, truth):
        assert np.flatnonzero(~source.axis.good).tolist() == bad
        assert np.isnan(source.read(0, 0, source.height, source.width, bands=bad)).all()
    good = np.delete(np.arange(WAVELENGTH.size), bad)
    lost = np.isnan(pixels(paths.hsi)[good])
    assert lost[:, 5, 7].all()
    assert (lost.all(0) == lost.any(0)).all()
    rows, cols = np.nonzero(lost[0])
    assert rows.min() >= 4
    assert rows.max() <= 6
    assert cols.min() >= 6
    assert cols.max() <= 8
    seen = ~lost[0]
    np.testing.assert_allclose(pixels(paths.hsi)[good][:, seen], pixels(full.hsi)[good][:, seen], rtol=1e-6)
    msi = np.isnan(pixels(paths.msi))
    assert msi[:, 21, 30].all()
    assert msi.sum() == 4
    left = np.isnan(pixels(paths.truth)[good])
    assert left.sum() == 1
    assert left[5, 21, 30]


def test_files_are_cogs_that_say_how_they_were_made(tmp_path: Path) -> None:
    paths = run(cube(noise_like(), units="reflectance"), tmp_path, snr_hsi=35.0, seed=9, tags={"TITLE": "x"})
    for role, path in (("hsi", paths.hsi), ("msi", paths.msi), ("truth", paths.truth)):
        valid, errors, _ = cog_validate(path)
        assert valid, errors
        with rasterio.open(path) as src:
            tags = src.tags()
            assert tags["ROLE"] == role
            assert tags["TITLE"] == "x"
            assert (tags["SNR_HSI_DB"], tags["SNR_MSI_DB"], tags["SEED"]) == ("35", "none", "9")
            assert tags["MSI_SENSOR"] == "sentinel2-10m"
            assert tags["RATIO"] == "4"
            assert "Wald" in tags["PROTOCOL"]
            assert "FWHM 4 pixels" in tags["PSF"]
            assert src.units[0] == "reflectance"
    hsi = open_source(paths.hsi).axis
    np.testing.assert_allclose(hsi.wavelength, WAVELENGTH, atol=1e-3)
    np.testing.assert_allclose(hsi.fwhm, 10.0, atol=1e-3)


def test_integers_stay_the_same_integers(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(-50, 9000, (WAVELENGTH.size, 16, 16)).astype(np.int16)
    paths = run(cube(counts, scale_factor=1e-4, _FillValue=-9999), tmp_path)
    with rasterio.open(paths.truth) as src:
        assert src.dtypes[0] == "int16"
        assert src.scales[0] == 1e-4
        assert np.array_equal(src.read(), counts)


def test_bands_outside_the_cube_are_named_in_one_sentence(tmp_path: Path) -> None:
    paths = run(cube(noise_like(16, 16)), tmp_path, msi_sensor="sentinel2")
    assert len(paths.warnings) == 1
    assert paths.warnings[0].startswith("B11, B12 of sentinel2 lie outside")
    assert [name.split()[0] for name in open_source(paths.msi).axis.names] == (
        ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A"]
    )


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"ratio": 1}, InputError, "ratio is 1"),
        ({"ratio": 17}, GridError, "16 x 16 pixels, less than one HSI pixel at ratio 17"),
        ({"msi_sensor": "sentinel9"}, SpectralError, "no sensor 'sentinel9'"),
        ({"snr_hsi": float("nan")}, InputError, "signal to noise is nan"),
    ],
)
def test_what_cannot_be_made_is_refused(
    tmp_path: Path, options: dict[str, object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        run(cube(noise_like(16, 16)), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_wavelengths_are_needed(tmp_path: Path) -> None:
    with pytest.raises(SpectralError, match="no wavelengths"):
        run(cube(noise_like(16, 16), wavelength=None), tmp_path)
    with pytest.raises(SpectralError, match=r"No band of sentinel2-10m .* \(2000 to 2600 nm\)"):
        run(cube(noise_like(16, 16), wavelength=WAVELENGTH + 1600), tmp_path)


def test_a_cube_without_a_whole_spectrum_is_refused(tmp_path: Path) -> None:
    values = noise_like(8, 8)
    values[0, :4] = np.nan
    values[1, 4:] = np.nan
    with pytest.raises(InputError, match="no pixel with data in all good bands"):
        run(cube(values), tmp_path)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    first = run(cube(noise_like(16, 16)), tmp_path)
    before = first.msi.read_bytes()
    with pytest.raises(OutputError, match=r"already holds hsi\.tif, msi\.tif, truth\.tif"):
        run(cube(2 * noise_like(16, 16)), tmp_path)
    assert first.msi.read_bytes() == before
    run(cube(2 * noise_like(16, 16)), tmp_path, overwrite=True)
    assert first.msi.read_bytes() != before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hsi.tif", "msi.tif", "truth.tif"]
