"""One fusion on the command line: what it makes beside the output, and what it says at the start and the end."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from csakd_geo.errors import CsakdGeoError, InputError

if TYPE_CHECKING:
    from csakd_geo.cli.progress import Reporter
    from csakd_geo.draft import Draft
    from csakd_geo.engine.store import Store
    from csakd_geo.job import Job
    from csakd_geo.product import Product

_DOING = {"read": "reading", "compute": "computing", "stage": "staging super-tiles"}
_CLIPPED = 1e-3  # share of clipped values that is worth a warning


def check_stac(address: str | None) -> None:
    """Refuse a STAC item that could not be written after the run."""
    if address is not None:
        raise InputError(f"A STAC item stands beside a local product, not at '{address}'; leave --stac out.")
    if importlib.util.find_spec("pystac") is None:
        raise InputError("STAC needs the package pystac; install it with pip install 'csakd-geo[gis]'.")


def page_path(output: Path) -> Path:
    """Where the report of an output goes."""
    from csakd_geo.io.address import local_place

    return local_place(output).with_suffix(".html")


def picture_path(output: Path) -> Path:
    """Where the quicklook of an output goes."""
    from csakd_geo.io.address import local_place

    return local_place(output).with_name(output.stem + ".quicklook.png")


def run_fusion(
    draft: Draft,
    output: Path,
    report: Reporter,
    *,
    quicklook: bool,
    truth: str | None,
    resume: bool = False,
) -> list[tuple[str, Path | str, str]]:
    """Fit, compute and write under the output's lock; returns kind, path and remark per product."""
    from csakd_geo.engine.store import Store
    from csakd_geo.io.address import address_of
    from csakd_geo.layers import layer_paths
    from csakd_geo.product import make_product, model_path

    written, model = address_of(output) or output, model_path(output)

    def ready(job: Job) -> None:
        for sentence in job.warnings:
            report.warn(sentence)

    try:
        job, product = make_product(draft, output, report=report, resume=resume, ready=ready)
    except KeyboardInterrupt as error:
        raise CsakdGeoError(f"Stopped on request; '{written}' is as it was{_left(Store(output))}.") from error
    except CsakdGeoError as error:
        raise type(error)(f"{str(error).rstrip('.')}{_left(Store(output))}.") from error
    grid, clipped = job.scene.grid, product.clipped
    report.note(_timings(job, product))
    share = clipped / (grid.height * grid.width * len(job.draft.bands))
    if share > _CLIPPED:
        report.warn(
            f"{share:.1%} of the values did not fit int16 and were clipped; --dtype float32 keeps them."
        )
    words = f"  ({_method_words(job)}; {job.draft.budget.output / 1e6:.0f} MB uncompressed)"
    if clipped:
        words += f"  {clipped} values clipped"
    products: list[tuple[str, Path | str, str]] = [("fused", written, words)]
    if model.exists() and job.notes["model"].get("trained_on_pair"):
        products.append(("model", model, ""))
    products += [(kind, path, "") for kind, path in layer_paths(output, draft.options).items()]
    if quicklook or truth:
        products += _pictures(job, written, picture_path(output), truth)
    return products


def _timings(job: Job, product: Product) -> str:
    """Seconds and MB/s per stage, and which one bound the run.

    The stages of fusing ran side by side: each gets its share of the wall time.
    """
    fit, fuse, write = job.notes["fit_seconds"], product.seconds["fuse"], product.seconds["write"]
    whole = sum(stage["seconds"] for stage in product.stages.values()) or 1.0
    shares = {name: fuse * stage["seconds"] / whole for name, stage in product.stages.items()}
    parts = [
        f"{name} {shares[name]:.1f} s, {stage['mb_per_second']:.0f} MB/s"
        for name, stage in product.stages.items()
    ]
    size = job.draft.budget.output / 1e6
    words = f"Fit {fit:.1f} s, fuse {fuse:.1f} s"
    words += f" ({'; '.join(parts)})" if parts else ""
    words += f", write {write:.1f} s ({size / max(write, 1e-3):.0f} MB/s)"
    spent = {"fitting": fit, "writing the product": write}
    spent |= {_DOING[name]: seconds for name, seconds in shares.items()}
    return f"{words}; {max(spent, key=lambda name: spent[name])} bound the run."


def _left(store: Store) -> str:
    """What a stopped run left, and how to go on."""
    count = store.count()
    if count == 0:
        return ""
    return f"; {count} finished super-tile{'s' * (count > 1)} stay in '{store.folder}', --resume goes on with them"


def _pictures(
    job: Job, output: Path | str, picture: Path, truth: str | None
) -> list[tuple[str, Path | str, str]]:
    from csakd_geo.evaluate import evaluate
    from csakd_geo.io import open_source
    from csakd_geo.quicklook import draw_quicklook

    true_source = None if truth is None else open_source(truth)
    draw_quicklook(
        picture, hsi=job.scene.hsi, msi=job.scene.msi, fused=open_source(output), truth=true_source
    )
    products: list[tuple[str, Path | str, str]] = [("quicklook", picture, "")]
    if truth is not None:
        scores = evaluate(output, truth, ratio=job.scene.grid.ratio).scores
        products[0] = (
            "quicklook",
            picture,
            f"  (against truth: PSNR {scores.psnr:.2f} dB, SAM {scores.sam:.3f} deg, ERGAS {scores.ergas:.3f})",
        )
    return products


def _method_words(job: Job) -> str:
    name = job.choice.method.name
    model = job.notes["model"].get("name")
    return f"{name}, model {model}" if model else name


def plan_rows(draft: Draft, output: Path) -> list[tuple[str, str]]:
    """The plan, line by line."""
    from csakd_geo.budget import spell_bytes, spell_seconds

    scene, g, options = draft.scene, draft.scene.grid, draft.options
    bad = scene.hsi.axis.size - len(scene.hsi_bands)
    how = "nested, read as it is" if g.nested else "warped onto the fusion grid"
    if options.model is not None:
        method = f"csakd, model {options.model}"
    elif options.method == "auto":
        method = "auto: the better of network and classical methods on held-out blocks"
    else:
        method = options.method
    count = -(-g.lr_height // draft.supertile) * -(-g.lr_width // draft.supertile)
    return [
        ("HSI", f"{scene.hsi.name}: {scene.hsi.axis.size} bands ({bad} unusable), {how}"),
        ("MSI", f"{scene.msi.name}: {scene.msi.axis.size} bands"),
        ("Ratio", str(g.ratio)),
        (
            "Output",
            f"{output}: {g.height} x {g.width} pixels, {len(draft.bands)} bands, {options.dtype}, {options.format}",
        ),
        ("Method", method),
        (
            "Tiles",
            f"{draft.tile * g.ratio} px in {count} super-tiles of {draft.supertile * g.ratio} px, "
            f"blend {options.blend}, statistics {options.statistics}, device {draft.device}",
        ),
        (
            "Expected",
            f"{spell_seconds(draft.budget.seconds)} without training, {spell_bytes(draft.budget.memory)} memory, "
            f"{spell_bytes(draft.budget.disk)} disk at the peak, {spell_bytes(draft.budget.output)} output "
            "before compression",
        ),
    ]
