"""The page of a product: its numbers against other computations, and its controls in headless Chromium."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

import tests.made as made
from csakd_geo.cli import main
from csakd_geo.degrade import PSF, degrade
from csakd_geo.errors import GridError, InputError, OutputError
from csakd_geo.evaluate import consistency
from csakd_geo.evaluate.consistency import measure_consistency
from csakd_geo.evaluate.facts import product_facts
from csakd_geo.evaluate.link import explained_bands, link_product
from csakd_geo.io import open_source
from csakd_geo.metrics import noreference, q2n
from csakd_geo.pair import Block, Pair
from csakd_geo.report import write_report
from csakd_geo.report.content import gather
from csakd_geo.report.page import draw_page
from csakd_geo.report.pixels import pack
from csakd_geo.spectral import SpectralAxis
from csakd_geo.uncertainty import open_uncertainty


class Browser:
    """Headless Chromium, driven through the pipes of its DevTools protocol."""

    def __init__(self, program: str, profile: Path, *, width: int = 1400, height: int = 1000) -> None:
        read_in, self._write = os.pipe()
        self._read, write_out = os.pipe()
        # out of the way of 3 and 4, which are Chromium's ends
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (read_in, write_out)]
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}", f"--window-size={width},{height}", "--remote-debugging-pipe",
        ]  # fmt: skip
        line = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, program, *flags, "about:blank"],
            pass_fds=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (read_in, write_out, *theirs):
            os.close(end)
        self._rest, self._count, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = session["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what comes in between is kept in `events`."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 16)
            assert part, "Chromium has ended"
            self._rest += part
        text, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(text))

    def open(self, page: Path) -> None:
        """Load a page and wait until its script is done."""
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.evaluate(
            "new Promise((done) => { const look = () => document.documentElement?.dataset.ready ? done(1) "
            ": setTimeout(look, 20); setTimeout(() => done(0), 20000); look(); })"
        )

    def evaluate(self, code: str) -> Any:
        """Value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element, scrolled into view."""
        code = f"document.querySelector({json.dumps(selector)})"
        found = self.evaluate(
            f"({code}.scrollIntoView({{block: 'center'}}), (({{x, y, width, height}}) => [x, y, width, height])"
            f"({code}.getBoundingClientRect()))"
        )
        return tuple(found)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """A true mouse event at a place of the window."""
        held = 1 if kind != "mouseReleased" else 0
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=held, clickCount=1)

    def click(self, x: float, y: float) -> None:
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def complaints(self) -> list[str]:
        """Errors of the console, and requests that leave the page."""
        found = []
        for event in self.events:
            name, values = event.get("method"), event.get("params", {})
            if name == "Runtime.exceptionThrown" or (
                name == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning")
            ):
                found.append(json.dumps(values))
            if name == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning"):
                found.append(json.dumps(values["args"]))
            if name == "Network.requestWillBeSent":
                address = values["request"]["url"]
                if not address.startswith(("data:", "file:", "blob:", "about:")):
                    found.append(address)
        return found

    def close(self) -> None:
        self._session = ""
        self.call("Browser.close")
        self._process.wait(20)
        os.close(self._write)
        os.close(self._read)


RATIO, BANDS = 4, 24


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A made pair whose HSI lies 12 m off, fused by the command; its truth; and the page."""
    folder = tmp_path_factory.mktemp("report")
    pair = made.make_pair(folder, ratio=RATIO, bands=BANDS, height=96, width=80)
    with rasterio.open(pair.hsi, "r+") as hsi:
        hsi.transform = hsi.transform.translation(12.0, 0.0) * hsi.transform
    truth = made.write(folder / "truth.tif", pair.truth, wavelength=pair.wavelength, fwhm=20)
    fused, page = folder / "fused <1>.tif", folder / "page.html"
    run("fuse", pair.hsi, pair.msi, "-o", fused, "--method", "coupled-map", "--dtype", "float32")
    run("report", fused, "--hsi", pair.hsi, "--msi", pair.msi, "--truth", truth, "-o", page)
    return {
        "hsi": pair.hsi,
        "msi": pair.msi,
        "truth": truth,
        "fused": fused,
        "page": page,
        "data": read_data(page),
    }


