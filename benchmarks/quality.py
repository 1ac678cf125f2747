"""Fusion quality: every method over scenes with a known truth, each factor varied by itself.

    python benchmarks/quality.py DATA [--short] [-o FOLDER] [--triples FOLDER] [--models NAME,...]

DATA is the folder with aviris, paris_ms, enmap_potsdam and dlr_hysu. The default setting is ratio 4, four
bands at 485, 560, 660 and 830 nm, a nominal PSF, noise of 35 dB (HSI) and 40 dB (MSI). Around it vary ratio
(2, 3, 6, 10), MSI bands (1, 3, 6, 9), place and width of the PSF (0.5, 1 MSI pixel; 30 %), the MSI's
responses (10 nm), HSI noise (25, 30, 45 dB) and georeferencing (0.5, 1 HSI pixel). `--short` varies them on
one scene of each AVIRIS area, the full form on all scenes, crosses ratio, bands and noise and repeats the default
with three seeds of noise.

Every method is called as users call it, blind, and scored by `csakd_geo.evaluate`. A model is left out of
the areas that its card names. Writes quality.json, quality.csv, quality.md and quality.png into FOLDER.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from quality_scenes import (
    DEFAULT,
    UNMOVED,
    Setting,
    Truth,
    crossed_settings,
    find_truths,
    one_per_area,
    seen_areas,
    single_settings,
    stored_pairs,
    usable,
)
from quality_table import as_csv, as_markdown, draw

from csakd_geo.models import find_model
from csakd_geo.trial import Condition, Row, classical_contenders, model_contenders, run_trial

STORED = "as it is"
LEFT_OUT = "left out: its card names this area"


def score(task) -> list[dict]:
    """Rows of one pair: a truth with a setting, or a stored triple."""
    scene, setting, seed, models = task
    stored = setting is None
    contenders, rows = classical_contenders(), []
    with tempfile.TemporaryDirectory() as name:
        triple = scene if stored else scene.make(setting, Path(name), seed=seed)
        area = scene.name if stored else scene.area
        facts = {"setting": STORED if stored else setting.label, "area": area, "noise_seed": seed}
        facts |= {} if stored else asdict(setting)
        for model in model_contenders(models) if models else []:
            if area in seen_areas(find_model(model.options["model"])):
                rows.append(
                    facts
                    | asdict(
                        Row(scene.name, model.name, "model", None, None, None, None, None, failed=LEFT_OUT)
                    )
                )
            else:
                contenders.append(model)
        done = run_trial(
            [triple],
            [Condition()],
            contenders,
            report=lambda *_: None,
            backend="torch",
            shift="none" if triple.name.endswith(UNMOVED) else "auto",
        )
    kept = {"snr", "shift"}  # the setting's own
    return rows + [facts | {k: v for k, v in asdict(row).items() if k not in kept} for row in done]


def tasks_of(truths: list[Truth], stored: list, *, short: bool, models: list[str]) -> list[tuple]:
    """What there is to score, the costly first."""
    tasks = [(scene, None, 0, models) for scene in stored]
    seeds = (0,) if short else (0, 1, 2)
    tasks += [(truth, DEFAULT, seed, models) for truth in truths for seed in seeds]
    areas = one_per_area(truths)
    settings: list[Setting] = single_settings() + ([] if short else crossed_settings())
    for setting in settings:
        tasks += [(t, setting, 0, models) for t in (areas if short else truths) if usable(t, setting)]
    return tasks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("quality"))
    parser.add_argument("--short", action="store_true", help="about ten minutes on two cores")
    parser.add_argument(
        "--triples", type=Path, action="append", default=[], help="folder of more pairs with truth"
    )
    parser.add_argument("--models", default="csakd-student-aviris", help="names or files; empty for none")
    parser.add_argument("--only", help="only settings and scenes whose names hold this")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # of the processes started below
    begun = time.perf_counter()
    models = [name for name in args.models.split(",") if name]
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as name:
        stored = stored_pairs(args.data, Path(name), args.triples)
        tasks = tasks_of(find_truths(args.data), stored, short=args.short, models=models)
        if args.only:
            tasks = [t for t in tasks if args.only in f"{t[0].name} {STORED if t[1] is None else t[1].label}"]
        with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
            for done, found in enumerate(pool.imap(score, tasks), 1):
                rows += found
                print(f"{done} of {len(tasks)}: {found[-1]['scene']}, {found[-1]['setting']}", flush=True)
    minutes = (time.perf_counter() - begun) / 60
    caption = f"{len(tasks)} pairs, {args.processes} processes, {minutes:.0f} minutes."
    text = as_markdown(rows, caption)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "quality.json").write_text(json.dumps({"minutes": minutes, "rows": rows}, indent=1))
    (args.output / "quality.csv").write_text(as_csv(rows))
    (args.output / "quality.md").write_text(text)
    (args.output / "quality.png").write_bytes(draw(rows))
    print(text)


if __name__ == "__main__":
    main()
