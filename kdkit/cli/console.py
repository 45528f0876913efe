"""What commands share: common options, output, progress.

stdout carries data only; progress, messages and errors go to stderr.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from kdkit.cli.streams import data_stream, write_data
from kdkit.core.base.errors import KdkitError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from kdkit.api.project import Project
    from kdkit.core.base.result import Result
    from kdkit.core.contracts import Reporter

ProjectOption = Annotated[
    str | None,
    typer.Option("--project", "-C", metavar="DIR", help="The project's folder (default: here or above)."),
]


def json_errors(wanted: bool) -> bool:
    """Print the error that ends this command as JSON too; the callback of ``--json``."""
    global _json_errors
    _json_errors = wanted
    return wanted


JsonOption = Annotated[bool, typer.Option("--json", callback=json_errors, help="Print JSON.")]

_bars: Bars | None = None
_resumes = False
_json_errors = False


def project(folder: str | None) -> Project:
    """The project of ``--project``, or the one around the current folder.

    Raises:
        KdkitError: there is none.
    """
    from kdkit.api.project import Project

    return Project(folder or ".", reporter=reporter())


def emit(result: Result, *, json: bool) -> None:
    """Print a result to stdout: as JSON, drawn for a terminal, or as plain text."""
    if json:
        print_json(result.to_json())
        return
    from kdkit.cli.drawing import render, terminal

    shown = terminal(data_stream())
    write_data(str(result) if shown is None else render(result.sections(), shown))


def print_json(data: Any) -> None:
    """Print ``data`` as the one JSON document of stdout; paths are strings, NaN and infinities null."""
    from json import dumps

    json_errors(False)
    plain = _finite(data)
    text = dumps(plain, indent=2, ensure_ascii=False, allow_nan=False, default=os.fspath)
    try:
        text.encode(data_stream().encoding or "utf-8")
    except UnicodeEncodeError:  # an ASCII terminal, or a file name that is no UTF-8
        text = dumps(plain, indent=2, allow_nan=False, default=os.fspath)
    write_data(text)


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not isfinite(data) else data


def parse_options(words: Sequence[str] | None) -> dict[str, Any]:
    """The values of ``--option NAME=VALUE``, read as JSON where they are JSON, else as strings."""
    from json import loads

    options: dict[str, Any] = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise KdkitError(
                "KD-CLI-012", f"'{word}' is not NAME=VALUE", where="--option", fix="for example --option precision=bf16"
            )
        try:
            options[name] = loads(value)
        except ValueError:
            options[name] = value
    return options


def say(text: str) -> None:
    """Print a line to stderr."""
    print(text, file=sys.stderr, flush=True)


def show_warnings() -> None:
    """Show the warnings that kdkit's own code raises (``warnings.warn``) like any other warning of a command."""
    ours, others = str(Path(__file__).parents[1]) + os.sep, warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        if category is not UserWarning or not filename.startswith(ours):
            others(message, category, filename, lineno, file, line)
        elif _bars:
            _bars.warn(str(message))
        else:
            say(f"warning: {message}")

    warnings.showwarning = show


def show_error(error: KdkitError) -> None:
    """``error[id]: where: what``, then ``why`` and ``fix``, on stderr; on stdout as JSON, after ``--json``."""
    say(f"error[{error.id}]: {error.headline}")
    if error.why:
        say(f"  why: {error.why}")
    if error.fix:
        say(f"  fix: {error.fix}")
    if _json_errors and first_process():
        with suppress(OSError, KdkitError):  # a full or closed stdout; the error itself was shown
            print_json({"error": error.fields()})


def resumable() -> None:
    """Mark the command as resumable from here on; the message after Ctrl-C says so."""
    global _resumes
    _resumes = True


def show_interrupt() -> None:
    """Ctrl-C ended the command."""
    say("interrupted: run the same command again to resume" if _resumes else "interrupted")


def debugging() -> bool:
    """Whether ``--debug`` or ``KDKIT_DEBUG=1`` is set: errors then show tracebacks."""
    return os.environ.get("KDKIT_DEBUG", "") not in ("", "0")


def first_process() -> bool:
    """False in all processes of a ``torchrun`` or ``accelerate launch`` but the first: they print nothing."""
    return os.environ.get("RANK", "0") == "0"


def reporter() -> Reporter:
    """Bars on a terminal; elsewhere a line every few seconds; nothing in all processes but the first."""
    from kdkit.api.reporter import Lines
    from kdkit.core.contracts import Silent

    global _bars
    if not first_process():
        return Silent()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        _bars = Bars()
        return _bars
    return Lines()


def close() -> None:
    """Remove bars that are still shown."""
    if _bars:
        _bars.close()


class Bars:
    """A reporter for terminals: one rich bar per piece of work. Color is off where ``NO_COLOR`` is set."""

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        self._print(text)

    def warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._print(f"warning: {text}")

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        bar = self._progress or self._start()
        if label not in self._tasks:
            self._tasks[label] = bar.add_task(label, total=total, note=note)
        bar.update(self._tasks[label], completed=done, total=total, note=note)
        if done >= total:
            del self._tasks[label]
            if not self._tasks:
                self.close()

    def close(self) -> None:
        """Remove the bars that have not ended."""
        if self._progress:
            self._progress.stop()
        self._progress = None
        self._tasks.clear()

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            redirect_stdout=False,  # data goes to stdout even while a bar is shown
        )
        self._progress.start()
        return self._progress

    def _print(self, text: str) -> None:
        if self._progress:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            say(text)