def run(*arguments: object) -> str:
    done = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def read_data(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"))
    assert found is not None
    return dict(json.loads(found[1]))


def unpack(cube: dict[str, Any]) -> np.ndarray:
    """What page.js does, in NumPy."""
    plain = np.frombuffer(zlib.decompress(base64.b64decode(cube["data"])), np.uint8)
    low, high = plain.reshape(2, -1).astype(np.uint16)
    numbers = np.cumsum((low | high << 8).reshape(cube["shape"]), axis=0, dtype=np.uint16)
    bottom, top = (np.array(cube[k])[:, None, None] for k in ("low", "high"))
    return np.where(numbers == 65535, np.nan, bottom + numbers / 65534 * (top - bottom))


def values(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return np.asarray(src.read().astype(np.float64))


def degraded(cube: np.ndarray, fwhm: float, dy: float, dx: float) -> np.ndarray:
    """Weighted means of a cube with a Gaussian around each 4 x 4 block's displaced centre; NaN at the border."""
    _, height, width = cube.shape
    out = np.full((len(cube), height // RATIO, width // RATIO), np.nan)
    sigma = fwhm / np.sqrt(8 * np.log(2))
    y, x = np.arange(height), np.arange(width)
    for i in range(1, height // RATIO - 1):
        wy = np.exp(-((y - (i * RATIO + 1.5 + dy)) ** 2) / (2 * sigma**2))
        for j in range(1, width // RATIO - 1):
            wx = np.exp(-((x - (j * RATIO + 1.5 + dx)) ** 2) / (2 * sigma**2))
            out[:, i, j] = np.einsum("y,x,byx->b", wy / wy.sum(), wx / wx.sum(), cube)
    return out


def ground_uiqi(
    ours: np.ndarray, msi: np.ndarray, pair_low: np.ndarray, msi_low: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """UIQI of every band at both resolutions, blocks of 8 x 8 cells without those that are NaN in the last."""
    good = np.isfinite(msi_low[0])
    found, cells = np.zeros((2, len(msi))), 0
    for top, bottom in ((0, 8), (8, 16), (16, 24)):
        for left, right in ((0, 8), (8, 16), (16, 20)):
            inside = np.zeros_like(good)
            inside[top:bottom, left:right] = True
            inside &= good
            pixels = np.kron(inside, np.ones((RATIO, RATIO))) > 0
            for level, (a, b, mask) in enumerate(((ours, msi, pixels), (pair_low, msi_low, inside))):
                for band in range(len(msi)):
                    f, t = a[band, mask], b[band, mask]
                    (vf, cov), (_, vt) = np.cov(f, t, bias=True)
                    index = 4 * cov * f.mean() * t.mean() / (vf + vt) / (f.mean() ** 2 + t.mean() ** 2)
                    found[level, band] += index * inside.sum()
            cells += int(inside.sum())
    return found[0] / cells, found[1] / cells


@pytest.mark.parametrize("bands", [1, 7])
def test_packed_numbers_come_back(bands: int) -> None:
    rng = np.random.default_rng(3)
    cube = rng.normal(200, 50, (bands, 9, 11)).astype(np.float32)
    cube[:, 2, 3] = np.nan
    cube[0] = 5
    if bands > 1:
        cube[-1] = np.nan
    found = unpack(pack(cube))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(cube))
    assert np.nanmax(np.abs(found - cube)) <= (np.nanmax(cube) - np.nanmin(cube)) / 65534


def test_spectra_are_those_of_the_files(scene: dict[str, Any]) -> None:
    data, fused = scene["data"], values(scene["fused"])
    rows, cols = (np.floor(data["lattice"][k]).astype(int) for k in ("rows", "cols"))
    at = np.s_[:, rows[:, None], cols]
    found = unpack(data["cubes"]["fused"])
    assert found.shape == (BANDS, *fused.shape[1:])  # a small scene is kept whole
    np.testing.assert_allclose(found, fused[at], atol=2e-5)
    with rasterio.open(scene["fused"]) as src, rasterio.open(scene["truth"]) as other:
        off = [round(v) for v in ~other.transform * (src.transform.c, src.transform.f)]
    truth = values(scene["truth"])[:, off[1] :, off[0] :]
    np.testing.assert_allclose(unpack(data["cubes"]["truth"]), truth[at], atol=2e-5)


def test_consistency_is_what_a_plain_computation_gives(scene: dict[str, Any], tmp_path: Path) -> None:
    """On a nested pair: Gaussian means of the fused pixels against the HSI, the response against the MSI."""
    pair = made.make_pair(tmp_path, ratio=RATIO, bands=BANDS, height=96, width=80, seed=4)
    fused = tmp_path / "fused.tif"
    run("fuse", pair.hsi, pair.msi, "-o", fused, "--method", "gsa", "--dtype", "float32", "--shift", "none")
    facts = product_facts(fused)

    link = link_product(open_source(fused), pair.hsi, pair.msi, facts)
    found = measure_consistency(link, side=200)
    assert link.scene.grid.nested

    cube, hsi, msi = (values(p) for p in (fused, pair.hsi, pair.msi))
    dy, dx = facts["psf_phase_msi_pixels"]
    psf = (facts["psf_fwhm_hsi_pixels"] * RATIO, dy, dx)
    coarse = degraded(cube, *psf)
    low = coarse[:, 2:-2, 2:-2]
    inner = hsi[:, 2:-2, 2:-2]
    expected = np.sqrt(np.square(low - inner).sum(0) / np.square(inner).sum(0))
    np.testing.assert_allclose(found.hsi_map[2:-2, 2:-2], expected, rtol=0.03, atol=1e-5)
    cosine = (low * inner).sum(0) / np.linalg.norm(low, axis=0) / np.linalg.norm(inner, axis=0)
    assert found.angle == pytest.approx(np.degrees(np.arccos(cosine)).mean(), rel=0.1)
    # all cells with their whole footprint inside count: a ring of one is not
    assert found.hsi.count == (96 // RATIO - 2) * (80 // RATIO - 2)

    ours = np.tensordot(link.response.operator, cube, axes=1) + link.response.offset[:, None, None]
    error = np.sqrt(np.square(ours - msi).mean((1, 2)))
    assert found.msi is not None
    np.testing.assert_allclose(found.msi.rmse, error, rtol=1e-3)
    np.testing.assert_allclose(found.msi.bias, (ours - msi).mean((1, 2)), atol=1e-5)
    for k in range(len(msi)):
        assert found.msi.cc[k] == pytest.approx(np.corrcoef(ours[k].ravel(), msi[k].ravel())[0, 1], abs=1e-5)
    total = np.sqrt(np.square(ours - msi).sum() / np.square(msi).sum())
    assert found.msi.overall == pytest.approx(total, rel=1e-3)
    assert found.scores.d_lambda == pytest.approx(1 - q2n(coarse, hsi), rel=0.05)
    assert found.scores.cells == found.hsi.count
    pair_low = np.tensordot(link.response.operator, hsi, axes=1) + link.response.offset[:, None, None]
    fine, rough = ground_uiqi(ours, msi, pair_low, degraded(msi, *psf))
    np.testing.assert_allclose(found.scores.fine, fine, atol=1e-5)
    np.testing.assert_allclose(found.scores.coarse, rough, atol=2e-4)
    np.testing.assert_allclose(found.scores.d_s_bands, np.abs(fine - rough), atol=2e-4)
    assert found.scores.hqnr == pytest.approx((1 - found.scores.d_lambda) * (1 - found.scores.d_s))
    # the response is the one that the fusion found
    np.testing.assert_allclose(link.response.gain, facts["msi_gain"], rtol=0.02)


def test_the_truth_leaves_the_noise_of_the_hsi_and_a_copy_of_the_hsi_less(tmp_path: Path) -> None:
    noise = 5e-3
    pair = made.make_pair(tmp_path, ratio=RATIO, bands=BANDS, height=96, width=80, noise=noise)
    truth = made.write(tmp_path / "truth.tif", pair.truth, wavelength=pair.wavelength, fwhm=20)
    fused = tmp_path / "fused.tif"
    run("fuse", pair.hsi, pair.msi, "-o", fused, "--method", "regression", "--shift", "none")
    link = link_product(open_source(fused), pair.hsi, pair.msi, product_facts(fused))
    ideal = measure_consistency(replace(link, fused=open_source(truth)), side=1)
    np.testing.assert_allclose(ideal.hsi.rmse, noise, rtol=0.15)
    # the noise is found from neighbours, which have noise too: half of the variance more at most
    assert 1 / np.sqrt(1.6) < ideal.over_noise < 1.05
    assert measure_consistency(link, side=1).over_noise < 0.8 * ideal.over_noise


def test_windows_and_band_groups_change_nothing(
    scene: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    link = link_product(
        open_source(scene["fused"]), scene["hsi"], scene["msi"], product_facts(scene["fused"])
    )
    for module in (consistency, noreference):
        monkeypatch.setattr(module, "UIQI_BLOCK", 8)
    whole = measure_consistency(link, side=200)
    monkeypatch.setattr(consistency, "_SIDE", 8 * RATIO)
    monkeypatch.setattr(consistency, "_BANDS", 5)
    assert len(list(consistency._windows(link))) > 4
    parts = measure_consistency(link, side=200)
    assert parts.scores.d_lambda == pytest.approx(whole.scores.d_lambda, rel=1e-4)
    np.testing.assert_allclose(parts.scores.fine, whole.scores.fine, atol=1e-5)
    np.testing.assert_allclose(parts.scores.coarse, whole.scores.coarse, atol=1e-5)
    assert parts.scores.cells == whole.scores.cells
    monkeypatch.setattr(consistency, "_SIDE", 1024)
    monkeypatch.setattr(consistency, "_VALUES", 8 * 8 * BANDS)  # many bands make small windows too
    assert len(list(consistency._windows(link))) > 4
    np.testing.assert_allclose(parts.hsi_map, whole.hsi_map, rtol=1e-4)
    np.testing.assert_allclose(parts.hsi.rmse, whole.hsi.rmse, rtol=1e-4)
    np.testing.assert_allclose(parts.msi_map, whole.msi_map, rtol=1e-3, atol=1e-6)
    assert parts.hsi.count == whole.hsi.count
    assert parts.angle == pytest.approx(whole.angle, rel=1e-4)


def test_a_band_that_the_msi_cannot_tell_is_flagged(tmp_path: Path) -> None:
    """One band of another scene: nothing in the MSI goes with it."""
    pair = made.make_pair(tmp_path, ratio=RATIO, bands=12, height=96, width=80)
    other, _ = made.make_truth(12, 96, 80, seed=99)
    with rasterio.open(pair.hsi, "r+") as hsi:
        hsi.write(made.coarsen(other, RATIO)[5].astype(np.float32), 6)
    fused, page = tmp_path / "fused.tif", tmp_path / "page.html"
    run("fuse", pair.hsi, pair.msi, "-o", fused, "--method", "regression")
    run("report", fused, "--hsi", pair.hsi, "--msi", pair.msi, "-o", page)
    data, text = read_data(page), page.read_text("utf-8")
    support = np.array(data["series"]["support"])
    assert list(np.flatnonzero(support < data["series"]["supported"])) == [5]
    assert "In 1 band less than 70% of what varies follows" in text
    assert f"{pair.wavelength[5]:.0f} nm" in text
    assert "Error" not in [m["name"] for m in data["maps"]]
    assert "truth" not in data["cubes"]


@pytest.fixture(scope="module", params=["bands", "compact"])
def layered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A product with both layers and its page, made in one go.

    The last five bands show a scene of their own, which the MSI does not; one MSI pixel lacks.
    """
    folder = tmp_path_factory.mktemp("layered")
    pair = made.make_pair(folder, ratio=RATIO, bands=12, height=96, width=80, noise=2e-3)
    other, _ = made.make_truth(12, 96, 80, seed=99)
    pair.truth[7:] = other[7:]
    truth = made.write(folder / "truth.tif", pair.truth, wavelength=pair.wavelength, fwhm=20)
    with rasterio.open(pair.hsi, "r+") as hsi, rasterio.open(pair.msi, "r+") as msi:
        hsi.write(made.coarsen(other[7:], RATIO).astype(np.float32), range(8, 13))
        holed = msi.read()
        holed[:, 41, 17] = np.nan
        msi.write(holed)
    fused = folder / "fused.tif"
    options = ["--method", "regression", "--shift", "none", "--truth", truth]
    run("fuse", pair.hsi, pair.msi, "-o", fused, "--report", "--quality", "--uncertainty", request.param, *options)  # fmt: skip
    page = folder / "fused.html"
    sigma = open_uncertainty(folder / "fused_uncertainty.tif")
    return {
        "hsi": pair.hsi,
        "msi": pair.msi,
        "truth": truth,
        "fused": fused,
        "page": page,
        "data": read_data(page),
        "sigma": np.asarray(sigma.values, np.float64),
        "informed": sigma["informed"].values,
        "nm": pair.wavelength,
    }


def test_deviations_and_flags_are_those_of_the_files(layered: dict[str, Any]) -> None:
    data, sigma, text = layered["data"], layered["sigma"], layered["page"].read_text("utf-8")
    series, amplitude = data["series"], unpack(data["cubes"]["amplitude"])[0]
    alpha, beta = (np.array(series[name])[:, None, None] for name in ("alpha", "beta"))
    assert np.isnan(sigma).sum() == 12  # the pixel that lacks
    np.testing.assert_allclose(np.sqrt(alpha + beta * amplitude**2), sigma, rtol=5e-3)
    with rasterio.open(layered["hsi"]) as src:
        level = np.sqrt(np.square(src.read()).mean((1, 2)))
    # the page's level is that of the cells which it compares, without the border
    mean = np.nanmean(sigma, axis=(1, 2))
    np.testing.assert_allclose(series["sigma"], 100 * mean / level, rtol=0.05)
    assert series["informed"] == layered["informed"].tolist() == [True] * 7 + [False] * 5
    assert "In 5 bands the MSI was no help one resolution level down" in text
    assert f"an interpolation: {layered['nm'][7]:.0f}–{layered['nm'][11]:.0f} nm." in text
    with rasterio.open(layered["fused"]) as src, rasterio.open(layered["truth"]) as true:
        error = np.abs(src.read(masked=True) * src.scales[0] - true.read()).filled(np.nan)
    known = np.isfinite(error)
    inside = (error[known] <= 1.6449 * sigma[known]).mean()
    (told,) = re.findall(r"Of this truth ([\d.]+) % lie inside", text)
    assert float(told) == pytest.approx(100 * inside, abs=0.2)
    with rasterio.open(layered["fused"].with_name("fused_quality.tif")) as src:
        flags = src.read(1)
    for bit, name in ((1, "masked"), (2, "filled"), (4, "clipped"), (8, "extrapolated"), (16, "changed")):
        share = (flags & bit > 0).mean()
        assert f"<td>{name} ({bit})</td><td>{f'{100 * share:.2f} %' if share else 'none'}</td>" in text
    assert (flags & 1).any()
    assert (flags & 2).any()


def test_layers_of_another_run_are_left_out(layered: dict[str, Any]) -> None:
    facts = product_facts(layered["fused"]) | {"request": "another"}
    link = link_product(open_source(layered["fused"]), layered["hsi"], layered["msi"], facts)
    text = draw_page(gather(layered["fused"], link, facts, None))
    assert "&#x27;fused_uncertainty.tif&#x27; was not written with this product" in text
    assert "&#x27;fused_quality.tif&#x27; was not written with this product" in text
    assert "<h2>Quality</h2>" not in text
    assert '"sigma"' not in text


def test_the_page_tells_what_the_product_says(scene: dict[str, Any]) -> None:
    text, facts = scene["page"].read_text("utf-8"), product_facts(scene["fused"])
    assert facts["shift"][0] == pytest.approx(-12, abs=1.5)
    assert f"x {facts['shift'][0]:+.4g}" in text
    assert "coupled-map" in text
    assert facts["warnings"][0].split(";")[0] in text
    assert "fused &lt;1&gt;.tif" in text
    assert "<1>" not in text
    output = run("evaluate", scene["fused"], scene["truth"], "--ratio", RATIO, "--json")
    scores = json.loads(output[output.index("{") :])
    assert f"{scores['scores']['psnr']:.2f} dB" in text
    output = run("evaluate", scene["fused"], "--hsi", scene["hsi"], "--msi", scene["msi"], "--json")
    told = json.loads(output[output.index("{") :])["scores"]
    assert f"<span>HQNR</span><b>{told['hqnr']:.4f}</b>" in text
    assert f"Dλ\u00a0{told['d_lambda']:.4f}, Dₛ\u00a0{told['d_s']:.4f}" in text
    assert f"<b>{100 * told['hsi_consistency']:.2f} %</b>" in text
    np.testing.assert_allclose(scene["data"]["series"]["psnr"], scores["per_band"]["psnr"], rtol=1e-5)
    assert scene["page"].stat().st_size < 10e6
    assert not re.search(r"(src|href)=[\"']?https?:", text)


def test_the_page_of_a_few_bands_in_zarr(scene: dict[str, Any], tmp_path: Path) -> None:
    fused, page = tmp_path / "few.zarr", tmp_path / "few.html"
    run("fuse", scene["hsi"], scene["msi"], "-o", fused, "--method", "gsa", "--bands", "3,8-10")
    write_report(page, product=fused, hsi=scene["hsi"], msi=scene["msi"])
    data = read_data(page)
    assert data["axis"]["band"] == [3, 8, 9, 10]
    assert [m["name"] for m in data["maps"]] == ["HSI consistency"]
    text = page.read_text("utf-8")
    assert "cannot be projected" in text
    assert "HQNR" not in text
    arguments = ("evaluate", fused, "--hsi", scene["hsi"], "--msi", scene["msi"])
    output = run(*arguments, "--json")
    told = json.loads(output[output.index("{") :])
    assert told["bands"] == [1, 2, 3, 4]
    assert told["scores"]["hqnr"] is told["scores"]["msi_consistency"] is None
    assert 0 < told["scores"]["d_lambda"] < 0.05
    assert list(told["per_msi_band"]) == ["d_s"]
    table = run(*arguments)
    assert "HSI consistency" in table
    assert "HQNR" not in table


def test_what_cannot_be_reported_is_said(scene: dict[str, Any], tmp_path: Path) -> None:
    images = {"hsi": scene["hsi"], "msi": scene["msi"]}
    page = tmp_path / "page.html"
    with pytest.raises(InputError, match="does not say how it was made"):
        write_report(page, product=scene["truth"], **images)
    with pytest.raises(InputError, match="does not exist"):
        write_report(page, product=tmp_path / "no.tif", **images)
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        write_report(scene["page"], product=scene["fused"], **images)
    with pytest.raises(OutputError, match=r"must end in \.html"):
        write_report(tmp_path / "page.txt", product=scene["fused"], **images)
    other = made.make_pair(tmp_path, ratio=RATIO, bands=BANDS, height=48, width=80)
    with pytest.raises(GridError, match="give the two images that it was made of"):
        write_report(page, product=scene["fused"], hsi=other.hsi, msi=other.msi)
    assert list(tmp_path.glob("*page*")) == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None or sys.platform == "win32":
        pytest.skip("no Chromium found: apt-get install --no-install-recommends chromium")
    driven = Browser(program, tmp_path_factory.mktemp("profile"))
    yield driven
    driven.close()


def test_slider_and_clicks_in_a_browser(scene: dict[str, Any], browser: Browser) -> None:
    browser.open(scene["page"])
    fused = values(scene["fused"])
    left, top, width, height = browser.box("#stage")
    assert width > 300
    assert height / width == pytest.approx(fused.shape[1] / fused.shape[2], rel=0.01)

    # the divider is dragged from the middle to a quarter, and the upper image is cut there
    y = top + height / 2
    browser.mouse("mousePressed", left + width / 2, y)
    browser.mouse("mouseMoved", left + width * 0.3, y)
    browser.mouse("mouseMoved", left + width * 0.25, y)
    browser.mouse("mouseReleased", left + width * 0.25, y)
    assert float(browser.evaluate("divider.ariaValueNow")) == pytest.approx(25, abs=1)
    inset = browser.evaluate("getComputedStyle(document.getElementById('over')).clipPath")
    assert float(re.findall(r"([\d.]+)%", inset)[-1]) == pytest.approx(75, abs=1), inset
    browser.mouse("mouseMoved", left + width * 0.9, y)  # released: it stays
    assert float(browser.evaluate("divider.ariaValueNow")) == pytest.approx(25, abs=1)

    # a pixel is clicked: its spectrum is the file's
    row, col = 17, 61
    before = browser.evaluate("document.querySelector('#spectrum path').getAttribute('d')")
    browser.click(left + (col + 0.5) / fused.shape[2] * width, top + (row + 0.5) / fused.shape[1] * height)
    shown = browser.evaluate("selection")
    assert (shown["row"], shown["col"]) == (row, col)
    np.testing.assert_allclose(shown["spectra"]["Fused"], fused[:, row, col], atol=2e-5)
    with rasterio.open(scene["fused"]) as src:
        assert (shown["x"], shown["y"]) == pytest.approx(src.xy(row, col))
    assert browser.evaluate("document.querySelector('#spectrum path').getAttribute('d')") != before
    np.testing.assert_allclose(
        shown["spectra"]["Truth"], unpack(scene["data"]["cubes"]["truth"])[:, row, col], atol=1e-9
    )
    assert f"row {row + 1}, column {col + 1}" in browser.evaluate("place.textContent")

    # a click into a map selects too
    left, top, width, height = browser.box(".map")
    browser.click(left + width * 0.5, top + height * (24.5 / fused.shape[1]))
    assert browser.evaluate("selection.row") == 24
    assert browser.complaints() == []


def test_the_interval_follows_the_click(
    layered: dict[str, Any], scene: dict[str, Any], browser: Browser, tmp_path: Path
) -> None:
    page = tmp_path / "again.html"  # by the other command
    run("report", layered["fused"], "--hsi", layered["hsi"], "--msi", layered["msi"], "-o", page)
    browser.open(page)
    left, top, width, height = browser.box("#stage")
    row, col = 17, 61
    browser.click(left + (col + 0.5) / 80 * width, top + (row + 0.5) / 96 * height)
    shown = browser.evaluate("selection")
    assert (shown["row"], shown["col"]) == (row, col)
    np.testing.assert_allclose(shown["spectra"]["Sigma"], layered["sigma"][:, row, col], rtol=5e-3)
    outline = browser.evaluate("document.querySelector('#spectrum .interval').getAttribute('d')")
    points = np.array([[float(v) for v in pair.split()] for pair in re.findall(r"[\d.]+ [\d.]+", outline)])
    above, below = points[:12], points[12:][::-1]
    np.testing.assert_array_equal(above[:, 0], below[:, 0])
    reach = (below[:, 1] - above[:, 1]) / (2 * 1.6449 * layered["sigma"][:, row, col])
    np.testing.assert_allclose(reach, reach.mean(), rtol=0.05, atol=0)  # pixels per unit, the same everywhere
    assert browser.evaluate("decodeURIComponent(csv.href).split('\\n')[0]").endswith("fused,hsi,sigma")
    assert browser.evaluate("document.querySelectorAll('#chart-sigma .line').length") == 1
    assert not browser.evaluate("interval.hidden")
    # the pixel without data has no interval
    browser.click(left + (17 + 0.5) / 80 * width, top + (41 + 0.5) / 96 * height)
    assert browser.evaluate("selection.spectra.Sigma") == [None] * 12
    # nor has a page of a product without layers
    browser.open(scene["page"])
    assert browser.evaluate("getComputedStyle(document.getElementById('figure-sigma')).display") == "none"
    assert browser.evaluate("interval.hidden")
    assert browser.complaints() == []


def test_views_switch_and_the_page_fits_a_phone(scene: dict[str, Any], browser: Browser) -> None:
    browser.open(scene["page"])
    first = browser.evaluate("under.src")
    left, top, width, height = browser.box("#tabs button:nth-child(2)")
    browser.click(left + width / 2, top + height / 2)
    assert browser.evaluate("under.src") not in ("", first)
    browser.evaluate("(right.value = 'Truth', right.dispatchEvent(new Event('change')))")
    assert browser.evaluate("under.alt") == "Truth"
    images = "[...document.querySelectorAll('#stage img')].every((i) => i.complete && i.naturalWidth > 0)"
    assert browser.evaluate(f"new Promise((done) => setTimeout(() => done({images}), 200))")
    painted = (
        "(() => { const c = document.querySelector('.map canvas'); const p = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return new Set(p).size; })()"
    )
    assert browser.evaluate(painted) > 50
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True
    )
    browser.evaluate("new Promise((done) => setTimeout(done, 200))")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    browser.call("Emulation.clearDeviceMetricsOverride")
    assert browser.complaints() == []


def test_support_is_the_share_that_a_regression_explains() -> None:
    rng = np.random.default_rng(0)
    msi = rng.standard_normal((2, 80, 80))
    psf = PSF(2, 2.0)
    low = degrade(msi, psf)
    noise = rng.standard_normal((40, 40)) * low[0].std()
    hsi = np.stack([3 * low[0] - low[1] + 7, low[0] + noise, noise])
    axes = [SpectralAxis.build(np.linspace(500, 800, n)) for n in (3, 2)]
    found = explained_bands(Pair((Block(hsi, msi, np.ones((40, 40), bool)),), 2, *axes), psf)
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(0.5, abs=0.06)  # half of it is noise
    assert found[2] < 0.02


def test_a_hole_spoils_only_what_it_touches(tmp_path: Path) -> None:
    """One MSI pixel without data: no cell whose footprint holds it counts, and no NaN spreads."""
    pair = made.make_pair(tmp_path, ratio=RATIO, bands=BANDS, height=96, width=80)
    with rasterio.open(pair.msi, "r+") as msi:
        hole = msi.read()
        hole[:, 41, 38] = np.nan
        msi.write(hole)
    fused = tmp_path / "fused.tif"
    run("fuse", pair.hsi, pair.msi, "-o", fused, "--method", "regression", "--shift", "none")
    link = link_product(open_source(fused), pair.hsi, pair.msi, product_facts(fused))
    found = measure_consistency(link, side=200)
    assert np.isfinite(found.hsi.rmse).all()
    lost = np.argwhere(np.isnan(found.hsi_map[1:-1, 1:-1])) + 1
    assert [10, 9] in lost.tolist()
    assert np.abs(lost - [10, 9]).max() <= 1  # the footprint reaches one cell out
    assert found.msi is not None
    assert found.msi.count == 96 * 80 - 1


def test_methods_that_were_compared_are_listed(scene: dict[str, Any]) -> None:
    facts = product_facts(scene["fused"])
    facts["held_out_scores"] = {
        "gsa": {"psnr": 30.1234, "sam": 2.5, "ergas": 3.0},
        "coupled-map": {"psnr": 31.5, "sam": 2.25, "ergas": 2.75},
    }
    link = link_product(open_source(scene["fused"]), scene["hsi"], scene["msi"], facts)
    text = draw_page(gather(scene["fused"], link, facts, None))
    assert "<td>gsa</td><td>30.123</td><td>2.500</td><td>3.000</td>" in text
    assert "<tr class=chosen><td>coupled-map</td>" in text
