"""The QGIS plugin: installed into a profile, run by Debian's QGIS without a screen, held against the CLI."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from matplotlib.image import imread
from shapely.geometry import box

from csakd_geo import __version__
from csakd_geo.cli import main
from csakd_geo.cli.align import align
from csakd_geo.cli.fuse import fuse
from csakd_geo.methods import method_table
from csakd_geo.simulate import SimulatedPaths

SOURCE = Path(__file__).resolve().parents[1] / "csakd_geo" / "qgis"
SESSION = Path(__file__).with_name("qgis_session.py")
SYSTEM_PYTHON = "/usr/bin/python3"


def load(name: str) -> ModuleType:
    """A module of the plugin that does without QGIS, loaded as a file: the package never imports it."""
    spec = importlib.util.spec_from_file_location(f"plugin_{name}", SOURCE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def cli(*words: str, ok: bool = True) -> str:
    done = CliRunner().invoke(main, list(words))
    assert (done.exit_code == 0) is ok, done.output
    return done.output


class Qgis:
    """Debian's QGIS with a home of its own, in which the plugin is installed."""

    def __init__(self, home: Path) -> None:
        self.env = {
            **os.environ,
            "PATH": f"/usr/bin:/bin:{os.environ.get('PATH', '')}",  # its own Python comes first
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_RUNTIME_DIR": str(home),
            "QT_QPA_PLATFORM": "offscreen",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(home / "trap"),  # what QGIS has there must not reach the interpreter
            "GDAL_DATA": str(home / "trap"),
        }
        (home / "trap").mkdir()
        (home / "trap" / "csakd_geo.py").write_text("raise SystemExit('the wrong Python path')\n")
        self.profile = home / "data" / "QGIS" / "QGIS3" / "profiles" / "default"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def process(self, *words: str, **values: object) -> subprocess.CompletedProcess[str]:
        given = ["--", *(f"{name}={value}" for name, value in values.items())] if values else []
        return self.run("qgis_process.bin", *words, *given)

    def command(self, *words: object) -> None:
        """Run csakd-geo by itself, with as many threads as QGIS gives it."""
        done = self.run(sys.executable, "-I", "-m", "csakd_geo.cli", *map(str, words))
        assert done.returncode == 0, done.stderr

    def results(self, algorithm: str, **values: object) -> dict[str, Any]:
        done = self.process("--json", "run", algorithm, **values)
        assert done.returncode == 0, done.stdout + done.stderr
        results: dict[str, Any] = json.loads(done.stdout)["results"]
        return results

    def session(self, *words: object) -> dict[str, Any]:
        done = self.run(SYSTEM_PYTHON, str(SESSION), *map(str, words))
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


@pytest.fixture(scope="module")
def qgis(tmp_path_factory: pytest.TempPathFactory) -> Qgis:
    if shutil.which("qgis_process.bin") is None:
        pytest.skip("qgis_process.bin is not there; on Debian, install the packages qgis and qgis-providers")
    made = Qgis(tmp_path_factory.mktemp("home"))
    if not os.path.exists(SYSTEM_PYTHON) or made.run(SYSTEM_PYTHON, "-c", "import qgis.core").returncode:
        pytest.skip(f"{SYSTEM_PYTHON} has no module qgis; on Debian, install the package python3-qgis")
    made.command("qgis", "install")
    return made


