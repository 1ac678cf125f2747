"""``csakd-geo fuse``: the plan first, then progress, then one line per product."""

from __future__ import annotations

import importlib.util
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csakd_geo.cli import console
from csakd_geo.cli.progress import Reporter
from csakd_geo.errors import CsakdGeoError, InputError, OutputError

if TYPE_CHECKING:
    from csakd_geo.engine.store import Store
    from csakd_geo.job import Draft, Job
    from csakd_geo.product import Product

_CLIPPED = 1e-3  # share of clipped values that is worth a warning


def _shift(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None or value in ("auto", "none"):
        return value
    parts = value.split(",")
    try:
        if len(parts) == 2 and all(math.isfinite(float(p)) for p in parts):
            return ",".join(str(float(p)) for p in parts)
    except ValueError as error:
        raise click.BadParameter("expected auto, none or two finite numbers DX,DY") from error
    raise click.BadParameter("expected auto, none or two finite numbers DX,DY")


def _halo(_: click.Context, __: click.Parameter, value: str | None) -> str | int | None:
    if value is None or value == "auto":
        return value
    try:
        return int(value)
    except ValueError as error:
        raise click.BadParameter("expected auto or a whole number of HSI pixels") from error


@click.command()
@click.argument("hsi", type=click.Path(path_type=str))
@click.argument("msi", type=click.Path(path_type=str))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="What to write.")
@click.option("--model", help="Name or file of a CSAKD model; the ratio comes from the pair.")
@click.option("--method", help="auto (default), csakd or a classical method: see 'csakd-geo methods'.")
@click.option("--ratio", type=int, help="HSI pixel over MSI pixel; by default from the files.")
@click.option("--tile", type=int, help="MSI pixels per side computed at once.")
@click.option("--supertile", type=int, help="MSI pixels per side stored at once.")
@click.option("--halo", callback=_halo, help="HSI pixels of context around a tile, or auto to measure it.")
@click.option("--blend", type=click.Choice(["crop", "linear", "hann"]), help="How tiles meet.")
@click.option("--statistics", type=click.Choice(["scene", "tile"]), help="Attention and scaling from where.")
@click.option("--dtype", type=click.Choice(["int16", "float32"]), help="Stored type (default int16).")
@click.option(
    "--format",
    type=click.Choice(["cog", "zarr", "zarr2", "netcdf", "envi"]),
    help="By default that of the output's suffix: .tif, .zarr, .nc, .img or .dat (ENVI); zarr2 is for GDAL and QGIS.",
)
@click.option(
    "--overviews", is_flag=True, default=None, help="Coarser levels in a Zarr store (a COG has them)."
)
@click.option("--device", help="auto (default), cpu, cuda or cuda:N.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "torch", "onnxruntime", "openvino"]),
    help="What runs the network (default auto: the fastest installed, where the run is long).",
)
@click.option("--precision", type=click.Choice(["float32", "bf16"]), help="Of the network's convolutions.")
@click.option("--memory", metavar="SIZE", help="Bound such as 4GB that super-tiles and tiles are chosen for.")
@click.option("--aoi", type=click.Path(path_type=Path), help="Vector file whose polygons bound the output.")
@click.option("--bands", help="HSI bands to write, such as 1-50,450-680nm.")
@click.option(
    "--wavelengths", type=click.Path(path_type=Path), help="CSV or ENVI header for the HSI's bands."
)
@click.option("--hsi-sensor", help="Reader of the HSI, where it is not recognised: enmap, prisma, ...")
@click.option("--msi-sensor", help="Reader of the MSI: sentinel2, landsat, planetscope, ...")
@click.option(
    "--shift",
    callback=_shift,
    help="auto (default), none, or DX,DY added to the HSI, in units of the MSI's CRS.",
)
@click.option(
    "--adapt-minutes",
    type=float,
    help="Train on the pair that long; 0 never trains. By default only where csakd is asked for and no model fits.",
)
@click.option("--seed", type=int, help="Of everything random (default 0).")
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with the same options.")
@click.option(
    "--unreadable",
    type=click.Choice(["fail", "nodata"]),
    help="Where an input cannot be read: fail once everything else is done (default), or leave no data.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes on this machine.")
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers compute, tcp://HOST:PORT.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
@click.option(
    "--resume", is_flag=True, help="Go on with a run that was stopped; starts afresh if there is none."
)
@click.option("--quicklook", is_flag=True, help="Also draw a PNG of HSI, MSI and fused image.")
@click.option("--stac", is_flag=True, help="Also write a STAC item beside the output.")
@click.option("--report", "page", is_flag=True, help="Also write a page to look at it, <output>.html.")
@click.option("--truth", type=click.Path(path_type=str), help="True image: scores and error map.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and what it takes; write nothing.")
@click.option("--quiet", is_flag=True, help="No plan and no progress; products and warnings only.")
@click.option("--log-json", is_flag=True, help="Progress as JSON lines on stderr.")
def fuse(
    hsi: str,
    msi: str,
    output: Path,
    config: Path | None,
    overwrite: bool,
    resume: bool,
    quicklook: bool,
    stac: bool,
    page: bool,
    truth: str | None,
    dry_run: bool,
    quiet: bool,
    log_json: bool,
    **given: Any,
) -> None:
    """Fuse the hyperspectral image HSI with the multispectral image MSI.

    The result has all bands of the HSI on the pixel grid of the MSI, over the area that both
    show, with wavelengths: a Cloud Optimized GeoTIFF, Zarr, NetCDF or ENVI.
    """
    from csakd_geo.engine.store import Store
    from csakd_geo.io import open_source
    from csakd_geo.io.address import address_of, is_store_at
    from csakd_geo.io.formats import find_format
    from csakd_geo.job import draft_job
    from csakd_geo.options import make_options, read_config
    from csakd_geo.product import check_target, is_finished
    from csakd_geo.report import check_page, write_report
    from csakd_geo.stac import write_item

    values = {} if config is None else read_config(config)
    overwrite, resume, quicklook, stac, page, dry_run, quiet, log_json = (
        _switch(values, name, on)
        for name, on in {
            "overwrite": overwrite,
            "resume": resume,
            "quicklook": quicklook,
            "stac": stac,
            "report": page,
            "dry_run": dry_run,
            "quiet": quiet,
            "log_json": log_json,
        }.items()
    )
    configured = values.pop("truth", None)
    truth = truth or configured
    values |= {name: value for name, value in given.items() if value is not None}
    options = make_options(values)
    begun, address = time.monotonic(), address_of(output)
    with Reporter(quiet=quiet, as_json=log_json) as report:
        if not dry_run:
            inputs = [hsi, msi, *([truth] if truth else [])]
            check_target(output, overwrite=overwrite or resume, inputs=inputs, format=options.format)
            picture = picture_path(output)
            if (quicklook or truth) and picture.exists() and not (overwrite or resume):
                raise OutputError(f"The quicklook '{picture}' exists; give --overwrite to replace it.")
            if page:
                check_page(page_path(output), overwrite=overwrite or resume)
            if stac:
                check_stac(address)
        # a run that is resumed was asked for the same format, whether by name or by suffix
        options = options.model_copy(update={"format": find_format(output, options.format).name})
        draft = draft_job(hsi, msi, options)
        if truth is not None:
            open_source(truth)  # a wrong name is said now, not after the work
        report.table(plan_rows(draft, output))
        if dry_run:
            for sentence in draft.warnings:
                report.warn(sentence)
            return
        if resume and is_finished(output, draft):
            Store(output).remove()  # where the run before was stopped after its last step
            click.echo(f"fused: {address or output}  (finished before with the same settings; nothing to do)")
            return
        if resume and not overwrite and (output.exists() if address is None else is_store_at(address)):
            raise OutputError(
                f"The output '{address or output}' exists and was made with other settings; give --overwrite to "
                "replace it."
            )
        products = run_fusion(draft, output, report, quicklook=quicklook, truth=truth, resume=resume)
        if page:
            target = page_path(output)
            write_report(
                target,
                product=output,
                hsi=draft.scene.hsi,
                msi=draft.scene.msi,
                truth=truth,
                overwrite=overwrite or resume,
            )
            products.append(("report", target, ""))
        if stac:  # last: the item names what stands beside the product
            products.append(("stac", write_item(output, hsi=hsi, msi=msi), ""))
    report.event("done", products={kind: str(path) for kind, path, _ in products})
    for kind, path, words in products:
        click.echo(f"{kind}: {path}{words}")
    if not quiet and not log_json:
        console().print(f"Done in {time.monotonic() - begun:.1f} s.")


