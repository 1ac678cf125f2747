"""A super-tile in the network's hands: coarse streams once, then tiles in batches, then stored values.

On a GPU the super-tile is sent once, from pinned memory; tiles are cut, fused, turned into spectra and
encoded there, and come back on a side stream while the next batch runs. Where memory runs out, the
batch is halved and the tiles are done again. On the CPU the same code runs one tile at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csakd_geo.errors import OutputError
from csakd_geo.io.encoding import Encoding
from csakd_geo.methods.agreeing import Agreeing
from csakd_geo.methods.base import Cut, Fitted
from csakd_geo.methods.csakd import attention_sums
from csakd_geo.methods.network_form import base_coordinates, image_inputs
from csakd_geo.methods.network_spectra import STORED, Spectra, encode
from csakd_geo.models.runtime import Runtime, attention_matrices, in_turn
from csakd_geo.threads import one_blas_thread
from csakd_geo.tiling import Window, around

if TYPE_CHECKING:
    from csakd_geo.models.checkpoint import Model

FloatArray = NDArray[np.floating]

_Found = TypeVar("_Found")
_Leaving = tuple[Tensor, Tensor, Any]  # values, number of clipped ones, and on a GPU when they are here

#: Tiles at once on a GPU, as long as they fit.
BATCH = 8
_IN_CACHE = 1 << 18  # values that are turned into spectra and encoded at a time on a CPU
_NONE: NDArray[np.bool_] = np.zeros((0, 0), bool)
_sizes: dict[str, int] = {}  # per device, what was found to fit


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Answers (K, ry, rx) and steps (k, ry, rx) over an area in LR pixels."""

    area: Window
    answers: Tensor
    step: Tensor

    def at(self, tensor: Tensor, cut: Cut, ratio: int) -> Tensor:
        """The part of a tensor that is kept of a tile."""
        return tensor[:, *cut.kept.scaled(ratio).slices(self.area.scaled(ratio))].contiguous()


