"""What a network costs: parameters, multiplications and memory, found without allocating a weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from .attention import CHANNELS, HEADS
from .config import NetworkConfig

if TYPE_CHECKING:
    from torch import Tensor
    from torch.multiprocessing.reductions import StorageWeakRef


@dataclass(frozen=True, slots=True)
class Complexity:
    """Cost of one forward pass at one size.

    Parameters
    ----------
    parameters
        Numbers in the model file.
    used_parameters
        The same without the ``hmfeat`` that a student owns but never calls.
    macs
        Multiply-adds of all convolutions, counted as published: attention as its four 1x1 maps (query,
        key, value, output), although they are folded into one here. Interpolation and sums count nothing.
    peak_bytes
        Most memory that inputs, output and intermediate tensors take at one time in float32; weights and
        the scratch space of a convolution library come on top.
    """

    parameters: int
    used_parameters: int
    macs: int
    peak_bytes: int


def complexity(config: NetworkConfig, lr_height: int, lr_width: int, *, ratio: int) -> Complexity:
    """Count what a forward pass costs.

    The pass runs on tensors without memory: no number is computed or stored, so any size is counted in
    moments.

    Parameters
    ----------
    config
        The network's shape.
    lr_height, lr_width
        Size of the HSI in pixels.
    ratio
        HSI pixel size / MSI pixel size.

    Raises
    ------
    ModelError
        A size or ratio below 1.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    from .network import DualTwoStream, count_parameters

    if min(lr_height, lr_width, ratio) < 1:
        raise ModelError(
            f"Size and ratio must be whole numbers of at least 1; found {lr_height} x {lr_width} at ratio {ratio}."
        )
    fine = (ratio * lr_height, ratio * lr_width)
    with FakeTensorMode(), torch.no_grad():
        network = DualTwoStream(config).eval()
        hsi = torch.empty(1, config.bands, lr_height, lr_width)
        msi = torch.empty(1, config.msi_bands, *fine)
        base = torch.empty(1, config.bands, *fine) if config.residual else None
        matrices = torch.empty(HEADS, CHANNELS, CHANNELS) if config.needs_statistics else None

        def forward() -> object:
            return network(hsi, msi, base=base, statistics=matrices)

        with FlopCounterMode(display=False) as counter:
            peak = peak_bytes(forward, (hsi, msi) if base is None else (hsi, msi, base))
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution] // 2
    maps = 4 if config.fuser in (2, 3) else 0
    return Complexity(
        parameters=count_parameters(network),
        used_parameters=count_parameters(network, used_only=True),
        macs=convolutions + maps * config.features * HEADS * CHANNELS * fine[0] * fine[1],
        peak_bytes=peak,
    )


def peak_bytes(run: Callable[[], object], inputs: tuple[Tensor, ...]) -> int:
    """Follow the tensors that a function makes and drops, and return the most that live at one time.

    Parameters
    ----------
    run
        Called once. Tensors that it did not make itself, such as weights, do not count.
    inputs
        Tensors that exist before and count from the start.

    Returns
    -------
    int
        Bytes. A view takes none beyond the tensor that it shows.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    ledger = _Ledger()

    class Follower(TorchDispatchMode):
        """Shows the ledger the arguments and results of every operation."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            """Run one operation."""
            ledger.know((args, kwargs))
            result = func(*args, **(kwargs or {}))
            ledger.note(result)
            return result

    ledger.note(inputs)
    with Follower():  # type: ignore[no-untyped-call]
        run()
    return ledger.peak


class _Ledger:
    """Which pieces of memory live; a weak reference keeps each one's address from being used again."""

    def __init__(self) -> None:
        self.foreign: dict[int, StorageWeakRef] = {}
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def know(self, values: Any) -> None:
        """Put aside what was not made by the function."""
        for reference, _ in _references(values):
            if reference.cdata not in self.live:
                self.foreign.setdefault(reference.cdata, reference)

    def note(self, values: Any) -> None:
        """Take up what is new and let go of what is gone."""
        for reference, size in _references(values):
            if reference.cdata not in self.foreign:
                self.live.setdefault(reference.cdata, (reference, size))
        self.live = {key: entry for key, entry in self.live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))


def _references(values: Any) -> list[tuple[StorageWeakRef, int]]:
    """Memory behind all tensors in nested tuples, lists and dicts, and its bytes."""
    from torch import Tensor
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._pytree import tree_leaves

    storages = [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return [(StorageWeakRef(storage), storage.nbytes()) for storage in storages]
