"""``csakd-geo doctor``: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click

from csakd_geo._version import __version__

OK, MISSING, TROUBLE = "ok", "missing", "trouble"
_MARKS = {OK: ("ok", "green"), MISSING: ("-", "yellow"), TROUBLE: ("!", "red")}
_LIBRARIES = ("numpy", "torch", "rasterio", "xarray", "dask", "zarr")
#: GDAL driver, what is read or written with it, and whether csakd-geo can do without.
_DRIVERS = {
    "GTiff": True,
    "COG": True,
    "ENVI": True,
    "VRT": True,
    "HDF5": False,
    "netCDF": False,
    "Zarr": False,
    "SENTINEL2": False,
    "JP2OpenJPEG": False,
}
#: Optional packages: what each is for, and the extra that brings it.
_EXTRAS = {
    "onnxruntime": ("runs exported models", "onnx"),
    "openvino": ("runs models fast on Intel CPUs", "openvino"),
    "distributed": ("clusters and worker processes", "cluster"),
    "lightning_fabric": ("training", "train"),
    "tensorboard": ("curves of a training", "train"),
    "pystac": ("STAC items", "gis"),
    "ipykernel": ("notebooks", "notebooks"),
}
_LOW_DISK, _LOW_MEMORY = 20e9, 4e9  # bytes


class Finding(NamedTuple):
    """One line: what was looked at, how it stands, what was found, and what to do."""

    topic: str
    state: str
    found: str
    advice: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what is installed, what is missing and what to do about it.

    Python and libraries, GDAL's drivers, GPU, packages that are optional, models, QGIS, memory and disk.
    Nothing is changed.
    """
    findings = examine()
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=1))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark, colour = _MARKS[finding.state]
        words = Text(finding.found)
        if finding.advice:
            words.append(f"\n-> {finding.advice}", style="bold")
        table.add_row(Text(finding.topic), Text(mark, style=colour), words)
    Console(highlight=False).print(table)


