"""Notebooks run from top to bottom, end with scores, and stand beside the script that says the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

jupytext = pytest.importorskip("jupytext", reason="the package jupytext is not installed")
pytest.importorskip("distributed", reason="the package distributed is not installed")
pytest.importorskip("lightning_fabric", reason="the package lightning-fabric is not installed")
pytest.importorskip("pystac", reason="the package pystac is not installed")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


@pytest.fixture
def torch_threads() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def check_refining(names: dict[str, Any]) -> None:
    """A short run loses nothing of what it refines, and learns something where it begins with nothing."""
    assert names["scores"].sam < 1.02 * names["reference"].sam
    alone, refining = names["results"]["alone"], names["results"]["refining"]
    assert alone.best.error < 0.6 * alone.start.error
    assert refining.best.error <= refining.start.error
    assert names["found"]["coupled-map"].psnr > names["found"]["student, alone"].psnr + 1


def check_resumed(names: dict[str, Any]) -> None:
    """The stop left super-tiles, the rest was computed after it, and together they have no seams."""
    count = len(names["areas"])
    again = [task for task in names["streams"]["resumed"].data if "write" in task["key"]]
    assert 0 < len(names["kept"]) < count
    # a worker may finish what it is at after the stop
    assert 0 <= count - len(names["kept"]) - len(again) <= 2
    assert names["computed"] == 1
    assert names["apart"] <= 0.51 * names["step"]
    assert names["seams"] < 2


def check_exchanged(names: dict[str, Any]) -> None:
    """COG and store hold the same values, and the points came back with spectra."""
    assert names["apart"] < 1e-5
    assert [level["asset"] for level in names["store"].attrs["multiscales"]["layout"]] == [
        "fused",
        "overview_2/fused",
        "overview_4/fused",
    ]
    assert str(names["item"].datetime.date()) == "1992-06-12"
    assert len(names["again"]) == 4
    assert names["again"].filter(like="mean_").notna().all(axis=None)


CHECKS = {
    "03_train_and_distil": check_refining,
    "04_large_scenes": check_resumed,
    "05_qgis_stac_zarr": check_exchanged,
}


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.stem, marks=pytest.mark.slow if p.stem in CHECKS else ()) for p in NOTEBOOKS],
)
@pytest.mark.usefixtures("torch_threads")
def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    plt.close("all")
    monkeypatch.setattr(plt, "show", lambda: None)
    here, there = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(there))
    names: dict[str, Any] = {"__name__": "__main__"}
    code = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    for number, source in enumerate(code):
        exec(compile(source, f"{path.name}, code cell {number}", "exec"), names)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    assert len(figures) >= 2, "a notebook shows something"
    for figure in figures:
        figure.canvas.draw()
        assert all(ax.get_title() for ax in figure.axes if ax.get_label() != "<colorbar>")
    assert 0 < names["scores"].sam < 3
    if path.stem in CHECKS:
        CHECKS[path.stem](names)
    plt.close("all")
    assert any(there.iterdir())
    assert not any(here.iterdir()), "it writes into the folder for temporary files alone"


def cells(path: Path) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]


@each
def test_notebook_and_script_are_a_pair(path: Path) -> None:
    """What jupytext reads of one is what it reads of the other, and neither says it differently after a round trip."""
    script = path.with_suffix(".py")
    assert script.is_file(), f"make it with: jupytext --sync {path.name}"
    assert cells(script) == cells(path), f"bring them together with: jupytext --sync {path.name}"
    notebook = jupytext.read(path)
    assert notebook.metadata["jupytext"]["formats"] == "ipynb,py:percent"
    text = jupytext.writes(notebook, fmt="py:percent")
    assert [(c.cell_type, c.source) for c in jupytext.reads(text, fmt="py:percent").cells] == cells(path)
    header = script.read_text(encoding="utf-8").split("# ---")[1]
    assert "formats: ipynb,py:percent" in header
    assert "jupytext_version:" not in header  # so that another version changes nothing


@each
def test_no_outputs_are_kept(path: Path) -> None:
    for cell in jupytext.read(path).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_every_script_has_its_notebook() -> None:
    assert [p.stem for p in sorted(NOTEBOOKS[0].parent.glob("*.py"))] == [p.stem for p in NOTEBOOKS]
