"""Runs ``csakd-geo`` beside QGIS: its progress, log and warnings go to the dialog, and cancel stops it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from pathlib import Path
from typing import IO, Any, NamedTuple

from qgis.core import QgsProcessingException, QgsProcessingFeedback

from .installed import cli_command, cli_environment, read_installed

#: Where on the bar (per cent) a stage begins and ends; choosing a method or training is part of fitting.
_SPANS = {"prepare": (0, 2), "train": (2, 60), "fit": (2, 25), "fuse": (25, 85), "write": (85, 100)}
_POLL = 0.2  # seconds between two looks at the cancel button
_PATIENCE = 20.0  # seconds that a child has to stop by itself


class Finished(NamedTuple):
    """What a command left: its stdout, and whether it was cancelled."""

    stdout: str
    cancelled: bool


def run_cli(arguments: list[str], feedback: QgsProcessingFeedback) -> Finished:
    """Run one command to its end.

    Raises
    ------
    QgsProcessingException
        If the interpreter is not known or the command fails; its sentence says why.
    """
    known = read_installed(Path(__file__).parent)
    if known.problem:
        raise QgsProcessingException(known.problem)
    command = cli_command(known.python, arguments)
    feedback.pushCommandInfo(subprocess.list2cmdline(command))
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=cli_environment(known.python, os.environ),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise QgsProcessingException(f"'{known.python}' cannot be started: {error}.") from error
    return _follow(child, feedback)


def _follow(child: subprocess.Popen[str], feedback: QgsProcessingFeedback) -> Finished:
    lines: queue.Queue[tuple[str, str]] = queue.Queue()
    readers = [
        threading.Thread(target=_read, args=(name, stream, lines), daemon=True)
        for name, stream in (("out", child.stdout), ("err", child.stderr))
    ]
    for reader in readers:
        reader.start()
    log, stdout, cancelled = _Log(feedback), [], False
    try:
        while any(reader.is_alive() for reader in readers) or not lines.empty():
            try:
                name, line = lines.get(timeout=_POLL)
            except queue.Empty:
                name, line = "", ""
            if name == "out":
                stdout.append(line)
            elif name == "err":
                log.take(line)
            if feedback.isCanceled() and not cancelled:
                cancelled = True
                feedback.pushInfo("Stopping.")
                threading.Thread(target=_stop, args=(child,), daemon=True).start()
        code = child.wait()
    finally:
        if child.poll() is None:
            _stop(child)
    cancelled = cancelled and code != 0  # it may have been done before it could stop
    if cancelled:
        feedback.pushInfo(log.error or "Stopped on request.")
    elif code != 0:
        raise QgsProcessingException(log.error or f"csakd-geo ended with code {code} and said nothing.")
    return Finished("".join(stdout), cancelled)


def _read(name: str, stream: IO[str], lines: queue.Queue[tuple[str, str]]) -> None:
    with stream:
        for line in stream:
            lines.put((name, line))


def _stop(child: subprocess.Popen[str]) -> None:
    """Ask it to stop, as Ctrl-C does; end it if it does not. Targets appear whole or not at all either way."""
    if os.name == "nt":
        child.terminate()
    else:
        child.send_signal(signal.SIGINT)
    for end in (child.terminate, child.kill):
        try:
            child.wait(_PATIENCE)
            return
        except subprocess.TimeoutExpired:
            end()


class _Log:
    """Sorts the lines of stderr: JSON events, errors, and the rest."""

    def __init__(self, feedback: QgsProcessingFeedback) -> None:
        self._feedback = feedback
        self._bar, self._words = 0.0, ""
        self._errors: list[str] = []

    @property
    def error(self) -> str:
        """The sentence that the command ended with."""
        return " ".join(self._errors)

    def take(self, line: str) -> None:
        """Show one line."""
        line = line.rstrip()
        try:
            event = json.loads(line) if line.startswith("{") else None
        except ValueError:
            event = None
        if isinstance(event, dict):
            self._show(event)
        elif line.startswith("Error: "):
            self._errors.append(line[len("Error: ") :])
        elif line.startswith("Warning: "):
            self._feedback.pushWarning(line[len("Warning: ") :])
        elif line:
            self._feedback.pushInfo(line)

    def _show(self, event: dict[str, Any]) -> None:
        kind, feedback = event.get("event"), self._feedback
        if kind == "progress":
            low, high = _SPANS.get(str(event["stage"]), (0, 0))
            self._bar = max(self._bar, low + (high - low) * float(event["share"]))
            feedback.setProgress(self._bar)
            words = f"{str(event['stage']).capitalize()}: {event['words']}"
            if words != self._words:
                self._words = words
                feedback.setProgressText(words)
        elif kind == "warning":
            feedback.pushWarning(str(event["text"]))
        elif kind == "note":
            feedback.pushInfo(str(event["text"]))
        elif kind == "plan":
            for name, value in event.items():
                if name not in ("event", "seconds"):
                    label = name.upper() if name in ("hsi", "msi") else name.replace("_", " ").capitalize()
                    feedback.pushInfo(f"{label}: {value}")