def examine() -> list[Finding]:
    """Look at everything; a check that itself fails is a finding, too."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "Python": _python,
        "Libraries": _libraries,
        "GDAL": _gdal,
        "GPU": _gpu,
        "Optional": _optional,
        "Models": _models,
        "QGIS": _qgis,
        "Memory": _memory,
        "Disk": _disk,
    }
    findings: list[Finding] = []
    for topic, check in checks.items():
        try:
            findings += check()
        except Exception as error:  # a broken library must not hide what the others say
            words = f"could not be looked at ({type(error).__name__}: {error})"
            findings.append(
                Finding(topic, TROUBLE, words, "install csakd-geo anew in an empty virtual environment")
            )
    return findings


def _python() -> Iterator[Finding]:
    words = f"csakd-geo {__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("Python", OK, f"{words}, {sys.executable}")


def _libraries() -> Iterator[Finding]:
    found, missing = [], []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding("Libraries", TROUBLE, f"no {', '.join(missing)}", "pip install --upgrade csakd-geo")
    yield Finding("Libraries", OK, ", ".join(found))


def _gdal() -> Iterator[Finding]:
    import rasterio

    with rasterio.Env() as env:
        drivers = env.drivers()
    lacking = [name for name in _DRIVERS if name not in drivers]
    needed = [name for name in lacking if _DRIVERS[name]]
    have = ", ".join(name for name in _DRIVERS if name in drivers)
    words = f"{rasterio.__gdal_version__} with {have}"
    if needed:
        yield Finding(
            "GDAL", TROUBLE, f"{words}; no {', '.join(needed)}", "pip install --force-reinstall rasterio"
        )
    elif lacking:
        yield Finding(
            "GDAL",
            MISSING,
            f"{words}; no {', '.join(lacking)}",
            "only for products in those formats: conda-forge's rasterio has them (package libgdal-hdf5, libgdal-netcdf)",
        )
    else:
        yield Finding("GDAL", OK, words)


def _gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            yield Finding("GPU", OK, f"cuda:{number}: {facts.name}, {facts.total_memory / 1e9:.0f} GB")
    elif torch.version.cuda is None:
        words = "torch is built for the CPU alone"
        advice = "with an NVIDIA GPU, install torch for CUDA as pytorch.org says; else all runs on the CPU"
        yield Finding("GPU", MISSING, words, advice)
    else:
        advice = "see whether 'nvidia-smi' lists a GPU; without one all runs on the CPU"
        yield Finding("GPU", MISSING, f"torch for CUDA {torch.version.cuda} sees no GPU", advice)


def _optional() -> Iterator[Finding]:
    found, lacking = [], []
    for module, (use, extra) in _EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            lacking.append((module, use, extra))
        else:
            found.append(f"{module} {_package_version(module)}")
    if found:
        yield Finding("Optional", OK, ", ".join(found))
    if lacking:
        words = ", ".join(f"{module} ({use})" for module, use, _ in lacking)
        extras = ",".join(dict.fromkeys(extra for *_, extra in lacking))
        yield Finding("Optional", MISSING, f"no {words}", f'pip install "csakd-geo[{extras}]"')


def _package_version(module: str) -> str:
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _models() -> Iterator[Finding]:
    from csakd_geo.errors import ModelError
    from csakd_geo.models import bundled_models, read_card, user_models
    from csakd_geo.models.registry import model_folders

    names = []
    for path in (*user_models(), *bundled_models()):
        try:
            if path.suffix == ".safetensors":
                read_card(path)
            names.append(path.stem)
        except ModelError as error:
            yield Finding("Models", TROUBLE, str(error), f"remove '{path}' or export it again")
    folders = ", ".join(map(str, model_folders()))
    if names:
        yield Finding("Models", OK, f"{', '.join(dict.fromkeys(names))}; your own go into {folders}")
    else:
        yield Finding("Models", MISSING, "none", f"put models into {folders}, or train one: csakd-geo train")


def _qgis() -> Iterator[Finding]:
    from csakd_geo.cli.qgis import find_profile, find_programs, installed_setup

    programs, profile = find_programs(), find_profile(None)
    setup = installed_setup(profile)
    again = "csakd-geo qgis install"
    where = programs[0] if programs else "not found on the search path"
    if setup is None:
        advice = f"{again}, to have it in QGIS" if programs else f"if QGIS is there all the same: {again}"
        yield Finding("QGIS", MISSING, f"{where}; no plugin in profile '{profile.name}'", advice)
        return
    words = f"{where}; plugin {setup['version']} in profile '{profile.name}' runs {setup['python']}"
    if not Path(setup["python"]).is_file():
        yield Finding("QGIS", TROUBLE, f"{words}, which is gone", again)
    elif setup["version"] != __version__:
        yield Finding("QGIS", TROUBLE, f"{words}, and this is {__version__}", again)
    else:
        yield Finding("QGIS", OK, words)


def _memory() -> Iterator[Finding]:
    known = _memory_bytes()
    cores = f"{os.cpu_count()} CPU cores"
    if known is None:
        yield Finding("Memory", OK, f"{cores}; how much memory is free cannot be told here")
        return
    total, free = known
    words = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free, {cores}"
    if free < _LOW_MEMORY:
        yield Finding(
            "Memory", TROUBLE, words, "close other programs, or give a smaller --tile and --supertile"
        )
    else:
        yield Finding("Memory", OK, words)


def _memory_bytes() -> tuple[float, float] | None:
    """Total and available memory; None where they cannot be told."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text("ascii").splitlines())
        total, free = (float(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
        return total, free
    if importlib.util.find_spec("psutil") is not None:  # comes with the extra `cluster`
        memory = importlib.import_module("psutil").virtual_memory()
        return float(memory.total), float(memory.available)
    return None


def _disk() -> Iterator[Finding]:
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free
    words = f"{free / 1e9:.0f} GB free in {folder}"
    if not os.access(folder, os.W_OK):
        yield Finding("Disk", TROUBLE, f"{words}, which you may not write to", "work in another folder")
    elif free < _LOW_DISK:
        advice = (
            "a scene takes up to three times its output for a while: 'csakd-geo fuse --dry-run' says how much"
        )
        yield Finding("Disk", TROUBLE, words, advice)
    else:
        yield Finding("Disk", OK, words)
