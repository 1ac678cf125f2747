"""The bands of an image: where they lie, how wide they are, which are good; and what follows from that."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csakd_geo.errors import SpectralError

#: A Gaussian of this FWHM has the standard deviation 1.
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))


@dataclass(frozen=True, slots=True, eq=False)
class SpectralAxis:
    """Wavelengths, widths and quality of the bands of one image.

    Parameters
    ----------
    wavelength : (band,) array
        Band centres in nm; NaN where unknown.
    fwhm : (band,) array
        Full widths at half maximum in nm; NaN where unknown.
    good : (band,) bool array
        False for a band that must not be used.
    names : tuple of str
        One name per band.
    nominal : bool
        True where the wavelengths were assumed, not recorded.

    Raises
    ------
    SpectralError
        If the four do not have one length.
    """

    wavelength: NDArray[np.float64]
    fwhm: NDArray[np.float64]
    good: NDArray[np.bool_]
    names: tuple[str, ...]
    nominal: bool = False

    def __post_init__(self) -> None:
        for field, dtype in (("wavelength", np.float64), ("fwhm", np.float64), ("good", np.bool_)):
            values = np.array(getattr(self, field), dtype=dtype).ravel()
            values.setflags(write=False)
            object.__setattr__(self, field, values)
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        sizes = {self.wavelength.size, self.fwhm.size, self.good.size, len(self.names)}
        if len(sizes) != 1:
            raise SpectralError(
                f"The band list is uneven: {self.wavelength.size} wavelengths, {self.fwhm.size} widths, "
                f"{self.good.size} flags and {len(self.names)} names were given; give one of each per band."
            )

    @classmethod
    def build(
        cls,
        wavelength: ArrayLike,
        *,
        fwhm: ArrayLike | None = None,
        good: ArrayLike | None = None,
        names: Sequence[str] | None = None,
        nominal: bool = False,
    ) -> SpectralAxis:
        """Axis from wavelengths in nm alone; what is left out is unknown, good and named ``Band k``."""
        centres = np.array(wavelength, dtype=np.float64).ravel()
        return cls(
            wavelength=centres,
            fwhm=np.full(centres.size, np.nan) if fwhm is None else np.array(fwhm, dtype=np.float64),
            good=np.ones(centres.size, dtype=bool) if good is None else np.array(good, dtype=bool),
            names=_numbered(centres.size) if names is None else tuple(names),
            nominal=nominal,
        )

    @classmethod
    def unknown(cls, size: int) -> SpectralAxis:
        """Axis of `size` bands of which nothing is known."""
        return cls.build(np.full(size, np.nan))

    @property
    def size(self) -> int:
        """Number of bands."""
        return len(self.names)

    @property
    def has_wavelengths(self) -> bool:
        """Whether every good band (and at least one band) has a wavelength."""
        return bool(self.good.any() and np.isfinite(self.wavelength[self.good]).all())

    def equals(self, other: SpectralAxis) -> bool:
        """Whether both describe the same bands (two unknown values are the same)."""
        return (
            self.names == other.names
            and self.nominal == other.nominal
            and np.array_equal(self.wavelength, other.wavelength, equal_nan=True)
            and np.array_equal(self.fwhm, other.fwhm, equal_nan=True)
            and np.array_equal(self.good, other.good)
        )

    def take(self, indices: ArrayLike) -> SpectralAxis:
        """Axis of the bands at these zero-based `indices`, in their order."""
        chosen = np.atleast_1d(np.asarray(indices, dtype=np.intp))
        names = tuple(self.names[i] for i in chosen)
        return SpectralAxis(
            self.wavelength[chosen], self.fwhm[chosen], self.good[chosen], names, self.nominal
        )

    def with_good(self, mask: ArrayLike) -> SpectralAxis:
        """The same bands with other quality flags, ``(band,)`` bool."""
        return replace(self, good=np.asarray(mask, dtype=bool))

    def filled_fwhm(self) -> NDArray[np.float64]:
        """Widths in nm, unknown ones replaced by the smaller distance to a neighbour in file order.

        The smaller one, so that neither a gap nor the step back where two detectors overlap makes a band
        wide. A band with no neighbour of known wavelength stays NaN.
        """
        steps = np.abs(np.diff(self.wavelength))
        steps[~(steps > 0)] = np.nan
        padded = np.concatenate(([np.nan], steps, [np.nan]))
        spacing = np.fmin(padded[:-1], padded[1:])
        return np.where(np.isnan(self.fwhm) & np.isfinite(self.wavelength), spacing, self.fwhm)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form; unknown values are None."""
        return {
            "wavelength": _nullable(self.wavelength),
            "fwhm": _nullable(self.fwhm),
            "good": self.good.tolist(),
            "names": list(self.names),
            "nominal": self.nominal,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SpectralAxis:
        """Inverse of `to_dict`."""
        return cls.build(
            [np.nan if v is None else v for v in values["wavelength"]],
            fwhm=[np.nan if v is None else v for v in values["fwhm"]],
            good=values["good"],
            names=values["names"],
            nominal=values["nominal"],
        )


def band_tags(axis: SpectralAxis, index: int) -> tuple[dict[str, str], dict[str, str], str]:
    """Metadata that one band of a written file carries.

    Parameters
    ----------
    axis : SpectralAxis
    index : int
        Zero-based band.

    Returns
    -------
    tuple of (dict, dict, str)
        Tags of GDAL's IMAGERY domain (um), tags of the default domain (nm, as the EnMAP-Box reads them)
        and the band's description.
    """
    centre, width = float(axis.wavelength[index]), float(axis.fwhm[index])
    imagery: dict[str, str] = {}
    default = {"bbl": "1" if axis.good[index] else "0"}
    description = axis.names[index]
    if math.isfinite(centre):
        imagery["CENTRAL_WAVELENGTH_UM"] = f"{centre / 1000:.7g}"
        default |= {"wavelength": f"{centre:.7g}", "wavelength_units": "Nanometers"}
        if not re.search(r"\d\s*(nm|nano|um|µm|micro)", description, re.IGNORECASE):
            description = f"{description} ({centre:.7g} nm)"
    if math.isfinite(width):
        imagery["FWHM_UM"] = f"{width / 1000:.7g}"
        default["fwhm"] = f"{width:.7g}"
    return imagery, default, description


def gaussian_response(bands: SpectralAxis, of: SpectralAxis) -> NDArray[np.float64]:
    """Spectral responses of broad bands as weights over the bands of an HSI.

    A band's response is a Gaussian of its centre and FWHM. Each HSI band already is a blurred sample, so
    the Gaussian is narrowed by that band's own FWHM (but not below half of it), and it counts for the
    stretch of the spectrum that it stands for, so uneven sampling does not tilt the weights.

    Parameters
    ----------
    bands : SpectralAxis
        The m MSI bands; an unknown FWHM is taken from the neighbours.
    of : SpectralAxis
        The b HSI bands; a band with ``good=False`` or no wavelength gets weight 0.

    Returns
    -------
    (m, b) array
        Rows sum to 1.

    Raises
    ------
    SpectralError
        If wavelengths or widths are missing, or a band has no good HSI band within its width.
    """
    usable = np.flatnonzero(of.good & np.isfinite(of.wavelength))
    if usable.size == 0:
        raise SpectralError(
            "The HSI has no good band with a known wavelength, so no response can be computed; "
            "give its wavelengths or let the response be estimated from the pair."
        )
    centres = of.wavelength[usable]
    own = np.nan_to_num(of.filled_fwhm()[usable], nan=0.0)
    stretch = _stretches(centres)
    widths = bands.filled_fwhm()
    response = np.zeros((bands.size, of.size))
    for row, (centre, width) in enumerate(zip(bands.wavelength, widths, strict=True)):
        if not (math.isfinite(centre) and width > 0):
            raise SpectralError(
                f"MSI band {row + 1} ({bands.names[row]}) has no wavelength or no width; "
                "name its sensor or give both."
            )
        distance = np.abs(centres - centre)
        edge = own[distance.argmin()] / 2
        seen = (distance <= (width + np.maximum(own, stretch.min())) / 2).any()
        if not (seen and centres.min() - edge <= centre <= centres.max() + edge):
            raise SpectralError(
                f"MSI band {row + 1} ({bands.names[row]}, {centre:.0f} nm) lies outside the good HSI bands "
                f"({centres.min():.0f} to {centres.max():.0f} nm, nearest {centres[distance.argmin()]:.0f} nm); "
                "leave that band out."
            )
        sigma = np.sqrt(np.maximum(width**2 - own**2, (own / 2) ** 2)) / FWHM_PER_SIGMA
        exponent = -0.5 * (distance / sigma) ** 2
        weight = stretch / sigma * np.exp(exponent - exponent.max())
        response[row, usable] = weight / weight.sum()
    return response


def parse_bands(text: str, axis: SpectralAxis) -> list[int]:
    """Zero-based bands from text such as ``1,5-10,450-680nm,865nm``.

    Parameters
    ----------
    text : str
        Comma-separated 1-based band numbers, inclusive ranges of them, wavelength ranges in nm (every band
        whose centre lies within) or single wavelengths (the nearest band).
    axis : SpectralAxis
        The bands to choose from.

    Returns
    -------
    list of int
        In the order of the text, each band once.

    Raises
    ------
    SpectralError
        If a part cannot be read, lies outside the image or holds no band.
    """
    chosen: list[int] = []
    number = r"(\d+(?:\.\d+)?)"
    pattern = re.compile(rf"{number}(?:(\s*nm)?\s*[-–]\s*{number})?(\s*nm)?", re.IGNORECASE)
    for part in (p.strip() for p in text.split(",")):
        match = pattern.fullmatch(part)
        if match is None or (match[4] is None and ("." in part or match[2] is not None)):
            raise SpectralError(
                f"The band list has the part '{part}', which is no band number, range or wavelength; "
                "write for example 1,5-10,450-680nm,865nm."
            )
        low, high = float(match[1]), float(match[3] or match[1])
        if low > high:
            raise SpectralError(f"The range '{part}' runs backwards; write the smaller end first.")
        find = _numbers if match[4] is None else _wavelengths
        chosen.extend(find(low, high, part, axis))
    return list(dict.fromkeys(chosen))


def _numbers(low: float, high: float, part: str, axis: SpectralAxis) -> list[int]:
    if low < 1 or high > axis.size:
        raise SpectralError(f"'{part}' is outside the image, which has bands 1 to {axis.size}.")
    return list(range(int(low) - 1, int(high)))


def _wavelengths(low: float, high: float, part: str, axis: SpectralAxis) -> list[int]:
    known = np.flatnonzero(np.isfinite(axis.wavelength))
    if known.size == 0:
        raise SpectralError(f"'{part}' asks for a wavelength but the image records none; use band numbers.")
    centres = axis.wavelength[known]
    if low == high:
        nearest = int(known[np.abs(centres - low).argmin()])
        reach = float(np.nan_to_num(axis.filled_fwhm()[nearest], nan=0.0))
        inside = [nearest] if centres.min() - reach <= low <= centres.max() + reach else []
    else:
        inside = [int(i) for i in known[(centres >= low) & (centres <= high)]]
    if not inside:
        raise SpectralError(
            f"'{part}' holds no band; the image has wavelengths {centres.min():.0f} to {centres.max():.0f} nm."
        )
    return inside


def _stretches(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of spectrum in nm that each band stands for: half the way to either neighbour, by wavelength."""
    if centres.size == 1:
        return np.ones(1)
    order = np.argsort(centres, kind="stable")
    steps = np.diff(centres[order])
    stretch = np.empty_like(centres)
    stretch[order] = (np.append(steps, steps[-1]) + np.insert(steps, 0, steps[0])) / 2
    return np.maximum(stretch, 1e-6)


def _nullable(values: NDArray[np.float64]) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in values]


def _numbered(size: int) -> tuple[str, ...]:
    return tuple(f"Band {k}" for k in range(1, size + 1))
