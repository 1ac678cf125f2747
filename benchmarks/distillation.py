"""Does distillation earn its place, and which fuser? Trained and scored on AVIRIS scenes.

    python benchmarks/distillation.py DATA -o RESULTS.json [--steps 120] [--seeds 3] [--jobs 2]
    python benchmarks/distillation.py --table RESULTS.json --docs docs

DATA is the folder of AVIRIS scenes as GeoTIFF. The first form trains and may be stopped: what is
in RESULTS.json is not run again. The second writes docs/distillation.md and docs/distillation.png
from it. Two settings: another area (San Diego is scored, all other areas are learned from, on
coefficients of each pair's own subspace) and the same area (one Gulfport scene is scored, the other
four are learned from, on coefficients of the area's subspace). Every network of one run sees the same crops, from the same start, for the same number of
steps, and is scored with its last weights, so nothing is chosen on what is scored.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np

AREAS = {
    "gulfport": ["abu_airport_1", "abu_airport_2", "abu_airport_3", "abu_urban_4", "abu_urban_5"],
    "sandiego": ["sandiego_0", "sandiego_1"],
    "beach_2": ["abu_beach_2"],
    "beach_3": ["abu_beach_3"],
    "gatorsense": ["gatorsense_224"],
}
SETTINGS = {
    "another area": (
        ["sandiego_0", "sandiego_1"],
        [n for a, ns in AREAS.items() if a != "sandiego" for n in ns],
    ),
    "same area": (["abu_airport_3"], [n for n in AREAS["gulfport"] if n != "abu_airport_3"]),
}
COUNTS = 8000.0  # of the same area's scenes, whose units have to stay the same
COMPONENTS, CROP, EXAMPLES = 10, 10, 48
TEACHER = dict(features=32, growth=16, depths=(1, 2, 2, 1))
STUDENT = dict(features=16, growth=8, depths=(0, 1, 1, 1), student=True)
TERMS = {
    "student alone": (0.0, 0.0),
    "with response": (0.1, 0.0),
    "with features": (0.0, 0.1),
    "with both": (0.1, 0.1),
}
OFFLINE = "with both, offline"
FUSERS = {
    "0 sum": (0, "cross"),
    "1 learned weights": (1, "cross"),
    "2 cross attention": (2, "cross"),
    "3 CSA as released": (3, "released"),
    "3 CSA": (3, "cross"),
    "4 gates": (4, "cross"),
}
NOISES = (25, 35, 45)


def make_pools(task, folder: Path):
    """Examples to learn from, and one observation of each scene that is scored."""
    from pairs import load_scene, write
    from rasterio.transform import Affine

    from csakd_geo.models import ModelCard, NetworkConfig, Normalisation
    from csakd_geo.train.archive import RasterArchive
    from csakd_geo.train.pool import Pool
    from csakd_geo.train.setup import find_domain
    from csakd_geo.train.variation import Variation

    noise, domain = (task["noise"], task["noise"]), task["setting"] == "same area"
    fixed = dict(ratios=(4,), sensors=("aviris-paper-4",), random_share=0.0, turned=0.0, joined=0.0, vnir=0.0)
    at_noise = dict(snr_hsi=noise, snr_msi=(40.0, 40.0))
    varied, plain = (
        Variation(**fixed, **at_noise, fwhm=fwhm, phase=phase)
        for fwhm, phase in (((0.8, 1.3), 0.15), ((1.0, 1.0), 0.0))
    )
    scored, learned = SETTINGS[task["setting"]]
    at = Affine.translation(500_000, 4_000_000) * Affine.scale(4, -4)
    for name in (*scored, *learned):
        cube, axis = load_scene(Path(task["data"]) / f"{name}.tif", COUNTS if domain else None)
        write(folder / f"{name}.tif", cube, at, axis=axis)

    def archive(names, variation):
        paths = [str(folder / f"{name}.tif") for name in names]
        return RasterArchive.open(paths, variation, window=100, least=40, uniform=domain)

    learn = archive(learned, varied)
    card = ModelCard(
        name="benchmark",
        network=NetworkConfig(bands=COMPONENTS, msi_bands=COMPONENTS, residual=task["residual"], **STUDENT),
        form="subspace",
        base="coupled-map" if task["residual"] else None,
        domain=find_domain(learn, COMPONENTS) if domain else None,
        normalisation=Normalisation(rule="subspace-std"),
    )
    pool = Pool(learn, card, size=EXAMPLES, seed=task["seed"], crop=CROP)
    tests = [Pool(archive([n], plain), card, size=1, seed=99, crop=CROP)[0] for n in scored]
    return pool, tests


def scores(network, tests):
    """PSNR, SAM and ERGAS, means over the held-out scenes; of the reference without a network."""
    from csakd_geo.metrics import score
    from csakd_geo.train.examples import expand
    from csakd_geo.train.heldout import answer

    rows = []
    for example in tests:
        got = example.reference if network is None else answer(network.eval(), example)
        s = score(expand(example, got), example.truth, ratio=example.ratio)
        rows.append((s.psnr, s.sam, s.ergas))
    return dict(zip(("psnr", "sam", "ergas"), np.mean(rows, axis=0).round(4).tolist(), strict=True))


def replay(teacher):
    """A stand-in for a teacher that answers what it answered to these very batches before."""
    from torch import nn

    class Replay(nn.Module):
        config = teacher.config
        kept: dict = {}  # noqa: RUF012

        def forward(self, hsi, msi, base):
            return self.kept[hsi.data_ptr()]

    return Replay()


def train(task):
    """One run: a teacher and its students, or students with different fusers."""
    import torch

    torch.set_num_threads(1)
    from csakd_geo.models import DualTwoStream, NetworkConfig
    from csakd_geo.train.batch import draw_batch
    from csakd_geo.train.losses import LossWeights
    from csakd_geo.train.steps import Steps

    def network(options, **changes):
        torch.manual_seed(task["seed"])
        shape = dict(bands=COMPONENTS, msi_bands=COMPONENTS, residual=task["residual"])
        return DualTwoStream(NetworkConfig(**shape, **(options | changes)))

    with tempfile.TemporaryDirectory() as name:
        pool, tests = make_pools(task, Path(name))
        begun = time.perf_counter()
        runs, teacher, shown = {}, None, None
        if task["kind"] == "distillation":
            runs["teacher"] = Steps(network(TEACHER), None, rate=1e-3, weights=LossWeights())
            teacher = runs["teacher"].pupil.student
            shown = replay(teacher)
            for label, (response, feature) in TERMS.items():
                weights = LossWeights(response=response, feature=feature)
                guide = None if label == "student alone" else shown
                runs[label] = Steps(network(STUDENT), guide, rate=1e-3, weights=weights, frozen=True)
        else:
            for label, (fuser, attention) in FUSERS.items():
                student = network(STUDENT, fuser=fuser, attention=attention)
                runs[label] = Steps(student, None, rate=1e-3, weights=LossWeights())
        spent = dict.fromkeys(runs, 0.0)

        def batches_of(step):
            rng = np.random.default_rng([task["seed"], step])
            numbers = rng.integers(EXAMPLES, size=4)
            return [draw_batch(pool[int(k)], rng, crop=CROP, count=2, signs=False) for k in numbers]

        def advance(labels, step, batches):
            factor = 0.5 * (1 + np.cos(np.pi * step / task["steps"]))
            for label in labels:
                at = time.perf_counter()
                runs[label].step(batches, factor=factor)
                spent[label] += time.perf_counter() - at

        for step in range(task["steps"]):
            batches = batches_of(step)
            if shown is not None:
                with torch.no_grad():
                    shown.kept = {b.hsi.data_ptr(): teacher(b.hsi, b.msi, b.base) for b in batches}
            advance(list(runs), step, batches)
        if teacher is not None:
            # offline: the same student from the teacher that is now done
            weights = LossWeights(response=0.1, feature=0.1)
            runs[OFFLINE] = Steps(network(STUDENT), teacher, rate=1e-3, weights=weights, frozen=True)
            spent[OFFLINE] = 0.0
            for step in range(task["steps"]):
                advance([OFFLINE], step, batches_of(step))
        found = {label: scores(steps.pupil.student, tests) for label, steps in runs.items()}
        for label in runs:
            found[label]["seconds"] = round(spent[label], 1)
        found["reference"] = scores(None, tests)
    return {**task, "data": "aviris", "scores": found, "seconds": round(time.perf_counter() - begun)}


def tasks(args):
    """What matters most first, so that a run that is stopped early has something to show."""
    for seed in range(args.seeds):
        for residual, setting in itertools.product((True, False), SETTINGS):
            yield dict(kind="distillation", setting=setting, residual=residual, noise=35.0, seed=seed)
    for residual in (True, False):
        for seed in range(args.seeds):
            for noise in NOISES:
                yield dict(
                    kind="fuser", setting="same area", residual=residual, noise=float(noise), seed=seed
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("distillation.json"))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", type=Path, metavar="RESULTS.json")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    if args.table is not None:
        from distillation_table import write_docs

        write_docs(json.loads(args.table.read_text()), args.docs)
        return
    rows = json.loads(args.output.read_text()) if args.output.exists() else []
    keys = ("kind", "setting", "residual", "noise", "seed", "steps")
    done = {tuple(row[k] for k in keys) for row in rows}
    wanted = [task | {"steps": args.steps, "data": str(args.data)} for task in tasks(args)]
    left = [task for task in wanted if tuple(task[k] for k in keys) not in done]
    with multiprocessing.get_context("spawn").Pool(args.jobs) as workers:
        for row in workers.imap_unordered(train, left):
            rows.append(row)
            part = args.output.with_suffix(".part")
            part.write_text(json.dumps(rows, indent=1))
            part.replace(args.output)
            print({k: row[k] for k in keys}, row["seconds"], "s", json.dumps(row["scores"]), flush=True)


if __name__ == "__main__":
    main()