@pytest.fixture(scope="module")
def fused(qgis: Qgis, sample: SimulatedPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample fused through QGIS."""
    output = tmp_path_factory.mktemp("fused") / "fused.tif"
    found = qgis.results("csakd:fuse", HSI=sample.hsi, MSI=sample.msi, METHOD="regression", OUTPUT=output)
    assert found == {"OUTPUT": str(output)}
    assert sorted(p.name for p in output.parent.iterdir()) == ["fused.qml", "fused.tif"]
    return output


def same_image(a: Path, b: Path) -> None:
    with rasterio.open(a) as one, rasterio.open(b) as other:
        assert {**one.profile, "nodata": str(one.nodata)} == {**other.profile, "nodata": str(other.nodata)}
        np.testing.assert_array_equal(one.read(), other.read())
        assert [one.tags(i) for i in one.indexes] == [other.tags(i) for i in other.indexes]


@pytest.mark.slow
def test_the_toolbox_lists_the_algorithms(qgis: Qgis) -> None:
    listed = json.loads(qgis.process("--json", "list").stdout)["providers"]["csakd"]
    assert listed["name"] == "CSAKD fusion"
    assert set(listed["algorithms"]) == {"csakd:fuse", "csakd:align", "csakd:info", "csakd:evaluate"}


@pytest.mark.slow
def test_fuse_gives_what_the_command_line_gives(
    qgis: Qgis, fused: Path, sample: SimulatedPaths, tmp_path: Path
) -> None:
    qgis.command("fuse", sample.hsi, sample.msi, "-o", tmp_path / "cli.tif", "--method", "regression")
    same_image(fused, tmp_path / "cli.tif")


@pytest.mark.slow
def test_model_area_and_advanced_parameters_arrive(
    qgis: Qgis, sample: SimulatedPaths, tmp_path: Path
) -> None:
    area = gpd.GeoDataFrame(geometry=[box(498000, 4478000, 499600, 4479900)], crs=32616)
    elsewhere = gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=32616)
    elsewhere.to_file(tmp_path / "areas.gpkg", layer="other")
    area.to_file(tmp_path / "areas.gpkg", layer="wanted")
    area.to_file(tmp_path / "area.gpkg")
    model = "csakd-student-aviris"
    qgis.results(
        "csakd:fuse",
        HSI=sample.hsi,
        MSI=sample.msi,
        MODEL=model,
        AOI=f"{tmp_path}/areas.gpkg|layername=wanted",
        BANDS="500-700nm",
        DTYPE="float32",
        TILE=96,
        OUTPUT=tmp_path / "qgis.tif",
    )
    output = tmp_path / "cli.tif"
    words = ["--bands", "500-700nm", "--dtype", "float32", "--tile", "96", "--model", model]
    qgis.command("fuse", sample.hsi, sample.msi, "-o", output, "--aoi", tmp_path / "area.gpkg", *words)
    same_image(tmp_path / "qgis.tif", output)
    with rasterio.open(sample.hsi) as image:
        wavelength = np.array([float(image.tags(i)["wavelength"]) for i in image.indexes])
    count = int(((wavelength >= 500) & (wavelength <= 700)).sum())
    with rasterio.open(output) as image:
        assert (image.height, image.width, image.count, image.dtypes[0]) == (95, 80, count, "float32")


@pytest.mark.slow
def test_the_style_shows_true_colour(qgis: Qgis, fused: Path, tmp_path: Path) -> None:
    picture = tmp_path / "layer.png"
    shown = qgis.session("draw", fused, picture)
    with rasterio.open(fused) as image:
        wavelength = np.array([float(image.tags(i)["wavelength"]) for i in image.indexes])
        wanted = [int(np.abs(wavelength - nm).argmin()) + 1 for nm in (650, 550, 475)]
        cube = image.read(wanted) * image.scales[0]
    assert shown["renderer"] == "multibandcolor"
    assert shown["bands"] == wanted
    stretch = np.array(shown["stretch"])
    low, high = np.percentile(cube, [1, 3], axis=(1, 2)), np.percentile(cube, [97, 99], axis=(1, 2))
    assert ((stretch[:, 0] >= low[0]) & (stretch[:, 0] <= low[1])).all()
    assert ((stretch[:, 1] >= high[0]) & (stretch[:, 1] <= high[1])).all()
    drawn = imread(picture)[2::4, 2::4, :3].transpose(2, 0, 1)  # four pixels of the picture per pixel
    expected = np.clip((cube - stretch[:, :1, None]) / np.diff(stretch)[:, :, None], 0, 1)
    assert drawn.shape == expected.shape
    assert np.abs(drawn - expected).max() < 0.01


@pytest.mark.slow
def test_the_toolbox_loads_the_result_in_its_style(
    qgis: Qgis, sample: SimulatedPaths, tmp_path: Path
) -> None:
    plugins = qgis.profile / "python" / "plugins"
    for algorithm, values in (("fuse", ["METHOD=bicubic"]), ("align", ["SHIFT=none"])):
        output = tmp_path / f"{algorithm}.tif"
        bands = qgis.session("load", plugins, algorithm, sample.hsi, sample.msi, output, *values)
        assert bands["plain"] == [1, 2, 3]  # Processing alone leaves out the style beside the file
        assert bands["styled"] == [26, 16, 9]


@pytest.mark.slow
def test_layers_are_loaded_with_the_image(qgis: Qgis, sample: SimulatedPaths, tmp_path: Path) -> None:
    plugins, output = qgis.profile / "python" / "plugins", tmp_path / "qgis.tif"
    values = ["METHOD=regression", "UNCERTAINTY=compact", "QUALITY=True"]
    shown = qgis.session("load", plugins, "fuse", sample.hsi, sample.msi, output, *values)
    files = {kind: tmp_path / f"qgis_{kind}.tif" for kind in ("uncertainty", "quality")}
    assert shown["results"] == {
        "OUTPUT": str(output),
        "UNCERTAINTY_LAYER": str(files["uncertainty"]),
        "QUALITY_LAYER": str(files["quality"]),
    }
    kinds = {"qgis_uncertainty": "singlebandgray", "qgis_quality": "paletted"}
    assert shown["beside"] == {name: {"type": kind, "size": [144, 144]} for name, kind in kinds.items()}
    other = tmp_path / "cli.tif"
    words = ["--method", "regression", "--uncertainty", "compact", "--quality"]
    qgis.command("fuse", sample.hsi, sample.msi, "-o", other, *words)
    for kind, path in files.items():
        Path(f"{path}.aux.xml").unlink(missing_ok=True)  # the statistics by which QGIS drew it
        same_image(path, tmp_path / f"cli_{kind}.tif")


@pytest.mark.slow
def test_dialogs_offer_the_formats_that_are_written(qgis: Qgis) -> None:
    offered = qgis.session("offers", qgis.profile / "python" / "plugins")
    kinds = {name: set(re.findall(r"\*\.(\w+)", text)) for name, text in offered.items()}
    assert kinds == {"fuse": {"tif", "img"}, "align": {"tif"}}


@pytest.fixture(scope="module")
def shifted(sample: SimulatedPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's HSI where it says to lie 30 m too far west and 50 m too far north."""
    path = Path(shutil.copy(sample.hsi, tmp_path_factory.mktemp("shifted") / "hsi.tif"))
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as image:
        image.transform = Affine.translation(-30, 50) @ image.transform
    return path


@pytest.mark.slow
@pytest.mark.parametrize("warp", [False, True])
def test_align_gives_what_the_command_line_gives(
    qgis: Qgis, sample: SimulatedPaths, shifted: Path, tmp_path: Path, warp: bool
) -> None:
    output, other = tmp_path / "qgis.tif", tmp_path / "cli.tif"
    found = qgis.results("csakd:align", HSI=shifted, MSI=sample.msi, WARP=warp, OUTPUT=output)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["qgis.qml", "qgis.tif"]
    qgis.command("align", shifted, sample.msi, "-o", other, *(["--warp"] if warp else []))
    same_image(output, other)
    with rasterio.open(sample.hsi) as true, rasterio.open(output) as image:
        told = json.loads(image.tags()["CSAKD_GEO_ALIGNED"])
        assert told["warped"] is warp
        if not warp:
            np.testing.assert_array_equal(image.read(), true.read())
        off = np.subtract(image.transform[2:6:3], true.transform[2:6:3])
    assert found == {"OUTPUT": str(output), "SHIFT_X": told["shift"][0], "SHIFT_Y": told["shift"][1]}
    assert (found["SHIFT_X"], found["SHIFT_Y"]) == pytest.approx((30, -50), abs=4)  # 0.05 HSI pixels
    assert np.abs(off).max() < (1e-6 if warp else 4)


@pytest.mark.slow
def test_parameters_of_align_arrive(qgis: Qgis, sample: SimulatedPaths, tmp_path: Path) -> None:
    found = qgis.results(
        "csakd:align", HSI=sample.hsi, MSI=sample.msi, SHIFT="-20,7.5", OUTPUT=tmp_path / "aligned.tif"
    )
    assert (found["SHIFT_X"], found["SHIFT_Y"]) == (-20, 7.5)
    for values, sentence in (
        ({"RATIO": 3, "SHIFT": "none"}, "ratio"),
        ({"WAVELENGTHS": sample.msi}, "the band list given has 4 bands"),
        ({"OUTPUT": tmp_path / "refused.img"}, "must end in .tif or .tiff"),
    ):
        output = tmp_path / "refused.tif"
        given = {"HSI": sample.hsi, "MSI": sample.msi, "OUTPUT": output, **values}
        done = qgis.process("run", "csakd:align", **given)
        assert done.returncode == 1
        assert sentence in done.stderr.lower()
        assert "Traceback" not in done.stderr + done.stdout
        assert sorted(p.name for p in tmp_path.iterdir()) == ["aligned.qml", "aligned.tif"]


@pytest.mark.slow
def test_cancel_stops_gently_and_leaves_the_target(
    qgis: Qgis, sample: SimulatedPaths, tmp_path: Path
) -> None:
    output = tmp_path / "fused.tif"
    output.write_bytes(b"what was there")
    answer = qgis.session("cancel", qgis.profile / "python" / "plugins", sample.hsi, sample.msi, output)
    assert answer["results"] == {}
    assert answer["said"][-1].startswith(f"Stopped on request; '{output}' is as it was")
    assert answer["seconds"] < 15  # after 20 it would have been ended by force
    assert output.read_bytes() == b"what was there"
    assert not output.with_suffix(".qml").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"MSI": "/nowhere/msi.tif"}, "'/nowhere/msi.tif' does not exist"),
        ({"METHOD": "magic"}, "Incorrect parameter value for METHOD"),
        ({"SHIFT": "far"}, "expected auto, none or two finite numbers DX,DY"),
    ],
)
def test_a_failing_run_exits_1_with_the_sentence(
    qgis: Qgis, sample: SimulatedPaths, tmp_path: Path, values: dict[str, str], sentence: str
) -> None:
    output = tmp_path / "fused.tif"
    done = qgis.process(
        "run", "csakd:fuse", **{"HSI": sample.hsi, "MSI": sample.msi, "OUTPUT": output, **values}
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not output.exists()


@pytest.mark.slow
def test_info_and_evaluate_return_the_numbers(
    qgis: Qgis, fused: Path, sample: SimulatedPaths, tmp_path: Path
) -> None:
    page = tmp_path / "info.html"
    facts = qgis.results("csakd:info", IMAGE=fused, OUTPUT=page)
    assert facts == {
        "BANDS": 200,
        "GOOD_BANDS": 200,
        "WIDTH": 144,
        "HEIGHT": 144,
        "CRS": "EPSG:32616",
        "OUTPUT": str(page),
    }
    assert "<th align='left'>Wavelength range</th><td>400.02, 2489.11</td>" in page.read_text("utf-8")
    scores = qgis.results("csakd:evaluate", FUSED=fused, TRUTH=sample.truth, RATIO=4)
    told = json.loads(cli_stdout("evaluate", str(fused), str(sample.truth), "--ratio", "4", "--json"))[
        "scores"
    ]
    assert {name.lower(): value for name, value in scores.items()} == pytest.approx(told)


@pytest.mark.slow
def test_evaluate_does_without_a_truth(
    qgis: Qgis, fused: Path, sample: SimulatedPaths, tmp_path: Path
) -> None:
    page = tmp_path / "scores.html"
    scores = qgis.results("csakd:evaluate", FUSED=fused, HSI=sample.hsi, MSI=sample.msi, OUTPUT=page)
    assert scores.pop("OUTPUT") == str(page)
    words = ["evaluate", str(fused), "--hsi", str(sample.hsi), "--msi", str(sample.msi), "--json"]
    told = json.loads(cli_stdout(*words))["scores"]
    assert {name.lower(): value for name, value in scores.items()} == pytest.approx(told)
    assert scores["HQNR"] == pytest.approx((1 - scores["D_LAMBDA"]) * (1 - scores["D_S"]))
    text = page.read_text("utf-8")
    assert f"<h3>fused.tif against {sample.hsi.name} and {sample.msi.name}</h3>" in text
    assert f"<th align='left'>HQNR</th><td>{told['hqnr']:.6g}</td>" in text
    for values in ({}, {"HSI": sample.hsi}, {"TRUTH": sample.truth, "MSI": sample.msi}):
        done = qgis.process("run", "csakd:evaluate", FUSED=fused, **values)
        assert done.returncode == 1
        assert "Give either a true image, or both the HSI and the MSI" in done.stderr
        assert "Traceback" not in done.stderr + done.stdout


def cli_stdout(*words: str) -> str:
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setup", "sentence"),
    [
        (None, "does not know where csakd-geo is installed; run 'csakd-geo qgis install'"),
        ({"python": "/gone/python"}, "'/gone/python' is gone; run 'csakd-geo qgis install'"),
    ],
)
def test_without_an_interpreter_one_sentence(
    qgis: Qgis, sample: SimulatedPaths, setup: dict[str, str] | None, sentence: str
) -> None:
    path = qgis.profile / "python" / "plugins" / "csakd" / "setup.json"
    whole = path.read_text("utf-8")
    try:
        path.unlink()
        if setup is not None:
            path.write_text(json.dumps({**json.loads(whole), **setup}), "utf-8")
        done = qgis.process("run", "csakd:info", IMAGE=sample.hsi)
    finally:
        path.write_text(whole, "utf-8")
    assert done.returncode == 1
    assert sentence in done.stdout + done.stderr


