"""``csakd-geo train``: a student and its teacher from a configuration."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from csakd_geo.cli.progress import Reporter
from csakd_geo.errors import CsakdGeoError


@click.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the output folder.")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Output folder, not the file's."
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps, not the file's.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed, not the file's.")
@click.option("--dry-run", is_flag=True, help="Check configuration and data, print the plan, train nothing.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--log-json", is_flag=True, help="Progress as one JSON object per line on stderr.")
def train(
    config: Path,
    resume: bool,
    output: Path | None,
    steps: int | None,
    seed: int | None,
    dry_run: bool,
    quiet: bool,
    log_json: bool,
) -> None:
    """Train a student, and the teacher that it learns from, as the YAML file CONFIG says.

    Writes NAME.safetensors (and NAME-teacher.safetensors) into the output folder, with checkpoints, a history
    as CSV and a TensorBoard log. docs/training.md explains the options.
    """
    from csakd_geo.train.checkpoint import newest_checkpoint
    from csakd_geo.train.config import read_train_config

    changes: dict[str, Any] = {"steps": steps, "seed": seed}
    changes["output"] = None if output is None else str(output.resolve())
    settings = read_train_config(config, {k: v for k, v in changes.items() if v is not None})
    from csakd_geo.train.processes import first_process
    from csakd_geo.train.setup import open_archives
    from csakd_geo.train.trainer import train as run

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    speaks = first_process()  # each device has a process of its own
    with Reporter(quiet=quiet or not speaks, as_json=log_json and speaks) as report:
        if dry_run:
            report.quiet = False
            report.table(plan_rows(settings, *open_archives(settings)))
            return
        try:
            result = run(settings, resume=resume, report=report)
        except KeyboardInterrupt as error:
            found = newest_checkpoint(settings.output / "checkpoints")
            at = "no checkpoint was written yet" if found is None else f"the last checkpoint is '{found}'"
            how = "" if found is None else "; the same command with --resume goes on from there"
            raise CsakdGeoError(f"Stopped on request; {at}{how}.") from error
    if not speaks:
        return
    best, start = result.best, result.start
    click.echo(
        f"student: {result.student}  (held out: PSNR {best.psnr:.2f} dB, SAM {best.sam:.3f} deg, error "
        f"{best.error:.4f} of the reference's; at the start {start.psnr:.2f} dB, {start.sam:.3f} deg, "
        f"{start.error:.4f})"
    )
    if result.teacher is not None and result.teacher_best is not None:
        found_best = result.teacher_best
        click.echo(
            f"teacher: {result.teacher}  (held out: PSNR {found_best.psnr:.2f} dB, SAM {found_best.sam:.3f} deg, "
            f"error {found_best.error:.4f})"
        )


def plan_rows(settings: Any, learn: Any, held: Any) -> list[tuple[str, str]]:
    """The plan, line by line."""
    from csakd_geo.models import DualTwoStream, count_parameters
    from csakd_geo.train.setup import make_card

    rows = [
        ("Train on", _listed(learn.names)),
        ("Hold out", _listed(held.names)),
        ("Bands", f"{learn.axis.size} HSI, {learn.msi_axis.size} MSI"),
        ("Ratio", ", ".join(map(str, settings.data.ratios))),
        ("Form", f"{settings.form}, " + (f"refines {settings.base}" if settings.base else "no base")),
    ]
    for role in ("student", "teacher"):
        options = getattr(settings, role)
        if options is not None:
            import torch

            with torch.device("meta"):
                network = DualTwoStream(make_card(settings, options, learn).network)
            frozen = ", frozen" if getattr(options, "frozen", False) else ""
            rows.append((role.capitalize(), f"{count_parameters(network):,} parameters{frozen}"))
    rows.append(
        (
            "Steps",
            f"{settings.steps:,} of {settings.accumulate} x {settings.batch} crops of {settings.crop} HSI pixels, "
            f"{settings.precision}, {settings.devices} device(s)",
        )
    )
    return [*rows, ("Output", str(settings.output))]


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4])
    return f"{len(names)}: {shown}" + (", ..." if len(names) > 4 else "")
