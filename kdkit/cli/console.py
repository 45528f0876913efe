"""What every command shares: its common options, how it prints data, and how it says what it is doing.

stdout carries data and nothing else; progress, messages and errors go to stderr.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from kdkit.core.base.errors import KdkitError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from kdkit.core.contracts import Reporter
    from kdkit.core.project.project import Project

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

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
EVERY_SECONDS = 5.0
"""How often progress is written where there is no terminal."""

_bars: Bars | None = None
_resumes = False
_json_errors = False


def project(folder: str | None) -> Project:
    """The project of ``--project``, or the one around the current folder.

    Raises:
        KdkitError: when there is none.
    """
    from kdkit.core.project.project import Project

    return Project.find(folder or ".")


def emit(data: Any, *, json: bool, text: Callable[[], str] | str) -> None:
    """Print ``data`` as JSON (paths as strings, NaN and infinities as null), or ``text``, to stdout."""
    if json:
        from json import dumps

        json_errors(False)  # stdout holds one document
        print(dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False, default=os.fspath))
    else:
        print(text if isinstance(text, str) else text())


def _finite(data: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not isfinite(data) else data


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], align: str = "") -> str:
    """A plain text table; ``align`` has one ``l`` or ``r`` per column (``l`` where it is shorter).

    Control characters, which a model's answer may hold, are shown (``\\x1b``): a terminal would obey them.
    """
    cells = [[str(cell).translate(CONTROLS) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    right = [align[column : column + 1] == "r" for column in range(len(headers))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if r else cell.ljust(width) for cell, width, r in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )


def size(count: int) -> str:
    """Bytes in words: ``22 bytes``, ``13.0 kB``, ``1.4 MB``."""
    from rich.filesize import decimal

    return decimal(count)


def say(text: str) -> None:
    """One line for people, on stderr."""
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
        emit({"error": error.fields()}, json=True, text="")


def resumable() -> None:
    """From here on the command can be interrupted and run again; Ctrl-C says so."""
    global _resumes
    _resumes = True


def show_interrupt() -> None:
    """Ctrl-C ended the command."""
    say("interrupted: run the same command again to resume" if _resumes else "interrupted")


def debugging() -> bool:
    """Whether ``--debug`` (or ``KDKIT_DEBUG=1``) asks for tracebacks."""
    return os.environ.get("KDKIT_DEBUG", "") not in ("", "0")


def first_process() -> bool:
    """False in all processes of a ``torchrun`` or ``accelerate launch`` but the first: those say and print nothing."""
    return os.environ.get("RANK", "0") == "0"


def reporter() -> Reporter:
    """Bars on a terminal; elsewhere a line every few seconds; silence in all processes but the first."""
    from kdkit.core.contracts import Silent

    global _bars
    if not first_process():
        return Silent()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        _bars = Bars()
        return _bars
    return Lines()


def close() -> None:
    """Give the terminal back, whatever is still being shown."""
    if _bars:
        _bars.close()


class Lines:
    """A reporter for logs: a line every few seconds, and one at the end of each piece of work."""

    def __init__(self, every: float = EVERY_SECONDS) -> None:
        self.every = every
        self._warned: set[str] = set()
        self._started: dict[str, float] = {}
        self._written: dict[str, float] = {}

    def say(self, text: str) -> None:
        say(text)

    def warn(self, text: str) -> None:
        if text not in self._warned:  # each once, however many parts of a command notice it
            self._warned.add(text)
            say(f"warning: {text}")

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        start = self._started.setdefault(label, now)
        ended = done >= total
        if not ended and now - self._written.setdefault(label, now) < self.every:
            return
        self._written[label] = now
        seconds = f"{now - start:.0f} s"
        say(f"{label}: {done}/{total}  {seconds}" + (f"  {note}" if note else ""))
        if ended:
            self._started.pop(label)
            self._written.pop(label, None)


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
        """Take down the bars that have not ended."""
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