# Without QGIS


def test_install_is_whole_and_repeatable(tmp_path: Path) -> None:
    profile = tmp_path / "made" / "profile"
    for _ in range(2):
        target = Path(
            cli("qgis", "install", "--profile", str(profile)).splitlines()[0].removeprefix("plugin: ")
        )
        assert target == profile / "python" / "plugins" / "csakd"
        shipped = {p.name for p in SOURCE.iterdir() if p.name != "__pycache__"}
        assert {p.name for p in target.iterdir()} == shipped | {"setup.json"}
        metadata = (target / "metadata.txt").read_text("utf-8").splitlines()
        assert f"version={__version__}" in metadata
        assert "hasProcessingProvider=yes" in metadata
        setup = json.loads((target / "setup.json").read_text("utf-8"))
        assert setup["python"] == sys.executable
        assert setup["methods"] == ["auto", *(name for name, _, _ in method_table())]
        assert (profile / "QGIS" / "QGIS3.ini").read_bytes() == b"[PythonPlugins]\ncsakd=true\n"
        assert [p.name for p in target.parent.iterdir()] == ["csakd"]
    known = load("installed").read_installed(target)
    assert (known.problem, known.models) == ("", ["csakd-student-aviris"])
    assert cli("qgis", "uninstall", "--profile", str(profile)) == f"removed: {target}\n"
    assert not target.exists()
    assert "There is no plugin to remove" in cli("qgis", "uninstall", "--profile", str(profile), ok=False)