def _switch(values: dict[str, Any], name: str, on: bool) -> bool:
    """A flag that the command line or the configuration sets; taken out of the configuration."""
    value = values.pop(name, False)
    if not isinstance(value, bool):
        raise InputError(f"Option '{name}' cannot be {value!r}; expected true or false.")
    return on or value


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
    from csakd_geo.io.address import address_of, local_place
    from csakd_geo.job import prepare_job
    from csakd_geo.product import check_space, write_job
    from csakd_geo.resume import load_job

    check_space(output, draft.budget)
    store = Store(output)
    store.lock()
    written = address_of(output) or output
    model = local_place(output).with_name(output.stem + ".model.safetensors")
    try:
        found = load_job(draft, store) if resume else None
        job = found or prepare_job(draft, report=report, keep_model=model)
        for sentence in job.warnings:
            report.warn(sentence)
        product = write_job(job, output, store, report=report, resume=found is not None)
    except KeyboardInterrupt as error:
        raise CsakdGeoError(f"Stopped on request; '{written}' is as it was{_left(store)}.") from error
    except CsakdGeoError as error:
        raise type(error)(f"{str(error).rstrip('.')}{_left(store)}.") from error
    finally:
        store.unlock()
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
    if quicklook or truth:
        products += _pictures(job, written, picture_path(output), truth)
    return products


def _timings(job: Job, product: Product) -> str:
    """Seconds per stage, output per second, and which stage took longest."""
    seconds = {"fit": job.notes["fit_seconds"], **product.seconds}
    size = job.draft.budget.output / 1e6
    words = [f"Fit {seconds['fit']:.1f} s"]
    words += [f"{k} {v:.1f} s ({size / max(v, 1e-3):.0f} MB/s)" for k, v in product.seconds.items()]
    return f"{', '.join(words)}; most of the time went into {max(seconds, key=lambda k: seconds[k])}."


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
