"""``csakd-geo pair`` and ``csakd-geo batch``: many scenes, from two folders to a page that says how it went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from csakd_geo.cli import console, warn
from csakd_geo.errors import OutputError
from csakd_geo.threads import let_threads_sleep

if TYPE_CHECKING:
    from csakd_geo.batch.run import Outcome
    from csakd_geo.job import Report

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("hsi_dir", type=_FILE)
@click.argument("msi_dir", type=_FILE)
@click.option("-o", "--output", required=True, type=_FILE, help="Manifest: .gpkg, .parquet or .csv.")
@click.option("--max-days", type=click.FloatRange(min=0), help="Days between the two; any by default.")
@click.option(
    "--min-overlap",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of the smaller image that both show.",
)
@click.option("--all", "every", is_flag=True, help="Every MSI that fits an HSI, not the best one alone.")
@click.option(
    "--outputs", default="fused", show_default=True, help="Folder of the outputs, from the manifest's."
)
@click.option("--overwrite", is_flag=True, help="Replace the manifest if it exists.")
def pair(
    hsi_dir: Path,
    msi_dir: Path,
    output: Path,
    max_days: float | None,
    min_overlap: float,
    every: bool,
    outputs: str,
    overwrite: bool,
) -> None:
    """Find the pairs of HSI_DIR and MSI_DIR and write them as a manifest for 'csakd-geo batch'.

    Two images are a pair where their footprints overlap; dates come from the files' metadata or names. Of
    several MSIs the nearest in time is taken, then the one that shows most. What has no partner is listed
    with the reason.
    """
    from csakd_geo.batch.find import find_pairs, write_manifest

    if output.exists() and not overwrite:
        raise OutputError(f"The manifest '{output}' exists; give --overwrite to replace it.")
    with console().status("Looking at the images"):
        matches, notes = find_pairs(hsi_dir, msi_dir, max_days=max_days, min_overlap=min_overlap, every=every)
    for sentence in notes:
        warn(sentence)
    write_manifest(output, matches, outputs=outputs)
    click.echo(f"manifest: {output}  ({len(matches)} pair{'s' * (len(matches) != 1)})")


@click.command()
@click.argument("manifest", type=_FILE)
@click.option("-o", "--output", "folder", type=_FILE, help="Folder of outputs and summary (the manifest's).")
@click.option(
    "--config", type=_FILE, help="YAML file with options of fuse for all scenes; a row goes before."
)
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes, each with a scene at a time.")
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers take a scene each.")
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Skip scenes that are finished with the same settings, go on with half-done ones.",
)
@click.option("--overwrite", is_flag=True, help="Replace outputs that were made with other settings.")
@click.option("--quicklook", is_flag=True, help="Also draw a PNG beside each output.")
@click.option("--stac", is_flag=True, help="Also write STAC items and a collection, a static catalog.")
@click.option("--quiet", is_flag=True, help="No progress; products, warnings and failures only.")
def batch(
    manifest: Path,
    folder: Path | None,
    config: Path | None,
    workers: int | None,
    scheduler: str | None,
    resume: bool,
    overwrite: bool,
    quicklook: bool,
    stac: bool,
    quiet: bool,
) -> None:
    """Fuse all pairs of MANIFEST: GeoPackage, GeoParquet, CSV or a STAC ItemCollection.

    Columns hsi, msi and out; optionally truth (for scores), any option of 'csakd-geo fuse' by its name (aoi,
    method, ...), and 'options' with such as JSON. Items have the assets hsi and msi. A scene that fails stops
    no other: at the end a table says what failed and why, and the exit code is 1. Beside the outputs stand
    MANIFEST.summary.parquet (footprints, scores, times, errors) and MANIFEST.summary.html.
    """
    from csakd_geo.batch.catalog import write_collection
    from csakd_geo.batch.manifest import read_manifest
    from csakd_geo.batch.run import Settings, run_batch
    from csakd_geo.batch.summary import count_words, write_summary
    from csakd_geo.options import make_options, read_config
    from csakd_geo.stac import item_path

    if workers is not None and scheduler is not None:
        raise click.UsageError("Give --workers or --scheduler, not both.")
    options = {} if config is None else read_config(config)
    checked = make_options(options)  # what is wrong for all scenes is said once
    if not checked.adapt_minutes:  # training is the slower for it
        let_threads_sleep()
    scenes, warnings = read_manifest(manifest, folder=folder)
    for sentence in warnings:
        warn(sentence)
    base = folder or manifest.parent
    base.mkdir(parents=True, exist_ok=True)
    settings = Settings(options, resume=resume, overwrite=overwrite, quicklook=quicklook, stac=stac)
    found: list[Outcome] = []
    with _progress(len(scenes), quiet=quiet) as (report, ended):
        for outcome in run_batch(scenes, settings, workers=workers, scheduler=scheduler, report=report):
            found.append(outcome)
            ended()
            if outcome.status != "failed":
                click.echo(f"fused: {outcome.scene.out}  ({_words(outcome)})")
    outcomes = sorted(found, key=lambda o: o.scene.row)
    failed = [o for o in outcomes if o.status == "failed"]
    table, page = write_summary(base / f"{manifest.stem}.summary", outcomes, title=f"Batch {manifest.stem}")
    click.echo(f"summary: {table}\npage: {page}")
    if stac and len(failed) < len(outcomes):
        items = [item_path(o.scene.out) for o in outcomes if o.status != "failed"]
        target = base / f"{manifest.stem}.collection.json"
        write_collection(target, items, name=manifest.stem, title=f"Batch {manifest.stem}")
        click.echo(f"stac: {target}")
    if failed:
        _show_failed(failed)
    console().print(count_words(outcomes) + ".")
    if failed:
        raise click.exceptions.Exit(1)


def _words(outcome: Outcome) -> str:
    if outcome.status == "skipped":
        return "finished before with the same settings"
    return f"{outcome.facts['method']}, {outcome.seconds:.1f} s"


def _show_failed(failed: list[Outcome]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="What failed, and why", title_justify="left", expand=False)
    table.add_column("Scene", no_wrap=True)
    table.add_column("Why", overflow="fold")
    for outcome in failed:
        table.add_row(Text(outcome.scene.name), Text(outcome.error))
    console().print(table)


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[tuple[Report, Callable[[], None]]]:
    """A bar over the scenes; gives what reports a scene's stages and what counts one as ended."""
    if quiet:
        yield (lambda stage, share, words: None), (lambda: None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console()) as progress:
        task = progress.add_task("", total=total)
        yield (
            lambda stage, share, words: progress.update(task, description=f"{stage} {share:.0%} {words}"),
            lambda: progress.advance(task),
        )