def test_install_keeps_the_settings(tmp_path: Path) -> None:
    settings = tmp_path / "p" / "QGIS" / "QGIS3.ini"
    settings.parent.mkdir(parents=True)
    before = (
        b"[General]\nname=\xe9\n\n[PythonPlugins]\ncsakd=false\nother=true\n\n[qgis]\nx=@ByteArray(\\0)\n"
    )
    settings.write_bytes(before)
    cli("qgis", "install", "--profile", str(tmp_path / "p"))
    assert settings.read_bytes() == before.replace(b"csakd=false", b"csakd=true")


def test_profiles_by_name_and_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from csakd_geo.cli.qgis import find_profile

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    profiles = find_profile(None).parent
    assert find_profile(None) == profiles / "default"
    assert find_profile("work") == profiles / "work"
    assert find_profile("a/b") == (Path.cwd() / "a" / "b").resolve()
    profiles.mkdir(parents=True, exist_ok=True)
    (profiles / "profiles.ini").write_text("[core]\ndefaultProfile=work\n", "utf-8")
    assert find_profile(None) == profiles / "work"
    (profiles / "profiles.ini").write_text("nonsense", "utf-8")
    assert find_profile(None) == profiles / "default"


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_another_plugin_is_left_alone(tmp_path: Path, command: str) -> None:
    target = tmp_path / "python" / "plugins" / "csakd"
    target.mkdir(parents=True)
    (target / "metadata.txt").write_text("[general]\nname=Something else\n", "utf-8")
    assert "is not a plugin of csakd-geo" in cli("qgis", command, "--profile", str(tmp_path), ok=False)
    assert [p.name for p in target.iterdir()] == ["metadata.txt"]


