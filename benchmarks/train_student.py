"""Train the bundled student: a small residual subspace network, taught by a teacher.

    python benchmarks/train_student.py DATA -o csakd_geo/models/weights/csakd-student-aviris.safetensors

DATA is the folder with aviris (the ABU scenes, San Diego, gatorsense as GeoTIFF) and sentinel2. Indian
Pines is left out by name, since the sample is made of it; San Diego is held out to pick the
weights. The land that is observed is made of these scenes, so that the network can learn neither which spectra go
together nor where: a fourth is re-mixed (endmembers of one scene with the abundances of another; with
`--library FILE`, an npz of `grid` in micrometres and `spectra` such as USGS splib07, a third of those have spectra of
the library), a fifth has the texture of a Sentinel-2 image, each pixel the spectra of the scene that look like it in
ten bands. All of it is then turned and joined with another scene, as `csakd-geo train` does.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from adapt import clothe, sentinel2
from pairs import load_scene

from csakd_geo.methods.cnmf import successive_projection, unmix

SCENES = {
    "abu_airport_1": "ABU airport-1 (AVIRIS)",
    "abu_airport_2": "ABU airport-2 (AVIRIS)",
    "abu_airport_3": "ABU airport-3 (AVIRIS)",
    "abu_urban_4": "ABU urban-4 (AVIRIS)",
    "abu_urban_5": "ABU urban-5 (AVIRIS)",
    "abu_beach_2": "ABU beach-2 (AVIRIS)",
    "abu_beach_3": "ABU beach-3 (AVIRIS)",
    "gatorsense_224": "GatorSense AVIRIS scene",
}
HELD_OUT = {"sandiego_0": "AVIRIS San Diego, part 0", "sandiego_1": "AVIRIS San Diego, part 1"}
LIBRARY = "USGS splib07, spectra mixed by abundances of these scenes"
TEXTURES = "Sentinel-2 L1C, two crops, as texture only (contains modified Copernicus Sentinel data 2017)"
TERMS = "public domain (NASA/JPL AVIRIS imagery; USGS); Copernicus Sentinel data: free, full and open"
COMPONENTS = 10
REMIXED, TEXTURED = 0.25, 0.2  # shares of the land; the rest is a scene's own
FROM_LIBRARY = 1 / 3  # of what is re-mixed
SIDES = 88, 120  # pixels of a piece of texture
BANDS = 48  # that the loss is taken over: neighbours tell the same


def remix(cube, other, rng, library=None):
    """The spectra of one scene, or of a library (spectrum, band), over the abundance maps of another."""
    count = int(rng.integers(8, 24))
    if library is None:
        ends, scale, _ = endmembers(cube, count, rng)
        ends = ends * scale
    else:
        bright = rng.uniform(0.3, 1.0, count)[:, None]  # shade, slope, wetness
        ends = (library[rng.choice(len(library), count, replace=False)] * bright).T
    own, _, spectra = endmembers(other, count, rng)
    start = np.full((count, spectra.shape[1]), 1 / count, np.float32)
    maps = unmix(own, spectra, start, 150)[rng.permutation(count)]
    return (ends.astype(np.float32) @ maps).reshape(len(ends), *other.shape[1:])


def endmembers(cube, count, rng):
    """Extreme spectra (band, count) over their scale, the scale, and all spectra (band, n) over it."""
    spectra = cube.reshape(len(cube), -1)
    few = spectra[:, rng.choice(spectra.shape[1], 1500, replace=False)].astype(np.float64)
    scale = float(np.sqrt(np.square(few).mean()))
    return few[:, successive_projection(few, count)] / scale + 1e-6, scale, spectra / scale


def read_library(path, axis):
    """Spectra (spectrum, band) at the bands of an axis; None without a file."""
    if path is None:
        return None
    with np.load(path) as file:
        known, spectra = 1e3 * file["grid"], file["spectra"]
    measured = np.isfinite(spectra)
    return np.stack(
        [
            np.interp(axis.wavelength, known[at], one[at])
            for one, at in zip(spectra, measured, strict=True)
            if at.any()
        ]
    )


def textured(cube, axis, textures, rng):
    """Spectra of a scene where a piece of a Sentinel-2 image looks like them."""
    side, image = int(rng.integers(*SIDES)), textures[int(rng.integers(len(textures)))]
    y, x = (int(rng.integers(n - side)) for n in image.shape[1:])
    return clothe(image[:, y : y + side, x : x + side], cube, axis, nearest=int(rng.integers(1, 5)))


def at_bands(scene, axis):
    """A scene (cube, axis) at the bands of another of the same instrument."""
    cube, own = scene
    order = np.argsort(own.wavelength)
    places = np.interp(axis.wavelength, own.wavelength[order], np.arange(len(order)))
    low = np.minimum(places.astype(int), len(order) - 2)
    share = (places - low).astype(np.float32)[:, None, None]
    return (1 - share) * cube[order[low]] + share * cube[order[low + 1]]


def thinned(example, rng):
    """An example whose truth has a few of its bands."""
    few = np.sort(rng.permutation(len(example.truth))[:BANDS])
    rest = None if example.rest is None else example.rest[few]
    return replace(
        example, truth=example.truth[few], weight=example.weight[few], level=example.level[few], rest=rest
    )


def build(task):
    """Examples of one seed; `made` land to learn from, or scenes as they are."""
    from threadpoolctl import threadpool_limits

    from csakd_geo.errors import CsakdGeoError
    from csakd_geo.models import ModelCard
    from csakd_geo.response import estimate_response
    from csakd_geo.train.examples import make_examples
    from csakd_geo.train.variation import Variation, vary

    data, names, count, seed, made, library, card_json = task
    rng = np.random.default_rng(seed)
    scenes = [load_scene(Path(data) / "aviris" / f"{name}.tif") for name in names]
    textures = sentinel2(Path(data)) if made else []
    card, examples = ModelCard.from_json(card_json), []

    def draw():
        return scenes[int(rng.integers(len(scenes)))]

    with threadpool_limits(1):
        while len(examples) < count:
            cube, axis = draw()
            kind, other = rng.random() if made else 1.0, None
            if kind < REMIXED:
                chosen = read_library(library, axis) if rng.random() < FROM_LIBRARY else None
                cube = remix(cube, draw()[0], rng, chosen)
            elif kind < REMIXED + TEXTURED:
                cube = textured(cube, axis, textures, rng)
            if made:
                other = at_bands(draw(), axis)
            try:
                ranges = Variation() if made else Variation().plain
                pair, truth = vary(cube, axis, ranges, rng, other=other)
                found = make_examples(card, pair, (truth,), estimate_response(pair))
                examples += [thinned(example, rng) for example in found] if made else found
            except CsakdGeoError as error:
                print(f"left out: {error}", flush=True)
    return examples


def average(one, other):
    """A network with the mean of two networks' weights (Izmailov et al. 2018), on one valley's floor if both are."""
    mean, weights = copy.deepcopy(one), other.state_dict()
    mean.load_state_dict({name: (value + weights[name]) / 2 for name, value in one.state_dict().items()})
    return mean.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--library", type=Path)
    parser.add_argument("--examples", type=int, default=1400)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--signs", action="store_true", help="turn signs of coefficients at random")
    parser.add_argument("--no-teacher", action="store_true")
    parser.add_argument(
        "--start", type=Path, help="a student to go on from; kept is the mean of both, if better"
    )
    args = parser.parse_args()

    import torch

    from csakd_geo.models import (
        DualTwoStream,
        ModelCard,
        NetworkConfig,
        Normalisation,
        TrainingData,
        load_model,
        save_model,
    )
    from csakd_geo.train.distill import Settings, distil
    from csakd_geo.train.heldout import held_out_error

    shape = dict(bands=COMPONENTS, msi_bands=COMPONENTS, features=args.features, growth=args.features // 2)
    student_shape = NetworkConfig(**shape, depths=(0, 2, 2, 1), student=True)
    teacher_shape = NetworkConfig(**shape, depths=(1, 2, 2, 1))
    library = () if args.library is None else (LIBRARY,)
    card = ModelCard(
        name="csakd-student-aviris",
        version="1",
        network=student_shape,
        form="subspace",
        ratio=(2, 10),
        normalisation=Normalisation(rule="subspace-std"),
        base="coupled-map",
        tile=512,
        halo=8,
        training=tuple(
            TrainingData(name=title, terms=TERMS) for title in (*SCENES.values(), TEXTURES, *library)
        ),
    )
    half = args.examples // 2
    tasks = [
        (str(args.data), list(SCENES), half, args.seed * 100 + k, True, args.library, card.to_json())
        for k in (1, 2)
    ]
    begun = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.map(build, tasks)
    learn = [example for part in parts for example in part]
    held = build((str(args.data), list(HELD_OUT), 12, 7, False, None, card.to_json()))
    print(f"{len(learn)} examples, {len(held)} held out, {time.monotonic() - begun:.0f} s", flush=True)

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    student = DualTwoStream(student_shape)
    if args.start is not None:
        student.load_state_dict(load_model(args.start).network.state_dict())
    teacher = None if args.no_teacher else DualTwoStream(teacher_shape)

    def progress(share: float, best: float) -> None:
        now = held_out_error(student, held)
        taught = "" if teacher is None else f", teacher {held_out_error(teacher, held):.4f}"
        print(
            f"{share:5.0%}  held-out error over the base's: best {best:.4f}, now {now:.4f}{taught}",
            flush=True,
        )

    settings = Settings(
        minutes=args.minutes,
        rate=args.rate,
        seed=args.seed,
        crop=10,
        check_every=60,
        batch=2,
        examples=4,
        signs=args.signs,
    )
    outcome = distil(student, teacher, learn, held, settings, progress=progress)
    best, provenance = outcome.best, {"script": "benchmarks/train_student.py", "steps": outcome.steps}
    provenance["seed"] = args.seed
    if args.start is not None:
        provenance["started_from"] = load_model(args.start).card.sha256
        mean = average(student, load_model(args.start).network)
        error = held_out_error(mean, held)
        if error < best:
            best, student, provenance["averaged_with_start"] = error, mean, True
    scores = {
        "held_out": ", ".join(HELD_OUT.values()),
        "held_out_error_over_base": round(best, 4),
        "held_out_error_over_base_at_start": round(outcome.start, 4),
    }
    saved = save_model(
        args.output, student, card.model_copy(update={"scores": scores, "provenance": provenance})
    )
    print(json.dumps({"scores": scores, "sha256": saved.sha256, "steps": outcome.steps}, indent=1))


if __name__ == "__main__":
    main()
