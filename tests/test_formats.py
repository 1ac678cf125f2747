"""Zarr, NetCDF and ENVI products: the same values, place and bands as the COG of the same run, read by others."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import typing
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 (it registers the accessor)
import xarray as xr
import zarr
from affine import Affine
from click.testing import CliRunner, Result
from rasterio.crs import CRS
from rasterio.env import Env

from csakd_geo.cli import main
from csakd_geo.cli.fuse import fuse as fuse_command
from csakd_geo.errors import InputError, OutputError
from csakd_geo.evaluate import evaluate
from csakd_geo.io import open_source
from csakd_geo.io.cog import RasterSpec
from csakd_geo.io.encoding import Encoding
from csakd_geo.io.formats import FORMATS, find_format
from csakd_geo.io.mosaic import Mosaic
from csakd_geo.io.placing import place
from csakd_geo.options import FuseOptions
from csakd_geo.spectral import SpectralAxis

FAST = ("--method", "regression", "--shift", "none", "--tile", "16", "--supertile", "32", "--quiet")
OTHERS = ("zarr", "zarr2", "netcdf", "envi")
SUFFIX = {"cog": ".tif", "zarr": ".zarr", "zarr2": ".zarr", "netcdf": ".nc", "envi": ".img"}
BAD = 6  # 1-based: no data anywhere
HOLE = (slice(16, 24), slice(40, 48))


def call(hsi: Path, msi: Path, target: Path, *args: str | Path) -> Result:
    return CliRunner().invoke(main, ["fuse", str(hsi), str(msi), "-o", str(target), *map(str, args)])


#: Band 6 of the pair is dead, and every run says so.
DEAD_BAND = "Warning: 'hsi.tif' has no data or one value nearly everywhere in band 6 (582 nm), left out."


def refused(result: Result, *words: str) -> None:
    """One sentence with these words, and nothing else but the warning of the pair's dead band."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    said = [line for line in result.stderr.strip().splitlines() if line != DEAD_BAND]
    assert len(said) == 1, result.stderr
    assert said[0].startswith("Error: ")
    for word in words:
        assert word in said[0]


