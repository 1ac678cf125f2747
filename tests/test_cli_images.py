"""The command line as a user types it: results on stdout, sentences on stderr, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from csakd_geo import __version__, cli
from csakd_geo.cli import main
from csakd_geo.errors import GridError


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "sample"
    assert call("sample", str(folder)).exit_code == 0
    return folder


def call(*args: str, env: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(main, list(args), env=env)


def typed(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "csakd_geo.cli", *args],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **env},
    )


def test_help_is_quick_and_loads_no_command() -> None:
    code = (
        "import sys\nfrom csakd_geo.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "names = {m.split('.')[0] for m in sys.modules}\n"
        "print('LOADED', *sorted(names & {'torch', 'numpy', 'rasterio', 'xarray', 'rich', 'matplotlib'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    text, _, loaded = done.stdout.partition("LOADED")
    assert loaded.strip() == ""
    for name in ("fuse", "info", "methods", "demo", "sample", "simulate", "evaluate"):
        assert f"\n  {name} " in text


def test_version_and_python_m() -> None:
    done = typed("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"csakd-geo, version {__version__}")


@pytest.mark.parametrize("name", ["info", "sample", "simulate", "evaluate"])
def test_every_command_explains_itself(name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.help
    assert all(p.help for p in command.params if isinstance(p, click.Option))


def test_sample_names_its_files(pair: Path, tmp_path: Path) -> None:
    result = call("sample", str(tmp_path / "new"))
    assert result.exit_code == 0
    names = [Path(line) for line in result.stdout.splitlines()]
    assert [p.name for p in names] == ["hsi.tif", "msi.tif", "truth.tif"]
    assert all(p.is_file() for p in names)
    again = call("sample", str(tmp_path / "new"))
    assert again.exit_code == 1
    assert again.stderr.startswith("Error: ")
    assert "already holds hsi.tif" in again.stderr
    assert call("sample", str(tmp_path / "new"), "--overwrite").exit_code == 0


def test_info_as_table_and_as_json(pair: Path) -> None:
    table = call("info", str(pair / "hsi.tif"))
    assert table.exit_code == 0
    for text in ("36 rows x 36 columns x 200 bands", "EPSG:32616", "80 x 80 m", "400.02 to 2489.11 nm"):
        assert text in table.stdout
    assert "rising order" in table.stderr
    facts = json.loads(call("info", str(pair / "hsi.tif"), "--json").stdout)
    assert (facts["bands"], facts["height"], facts["gsd"]) == (200, 36, [80.0, 80.0])
    assert facts["units"] == "radiance"


def test_simulate_and_evaluate_in_a_row(pair: Path, tmp_path: Path) -> None:
    out = tmp_path / "pair"
    made = call(
        "simulate",
        str(pair / "truth.tif"),
        "-o",
        str(out),
        "--ratio",
        "3",
        "--msi-sensor",
        "worldview3",
        "--snr-hsi",
        "30",
        "--seed",
        "5",
    )
    assert made.exit_code == 0, made.stderr
    with rasterio.open(out / "hsi.tif") as hsi, rasterio.open(out / "msi.tif") as msi:
        assert (hsi.count, hsi.height, hsi.transform.a) == (200, 48, 60.0)
        assert (msi.count, msi.height) == (8, 144)
        assert hsi.tags()["SNR_HSI_DB"] == "30"
    scored = call("evaluate", str(pair / "truth.tif"), str(out / "truth.tif"), "--ratio", "3", "--json")
    facts = json.loads(scored.stdout)
    assert facts["scores"]["rmse"] == 0
    assert facts["scores"]["pixels"] == 144 * 144
    assert len(facts["per_band"]["psnr"]) == 200


def test_evaluate_prints_the_scores_that_json_has(pair: Path, tmp_path: Path) -> None:
    fused = tmp_path / "fused.tif"
    with rasterio.open(pair / "truth.tif") as src:
        profile, values, scales = src.profile, src.read(), src.scales
    with rasterio.open(fused, "w", **profile) as dst:
        dst.write((values + np.int16(50)).astype(np.int16))
        dst.scales = scales
    arguments = ("evaluate", str(fused), str(pair / "truth.tif"), "--ratio", "4")
    table, facts = call(*arguments), json.loads(call(*arguments, "--json").stdout)
    assert facts["scores"]["rmse"] == pytest.approx(50 / 500, rel=1e-4)
    assert "RMSE" in table.stdout
    assert "20,736 pixels" in table.stdout
    assert f"{facts['scores']['psnr']:.3f} dB" in table.stdout


def test_evaluate_without_truth_prints_what_json_has(pair: Path, tmp_path: Path) -> None:
    hsi, msi, names = str(pair / "hsi.tif"), str(pair / "msi.tif"), ("bicubic", "gsa")
    facts, tables = [], []
    for name in names:
        fused = tmp_path / f"{name}.tif"
        assert call("fuse", hsi, msi, "-o", str(fused), "--method", name).exit_code == 0
        arguments = ("evaluate", str(fused), "--hsi", hsi, "--msi", msi)
        facts.append(json.loads(call(*arguments, "--json").stdout))
        tables.append(call(*arguments).stdout)
    blurred, sharp = (f["scores"] for f in facts)
    # GSA takes its detail from the MSI, interpolation has none
    assert blurred["hqnr"] < 0.9 < sharp["hqnr"] < 1
    assert blurred["msi_consistency"] > 4 * sharp["msi_consistency"] > 0
    for found, table in zip(facts, tables, strict=True):
        scores = found["scores"]
        assert scores["hqnr"] == pytest.approx((1 - scores["d_lambda"]) * (1 - scores["d_s"]))
        assert found["msi_bands"] == ["B2", "B3", "B4", "B8"]
        assert sum(found["per_msi_band"]["d_s"]) / 4 == pytest.approx(scores["d_s"])
        assert (len(found["bands"]), found["ratio"], scores["pixels"]) == (200, 4, 34 * 34)
        for name in ("hqnr", "d_lambda", "d_s"):
            assert f"{scores[name]:.4f}" in table
        assert f"{100 * scores['hsi_consistency']:.3f} %" in table


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("evaluate", "{pair}/truth.tif", "--hsi", "{pair}/hsi.tif", "--msi", "{pair}/msi.tif"),
            "does not say how it was made",
        ),
        (("info", "nowhere.tif"), "'nowhere.tif' does not exist; check the path."),
        (("info", "{here}/empty"), "is a folder; give the raster file inside it."),
        (("info", "{here}/text.tif"), "cannot be opened as a raster"),
        (("evaluate", "{pair}/hsi.tif", "{pair}/truth.tif", "--ratio", "4"), "must have the same size"),
        (
            ("simulate", "{pair}/truth.tif", "-o", "{here}/x", "--ratio", "4", "--msi-sensor", "sentinel9"),
            "There is no sensor 'sentinel9'; choose one of",
        ),
    ],
)
def test_bad_input_ends_in_one_sentence(
    pair: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "text.tif").write_text("no raster", "utf-8")
    (tmp_path / "empty").mkdir()
    result = call(*(a.format(pair=pair, here=tmp_path) for a in arguments))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_a_broken_file_leaves_no_traceback_and_no_chatter(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no raster", "utf-8")
    done = typed("info", str(tmp_path / "text.tif"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: 'text.tif' cannot be opened as a raster")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("info",),
        ("simulate", "x.tif", "-o", "y", "--ratio", "1", "--msi-sensor", "rgb"),
        ("evaluate", "a.tif", "b.tif"),
        ("evaluate", "a.tif", "--hsi", "b.tif"),
        ("evaluate", "a.tif", "b.tif", "--ratio", "2", "--msi", "c.tif"),
        ("info", "--unknown", "x.tif"),
    ],
)
def test_wrong_usage_exits_2(arguments: tuple[str, ...]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    @click.command()
    def info() -> None:
        raise error

    monkeypatch.setattr("csakd_geo.cli.images.info", info)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GridError("The grids differ; warp one."), "Error: The grids differ; warp one.\n"),
        (KeyboardInterrupt(), "Error: Stopped on request.\n"),
        (ZeroDivisionError("by zero"), "(ZeroDivisionError: by zero); please report it"),
    ],
)
def test_every_failure_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, words: str
) -> None:
    failing(monkeypatch, error)
    result = call("info", env={"CSAKD_GEO_DEBUG": None})
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_debug_lets_the_traceback_through(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ZeroDivisionError("by zero"))
    result = call("info", env={"CSAKD_GEO_DEBUG": "1"})
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_closed_pipe_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, BrokenPipeError(32, "Broken pipe"))
    result = call("info")
    assert result.exit_code == 1
    assert result.stderr == ""


def test_the_console_is_shared_and_on_stderr() -> None:
    assert cli.console() is cli.console()
    assert cli.console().stderr
