"""The command line ``csakd-geo``: names of the commands here, each in its own module, loaded when used."""

from __future__ import annotations

import errno
import logging
import os
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from csakd_geo._version import __version__
from csakd_geo.errors import CsakdGeoError
from csakd_geo.memory import share_arena

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "main", "warn"]


class _Command(NamedTuple):
    """Where a command is, and its line in the help, which must not load it."""

    module: str
    name: str
    line: str


_COMMANDS = {
    "fuse": _Command("fuse", "fuse", "Fuse a hyperspectral with a multispectral image."),
    "pair": _Command("batch", "pair", "Find the pairs in two folders, by place and date."),
    "batch": _Command("batch", "batch", "Fuse all pairs of a manifest."),
    "train": _Command("train", "train", "Train a student and its teacher from a configuration."),
    "test": _Command("test", "test", "Score a model against every method on scenes with known truth."),
    "model": _Command("model", "model", "Look into models, import, export, verify and list them."),
    "compare": _Command("compare", "compare", "Try every method on a small window of a pair."),
    "align": _Command("align", "align", "Write the HSI where the MSI shows it to be."),
    "response": _Command("response", "response", "Estimate responses, PSF, shift and noise from a pair."),
    "info": _Command("images", "info", "Say what an image is and what was understood of it."),
    "methods": _Command("methods", "methods", "List the fusion methods and models."),
    "demo": _Command("demo", "demo", "Fuse the sample pair and show how well it went."),
    "sample": _Command("images", "sample", "Write the sample pair and its truth."),
    "simulate": _Command("images", "simulate", "Make a pair with known truth from one fine image."),
    "evaluate": _Command("images", "evaluate", "Score a fused image against the truth or its inputs."),
    "report": _Command("report", "report", "Write one HTML page about a fused image."),
    "qgis": _Command("qgis", "qgis", "Put csakd-geo into the Processing toolbox of QGIS."),
    "doctor": _Command("doctor", "doctor", "Say what is installed, what is missing and what to do."),
}


class LazyGroup(click.Group):
    """Commands that are imported when they are used, and errors that end in one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(f"csakd_geo.cli.{entry.module}"), entry.name)
        if not isinstance(command, click.Command):
            raise TypeError(f"csakd_geo.cli.{entry.module}.{entry.name} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.line) for name, entry in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what goes wrong ends in one sentence on stderr and exit code 1."""
        share_arena()  # before a command's libraries begin threads
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except CsakdGeoError as error:
            _fail(str(error), error)
        except KeyboardInterrupt as error:
            _fail("Stopped on request.", error)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # click ends quietly when the reader of a pipe is gone
            _fail(
                f"Something went wrong that should not have ({type(error).__name__}: {error}); please report "
                "it with the output of the same command under CSAKD_GEO_DEBUG=1.",
                error,
            )


def _fail(sentence: str, error: BaseException) -> NoReturn:
    if os.environ.get("CSAKD_GEO_DEBUG") == "1":
        raise error
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {sentence}", err=True)
    raise click.exceptions.Exit(1) from error


@cache
def console() -> Console:
    """The console for progress and messages; it writes to stderr, so that stdout holds results only."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def warn(sentence: str) -> None:
    """Show a warning on stderr."""
    click.echo(f"{click.style('Warning:', fg='yellow', bold=True)} {sentence}", err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="csakd-geo")
def main() -> None:
    """Fuse hyperspectral with sharper multispectral images of the same place.

    Results go to stdout or into files, messages to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage.
    """
    # GDAL's own lines tell a user nothing that the error raised from them does not.
    if os.environ.get("CSAKD_GEO_DEBUG") != "1":
        logging.getLogger("rasterio").setLevel(logging.CRITICAL)
