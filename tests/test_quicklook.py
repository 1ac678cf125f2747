"""The picture of a fusion: what is picked from the images, and that every panel shows something."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine

from csakd_geo.errors import InputError, OutputError
from csakd_geo.io import Source, open_source
from csakd_geo.quicklook import draw_quicklook
from csakd_geo.quicklook.spectra import _range, broken_line, choose_spots
from csakd_geo.quicklook.view import TRUE_COLOUR, Bands, Lattice, limits, rgba, spectral_angles

NM = np.concatenate([np.arange(420.0, 1340.0, 20.0), np.arange(1480.0, 1760.0, 20.0)])
MSI_NM = np.array([490.0, 560.0, 665.0, 833.0])
RATIO = 4


def source(
    values: np.ndarray,
    *,
    gsd: float = 30.0,
    wavelength: np.ndarray | None = None,
    crs: str | None = "EPSG:32633",
    name: str = "image",
    good: np.ndarray | None = None,
    units: str = "radiance",
) -> Source:
    array = xr.DataArray(values.astype(np.float32), dims=("band", "y", "x"), attrs={"units": units})
    if wavelength is not None:
        array = array.assign_coords(wavelength=("band", wavelength))
    if good is not None:
        array = array.assign_coords(good=("band", good))
    if crs is not None:
        array = array.rio.write_crs(crs)
    array = array.rio.write_transform(Affine(gsd, 0, 400_000, 0, -gsd, 5_800_000))
    return open_source(array, name=name)


def scene(height: int = 96, width: int = 128) -> np.ndarray:
    """Soil, plants and water in patches, with a little texture, ``(band, y, x)``."""
    soil = 2 + NM / 600
    plants = 1 + 6 / (1 + np.exp(-(NM - 710) / 15)) - NM / 800
    water = 3 * np.exp(-(NM - 420) / 250)
    y, x = np.mgrid[:height, :width]
    kind = ((y // 24) + (x // 32)) % 3
    spectra = np.stack([soil, plants, water])[kind]
    texture = 1 + 0.1 * np.random.default_rng(1).standard_normal((height, width))
    return np.moveaxis(spectra * texture[..., None], 2, 0)


def images(cube: np.ndarray | None = None, **options: object) -> dict[str, Source]:
    """Block-averaged HSI, four bands of the scene as MSI, and the scene with an error as the result."""
    truth = scene() if cube is None else cube
    bands, height, width = truth.shape
    hsi = truth.reshape(bands, height // RATIO, RATIO, width // RATIO, RATIO).mean((2, 4))
    picked = [int(np.abs(NM - nm).argmin()) for nm in MSI_NM]
    fused = truth + 0.05 * np.random.default_rng(2).standard_normal(truth.shape)
    return {
        "hsi": source(hsi, gsd=30.0 * RATIO, wavelength=NM, name="hsi", **options),  # type: ignore[arg-type]
        "msi": source(truth[picked], wavelength=MSI_NM, name="msi"),
        "fused": source(fused, wavelength=NM, name="fused", **options),  # type: ignore[arg-type]
        "truth": source(truth, wavelength=NM, name="truth", **options),  # type: ignore[arg-type]
    }


def draw(target: Path, **given: Source) -> np.ndarray:
    draw_quicklook(target, **given)
    assert [p.name for p in target.parent.iterdir()] == [target.name]
    picture = matplotlib.image.imread(target)
    assert picture.shape[1] == 2700
    assert picture.shape[0] > 1000
    return picture[:, :, :3]


def panels(picture: np.ndarray, count: int) -> list[np.ndarray]:
    """The middle of each map, without frames and text."""
    top = picture[: int(picture.shape[0] * 0.5)]
    edges = np.linspace(0.03, 0.96, count + 1) * picture.shape[1]
    return [
        top[int(top.shape[0] * 0.4) : int(top.shape[0] * 0.75), int(a + 70) : int(b - 70)]
        for a, b in itertools.pairwise(edges)
    ]


def share_of(picture: np.ndarray, colour: str) -> float:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float((np.abs(picture - wanted).max(2) < 0.02).mean())


def test_every_panel_shows_something_and_the_truth_adds_two(tmp_path: Path) -> None:
    given = images()
    with_truth = draw(tmp_path / "a.png", **given)
    (tmp_path / "a.png").unlink()
    without = draw(tmp_path / "b.png", **{k: v for k, v in given.items() if k != "truth"})
    for picture, count in ((with_truth, 5), (without, 4)):
        for panel in panels(picture, count):
            assert panel.std() > 0.02
            assert len(np.unique(panel.reshape(-1, 3), axis=0)) > 20
        half = picture.shape[0] // 2
        for colour in ("#E69F00", "#56B4E9", "#CC79A7"):
            assert share_of(picture[:half], colour) > 0  # the marks
            assert share_of(picture[half:], colour) > 5e-4  # the lines


def test_the_same_images_give_the_same_picture(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, other = (draw(tmp_path / name / "q.png", **images()) for name in ("a", "b"))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("case", ["nan", "bad bands", "pan", "no wavelengths", "no crs", "degrees", "units"])
def test_awkward_images_are_drawn(tmp_path: Path, case: str) -> None:
    cube, options = scene(), {}
    if case == "nan":
        cube[:, :30, :50] = np.nan
        cube[3, 60, 60] = np.nan
    if case == "bad bands":
        cube[10:14] = np.nan
        options["good"] = np.where(NM > 1600, 0, 1)
    if case == "no crs":
        options["crs"] = None
    given = images(cube, **options)
    if case == "pan":
        given["msi"] = source(cube[:20].mean(0, keepdims=True), name="pan")
    if case == "no wavelengths":
        given = {
            k: source(v.read(0, 0, v.height, v.width), gsd=v.transform.a, name=k) for k, v in given.items()
        }
    if case == "units":
        given["msi"] = source(1e4 * cube[[4, 7, 12, 20]], wavelength=MSI_NM, units="reflectance")
    if case == "degrees":
        given = {
            k: source(
                v.read(0, 0, v.height, v.width),
                gsd=v.transform.a,
                name=k,
                crs="EPSG:4326",
                wavelength=v.axis.wavelength,
            )
            for k, v in given.items()
        }
    picture = draw(tmp_path / "q.png", **given)
    for panel in panels(picture, 5):
        assert panel.std() > 0.01


def test_hsi_of_another_place_is_refused(tmp_path: Path) -> None:
    given = images()
    far = given["fused"].read(0, 0, 96, 128)
    array = xr.DataArray(far, dims=("band", "y", "x")).rio.write_crs("EPSG:32633")
    given["fused"] = open_source(array.rio.write_transform(Affine(30, 0, 9e5, 0, -30, 1e6)), name="far")
    with pytest.raises(InputError, match="'hsi' and 'far' share no pixel"):
        draw_quicklook(tmp_path / "q.png", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    given = images()
    with pytest.raises(OutputError, match="is a folder"):
        draw_quicklook(tmp_path, **given)
    with pytest.raises(OutputError, match="was not written"):
        draw_quicklook(tmp_path / "missing" / "q.png", **given)
    assert list(tmp_path.iterdir()) == []


def test_the_lattice_picks_nearest_pixels() -> None:
    fine = source(np.arange(8 * 12).reshape(1, 8, 12))
    coarse = source(np.arange(2 * 3).reshape(1, 2, 3), gsd=120.0)
    picked = Lattice.of(fine).pick(coarse, [0])[0]
    assert np.array_equal(picked, np.kron(np.arange(6).reshape(2, 3), np.ones((4, 4))))
    small = source(np.ones((1, 4, 4)))
    picked = Lattice.of(fine).pick(small, [0])[0]
    assert np.isfinite(picked).sum() == 16
    assert np.isfinite(picked[:4, :4]).all()


def test_a_large_image_is_thinned() -> None:
    values = np.arange(2500.0)[None, :, None] + np.zeros((1, 2500, 1100))
    lattice = Lattice.of(source(values))
    assert lattice.step == 3
    picked = lattice.pick(lattice.source, [0])[0]
    assert max(picked.shape) <= 1000
    assert np.array_equal(picked[:, 0], np.arange(1.0, 2500.0, 3.0))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given = images()
    lattice = Lattice.of(given["fused"])
    whole = lattice.pick(given["hsi"], [0, 3])
    angles = spectral_angles(lattice, Bands.of(given["fused"]), Bands.of(given["truth"]))
    monkeypatch.setattr("csakd_geo.quicklook.view._CHUNK_VALUES", 1)
    assert np.array_equal(lattice.pick(given["hsi"], [0, 3]), whole)
    again = spectral_angles(lattice, Bands.of(given["fused"]), Bands.of(given["truth"]))
    assert np.array_equal(again, angles)


def test_angles_are_those_of_the_spectra() -> None:
    """Mixing an orthogonal spectrum of tan(a) times the length turns a spectrum by a."""
    base, other = np.tile([3.0, 1.0], 30), np.tile([-1.0, 3.0], 30)
    truth = np.ones((60, 5, 7)) * base[:, None, None] * (1 + np.arange(7) / 7)
    wanted = np.arange(35).reshape(5, 7) / 4
    fused = truth + other[:, None, None] * np.tan(np.radians(wanted)) * (1 + np.arange(7) / 7)
    a, b = (source(v, wavelength=NM) for v in (fused, truth))
    found = spectral_angles(Lattice.of(a), Bands.of(a), Bands.of(b))
    np.testing.assert_allclose(found, wanted, atol=0.05)


def test_spots_differ_in_kind_and_lie_in_the_hsi() -> None:
    given = images()
    spots = choose_spots(Bands.of(given["hsi"]), Bands.of(given["fused"]))
    kinds = {((s.row // 24) + (s.col // 32)) % 3 for s in spots}
    assert kinds == {0, 1, 2}
    for spot in spots:
        assert (spot.row // RATIO, spot.col // RATIO) == (spot.hsi_row, spot.hsi_col)
    assert spots == choose_spots(Bands.of(given["hsi"]), Bands.of(given["fused"]))


def test_dark_noise_is_no_spectrum_to_show() -> None:
    cube = scene()
    cube[:, :40] = np.random.default_rng(3).normal(0, 0.05, (NM.size, 40, 128))
    given = images(cube)
    for spot in choose_spots(Bands.of(given["hsi"]), Bands.of(given["fused"])):
        assert spot.row >= 40


def test_one_band_that_sticks_out_does_not_set_the_scale() -> None:
    curve = np.linspace(1.0, 2.0, 400)
    curve[200] = 500.0
    low, high = _range([curve], [np.array([2.5, np.nan])])
    assert -1 < low < 0
    assert 2.5 < high < 3


def test_lines_break_at_gaps_and_bad_bands() -> None:
    flags = np.ones(NM.size)
    flags[[20, 21]] = 0
    bands = Bands.of(source(scene(8, 8), wavelength=NM, good=flags))
    x, y = broken_line(bands, np.arange(NM.size, dtype=float), True)
    breaks = np.flatnonzero(np.isnan(x))
    assert len(breaks) == 2
    assert np.array_equal(np.isnan(x), np.isnan(y))
    assert (x[breaks[0] - 1], x[breaks[0] + 1]) == (NM[19], NM[22])
    assert (x[breaks[1] - 1], x[breaks[1] + 1]) == (1320.0, 1480.0)


def test_true_colour_takes_the_nearest_bands() -> None:
    bands, text = Bands.of(source(scene(8, 8), wavelength=NM)).composite(TRUE_COLOUR)
    assert [NM[b] for b in bands] == [640.0, 540.0, 480.0]
    assert text == "true colour: 640, 540, 480 nm"
    _, text = Bands.of(source(scene(8, 8), wavelength=NM + 800)).composite(TRUE_COLOUR)
    assert text.startswith("bands ")


def test_stretch_is_of_known_pixels_and_missing_ones_are_clear() -> None:
    cube = np.linspace(0, 100, 300).reshape(3, 10, 10)
    cube[0, 0, 0] = np.nan
    stretch = limits(cube)
    np.testing.assert_allclose(stretch[:, 2], np.percentile(cube[2], (2, 98)))
    colour = rgba(cube, stretch)
    assert colour.shape == (10, 10, 4)
    assert colour[0, 0, 3] == 0
    assert colour[1:, :, 3].all()
    assert colour.min() == 0
    assert colour.max() == 1