def content(path: Path) -> dict[str, bytes]:
    """All bytes of a file or folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path.parent)): p.read_bytes() for p in files}


@dataclass(frozen=True)
class Runs:
    """One pair, fused into every format."""

    hsi: Path
    msi: Path
    truth: Path
    folder: Path
    said: dict[str, str]

    def target(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX[name]}"

    def expected(self) -> np.ndarray:
        """Physical values of the COG, by rasterio."""
        with rasterio.open(self.target("cog")) as src:
            stored = src.read(masked=True).astype(np.float64)
            return (stored * src.scales[0] + src.offsets[0]).filled(np.nan)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("formats")
    pair = made.make_pair(folder, bands=18, height=72, width=88)
    with rasterio.open(pair.hsi, "r+") as src:
        cube = src.read()
        cube[BAD - 1] = np.nan
        src.write(cube)
        src.units = ("reflectance",) * src.count
    with rasterio.open(pair.msi, "r+") as src:
        cube = src.read()
        cube[:, *HOLE] = np.nan
        src.write(cube)
    truth = made.write(folder / "truth.tif", pair.truth, wavelength=pair.wavelength)
    runs = Runs(pair.hsi, pair.msi, truth, folder, {})
    for name in FORMATS:
        more = ("--format", name) if name == "zarr2" else ()
        done = call(
            pair.hsi,
            pair.msi,
            runs.target(name),
            *FAST,
            *more,
            "--quicklook",
            "--truth",
            truth,
            "--overwrite",
        )
        assert done.exit_code == 0, done.output
        runs.said[name] = done.stdout
    return runs


def gdal_reads(driver: str) -> bool:
    with Env() as env:
        return driver in env.drivers()


# ------------------------------------------------------------------------------------- as others see it


@pytest.mark.parametrize("name", ["zarr", "zarr2", "netcdf"])
def test_xarray_reads_the_same(name: str, runs: Runs) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", "Use `@` matmul", PendingDeprecationWarning)
        if name == "netcdf":
            dataset = xr.open_dataset(runs.target(name), engine="h5netcdf")
        else:
            dataset = xr.open_zarr(str(runs.target(name)))
        array = dataset["fused"].load()
        assert array.rio.crs == CRS.from_string(made.CRS)
        assert array.rio.transform(recalc=True).almost_equals(array.rio.transform())
    assert array.dims == ("band", "y", "x")
    np.testing.assert_allclose(array.values, runs.expected(), rtol=0, atol=1e-9)
    assert array.rio.transform() == Affine(10, 0, made.LEFT, 0, -10, made.TOP)
    assert (float(array.x[0]), float(array.y[0])) == (made.LEFT + 5, made.TOP - 5)
    np.testing.assert_allclose(array.wavelength, np.linspace(450, 900, 18), atol=0.01)
    assert array.wavelength.attrs == {"units": "nm", "standard_name": "radiation_wavelength"}
    assert array.x.attrs["standard_name"] == "projection_x_coordinate"
    assert array.fwhm.values.tolist() == [20] * 18
    assert np.flatnonzero(array.good == 0).tolist() == [BAD - 1]
    assert array.band.values.tolist() == list(range(1, 19))
    assert (array.attrs["units"], array.attrs["quantity"]) == ("1", "reflectance")
    assert (array.encoding["dtype"], array.encoding["_FillValue"]) == (np.dtype("int16"), -32768)
    assert dataset.attrs["Conventions"].startswith("CF-")
    assert json.loads(dataset.attrs["CSAKD_GEO_OPTIONS"])["format"] == name
    assert dataset.attrs["CSAKD_GEO_METHOD"] == "regression"


@pytest.mark.parametrize(("name", "driver"), [("zarr2", "Zarr"), ("netcdf", "netCDF"), ("envi", "ENVI")])
def test_gdal_reads_the_same(name: str, driver: str, runs: Runs) -> None:
    if not gdal_reads(driver):
        pytest.skip(f"this GDAL has no {driver} driver")
    with rasterio.open(runs.target(name)) as src:
        assert (src.driver, src.count, src.shape) == (driver, 18, (72, 88))
        assert src.crs.to_epsg() == 32633
        assert src.transform == Affine(10, 0, made.LEFT, 0, -10, made.TOP)
        stored = src.read(masked=True).astype(np.float64)
        found = (stored * np.reshape(src.scales, (-1, 1, 1))).filled(np.nan)
    np.testing.assert_allclose(found, runs.expected(), rtol=0, atol=1e-9)


def test_envi_header_says_everything(runs: Runs) -> None:
    text = runs.target("envi").with_suffix(".hdr").read_text()
    fields = dict(line.split(" = ", 1) for line in text.replace(",\n", ",").splitlines() if " = " in line)
    assert text.startswith("ENVI\n")
    assert (fields["interleave"], fields["data type"], fields["data ignore value"]) == ("bsq", "2", "-32768")
    waves = np.fromstring(fields["wavelength"].strip("{}"), sep=",")
    np.testing.assert_allclose(waves, np.linspace(450, 900, 18), atol=0.01)
    assert fields["wavelength units"] == "Nanometers"
    assert fields["fwhm"] == "{" + ", ".join(["20"] * 18) + "}"
    assert fields["bbl"].count("0") == 1
    assert fields["bbl"].strip("{}").split(", ")[BAD - 1] == "0"
    assert fields["reflectance scale factor"] == "10000"
    assert fields["map info"].startswith("{UTM, 1, 1, 500000, 5800000, 10, 10, 33, North")
    assert "UTM_Zone_33N" in fields["coordinate system string"]
    with rasterio.open(runs.target("envi")) as src:
        assert src.tags()["CSAKD_GEO_METHOD"] == "regression"


def test_zarr_v2_is_consolidated_and_without_shards(runs: Runs) -> None:
    target = runs.target("zarr2")
    assert "fused/.zarray" in json.loads((target / ".zmetadata").read_text())["metadata"]
    array = zarr.open_group(str(target), mode="r", zarr_format=2)["fused"]
    assert (array.chunks, array.shards, array.metadata.compressor.codec_id) == ((16, 72, 88), None, "zstd")


# ------------------------------------------------------------------------------------ as we read it back


@pytest.mark.parametrize("name", OTHERS)
def test_open_source_reads_the_same(name: str, runs: Runs) -> None:
    cog, found = open_source(runs.target("cog")), open_source(runs.target(name))
    assert (found.height, found.width, found.crs, found.transform) == (72, 88, cog.crs, cog.transform)
    assert (found.dtype, found.nodata, found.units) == ("int16", -32768, "reflectance")
    assert (found.axis.names, found.integer) == (cog.axis.names, True)
    np.testing.assert_allclose(found.axis.wavelength, cog.axis.wavelength, rtol=1e-6)
    np.testing.assert_array_equal(found.axis.good, cog.axis.good)
    np.testing.assert_array_equal(found.axis.fwhm, cog.axis.fwhm)
    for window in ((0, 0, 72, 88), (15, 37, 11, 7)):
        np.testing.assert_array_equal(found.read(*window), cog.read(*window))
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.read(3, 4, 5, 6, bands=[7, 2]), cog.read(3, 4, 5, 6, bands=[7, 2]))
    holed = np.isnan(found.read(0, 0, 72, 88, bands=[0])[0])
    assert holed[HOLE].all()
    assert holed.sum() == 64
    assert np.isnan(found.read(0, 0, 72, 88, bands=[BAD - 1])).all()


@pytest.mark.parametrize("name", OTHERS)
def test_scores_pictures_and_info_are_those_of_the_cog(name: str, runs: Runs) -> None:
    def scores(said: str) -> str:
        return said.splitlines()[1].split("against truth")[1]

    assert scores(runs.said[name]) == scores(runs.said["cog"])
    picture = runs.folder / f"{name}.quicklook.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    info = CliRunner().invoke(main, ["info", str(runs.target(name)), "--json"])
    assert info.exit_code == 0, info.output
    facts = json.loads(info.stdout)
    assert (facts["bands"], facts["crs"], facts["driver"]) == (
        18,
        made.CRS,
        {"zarr": "Zarr", "zarr2": "Zarr", "netcdf": "netCDF", "envi": "ENVI"}[name],
    )
    assert facts["wavelength_range"] == pytest.approx([450, 900], abs=0.01)
    assert facts["bad_bands"]["flagged"] == [BAD]
    said = CliRunner().invoke(main, ["evaluate", str(runs.target(name)), str(runs.truth), "--ratio", "4"])
    assert said.exit_code == 0, said.output


@pytest.mark.parametrize("name", OTHERS)
def test_an_input_in_any_format(name: str, runs: Runs, tmp_path: Path) -> None:
    """The same pixels come out, and a changed input is another request."""
    with rasterio.open(runs.hsi) as src:
        axis = open_source(runs.hsi).axis
        spec = RasterSpec(
            src.height, src.width, src.transform, src.crs, axis, Encoding("float32"), "reflectance"
        )
        hsi = write(name, tmp_path / f"hsi{SUFFIX[name]}", spec, [(0, 0, src.read())])
    target = tmp_path / "fused.tif"
    done = call(hsi, runs.msi, target, *FAST)
    assert done.exit_code == 0, done.output
    with rasterio.open(target) as found, rasterio.open(runs.target("cog")) as expected:
        np.testing.assert_array_equal(found.read(), expected.read())
    os.utime(hsi / ("zarr.json" if name == "zarr" else ".zgroup") if hsi.is_dir() else hsi, (1, 1))
    refused(call(hsi, runs.msi, target, *FAST, "--resume"), "made with other settings")


@pytest.mark.parametrize("name", ["zarr", "zarr2", "netcdf"])
def test_damage_is_told(name: str, runs: Runs, tmp_path: Path) -> None:
    copy = tmp_path / runs.target(name).name
    if name == "netcdf":
        raw = bytearray(runs.target(name).read_bytes())
        raw[len(raw) // 3 : 2 * len(raw) // 3] = bytes(2 * len(raw) // 3 - len(raw) // 3)
        copy.write_bytes(raw)
    else:
        shutil.copytree(runs.target(name), copy)
        largest = max((p for p in copy.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:100])
    with pytest.raises(InputError, match=copy.name):
        open_source(copy).read(0, 0, 72, 88)


def test_a_folder_without_an_image_is_told(tmp_path: Path) -> None:
    xr.Dataset({"a": ("t", np.zeros(3))}).to_zarr(str(tmp_path / "a.zarr"), zarr_format=2)
    with pytest.raises(InputError, match="no image"):
        open_source(tmp_path / "a.zarr")
    with pytest.raises(InputError, match="is a folder"):
        open_source(tmp_path)
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match=r"b\.zarr"):
        open_source(tmp_path / "b.zarr")


# -------------------------------------------------------------------------------- resume and what is kept


@pytest.mark.parametrize("name", OTHERS)
def test_a_finished_product_is_left_alone(name: str, runs: Runs) -> None:
    target, more = runs.target(name), ("--format", name)
    before = content(target)
    again = call(runs.hsi, runs.msi, target, *FAST, *more, "--resume")
    assert again.exit_code == 0, again.output
    assert "nothing to do" in again.stdout
    other = call(runs.hsi, runs.msi, target, *FAST, *more, "--resume", "--dtype", "float32")
    refused(other, "made with other settings; give --overwrite")
    if name.startswith("zarr"):
        form = {"zarr": "zarr2", "zarr2": "zarr"}[name]
        other = call(runs.hsi, runs.msi, target, *FAST, "--format", form, "--resume")
        refused(other, "made with other settings")
    refused(call(runs.hsi, runs.msi, target, *FAST, *more), "exists; give --overwrite")
    assert content(target) == before


@pytest.mark.parametrize("stop", ["full", "interrupt", "rename"])
@pytest.mark.parametrize("name", OTHERS)
def test_the_target_is_kept_when_writing_fails(
    name: str, stop: str, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / runs.target(name).name
    for path in FORMATS[name].files(runs.target(name)):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    before = content(tmp_path)
    more = (*FAST, "--format", name, "--dtype", "float32", "--overwrite")
    with monkeypatch.context() as patch:
        if stop == "rename":
            patch.setattr("csakd_geo.io.placing.os.replace", replace_failing(FORMATS[name].files(target)[-1]))
        else:
            error: BaseException = (
                KeyboardInterrupt()
                if stop == "interrupt"
                else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            )
            patch.setattr(Mosaic, "read", failing(error))
        result = call(runs.hsi, runs.msi, target, *more)
    words = {"full": "disk is full", "interrupt": "Stopped on request", "rename": "was not written"}[stop]
    refused(result, words, "--resume goes on")
    left = {path: data for path, data in content(tmp_path).items() if ".part" not in path}
    assert left == before
    done = call(runs.hsi, runs.msi, target, *more, "--resume")
    assert done.exit_code == 0, done.output
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in FORMATS[name].files(target)}
    source = open_source(target)
    assert source.dtype == "float32"
    found = source.read(0, 0, 72, 88)
    np.testing.assert_allclose(found, runs.expected(), rtol=0, atol=0.6e-4)


def failing(error: BaseException) -> Callable[..., Any]:
    """Raises once something has been written."""
    real, calls = Mosaic.read, []

    def read(self: Mosaic, window: Any) -> Any:
        calls.append(window)
        if len(calls) > 1:
            raise error
        return real(self, window)

    return read


def replace_failing(place: Path) -> Callable[..., None]:
    """As os.replace, but what is new never reaches this place."""
    real = os.replace

    def replace(source: Any, there: Any) -> None:
        if Path(there) == place and not Path(source).name.startswith("old-"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, there)

    return replace


def test_half_of_a_set_of_files_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("new-a", "new-b", "a", "b", "aside"):
        (tmp_path / name).write_text(name) if name != "aside" else (tmp_path / name).mkdir()
    moves = [(tmp_path / f"new-{k}", tmp_path / k) for k in "ab"]
    with monkeypatch.context() as patch:
        patch.setattr("csakd_geo.io.placing.os.replace", replace_failing(tmp_path / "b"))
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            place(moves, aside=tmp_path / "aside")
    assert [(tmp_path / k).read_text() for k in ("a", "b", "new-a", "new-b")] == ["a", "b", "new-a", "new-b"]
    place(moves, aside=tmp_path / "aside")
    assert [(tmp_path / k).read_text() for k in "ab"] == ["new-a", "new-b"]


# --------------------------------------------------------------------------------------- names and refusals


def test_options_know_all_formats() -> None:
    choice = next(p for p in fuse_command.params if p.name == "format")
    literal = typing.get_args(typing.get_args(FuseOptions.model_fields["format"].annotation)[0])
    assert list(choice.type.choices) == list(literal) == list(FORMATS)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("a.tif", "cog"),
        ("a.TIFF", "cog"),
        ("a.zarr", "zarr"),
        ("a.nc", "netcdf"),
        ("a.img", "envi"),
        ("a.dat", "envi"),
    ],
)
def test_the_suffix_says_which(target: str, name: str) -> None:
    assert find_format(Path(target)).name == name
    assert find_format(Path(target), "zarr2").name == "zarr2"


def test_unknown_suffix_and_format(runs: Runs, tmp_path: Path) -> None:
    words = (".tif or .tiff (cog)", ".zarr (zarr)", ".nc (netcdf)", ".img or .dat (envi)", "--format")
    refused(call(runs.hsi, runs.msi, tmp_path / "fused.png"), "'fused.png'", *words)
    refused(call(runs.hsi, runs.msi, tmp_path / "fused.png", "--dry-run"), "'fused.png'", *words)
    refused(call(runs.hsi, runs.msi, tmp_path / "fused"), "'fused'", *words)
    assert call(runs.hsi, runs.msi, tmp_path / "fused", "--format", "hdf").exit_code == 2
    config = tmp_path / "fuse.yaml"
    config.write_text("format: hdf\n")
    refused(call(runs.hsi, runs.msi, tmp_path / "fused", "--config", config), "'format'", "'hdf'")
    refused(call(runs.hsi, runs.msi, Path("s3://bucket/fused.tif")), "'s3://bucket/fused.tif' is an address")
    with pytest.raises(OutputError, match="cog, zarr, zarr2, netcdf, envi"):
        find_format(Path("a.tif"), "hdf")
    assert {p.name for p in tmp_path.iterdir()} == {"fuse.yaml"}


def test_format_by_name(runs: Runs, tmp_path: Path) -> None:
    done = call(runs.hsi, runs.msi, tmp_path / "fused", *FAST, "--format", "envi")
    assert done.exit_code == 0, done.output
    assert {p.name for p in tmp_path.iterdir()} == {"fused", "fused.hdr", "fused.aux.xml"}
    assert open_source(tmp_path / "fused").axis.has_wavelengths


def test_what_must_not_be_overwritten(runs: Runs, tmp_path: Path) -> None:
    mine = tmp_path / "mine.zarr"
    mine.mkdir()
    (mine / "letter.txt").write_text("mine")
    refused(call(runs.hsi, runs.msi, mine, "--overwrite"), "is a folder")
    refused(call(runs.hsi, runs.msi, mine, "--format", "zarr", "--overwrite"), "is a folder")
    assert (mine / "letter.txt").read_text() == "mine"
    store = tmp_path / "store.zarr"
    shutil.copytree(runs.target("zarr"), store)
    refused(call(runs.hsi, runs.msi, store, "--format", "netcdf", "--overwrite"), "is a folder")
    refused(call(store, runs.msi, store, "--overwrite"), "one of the inputs")
    header = tmp_path / "fused.hdr"
    header.write_text("mine")
    refused(call(runs.hsi, runs.msi, tmp_path / "fused.img"), "fused.hdr' exists")
    shutil.copy(runs.target("envi"), tmp_path / "a.dat")
    shutil.copy(runs.target("envi").with_suffix(".hdr"), tmp_path / "a.hdr")
    refused(
        call(tmp_path / "a.dat", runs.msi, tmp_path / "a.img", "--overwrite"), "a.hdr' is one of the inputs"
    )
    refused(call(runs.hsi, runs.msi, tmp_path / "b.hdr", "--format", "envi"), "its own header")


# ------------------------------------------------------------------------------------- the writers by themselves


def sized(
    bands: int = 20, height: int = 300, width: int = 530, dtype: str = "int16", **changes: Any
) -> tuple[RasterSpec, np.ndarray]:
    """A product larger than a chunk each way, and its encoded values."""
    rng = np.random.default_rng(4)
    encoding = {
        "int16": Encoding("int16", (1e-4,), (0.0,), -32768),
        "uint16": Encoding("uint16", (0.01,), (-5.0,), 65535),
        "float32": Encoding("float32"),
    }[dtype]
    axis = SpectralAxis.build(
        np.linspace(400.125, 2450, bands), fwhm=np.full(bands, 8.5), good=np.arange(bands) != 3
    )
    spec = RasterSpec(
        height=height,
        width=width,
        transform=Affine(0.5, 0, 123456.25, 0, -0.5, 4567890.75),
        crs=CRS.from_epsg(32719),
        axis=axis,
        encoding=encoding,
        tags={"CSAKD_GEO_NOTE": '{"a": {"b": [1, 2]}}'},
    )
    values = rng.integers(0, 10000, (bands, height, width)).astype(dtype)
    return replace(spec, **changes), values


def cut(values: np.ndarray, side: int, *, first: int = 0) -> list[tuple[int, int, np.ndarray]]:
    """Blocks of one lattice of which the first row and column are short."""
    starts = [sorted({0, *range(first or side, n, side)}) for n in values.shape[1:]]
    ends = [[*s[1:], n] for s, n in zip(starts, values.shape[1:], strict=True)]
    return [
        (r0, c0, values[:, r0:r1, c0:c1])
        for r0, r1 in zip(starts[0], ends[0], strict=True)
        for c0, c1 in zip(starts[1], ends[1], strict=True)
    ]


def write(name: str, target: Path, spec: RasterSpec, blocks: Any) -> Path:
    work = target.parent / "work"
    work.mkdir(exist_ok=True)
    FORMATS[name].write(target, spec, blocks, workdir=work)
    assert list(work.iterdir()) == []
    work.rmdir()
    return target


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
@pytest.mark.parametrize("name", OTHERS)
def test_any_lattice_and_type(name: str, dtype: str, tmp_path: Path) -> None:
    spec, values = sized(dtype=dtype)
    values[:, 7, 9] = spec.encoding.nodata
    blocks = cut(values, 128, first=52)
    missing = blocks.pop(5)
    expected = values.copy()
    rows, cols = missing[0] + np.arange(missing[2].shape[1]), missing[1] + np.arange(missing[2].shape[2])
    expected[:, rows[:, None], cols] = spec.encoding.nodata
    target = write(name, tmp_path / f"a{SUFFIX[name]}", spec, iter(blocks))
    source = open_source(target)
    assert (source.dtype, source.crs, source.transform) == (dtype, spec.crs, spec.transform)
    np.testing.assert_allclose(source.axis.wavelength, spec.axis.wavelength, rtol=1e-9)
    np.testing.assert_array_equal(source.axis.good, spec.axis.good)
    np.testing.assert_array_equal(source.read(0, 0, 300, 530), spec.encoding.decode(expected))
    assert FORMATS[name].tags(target)["CSAKD_GEO_NOTE"] == spec.tags["CSAKD_GEO_NOTE"]


def test_shards_are_written_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write of less than a shard would read it and write it again."""
    seen: list[tuple[slice, ...]] = []
    real = zarr.Array.__setitem__

    def setitem(self: zarr.Array, key: Any, value: Any) -> None:
        if self.ndim == 3:
            seen.append(key)
        real(self, key, value)

    monkeypatch.setattr(zarr.Array, "__setitem__", setitem)
    spec, values = sized(height=600)
    target = write("zarr", tmp_path / "a.zarr", spec, cut(values, 400, first=77))
    array = zarr.open_group(str(target), mode="r")["fused"]
    assert (array.chunks, array.shards) == ((16, 256, 256), (32, 512, 512))
    tops, lefts = ([k[axis].start for k in seen] for axis in (1, 2))
    assert list(zip(tops, lefts, strict=True)) == [(0, 0), (0, 512), (512, 0), (512, 512)]
    assert [(k[1].stop, k[2].stop) for k in seen] == [(512, 512), (512, 530), (600, 512), (600, 530)]
    assert all(k[0] == slice(None) for k in seen)
    assert len([p for p in (target / "fused" / "c").rglob("*") if p.is_file()]) == 4
    np.testing.assert_array_equal(array[:], values)


