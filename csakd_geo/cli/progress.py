"""How a command says how far it is: bars for people, or one JSON object per line."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from csakd_geo.cli import console, warn

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_STAGES = {
    "prepare": "Preparing",
    "fit": "Fitting",
    "train": "Training",
    "fuse": "Fusing",
    "write": "Writing",
    "layers": "Layers",
}


class Reporter:
    """Progress bars on stderr, or one JSON object per line.

    Parameters
    ----------
    quiet : bool
    as_json : bool
    """

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.quiet, self.as_json = quiet, as_json
        self._bars: dict[str, TaskID] = {}
        self._progress: Progress | None = None
        self._begun = time.monotonic()
        self._notes: list[str] = []

    def __enter__(self) -> Reporter:
        if not self.quiet and not self.as_json:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description:<9}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[words]}"),
                console=console(),
            )
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        for sentence in self._notes:
            console().print(sentence, soft_wrap=True)

    def __call__(self, stage: str, share: float, words: str) -> None:
        """Report a stage's progress."""
        if self.as_json:
            self.event("progress", stage=stage, share=round(share, 4), words=words)
        elif self._progress is not None:
            if stage not in self._bars:
                self._bars[stage] = self._progress.add_task(_STAGES.get(stage, stage), total=1.0, words=words)
            self._progress.update(self._bars[stage], completed=share, words=words)

    def event(self, event: str, **facts: Any) -> None:
        """One JSON line on stderr, where those were asked for."""
        if self.as_json:
            line = {"event": event, "seconds": round(time.monotonic() - self._begun, 3), **facts}
            click.echo(json.dumps(line), err=True)

    def warn(self, sentence: str) -> None:
        """Show a warning, also where progress is quiet."""
        if self.as_json:
            self.event("warning", text=sentence)
        else:
            warn(sentence)

    def note(self, sentence: str) -> None:
        """Say something that is no warning, below the bars."""
        if self.as_json:
            self.event("note", text=sentence)
        elif not self.quiet:
            self._notes.append(sentence)

    def table(self, rows: list[tuple[str, str]]) -> None:
        """Show the plan."""
        if self.as_json:
            self.event("plan", **{name.lower().replace(" ", "_"): value for name, value in rows})
        elif not self.quiet:
            from rich.table import Table

            table = Table(show_header=False, box=None, pad_edge=False)
            for name, value in rows:
                table.add_row(f"[bold]{name}[/bold]", value)
            console().print(table)
