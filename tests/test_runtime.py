"""Backends and precisions against the plain forward pass, batches that do not fit, encoding, the memory bound."""

from __future__ import annotations

import gc
import itertools
import json
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from csakd_geo.budget import memory_of, parse_bytes, pick_cutting
from csakd_geo.cli import main
from csakd_geo.draft import draft_job
from csakd_geo.engine import backend as backends
from csakd_geo.engine.kernel import fuse_supertile
from csakd_geo.errors import InputError, ModelError, OutputError
from csakd_geo.io.encoding import Encoding
from csakd_geo.job import Job, fuse, prepare_job
from csakd_geo.methods import csakd, network_work
from csakd_geo.methods.csakd import CSAKD
from csakd_geo.methods.network_spectra import encode
from csakd_geo.models import bundled_models, load_model
from csakd_geo.models.runtime import GraphRuntime, in_turn, installed, open_runtime
from csakd_geo.options import make_options
from csakd_geo.simulate import SimulatedPaths
from csakd_geo.tiling import Window, align

Array = NDArray[Any]
TINY: dict[str, Any] = {"features": 8, "growth": 4, "depths": (1, 1, 1, 1)}


def silent(stage: str, share: float, words: str) -> None:
    """No progress."""


def needs(backend: str) -> None:
    if not installed(backend):
        pytest.skip(f"the package {backend} is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    network_work._sizes.clear()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> made.Pair:
    return made.make_pair(tmp_path_factory.mktemp("runtime"), bands=12, height=128, width=112)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "cross": made.subspace_model(folder / "cross.safetensors", **TINY),
        "official": made.official_model(folder / "twelve.pth", bands=12, msi_bands=4, **TINY),
    }


def prepared(pair: made.Pair, **options: Any) -> Job:
    wanted = make_options({"adapt_minutes": 0, "shift": "none"} | options)
    return prepare_job(draft_job(pair.hsi, pair.msi, wanted), report=silent)


def fused(job: Job, **changes: Any) -> Array:
    plan = replace(job.plan, tile=8, supertile=32, **changes)
    return fuse_supertile(job.scene, job.choice.method, job.fitted, plan, job.plan.frame)[0]


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        *itertools.product(("torch", "onnxruntime", "openvino"), ("cross", "official")),
        pytest.param("torch-compile", "cross", marks=pytest.mark.slow),
    ],
)
def test_every_backend_gives_the_forward_pass(backend: str, kind: str, models: dict[str, Path]) -> None:
    needs(backend)
    model = load_model(models[kind])
    config, generator = model.network.config, torch.Generator().manual_seed(0)
    hsi = torch.randn(1, config.bands, 12, 10, generator=generator)
    msi = torch.randn(1, config.msi_bands, 48, 40, generator=generator)
    base = torch.randn(1, config.bands, 48, 40, generator=generator) if config.residual else None
    matrices = torch.rand(4, 16, 16, generator=generator) if config.needs_statistics else None
    runtime = open_runtime(load_model(models[kind]), 4, backend=backend)
    with torch.inference_mode():
        expected = model.network(hsi, msi, base=None if base is None else base.clone(), statistics=matrices)[
            0
        ]
        found = runtime.fine(hsi, msi, *runtime.coarse(hsi, msi), base, matrices)
    assert made.relative(found.numpy(), expected.numpy()) < 1e-5


