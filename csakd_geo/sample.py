"""A small real scene that every installation has: Indian Pines, as shipped with tensorly."""

from __future__ import annotations

from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from csakd_geo.errors import InputError
from csakd_geo.io import open_source
from csakd_geo.io.axes import read_wavelengths
from csakd_geo.simulate import SimulatedPaths, simulate

#: Upper left corner in EPSG:32616, so that the scene's centre is at 40.46 N, 87.01 W; pixels of 20 m.
_LEFT, _TOP, _PIXEL = 497_700.0, 4_480_260.0, 20.0
_RATIO = 4
_TAGS = {
    "TITLE": "Indian Pines, AVIRIS, 12 June 1992",
    "CREDIT": "Baumgardner, Biehl and Landgrebe 2015, doi:10.4231/R7RX991C; as shipped with tensorly",
    "POSITION": "approximate: the scene is placed at 40.46 N, 87.01 W, north up, by hand",
    "RADIANCE_UNITS": "uW cm-2 nm-1 sr-1",
}


def write_sample(folder: Path, *, overwrite: bool = False) -> SimulatedPaths:
    """Write the sample pair and its truth: Indian Pines seen at 80 m (HSI) and by Sentinel-2's 10 m bands.

    The truth is 144 x 144 pixels of 20 m with 200 bands of 400 to 2489 nm, at-sensor radiance in
    uW cm-2 nm-1 sr-1 (10 times as much in W m-2 um-1 sr-1). The HSI is coarser by 4, noise is 35 dB in the HSI
    and 40 dB in the MSI. Every run gives the same pixels.

    Parameters
    ----------
    folder : Path
        Gets ``hsi.tif``, ``msi.tif`` and ``truth.tif``.
    overwrite : bool
        Whether files that exist are replaced.

    Returns
    -------
    SimulatedPaths

    Raises
    ------
    InputError
        If tensorly, which brings the image, is not installed.
    OutputError
        If a file exists already or cannot be written.
    """
    import rioxarray  # noqa: F401 (it registers the accessor)
    import xarray as xr
    from affine import Affine

    with as_file(files("csakd_geo") / "data" / "indian_pines_wavelengths.csv") as table:
        axis = read_wavelengths(table)
    # As published by Purdue University: counts are 1000 + 500 * radiance.
    counts = np.load(_image()).transpose(2, 0, 1).astype(np.int16) - np.int16(1000)
    array = xr.DataArray(
        counts,
        dims=("band", "y", "x"),
        attrs={"scale_factor": 1 / 500, "units": _TAGS["RADIANCE_UNITS"]},
    )
    array = array.rio.write_crs("EPSG:32616").rio.write_transform(
        Affine(_PIXEL, 0, _LEFT, 0, -_PIXEL, _TOP), inplace=True
    )
    return simulate(
        open_source(array, name="Indian_pines_corrected.npy", axis=axis),
        folder,
        ratio=_RATIO,
        msi_sensor="sentinel2-10m",
        snr_hsi=35.0,
        snr_msi=40.0,
        overwrite=overwrite,
        tags=_TAGS,
    )


def _image() -> Path:
    """The image inside tensorly, found without importing it."""
    spec = find_spec("tensorly")
    path = (
        Path(spec.origin).parent / "datasets" / "data" / "Indian_pines_corrected.npy"
        if spec is not None and spec.origin
        else None
    )
    if path is None or not path.is_file():
        raise InputError(
            "The sample image comes with the package tensorly, which is missing or incomplete here; "
            "install it with 'pip install tensorly'."
        )
    return path