@dataclass(frozen=True, slots=True, eq=False)
class NetworkWork:
    """A super-tile that is begun; all tensors on the runtime's device.

    Parameters
    ----------
    runtime : Runtime
    spectra : Spectra
    ratio : int
    hsi, msi : Tensor (1, K or band, y, x), (1, K or msi_band, ry, rx)
        As the network sees them.
    coarse : tuple of Tensor
        Streams x1 and x3, (1, features, y, x).
    z : Tensor (1, k, ry, rx) or None
        The base's coordinates.
    matrices : Tensor or None
    images : tuple of ndarray (band, y, x), (msi_band, ry, rx)
        As they are.
    agreeing : Agreeing or None
    """

    runtime: Runtime
    spectra: Spectra
    ratio: int
    hsi: Tensor
    msi: Tensor
    coarse: tuple[Tensor, Tensor]
    z: Tensor | None
    matrices: Tensor | None
    images: tuple[FloatArray, FloatArray]
    agreeing: Agreeing | None
    _side: Any = field(default=None)

    @classmethod
    def begin(
        cls,
        model: Model,
        runtime: Runtime,
        fitted: Fitted,
        hsi: FloatArray,
        msi: FloatArray,
        rows: Sequence[int],
    ) -> NetworkWork:
        """Inputs, base and coarse streams of a super-tile, hsi (band, y, x) and msi (msi_band, ry, rx)."""
        device = runtime.device
        agreeing = Agreeing.of(model.card, fitted)
        seen, z = image_inputs(model.card, fitted, hsi, msi), base_coordinates(model.card, fitted, hsi, msi)

        def coarse() -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor | None]:
            low, high = _send(seen.hsi, device), _send(seen.msi, device)
            return low, high, runtime.coarse(low, high), attention_matrices(model, attention_sums(fitted))

        low, high, streams, matrices = in_turn(coarse)
        return cls(
            runtime,
            Spectra.of(model, fitted, rows, device, agreeing),
            fitted.psf.ratio,
            low,
            high,
            streams,
            None if z is None else _send(z, device),
            None if matrices is None else matrices.to(device),
            (hsi, msi),
            agreeing,
            torch.cuda.Stream(device) if device.startswith("cuda") else None,
        )

    def fuse(self, cuts: Sequence[Cut], encoding: Encoding | None) -> Iterator[tuple[NDArray[Any], int]]:
        """See :class:`csakd_geo.methods.base.Work`."""
        drawn = self._draw(cuts)

        def run(group: Sequence[Cut]) -> list[_Leaving]:
            return [self._leave(*one) for one in self._values(group, drawn, encoding)]

        waiting: list[_Leaving] = []
        for found in self._batches(cuts, run):
            yield from (_arrived(one, encoding) for one in waiting)
            waiting = found  # come over while the next batch runs
        yield from (_arrived(one, encoding) for one in waiting)

    def _batches(self, cuts: Sequence[Cut], run: Callable[[Sequence[Cut]], _Found]) -> Iterator[_Found]:
        """Run batches of tiles that fit the device's memory."""
        device, k = self.runtime.device, 0
        while k < len(cuts):
            group = _alike(cuts[k : k + _sizes.get(device, 1 if device == "cpu" else BATCH)])
            try:
                found = in_turn(partial(run, group))
            except torch.OutOfMemoryError as error:
                if len(group) == 1:
                    raise OutputError(
                        f"One tile does not fit into the memory of device {device}; choose a smaller --tile."
                    ) from error
                _sizes[device] = len(group) // 2
                if device.startswith("cuda"):
                    torch.cuda.empty_cache()
                continue
            k += len(group)
            yield found

    def _answers(self, cuts: Sequence[Cut]) -> list[Tensor]:
        """The network's answers (K or band, ry, rx) over what is kept of tiles of one size."""
        r, windows = self.ratio, [cut.window for cut in cuts]
        fine = [window.scaled(r) for window in windows]
        answers = self.runtime.fine(
            _stack(self.hsi, windows),
            _stack(self.msi, fine),
            _stack(self.coarse[0], windows),
            _stack(self.coarse[1], windows),
            None if self.z is None else self.spectra.base(_stack(self.z, fine)),
            self.matrices,
        )
        places = [cut.kept.scaled(r).slices(cut.window.scaled(r)) for cut in cuts]
        return [answer[:, *place].contiguous() for answer, place in zip(answers, places, strict=True)]

    def _draw(self, cuts: Sequence[Cut]) -> _Drawn | None:
        """All answers, with those around that steps depend on, and the steps, where the network is drawn."""
        if self.agreeing is None or self.z is None or not cuts:
            return None
        r, whole = self.ratio, Window(0, 0, *self.hsi.shape[2:])
        area = around([cut.kept for cut in cuts]).grown(self.agreeing.reach).intersect(whole)
        rows, columns = (min(max(one[axis]) for one in map(_margins, cuts)) for axis in (0, 1))
        height, width = max(cut.kept.height for cut in cuts), max(cut.kept.width for cut in cuts)
        parts = []
        for piece in area.pieces(height, width):
            seen = Window(
                piece.row - rows, piece.col - columns, piece.height + 2 * rows, piece.width + 2 * columns
            )
            parts.append(Cut(seen.moved_into(whole), piece.intersect(area), _NONE))

        def run(group: Sequence[Cut]) -> list[tuple[Cut, Tensor]]:
            return list(zip(group, self._answers(group), strict=True))

        fine = area.scaled(r)
        answers = torch.empty((self.agreeing.answer.shape[1], fine.height, fine.width), device=self.z.device)
        for found in self._batches(parts, run):
            for cut, answer in found:
                answers[:, *cut.kept.scaled(r).slices(fine)] = answer
        hsi, msi = self.images
        z = self.z[0][:, *fine.slices()]
        with one_blas_thread():
            coordinates = self.agreeing.coordinates(answers.cpu().numpy(), z.cpu().numpy())
            step = self.agreeing.step(hsi[:, *area.slices()], msi[:, *fine.slices()], coordinates)
        return _Drawn(area, answers, torch.from_numpy(step).to(answers.device))

    def _values(
        self, cuts: Sequence[Cut], drawn: _Drawn | None, encoding: Encoding | None
    ) -> list[tuple[Tensor, Tensor]]:
        """Kept values of tiles of one size and numbers of clipped ones, on the device."""
        r = self.ratio
        answers = self._answers(cuts) if drawn is None else [drawn.at(drawn.answers, cut, r) for cut in cuts]
        results = []
        for cut, answer in zip(cuts, answers, strict=True):
            z = None if self.z is None else self.z[0][:, *cut.kept.scaled(r).slices()].contiguous()
            step = None if drawn is None else drawn.at(drawn.step, cut, r)
            results.append(self._finished(answer, z, step, cut.valid, encoding))
        return results

    def _finished(
        self,
        answer: Tensor,
        z: Tensor | None,
        step: Tensor | None,
        valid: NDArray[np.bool_],
        encoding: Encoding | None,
    ) -> tuple[Tensor, Tensor]:
        """Values of one tile, all bands at once on a GPU and few at a time, in the cache, on a CPU."""
        bands = len(self.spectra.rows)
        many = bands if answer.device.type != "cpu" else max(1, _IN_CACHE // valid.size)
        missing = None if valid.all() else torch.from_numpy(~valid).to(answer.device)
        kind = torch.float32 if encoding is None else STORED[encoding.dtype]
        out = torch.empty((bands, *valid.shape), dtype=kind, device=answer.device)
        clipped = torch.zeros((), dtype=torch.int64, device=answer.device)
        for start in range(0, bands, many):
            part = slice(start, min(start + many, bands))
            values = self.spectra.of_answer(answer, z, step, part)
            if missing is not None:
                values.masked_fill_(missing, np.nan)
            if encoding is None:
                out[part] = values
            else:
                out[part], beyond = encode(values, encoding.take(range(part.start, part.stop)))
                clipped += beyond
        return out, clipped

    def _leave(self, values: Tensor, clipped: Tensor) -> _Leaving:
        """Start the way back from the device."""
        if self._side is None:
            return values, clipped, None
        self._side.wait_stream(torch.cuda.current_stream(values.device))
        with torch.cuda.stream(self._side):
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            values.record_stream(self._side)
            count = clipped.to("cpu", non_blocking=True)
            event = self._side.record_event()
        return host, count, event


def _send(array: FloatArray, device: str) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array[None], dtype=np.float32))
    return (
        tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor.to(device)
    )


def _alike(cuts: Sequence[Cut]) -> Sequence[Cut]:
    """The first cuts, up to one whose window has another size."""
    first = cuts[0].window
    for k, cut in enumerate(cuts):
        if (cut.window.height, cut.window.width) != (first.height, first.width):
            return cuts[:k]
    return cuts


def _margins(cut: Cut) -> tuple[tuple[int, int], tuple[int, int]]:
    """LR pixels that a tile sees above and below, left and right of what is kept of it."""
    seen, kept = cut.window, cut.kept
    rows = kept.row - seen.row, seen.row + seen.height - kept.row - kept.height
    columns = kept.col - seen.col, seen.col + seen.width - kept.col - kept.width
    return rows, columns


def _stack(tensor: Tensor, windows: Sequence[Window]) -> Tensor:
    """Windows of a tensor (1, channel, y, x) as a batch."""
    parts = [tensor[:, :, *window.slices()] for window in windows]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _arrived(leaving: _Leaving, encoding: Encoding | None) -> tuple[NDArray[Any], int]:
    values, clipped, event = leaving
    if event is not None:
        event.synchronize()
    array = values.numpy()
    if encoding is not None and encoding.dtype == "uint16":
        array = array.astype(np.uint16)
    return array, int(clipped)
