"""The two halves of every method: fit the scene once, apply anywhere."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import PSF
from csakd_geo.errors import InputError
from csakd_geo.io.encoding import Encoding
from csakd_geo.pair import Pair
from csakd_geo.response import Response
from csakd_geo.threads import one_blas_thread
from csakd_geo.tiling import Window

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Everything a method found in a scene: arrays and JSON, so it can be saved and shipped.

    Parameters
    ----------
    method : str
        Name of the method that made it and can apply it.
    psf : PSF
    halo : int
        LR pixels of context that a method needs around what is kept.
    arrays : dict of str to ndarray
    facts : dict
        JSON values.
    near : int or None
        LR pixels of context that a tile needs once the super-tile around it is begun; None says that
        each tile is computed from the images themselves, with the whole halo.
    """

    method: str
    psf: PSF
    halo: int
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    near: int | None = None

    def nested(self, prefix: str, other: Fitted) -> dict[str, NDArray[Any]]:
        """Arrays of another method's fit, named so that :meth:`inner` finds them."""
        return {f"{prefix}.{name}": array for name, array in other.arrays.items()}

    def inner(self, prefix: str, *, halo: int = 0) -> Fitted:
        """The fit of method ``prefix`` that this one carries."""
        arrays = {
            name.removeprefix(prefix + "."): array
            for name, array in self.arrays.items()
            if name.startswith(prefix + ".")
        }
        return Fitted(prefix, self.psf, halo, arrays, self.facts.get(prefix, {}))

    def to_bytes(self) -> bytes:
        """Serialise as ``.npz``; the same fit gives the same bytes."""
        head = {
            "method": self.method,
            "psf": asdict(self.psf),
            "halo": self.halo,
            "facts": self.facts,
            "near": self.near,
        }
        buffer = io.BytesIO()
        text = np.frombuffer(json.dumps(head, sort_keys=True).encode(), np.uint8)
        arrays: dict[str, Any] = {name: self.arrays[name] for name in sorted(self.arrays)}
        np.savez(buffer, __head__=text, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Fitted:
        """Inverse of :meth:`to_bytes`."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                head = json.loads(bytes(file["__head__"]).decode())
                arrays = {name: file[name] for name in file.files if name != "__head__"}
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(f"The saved fit is damaged ({error}); remove it and run again.") from error
        return cls(head["method"], PSF(**head["psf"]), head["halo"], arrays, head["facts"], head["near"])

    def save(self, path: Path) -> None:
        """Write to a file."""
        path.write_bytes(self.to_bytes())


class Projection(Protocol):
    """A linear subspace of spectra: mean (band,), inverse (K, band)."""

    @property
    def mean(self) -> FloatArray: ...  # noqa: D102

    @property
    def inverse(self) -> FloatArray: ...  # noqa: D102

    def project(self, cube: FloatArray) -> FloatArray:
        """``(band, y, x)`` to coordinates ``(K, y, x)``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One tile of a super-tile that is begun.

    Parameters
    ----------
    window : Window
        What it sees, in LR pixels of the super-tile's images.
    kept : Window
        Where its result counts, inside the window.
    valid : ndarray (y, x) bool
        HR pixels of ``kept`` that hold data; the others come out as nodata.
    """

    window: Window
    kept: Window
    valid: NDArray[np.bool_]


class Work(Protocol):
    """A super-tile that a method has begun; the rest is tile by tile."""

    def fuse(self, cuts: Sequence[Cut], encoding: Encoding | None) -> Iterator[tuple[NDArray[Any], int]]:
        """Values (band, y, x) of each cut's kept part, in order, and how many were clipped.

        Without an encoding values are physical, float32 with NaN; with one they are as stored.
        """
        ...


@runtime_checkable
class Method(Protocol):
    """A way to fuse. Instances hold no state of a scene."""

    name: str
    title: str
    source: str

    def fit(self, pair: Pair, response: Response, *, seed: int = 0) -> Fitted:
        """See the scene (or its sample) once and estimate everything there is to estimate."""
        ...

    def apply(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray) -> FloatArray:
        """Fuse a window: ``(band, y, x)`` and ``(msi_band, ry, rx)`` to ``(band, ry, rx)``; pure."""
        ...


@runtime_checkable
class TwoStage(Protocol):
    """A method that does a part of its work once per super-tile."""

    def begin(self, fitted: Fitted, hsi: FloatArray, msi: FloatArray, rows: Sequence[int]) -> Work:
        """Begin a super-tile from its images, which hold the fit's halo around what is kept."""
        ...


def begin(method: Method, fitted: Fitted, hsi: FloatArray, msi: FloatArray, rows: Sequence[int]) -> Work:
    """Begin a super-tile.

    Parameters
    ----------
    method : Method
    fitted : Fitted
    hsi : ndarray (band, y, x)
    msi : ndarray (msi_band, ry, rx)
    rows : sequence of int
        The bands that are wanted.
    """
    if isinstance(method, TwoStage) and fitted.near is not None:
        return method.begin(fitted, hsi, msi, rows)
    return _Plain(method, fitted, hsi, msi, rows)


@dataclass(frozen=True, slots=True, eq=False)
class _Plain:
    """The work of a method that computes each tile from the images."""

    method: Method
    fitted: Fitted
    hsi: FloatArray
    msi: FloatArray
    rows: Sequence[int]

    def fuse(self, cuts: Sequence[Cut], encoding: Encoding | None) -> Iterator[tuple[NDArray[Any], int]]:
        """See :class:`Work`."""
        r = self.fitted.psf.ratio
        for cut in cuts:
            hsi = np.ascontiguousarray(self.hsi[:, *cut.window.slices()])
            msi = np.ascontiguousarray(self.msi[:, *cut.window.scaled(r).slices()])
            with one_blas_thread():
                fused = self.method.apply(self.fitted, hsi, msi)
            yield self._finished(fused[:, *cut.kept.scaled(r).slices(cut.window.scaled(r))], cut, encoding)

    def _finished(self, kept: FloatArray, cut: Cut, encoding: Encoding | None) -> tuple[NDArray[Any], int]:
        """The wanted bands, masked and as stored, band by band: a second cube would not fit beside the first."""
        kind, clipped = "float32" if encoding is None else encoding.dtype, 0
        out = np.empty((len(self.rows), *cut.valid.shape), kind)
        for k, row in enumerate(self.rows):
            values = np.where(cut.valid, kept[row], np.float32(np.nan))[None]
            if encoding is not None:
                values, beyond = encoding.take([k]).encode(values)
                clipped += beyond
            out[k] = values[0]
        return out, clipped