def test_without_a_compiler_torch_compile_says_so(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    runtime = open_runtime(load_model(models["official"]), 4, backend="torch-compile")
    hsi, msi = torch.zeros(1, 12, 6, 6), torch.zeros(1, 4, 24, 24)
    with torch.inference_mode(), pytest.raises(ModelError, match=r"torch.compile failed .*--backend torch"):
        runtime.fine(hsi, msi, *runtime.coarse(hsi, msi), None, None)


def test_a_graph_is_traced_once(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("onnxruntime")
    GraphRuntime(load_model(models["cross"]), 4, "onnxruntime", "float32")
    kept = sorted((tmp_path / "cache" / "graphs").iterdir())
    assert len(kept) == 1
    assert all("-r4-" in path.name for path in kept)

    def never(*_: Any) -> None:
        raise AssertionError("traced again")

    monkeypatch.setattr("csakd_geo.models.onnx_graphs.trace", never)
    GraphRuntime(load_model(models["cross"]), 4, "onnxruntime", "float32")
    with pytest.raises(AssertionError, match="traced again"):
        GraphRuntime(load_model(models["cross"]), 2, "onnxruntime", "float32")


def test_bf16_of_an_official_network_stays_near_float32(pair: made.Pair, models: dict[str, Path]) -> None:
    exact = fused(prepared(pair, model=str(models["official"]), backend="torch"))
    coarse = fused(prepared(pair, model=str(models["official"]), backend="torch", precision="bf16"))
    assert 0 < made.relative(coarse, exact) <= 1e-2


def test_bf16_of_a_trained_residual_network_stays_nearer(sample: SimulatedPaths) -> None:
    """Its base is float32 and its own part is small."""
    found = [
        fuse(sample.hsi, sample.msi, model=str(bundled_models()[0]), backend="torch", precision=precision)
        for precision in ("float32", "bf16")
    ]
    assert 0 < made.relative(found[1].values, found[0].values) <= 1e-3


@pytest.mark.parametrize("kind", ["cross", "official"])
def test_backends_agree_tile_by_tile(kind: str, pair: made.Pair, models: dict[str, Path]) -> None:
    exact = fused(prepared(pair, model=str(models[kind]), backend="torch"))
    for backend in ("onnxruntime", "openvino"):
        if installed(backend):
            other = fused(prepared(pair, model=str(models[kind]), backend=backend))
            assert made.relative(other, exact) <= 1e-5


# ------------------------------------------------------------------------------------------------- batches


class Small:
    """A device that holds so many tiles at once."""

    def __init__(self, runtime: Any, room: int) -> None:
        self.runtime, self.room, self.device = runtime, room, runtime.device
        self.sizes: list[int] = []

    def coarse(self, hsi: Any, msi: Any) -> Any:
        return self.runtime.coarse(hsi, msi)

    def fine(self, hsi: Any, *rest: Any) -> Any:
        self.sizes.append(len(hsi))
        if len(hsi) > self.room:
            raise torch.OutOfMemoryError("simulated")
        return self.runtime.fine(hsi, *rest)


def test_a_batch_that_does_not_fit_is_halved(
    pair: made.Pair, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepared(pair, model=str(models["cross"]), backend="torch")
    expected = fused(job)
    small = Small(job.choice.method.runtime(4), room=3)  # type: ignore[attr-defined]
    monkeypatch.setattr(type(job.choice.method), "runtime", lambda *_: small)
    network_work._sizes["cpu"] = 8
    assert made.relative(fused(job), expected) <= 1e-6
    assert small.sizes[:3] == [8, 4, 2]
    assert max(small.sizes[2:]) == 2  # and no larger one is tried again
    small.sizes.clear()
    fused(job)
    assert max(small.sizes) == 2
    small.room = 0
    with pytest.raises(
        OutputError, match="does not fit into the memory of device cpu; choose a smaller --tile"
    ):
        fused(job)


def test_networks_run_in_one_thread_of_a_process() -> None:
    """What their convolutions keep per thread is there once; failures reach the caller."""

    def look() -> tuple[int, bool]:
        return threading.get_ident(), torch.is_inference_mode_enabled()

    with ThreadPoolExecutor(3) as pool:
        found = [task.result() for task in [pool.submit(in_turn, look) for _ in range(9)]]
    assert len(set(found)) == 1
    assert found[0] == in_turn(look)
    assert found[0][0] != threading.get_ident()
    assert found[0][1]
    with pytest.raises(ZeroDivisionError):
        in_turn(lambda: 1 / 0)


def test_tiles_of_networks_are_large_on_a_cpu_and_many_on_a_gpu(
    pair: made.Pair, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = draft_job(pair.hsi, pair.msi, make_options({"model": str(models["cross"])}))
    monkeypatch.setattr(csakd, "_load", lambda path, device: load_model(path))  # there may be no GPU
    sides = {
        device: pick_cutting(draft.scene, CSAKD(models["cross"], device=device), draft.options, bands=12).tile
        for device in ("cpu", "cuda:0")
    }
    assert sides == {"cpu": 512 // 4, "cuda:0": 256 // 4}


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.floats(width=32, allow_nan=True, allow_infinity=True) | st.floats(-4, 4, width=32),
        min_size=6,
        max_size=6,
    ),
    dtype=st.sampled_from(["int16", "uint16", "float32"]),
    scale=st.sampled_from([(1.0,), (1e-4,), (0.1, 2.0)]),
    offset=st.sampled_from([(0.0,), (-0.1,), (1.0, 0.0)]),
)
def test_encoding_on_the_device_is_that_of_the_files(
    values: list[float], dtype: Any, scale: tuple[float, ...], offset: tuple[float, ...]
) -> None:
    nodata = {"int16": -32768.0, "uint16": 65535.0, "float32": float("nan")}[dtype]
    encoding = Encoding(dtype, scale, offset, nodata)
    cube = np.array(values, np.float32).reshape(2, 1, 3)
    expected, beyond = encoding.encode(cube.copy())
    found, clipped = encode(torch.from_numpy(cube.copy()), encoding)
    np.testing.assert_array_equal(found.numpy().astype(expected.dtype), expected)
    assert int(clipped) == beyond


# ------------------------------------------------------------------------------------------- what is chosen


def test_the_fastest_backend_is_taken_where_it_pays(
    pair: made.Pair, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepared(pair, model=str(models["cross"]))
    method: Any = job.choice.method
    assert (method.backend, method.precision) == ("torch", "float32")  # a small run is not timed further
    assert list(job.notes["backend_seconds_per_tile"]) == ["torch float32"]
    monkeypatch.setattr("csakd_geo.models.runtime.installed", lambda name: True)
    monkeypatch.setattr(backends, "WORTH", 0.0)
    speed = {"torch": 3.0, "onnxruntime": 2.0, "openvino": 1.0}
    asked: list[str] = []

    def seconds(one: Any, *_: Any) -> float:
        asked.append(f"{one.backend} {one.precision}")
        return speed[one.backend] * (0.5 if one.precision == "bf16" else 1.0)

    monkeypatch.setattr(backends, "_seconds", seconds)
    block = job.scene.sample()

    def picked(**more: Any) -> tuple[str, str]:
        found, _ = backends.pick_backend(method, job.fitted, block, job.plan, **more)
        return found.backend, found.precision

    assert picked() == ("openvino", "float32")
    assert asked == ["torch float32", "onnxruntime float32", "openvino float32"]
    asked.clear()
    assert picked() == ("openvino", "float32")  # remembered
    assert asked == ["torch float32"]
    assert picked(precision="bf16") == ("openvino", "bf16")
    speed["openvino"] = 9.0
    for kept in (Path(str(backends.platformdirs.user_cache_path())) / "backends").iterdir():
        kept.write_text("junk")
    assert picked() == ("onnxruntime", "float32")


def test_backends_that_were_only_timed_are_let_go(
    pair: made.Pair, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("onnxruntime")
    job = prepared(pair, model=str(models["cross"]), backend="torch")
    begun: list[weakref.ref[Any]] = []

    def open_and_note(*args: Any, **more: Any) -> Any:
        runtime = open_runtime(*args, **more)
        begun.append(weakref.ref(runtime))
        gc.collect()
        alive.append(sum(one() is not None for one in begun))
        return runtime

    alive: list[int] = []
    CSAKD.release()
    monkeypatch.setattr("csakd_geo.models.runtime.open_runtime", open_and_note)
    monkeypatch.setattr(backends, "WORTH", 0.0)
    _, timed = backends.pick_backend(job.choice.method, job.fitted, job.scene.sample(), job.plan)  # type: ignore[arg-type]
    assert len(timed) == len(begun) > 1
    gc.collect()
    assert not any(one() for one in begun)
    assert max(alive) == 1  # and none waited for another


def test_a_backend_that_cannot_be_is_told(
    pair: made.Pair, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["fuse", str(pair.hsi), str(pair.msi), "-o", str(tmp_path / "o.tif"), "--model"]
    arguments += [str(models["cross"])]
    if installed("onnxruntime"):
        result = CliRunner().invoke(main, [*arguments, "--backend", "onnxruntime", "--precision", "bf16"])
        assert result.exit_code == 1
        assert "ONNX Runtime has no bf16 on CPUs; take --backend torch, openvino or auto." in result.output
    monkeypatch.setattr("csakd_geo.models.runtime.installed", lambda name: name == "torch")
    csakd._runtime.cache_clear()
    result = CliRunner().invoke(main, [*arguments, "--backend", "openvino"])
    assert result.exit_code == 1
    assert "The backend openvino is not installed; pip install 'csakd-geo[onnx,openvino]'" in result.output
    assert not (tmp_path / "o.tif").exists()
    with pytest.raises(ModelError, match="runs on the CPU"):
        open_runtime(load_model(models["cross"]), 4, backend="openvino", device="cuda")


def test_the_backend_is_kept_with_the_product(
    pair: made.Pair, models: dict[str, Path], tmp_path: Path
) -> None:
    needs("onnxruntime")
    target = tmp_path / "o.tif"
    arguments = ["fuse", str(pair.hsi), str(pair.msi), "-o", str(target), "--model", str(models["cross"])]
    result = CliRunner().invoke(main, [*arguments, "--backend", "onnxruntime"])
    assert result.exit_code == 0, result.output
    with rasterio.open(target) as src:
        assert src.tags()["CSAKD_GEO_BACKEND"] == "onnxruntime float32"
        assert json.loads(src.tags()["CSAKD_GEO_OPTIONS"])["backend"] == "onnxruntime"


# -------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("text", "value"),
    [("4GB", 4e9), ("512 MB", 512e6), ("2GiB", 2 * 1024**3), ("1.5g", 1.5e9), ("1000", 1000)],
)
def test_sizes_are_read(text: str, value: float) -> None:
    assert parse_bytes(text.upper() if "i" not in text else text) == value


def test_memory_bounds_the_supertile_and_then_the_tile(pair: made.Pair) -> None:
    draft = draft_job(pair.hsi, pair.msi, make_options({"method": "coupled-map"}))
    large = replace(draft.scene, grid=replace(draft.scene.grid, lr_height=150, lr_width=150))
    method: Any = prepared(pair, method="coupled-map").choice.method
    free = pick_cutting(large, method, make_options({}), bands=172)
    needed, seen = memory_of(large, method, free), []
    floor = memory_of(large, method, replace(free, tile=align(64, 4), supertile=align(64, 4)))
    assert floor < needed
    for bound in (int(v) + 1 for v in np.linspace(needed, floor, 4)):
        cutting = pick_cutting(large, method, make_options({"memory": str(bound)}), bands=172)
        assert memory_of(large, method, cutting) <= bound
        assert cutting.supertile % cutting.tile == 0
        assert cutting.tile >= align(64, 4)
        seen.append(cutting.supertile)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < seen[0] == free.supertile
    with pytest.raises(InputError, match=r"of memory at least, but --memory allows 1 MB"):
        pick_cutting(large, method, make_options({"memory": "1MB"}), bands=172)
    with pytest.raises(InputError, match="memory"):
        make_options({"memory": "much"})


def test_a_subset_of_bands_is_that_of_the_whole(pair: made.Pair, models: dict[str, Path]) -> None:
    for options in ({"model": str(models["cross"])}, {"model": str(models["official"])}, {"method": "gsa"}):
        job = prepared(pair, **options)
        area = Window(0, 0, job.plan.height, job.plan.width)
        whole, _ = fuse_supertile(job.scene, job.choice.method, job.fitted, job.plan, area)
        part, _ = fuse_supertile(job.scene, job.choice.method, job.fitted, job.plan, area, rows=[7, 2])
        assert made.relative(part, whole[[7, 2]]) < 1e-6
