"""Running a stranger's code with a limit of time, in a thread that can be left behind.

A thread cannot be stopped from outside, so one that does not finish goes on until the process ends. It is a
daemon, whatever it prints is dropped, and :func:`left_behind` tells the command's last lines to end the
process without waiting for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Thread, current_thread
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

_left: list[Thread] = []
_LEAVING = 0.05
"""Seconds for a thread that is given up to end its last write to a real stream: Python aborts if it exits meanwhile."""


class Unfinished(Exception):
    """The work did not end in time; ``place`` is the ``file:line`` at which it was then (empty if unknown)."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


class Failed(Exception):
    """The work raised ``error``, which may be a ``SystemExit`` or a ``KeyboardInterrupt`` of its own making."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


def run_apart(work: Callable[[], T], seconds: float, package: str = "") -> T:
    """What ``work()`` returns; what it prints meanwhile goes to stderr.

    Args:
        work: runs in a thread of its own, so it cannot install signal handlers.
        seconds: the limit.
        package: the code whose line :class:`Unfinished` names, where it has one on the stack.

    Raises:
        Unfinished: after ``seconds``.
        Failed: ``work`` raised something.
        KeyboardInterrupt: Ctrl-C while it ran.
    """
    outcome: list[tuple[Any, BaseException | None]] = []

    def body() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = Thread(target=body, name=f"kdkit-apart-{package}", daemon=True)
    stdout = sys.stdout
    sys.stdout = sys.stderr
    try:
        thread.start()
        thread.join(seconds)
        place = "" if outcome else _place(sys._current_frames().get(thread.ident or 0), package)
    finally:  # an interrupt leaves the thread behind as well
        if outcome:
            sys.stdout = stdout
        else:
            _leave(thread, stdout)
    if not outcome:
        raise Unfinished(place)
    value, error = outcome[0]
    if error is not None:
        raise Failed(error)
    return value  # type: ignore[no-any-return]  # the element is what ``work`` returned


def left_behind() -> bool:
    """Whether work that was given up still runs."""
    return any(thread.is_alive() for thread in _left)


def _leave(thread: Thread, stdout: Any) -> None:
    _left.append(thread)
    if not isinstance(sys.stderr, _Muted):
        sys.stderr = _Muted(sys.stderr)
    sys.stdout = stdout if isinstance(stdout, _Muted) else _Muted(stdout)
    thread.join(_LEAVING)


class _Muted:
    """A stream that is the real one for every thread but those that were left behind."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(_NOWHERE if current_thread() in _left else self._real, name)


class _Nowhere:
    """Takes text and forgets it. No file: a lock that a stopped thread holds would keep Python from closing it."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


_NOWHERE = _Nowhere()


def _place(frame: FrameType | None, package: str) -> str:
    """The innermost line of ``package``, else the innermost outside Python's import machinery."""
    lines: list[tuple[str, str]] = []
    while frame:
        module = str(frame.f_globals.get("__name__", ""))
        if not module.startswith(("importlib", "threading", "pluggy", "kdkit.core.")):
            lines.append((module, f"{frame.f_code.co_filename}:{frame.f_lineno}"))
        frame = frame.f_back
    own = [line for module, line in lines if package and (module == package or module.startswith(f"{package}."))]
    return next(iter([*own, *(line for _, line in lines)]), "")
