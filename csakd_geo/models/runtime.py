"""What runs a network tile by tile: torch itself, or its traced fine half in ONNX Runtime or OpenVINO.

All take and give torch tensors, so that what comes before and after is the same for each. A network
uses all cores by itself; `in_turn` runs one tile of a process at a time.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cache, cached_property, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import platformdirs

from .._version import __version__
from ..errors import ModelError
from ..memory import roomy_thread
from .attention import AttentionSums
from .fusers import CrossFuser

if TYPE_CHECKING:
    from torch import Tensor

    from .checkpoint import Model
    from .network import DualTwoStream

#: Backends by name, with the packages that they need.
PACKAGES = {"torch": ("torch",), "onnxruntime": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}

#: torch's own compiler, which is only taken when asked for: it needs a C++ compiler (Triton on a GPU).
COMPILED = "torch-compile"

_Found = TypeVar("_Found")
_lock = Lock()


def in_turn(run: Callable[[], _Found]) -> _Found:
    """What `run` returns, from the one thread of this process that networks run in, without gradients.

    Convolutions in Winograd's form keep what they unfold for as long as their thread lives: 1 GB for a tile of 512
    pixels and 86 features, which a second thread would hold once more.
    """
    with _lock:
        thread = _network_thread()
    return thread.submit(_without_gradients, run).result()


@cache
def _network_thread() -> ThreadPoolExecutor:
    return roomy_thread("network")


def _without_gradients(run: Callable[[], _Found]) -> _Found:
    import torch

    with torch.inference_mode():
        return run()


class Runtime(Protocol):
    """A network made ready: `coarse` once per super-tile, `fine` tile by tile."""

    device: str

    def coarse(self, hsi: Tensor, msi: Tensor) -> tuple[Tensor, Tensor]:
        """The coarse streams x1 and x3, (1, features, y, x), of hsi (1, bands, y, x) and msi."""
        ...

    def fine(
        self, hsi: Tensor, msi: Tensor, x1: Tensor, x3: Tensor, base: Tensor | None, matrices: Tensor | None
    ) -> Tensor:
        """The fused tensor (n, bands, ratio * y, ratio * x), float32."""
        ...


class TorchRuntime:
    """torch on any device; convolutions in channels-last order, which CPUs and GPUs prefer.

    On CPUs the fine half runs in Winograd's form where there is one, and in float32 dense blocks go by source.

    Parameters
    ----------
    model : Model
    device : str
    precision : {"float32", "bf16"}
        bf16 holds for convolutions; sums of attention, its matrices, the base and the result stay float32.
    """

    may_use_winograd = True

    def __init__(self, model: Model, device: str, precision: str) -> None:
        import torch

        from . import winograd
        from .blocks import DenseBlock

        self.device, self.precision = device, precision
        self.network: DualTwoStream = model.network.to(device)
        exact = device == "cpu" and precision == "float32"
        self.winograd = exact and self.may_use_winograd and winograd.available()
        for block in self.network.modules():
            if isinstance(block, DenseBlock):
                block.by_source = exact
        for weights in self.network.parameters():
            if weights.ndim == 4:
                weights.data = weights.data.contiguous(memory_format=torch.channels_last)

    def _precision(self) -> Any:
        import torch

        kind = self.device.partition(":")[0]
        return torch.autocast(kind, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def coarse(self, hsi: Tensor, msi: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Runtime`."""
        import torch

        from .winograd import Winograd

        last = hsi.contiguous(memory_format=torch.channels_last)
        with self._precision():
            x1 = self.network.hsi_stream(last)  # nearly all of it in groups, for which there is no other way
            if not self.winograd:
                return x1, self.network.shrunk_stream(last, msi.contiguous(memory_format=torch.channels_last))
        with Winograd():
            return x1, self.network.shrunk_stream(hsi.contiguous(), msi.contiguous())

    def fine(
        self, hsi: Tensor, msi: Tensor, x1: Tensor, x3: Tensor, base: Tensor | None, matrices: Tensor | None
    ) -> Tensor:
        """See :class:`Runtime`."""
        import torch

        from .winograd import Winograd

        order = torch.contiguous_format if self.winograd else torch.channels_last
        hsi, msi, x1, x3 = (t.contiguous(memory_format=order) for t in (hsi, msi, x1, x3))
        with Winograd() if self.winograd else self._precision():
            output, _ = self.network.fine(hsi, msi, x1, x3, base=base, statistics=matrices)
        fused: Tensor = output.float()
        return fused


class CompiledRuntime(TorchRuntime):
    """The fine half of a network through torch.compile; its first tile takes a minute or so."""

    may_use_winograd = False  # the compiler chooses its own convolutions

    def fine(
        self, hsi: Tensor, msi: Tensor, x1: Tensor, x3: Tensor, base: Tensor | None, matrices: Tensor | None
    ) -> Tensor:
        """See :class:`Runtime`.

        Raises
        ------
        ModelError
            There is no compiler, or it failed.
        """
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        try:
            return self._compiled(hsi, msi, x1, x3, base, matrices)
        except (InductorError, TorchDynamoException) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ModelError(
                f"torch.compile failed ({reason}); it needs a C++ compiler, on a GPU also Triton. Take "
                "--backend torch instead."
            ) from error

    @cached_property
    def _compiled(self) -> Callable[..., Tensor]:
        import torch

        compiled: Callable[..., Tensor] = torch.compile(super().fine, dynamic=False)
        return compiled


