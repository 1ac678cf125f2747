"""What the page shows of the images: composites for the slider, spectra of a thinned lattice, packed numbers."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.evaluate.link import Link
from csakd_geo.io.lattice import read_hsi
from csakd_geo.quicklook.view import Lattice, limits, rgba
from csakd_geo.tiling import Window

FloatArray = NDArray[np.floating]

VIEW_SIDE = 900  # pixels per side of a composite, at most
CUBE_SIDE = 200  # pixels per side of the lattice with spectra, at most
_VALUES = 2_600_000  # in all cubes of a page: about 6 MB of text
_READ = 1 << 23  # values read at a time
_LOSSLESS = 90_000  # pixels up to which a composite is a PNG
_TOP = 65534  # a packed value is 0 to this; one more means nodata


def cube_lattice(link: Link, *, per_pixel: int, per_cell: int) -> Lattice:
    """Every n-th pixel of the product, so that all spectra fit into a page.

    Parameters
    ----------
    link : Link
    per_pixel, per_cell : int
        Values that a pixel and an HSI cell take.
    """
    fused, r = link.fused, link.scene.grid.ratio
    step = -(-max(fused.height, fused.width) // CUBE_SIDE)
    while True:
        pixels = -(-fused.height // step) * -(-fused.width // step)
        if pixels * per_pixel + pixels / max(1, r // step) ** 2 * per_cell <= _VALUES:
            return Lattice.of(fused, side=-(-max(fused.height, fused.width) // step))
        step += 1


def pick(lattice: Lattice, image: Any, bands: Sequence[int]) -> FloatArray:
    """Nearest pixels ``(band, y, x)`` of an image on a lattice, read in bounded parts."""
    rows = lattice.chunk(image, len(bands))
    parts = [lattice.pick(image, bands, slice(k, k + rows)) for k in range(0, lattice.rows.size, rows)]
    return np.concatenate(parts, axis=1)


def cells_of(link: Link, lattice: Lattice) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """LR cells of the frame, rows and columns, in which the lattice's pixels lie."""
    grid = link.scene.grid
    return (
        (np.floor(lattice.rows).astype(np.intp) + grid.top) // grid.ratio,
        (np.floor(lattice.cols).astype(np.intp) + grid.left) // grid.ratio,
    )


def pick_hsi(link: Link, rows: NDArray[np.intp], cols: NDArray[np.intp], bands: Sequence[int]) -> FloatArray:
    """The HSI as the fusion saw it, shifted and warped, at these cells of the frame, ``(band, y, x)``."""
    scene = link.scene
    out = np.empty((len(bands), rows.size, cols.size), np.float32)
    first, width = int(cols.min()), int(np.ptp(cols)) + 1
    most = max(1, _READ // (len(bands) * width))
    start = 0
    while start < rows.size:
        stop = int(np.searchsorted(rows, rows[start] + most))
        window = Window(int(rows[start]), first, int(rows[stop - 1] - rows[start]) + 1, width)
        data = read_hsi(scene.hsi, scene.grid, window, bands)
        out[:, start:stop] = data[:, rows[start:stop] - rows[start]][:, :, cols - first]
        start = stop
    return out


def picture(cube: FloatArray, stretch: FloatArray | None = None) -> str:
    """A composite of one or three channels as a data address: PNG where it is small, else WebP."""
    from matplotlib.image import imsave

    image = np.round(rgba(cube, limits(cube) if stretch is None else stretch) * 255).astype(np.uint8)
    small = image.shape[0] * image.shape[1] <= _LOSSLESS
    kind, options = ("png", {}) if small else ("webp", {"quality": 88})
    buffer = io.BytesIO()
    imsave(buffer, image, format=kind, pil_kwargs=options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def pack(cube: FloatArray) -> dict[str, Any]:
    """A cube as text: 16 bits per value between each band's extremes, deflated.

    The numbers of a band are replaced by what they add to those of the band before, and low bytes stand
    apart from high ones, which deflates better. ``page.js`` undoes it.

    Parameters
    ----------
    cube : ndarray (band, y, x)
        NaN where there is no data.

    Returns
    -------
    dict
        ``shape``, ``low`` and ``high`` per band, ``data``.
    """
    known = np.isfinite(cube)
    low = np.where(known, cube, np.inf).min((1, 2)).astype(np.float64)
    high = np.where(known, cube, -np.inf).max((1, 2)).astype(np.float64)
    low, high = np.where(known.any((1, 2)), (low, high), 0.0)
    width = np.where(high > low, high - low, 1.0)
    scaled = (np.where(known, cube, 0) - low[:, None, None]) / width[:, None, None]
    numbers = np.where(known, np.round(scaled * _TOP), _TOP + 1).astype(np.uint16)
    steps = numbers.copy()
    steps[1:] -= numbers[:-1]  # modulo 2^16
    data = zlib.compress(steps.astype("<u2").view(np.uint8).reshape(-1, 2).T.tobytes(), 9)
    return {
        "shape": list(cube.shape),
        "low": low.tolist(),
        "high": (low + width).tolist(),
        "data": base64.b64encode(data).decode("ascii"),
    }
