"""The network as a method: fitted once to a scene, begun once per super-tile, run tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import apply_srf
from csakd_geo.errors import ModelError
from csakd_geo.methods.agreeing import Agreeing
from csakd_geo.methods.base import Fitted, Work
from csakd_geo.methods.network_form import image_inputs, network_inputs, network_output, output_map, prepare
from csakd_geo.methods.subspace import Subspace
from csakd_geo.pair import Pair
from csakd_geo.response import Response

if TYPE_CHECKING:
    from csakd_geo.models.attention import AttentionSums
    from csakd_geo.models.card import ModelCard
    from csakd_geo.models.checkpoint import Model
    from csakd_geo.models.runtime import Runtime

FloatArray = NDArray[np.floating]


class CSAKD:
    """A CSAKD network, from a bundle or an official checkpoint.

    Parameters
    ----------
    path : Path
        Model file; workers load it by themselves.
    device : str
        ``cpu`` or ``cuda[:N]``.
    statistics : {"scene", "tile"}
        Whether attention and scaling are taken once from the scene or anew in every window.
    backend : {"torch", "onnxruntime", "openvino", "torch-compile"}
        What runs the network.
    precision : {"float32", "bf16"}
        Of its convolutions.
    """

    name = "csakd"
    title = "CSAKD: dual two-stream network with cross self-attention fusion, refining coupled-map"
    source = "Hsu et al., arXiv 2406.19666 and 2501.07953; residual subspace form of this package"

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        statistics: str = "scene",
        backend: str = "torch",
        precision: str = "float32",
    ) -> None:
        self.path, self.device, self.statistics = Path(path), device, statistics
        self.backend, self.precision = backend, precision

    @property
    def card(self) -> ModelCard:
        """Facts of the model."""
        return _load(self.path, self.device).card

    def running(self, backend: str, precision: str) -> CSAKD:
        """The same network on another backend."""
        return CSAKD(
            self.path,
            device=self.device,
            statistics=self.statistics,
            backend=backend,
            precision=precision,
        )

    def fit(self, pair: Pair, response: Response, *, seed: int = 0) -> Fitted:
        """Everything the network needs of the scene: base, subspace or scale, attention sums."""
        model = _load(self.path, self.device)
        fitted = prepare(model.card, pair, response, seed=seed)
        if self.statistics == "tile":
            return replace(fitted, near=None)  # each tile is a scene of its own
        sums = None
        if model.network.config.needs_statistics:
            for block in pair.blocks:
                seen = image_inputs(model.card, fitted, block.hsi, block.msi)
                part = model.network.attention_sums(
                    _tensor(seen.hsi, self.device), _tensor(seen.msi, self.device)
                )
                sums = part if sums is None or part is None else sums + part
        if sums is not None:
            fitted.arrays.update({f"attention.{k}": v for k, v in sums.to_arrays().items()})
        return fitted

    def apply(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Run base and network on a window, in torch and float32."""
        import torch

        model = _load(self.path, self.device)
        anew = self.statistics == "tile"
        seen = network_inputs(model.card, fitted, hsi, msi, anew=anew)
        with torch.inference_mode():
            output, _ = model.network(
                _tensor(seen.hsi, self.device),
                _tensor(seen.msi, self.device),
                base=None if seen.base is None else _tensor(seen.base, self.device),
                statistics=attention_sums(fitted),
            )
        weight, level = output_map(model.card, fitted, hsi if anew else None)
        answer = output[0].float().cpu().numpy()
        cube = network_output(weight, level, answer, seen.rest)
        agreeing = Agreeing.of(model.card, fitted)
        if agreeing is not None:
            coordinates = Subspace.of(agreeing.inner).project(cube)
            cube += apply_srf(agreeing.step(hsi, msi, coordinates), agreeing.basis)
        return cube

    def begin(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray, rows: Sequence[int]) -> Work:
        """Base and coarse streams of a super-tile; see :class:`csakd_geo.methods.base.TwoStage`."""
        from csakd_geo.methods.network_work import NetworkWork

        model = _load(self.path, self.device)
        return NetworkWork.begin(model, self.runtime(fitted.psf.ratio), fitted, hsi, msi, rows)

    def runtime(self, ratio: int) -> Runtime:
        """What runs the network, made once per process."""
        return _runtime(*_state(self.path), self.device, self.backend, self.precision, ratio)

    @staticmethod
    def release() -> None:
        """Let go of what runs networks in this process; what is needed again is made again."""
        _runtime.cache_clear()


def attention_sums(fitted: Fitted) -> AttentionSums | None:
    """The scene's sums, where the network attends over it."""
    if "attention.qk" not in fitted.arrays:
        return None
    from csakd_geo.models.attention import AttentionSums

    return AttentionSums(*(fitted.arrays[f"attention.{k}"] for k in ("qk", "qq", "kk")))


def _load(path: Path, device: str) -> Model:
    """A model, once per process, device and state of its file, which another run may replace."""
    return _loaded(*_state(path), device)


def _state(path: Path) -> tuple[str, tuple[int, int, int]]:
    try:
        state = path.stat()
    except OSError as error:
        raise ModelError(f"Model {path} cannot be read: {error.strerror or error}.") from error
    return str(path), (state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=4)
def _loaded(path: str, _state: tuple[int, int, int], device: str) -> Model:
    from csakd_geo.models.checkpoint import load_model

    model = load_model(path)
    model.network.to(device)
    return model


@lru_cache(maxsize=8)
def _runtime(
    path: str, _state: tuple[int, int, int], device: str, backend: str, precision: str, ratio: int
) -> Runtime:
    from csakd_geo.models.checkpoint import load_model
    from csakd_geo.models.runtime import open_runtime

    return open_runtime(load_model(path), ratio, backend=backend, precision=precision, device=device)


def _tensor(array: FloatArray, device: str) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array[None], dtype=np.float32)).to(device)
