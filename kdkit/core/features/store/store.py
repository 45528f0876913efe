"""The feature store: one column per teacher and fingerprint, on disk.

``features/<teacher>/<first 12 of the fingerprint>/`` holds ``column.json``, ``shard-0000.h5`` ...,
``texts.safetensors`` and ``scores/``; ``features/<teacher>/current`` names the fingerprint of the last extraction. A
column can be read without its teacher.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from numpy.typing import NDArray

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.journal import Journal, intact_lines
from kdkit.core.base.system_errors import as_kdkit_error
from kdkit.core.data.stamps import Stamp, stamps_of, unchanged
from kdkit.core.features.store.column import UNREADABLE_IMAGES, Column
from kdkit.core.features.store.header import Header, damaged, is_damage
from kdkit.core.features.store.shard import Shard
from kdkit.core.features.store.sidecar import read_texts, write_texts

PREFIX, HEADER = 12, "column.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class FeatureStore:
    """All columns below ``root``, which may not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: WeakValueDictionary[Path, Column] = WeakValueDictionary()
        self._stamps: dict[Path, tuple[int, dict[str, Stamp]]] = {}  # when an open column was opened; of its files

    @property
    def teachers(self) -> tuple[str, ...]:
        """Teachers that have a column, sorted."""
        return tuple(sorted({path.parent.parent.name for path in self.root.glob(f"*/*/{HEADER}")}))

    def folders(self, teacher: str) -> tuple[Path, ...]:
        """Folders of all columns of a teacher, damaged ones too."""
        return tuple(path.parent for path in sorted((self.root / teacher).glob(f"*/{HEADER}")))

    def headers(self, teacher: str) -> tuple[Header, ...]:
        """Headers of all columns of a teacher, the current one first."""
        current = self._current(teacher)
        found = [read_header(path) for path in sorted((self.root / teacher).glob(f"*/{HEADER}"))]
        return tuple(sorted(found, key=lambda header: header.fingerprint[:PREFIX] != current))

    def column(self, teacher: str, fingerprint: str | None = None) -> Column:
        """A teacher's column as it is now: opened, unless the caller still has it open and no file changed.

        Args:
            teacher: its name.
            fingerprint: by default that of the last extraction.

        Raises:
            KdkitError: there is no such column (with both fingerprints), or it is damaged.
        """
        headers = self.headers(teacher)
        if not headers:
            raise KdkitError(
                "KD-FEAT-015",
                f"no features of '{teacher}'",
                where=str(self.root),
                why=did_you_mean(teacher, self.teachers),
                fix=f"kdkit features extract {teacher}",
                code=ExitCode.MISSING,
            )
        for header in headers:
            if fingerprint in (None, header.fingerprint):
                return self._opened(header)
        raise KdkitError(
            "KD-FEAT-018",
            f"the features of '{teacher}' have fingerprint {headers[0].fingerprint[:PREFIX]}, "
            f"the teacher has {str(fingerprint)[:PREFIX]}",
            why="the teacher changed since the extraction",
            fix=headers[0].remedy,
            code=ExitCode.MISSING,
        )

    def reopened(self, columns: Sequence[Column]) -> list[Column]:
        """The same columns as they are now."""
        return [self.column(column.teacher, column.fingerprint) for column in columns]

    def create(self, header: Header) -> Column:
        """Open or make the column of this header, and make it its teacher's current one.

        Raises:
            KdkitError: the name is no folder name, or the column exists with other signals.
        """
        if not _NAME.fullmatch(header.teacher) or not re.fullmatch(r"[0-9a-f]{12,64}", header.fingerprint):
            raise KdkitError(
                "KD-FEAT-016",
                f"'{header.teacher}' ({header.fingerprint}) is no name for a column",
                fix="use lower-case letters, digits, '.', '_' and '-' in a teacher's name",
            )
        folder = self._folder(header)
        path = folder / HEADER
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, header.to_json().encode())
        elif (existing := read_header(path)) != header:
            raise KdkitError(
                "KD-FEAT-017",
                f"'{header.teacher}' has another column under the same fingerprint",
                where=str(path),
                why=existing.differences(header.parts) or "its signals differ",
                fix="move that folder away and run: kdkit features extract",
            )
        write_atomically(self.root / header.teacher / "current", header.fingerprint[:PREFIX].encode())
        return Column(folder, header)

    def set_aside_damage(self, teacher: str, *, blocks: bool = False) -> list[Path]:
        """Rename unreadable files of a teacher's columns to ``NAME.damaged``, for a command that replaces them.

        Intact lines of journals stay. Scores are removed: they are computed from the features.

        Args:
            teacher: its name.
            blocks: also shards with a damaged block, which an extraction repairs in place and an import does not.

        Returns:
            The files, under their old names.
        """
        folders = sorted((self.root / teacher).glob("*/"))
        found = [path for folder in folders for path in damaged_files(folder)]
        if blocks:
            shards = [path for folder in folders for path in sorted(folder.glob("shard-*.h5")) if path not in found]
            found += [path for path in shards if _has_damaged_block(Shard(path))]
        for path in found:
            lines = intact_lines(path.read_bytes()) if path.suffix == ".jsonl" else b""
            os.replace(path, path.with_name(f"{path.name}.damaged"))
            if lines:
                write_atomically(path, lines)
            shutil.rmtree(path.parent / "scores", ignore_errors=True)
        return found

    def put_texts(self, teacher: str, fingerprint: str, texts: Mapping[str, NDArray[Any]]) -> None:
        """Store features of prompts, text -> (D,), beside a column; equal texts are replaced.

        Raises:
            KdkitError: there is no such column.
        """
        write_texts(self.column(teacher, fingerprint).folder, texts)

    def _opened(self, header: Header) -> Column:
        """One object for all who have it open: samples are then matched with its rows once."""
        folder, now = self._folder(header), time.time_ns()
        stamps, column = stamps_of(sorted(folder.iterdir())), self._open.get(folder)
        opened, then = self._stamps.get(folder, (0, {}))
        if column is None or column.header != header or stamps != then or not unchanged(then, opened):
            column = self._open[folder] = Column(folder, header)
            self._stamps[folder] = now, stamps
        return column

    def _folder(self, header: Header) -> Path:
        return self.root / header.teacher / header.fingerprint[:PREFIX]

    def _current(self, teacher: str) -> str:
        try:
            return (self.root / teacher / "current").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""


def _has_damaged_block(shard: Shard) -> bool:
    return bool(shard.check(range(len(shard.committed))))


def damaged_files(folder: Path) -> dict[Path, KdkitError]:
    """Files of a column that cannot be read -> why. Features in blocks are not read; see :meth:`Column.verify`.

    Raises:
        KdkitError: a file that is not damaged cannot be read.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        read = _READERS.get(path.suffix if path.name.startswith("shard-") else path.name)
        try:
            if read:
                read(path)
        except KdkitError as error:
            if not is_damage(error):
                raise
            found[path] = error
    return found


def read_header(path: Path) -> Header:
    """The identity of a column, from its ``column.json``. Raises: KdkitError: damaged."""
    try:
        return Header.from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise as_kdkit_error(error) or damaged(str(path), str(error)) from error


_READERS: Mapping[str, Callable[[Path], object]] = {
    ".h5": Shard,
    HEADER: read_header,
    "texts.safetensors": lambda path: read_texts(path.parent),
    "answers.jsonl": lambda path: Journal(path).read_all(),
    "pseudo-labels.jsonl": lambda path: Journal(path).read_all(),
    UNREADABLE_IMAGES: lambda path: Journal(path).read_all(),
}
"""Suffix of a shard, or name of another file -> what reads it."""