def test_a_profile_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    words = cli("qgis", "install", "--profile", str(tmp_path / "file" / "p"), ok=False)
    assert words.startswith("Error: The plugin cannot be written to")


@pytest.mark.parametrize("command", [fuse, align], ids=["fuse", "align"])
def test_the_dialog_offers_options_that_the_command_has(command: click.Command) -> None:
    known = {option: p for p in command.params for option in p.opts}
    options = getattr(load("options"), str(command.name).upper())
    assert options
    for option in options:
        parameter = known[option.flag]
        choices = tuple(parameter.type.choices) if isinstance(parameter.type, click.Choice) else ()
        assert option.choices == (*filter(None, [option.off]), *choices), option.name
        assert (option.kind == "switch") is getattr(parameter, "is_flag", False)


def test_what_a_value_is_on_the_command_line() -> None:
    by_name = {option.name: option for option in load("options").FUSE}
    assert by_name["SEED"].arguments(0) == ["--seed=0"]
    assert by_name["ADAPT_MINUTES"].arguments(0.5) == ["--adapt-minutes=0.5"]
    assert by_name["SHIFT"].arguments("-3,4") == ["--shift=-3,4"]
    assert by_name["SHIFT"].arguments("") == by_name["SEED"].arguments(None) == []
    assert [by_name["UNCERTAINTY"].arguments(v) for v in ("none", "", "compact")] == [
        [],
        [],
        ["--uncertainty=compact"],
    ]
    assert by_name["SHIFT"].arguments("none") == ["--shift=none"]
    assert [by_name["RESUME"].arguments(on) for on in (True, False)] == [["--resume"], []]