class GraphRuntime(TorchRuntime):
    """The fine half of a network, where nearly all the work is, as an ONNX graph; the rest in torch.

    Parameters
    ----------
    model : Model
    ratio : int
        HSI pixel over MSI pixel; fixed in the graph.
    backend : {"onnxruntime", "openvino"}
    precision : {"float32", "bf16"}
        ONNX Runtime has float32 alone on CPUs.

    Raises
    ------
    ModelError
        A package is missing, or the precision is one that the backend does not have.
    """

    def __init__(self, model: Model, ratio: int, backend: str, precision: str) -> None:
        if not installed(backend):
            extra = {"onnxruntime": "onnx", "openvino": "onnx,openvino"}[backend]
            raise ModelError(
                f"The backend {backend} is not installed; pip install 'csakd-geo[{extra}]', or take torch."
            )
        if precision == "bf16" and backend == "onnxruntime":
            raise ModelError("ONNX Runtime has no bf16 on CPUs; take --backend torch, openvino or auto.")
        begin = _openvino if backend == "openvino" else _onnxruntime
        self._fine = begin(_graph(model, ratio), precision)
        super().__init__(model, "cpu", precision)

    def fine(
        self, hsi: Tensor, msi: Tensor, x1: Tensor, x3: Tensor, base: Tensor | None, matrices: Tensor | None
    ) -> Tensor:
        """See :class:`Runtime`."""
        inputs = {"hsi": hsi, "msi": msi, "x1": x1.float(), "x3": x3.float()}
        if base is not None:
            inputs["base"] = base
        if matrices is not None:
            inputs["matrices"] = matrices
        return self._fine(inputs)


def installed(backend: str) -> bool:
    """Whether a backend's packages are here."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES.get(backend, ()))


def open_runtime(
    model: Model,
    ratio: int,
    *,
    backend: str = "torch",
    precision: str = "float32",
    device: str = "cpu",
) -> Runtime:
    """Make a network ready.

    Parameters
    ----------
    model : Model
    ratio : int
    backend : {"torch", "onnxruntime", "openvino", "torch-compile"}
    precision : {"float32", "bf16"}
    device : str
        Of torch, compiled or not; the others run on the CPU.

    Raises
    ------
    ModelError
        As :class:`GraphRuntime`, or a GPU is asked of another backend than torch.
    """
    if backend == "torch":
        return TorchRuntime(model, device, precision)
    if backend == COMPILED:
        return CompiledRuntime(model, device, precision)
    if device != "cpu":
        raise ModelError(f"The backend {backend} runs on the CPU; take torch for --device {device}.")
    return GraphRuntime(model, ratio, backend, precision)


def attention_matrices(model: Model, sums: AttentionSums | None) -> Tensor | None:
    """The mixing matrices (4, 16, 16) of a scene, for networks that attend over it."""
    fuser = model.network.fuse_att
    if sums is None or not isinstance(fuser, CrossFuser):
        return None
    return fuser.matrices(sums).detach()


def _graph(model: Model, ratio: int) -> bytes:
    """The fine half as ONNX, traced once and kept in the user's cache."""
    from .onnx_graphs import OPSET, trace

    folder = platformdirs.user_cache_path("csakd-geo", appauthor=False) / "graphs"
    path = folder / f"{model.card.sha256 or model.sha256}-r{ratio}-{OPSET}-{__version__}.onnx"
    try:
        return path.read_bytes()
    except OSError:
        traced = bytes(trace(model.network, ratio, "fine").SerializeToString())
    staged = path.with_suffix(f".{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(traced)
        os.replace(staged, path)
    except OSError:
        staged.unlink(missing_ok=True)  # a cache that cannot be written only costs the tracing
    return traced


def _onnxruntime(graph: bytes, precision: str) -> Callable[[dict[str, Tensor]], Tensor]:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, Tensor]) -> Tensor:
        arrays = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
        return torch.from_numpy(session.run(["fused"], arrays)[0])

    return run


def _openvino(graph: bytes, precision: str) -> Callable[[dict[str, Tensor]], Tensor]:
    import openvino
    import torch

    core = openvino.Core()
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bf16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    model = core.read_model(graph)

    @lru_cache(maxsize=2)
    def compiled(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Any:
        """For one set of shapes; nearly all tiles of a run have the same."""
        fixed = model.clone()
        fixed.reshape(dict(shapes))
        return core.compile_model(fixed, "CPU", settings).create_infer_request()

    def run(inputs: dict[str, Tensor]) -> Tensor:
        arrays = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
        request = compiled(tuple((name, array.shape) for name, array in arrays.items()))
        found = request.infer(arrays, share_inputs=True)
        return torch.from_numpy(np.array(found["fused"]))

    return run
