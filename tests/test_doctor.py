"""``csakd-geo doctor`` tells what is there and what to do about what is not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import rasterio
import torch
from click.testing import CliRunner

from csakd_geo import __version__
from csakd_geo.cli import doctor as module
from csakd_geo.cli import main


class Line(NamedTuple):
    state: str
    found: str
    advice: str


def run(*words: str) -> str:
    done = CliRunner().invoke(main, ["doctor", *words], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    return done.stdout


def lines() -> dict[str, list[Line]]:
    topics: dict[str, list[Line]] = {}
    for entry in json.loads(run("--json")):
        topics.setdefault(entry.pop("topic"), []).append(Line(**entry))
    return topics


@pytest.fixture(autouse=True)
def _own_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_it_tells_the_versions_drivers_and_models() -> None:
    found = lines()
    assert f"csakd-geo {__version__}, Python 3." in found["Python"][0].found
    for name in ("numpy", "torch", "rasterio"):
        assert f"{name} {importlib.metadata.version(name)}" in found["Libraries"][-1].found
    assert found["GDAL"][0].found.startswith(rasterio.__gdal_version__)
    assert "GTiff, COG" in found["GDAL"][0].found
    assert "csakd-student-aviris" in found["Models"][-1].found
    assert (found["GPU"][0].state == "ok") is torch.cuda.is_available()
    assert all(line.advice for entries in found.values() for line in entries if line.state != "ok")


def test_it_fits_one_screen() -> None:
    text = run()
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100
    assert "Traceback" not in text


def test_a_package_that_is_missing_comes_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("pystac", "openvino") else find_spec(name)
    )
    line = next(line for line in lines()["Optional"] if line.state == "missing")
    assert "openvino (runs models fast on Intel CPUs)" in line.found
    assert "pystac (STAC items)" in line.found
    assert line.advice.startswith('pip install "csakd-geo[openvino,')
    assert "gis" in line.advice


def test_every_extra_is_one_of_pyproject(repo: Path) -> None:
    import tomllib

    extras = tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for package, (_, extra) in module._EXTRAS.items():
        assert any(line.startswith(package.replace("_", "-")) for line in extras[extra]), package


def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with rasterio.Env() as env:
        everything = env.drivers()
    for name, state in (("netCDF", "missing"), ("COG", "trouble")):
        less = {key: value for key, value in everything.items() if key != name}
        monkeypatch.setattr(rasterio.Env, "drivers", lambda _, less=less: less)
        line = lines()["GDAL"][0]
        assert line.state == state
        assert line.found.endswith(f"no {name}")


def test_qgis_with_and_without_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/programs/{name}" if name == "qgis" else None)
    line = lines()["QGIS"][0]
    assert (line.state, line.found) == ("missing", "/programs/qgis; no plugin in profile 'default'")
    assert line.advice.startswith("csakd-geo qgis install")
    target = Path(
        CliRunner().invoke(main, ["qgis", "install"]).stdout.splitlines()[0].removeprefix("plugin: ")
    )
    assert lines()["QGIS"][0].state == "ok"
    setup = target / "setup.json"
    whole = json.loads(setup.read_text("utf-8"))
    for change, words in (
        ({"version": "0.0"}, f"and this is {__version__}"),
        ({"python": "/gone"}, "is gone"),
    ):
        setup.write_text(json.dumps({**whole, **change}), "utf-8")
        line = lines()["QGIS"][0]
        assert (line.state, line.advice) == ("trouble", "csakd-geo qgis install")
        assert line.found.endswith(words)


def test_a_broken_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"no model")
    monkeypatch.setenv("CSAKD_GEO_MODELS", str(tmp_path))
    line = lines()["Models"][0]
    assert line.state == "trouble"
    assert "mine.safetensors" in line.found


def test_little_space_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage("."))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100_000_000_000, 99_000_000_000, 1_000_000_000))
    monkeypatch.setattr(module, "_memory_bytes", lambda: (8e9, 1e9))
    found = lines()
    assert (found["Disk"][0].state, found["Memory"][0].state) == ("trouble", "trouble")
    assert found["Disk"][0].found.startswith("1 GB free in ")
    assert found["Memory"][0].found.startswith("1.0 of 8.0 GB free")


def test_a_check_that_fails_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> bool:
        raise OSError("libcuda is broken")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    found = lines()
    assert found["GPU"][0].found == "could not be looked at (OSError: libcuda is broken)"
    assert found["Disk"]
