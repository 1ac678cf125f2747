"""The site that Sphinx makes of the documents, and what its pages show, done again."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from csakd_geo.cli import main
from csakd_geo.errors import GridError
from csakd_geo.grid import lay_grid

NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


def newest(folder: Path, pattern: str) -> float:
    return max(path.stat().st_mtime for path in folder.rglob(pattern) if "generated" not in path.parts)


@pytest.fixture(scope="module")
def site(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` left, if it is newer than all it is made of; else a build elsewhere."""
    built = repo / "build" / "docs"
    index = built / "index.html"
    if index.exists() and index.stat().st_mtime > max(
        newest(repo / "docs", "*.*"), newest(repo / "csakd_geo", "*.py")
    ):
        return built
    for name in ("sphinx", "myst_parser", "numpydoc", "sphinx_click", "furo"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(repo / "docs", folder / "docs", ignore=shutil.ignore_patterns("generated"))
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "docs", "html"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Loaded(HTMLParser):
    """Addresses that a browser fetches for a page, and the ids on it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        self.ids.add(given.get("id") or "")
        if tag != "a":
            self.addresses += [given[key] or "" for key in ("src", "href", "srcset", "data") if key in given]


def commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*path, name))


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    assert len(pages) > 40
    for path in pages:
        page = Loaded(path.read_text(encoding="utf-8"))
        assert page.addresses
        for address in page.addresses:
            assert not re.match(r"(?:[a-z]+:)?//", address), f"{path.name} loads {address}"
            if not re.match(r"#|data:|$", address):
                assert (path.parent / re.split(r"[?#]", address)[0]).exists(), f"{path.name}: {address}"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')]+)", sheet.read_text(encoding="utf-8")):
            assert not re.match(r"(?:https?:)?//", address), f"{sheet.name} loads {address}"


@pytest.mark.slow
def test_every_command_and_option_is_on_the_reference_page(site: Path) -> None:
    text = (site / "cli.html").read_text(encoding="utf-8")
    page = Loaded(text)
    seen = 0
    for path, command in commands(main, ("csakd-geo",)):
        assert "-".join(path) in page.ids
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                seen += 1
                longest = max(parameter.opts, key=len)
                assert "cmdoption-" + "-".join(path) + "-" + longest.lstrip("-") in page.ids, (path, longest)
    assert seen > 100


@pytest.mark.slow
def test_formulas_and_docstrings_are_on_their_pages(site: Path) -> None:
    for name in ("network", "physics"):
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        assert "math" in Loaded(text).tags
        assert not re.search(r"\\(?:frac|mathrm|sum|lambda)\b", re.sub(r"<[^>]*>", "", text))
    assert {"csakd_geo.fuse", "csakd_geo.open_cube"} <= Loaded((site / "api.html").read_text("utf-8")).ids
    for name in ("csakd_geo.metrics", "csakd_geo.options", "csakd_geo.methods.base"):
        page = Loaded((site / "generated" / f"{name}.html").read_text("utf-8"))
        assert any(found.startswith(f"{name}.") for found in page.ids)


def command_line(words: list[str], folder: Path) -> str:
    """What a command prints to stdout; `csakd-geo` runs from this interpreter."""
    program = ["-m", "csakd_geo.cli"] if words[0] == "csakd-geo" else ["-c"]
    done = subprocess.run(
        [sys.executable, *program, *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def alike(shown: str, printed: str) -> bool:
    """The same words, and numbers within a fiftieth: another library may round another way."""
    if NUMBER.sub("#", " ".join(shown.split())) != NUMBER.sub("#", " ".join(printed.split())):
        return False
    one, other = ([float(n.replace(",", "")) for n in NUMBER.findall(text)] for text in (shown, printed))
    return bool(np.allclose(one, other, rtol=0.02))


@pytest.mark.slow
def test_the_tutorial_prints_what_it_shows(repo: Path, tmp_path: Path) -> None:
    page = (repo / "docs" / "tutorial.md").read_text(encoding="utf-8")
    printed: list[str] = []
    lines = 0
    for kind, block in re.findall(r"```(sh|python|text)\n(.*?)```", page, re.DOTALL):
        if kind == "python":
            printed = command_line(["python", block], tmp_path).splitlines()
        elif kind == "sh":
            calls = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
            printed = [line for words in calls for line in command_line(words, tmp_path).splitlines()]
        else:
            for line in block.splitlines():
                lines += 1
                assert any(alike(line, other) for other in printed), f"{line!r} is not in {printed}"
    assert lines > 25
    report = re.sub(
        r"<script.*?</script>|<[^>]+>",
        " ",
        (tmp_path / "pair/fused.html").read_text("utf-8"),
        flags=re.DOTALL,
    )
    report = " ".join(report.split())
    for name, pattern in (
        ("HSI consistency", r"\*\*HSI consistency\*\*.*?by ([\d.]+) %"),
        ("MSI consistency", r"\*\*MSI consistency\*\*.*?by ([\d.]+) %"),
        ("Unsupported bands", r"\*\*Unsupported bands\*\*: (\d+) of"),
    ):
        told, found = (
            re.search(p, text, re.DOTALL) for p, text in ((pattern, page), (rf"{name} ([\d.]+)", report))
        )
        assert told is not None, name
        assert found is not None, report[:1000]
        assert float(told[1]) == pytest.approx(float(found[1]), rel=0.02), name


@pytest.mark.slow
@pytest.mark.realdata
def test_the_airborne_page_tells_what_is_found(repo: Path, shared_data: Path, tmp_path: Path) -> None:
    """The page's band list and the two columns of its table, as far as `response` prints them."""
    page = (repo / "docs" / "howto_airborne_rgb.md").read_text(encoding="utf-8")
    folder = shared_data / "neon_sjer052"
    shutil.copy(folder / "neon_wavelength_nm.csv", tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    command_line(["python", snippet], tmp_path)
    bands = np.loadtxt(tmp_path / "bands.csv", delimiter=",")
    for column, (table, count) in enumerate(
        [("bands.csv", int(bands[:, 2].sum())), ("neon_wavelength_nm.csv", len(bands))]
    ):
        pair = [str(folder / name) for name in ("SJER_052_hyperspectral.tif", "SJER_052_rgb.tif")]
        words = ["csakd-geo", "response", *pair, "--wavelengths", table, "--msi-sensor", "rgb"]
        printed = command_line(words, tmp_path)

        told = {
            cells[0].strip(): cells[column + 1].strip()
            for cells in re.findall(r"^\|([^|]+)\|([^|]+)\|([^|]+)\|$", page, re.MULTILINE)
        }
        x, y, width, explained = (
            float(re.findall(pattern, printed)[0])
            for pattern in (r"x ([-+\d.]+)", r"y ([-+\d.]+)", r"FWHM ([\d.]+) HSI", r"Explained: ([\d.]+)%")
        )
        assert told["bands used"] == str(count)
        assert told["width of the PSF (FWHM)"] == f"{width:.2f} m"
        assert told["the MSI explains, of the HSI's leading components"] == f"{explained:.1f} %"
        # a fusion searches once more on the corrected grid
        shift = [float(n) for n in NUMBER.findall(told["shift found, x and y"])]
        np.testing.assert_allclose(shift, [x, y], atol=0.05)
        if column == 0:
            (quoted,) = re.findall(r"is ([\d.]+) in red, ([\d.]+) in green and ([\d.]+) in\s+blue", page)
            assert list(quoted) == re.findall(r"^Band \d +\d+ +\d+ +([\d.]+)", printed, re.MULTILINE)


def test_emit_fits_landsat_up_to_the_latitude_told(repo: Path) -> None:
    page = (repo / "docs" / "howto_emit_landsat.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"up to ([\d.]+)° of latitude", page)
    pixel = 60.3 / 111_194  # degrees; EMIT's grid
    to_utm = Transformer.from_crs(4326, 32633, always_xy=True)

    def pair(latitude: float) -> list[SimpleNamespace]:
        x, y = to_utm.transform(15.0, latitude)
        emit = Affine(pixel, 0, 14.95, 0, -pixel, latitude + 0.05)
        landsat = Affine(30, 0, round(x) - 3000, 0, -30, round(y) + 3000)
        return [
            SimpleNamespace(name=name, crs=CRS.from_epsg(code), transform=place, height=200, width=200)
            for name, code, place in (("emit", 4326, emit), ("landsat", 32633, landsat))
        ]

    for latitude in (0.0, 52.0, float(told)):
        assert lay_grid(*pair(latitude)).ratio == 2
    with pytest.raises(GridError, match="warp it to square pixels"):
        lay_grid(*pair(float(told) + 1))


def test_figures_in_the_prose_are_the_codes(repo: Path) -> None:
    from csakd_geo.align import _MAX_REACH
    from csakd_geo.choose import _NO_HELP, MIN_COMPARED
    from csakd_geo.draft import _WITH_BANDS
    from csakd_geo.grid.ratio import _RATIO_ERROR
    from csakd_geo.io.formats import FORMATS
    from csakd_geo.job import _MIN_EXPLAINED
    from csakd_geo.methods.subspace import KEPT
    from csakd_geo.options import FuseOptions
    from csakd_geo.psf import _FWHM_RANGE
    from csakd_geo.report.content import SUPPORTED
    from csakd_geo.uncertainty.below import _NO_HELP as _UNINFORMED
    from csakd_geo.uncertainty.below import STEEPNESS, TRANSFER, UNMODELLED

    pages = {path.stem: " ".join(path.read_text("utf-8").split()) for path in (repo / "docs").glob("*.md")}
    for name, words in (
        ("physics", f"here $K = {KEPT}$"),
        ("physics", f"$9 \\times {KEPT} = {9 * KEPT}$"),
        ("physics", f"EnMAP with ten Sentinel-2 bands: {9 * 224} unknown, {224 + 9 * 10} known"),
        ("physics", f"less than {SUPPORTED:.0%}".replace("%", " %")),
        ("choosing", f"Under {MIN_COMPARED} x {MIN_COMPARED} HSI pixels"),
        ("choosing", f"is more than {_NO_HELP:.0%}".replace("%", " %")),
        ("large_scenes", f"up to {FORMATS['cog'].disk} times the uncompressed output for a COG"),
        ("large_scenes", f"{FORMATS['zarr'].disk} times for Zarr"),
        ("large_scenes", f"with `--uncertainty bands` {_WITH_BANDS} times"),
        ("uncertainty", f"TRANSFER {TRANSFER}, STEEPNESS {STEEPNESS}, UNMODELLED {UNMODELLED} (without"),
        ("uncertainty", f"at least {_UNINFORMED} of the error of plain interpolation"),
        ("limits", f"under {MIN_COMPARED} x {MIN_COMPARED} HSI pixels"),
        ("limits", f"may differ by {_RATIO_ERROR:.0%}".replace("%", " %")),
        ("limits", f"within {_MAX_REACH} HSI pixels at most"),
        ("howto_prisma_sentinel2", f"reaches {_MAX_REACH} HSI pixels, so {_MAX_REACH * 30} m"),
        ("howto_prisma_sentinel2", f"Near {_FWHM_RANGE[1]}, the end of the search"),
        *(
            (f"howto_{pair}", f"under {_MIN_EXPLAINED:.0%}".replace("%", " %"))
            for pair in ("enmap_sentinel2", "emit_landsat")
        ),
    ):
        assert words in pages[name], f"{name}.md does not say '{words}'"
    assert FuseOptions(ratio=64).ratio == 64
    with pytest.raises(ValueError, match="ratio"):
        FuseOptions(ratio=65)
    assert "at most 64 for the classical methods" in pages["howto_airborne_rgb"]
