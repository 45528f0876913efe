"""Rows of several files: which files a location names, the split that a file's name gives, and broken samples."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import USUAL_SPLITS, ImageLocation, ImageRef, Skipped
from kdkit.plugins.sources.rows import RowReader
from kdkit.plugins.sources.tree import walk_files

NO_LABEL = -1
"""The Hub's number for a sample without a label."""


@dataclass(frozen=True)
class ShardedRows(RowReader):
    """Rows of a file, or of all files with an ending in a folder, ordered by path. Links to folders are followed.

    Attributes:
        labels: names of labels that are numbers: 0, 1, ...
        skip_broken: skip a sample if anything in it is broken, and count it.
    """

    labels: tuple[str, ...] | list[str] = ()
    skip_broken: bool = False
    ending: ClassVar[str]
    alike: ClassVar[tuple[str, ...]] = ()
    """Endings of files that hold such rows too, but are not read."""
    own: ClassVar[tuple[str, ...]] = ()
    """Names of files that belong to the format, and hold no rows."""
    KEY: ClassVar[str] = "__key__"
    """Field of a row with the sample's name in its file, which is the id where no field has ids."""

    def files(self) -> list[Path]:
        """The files.

        Raises:
            KdkitError: there is none.
        """
        if self.location.is_file():
            return [self.location]
        if found := [path for path in self._found if isinstance(path, Path) and self._is_shard(path)]:
            return found
        raise KdkitError(
            "KD-SRC-087",
            f"no {self.ending} file in this folder" if self.location.is_dir() else "no such file or folder",
            where=str(self.location),
            fix="check the path of the data entry; it is relative to registry.yaml",
            code=ExitCode.MISSING,
        )

    def fits(self) -> bool:
        """Whether the location is such a file, or a folder with one."""
        return (
            self._is_shard(self.location)
            if self.location.is_file()
            else any(isinstance(path, Path) and self._is_shard(path) for path in self._found)
        )

    def other_files(self) -> Iterator[Skipped]:
        """What is beside the files in the folder."""
        for path in self._found:
            if isinstance(path, Skipped):
                yield path
            elif not self._is_shard(path) and path.name not in self.own:
                lost = path.name.lower().endswith(self.alike)
                what = f"files with the ending {path.suffix.lower()}" if path.suffix else "files without an ending"
                fix = f"write them as {self.ending} files, or move them away" if lost else ""
                yield Skipped(what, str(path), fix, "problem" if lost else "note")

    @cached_property
    def _found(self) -> list[Path | Skipped]:
        return list(walk_files(self.location)) if self.location.is_dir() else []

    def _is_shard(self, path: Path) -> bool:
        return path.name.lower().endswith(self.ending)

    def require_location(self) -> None:
        self.files()

    def shard_name(self, file: Path) -> str:
        """Its path below the location without the ending; for ids."""
        below = self.location if self.location.is_dir() else self.location.parent
        name = file.relative_to(below).as_posix()
        return name[: -len(self.ending)] if self._is_shard(file) else name

    def with_split(self, row: dict[str, Any], file: Path) -> dict[str, Any]:
        """``row`` with the split that its file's path names, if nothing else does.

        A folder or the beginning of its name may name one: ``val/0.tar``, ``train-00000-of-00004.parquet``.
        """
        if self.split_fractions is None and not {"split"} & (self.columns.keys() | self.constants.keys() | row.keys()):
            name = self.shard_name(file)
            words = [*name.split("/")[:-1], *re.split(r"[-_.]", os.path.basename(name))[:1]]
            named = next((word for word in words if word in self.splits or word.lower() in USUAL_SPLITS), None)
            if named is not None:
                row["split"] = named if named in self.splits else USUAL_SPLITS[named.lower()]
        return row

    def _image(self, row: Mapping[str, Any], root: Path, where: str) -> tuple[ImageRef, str]:
        """The image of a row, and its key."""
        found = row.get("image")
        if isinstance(found, ImageLocation):
            return found, str(row[self.KEY])
        return super()._image(row, root, where)

    def _optional(self, row: Mapping[str, Any], name: str, where: str) -> str | None:
        """As of all rows; a label that is a number becomes its name."""
        found = super()._optional(row, name, where)
        if name != "label" or found is None:
            return found
        number, names = _whole_number(found), self._label_names(row)
        if number is None or not names:
            return found
        if number == NO_LABEL:
            return None
        if not 0 <= number < len(names):
            raise no_name(number, names, where)
        return names[number].strip() or None

    def _label_names(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        del row
        return tuple(self.labels)


def no_name(number: object, names: Sequence[str], where: str) -> KdkitError:
    """The error for a label whose number has no name."""
    fix = "name all labels by the option labels: [normal, pneumonia]"
    return KdkitError("KD-SRC-088", f"label {number} has no name", where=where, why=", ".join(names), fix=fix)


def _whole_number(text: str) -> int | None:
    """``2`` and ``2.0`` are 2; other texts are names."""
    found = re.fullmatch(r"([+-]?\d{1,9})(?:\.0*)?", text.strip(), re.ASCII)
    return int(found[1]) if found else None
