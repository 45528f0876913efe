"""From a manifest's row to a sample. Nothing is guessed: a missing column is an error."""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import BOX_FAMILY, SPLITS, Sample, Split
from kdkit.plugins.answers.boxes.own import declared
from kdkit.plugins.sources.captions import caption_from
from kdkit.plugins.sources.splits import read_fractions, stable_split

FIELDS = ("id", "image", "text", "domain", "label", "split", "group", "extra")


@dataclass(frozen=True)
class RowReader:
    """Turns rows into samples; the formats are its subclasses.

    Attributes:
        location: the manifest; images are looked for below its folder.
        columns: field (``id image text domain label split group extra``) -> name of its column, where they differ.
        constants: ``domain``, ``label`` or ``split`` of all samples, instead of a column.
        caption: template of the text with ``{label}`` and ``{domain}``, instead of a column.
        splits: name of a split in the file -> ``train``, ``calibration`` or ``test``.
        split_fractions: assigns splits by a hash of the group, or of the id, where the file has none.
        image_root: folder of the images, relative to the manifest's.
        id_prefix: put before every id.
        extra: names of further columns to keep in ``Sample.extra``; the field ``extra`` of a row, an object, is all
            in there already, its ``images`` (relative like ``image``) as paths. Where its ``box_family`` says whose
            boxes the text has, these are checked, and its ``boxes`` are theirs.
    """

    location: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    caption: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    split_fractions: Mapping[str, float] | None = None
    image_root: str = "."
    id_prefix: str = ""
    extra: tuple[str, ...] | list[str] = ()

    def __post_init__(self) -> None:
        where = str(self.location)
        for name in self.columns:
            if name not in FIELDS:
                raise KdkitError(
                    "KD-SRC-037", f"columns: '{name}' is not a field", where=where, fix=did_you_mean(name, FIELDS)
                )
        for name in self.constants:
            if name not in ("domain", "label", "split"):
                raise KdkitError(
                    "KD-SRC-038",
                    f"constants: '{name}' cannot be a constant",
                    where=where,
                    fix="domain, label or split can",
                )
            if name in self.columns:
                raise KdkitError("KD-SRC-039", f"'{name}' is given both by a column and as a constant", where=where)
        if self.split_fractions is not None:
            read_fractions(self.split_fractions, where)

    def rows(self) -> Iterable[tuple[int, Mapping[str, Any]]]:
        """(line number, row) pairs of the file.

        Raises:
            KdkitError: with ``file:line`` where it is not what it should be.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[Sample]:
        """The file's samples in their order.

        Raises:
            KdkitError: with ``file:line`` of the row that is wrong.
        """
        if not self.location.is_file():
            raise _no_file(self.location)
        fractions = None
        if self.split_fractions is not None:
            fractions = read_fractions(self.split_fractions, str(self.location))
        root = self.location.parent / self.image_root
        line = 0
        for line, row in self.rows():
            yield self._sample(row, f"{self.location}:{line}", root, fractions)
        if not line:
            raise KdkitError("KD-SRC-040", "no rows in this file", where=str(self.location))

    def _sample(
        self, row: Mapping[str, Any], where: str, root: Path, fractions: Mapping[Split, float] | None
    ) -> Sample:
        id_ = self.id_prefix + self._required(row, "id", where)
        domain = self._required(row, "domain", where)
        label = self._optional(row, "label", where)
        group = self._optional(row, "group", where)
        extra = {**self._object(row, root, where), **{name: self._column(row, name, where) for name in self.extra}}
        if self.caption is not None:
            text = caption_from(self.caption, domain, label, where)
        elif extra.get("messages"):  # a question, which somebody may still have to answer
            text = self._optional(row, "text", where) or ""
        else:
            text = self._required(row, "text", where)
        if extra.get(BOX_FAMILY) is not None:
            extra = {**extra, "boxes": _corners(extra, text, where)}
        return Sample(
            id=id_,
            image=root / self._image(self._required(row, "image", where), where),
            text=text,
            domain=domain,
            label=label,
            split=self._split(row, where, group or id_, fractions),
            origin=where,
            extra=extra if group is None else {**extra, "group": group},
        )

    def _object(self, row: Mapping[str, Any], root: Path, where: str) -> dict[str, Any]:
        """The field ``extra``; a column of that name that nobody asked for and that holds something else is left."""
        value = row.get(self.columns.get("extra", "extra"))
        if value is not None and not isinstance(value, dict):
            if "extra" in self.columns:
                raise KdkitError("KD-SRC-041", f"extra must be an object, not {value!r}", where=where)
            value = None
        found = dict(value or {})
        if "images" in found:
            names = found["images"] if isinstance(found["images"], list) else [found["images"]]
            found["images"] = [root / self._image(_required_text(name, "images", where), where) for name in names]
        return found

    @staticmethod
    def _image(given: str, where: str) -> str:
        name = os.path.normpath(given)
        if os.path.isabs(name) or name.split(os.sep)[0] == "..":
            raise KdkitError(
                "KD-SRC-042",
                f"image '{name}' is outside of the folder of images",
                where=where,
                why="paths in a manifest are relative, so that a file cannot reach elsewhere",
                fix="give the folder of the images by the option image_root",
            )
        return name

    def _split(self, row: Mapping[str, Any], where: str, key: str, fractions: Mapping[Split, float] | None) -> Split:
        given = self._optional(row, "split", where)
        if given is None and fractions is not None:
            return stable_split(key, fractions)
        if given is None:
            raise KdkitError(
                "KD-SRC-043",
                "this row has no split",
                where=where,
                why=f"columns: {', '.join(row)}",
                fix="name its column in 'columns', or give split_fractions: {train: 0.8, test: 0.2}",
            )
        if fractions is not None:
            raise KdkitError("KD-SRC-044", "this row has a split, and split_fractions is given as well", where=where)
        name = self.splits.get(given, given)
        for split in SPLITS:
            if name == split:
                return split
        raise KdkitError(
            "KD-SRC-045",
            f"'{name}' is not a split ({', '.join(SPLITS)})",
            where=where,
            fix=f"translate it by the option splits: {{{name}: {_meant(name)}}}",
        )

    def _required(self, row: Mapping[str, Any], name: str, where: str) -> str:
        if name in self.constants:
            return _required_text(self.constants[name], name, str(self.location))
        return _required_text(self._column(row, self.columns.get(name, name), where), name, where)

    def _optional(self, row: Mapping[str, Any], name: str, where: str) -> str | None:
        """As :meth:`_required`, but a column that nobody asked for may be absent, and a field empty."""
        if name in self.constants:
            return _required_text(self.constants[name], name, str(self.location))
        if name not in self.columns and name not in row:
            return None
        return _text(self._column(row, self.columns.get(name, name), where), name, where)

    @staticmethod
    def _column(row: Mapping[str, Any], column: str, where: str) -> Any:
        if column not in row:
            raise KdkitError(
                "KD-SRC-046",
                f"no column '{column}'",
                where=where,
                why=f"columns: {', '.join(row)}",
                fix=_column_fix(column, tuple(row)),
            )
        return row[column]


def _no_file(path: Path) -> KdkitError:
    near = get_close_matches(path.name, [found.name for found in path.parent.glob("*") if found.is_file()], n=1)
    return KdkitError(
        "KD-SRC-047",
        "not a file" if path.exists() else "no such file",
        where=str(path),
        fix=f"did you mean '{near[0]}'?" if near else "",
        code=ExitCode.MISSING,
    )


def _meant(name: str) -> str:
    """The split that people mean by a name: ``Train`` and ``training`` teach, ``val`` and ``dev`` calibrate."""
    word = name.lower()
    return "train" if word.startswith("train") else "test" if word.startswith("test") else "calibration"


def _column_fix(column: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(column, known, n=1, cutoff=0.6)
    meant = f"did you mean '{near[0]}'? " if near else ""
    return meant + "The option columns says which column holds which field: {text: caption, ...}"


def _corners(extra: Mapping[str, Any], text: str, where: str) -> list[tuple[float, float, float, float]]:
    """Of the boxes in a text that says whose they are, in fractions of the image.

    Raises:
        KdkitError: boxes of another family or outside of the image.
    """
    return [box.corners for box in declared(extra[BOX_FAMILY], where).parse(text, where)]


def _text(value: Any, name: str, where: str) -> str | None:
    if isinstance(value, str):
        if "\0" in value:
            raise KdkitError(
                "KD-SRC-048", f"{name} has a NUL character", where=where, fix="the file is damaged; write it anew"
            )
        return value.strip() or None
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise KdkitError("KD-SRC-049", f"{name} must be text, not {value!r}", where=where)


def _required_text(value: Any, name: str, where: str) -> str:
    text = _text(value, name, where)
    if text is None:
        raise KdkitError("KD-SRC-050", f"empty {name}", where=where)
    return text
