"""The layout in which the authors of CSAKD store their data: three NumPy files per tile.

Their network sees both inputs scaled to 0..1 by the truth's minimum and maximum; here they come back in
the truth's own units, so that they can be fused and scored like any other pair.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csakd_geo.errors import InputError

TRUTH = "GT.npz.npy"
"""What follows the name of a tile in the file of its truth, a plain array in spite of the ``.npz``."""
_MSI, _HSI = "hrmsi.npz", "lrhsi.npz"


@dataclass(frozen=True, slots=True, eq=False)
class OfficialTile:
    """One tile, in the units of its truth.

    Parameters
    ----------
    name : str
    hsi : ndarray (band, y, x) float32
    msi : ndarray (msi_band, y * ratio, x * ratio) float32
    truth : ndarray (band, y * ratio, x * ratio) float32
    ratio : int
    """

    name: str
    hsi: NDArray[np.float32]
    msi: NDArray[np.float32]
    truth: NDArray[np.float32]
    ratio: int


def list_tiles(root: Path, names: Path | None = None) -> list[str]:
    """Names of the tiles under a folder: what stands before ``GT.npz.npy``, relative to it.

    Parameters
    ----------
    root : Path
    names : Path, optional
        Text file with one name per line; blank lines and lines that begin with ``#`` are passed over, and
        the slash at the end of a folder's name may be missing. By default the folder is searched, with all
        folders in it.

    Returns
    -------
    list of str
        In the order of the list, each once; sorted where the folder is searched.

    Raises
    ------
    InputError
        If the folder or the list is missing, there is no tile, or a listed one has no truth.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"'{root}' is no folder; expected the folder that holds the tiles.")
    if names is None:
        found = sorted(p.relative_to(root).as_posix().removesuffix(TRUTH) for p in root.rglob(f"*{TRUTH}"))
        if not found:
            raise InputError(f"There is no tile under '{root}': no file there ends in {TRUTH}.")
        return found
    try:
        lines = Path(names).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list of tiles '{names}' cannot be read ({error}).") from error
    entries = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not entries:
        raise InputError(f"The list of tiles '{names}' is empty; give one name per line.")
    return list(dict.fromkeys(_whole_name(root, entry) for entry in entries))


def read_tile(root: Path, name: str, *, msi_bands: int = 4, shift: int = 0) -> OfficialTile:
    """Read one tile.

    Parameters
    ----------
    root : Path
    name : str
        As `list_tiles` gives it.
    msi_bands : int
        Which of the stored MSIs: key ``hrmsi4`` or ``hrmsi6``.
    shift : int
        MSI pixels by which the HSI is shifted: key ``lrhsi``, or ``lrhsi1`` to ``lrhsi3``.

    Returns
    -------
    OfficialTile
        Truth and MSI are cropped to whole HSI pixels.

    Raises
    ------
    InputError
        If a file or key is missing or broken, or the arrays do not belong together.
    """
    root = Path(root)
    name = _whole_name(root, name)
    truth = _array(root, f"{name}{TRUTH}")
    msi = _array(root, f"{name}{_MSI}", f"hrmsi{msi_bands}")
    hsi = _array(root, f"{name}{_HSI}", f"lrhsi{shift}" if shift else "lrhsi")
    if hsi.shape[2] != truth.shape[2]:
        raise InputError(
            f"Tile '{name}' has {hsi.shape[2]} bands in its HSI but {truth.shape[2]} in its truth; "
            "they must be the same bands."
        )
    rows, columns = truth.shape[:2]
    ratio = min(rows // hsi.shape[0], columns // hsi.shape[1])
    if ratio < 2 or (rows // ratio, columns // ratio) != hsi.shape[:2] or msi.shape[:2] != truth.shape[:2]:
        raise InputError(
            f"Tile '{name}' has {_size(truth)} pixels in its truth, {_size(msi)} in its MSI and {_size(hsi)} in "
            "its HSI; the first two must be equal, and the HSI coarser by one whole number."
        )
    low, high = float(truth.min()), float(truth.max())
    kept = np.s_[: hsi.shape[0] * ratio, : hsi.shape[1] * ratio]
    return OfficialTile(
        name=name,
        hsi=_bands_first(hsi * (high - low) + low),
        msi=_bands_first(msi[kept] * (high - low) + low),
        truth=_bands_first(truth[kept]),
        ratio=ratio,
    )


def _whole_name(root: Path, entry: str) -> str:
    """The name as it stands before the files' endings; one of a folder ends in a slash."""
    for name in (entry, f"{entry}/"):
        if (root / f"{name}{TRUTH}").is_file():
            return name
    raise InputError(
        f"Tile '{entry}' has no truth under '{root}': neither {entry}{TRUTH} nor {entry.rstrip('/')}/{TRUTH} "
        "is there."
    )


def _array(root: Path, file: str, key: str | None = None) -> NDArray[np.float64]:
    """The array of an ``.npy`` file, or one of those in an ``.npz`` file."""
    path = root / file
    try:
        with path.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            if key is None:
                return _checked(content, file)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise InputError(f"'{file}' holds one array; expected an .npz file with the key {key}.")
            if key not in content:
                there = ", ".join(content.files) or "none"
                raise InputError(f"'{file}' has no key {key}; its keys: {there}.")
            return _checked(content[key], f"{key} of {file}")
    except FileNotFoundError as error:
        raise InputError(
            f"'{path}' does not exist; a tile has {TRUTH}, {_MSI} and {_HSI} under one name."
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"'{path}' cannot be read ({error}); expected a NumPy file of numbers.") from error


def _checked(array: Any, what: str) -> NDArray[np.float64]:
    """Float64, after a check that it is a cube of finite numbers."""
    if (
        not isinstance(array, np.ndarray)
        or array.ndim != 3
        or 0 in array.shape
        or array.dtype.kind not in "iuf"
    ):
        found = f"{array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else "several arrays"
        raise InputError(f"'{what}' holds {found}; expected one array (y, x, band) of real numbers.")
    values: NDArray[np.float64] = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"'{what}' holds values that are not finite; expected numbers everywhere.")
    return values


def _bands_first(cube: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.ascontiguousarray(cube.transpose(2, 0, 1), dtype=np.float32)


def _size(cube: NDArray[np.float64]) -> str:
    return f"{cube.shape[0]} x {cube.shape[1]}"
