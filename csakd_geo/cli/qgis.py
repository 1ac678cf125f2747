"""``csakd-geo qgis``: puts the plugin into a QGIS profile and takes it out; where QGIS and its profiles are."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import click

from csakd_geo._version import __version__
from csakd_geo.cli import console
from csakd_geo.errors import CsakdGeoError, InputError, OutputError

#: Name of the plugin's folder, and of the plugin in QGIS's settings.
PLUGIN = "csakd"
_SETUP = "setup.json"
_OURS = "name=CSAKD fusion"
_PROGRAMS = ("qgis_process", "qgis_process.bin", "qgis")
_HELP = "Name or folder of the QGIS profile; by default the one that QGIS starts with."


@click.group()
def qgis() -> None:
    """Use csakd-geo from the Processing toolbox of QGIS."""


@qgis.command()
@click.option("--profile", help=_HELP + " Made if it is not there.")
def install(profile: str | None) -> None:
    """Put the plugin into a QGIS profile and switch it on.

    It runs csakd-geo in the Python interpreter that runs this command, never inside QGIS. Do it again after
    an update of csakd-geo, or after that interpreter has moved.
    """
    _check_interpreter()
    folder = find_profile(profile)
    with console().status("Installing the plugin"):
        target = install_plugin(folder)
    click.echo(f"plugin: {target}")
    console().print(
        "Restart QGIS; the algorithms are in the Processing toolbox under 'CSAKD fusion'.", soft_wrap=True
    )


@qgis.command()
@click.option("--profile", help=_HELP)
def uninstall(profile: str | None) -> None:
    """Take the plugin out of a QGIS profile."""
    target = plugin_folder(find_profile(profile))
    if not target.exists():
        raise InputError(f"There is no plugin to remove at '{target}'; name the profile with --profile.")
    _check_ours(target)
    try:
        shutil.rmtree(target)
    except OSError as error:
        raise OutputError(f"The plugin '{target}' cannot be removed: {error.strerror}.") from error
    click.echo(f"removed: {target}")


def find_programs() -> list[str]:
    """Programs of QGIS on the search path, and in the usual places where they are not on it."""
    found = [path for name in _PROGRAMS if (path := shutil.which(name))]
    if not found and sys.platform == "win32":
        places = Path(os.environ.get("PROGRAMFILES", r"C:\Program Files")).glob("QGIS*/bin/qgis_process*.bat")
        found = sorted(str(path) for path in places)
    if not found and sys.platform == "darwin":
        found = sorted(str(path) for path in Path("/Applications").glob("QGIS*.app/Contents/MacOS/bin/qgis*"))
    return found


def find_profile(profile: str | None) -> Path:
    """Folder of a profile, whether it exists or not: a path, a name, or the default for None."""
    if profile is not None and (
        profile in (".", "..") or Path(profile).name != profile or profile.startswith("~")
    ):
        return Path(profile).expanduser().resolve()
    import platformdirs

    profiles = platformdirs.user_data_path("QGIS", appauthor=False, roaming=True) / "QGIS3" / "profiles"
    return profiles / (profile or _default_name(profiles))


def _default_name(profiles: Path) -> str:
    """The profile that QGIS starts with."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(profiles / "profiles.ini", encoding="utf-8")
        return parser.get("core", "defaultProfile", fallback="") or "default"
    except (configparser.Error, UnicodeDecodeError):
        return "default"


def plugin_folder(profile: Path) -> Path:
    """Where the plugin goes in a profile."""
    return profile / "python" / "plugins" / PLUGIN


def installed_setup(profile: Path) -> dict[str, str] | None:
    """The version and interpreter of the plugin in a profile; None where there is none to be read."""
    try:
        setup = json.loads((plugin_folder(profile) / _SETUP).read_text("utf-8"))
        return {name: str(setup[name]) for name in ("version", "python")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_interpreter() -> None:
    command = [sys.executable, "-I", "-c", "import csakd_geo.cli"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CsakdGeoError(
            f"'{sys.executable} -I' cannot import csakd_geo, as QGIS will need it to; install csakd-geo into a "
            "virtual environment or conda environment (not with pip --user or PYTHONPATH) and call it from there."
        )


def _check_ours(target: Path) -> None:
    try:
        ours = _OURS in (target / "metadata.txt").read_text("utf-8")
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise OutputError(f"'{target}' is not a plugin of csakd-geo; move it away or take another profile.")


def install_plugin(profile: Path) -> Path:
    """Copy the plugin into a profile, say there which interpreter it uses, and switch it on.

    Raises
    ------
    OutputError
        If the folder cannot be written, or is another plugin's.
    """
    target = plugin_folder(profile)
    if target.exists():
        _check_ours(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".csakd-", dir=target.parent) as folder:
            made = Path(folder) / PLUGIN
            with resources.as_file(resources.files("csakd_geo") / "qgis") as source:
                shutil.copytree(source, made, ignore=shutil.ignore_patterns("__pycache__", _SETUP))
            with (made / "metadata.txt").open("a", encoding="utf-8") as file:
                file.write(f"version={__version__}\n")
            (made / _SETUP).write_text(json.dumps(_setup(), indent=1), "utf-8")
            if target.exists():
                target.replace(Path(folder) / "old")
            made.replace(target)
        _enable(profile / "QGIS" / "QGIS3.ini")
    except OSError as error:
        raise OutputError(
            f"The plugin cannot be written to '{target}': {error.strerror or error}; check the profile's path."
        ) from error
    return target


def _setup() -> dict[str, object]:
    from csakd_geo.methods import method_table
    from csakd_geo.models import bundled_models
    from csakd_geo.models.registry import model_folders

    folders = [*model_folders(), *{path.parent for path in bundled_models()}]
    return {
        "python": sys.executable,
        "version": __version__,
        "methods": ["auto", *(name for name, _, _ in method_table())],
        "model_folders": [str(folder.absolute()) for folder in folders],
    }


def _enable(settings: Path) -> None:
    """Set ``csakd=true`` in QGIS's settings; every other byte stays as it is."""
    lines = settings.read_bytes().splitlines() if settings.exists() else []
    header, ours, line = b"[PythonPlugins]", f"{PLUGIN}=".encode(), f"{PLUGIN}=true".encode()
    if header not in lines:
        lines += [header, line]
    else:
        begin = lines.index(header) + 1
        end = next((i for i in range(begin, len(lines)) if lines[i].startswith(b"[")), len(lines))
        section = [old for old in lines[begin:end] if not old.startswith(ours)]
        lines[begin:end] = [line, *section]
    settings.parent.mkdir(parents=True, exist_ok=True)
    made = settings.with_name(settings.name + ".csakd-part")
    made.write_bytes(b"\n".join(lines) + b"\n")
    made.replace(settings)