@pytest.mark.parametrize("name", OTHERS)
def test_scales_that_differ_between_bands(name: str, tmp_path: Path) -> None:
    spec, values = sized(bands=3, height=20, width=30)
    encoding = Encoding("int16", (0.1, 0.25, 2.0), (0.0, 3.0, -1.0), -32768)
    spec = replace(spec, encoding=encoding)
    values[1, 2, 3] = -32768
    source = open_source(write(name, tmp_path / f"a{SUFFIX[name]}", spec, [(0, 0, values)]))
    assert source.dtype == ("int16" if name == "envi" else "float32")
    np.testing.assert_array_equal(source.read(0, 0, 20, 30), encoding.decode(values))


@pytest.mark.parametrize("name", OTHERS)
def test_neither_crs_nor_wavelengths(name: str, tmp_path: Path) -> None:
    spec, values = sized(bands=2, height=9, width=1, crs=None, axis=SpectralAxis.unknown(2), tags={})
    source = open_source(write(name, tmp_path / f"a{SUFFIX[name]}", spec, [(0, 0, values)]))
    assert (source.crs, source.transform, source.units) == (None, spec.transform, "")
    assert np.isnan(source.axis.wavelength).all()
    np.testing.assert_array_equal(source.read(0, 0, 9, 1), spec.encoding.decode(values))