def test_the_interpreter_gets_nothing_that_is_for_qgis() -> None:
    given = {
        **dict.fromkeys(
            ("PYTHONHOME", "PYTHONPATH", "GDAL_DATA", "PROJ_LIB", "LD_LIBRARY_PATH", "QT_PLUGIN_PATH"), "x"
        ),
        "PATH": "/opt/qgis/bin",
        "HOME": "/home/me",
        "CSAKD_GEO_MODELS": "/models",
    }
    env = load("installed").cli_environment("/env/bin/python", given)
    assert set(env) == {"PATH", "HOME", "CSAKD_GEO_MODELS"}
    assert env["PATH"].split(os.pathsep)[0] == str(Path("/env/bin"))
    assert "/opt/qgis/bin" not in env["PATH"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"python": 3, "methods": [], "model_folders": []}'])
def test_a_broken_setup_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "setup.json").write_text(text, "utf-8")
    problem = load("installed").read_installed(tmp_path).problem
    assert "cannot be read" in problem
    assert problem.endswith("run 'csakd-geo qgis install' where csakd-geo is installed, then restart QGIS.")


def test_the_plugin_runs_on_the_python_of_qgis_3_22() -> None:
    files = sorted(SOURCE.glob("*.py"))
    assert len(files) > 5
    for file in files:
        ast.parse(file.read_text("utf-8"), str(file), feature_version=(3, 9))
