"""House rules that a reader of one module cannot see broken: import order, cheap imports, no loose ends."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import csakd_geo

PACKAGE = "csakd_geo"
SOURCE = Path(__file__).resolve().parents[1] / PACKAGE

# A module imports only from its own folder and from what stands before it.
ORDER = (
    "_version",
    "errors",
    "threads",
    "memory",
    "spectral",
    "sensors",
    "grid",
    "tiling",
    "degrade",
    "pair",
    "psf",
    "response",
    "stripes",
    "metrics",
    "io",
    "area",
    "models",
    "methods",
    "train",
    "engine",
    "options",
    "budget",
    "target",
    "choose",
    "adapt",
    "align",
    "draft",
    "quality",
    "uncertainty",
    "job",
    "resume",
    "layers",
    "product",
    "simulate",
    "sample",
    "evaluate",
    "quicklook",
    "compare",
    "trial",
    "report",
    "footprint",
    "dates",
    "stac",
    "batch",
    "scale",
    "accessor",
    "cli",
    "__init__",
)
ISLAND = "qgis"  # runs inside QGIS's own Python: imports nothing of the package, and nothing imports it


@dataclass(frozen=True, slots=True)
class Module:
    """One parsed source file; `top` is its place in ORDER (a folder counts as one)."""

    path: str
    top: str
    dotted: tuple[str, ...]
    is_package: bool
    text: str
    tree: ast.Module


def read_modules(source: Path) -> list[Module]:
    modules = []
    for file in sorted(source.rglob("*.py")):
        relative = file.relative_to(source)
        parts = relative.with_suffix("").parts
        is_package = parts[-1] == "__init__"
        dotted = (PACKAGE, *(parts[:-1] if is_package else parts))
        text = file.read_text("utf-8")
        modules.append(
            Module(relative.as_posix(), parts[0], dotted, is_package, text, ast.parse(text, str(file)))
        )
    return modules


def own_imports(module: Module) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted target of every import of the package itself, wherever in the file it stands."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            drop = node.level - module.is_package  # levels that leave the module's own folder
            base = module.dotted[: len(module.dotted) - drop] if node.level else ()
            base = (*base, *(node.module.split(".") if node.module else ()))
            targets = [(*base, alias.name) for alias in node.names]
        else:
            continue
        yield from ((node.lineno, target) for target in targets if target[0] == PACKAGE)


def order_breaks(source: Path) -> list[str]:
    """Sentences on every import that goes against ORDER, and on every module that ORDER does not know."""
    modules = read_modules(source)
    rank = {name: place for place, name in enumerate(ORDER)}
    tops = {module.top for module in modules}
    found = [
        f"{PACKAGE}/{top} has no place in the import order; give it one in tests/test_imports.py"
        for top in sorted(tops - rank.keys() - {ISLAND})
    ]
    for module in modules:
        for line, target in own_imports(module):
            # `from csakd_geo import x` means the submodule x if there is one, else a name of __init__
            wanted = target[1] if len(target) > 1 and target[1] in tops | rank.keys() else "__init__"
            where = f"{PACKAGE}/{module.path}:{line}"
            if module.top == wanted:
                continue
            if ISLAND in (module.top, wanted):
                found.append(
                    f"{where} imports {wanted}, but {ISLAND}/ and the package do not import each other"
                )
            elif rank.get(wanted, 0) > rank.get(module.top, len(ORDER)):
                found.append(f"{where} imports {wanted}, which comes after {module.top} in the import order")
    return found


def loose_ends(source: Path) -> list[str]:
    """Sentences on swallowed exceptions, prints, and things left for later."""
    found = []
    for module in read_modules(source):
        where = f"{PACKAGE}/{module.path}"
        for node in ast.walk(module.tree):
            match node:
                case ast.ExceptHandler(type=None):
                    found.append(f"{where}:{node.lineno} catches everything with a bare except")
                case ast.ExceptHandler(body=[ast.Pass() | ast.Expr(value=ast.Constant())]):
                    found.append(f"{where}:{node.lineno} catches an exception and does nothing about it")
                case ast.Call(func=ast.Name(id="print")):
                    found.append(f"{where}:{node.lineno} prints")
                case ast.Name(id="NotImplementedError"):
                    found.append(f"{where}:{node.lineno} is not implemented")
        for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
            if token.type == tokenize.COMMENT and any(w in token.string for w in ("TODO", "FIXME", "XXX")):
                found.append(f"{where}:{token.start[0]} leaves something to do: {token.string}")
    return found


def write_package(folder: Path, files: dict[str, str]) -> Path:
    source = folder / PACKAGE
    for name, text in {"__init__.py": "", **files}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, "utf-8")
    return source


def test_imports_go_one_way() -> None:
    assert order_breaks(SOURCE) == []


@pytest.mark.parametrize(
    ("name", "text", "breaks"),
    [
        ("grid.py", "from csakd_geo.errors import GridError", 0),
        ("grid.py", "from csakd_geo import errors", 0),
        ("grid.py", "import csakd_geo.errors", 0),
        ("io/read.py", "from . import write\nfrom .write import x\nfrom csakd_geo.io.write import y", 0),
        ("io/__init__.py", "from .write import x", 0),
        ("io/read.py", "from ..errors import InputError\nfrom .. import grid", 0),
        ("qgis/provider.py", "from .dialog import x", 0),
        ("errors.py", "from csakd_geo.grid import x", 1),
        ("errors.py", "def f():\n    from csakd_geo import grid", 1),
        ("errors.py", "from .grid import x", 1),
        ("grid.py", "import csakd_geo.io.read, csakd_geo.errors", 1),
        ("grid.py", "from csakd_geo import fuse", 1),
        ("io/__init__.py", "from ..cli import x", 1),
        ("io/read.py", "from ..cli import x", 1),
        ("qgis/provider.py", "from csakd_geo.errors import InputError", 1),
        ("qgis/provider.py", "from ..errors import InputError", 1),
        ("cli.py", "import csakd_geo.qgis", 1),
        ("helpers.py", "", 1),
    ],
)
def test_the_order_rule_bites(tmp_path: Path, name: str, text: str, breaks: int) -> None:
    there = (
        "errors.py",
        "grid.py",
        "io/__init__.py",
        "io/read.py",
        "io/write.py",
        "cli.py",
        "qgis/dialog.py",
    )
    source = write_package(tmp_path, {**dict.fromkeys(there, ""), name: text})
    assert len(order_breaks(source)) == breaks, order_breaks(source)


def test_contributing_gives_the_same_order(repo: Path) -> None:
    guide = " ".join((repo / "CONTRIBUTING.md").read_text("utf-8").split())
    assert f" {' < '.join(ORDER[1:-1])} " in guide


def test_package_offers_fuse_and_no_other_name() -> None:
    assert {"fuse", "__version__"} <= set(dir(csakd_geo))
    with pytest.raises(AttributeError, match="'csakd_geo' has no attribute 'fuze'"):
        _ = csakd_geo.fuze


def test_no_loose_ends() -> None:
    assert loose_ends(SOURCE) == []


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("'''TODO in a text is no comment'''\ntry:\n    x = 1\nexcept ValueError:\n    x = 2\n", 0),
        ("try:\n    x = 1\nexcept ValueError:\n    pass\n", 1),
        ("try:\n    x = 1\nexcept ValueError:\n    ...\n", 1),
        ("try:\n    x = 1\nexcept:\n    x = 2\n", 1),
        ("def f():\n    print('x')\n", 1),
        ("def f():\n    raise NotImplementedError\n", 1),
        ("def f():\n    raise NotImplementedError('later')\n", 1),
        ("x = 1  # TODO: later\n", 1),
    ],
)
def test_the_loose_end_rule_bites(tmp_path: Path, text: str, ends: int) -> None:
    source = write_package(tmp_path, {"grid.py": text})
    assert len(loose_ends(source)) == ends, loose_ends(source)


def run_python(code: str, *args: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = {"torch", "tensorly", "onnxruntime", "openvino"}
LIGHT = {
    "__init__": HEAVY | {"numpy", "rasterio", "xarray"},
    "tiling": HEAVY | {"scipy", "rasterio", "xarray", "dask"},
    "cli": HEAVY,
}


@pytest.mark.parametrize(
    "name", [name for name in LIGHT if (SOURCE / f"{name}.py").exists() or (SOURCE / name).is_dir()]
)
def test_import_is_light(name: str) -> None:
    module = PACKAGE if name == "__init__" else f"{PACKAGE}.{name}"
    loaded = run_python(f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})").split()
    assert PACKAGE in loaded
    assert LIGHT[name] & set(loaded) == set()


def undeclared_imports(source: Path, declared: set[str]) -> list[str]:
    """Sentences on imports of packages that pyproject.toml does not ask for."""
    found = []
    for module in read_modules(source):
        if module.top == ISLAND:
            continue
        for node in ast.walk(module.tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in {name.split(".")[0] for name in names} - {PACKAGE} - sys.stdlib_module_names:
                if DISTRIBUTIONS.get(name, name.replace("_", "-")) not in declared:
                    found.append(
                        f"{PACKAGE}/{module.path}:{node.lineno} imports {name}, not in pyproject.toml"
                    )
    return found


DISTRIBUTIONS = {"yaml": "pyyaml"}  # import name -> distribution, where they differ


def test_third_party_imports_are_declared(repo: Path) -> None:
    project = tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *(x for e in ("cluster", "onnx", "openvino", "gis", "train") for x in extras[e]),
    ]
    assert undeclared_imports(SOURCE, {Requirement(line).name.lower() for line in lines}) == []


def test_the_declaration_rule_bites(tmp_path: Path) -> None:
    text = "import os.path\nimport numpy as np\nfrom csakd_geo import x\ndef f():\n    from yaml.a import b\n"
    source = write_package(tmp_path, {"grid.py": text})
    assert undeclared_imports(source, {"numpy", "pyyaml"}) == []
    assert len(undeclared_imports(source, {"numpy"})) == 1


# Imports every module with an audit hook. A file or process that a library touches while it is being
# imported is its own affair (the import system stands between it and us on the stack); anything else
# with a frame of ours below it is work that one of our modules does at import.
AUDIT = """
import importlib, sys
import pydantic
pydantic.create_model("First")  # looks through all installed packages for plugins, once
source, events = sys.argv[1], []
watched = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.system", "socket.connect", "subprocess.Popen"}

