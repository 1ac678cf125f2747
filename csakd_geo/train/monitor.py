"""What a run shows of itself: scalars and a held-out example in TensorBoard, and its history as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import InputError
from csakd_geo.io.placing import write_whole

if TYPE_CHECKING:
    from csakd_geo.models.network import DualTwoStream
    from csakd_geo.train.examples import Example

FloatArray = NDArray[np.floating]


class Monitor:
    """A TensorBoard log in ``OUTPUT/tensorboard``, or nothing.

    Parameters
    ----------
    output : Path
    enabled : bool
    step : int
        What was logged at later steps, by a run that did not get to its next checkpoint, is dropped.
    """

    def __init__(self, output: Path, *, enabled: bool, step: int) -> None:
        self._writer: Any = None
        if not enabled:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "The log needs the package tensorboard; install it with pip install 'csakd-geo[train]', or set "
                "tensorboard: false."
            ) from error
        self._writer = SummaryWriter(str(output / "tensorboard"), purge_step=step + 1 if step else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def scalars(self, row: Mapping[str, float], step: int) -> None:
        """Log numbers by name."""
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name.replace("_", "/", 1), value, step)

    def picture(self, network: DualTwoStream, example: Example, step: int) -> None:
        """Log reference, network and truth side by side."""
        if self._writer is not None:
            self._writer.add_image("held out/reference, network, truth", side_by_side(network, example), step)


def side_by_side(network: DualTwoStream, example: Example) -> FloatArray:
    """Reference, answer and truth of an example in three bands, (3, y, 3 x), 0 to 1."""
    from csakd_geo.train.examples import expand
    from csakd_geo.train.heldout import answer

    bands = np.linspace(0, len(example.truth) - 1, 5).round().astype(int)[3:0:-1]
    truth = example.truth[bands]
    low, high = np.percentile(truth, [1, 99], axis=(1, 2))
    panels = [expand(example, c)[bands] for c in (example.reference, answer(network, example))]
    span = np.maximum(high - low, 1e-6)[:, None, None]
    return np.asarray(np.clip((np.concatenate([*panels, truth], axis=2) - low[:, None, None]) / span, 0, 1))


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write what was logged as CSV, one row per look.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    buffer = io.StringIO()
    names = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(buffer, names)
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, buffer.getvalue().encode())
