"""`csakd-geo batch` as a user types it: many scenes, one of them broken, on workers, again, and from any manifest."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import geopandas
import made
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from shapely.geometry import box

from csakd_geo.batch.manifest import Scene
from csakd_geo.batch.run import Outcome, Settings, fuse_scene, run_batch
from csakd_geo.cli import main
from csakd_geo.engine.run import NO_WORKERS

pytest.importorskip("pyarrow", reason="the package pyarrow is not installed")

BROKEN = 3


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["batch", *map(str, args), "--quiet"])


def typed(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "csakd_geo.cli", "batch", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


def refused(result: Result, *words: str) -> None:
    """The whole batch: one sentence, nothing done."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "should not have" not in line
    for word in words:
        assert word in line


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(pair: made.Pair, out: str, **more: Any) -> dict[str, Any]:
    return {"hsi": str(pair.hsi), "msi": str(pair.msi), "out": out, "method": "regression", **more}


def status(folder: Path, name: str = "m") -> dict[str, str]:
    frame = geopandas.read_parquet(folder / f"{name}.summary.parquet")
    return dict(zip(frame["name"], frame["status"], strict=True))


def errors(folder: Path, name: str = "m") -> dict[str, str]:
    frame = geopandas.read_parquet(folder / f"{name}.summary.parquet").set_index("name")
    return {key: text for key, text in frame["error"].items() if isinstance(text, str)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    return made.make_pair(tmp_path_factory.mktemp("pair"), bands=8, height=64, width=48)


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of six pairs, one of whose MSIs is no image; truths beside them."""
    folder = tmp_path_factory.mktemp("six")
    rows = []
    for k in range(6):
        pair = made.make_pair(folder / f"p{k}", bands=8, height=64, width=48, seed=k)
        made.write(folder / f"p{k}/truth.tif", pair.truth, wavelength=pair.wavelength, fwhm=20)
        if k == BROKEN:
            pair.msi.write_bytes(b"no image")
        files = {name: f"p{k}/{name}.tif" for name in ("hsi", "msi", "truth")}
        rows.append({**files, "out": f"fused/s{k}.tif", "options": '{"method": "gsa", "seed": 0}'})
    return write_csv(folder / "m.csv", rows)


@pytest.fixture(scope="module")
def first(six: Path) -> subprocess.CompletedProcess[str]:
    """The first run of the six, on two workers."""
    pytest.importorskip("distributed", reason="the package distributed is not installed")
    return typed(six, "--workers", "2", "--stac")


# --------------------------------------------------------------------------------- six pairs, one broken


@pytest.mark.slow
def test_one_broken_pair_stops_no_other(six: Path, first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 1, first.stderr
    good = [k for k in range(6) if k != BROKEN]
    assert status(six.parent) == {f"s{k}": "failed" if k == BROKEN else "done" for k in range(6)}
    for k in good:
        assert f"fused: {six.parent / f'fused/s{k}.tif'}  (gsa, " in first.stdout
        with rasterio.open(six.parent / f"fused/s{k}.tif") as src:
            assert (src.count, src.height, src.width) == (8, 64, 48)
            assert src.tags()["CSAKD_GEO_METHOD"] == "gsa"
    assert "Traceback" not in first.stderr
    assert "What failed, and why" in first.stderr
    assert "6 scenes: 5 done, 1 failed." in first.stderr
    assert re.search(rf"s{BROKEN} .*'msi.tif' cannot be opened as a raster", first.stderr)
    assert errors(six.parent).keys() == {f"s{BROKEN}"}
    left = [p.name for p in (six.parent / "fused").iterdir() if p.suffix in (".part", ".lock")]
    assert left == []


@pytest.mark.slow
def test_the_summary_holds_footprints_scores_and_times(
    six: Path, first: subprocess.CompletedProcess[str]
) -> None:
    frame = geopandas.read_parquet(six.parent / "m.summary.parquet")
    assert frame.crs == "EPSG:4326"
    assert frame["name"].tolist() == [f"s{k}" for k in range(6)]  # in the manifest's order
    good = frame[frame["status"] == "done"]
    assert good["method"].tolist() == ["gsa"] * 5
    assert (good["seconds"] > 0).all()
    assert (good["fuse_seconds"] >= 0).all()
    expected = box(made.LEFT, made.TOP - 640, made.LEFT + 480, made.TOP)
    for shown in good.to_crs(made.CRS).geometry:
        assert shown.symmetric_difference(expected).area < 1e-3 * expected.area
    assert frame.geometry.iloc[BROKEN] is None
    with rasterio.open(six.parent / "fused/s0.tif") as src, rasterio.open(six.parent / "p0/truth.tif") as t:
        fused, truth = src.read() * np.array(src.scales)[:, None, None], t.read().astype(float)
    peak = (truth**2).max((1, 2))
    psnr = (10 * np.log10(peak / ((fused - truth) ** 2).mean((1, 2)))).mean()
    assert frame["psnr"].iloc[0] == pytest.approx(psnr, abs=0.01)
    assert np.isnan(frame["psnr"].iloc[BROKEN])


@pytest.mark.slow
def test_the_page_carries_everything(six: Path, first: subprocess.CompletedProcess[str]) -> None:
    page = (six.parent / "m.summary.html").read_text("utf-8")
    assert page.count("<tr class=") == 6
    assert page.count('src="data:image/png;base64,') == 5
    assert 'href="fused/s0.tif"' in page
    assert "cannot be opened as a raster" in page
    assert not re.search(r"(?:src|href)=\"(?!data:|fused/)", page)  # nothing is loaded from elsewhere
    assert "<script" not in page


@pytest.mark.slow
def test_the_catalog_is_read_by_pystac(six: Path, first: subprocess.CompletedProcess[str]) -> None:
    pystac = pytest.importorskip("pystac", reason="the package pystac is not installed")
    check = pytest.importorskip("pystac.validation").validate_dict
    assert f"stac: {six.parent / 'm.collection.json'}" in first.stdout
    collection = pystac.Collection.from_file(str(six.parent / "m.collection.json"))
    check(collection.to_dict(), extensions=[])
    items = list(collection.get_items())
    assert sorted(item.id for item in items) == [f"s{k}" for k in range(6) if k != BROKEN]
    for item in items:
        assert item.get_collection().id == "m"
        assert item.get_root().id == "m"
        assert item.assets.keys() == {"fused"}
        assert all(Path(a.get_absolute_href()).is_file() for a in item.assets.values())
        assert {link.rel for link in item.links} >= {"derived_from", "collection", "parent", "root"}
    west, south, east, north = collection.extent.spatial.bboxes[0]
    assert west <= items[0].bbox[0] < items[0].bbox[2] <= east
    assert south <= items[0].bbox[1] < items[0].bbox[3] <= north


@pytest.mark.slow
def test_again_only_what_is_not_finished_is_done(six: Path, first: subprocess.CompletedProcess[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in (six.parent / "fused").glob("*.tif")}
    broken = made.make_pair(six.parent / "mended", bands=8, height=64, width=48, seed=BROKEN)
    target = six.parent / f"p{BROKEN}/msi.tif"
    content = target.read_bytes()
    try:
        target.write_bytes(broken.msi.read_bytes())
        done = call(six)
    finally:
        target.write_bytes(content)
    assert done.exit_code == 0, done.output
    assert status(six.parent) == {f"s{k}": "done" if k == BROKEN else "skipped" for k in range(6)}
    assert done.stdout.count("finished before with the same settings") == 5
    assert {p: p.stat().st_mtime_ns for p in before} == before
    (six.parent / f"fused/s{BROKEN}.tif").unlink()


# ------------------------------------------------------------------------------------------ bad manifests


def test_manifests_that_cannot_be_read(pair: made.Pair, tmp_path: Path) -> None:
    refused(call(tmp_path / "no.csv"), "no.csv' does not exist")
    refused(call(write_csv(tmp_path / "m.txt", [row(pair, "a.tif")])), "ends in '.txt'", ".gpkg")
    (tmp_path / "bytes.csv").write_bytes(b"hsi,msi,out\n\xff\xfe\xff,a,b\n")
    refused(call(tmp_path / "bytes.csv"), "cannot be read as CSV")
    for name, words in (("a.gpkg", "GeoPackage"), ("a.parquet", "Parquet"), ("a.json", "no valid JSON")):
        (tmp_path / name).write_text("nonsense")
        refused(call(tmp_path / name), words)
    (tmp_path / "b.json").write_text('{"type": "Feature"}')
    refused(call(tmp_path / "b.json"), "is no STAC ItemCollection")
    (tmp_path / "empty.csv").write_text("hsi,msi,out\n")
    refused(call(tmp_path / "empty.csv"), "has no row")


def test_a_missing_column_is_named(pair: made.Pair, tmp_path: Path) -> None:
    manifest = write_csv(tmp_path / "m.csv", [{"hsi": str(pair.hsi), "output": "a.tif"}])
    refused(call(manifest), "has no column msi and no column out", "it has hsi, output")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.csv"]


def test_broken_rows_are_told_and_the_others_go_on(pair: made.Pair, tmp_path: Path) -> None:
    manifest = write_csv(
        tmp_path / "m.csv",
        [
            row(pair, "good.tif", options="", ratio="", comment="x"),
            row(pair, "json.tif", options="{method", ratio="", comment="x"),
            row(pair, "list.tif", options="[1]", ratio="", comment="x"),
            row(pair, "", options="", ratio="", comment="x"),
            row(pair, "wrong.tif", options='{"speed": 9}', ratio="", comment="x"),
            row(pair, "ratio.tif", options="", ratio="many", comment="x"),
            row(pair, "good.tif", options="", ratio="", comment="x"),
            row(pair, "none.xyz", options="", ratio="", comment="x"),
            {**row(pair, "gone.tif", options="", ratio="", comment="x"), "hsi": "gone_hsi.tif"},
            row(pair, "sub/last.tif", options='{"bands": "1-3"}', ratio="4", comment="x"),
        ],
    )
    done = call(manifest)
    assert done.exit_code == 1, done.output
    assert "should not have" not in done.output
    assert "No option of fuse, ignored: column comment" in done.stderr
    frame = geopandas.read_parquet(tmp_path / "m.summary.parquet")
    assert frame["status"].tolist() == ["done", *["failed"] * 8, "done"]
    expected = [
        "options in row 2 of the manifest are no valid JSON",
        "options in row 3 of the manifest are no JSON object",
        "Row 4 of the manifest has no out",
        "There is no option 'speed'",
        "Option 'ratio' cannot be 'many'",
        "An earlier row writes",
        "must end in .tif",
        "gone_hsi.tif' does not exist",
    ]
    for found, words in zip(frame["error"].tolist()[1:9], expected, strict=True):
        assert words in found
        assert found.count("\n") == 0
    with rasterio.open(tmp_path / "sub/last.tif") as src:
        assert src.count == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "good.tif",
        "m.csv",
        "m.summary.html",
        "m.summary.parquet",
        "sub",
    ]


def test_an_output_made_with_other_settings_is_kept_unless_told(pair: made.Pair, tmp_path: Path) -> None:
    assert call(write_csv(tmp_path / "m.csv", [row(pair, "a.tif")])).exit_code == 0
    other = write_csv(tmp_path / "m.csv", [{**row(pair, "a.tif"), "method": "bicubic"}])
    before = (tmp_path / "a.tif").read_bytes()
    assert call(other).exit_code == 1
    assert "was made with other settings; give --overwrite" in errors(tmp_path)["a"]
    assert (tmp_path / "a.tif").read_bytes() == before
    assert call(other, "--no-resume").exit_code == 1
    assert (tmp_path / "a.tif").read_bytes() == before
    assert call(other, "--overwrite").exit_code == 0
    with rasterio.open(tmp_path / "a.tif") as src:
        assert src.tags()["CSAKD_GEO_METHOD"] == "bicubic"
    assert call(other).exit_code == 0
    assert status(tmp_path) == {"a": "skipped"}


def test_a_half_done_scene_goes_on(pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from csakd_geo.engine.store import Store

    tiles = {"tile": "16", "supertile": "16"}
    manifest = write_csv(tmp_path / "m.csv", [row(pair, "a.tif", **tiles)])
    whole = write_csv(tmp_path / "w.csv", [row(pair, "w.tif", **tiles)])
    assert call(whole).exit_code == 0
    put, stored = Store.put, []

    def stop(self: Store, area: Any, *args: Any, **kwargs: Any) -> None:
        if len(stored) == 3:
            raise RuntimeError("the machine is going down")
        stored.append(area)
        put(self, area, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)  # one super-tile at a time, so that none outlives the stop
        patch.setattr(Store, "put", stop)
        assert call(manifest).exit_code == 1
    assert len(stored) == 3
    assert Store(tmp_path / "a.tif").count() == 3
    later: list[Any] = []
    monkeypatch.setattr(
        Store, "put", lambda self, area, *args, **kw: (later.append(area), put(self, area, *args, **kw))[1]
    )
    assert call(manifest).exit_code == 0
    assert len(later) == 12 - 3  # 64 x 48 pixels in super-tiles of 16
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "w.tif") as w:
        np.testing.assert_array_equal(a.read(), w.read())


# ---------------------------------------------------------------------------------------- other manifests


def test_geopackage_and_geoparquet(pair: made.Pair, tmp_path: Path) -> None:
    aoi = geopandas.GeoDataFrame(
        geometry=[box(made.LEFT, made.TOP - 320, made.LEFT + 480, made.TOP)], crs=made.CRS
    )
    aoi.to_file(tmp_path / "aoi.gpkg")
    rows = [row(pair, "{}/a.tif", ratio=4, aoi="aoi.gpkg"), row(pair, "{}/b.tif", ratio=None, aoi=None)]
    for kind in ("gpkg", "parquet"):
        mine = [{**r, "out": r["out"].format(kind)} for r in rows]
        frame = geopandas.GeoDataFrame(mine, geometry=[aoi.geometry.iloc[0], None], crs=made.CRS)
        manifest = tmp_path / f"scenes.{kind}"
        frame.to_file(manifest) if kind == "gpkg" else frame.to_parquet(manifest)
        done = call(manifest)
        assert done.exit_code == 0, done.output
        for name, height in (("a", 32), ("b", 64)):
            with rasterio.open(tmp_path / kind / f"{name}.tif") as src:
                assert src.height == height


def item(name: str, hsi: str, msi: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "geometry": None,
        "properties": {"datetime": "2024-06-07T00:00:00Z", **properties},
        "links": [],
        "assets": {"hsi": {"href": hsi}, "msi": {"href": msi}},
    }


def test_a_stac_item_collection(pair: made.Pair, tmp_path: Path) -> None:
    proj = {"proj:code": "EPSG:32633"}
    good = item("good one", pair.hsi.as_uri(), str(pair.msi), method="regression", **proj)
    on_asset = item(
        "asset", str(pair.hsi), str(pair.msi), options={"method": "regression"}, out="own/name.tif"
    )
    for asset in on_asset["assets"].values():
        asset |= proj
    bare = item("bare", str(pair.hsi), str(pair.msi))
    without = item("without", str(pair.hsi), str(pair.msi), **proj)
    del without["assets"]["msi"]
    content = {"type": "FeatureCollection", "features": [good, bare, on_asset, without, "nonsense"]}
    (tmp_path / "m.json").write_text(json.dumps(content))
    done = call(tmp_path / "m.json", "-o", tmp_path / "out")
    assert done.exit_code == 1, done.output
    folder = tmp_path / "out"
    assert status(folder) == {
        "good_one": "done",
        "bare": "failed",
        "name": "done",
        "without": "failed",
        "5": "failed",
    }
    assert (folder / "good_one.tif").is_file()
    assert (folder / "own/name.tif").is_file()
    told = errors(folder)
    assert "The STAC item 'bare' states no projection for its asset 'hsi' (proj:code or" in told["bare"]
    assert "The STAC item 'without' has no asset 'msi'" in told["without"]
    assert "no asset 'hsi'" in told["5"]
    assert "ignored" not in done.stderr


def test_options_for_all_scenes(pair: made.Pair, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("method: bicubic\ndtype: float32\n")
    rows = [row(pair, "a.tif"), {**row(pair, "b.tif"), "method": ""}]
    assert call(write_csv(tmp_path / "m.csv", rows), "--config", tmp_path / "c.yaml").exit_code == 0
    for name, method in (("a", "regression"), ("b", "bicubic")):
        with rasterio.open(tmp_path / f"{name}.tif") as src:
            assert src.tags()["CSAKD_GEO_METHOD"] == method
            assert src.dtypes[0] == "float32"
    (tmp_path / "c.yaml").write_text("speed: 9\n")
    refused(call(tmp_path / "m.csv", "--config", tmp_path / "c.yaml"), "There is no option 'speed'")


def test_a_quicklook_may_be_asked_for(pair: made.Pair, tmp_path: Path) -> None:
    manifest = write_csv(tmp_path / "m.csv", [row(pair, "a.tif")])
    assert call(manifest).exit_code == 0
    picture = tmp_path / "a.quicklook.png"
    assert not picture.exists()
    assert call(manifest, "--quicklook").exit_code == 0  # also of what was finished before
    drawn = picture.stat()
    assert drawn.st_size > 10_000
    assert call(manifest, "--quicklook").exit_code == 0
    assert picture.stat().st_mtime_ns == drawn.st_mtime_ns


def test_layers_stand_beside_their_scene_and_are_listed(pair: made.Pair, tmp_path: Path) -> None:
    layers = {"uncertainty": "compact", "quality": "true"}
    plain = dict.fromkeys(layers, "")
    rows = [row(pair, "a.tif", **layers), row(pair, "b.tif", **layers), row(pair, "c.tif", **plain)]
    manifest = write_csv(tmp_path / "m.csv", rows)
    (tmp_path / "b_quality.tif").write_bytes(b"what was there")
    assert call(manifest, "--stac", "--no-resume").exit_code == 1
    assert status(tmp_path) == {"a": "done", "b": "failed", "c": "done"}
    assert "The quality layer '" in errors(tmp_path)["b"]
    assert (tmp_path / "b_quality.tif").read_bytes() == b"what was there"
    assert not (tmp_path / "b.tif").exists()  # refused before any work
    for name, kinds in (("a", {"uncertainty", "quality"}), ("c", set())):
        assert {p.stem[2:] for p in tmp_path.glob(f"{name}_*.tif")} == kinds
        assets = json.loads((tmp_path / f"{name}.stac.json").read_text())["assets"]
        assert {"uncertainty", "quality"} & assets.keys() == kinds
    page = (tmp_path / "m.summary.html").read_text()
    found = re.findall(r'href="(\w+_(?:uncertainty|quality)\.tif)"', page)
    assert found == ["a_uncertainty.tif", "a_quality.tif"]


def test_a_scheduler_takes_the_scenes(pair: made.Pair, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the package distributed is not installed")
    manifest = write_csv(tmp_path / "m.csv", [row(pair, "a.tif", workers=2), row(pair, "b.tif", workers="")])
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, processes=False
    ) as cluster:
        done = call(manifest, "--scheduler", cluster.scheduler_address)
    assert done.exit_code == 0, done.output
    assert status(tmp_path) == {"a": "done", "b": "done"}


def test_without_distributed_workers_are_refused(
    pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    manifest = write_csv(tmp_path / "m.csv", [row(pair, "a.tif")])
    refused(call(manifest, "--workers", "2"), "need the package distributed")


def test_a_scene_that_kills_its_workers_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask blames every scene that waits at a dying worker, so those are run again, each alone."""
    scenes = [Scene(k, f"s{k}", "h.tif", "m.tif", tmp_path / f"s{k}.tif") for k in range(4)]
    runs: list[list[str]] = []

    class Future:
        def __init__(self, scene: Scene, blamed: bool) -> None:
            self.scene, self.blamed = scene, blamed

        def result(self) -> Outcome:
            if self.blamed:
                raise distributed.KilledWorker(self.scene.name, None, 3)
            return Outcome(self.scene, "done", 0.1)

    class Client:
        def submit(self, function: Any, scene: Scene, *args: Any, pure: bool) -> Future:
            assert function is fuse_scene
            assert not pure
            alone = len(runs) > 0
            return Future(scene, scene.name == "s1" or (scene.name == "s2" and not alone))

        def cancel(self, futures: list[Future]) -> None:
            runs.append([future.scene.name for future in futures])

    distributed = pytest.importorskip("distributed", reason="the package distributed is not installed")
    monkeypatch.setattr("csakd_geo.batch.run.open_client", lambda crew: nullcontext(Client()))
    monkeypatch.setattr(distributed, "as_completed", reversed)
    found = {o.scene.name: o for o in run_batch(scenes, Settings(), workers=2)}
    assert {name: o.status for name, o in found.items()} == {
        "s0": "done",
        "s1": "failed",
        "s2": "done",
        "s3": "done",
    }
    assert "Workers died again and again over this scene" in found["s1"].error
    assert runs == [["s0", "s1", "s2", "s3"], ["s2"], ["s1"]]


def test_without_any_worker_left_a_batch_ends(
    pair: made.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed", reason="the package distributed is not installed")
    real = distributed.LocalCluster.__init__

    def start_and_die(self: Any, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        self.scheduler.no_workers_timeout = 1.0
        for nanny in self.workers.values():
            nanny.close_gracefully()  # so that it is not restarted
            nanny.process.process._process.kill()

    monkeypatch.setattr(distributed.LocalCluster, "__init__", start_and_die)
    manifest = write_csv(tmp_path / "m.csv", [row(pair, "a.tif"), row(pair, "b.tif")])
    done = call(manifest, "--workers", "1")
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    assert errors(tmp_path) == dict.fromkeys(("a", "b"), NO_WORKERS)
    assert call(manifest).exit_code == 0


def test_usage(pair: made.Pair, tmp_path: Path) -> None:
    manifest = write_csv(tmp_path / "m.csv", [row(pair, "a.tif")])
    assert call(manifest, "--workers", "2", "--scheduler", "tcp://a:1").exit_code == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.csv"]


def test_the_recipe(repo: Path, six: Path, tmp_path: Path) -> None:
    for k in (0, 1):
        made.make_pair(tmp_path / f"in/s{k}", bands=8, height=64, width=48, seed=k)
    script = repo / "pipelines/batch.py"
    assert len(script.read_text().splitlines()) <= 60
    args = [tmp_path / "in/s0", tmp_path / "in/s0", tmp_path / "out", "--method", "regression"]
    done = subprocess.run(
        [sys.executable, str(script), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 scene: 1 done" in done.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "pairs.gpkg",
        "fused",
        "summary.parquet",
        "summary.html",
        "collection.json",
    }
