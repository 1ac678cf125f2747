"""The sample pair against the image that tensorly itself loads, and against the protocol it claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import Transformer

from csakd_geo import sample as module
from csakd_geo.degrade import PSF, apply_srf, degrade
from csakd_geo.errors import InputError
from csakd_geo.io import open_source
from csakd_geo.sample import write_sample
from csakd_geo.simulate import SimulatedPaths
from csakd_geo.spectral import gaussian_response


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SimulatedPaths:
    return write_sample(tmp_path_factory.mktemp("sample"))


def pixels(path: Path) -> np.ndarray:
    source = open_source(path)
    return source.read(0, 0, source.height, source.width)


def test_truth_is_indian_pines_as_radiance(pair: SimulatedPaths) -> None:
    from tensorly.datasets import load_indian_pines

    counts = np.asarray(load_indian_pines()["tensor"], dtype=np.float64)
    assert counts.shape == (145, 145, 200)
    expected = np.moveaxis(counts[:144, :144] - 1000, 2, 0) / 500
    np.testing.assert_allclose(pixels(pair.truth), expected, atol=1e-6)
    with rasterio.open(pair.truth) as src:
        assert src.dtypes[0] == "int16"
        assert src.scales[0] == pytest.approx(1 / 500)
    assert open_source(pair.truth).units == "radiance"


def test_sizes_places_and_bands(pair: SimulatedPaths) -> None:
    hsi, msi, truth = (open_source(p) for p in (pair.hsi, pair.msi, pair.truth))
    assert [(s.axis.size, s.height, s.width) for s in (hsi, msi, truth)] == (
        [(200, 36, 36), (4, 144, 144), (200, 144, 144)]
    )
    assert (hsi.transform.a, msi.transform.a, truth.transform.a) == (80, 20, 20)
    assert (hsi.transform.c, hsi.transform.f) == (truth.transform.c, truth.transform.f)
    assert hsi.crs is not None
    assert hsi.crs.to_epsg() == 32616
    east, north = truth.transform * (72, 72)
    lon, lat = Transformer.from_crs(32616, 4326, always_xy=True).transform(east, north)
    assert (lon, lat) == (pytest.approx(-87.01, abs=1e-3), pytest.approx(40.46, abs=1e-3))
    assert hsi.axis.good.all()
    assert hsi.axis.has_wavelengths
    assert hsi.axis.wavelength[[0, -1]].tolist() == [400.02, 2489.11]
    assert pair.warnings == ()


def test_chlorophyll_and_water_vapour_are_where_they_must_be(pair: SimulatedPaths) -> None:
    truth = open_source(pair.truth)
    mean = pixels(pair.truth).mean((1, 2))

    def at(nm: float) -> float:
        return float(mean[np.abs(truth.axis.wavelength - nm).argmin()])

    assert at(800) > 1.5 * at(670)
    assert at(760) < 0.8 * at(780)  # oxygen A
    assert at(1130) < 0.5 * at(1060)  # water vapour


@pytest.mark.realdata
def test_wavelengths_are_those_of_the_tagged_copy(pair: SimulatedPaths, shared_data: Path) -> None:
    path = shared_data / "aviris" / "indian_pines_200.tif"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    np.testing.assert_allclose(
        open_source(pair.truth).axis.wavelength, open_source(path).axis.wavelength, atol=0.005
    )


def test_noise_is_35_and_40_db(pair: SimulatedPaths) -> None:
    truth = pixels(pair.truth)
    axes = open_source(pair.msi).axis, open_source(pair.truth).axis

    def snr(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
        return 10 * np.log10(
            np.mean(clean.astype(float) ** 2, (1, 2)) / np.mean((noisy - clean).astype(float) ** 2, (1, 2))
        )

    hsi = snr(degrade(truth, PSF.nominal(4)), pixels(pair.hsi))
    assert np.median(hsi) == pytest.approx(35, abs=0.2)
    msi = snr(apply_srf(truth, gaussian_response(*axes)), pixels(pair.msi))
    np.testing.assert_allclose(msi, 40, atol=0.3)


def test_every_run_gives_the_same_pixels(pair: SimulatedPaths, tmp_path: Path) -> None:
    again = write_sample(tmp_path)
    for one, other in ((pair.hsi, again.hsi), (pair.msi, again.msi), (pair.truth, again.truth)):
        assert np.array_equal(pixels(one), pixels(other))


def test_tags_say_what_is_known_and_what_is_not(pair: SimulatedPaths) -> None:
    with rasterio.open(pair.hsi) as src:
        tags = src.tags()
    assert tags["POSITION"].startswith("approximate")
    assert "10.4231/R7RX991C" in tags["CREDIT"]
    assert (tags["SNR_HSI_DB"], tags["SNR_MSI_DB"]) == ("35", "40")


def test_missing_tensorly_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install tensorly"):
        write_sample(tmp_path)
    assert list(tmp_path.iterdir()) == []
