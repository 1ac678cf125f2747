"""The two halves of every method: fit the scene once, apply anywhere."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from csakd_geo.degrade import PSF
from csakd_geo.errors import InputError
from csakd_geo.pair import Pair
from csakd_geo.response import Response

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
        LR pixels of context that :meth:`Method.apply` needs around what is kept.
    arrays : dict of str to ndarray
    facts : dict
        JSON values.
    """

    method: str
    psf: PSF
    halo: int
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

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
        return cls(head["method"], PSF(**head["psf"]), head["halo"], arrays, head["facts"])

    def save(self, path: Path) -> None:
        """Write to a file."""
        path.write_bytes(self.to_bytes())


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
