"""What ``csakd-geo qgis install`` wrote beside this file: the interpreter, and what can be chosen."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

#: Name of the file in the plugin's folder.
SETUP = "setup.json"
_AGAIN = "run 'csakd-geo qgis install' where csakd-geo is installed, then restart QGIS."
_MODEL_SUFFIXES = (".safetensors", ".pth", ".pt")
# The rest of QGIS's environment (PYTHONHOME, GDAL_DATA, PROJ_LIB, library paths) is for QGIS's own libraries.
_KEPT = {
    *("APPDATA", "CUDA_VISIBLE_DEVICES", "HOME", "LANG", "LOCALAPPDATA", "LOGNAME", "PROGRAMDATA"),
    *("SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "USER", "USERNAME", "USERPROFILE", "WINDIR"),
}
_KEPT_PREFIXES = ("CSAKD_GEO_", "LC_", "MKL_", "OMP_", "XDG_")


class Installed(NamedTuple):
    """What is known of the installation; `problem` is empty, or the sentence that says why nothing runs."""

    python: str
    methods: list[str]
    models: list[str]
    problem: str


def read_installed(folder: Path) -> Installed:
    """Read the setup of the plugin in `folder`; models are looked for anew."""
    path = folder / SETUP
    try:
        setup = json.loads(path.read_text("utf-8"))
        python = setup["python"]
        methods, folders = ([str(x) for x in setup[key]] for key in ("methods", "model_folders"))
        if not isinstance(python, str):
            raise ValueError("its 'python' is no path")
    except FileNotFoundError:
        return Installed("", [], [], f"The plugin does not know where csakd-geo is installed; {_AGAIN}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Installed(
            "",
            [],
            [],
            f"The plugin's setup '{path}' cannot be read ({type(error).__name__}: {error}); {_AGAIN}",
        )
    problem = "" if os.path.isfile(python) else f"The Python interpreter '{python}' is gone; {_AGAIN}"
    return Installed(python, methods, _models(folders), problem)


def _models(folders: list[str]) -> list[str]:
    found = []
    for folder in folders:
        if os.path.isdir(folder):
            found += sorted(p.stem for p in Path(folder).iterdir() if p.suffix in _MODEL_SUFFIXES)
    return list(dict.fromkeys(found))


def cli_command(python: str, arguments: list[str]) -> list[str]:
    """The command line: isolated from QGIS's Python, speaking UTF-8."""
    return [python, "-I", "-X", "utf8", "-m", "csakd_geo.cli", *arguments]


def cli_environment(python: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The part of QGIS's environment that is no concern of QGIS alone, with a search path of its own."""
    kept: dict[str, Any] = {
        name: value
        for name, value in environment.items()
        if name.upper() in _KEPT or name.upper().startswith(_KEPT_PREFIXES)
    }
    folder = Path(python).parent
    if os.name == "nt":
        system = Path(environment.get("SYSTEMROOT", r"C:\Windows"))
        places = [folder, folder / "Scripts", folder / "Library" / "bin", system / "System32", system]
        kept["PATH"] = os.pathsep.join(map(str, places))
    else:
        kept["PATH"] = os.pathsep.join([str(folder), "/usr/local/bin", "/usr/bin", "/bin"])
    return kept
