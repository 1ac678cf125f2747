"""Small made-up pairs whose truth is known, written without the package's own writers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[Any]

LEFT, TOP, PIXEL = 500_000.0, 5_800_000.0, 10.0
CRS = "EPSG:32633"
MSI_CENTRES = (490.0, 560.0, 665.0, 842.0)


@dataclass(frozen=True)
class Pair:
    """Files of a pair, its truth in memory, ``(band, y, x)``."""

    hsi: Path
    msi: Path
    truth: Array
    ratio: int
    wavelength: Array


def make_truth(bands: int = 24, height: int = 96, width: int = 80, *, seed: int = 0) -> tuple[Array, Array]:
    """Fields and woods: five smooth spectra mixed by blobs with sharp borders; and the wavelengths in nm."""
    rng = np.random.default_rng(seed)
    wavelength = np.linspace(450.0, 900.0, bands)
    t = (wavelength - 450) / 450
    spectra = np.stack(
        [
            0.05 + 0.45 / (1 + np.exp(-(t - 0.55) * 25)),
            0.15 + 0.35 * t,
            0.12 - 0.08 * t,
            0.3 + 0.15 * np.sin(5 * t),
            0.2 + 0.2 * np.exp(-((t - 0.3) ** 2) / 0.02),
        ]
    )
    fields = np.stack([gaussian_filter(rng.standard_normal((height, width)), 2.5) for _ in spectra])
    fields = fields / fields.std((1, 2), keepdims=True)
    shares = np.exp(3.0 * fields)
    shares /= shares.sum(0)
    light = 1 + 0.1 * gaussian_filter(rng.standard_normal((height, width)), 1.0)
    return (np.tensordot(spectra.T, shares, axes=1) * light).astype(np.float32), wavelength


def responses(wavelength: Array, centres: Sequence[float] = MSI_CENTRES, width: float = 40.0) -> Array:
    """Gaussian responses, rows summing to 1."""
    weights = np.exp(-0.5 * ((wavelength[None] - np.asarray(centres)[:, None]) / (width / 2.355)) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def coarsen(cube: Array, ratio: int) -> Array:
    """What a PSF of FWHM = ratio sees at block centres: a Gaussian, then the mean over the block.

    The variances of the two add up to that of a Gaussian of that FWHM.
    """
    sigma = np.sqrt(ratio**2 / (8 * np.log(2)) - (ratio**2 - 1) / 12)
    blurred = gaussian_filter(cube, (0, sigma, sigma))
    bands, height, width = cube.shape
    return np.asarray(blurred.reshape(bands, height // ratio, ratio, width // ratio, ratio).mean((2, 4)))


def write(
    path: Path,
    cube: Array,
    *,
    left: float = LEFT,
    top: float = TOP,
    pixel: float = PIXEL,
    crs: str | None = CRS,
    wavelength: Sequence[float] | Array | None = None,
    fwhm: float | None = None,
    **profile: Any,
) -> Path:
    """A GeoTIFF with ENVI-like band tags."""
    scale, offset = profile.pop("scale", 1.0), profile.pop("offset", 0.0)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=cube.shape[0],
        height=cube.shape[1],
        width=cube.shape[2],
        dtype=cube.dtype,
        crs=crs,
        transform=Affine(pixel, 0, left, 0, -pixel, top),
        **profile,
    ) as dst:
        dst.write(cube)
        if scale != 1 or offset != 0:
            dst.scales, dst.offsets = (scale,) * dst.count, (offset,) * dst.count
        for i in range(dst.count if wavelength is not None else 0):
            tags = {"wavelength": f"{wavelength[i]:.2f}", "wavelength_units": "Nanometers"}
            if fwhm is not None:
                tags["fwhm"] = f"{fwhm:g}"
            dst.update_tags(i + 1, **tags)
    return path


def make_pair(
    folder: Path,
    *,
    ratio: int = 4,
    bands: int = 24,
    height: int = 96,
    width: int = 80,
    seed: int = 0,
    noise: float = 2e-4,
    pixel: float = PIXEL,
    crs: str | None = CRS,
) -> Pair:
    """Write ``hsi.tif`` and ``msi.tif``, float32 reflectance, nested."""
    truth, wavelength = make_truth(bands, height, width, seed=seed)
    rng = np.random.default_rng(seed + 1)
    hsi, msi = coarsen(truth, ratio), np.tensordot(responses(wavelength), truth, axes=1)
    hsi, msi = (x + noise * rng.standard_normal(x.shape) for x in (hsi, msi))
    folder.mkdir(parents=True, exist_ok=True)
    return Pair(
        write(
            folder / "hsi.tif",
            hsi.astype(np.float32),
            pixel=pixel * ratio,
            crs=crs,
            wavelength=wavelength,
            fwhm=20,
            nodata=np.nan,
        ),
        write(
            folder / "msi.tif",
            msi.astype(np.float32),
            pixel=pixel,
            crs=crs,
            wavelength=MSI_CENTRES,
            fwhm=40,
            nodata=np.nan,
        ),
        truth,
        ratio,
        wavelength,
    )


def relative(found: Array, expected: Array) -> float:
    """RMSE over root mean square of what is expected, where both are finite; both must miss the same pixels."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    seen = np.isfinite(expected)
    return float(np.sqrt(np.square(found - expected)[seen].mean() / np.square(expected[seen]).mean()))


def official_model(path: Path, *, bands: int, msi_bands: int, **changes: Any) -> Path:
    """A small official-layout student ``.pth`` with weights by the rule of the golden vectors."""
    import torch

    from csakd_geo.models import DualTwoStream, NetworkConfig

    small: dict[str, Any] = {"features": 16, "growth": 8, "depths": (1, 2, 2, 1), "fuser": 3}
    config = NetworkConfig.official("student", bands=bands, msi_bands=msi_bands, **(small | changes))
    state = {}
    for k, (key, tensor) in enumerate(sorted(DualTwoStream(config).state_dict().items())):
        shape = tuple(tensor.shape)
        i = np.arange(tensor.numel(), dtype=np.int64)
        uniform = ((i * 1103515245 + 12345 + (k + 1) * 2654435761) % 2**31) / 2**31 - 0.5
        scale = 0.7 * np.sqrt(12 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        state[f"decoder.{key}"] = torch.from_numpy((uniform * scale).astype(np.float32).reshape(shape))
    torch.save(state, path)
    return path


def subspace_model(path: Path, *, gain: float = 300.0, seed: int = 0, **changes: Any) -> Path:
    """A random bundle of the residual subspace form with real cross attention.

    Its last layer is ``gain`` times what training starts from, so that its residual counts.
    """
    import torch

    from csakd_geo.models import DualTwoStream, ModelCard, NetworkConfig, Normalisation, save_model

    torch.manual_seed(seed)
    small: dict[str, Any] = {"features": 16, "growth": 8, "depths": (1, 2, 2, 1), "fuser": 3, "student": True}
    config = NetworkConfig(bands=10, msi_bands=10, attention="cross", residual=True, **(small | changes))
    network = DualTwoStream(config).eval()
    with torch.no_grad():
        network.last.weight.mul_(gain)
    card = ModelCard(
        name=path.stem,
        network=config,
        form="subspace",
        ratio=(2, 10),
        normalisation=Normalisation(rule="subspace-std"),
        base="coupled-map",
    )
    save_model(path, network, card)
    return path
