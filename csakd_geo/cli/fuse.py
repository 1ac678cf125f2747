"""``csakd-geo fuse``: the plan first, then progress, then one line per product."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from csakd_geo.cli import common, console
from csakd_geo.cli.fuse_run import check_stac, page_path, picture_path, plan_rows, run_fusion
from csakd_geo.cli.progress import Reporter
from csakd_geo.errors import InputError, OutputError
from csakd_geo.threads import let_threads_sleep


def _halo(_: click.Context, __: click.Parameter, value: str | None) -> str | int | None:
    if value is None or value == "auto":
        return value
    try:
        return int(value)
    except ValueError as error:
        raise click.BadParameter("expected auto or a whole number of HSI pixels") from error


@click.command()
@common.hsi
@common.msi
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="What to write.")
@click.option("--model", help="Name or file of a CSAKD model; the ratio comes from the pair.")
@click.option("--method", help="auto (default), csakd or a classical method: see 'csakd-geo methods'.")
@common.ratio
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
@common.device
@click.option(
    "--backend",
    type=click.Choice(["auto", "torch", "onnxruntime", "openvino", "torch-compile"]),
    help="What runs the network (default auto: the fastest installed, where the run is long).",
)
@click.option("--precision", type=click.Choice(["float32", "bf16"]), help="Of the network's convolutions.")
@click.option("--memory", metavar="SIZE", help="Bound such as 4GB that super-tiles and tiles are chosen for.")
@click.option("--aoi", type=click.Path(path_type=Path), help="Vector file whose polygons bound the output.")
@click.option("--bands", help="HSI bands to write, such as 1-50,450-680nm.")
@common.wavelengths
@common.hsi_sensor
@common.msi_sensor
@common.shift
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
@click.option(
    "--uncertainty",
    type=click.Choice(["bands", "compact"]),
    help="Also write standard deviations, <output>_uncertainty.tif: of every band, or one band to expand.",
)
@click.option(
    "--quality",
    is_flag=True,
    default=None,
    help="Also write <output>_quality.tif: masked, filled, clipped, extrapolated, changed pixels.",
)
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
    show, with wavelengths: a Cloud Optimized GeoTIFF, Zarr, NetCDF or ENVI. Either image may be
    several files, given as a folder or as a pattern in quotes such as 'tiles/S2_*.tif'.
    """
    from csakd_geo.draft import draft_job
    from csakd_geo.io import open_source
    from csakd_geo.io.address import address_of
    from csakd_geo.io.formats import find_format
    from csakd_geo.layers import check_layers
    from csakd_geo.options import make_options, read_config
    from csakd_geo.product import is_settled
    from csakd_geo.report import check_page, write_report
    from csakd_geo.stac import write_item
    from csakd_geo.target import check_target

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
    if not options.adapt_minutes:  # training is the slower for it
        let_threads_sleep()
    begun, address = time.monotonic(), address_of(output)
    with Reporter(quiet=quiet, as_json=log_json) as report:
        if not dry_run:
            inputs = [hsi, msi, *([truth] if truth else [])]
            check_target(output, overwrite=overwrite or resume, inputs=inputs, format=options.format)
            check_layers(output, options, overwrite=overwrite or resume)
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
        if resume and is_settled(output, draft, overwrite=overwrite):
            click.echo(f"fused: {address or output}  (finished before with the same settings; nothing to do)")
            return
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
