"""``rio csakd`` is ``csakd-geo`` under rasterio's own command: same commands, same output, same errors."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import click
import numpy as np
import pytest
import rasterio
import rasterio.env
from click.testing import CliRunner, Result
from rasterio.rio.main import main_group

from csakd_geo.cli import _COMMANDS, main
from csakd_geo.cli.rio import csakd
from csakd_geo.errors import GridError
from csakd_geo.simulate import SimulatedPaths
from tests.made import make_pair


def rio(*args: str) -> Result:
    return CliRunner().invoke(main_group, list(args))


def direct(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def test_rio_finds_the_plugin() -> None:
    found = [entry for entry in entry_points(group="rasterio.rio_plugins") if entry.name == "csakd"]
    assert [entry.load() for entry in found] == [csakd]
    assert main_group.commands["csakd"] is csakd
    result = rio("--help")
    assert result.exit_code == 0
    assert "\n  csakd " in result.stdout


def test_the_plugin_keeps_rio_quick() -> None:
    """`rio` loads every plugin at every start, so this one must not bring anything along."""
    code = (
        "import sys, csakd_geo.cli.rio\n"
        "names = {m.split('.')[0] for m in sys.modules}\n"
        "print(*(names & {'torch', 'numpy', 'rasterio', 'xarray', 'scipy', 'rich', 'pydantic'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""


def test_all_commands_with_all_options() -> None:
    ours, theirs = click.Context(main), click.Context(csakd)
    assert csakd.list_commands(theirs) == main.list_commands(ours) == list(_COMMANDS)
    for name in _COMMANDS:
        assert csakd.get_command(theirs, name) is main.get_command(ours, name)
    listed, plain = rio("csakd", "--help").stdout, direct("--help").stdout
    assert " csakd [OPTIONS] COMMAND [ARGS]" in listed.split("\n", 1)[0]
    assert listed.split("\n", 1)[1] == plain.split("\n", 1)[1]
    assert (
        rio("csakd", "fuse", "-h").stdout.split("\n", 1)[1] == direct("fuse", "-h").stdout.split("\n", 1)[1]
    )
    assert rio("csakd", "--version").stdout == direct("--version").stdout


def test_info_says_the_same(sample: SimulatedPaths) -> None:
    found = rio("csakd", "info", str(sample.hsi), "--json")
    assert found.exit_code == 0
    assert found.stdout == direct("info", str(sample.hsi), "--json").stdout
    facts = json.loads(found.stdout)
    with rasterio.open(sample.hsi) as src:
        assert (facts["bands"], facts["height"], facts["width"]) == (src.count, src.height, src.width)


def test_fuse_writes_the_same(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, bands=8, height=48, width=40)
    cubes = []
    for call, name in ((rio, "rio.tif"), (direct, "direct.tif")):
        target = tmp_path / name
        before = ("csakd",) if call is rio else ()
        options = ("--method", "regression", "--shift", "none", "--dtype", "float32")
        done = call(*before, "fuse", str(pair.hsi), str(pair.msi), "-o", str(target), *options)
        assert done.exit_code == 0, done.output
        with rasterio.open(target) as src:
            cubes.append(src.read())
            assert src.tags(3, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"]
    np.testing.assert_array_equal(*cubes)
    again = rio("csakd", "fuse", str(pair.hsi), str(pair.msi), "-o", str(tmp_path / "rio.tif"))
    assert again.exit_code == 1
    assert "rio.tif' exists; give --overwrite" in again.stderr


def test_errors_are_one_sentence(tmp_path: Path) -> None:
    code = "from rasterio.rio.main import main_group; main_group()"
    done = subprocess.run(
        [sys.executable, "-c", code, "csakd", "info", str(tmp_path / "none.tif")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert lines == [f"Error: '{tmp_path / 'none.tif'}' does not exist; check the path."]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (GridError("The two do not meet."), "Error: The two do not meet.\n"),
        (KeyboardInterrupt(), "Error: Stopped on request.\n"),
        (
            ZeroDivisionError("oh"),
            "Error: Something went wrong that should not have (ZeroDivisionError: oh); ",
        ),
    ],
)
def test_errors_of_every_kind_exit_with_one(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, sentence: str
) -> None:
    @click.command()
    def info() -> None:
        raise error

    monkeypatch.setattr("csakd_geo.cli.images.info", info)
    done = rio("csakd", "info")
    assert done.exit_code == 1
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


def test_wrong_usage_exits_with_two() -> None:
    assert rio("csakd", "fuze").exit_code == 2
    assert rio("csakd", "info").exit_code == 2


def test_what_rio_was_told_holds_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    @click.command()
    def info() -> None:
        seen["inside"] = rasterio.env.hasenv()
        seen.update(rasterio.env.getenv() if seen["inside"] else {})

    monkeypatch.setattr("csakd_geo.cli.images.info", info)
    assert rio("-vvv", "csakd", "info").exit_code == 0
    assert seen["CPL_DEBUG"] is True
    assert rio("csakd", "info").exit_code == 0
    assert seen["CPL_DEBUG"] is False
    assert not rasterio.env.hasenv()
    assert CliRunner().invoke(csakd, ["info"]).exit_code == 0  # without rio around it
    assert seen["inside"] is False
