"""One set of facts in several files: pyproject.toml, environment.yml, constraints.txt, the version."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rattler import MatchSpec
from rattler.exceptions import InvalidMatchSpecError

from csakd_geo import __version__

# pip name -> conda-forge name, where they differ by more than case
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
EXTRAS = ("cluster", "onnx", "gis", "train", "notebooks", "lint", "test")
NOT_FROM_PIP = {"python", "pip"}


@pytest.fixture(scope="module")
def project(repo: Path) -> dict[str, Any]:
    return tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def environment(repo: Path) -> dict[str, Any]:
    return yaml.safe_load((repo / "environment.yml").read_text("utf-8"))


def declared(project: dict[str, Any]) -> dict[str, SpecifierSet]:
    """Conda name -> range, of the dependencies and of the extras that the environment promises."""
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]
    found = {}
    for requirement in map(Requirement, lines):
        name = requirement.name.lower()
        found[CONDA_NAMES.get(name, name)] = requirement.specifier
    return found


def conda_ranges(lines: list[str]) -> dict[str, str]:
    """Name -> version range of conda match specs; a line that is not one raises."""
    return dict(str(MatchSpec(line, strict=True)).partition(" ")[::2] for line in lines)


def differences(pip: dict[str, SpecifierSet], conda: dict[str, str]) -> list[str]:
    """Sentences on every name or range that the two do not share."""
    named = {name: SpecifierSet(text) for name, text in conda.items() if name not in NOT_FROM_PIP}
    return [
        f"{name}: pyproject.toml has {pip.get(name, 'nothing')}, environment.yml {named.get(name, 'nothing')}"
        for name in sorted(pip.keys() | named.keys())
        if pip.get(name) != named.get(name)
    ]


def test_conda_and_pip_name_the_same_packages_and_ranges(
    project: dict[str, Any], environment: dict[str, Any]
) -> None:
    assert differences(declared(project), conda_ranges(environment["dependencies"])) == []


def test_conda_lines_name_each_package_once(environment: dict[str, Any]) -> None:
    lines = environment["dependencies"]
    assert len(conda_ranges(lines)) == len(lines)


def test_conda_python_is_one_that_the_package_admits(
    project: dict[str, Any], environment: dict[str, Any]
) -> None:
    python = conda_ranges(environment["dependencies"])["python"]
    assert python == "3.12.*"
    assert SpecifierSet(project["requires-python"]).contains(python.replace("*", "0"))


def test_a_difference_would_be_found() -> None:
    pip = {"numpy": SpecifierSet(">=2.0,<3"), "pytorch": SpecifierSet(">=2.4,<3")}
    assert differences(pip, conda_ranges(["python=3.12", "numpy>=2.0,<3", "pytorch>=2.4,<3"])) == []
    assert len(differences(pip, conda_ranges(["numpy>=2.1,<3", "pytorch>=2.4,<3"]))) == 1
    assert len(differences(pip, conda_ranges(["numpy>=2.0,<3", "torch>=2.4,<3"]))) == 2
    with pytest.raises(InvalidMatchSpecError):
        conda_ranges(["numpy=>2.0"])


def test_header_says_that_the_environment_was_never_solved(repo: Path) -> None:
    assert "never solved" in (repo / "environment.yml").read_text("utf-8").split("name:")[0]


def test_constraints_pin_torch_inside_its_range_and_nothing_else(repo: Path, project: dict[str, Any]) -> None:
    lines = (repo / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert [pin.name for pin in pins] == ["torch"]
    (pin,) = pins[0].specifier
    assert pin.operator == "=="
    assert declared(project)["pytorch"].contains(pin.version)


def test_changelog_and_citation_have_the_package_version(repo: Path) -> None:
    changelog = (repo / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## \[(\d[^\]]*)\]", changelog, flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__
    assert yaml.safe_load((repo / "CITATION.cff").read_text("utf-8"))["version"] == __version__
