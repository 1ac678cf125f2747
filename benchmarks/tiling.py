"""Tiled against whole scene on the sample: relative RMSE of every method at tiles of 64, 96, 128 pixels.

    python benchmarks/tiling.py [MODEL ...]

Defaults otherwise. Further models, such as an official ``.pth``, can be named.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from pairs import sample_case

from csakd_geo.job import fuse
from csakd_geo.methods import METHODS
from csakd_geo.models import bundled_models

TILES = (64, 96, 128)


def main() -> None:
    models = [str(p) for p in (*bundled_models(), *sys.argv[1:])]
    runs = [({"method": name}, name) for name in METHODS]
    runs += [({"model": model}, Path(model).name) for model in models]
    print("| method | halo | " + " | ".join(f"{t} px" for t in TILES) + " |")
    print("|---|---|" + "---|" * len(TILES))
    with tempfile.TemporaryDirectory() as folder:
        case = sample_case(Path(folder))
        for options, name in runs:
            whole = fuse(case.hsi, case.msi, tile=1024, **options)
            values = whole.values
            scale = float(np.sqrt(np.square(values).mean()))
            errors = []
            for tile in TILES:
                tiled = fuse(case.hsi, case.msi, tile=tile, supertile=tile, **options).values
                errors.append(float(np.sqrt(np.square(tiled - values).mean())) / scale)
            cells = " | ".join(f"{e:.1e}" for e in errors)
            print(f"| {name} | {whole.attrs['halo']} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
