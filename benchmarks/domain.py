"""A model of one sensor pair, trained on a small archive as users do, against coupled-map on a tile it has not seen.

    python benchmarks/domain.py DATA -o FOLDER [--steps 2400] [--held-out abu_airport_3] [--resume]

Five AVIRIS scenes of one area (ABU airport-1 to -3, urban-4 and -5; 100 x 100 pixels, 189 to 205 bands). One is held
out and scored; a strip of another picks the weights; the rest is trained on with ``csakd-geo train``. Ratio 4,
four Gaussian bands at 485, 560, 660 and 830 nm, HSI noise 35 dB, MSI noise 40 dB. The model stays in FOLDER.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import yaml
from click.testing import CliRunner
from pairs import Case, load_scene, write
from rasterio.crs import CRS
from rasterio.transform import Affine

AREA = ["abu_airport_1", "abu_airport_2", "abu_airport_3", "abu_urban_4", "abu_urban_5"]
COUNTS = 8000.0  # one scale for all scenes, whose units have to stay the same
STRIP = 40  # columns of the last scene that pick the weights
AT, CRS_OF = Affine.translation(500_000, 4_000_000) * Affine.scale(4, -4), CRS.from_epsg(32611)


def write_archive(data: Path, folder: Path, held_out: str) -> None:
    """Scenes to train on, and a strip to pick by."""
    names = [name for name in AREA if name != held_out]
    for part in ("train", "pick"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in names:
        cube, axis = load_scene(data / "aviris" / f"{name}.tif", COUNTS)
        if name == names[-1]:
            write(folder / "pick" / f"{name}_strip.tif", cube[..., -STRIP:], AT, crs=CRS_OF, axis=axis)
            cube = cube[..., :-STRIP]
        write(folder / "train" / f"{name}.tif", cube, AT, crs=CRS_OF, axis=axis)


def write_config(folder: Path, steps: int, seed: int) -> Path:
    """What is trained, and how."""
    config = {
        "name": "gulfport",
        "output": str(folder / "run"),
        "form": "domain",
        "components": 14,
        "data": {
            "train": ["train"],
            "validation": ["pick"],
            "sensors": ["aviris-paper-4"],
            "ratios": [4],
            "window": 100,
            "examples": 400,
            "validation_examples": 2,
            "terms": "public domain imagery (NASA/JPL AVIRIS)",
        },
        "student": {"variant": "teacher", "features": 32, "growth": 16, "depths": [1, 2, 2, 1]},
        "teacher": None,
        "augment": {"snr_hsi": [34, 36], "snr_msi": [39, 41], "fwhm": [0.9, 1.15], "phase": 0.1},
        "steps": steps,
        "batch": 4,
        "accumulate": 1,
        "check_every": max(1, steps // 8),
        "ema": 0.99,
        "seed": seed,
        "tensorboard": False,
    }
    path = folder / "domain.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def held_out_case(data: Path, folder: Path, name: str) -> Case:
    """The scene that is scored."""
    from csakd_geo.degrade import PSF, observe
    from csakd_geo.sensors import get_sensor
    from csakd_geo.spectral import gaussian_response

    cube, axis = load_scene(data / "aviris" / f"{name}.tif", COUNTS)
    bands = get_sensor("aviris-paper-4").axis
    hsi, msi = observe(cube, gaussian_response(bands, axis), psf=PSF.nominal(4), snr_hsi=35, snr_msi=40)
    return Case(
        name,
        write(folder / "hsi.tif", hsi, AT * Affine.scale(4), crs=CRS_OF, axis=axis),
        write(folder / "msi.tif", msi, AT, crs=CRS_OF, axis=bands),
        write(folder / "truth.tif", cube, AT, crs=CRS_OF, axis=axis),
        4,
    )


def command(*words: str | Path) -> None:
    """A command as users type it."""
    from csakd_geo.cli import main

    found = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    if found.exit_code:
        raise SystemExit(found.output)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--held-out", choices=AREA, default="abu_airport_3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on with the training in FOLDER")
    given = parser.parse_args()
    from csakd_geo.evaluate import evaluate

    begun = time.perf_counter()
    if not given.resume:
        write_archive(given.data, given.output, given.held_out)
        write_config(given.output, given.steps, given.seed)
    command("train", given.output / "domain.yaml", *(["--resume"] if given.resume else []))
    print(f"{given.steps} steps, {(time.perf_counter() - begun) / 60:.0f} min\n", flush=True)
    model = given.output / "run" / "gulfport.safetensors"
    print("| scene | method | PSNR dB | SAM deg |\n|---|---|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        case = held_out_case(given.data, Path(name), given.held_out)
        found = []
        for label, words in (
            ("coupled-map", ["--method", "coupled-map"]),
            ("domain model", ["--model", model]),
        ):
            target = Path(name) / f"{label}.tif"
            command("fuse", case.hsi, case.msi, "-o", target, *words, "--dtype", "float32", "--quiet")
            s = evaluate(target, case.truth, ratio=case.ratio).scores
            found.append(s)
            print(f"| {case.name} | {label} | {s.psnr:.2f} | {s.sam:.3f} |", flush=True)
    base, ours = found
    print(f"\n{ours.psnr - base.psnr:+.2f} dB, {ours.sam / base.sam - 1:+.1%} SAM (bars: +1.5 dB, -10 %)")


if __name__ == "__main__":
    main()
