from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from csakd_geo.errors import InputError
from csakd_geo.io.official import list_tiles, read_tile

Array = NDArray[Any]
BANDS = 5


def cube(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).random(shape) * 3000 + 100


def write_tile(
    root: Path, name: str, *, ratio: int = 4, height: int = 24, width: int = 16, seed: int = 0
) -> Any:
    """A tile whose arrays are all independent; returns truth, MSIs and HSIs as (band, y, x), in truth's units."""
    truth = cube(seed, height, width, BANDS)
    inputs = {
        **{f"hrmsi{n}": cube(seed + n, height, width, n) for n in (4, 6)},
        **{f"lrhsi{n or ''}": cube(seed + 10 + n, height // ratio, width // ratio, BANDS) for n in range(4)},
    }
    (root / f"{name}GT.npz.npy").parent.mkdir(parents=True, exist_ok=True)
    np.save(root / f"{name}GT.npz.npy", truth)
    scaled = {key: (value - truth.min()) / (truth.max() - truth.min()) for key, value in inputs.items()}
    for kind in ("hrmsi", "lrhsi"):
        np.savez(root / f"{name}{kind}.npz", **{k: v for k, v in scaled.items() if k.startswith(kind)})
    return {key: np.moveaxis(value, 2, 0) for key, value in {"truth": truth, **inputs}.items()}


@pytest.mark.parametrize("name", ["a_", "scene1/", "deep/er/scene1_"])
@pytest.mark.parametrize(("msi_bands", "shift"), [(4, 0), (6, 3), (4, 1)])
def test_a_tile_comes_in_the_units_of_its_truth(
    tmp_path: Path, name: str, msi_bands: int, shift: int
) -> None:
    stored = write_tile(tmp_path, name)
    tile = read_tile(tmp_path, name, msi_bands=msi_bands, shift=shift)
    assert (tile.name, tile.ratio) == (name, 4)
    np.testing.assert_allclose(tile.truth, stored["truth"], rtol=1e-6)
    np.testing.assert_allclose(tile.msi, stored[f"hrmsi{msi_bands}"], rtol=1e-6)
    np.testing.assert_allclose(tile.hsi, stored[f"lrhsi{shift or ''}"], rtol=1e-6)
    assert {a.dtype for a in (tile.hsi, tile.msi, tile.truth)} == {np.dtype(np.float32)}


def test_a_truth_of_integers_is_scaled_exactly(tmp_path: Path) -> None:
    truth = np.arange(8 * 8 * BANDS, dtype=np.int16).reshape(8, 8, BANDS) - 30
    np.save(tmp_path / "iGT.npz.npy", truth)
    np.savez(tmp_path / "ihrmsi.npz", hrmsi4=np.full((8, 8, 4), 0.5, np.float32))
    np.savez(tmp_path / "ilrhsi.npz", lrhsi=np.zeros((2, 2, BANDS), np.float32))
    tile = read_tile(tmp_path, "i")
    assert np.all(tile.msi == (-30 + truth.max()) / 2)
    assert np.all(tile.hsi == -30)
    assert tile.truth[3, 2, 1] == truth[2, 1, 3]


def test_truth_and_msi_are_cropped_to_whole_hsi_pixels(tmp_path: Path) -> None:
    stored = write_tile(tmp_path, "t", height=26, width=19)
    tile = read_tile(tmp_path, "t")
    assert (tile.ratio, tile.hsi.shape[1:], tile.truth.shape[1:]) == (4, (6, 4), (24, 16))
    np.testing.assert_allclose(tile.msi, stored["hrmsi4"][:, :24, :16], rtol=1e-6)
    np.testing.assert_allclose(tile.truth, stored["truth"][:, :24, :16], rtol=1e-6)


def test_tiles_are_found_by_searching_or_listed(tmp_path: Path) -> None:
    for name in ("b_", "a/", "x/y/c"):
        write_tile(tmp_path, name)
    assert list_tiles(tmp_path) == ["a/", "b_", "x/y/c"]
    names = tmp_path / "val.txt"
    names.write_text("\ufeff# held out\n\nx/y/c\n  a \n#b_\na/\n", encoding="utf-8")
    assert list_tiles(tmp_path, names) == ["x/y/c", "a/"]
    assert read_tile(tmp_path, "a").name == "a/"  # without the slash too


def test_a_folder_without_tiles_and_a_bad_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        list_tiles(tmp_path / "missing")
    with pytest.raises(InputError, match=r"no file there ends in GT\.npz\.npy"):
        list_tiles(tmp_path)
    write_tile(tmp_path, "a")
    with pytest.raises(InputError, match="cannot be read"):
        list_tiles(tmp_path, tmp_path / "missing.txt")
    names = tmp_path / "list.txt"
    for content, sentence in (
        (b"# only this\n\n", "empty"),
        (b"\xff\xfe\x00a", "cannot be read"),
        (b"b\n", "'b'"),
    ):
        names.write_bytes(content)
        with pytest.raises(InputError, match=sentence):
            list_tiles(tmp_path, names)


@pytest.mark.parametrize("file", ["hrmsi.npz", "lrhsi.npz", "GT.npz.npy"])
def test_missing_and_broken_files_are_named(tmp_path: Path, file: str) -> None:
    write_tile(tmp_path, "t")
    path = tmp_path / f"t{file}"
    data = path.read_bytes()
    for broken in (b"", b"nothing of the sort", data[: len(data) // 2]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=f"t{file}.*cannot be read"):
            read_tile(tmp_path, "t")
    path.unlink()
    with pytest.raises(InputError, match=rf"t{file}"):
        read_tile(tmp_path, "t")


def test_files_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    write_tile(tmp_path, "t")
    truth, hsi = tmp_path / "tGT.npz.npy", tmp_path / "tlrhsi.npz"
    kept = truth.read_bytes()
    with truth.open("wb") as file:
        np.savez(file, GT=np.zeros((24, 16, BANDS)))
    with pytest.raises(InputError, match="several arrays"):
        read_tile(tmp_path, "t")
    with truth.open("wb") as file:
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        read_tile(tmp_path, "t")
    truth.write_bytes(kept)
    with hsi.open("wb") as file:
        np.save(file, np.zeros((6, 4, BANDS)))
    with pytest.raises(InputError, match=r"expected an \.npz file with the key lrhsi"):
        read_tile(tmp_path, "t")


def test_a_missing_key_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    write_tile(tmp_path, "t")
    with pytest.raises(InputError, match="no key hrmsi5; its keys: hrmsi4, hrmsi6"):
        read_tile(tmp_path, "t", msi_bands=5)
    with pytest.raises(InputError, match="no key lrhsi4; its keys: lrhsi, lrhsi1, lrhsi2, lrhsi3"):
        read_tile(tmp_path, "t", shift=4)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"lrhsi": np.zeros((6, 4))}, r"\(6, 4\) of float64; expected one array \(y, x, band\)"),
        ({"hrmsi4": np.zeros((24, 16, 4), complex)}, "of complex128"),
        ({"hrmsi4": np.full((24, 16, 4), np.nan)}, "not finite"),
        ({"lrhsi": np.zeros((6, 4, BANDS + 1))}, f"{BANDS + 1} bands in its HSI but {BANDS} in its truth"),
        ({"lrhsi": np.zeros((6, 3, BANDS))}, "24 x 16 pixels in its truth, 24 x 16 in its MSI and 6 x 3"),
        ({"lrhsi": np.zeros((24, 16, BANDS))}, "coarser by one whole number"),
        ({"lrhsi": np.zeros((48, 32, BANDS))}, "coarser by one whole number"),
        ({"hrmsi4": np.zeros((24, 15, 4))}, "24 x 15 in its MSI"),
        ({"lrhsi": np.zeros((0, 4, BANDS))}, r"\(0, 4, 5\)"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(
    tmp_path: Path, changed: dict[str, Array], sentence: str
) -> None:
    write_tile(tmp_path, "t")
    for key, value in changed.items():
        np.savez(tmp_path / f"t{key[:5]}.npz", **{key: value})
    with pytest.raises(InputError, match=sentence):
        read_tile(tmp_path, "t")