@pytest.mark.parametrize("name", OTHERS)
def test_degrees_and_radiance(name: str, tmp_path: Path) -> None:
    place = Affine(0.25e-3, 0, 13.5, 0, -0.25e-3, 52.5)
    spec, values = sized(
        bands=2, height=9, width=8, crs=CRS.from_epsg(4326), transform=place, units="radiance"
    )
    target = write(name, tmp_path / f"a{SUFFIX[name]}", spec, [(0, 0, values)])
    source = open_source(target)
    assert (source.crs, source.units) == (CRS.from_epsg(4326), "radiance")
    assert source.transform.almost_equals(place, 1e-12)
    np.testing.assert_array_equal(source.read(0, 0, 9, 8), spec.encoding.decode(values))
    if name == "netcdf":
        with xr.open_dataset(target, engine="h5netcdf") as found:
            assert (found.x.attrs["units"], found.y.attrs["standard_name"]) == ("degrees_east", "latitude")
    if name == "envi":
        assert "reflectance scale factor" not in target.with_suffix(".hdr").read_text()


@pytest.mark.parametrize("name", OTHERS)
def test_a_block_that_does_not_fit(name: str, tmp_path: Path) -> None:
    spec, values = sized(bands=2, height=20, width=30)
    target = tmp_path / f"a{SUFFIX[name]}"
    for row, col, block in ((1, 0, values), (0, 0, values[:1]), (0, 0, values.astype(np.int32))):
        with pytest.raises(OutputError, match="does not fit"):
            write(name, target, spec, [(row, col, block)])
        assert [p.name for p in tmp_path.iterdir() if p.name != "work"] == []


