"""From a manifest's rows to samples; a missing column is an error."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import (
    BOX_FAMILY,
    FINDINGS,
    METADATA,
    SPLITS,
    USUAL_SPLITS,
    ImageLocation,
    ImageRef,
    Sample,
    Skipped,
    Split,
)
from kdkit.plugins.answers.boxes.own import declared
from kdkit.plugins.readers.windows import FILE, Window, read_window
from kdkit.plugins.sources.fields import EXAMPLE, Fractions, fill_caption, parse_split, read_fractions, stable_split
from kdkit.plugins.sources.records import file_below, require_file

DICOM = (".dcm", ".dicom")
NO_FINDING = ("No Finding", "Normal", "normal", "no finding")
FIELDS = ("id", "image", "text", "domain", "label", "split", "group", "extra")


@dataclass(frozen=True)
class RowReader:
    """Turns rows into samples; each format is a subclass.

    Attributes:
        location: the manifest.
        columns: field (``id image text domain label split group extra``) -> its column, if it has another name.
        constants: ``domain``, ``label`` or ``split`` of all samples, instead of a column.
        caption: template of the text with ``{label}`` and ``{domain}``, instead of a column.
        splits: name of a split in the file -> ``train``, ``calibration`` or ``test``.
        split_fractions: assigns splits by a hash of the group or id, for a file without splits.
        image_root: folder of the images, relative to the manifest's folder.
        id_prefix: prefix of every id.
        window: which values of images that are DICOM files (``.dcm``) become black and white, as for the source
            ``dicom``.
        extra: further columns to keep in ``Sample.extra``. A row's ``extra`` object is kept too, its ``images`` as
            paths. If it has a ``box_family``, the boxes of the text are checked and become its ``boxes``.
        metadata: columns to keep as ``Sample.extra["metadata"]``: subgroups, survival times, questions. No model reads
            them, so features stay valid.
        label_separator: what separates several classes in a label, such as ``|``. The sample then has findings, any
            number of them, and no label. A label that is a list is read so too.
        no_finding: labels that stand for no finding.
    """

    location: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    caption: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    split_fractions: Mapping[str, float] | None = None
    image_root: str = "."
    id_prefix: str = ""
    window: Window = FILE
    extra: tuple[str, ...] | list[str] = ()
    metadata: tuple[str, ...] | list[str] = ()
    label_separator: str | None = None
    no_finding: tuple[str, ...] | list[str] = NO_FINDING

    skip_broken = False  # an option of some sources

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
                    fix="remove it; domain, label and split can be constants",
                )
            if name in self.columns:
                raise KdkitError(
                    "KD-SRC-039", f"'{name}' is both a column and a constant", where=where, fix="remove one of them"
                )
        if self.split_fractions is not None:
            read_fractions(self.split_fractions, where)

    def rows(self) -> Iterable[tuple[str, Mapping[str, Any] | Skipped]]:
        """(``file:line``, row) pairs, or what is left out there.

        Raises:
            KdkitError: with ``file:line``; the file has another form.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[Sample | Skipped]:
        """The samples in the file's order; rows without any value are skipped.

        Raises:
            KdkitError: with ``file:line``; a row is wrong.
        """
        self.require_location()
        fractions = None
        if self.split_fractions is not None:
            fractions = read_fractions(self.split_fractions, str(self.location))
        root = (self.location if self.location.is_dir() else self.location.parent) / self.image_root
        found, left_out = False, Counter[str]()
        for where, row in self.rows():
            if isinstance(row, Skipped):
                left_out[row.what] += 1
                yield row
                continue
            if row and all(isinstance(value, str) and not value.strip() for value in row.values()):
                yield Skipped("empty rows", where, level="note")
                continue
            found = True
            yield self._sample_or_skipped(row, where, root, fractions)
        if not found:
            fix = "write a row per sample, or remove the data entry"
            why = ", ".join(f"{count} {what} skipped" for what, count in left_out.items())
            raise KdkitError("KD-SRC-040", "no rows in this file", where=str(self.location), why=why, fix=fix)

    def require_location(self) -> None:
        """Raises: KdkitError when the location is not what the format needs."""
        require_file(self.location)

    def _sample_or_skipped(
        self, row: Mapping[str, Any], where: str, root: Path, fractions: Fractions | None
    ) -> Sample | Skipped:
        try:
            return self._sample(row, where, root, fractions)
        except KdkitError as error:
            if not self.skip_broken:
                raise
            return Skipped(f"broken samples ({error.what})", where, level="warning")

    def _sample(self, row: Mapping[str, Any], where: str, root: Path, fractions: Fractions | None) -> Sample:
        own_id = None if self._has_no_id(row) else self._required(row, "id", where)
        image, name = self._image(row, root, where)
        id_ = self.id_prefix + (own_id or name)
        domain = self._required(row, "domain", where)
        findings = self._findings(row, where)
        label = self._optional(row, "label", where) if findings is None else None
        group = self._optional(row, "group", where)
        extra = {**self._own_extra(row, root, where), **{name: self._column(row, name, where) for name in self.extra}}
        if self.caption is not None:
            named = label if findings is None else ", ".join(findings) or "no finding"
            text = fill_caption(self.caption, domain, named, where)
        elif extra.get("messages"):  # a question, perhaps without an answer yet
            text = self._optional(row, "text", where) or ""
        else:
            text = self._required(row, "text", where)
        if findings is not None:
            extra[FINDINGS] = findings
        if self.metadata:
            extra[METADATA] = self._metadata(row, where)
        if extra.get(BOX_FAMILY) is not None:
            boxes = declared(extra[BOX_FAMILY], where).parse(text, where)
            extra = {**extra, "boxes": [box.corners for box in boxes]}
        return Sample(
            id=id_,
            image=image,
            text=text,
            domain=domain,
            label=label,
            split=self._split(row, where, group or id_, fractions),
            origin=where,
            extra=extra if group is None else {**extra, "group": group},
        )

    def _own_extra(self, row: Mapping[str, Any], root: Path, where: str) -> dict[str, Any]:
        """The row's ``extra``; a column of that name without an object is ignored unless ``columns`` names it."""
        value = row.get(self.columns.get("extra", "extra"))
        if value is not None and not isinstance(value, dict):
            if "extra" in self.columns:
                fix = "write an object, or remove extra from the option columns"
                raise KdkitError("KD-SRC-041", f"extra must be an object, not {value!r}", where=where, fix=fix)
            value = None
        found = dict(value or {})
        if "images" in found:
            names = found["images"] if isinstance(found["images"], list) else [found["images"]]
            found["images"] = [
                _location(name, root, where)
                if isinstance(name, dict)
                else file_below(root, _required_text(name, "images", where), where)
                for name in names
            ]
        return found

    def _findings(self, row: Mapping[str, Any], where: str) -> list[str] | None:
        """The classes of a row that may have several; None if its label is one class."""
        value = row.get(self.columns.get("label", "label"))
        if isinstance(value, list):
            names = [_required_text(name, "label", where) for name in value]
        elif self.label_separator is not None and "label" not in self.constants:
            names = (self._optional(row, "label", where) or "").split(self.label_separator)
        else:
            return None
        stripped = (name.strip() for name in names)
        return list(dict.fromkeys(name for name in stripped if name and name not in self.no_finding))

    def _metadata(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Values of the columns that have one; texts, numbers, true and false."""
        found = {}
        for name in self.metadata:
            value = self._column(row, name, where)
            if value is not None and not isinstance(value, str | int | float):
                fix = "name columns of texts or numbers"
                raise KdkitError("KD-SRC-230", f"metadata: '{name}' is {value!r}", where=where, fix=fix)
            if value is not None and value == value and str(value).strip():
                found[name] = value.strip() if isinstance(value, str) else value
        return found

    def field_columns(self) -> list[str]:
        """The columns that hold the texts of a sample."""
        return [self.columns.get(name, name) for name in ("id", "text", "domain", "label", "split", "group")]

    def require_texts(self, row: Mapping[str, Any], where: str) -> None:
        """Raises: KdkitError when a field of a row is neither a text nor a whole number; lists may be findings."""
        for name in ("id", "text", "domain", "label", "split", "group"):
            value = row.get(self.columns.get(name, name))
            unread = name in self.constants or (name == "text" and self.caption is not None)
            if not unread and not isinstance(value, list):
                _text(value, name, where)

    def _has_no_id(self, row: Mapping[str, Any]) -> bool:
        return "id" not in self.columns and "id" not in row

    def _image(self, row: Mapping[str, Any], root: Path, where: str) -> tuple[ImageRef, str]:
        """The image of a row, and its name, which is the id where no column has ids."""
        value = self._column(row, self.columns.get("image", "image"), where)
        if isinstance(value, Mapping):
            location = _location(value, root, where)
            return location, location.name
        path = file_below(root, _required_text(value, "image", where), where)
        image: ImageRef = path
        if path.suffix.lower() in DICOM:
            image = ImageLocation("dicom", path, (None, read_window(self.window, str(self.location))))
        return image, Path(os.path.relpath(path, os.path.abspath(root))).as_posix()

    def _split(self, row: Mapping[str, Any], where: str, key: str, fractions: Fractions | None) -> Split:
        given = self._optional(row, "split", where)
        if given is None and fractions is not None:
            return stable_split(key, fractions)
        if given is None:
            raise KdkitError(
                "KD-SRC-043",
                "this row has no split",
                where=where,
                why=f"columns: {_names(row)}",
                fix=f"name its column by the option columns, or set {EXAMPLE}",
            )
        if fractions is not None:
            fix = f"remove split_fractions (the option splits renames splits: {{{given}: train}}), or rename the column"
            raise KdkitError("KD-SRC-044", "this row has a split, but split_fractions is set", where=where, fix=fix)
        name = self.splits.get(given, given)
        return parse_split(
            name, where, f"map it by the option splits: {{{name}: {USUAL_SPLITS.get(name.lower(), SPLITS[1])}}}"
        )

    def _required(self, row: Mapping[str, Any], name: str, where: str) -> str:
        if name in self.constants:
            return _required_text(self.constants[name], name, str(self.location))
        return _required_text(self._column(row, self.columns.get(name, name), where), name, where)

    def _optional(self, row: Mapping[str, Any], name: str, where: str) -> str | None:
        """As :meth:`_required`, but the field may be empty, and its column absent unless ``columns`` names it."""
        if name in self.constants:
            return _required_text(self.constants[name], name, str(self.location))
        if name not in self.columns and name not in row:
            return None
        return _text(self._column(row, self.columns.get(name, name), where), name, where)

    @staticmethod
    def _column(row: Mapping[str, Any], column: str, where: str) -> Any:
        if column not in row:
            own = tuple(name for name in row if not name.startswith("__"))  # without the reader's own
            raise KdkitError(
                "KD-SRC-046",
                f"no column '{column}'",
                where=where,
                why=f"columns: {', '.join(own)}",
                fix=_column_fix(column, own),
            )
        return row[column]


def _location(value: Mapping[str, Any], root: Path, where: str) -> ImageLocation:
    """An image elsewhere than in an image file, as pseudo-labels name it."""
    at = value.get("at", [])
    fields = {name: _required_text(value.get(name), name, where) for name in ("reader", "file", "name")}
    if not isinstance(at, list) or not all(isinstance(part, str | int | float | None) for part in at):
        fix = "write it as kdkit does: {reader: tar, file: a.tar, at: [512, 1024], name: a.jpg}"
        raise KdkitError("KD-SRC-084", f"at must be a list of numbers and texts, not {at!r}", where=where, fix=fix)
    return ImageLocation(fields["reader"], file_below(root, fields["file"], where), tuple(at), fields["name"])


def _names(row: Mapping[str, Any]) -> str:
    """The columns of a row, without those that a source adds for itself."""
    return ", ".join(name for name in row if not name.startswith("__"))


def _column_fix(column: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(column, known, n=1, cutoff=0.6)
    meant = f"did you mean '{near[0]}'? " if near else ""
    return meant + "The option columns maps fields to columns: {text: caption, ...}"


def _text(value: Any, name: str, where: str) -> str | None:
    if isinstance(value, str):
        if "\0" in value:
            raise KdkitError(
                "KD-SRC-048", f"{name} has a NUL character", where=where, fix="write the file again: it is damaged"
            )
        return value.strip() or None
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise KdkitError("KD-SRC-049", f"{name} must be text, not {value!r}", where=where, fix="write it as a string")


def _required_text(value: Any, name: str, where: str) -> str:
    text = _text(value, name, where)
    if text is None:
        raise KdkitError("KD-SRC-050", f"empty {name}", where=where, fix="fill in the field, or remove the row")
    return text
