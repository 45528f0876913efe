"""Journals: append-only JSONL files that survive a kill, so that interrupted work resumes where it stopped.

A line is either a header, with the settings under which the entries below it were made, or an entry. Every append
ends with an fsync. A last line without a line break was cut off by a kill or a full disk: readers ignore it, and the
next append removes it. Any other unreadable line is an error.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.json_record import with_checksum, without_checksum
from kdkit.core.base.locks import file_lock

SampleKey = tuple[str, int]
"""Id and content digest of a sample."""
Value = Mapping[str, Any]
KEEP_DAYS = 30
"""An interrupted command can resume for so long."""


@dataclass(frozen=True)
class JournalEntry:
    """The result of one sample: its key, and a value that JSON can hold."""

    key: SampleKey
    value: Value


class Journal:
    """The journal at ``path``; the file is made by the first append.

    Args:
        path: several processes may append to the same file.
        settings: what determines the values, as JSON. Entries of other settings stay in the file and are not read.

    Example::

        journal = Journal(folder / "answers.jsonl", {"beams": 1})
        known = journal.read()
        for key, sample in samples:
            if key not in known:
                journal.append([JournalEntry(key, {"answer": ask(sample)})])
    """

    def __init__(self, path: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._settings = json.loads(json.dumps(settings or {}))
        self._end = -1

    def read(self) -> dict[SampleKey, Value]:
        """Latest value of each sample under these settings; empty if there is no file.

        Raises:
            KdkitError: a damaged line.
        """
        return {entry.key: entry.value for settings, entry in self._entries() if settings == self._settings}

    def read_all(self) -> list[JournalEntry]:
        """Entries of all settings, in the order in which they were appended.

        Raises:
            KdkitError: a damaged line.
        """
        return [entry for _, entry in self._entries()]

    def append(self, entries: Iterable[JournalEntry]) -> None:
        """Write entries; they are on the disk when this returns.

        Raises:
            KdkitError: a damaged line.
        """
        rows = ({"id": entry.key[0], "digest": entry.key[1], "value": entry.value} for entry in entries)
        content = b"".join(map(_to_line, rows))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END) != self._end:  # the first append, or another process has written
                self._repair(file)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            self._end = file.tell()

    def _repair(self, file: IO[bytes]) -> None:
        """Cut off a torn last line and write our header unless it is the last one."""
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        settings = None
        for settings, _ in self._lines(content):  # noqa: B007  # the last one is used
            pass
        if settings != self._settings:
            file.write(_to_line({"settings": self._settings}))

    def _entries(self) -> Iterator[tuple[Any, JournalEntry]]:
        content = self.path.read_bytes() if self.path.is_file() else b""
        return ((settings, entry) for settings, entry in self._lines(content) if entry)

    def _lines(self, content: bytes) -> Iterator[tuple[Any, JournalEntry | None]]:
        """Each whole line as (settings in force, entry); a header has no entry."""
        settings = None
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                row = without_checksum(json.loads(line))
                if settings is None or "settings" in row:
                    settings = row["settings"]
                    yield settings, None
                else:
                    yield settings, JournalEntry((row["id"], row["digest"]), row["value"])
            except (ValueError, KeyError, TypeError, RecursionError):
                raise KdkitError(
                    "KD-BASE-020",
                    "damaged line in a journal",
                    where=f"{self.path}:{number}",
                    why="the file was edited, or the disk lost part of it",
                    fix="delete this line (the whole file if it is line 1) and run the command again: "
                    "kdkit recomputes what is missing",
                ) from None


@contextmanager
def temporary_journal(path: Path) -> Iterator[Path]:
    """``path``, locked for one process; the journal is removed when the block ends without an error.

    Journals in the same folder that no process has touched for :data:`KEEP_DAYS` are removed: their work was given up.

    Raises:
        KdkitError: another process does the same work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob("*.jsonl"):
        with suppress(FileNotFoundError):  # another process removes it
            if other != path and time.time() - other.stat().st_mtime > KEEP_DAYS * 86400:
                other.unlink()
    busy = path.with_suffix(".busy")
    with file_lock(busy) as free:
        if free is False:
            raise KdkitError(
                "KD-BASE-045",
                "another process does the same work",
                where=str(path),
                fix="wait for it to end, or stop it; it keeps its progress",
                code=ExitCode.FOUND,
            )
        try:
            yield path
            path.unlink(missing_ok=True)
        finally:
            busy.unlink(missing_ok=True)


def _to_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(with_checksum(row)).encode() + b"\n"


def intact_lines(content: bytes) -> bytes:
    """A journal's content without damaged lines, and without the entries below a damaged header."""
    kept, settings_known = [], False
    for line in content.splitlines(keepends=True):
        try:
            settings_known |= "settings" in without_checksum(json.loads(line))
        except (ValueError, RecursionError):
            settings_known &= b'"digest"' in line  # the damaged line is an entry
            continue
        if settings_known and line.endswith(b"\n"):
            kept.append(line)
    return b"".join(kept)
