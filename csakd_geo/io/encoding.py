"""How physical values are stored: type, scale, offset and nodata value of a product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import InputError

if TYPE_CHECKING:
    from csakd_geo.io.source import Source

#: Stored values at or below this leave the same again for what fusion adds.
HEADROOM = 16000.0
#: Values encoded at a time, so that the passes stay in the processor's cache.
_CHUNK = 1 << 16

_INTEGERS: dict[str, tuple[int, int, int]] = {  # lowest and highest value, nodata
    "int16": (-32767, 32767, -32768),
    "uint16": (0, 65534, 65535),
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """Stored value = round((physical value - offset) / scale).

    Parameters
    ----------
    dtype : {"int16", "uint16", "float32"}
    scale, offset : tuple of float
        One for all bands, or one per band.
    nodata : float
        Stored value of a pixel without data; NaN for float32.
    """

    dtype: Literal["int16", "uint16", "float32"]
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    nodata: float = math.nan

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest stored value of an integer type."""
        low, high, _ = _INTEGERS[self.dtype]
        return low, high

    def take(self, bands: Sequence[int]) -> Encoding:
        """The encoding of some of its bands."""

        def picked(values: tuple[float, ...]) -> tuple[float, ...]:
            return values if len(values) == 1 else tuple(values[band] for band in bands)

        return replace(self, scale=picked(self.scale), offset=picked(self.offset))

    def encode(self, values: NDArray[np.floating]) -> tuple[NDArray[Any], int]:
        """Stored values and the number of values that had to be clipped.

        Parameters
        ----------
        values : (band, y, x) array
            Physical values of all bands; what is not finite becomes nodata.

        Returns
        -------
        tuple of ((band, y, x) array, int)
        """
        if self.dtype == "float32":
            result = np.array(values, dtype=np.float32)
            result[np.isinf(result)] = np.nan
            return result, 0
        low, high = self.limits
        stored = np.empty(values.shape, dtype=self.dtype)
        clipped = 0
        scales, offsets = self._columns(values.shape[0])
        for plane, target, scale, offset in zip(values, stored, scales, offsets, strict=True):
            flat, out = np.ascontiguousarray(plane).reshape(-1), target.reshape(-1)
            for start in range(0, flat.size, _CHUNK):
                part = np.array(flat[start : start + _CHUNK], dtype=np.float32)
                empty = ~np.isfinite(part)
                if offset != 0:
                    part -= np.float32(offset)
                if scale != 1:
                    part /= np.float32(scale)
                np.rint(part, out=part)
                part[empty] = low
                clipped += int(np.count_nonzero(part < low) + np.count_nonzero(part > high))
                np.clip(part, low, high, out=part)
                part[empty] = self.nodata
                out[start : start + _CHUNK] = part
        return stored, clipped

    def decode(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Physical ``(band, y, x)`` values of stored ones; NaN for nodata."""
        result = stored.astype(np.float32)
        if self.dtype == "float32":
            return result
        scales, offsets = self._columns(stored.shape[0])
        for plane, raw, scale, offset in zip(result, stored, scales, offsets, strict=True):
            plane *= np.float32(scale)
            plane += np.float32(offset)
            plane[raw == self.nodata] = np.nan
        return result

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form; the NaN of float32 is None."""
        return asdict(self) | {"nodata": None if math.isnan(self.nodata) else self.nodata}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Encoding:
        """Inverse of `to_dict`."""
        nodata = values["nodata"]
        return cls(
            dtype=values["dtype"],
            scale=tuple(values["scale"]),
            offset=tuple(values["offset"]),
            nodata=math.nan if nodata is None else float(nodata),
        )

    def _columns(self, bands: int) -> tuple[list[float], list[float]]:
        repeat = [list(v) * bands if len(v) == 1 else list(v) for v in (self.scale, self.offset)]
        return repeat[0], repeat[1]


def choose_encoding(dtype: Literal["int16", "float32"], *, source: Source, p999: float) -> Encoding:
    """Encoding of a product whose HSI is `source`.

    float32 stores physical values as they are. int16 keeps the scale and offset of an integer HSI, so its
    counts mean the same; but an unsigned one whose 99.9th percentile passes 16000 counts is stored as
    uint16, because int16 would clip what the sensor recorded. A float HSI, or one of wider integers that
    16 bits cannot hold, gets the power of ten that puts its 99.9th percentile at or below 16000.

    Parameters
    ----------
    dtype : {"int16", "float32"}
        What was asked for.
    source : Source
        The HSI.
    p999 : float
        99.9th percentile of its physical values, over all good bands.

    Raises
    ------
    InputError
        If `p999` is not finite, because then the HSI has no valid pixel.
    """
    if dtype == "float32":
        return Encoding("float32")
    if not math.isfinite(p999):
        raise InputError(
            f"'{source.name}' has no valid pixel to choose an encoding from; check its nodata value."
        )
    if source.integer:
        scale, offset = _joined(source.scale), _joined(source.offset)
        peak = float(np.max((p999 - source.offset) / source.scale))
        kind = np.dtype(source.dtype)
        if kind.itemsize == 1 or kind == np.int16 or peak <= HEADROOM:
            return Encoding("int16", scale, offset, _INTEGERS["int16"][2])
        if kind == np.uint16:
            return Encoding("uint16", scale, offset, _INTEGERS["uint16"][2])
    peak = abs(p999)
    power = math.ceil(math.log10(peak / HEADROOM)) if peak > 0 else 0
    return Encoding("int16", (float(f"1e{power}"),), (0.0,), _INTEGERS["int16"][2])


def _joined(values: NDArray[np.float64]) -> tuple[float, ...]:
    distinct = np.unique(values)
    return tuple(float(v) for v in (distinct if distinct.size == 1 else values))