def hook(event, args):
    if event not in watched:
        return
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            return
        if name.startswith(source):
            events.append(f"{name[len(source):]}:{frame.f_lineno} {event} {args[0]!r}")
            return
        frame = frame.f_back

sys.addaudithook(hook)
for module in sys.argv[2:]:
    importlib.import_module(module)
print("\\n".join(events))
"""


def work_at_import(source: Path) -> list[str]:
    """What the modules of the package at `source` open, list or start while they are imported."""
    names = [
        ".".join(m.dotted) for m in read_modules(source) if m.top != ISLAND and m.dotted[-1] != "__main__"
    ]
    return run_python(AUDIT, f"{source}{os.sep}", *names, cwd=source.parent).split("\n")[:-1]


def test_importing_does_no_work() -> None:
    assert [line for line in work_at_import(SOURCE) if line] == []


@pytest.mark.parametrize(
    ("text", "works"),
    [
        ("import json, pathlib\ndef read():\n    return pathlib.Path(__file__).read_text()", False),
        ("import pathlib\ntext = pathlib.Path(__file__).read_text()", True),
        ("from importlib.metadata import version\nv = version('numpy')", True),
        ("import os\nfiles = os.listdir('.')", True),
    ],
)
def test_the_no_work_rule_bites(tmp_path: Path, text: str, works: bool) -> None:
    source = write_package(tmp_path, {"grid.py": text})
    assert any(work_at_import(source)) is works