@pytest.mark.parametrize("name", OTHERS)
def test_lost_pixels_are_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read back is compared with what was to be written."""
    spec, values = sized(bands=2, height=20, width=30)
    real, calls = Mosaic.read, []

    def read(self: Mosaic, window: Any) -> Any:
        calls.append(window)
        found = real(self, window)
        return found + (len(calls) == 1)

    monkeypatch.setattr(Mosaic, "read", lambda self, window: read(self, window).astype(np.int16))
    with pytest.raises(OutputError, match="pixels differ"):
        write(name, tmp_path / f"a{SUFFIX[name]}", spec, [(0, 0, values)])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("name", OTHERS)
def test_a_disk_that_really_runs_full(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        spec, values = sized()
        monkeypatch.setattr(shutil, "disk_usage", lambda path: type("usage", (), {"free": 10**12}))
        target = small / f"a{SUFFIX[name]}"
        with pytest.raises(OutputError, match="disk is full"):
            write(name, target, spec, cut(values, 128))
        assert [p.name for p in small.iterdir()] == ["work"]
        assert list((small / "work").iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_evaluate_sees_one_cube_in_two_formats(runs: Runs) -> None:
    found = evaluate(runs.target("zarr"), runs.target("netcdf"), ratio=4)
    assert found.scores.rmse == 0
