"""What the documents say of files, commands and figures is so, and the figure is what its script draws."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import click
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from csakd_geo.cli import _COMMANDS, main
from csakd_geo.models import VARIANTS, DualTwoStream, NetworkConfig, count_parameters
from csakd_geo.models.complexity import complexity
from csakd_geo.models.reach import structural_reach

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE_ROW = re.compile(r"^\| `(?P<name>[a-z0-9-]+)` \|(?P<cells>(?:[^|]+\|){7})$", re.MULTILINE)


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "network.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_network", ROOT / "docs" / "draw_network.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def official(name: str, msi_bands: int = 4) -> NetworkConfig:
    return NetworkConfig.official(name, bands=172, msi_bands=msi_bands)


def test_links_lead_to_files() -> None:
    seen = 0
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:|#", target):
                continue
            seen += 1
            path = document.parent / target.partition("#")[0]
            assert path.exists(), f"{document.name} links to {target}, which is not there"
    assert seen > 2


def test_links_within_a_page_lead_to_headings() -> None:
    seen = 0
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        for target in re.findall(r"\]\(#([^)]+)\)", text):
            seen += 1
            assert target in anchors, f"{document.name} links to #{target}, which is no heading of it"
    assert seen > 0


def test_commands_in_the_documents_exist() -> None:
    named = set()
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for code in re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL):
            named |= {(document.name, word) for word in re.findall(r"\bcsakd-geo +([a-z][\w-]*)", code)}
    assert {("README.md", "fuse"), ("README.md", "info")} <= named
    assert not {entry for entry in named if entry[1] not in _COMMANDS}


def command_of(words: list[str]) -> click.Command:
    """The command that words such as ``model export`` lead to."""
    command: click.Command = main
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        if found is None:
            break
        command = found
    return command


def test_options_in_the_documents_exist() -> None:
    """Of every command that a document writes out, whole lines and spans alike."""
    seen = 0
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(
            r"```(?:sh|bash|console)?\n(.*?)```|((?:^    .+\n)+)", text, re.DOTALL | re.MULTILINE
        )
        lines = [line for pair in blocks for block in pair for line in block.splitlines()]
        for line in [*lines, *re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))]:
            call = re.search(r"\bcsakd-geo +(.*?)(?: #|$)", " ".join(line.split()))
            if call is None:
                continue
            words = call[1].split()
            known = {
                name for option in command_of(words).params for name in (*option.opts, *option.secondary_opts)
            }
            for word in words:
                if re.match(r"\[?--?[a-zA-Z]", word):
                    seen += 1
                    option = word.strip("[]").partition("=")[0]
                    assert option in {*known, "--help", "-h"}, f"{document.name}: {line.strip()}"
    assert seen > 40


def test_scripts_are_there_and_take_the_options_that_are_written() -> None:
    """Of the scripts that documents name, and that scripts name when they say how they are called."""
    scripts = [
        path for folder in ("benchmarks", "docs", "pipelines") for path in (ROOT / folder).glob("*.py")
    ]
    seen = 0
    for document in [*DOCUMENTS, ROOT / "CHANGELOG.md", *scripts]:
        text = document.read_text(encoding="utf-8")
        for name, words in re.findall(r"\b((?:benchmarks|docs|pipelines)/\w+\.py)([^`\n]*)", text):
            script = ROOT / name
            assert script in scripts, f"{document.name} names {name}, which is not there"
            tree = ast.parse(script.read_text(encoding="utf-8"))
            known = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            for option in re.findall(r"--[a-z][\w-]*", words):
                seen += 1
                assert option in known, f"{document.name}: {name}{words}"
    assert seen > 20


def test_the_script_draws_the_committed_figure(tmp_path: Path, repo: Path) -> None:
    subprocess.run(
        [sys.executable, str(repo / "docs" / "draw_network.py"), "-o", str(tmp_path / "network.svg")],
        check=True,
        timeout=120,
    )
    drawn, kept = imread(tmp_path / "network.png"), imread(repo / "docs" / "network.png")
    height, width = drawn.shape[:2]
    assert width == 2000
    assert 1000 < height < 2000
    assert (tmp_path / "network.png").stat().st_size < 250_000
    grey = drawn[..., :3].mean(axis=-1)
    thirds = [part for rows in np.array_split(grey, 3) for part in np.array_split(rows, 3, axis=1)]
    assert all(part.std() > 0.05 for part in thirds)  # ink everywhere, not one stroke in a corner
    assert len(np.unique(drawn.reshape(-1, drawn.shape[-1]), axis=0)) > 20
    # another release of matplotlib may set letters a little differently
    assert kept.shape == drawn.shape
    assert np.abs(kept - drawn).mean() < 0.02
    root = ElementTree.parse(tmp_path / "network.svg").getroot()
    assert root.tag.endswith("svg")
    assert len(list(root.iter())) > 500


def test_the_figure_shows_the_networks_parts(script: ModuleType) -> None:
    config = NetworkConfig(bands=7, msi_bands=3, features=10, growth=5, depths=(1, 1, 1, 1))
    with torch.device("meta"):
        network = DualTwoStream(config)
    parts = {name for name, _ in network.named_children()}
    assert parts == {*script.CHANNELS, *script.STACKS, "fuse_att"}
    fuser = {name for name, _ in network.fuse_att.named_children()}
    assert fuser == set(script.FUSER)
    letters = {"B": 7, "M": 3, "nf": 10}

    def count(words: str) -> int:
        terms = re.fullmatch(r"(\d*)(B|nf|)(?:\+(M))?|(M)", words)
        assert terms is not None, words
        factor, letter, more, alone = terms.groups()
        if alone:
            return letters["M"]
        return int(factor or 1) * letters.get(letter, 1) + (letters["M"] if more else 0)

    for module, table in ((network, script.CHANNELS), (network.fuse_att, script.FUSER)):
        for key, (given, made) in table.items():
            weight = module.get_submodule(key).weight
            assert (weight.shape[1], weight.shape[0]) == (count(given), count(made)), key
            assert weight.shape[2] == (3 if module is network else 1)


def test_the_figure_takes_depths_from_the_variants(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(script.VARIANTS, "teacher", (9, 8, 7, 5))
    assert [script._depths(key)[0] for key in script.STACKS] == ["9", "8", "7", "5"]
    assert script._depths("mfeat").endswith(str(VARIANTS["student"][3]))


def test_the_table_of_variants_is_what_the_code_counts(page: str) -> None:
    rows = {
        match["name"]: [c.strip() for c in match["cells"].split("|")[:-1]]
        for match in TABLE_ROW.finditer(page)
    }
    assert list(rows) == list(VARIANTS)
    for name, cells in rows.items():
        with torch.device("meta"):
            network = DualTwoStream(official(name))
        owned, used = count_parameters(network), count_parameters(network, used_only=True)
        assert tuple(map(int, cells[:4])) == VARIANTS[name]
        assert cells[4:6] == [f"{owned:,}", f"{used:,}"]
        assert cells[6] == f"{complexity(official(name), 64, 64, ratio=4).macs / 1e9:.2f}"


def test_every_count_on_the_page_is_one_of_the_networks(page: str) -> None:
    counts = set()
    for name in VARIANTS:
        for msi_bands in (4, 6):
            with torch.device("meta"):
                network = DualTwoStream(official(name, msi_bands))
            counts |= {count_parameters(network), count_parameters(network, used_only=True)}
    quoted = {int(number.replace(",", "")) for number in re.findall(r"\b\d{1,3}(?:,\d{3}){2,}\b", page)}
    assert quoted >= {26_807_686, 8_748_718, 7_449_946, 26_812_330, 8_753_362}
    assert quoted <= counts


@pytest.mark.parametrize(("name", "published"), [("teacher", 941.77), ("student", 144.78)])
def test_published_multiplications_are_quoted_and_within_a_hundredth(
    page: str, name: str, published: float
) -> None:
    assert f"{published}" in page
    assert complexity(official(name), 64, 64, ratio=4).macs / 1e9 == pytest.approx(published, abs=0.015)


def test_quoted_reach_is_the_networks(page: str) -> None:
    sentence = re.search(r"at most (\d+) HSI pixels around it in the teacher and\s(\d+) in the student", page)
    assert sentence is not None
    assert [int(n) for n in sentence.groups()] == [
        structural_reach(official(name), 4) for name in ("teacher", "student")
    ]


def test_summed_logits_grow_with_the_area_and_cosines_do_not() -> None:
    torch.manual_seed(0)
    network = DualTwoStream(
        NetworkConfig(bands=10, msi_bands=4, features=32, growth=16, depths=(0, 1, 1, 1), student=True)
    )
    summed, cosine, sharpest = [], [], []
    for side in (32, 64, 128):
        hsi, msi = torch.randn(1, 10, side // 4, side // 4), torch.randn(1, 4, side, side)
        sums = network.attention_sums(hsi, msi)
        assert sums is not None
        logits = sums.qk / np.sqrt(16)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        summed.append(logits.std())
        sharpest.append((weights.max(-1) / weights.sum(-1)).mean())
        cosine.append((sums.qk / np.sqrt(sums.qq[:, :, None] * sums.kk[:, None, :])).std())
    growth = np.divide(summed[1:], summed[:-1])
    assert ((growth > 3) & (growth < 5)).all()
    assert sharpest[-1] > 0.9
    assert max(cosine) < 1.2 * min(cosine)


def test_the_configurations_shown_are_valid(repo: Path, tmp_path: Path) -> None:
    """The recipe's file, and what the page on training shows."""
    from csakd_geo.train.config import read_train_config

    assert read_train_config(repo / "pipelines/distill.yaml").form == "subspace"
    blocks = re.findall(r"```yaml\n(.*?)```", (repo / "docs/training.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    for text in blocks:
        (tmp_path / "shown.yaml").write_text(text)
        assert read_train_config(tmp_path / "shown.yaml").data.layout == "official"


def test_the_page_on_training_names_every_option(repo: Path) -> None:
    from csakd_geo.train.config import Augmentation, TrainConfig

    page = (repo / "docs/training.md").read_text("utf-8")
    known = {*TrainConfig.model_fields, *Augmentation.model_fields}
    assert {name for name in known if f"`{name}`" not in page and f"{name}:" not in page} == set()
