"""Which columns of a table are the fields of samples, by name and by values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import SPLITS, USUAL_SPLITS
from kdkit.plugins.sources.folder import IMAGES
from kdkit.plugins.sources.rows import DICOM

Row = Mapping[str, Any]
NAMES: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "image_path", "img_path", "file_name", "filename", "filepath", "file", "path", "img", "picture"),
    "text": ("text", "caption", "captions", "report", "findings", "impression", "description", "sentence"),
    "label": ("label", "class", "class_name", "diagnosis", "dx", "category", "target", "disease", "finding"),
    "split": ("split", "set", "subset", "partition", "phase"),
    "group": ("group", "patient", "patient_id", "patientid", "subject", "subject_id", "case", "case_id"),
    "domain": ("domain", "modality"),
}
"""Field -> usual names of its column, the most certain first; compared without case, spaces and dashes."""
FRACTIONS = {"train": 0.8, "calibration": 0.1, "test": 0.1}
CAPTION = "a {domain} image of {label}"
QUESTIONS = (
    "these look like questions: write rows with the answer as 'text' and the question in 'extra', as "
    "docs/reference/sources.md shows ('A question in a manifest'), and a data entry with the source jsonl"
)
MAX_DOMAINS = 50
"""A column with more values is no domain."""
SHOWN = 4
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")
CHECKED = 20
"""Rows of a table whose image files must exist."""
FOLDERS = 200
"""Folders below a manifest that are tried as the root of its images."""


def find_column(field: str, columns: Sequence[str]) -> str | None:
    """The column that is ``field`` by its name."""
    plain = {re.sub(r"[\s\-.]+", "_", name.strip().lower()): name for name in reversed(columns)}
    return next((plain[name] for name in NAMES[field] if name in plain), None)


def values_of(rows: Sequence[Row], column: str) -> list[str]:
    """The values of a column as texts, empty ones left out."""
    found = (row.get(column) for row in rows)
    return [text for value in found if value is not None and (text := str(value).strip())]


def describe_fields(
    rows: Sequence[Row],
    name: str,
    where: str,
    *,
    image: str = "",
    splits: Sequence[str] | None = None,
    complete: bool = True,
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Options for the fields of a table, lines about them, and warnings.

    Args:
        rows: some of it.
        name: the domain, if no column names it.
        where: for errors.
        image: its column of images; empty if the format has none.
        splits: of the rows, if the format knows them already.
        complete: ``rows`` are all rows of the table.

    Raises:
        KdkitError: there is neither a text nor a label, or a field has other values.
    """
    present = list(dict.fromkeys(column for row in rows for column in row if column != image))
    known = [column for column in present if all(_is_text(row.get(column)) for row in rows)]
    for own in ("text", "label", "group", "split"):  # the readers take columns of these names unasked
        odd = next((n for n, row in enumerate(rows) if not _can_be(own, row.get(own))), None)
        if odd is not None:
            raise _odd_value(where, own, rows[odd][own], odd + 1)
    found = {field: find_column(field, known) for field in ("text", "label", "group", "domain", "split")}
    columns = {"image": image} if image and image != "image" else {}
    columns |= {field: found[field] or "" for field in ("text", "label", "group") if found[field]}
    options: dict[str, Any] = {}
    says: list[str] = []
    if "id" in present and image and ("id" not in known or len(set(values_of(rows, "id"))) < len(rows)):
        columns["id"] = image
        says.append(f"ids: the column '{image}'; those of 'id' repeat, are empty or are no texts")
    domain = found["domain"]
    if domain and 0 < len(set(values_of(rows, domain))) <= MAX_DOMAINS and len(values_of(rows, domain)) == len(rows):
        columns["domain"] = domain
        says.append(f"domains: {_some(values_of(rows, domain))}")
    else:
        options["constants"] = {"domain": name}
        says.append(f"domain: {name}, for all (option constants)")
    if not found["text"] and len(labels := values_of(rows, found["label"] or "")) < len(rows):
        unlabeled = len(rows) - len(labels) if labels else 0
        raise _nothing_to_learn(where, image, present, known, unlabeled)
    if found["label"]:
        says.append(f"classes: {_some(values_of(rows, found['label']))} (column '{found['label']}')")
    if found["text"]:
        says.append(f"texts: the column '{found['text']}'")
    else:
        options["caption"] = CAPTION
        says.append(f"texts: '{CAPTION}', since no column has them")
    if splits is None:
        chosen, splits = _describe_split(rows, found["split"], columns, says, complete, where)
        options |= chosen
    warns = [] if found["text"] else warn_of_numbers(values_of(rows, found["label"] or ""))
    if found["group"]:
        by_hash = "split_fractions" in options
        says.append(f"groups: the column '{found['group']}'" + ("; a group never spans two splits" if by_hash else ""))
        warns += [] if by_hash else _warn_of_spans([row.get(found["group"]) for row in rows], splits)
    columns = {field: column for field, column in columns.items() if field != column}
    return ({"columns": columns} if columns else {}) | options, says, warns


def _is_text(value: Any) -> bool:
    """What the readers of tables take for a text, or for an empty cell."""
    return value is None or isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _can_be(field: str, value: Any) -> bool:
    """Whether a reader takes the value for the field; several labels are findings."""
    several = field == "label" and isinstance(value, list) and all(isinstance(name, str) for name in value)
    return several or _is_text(value)


def _odd_value(where: str, column: str, value: Any, number: int) -> KdkitError:
    return KdkitError(
        "KD-SRC-154",
        f"the column '{column}' has values that are neither texts nor whole numbers",
        where=where,
        why=f"{value!r:.80} in row {number}",
        fix="write them as texts; or rename the column, if it is not the field of that name",
    )


def _nothing_to_learn(
    where: str, image: str, present: Sequence[str], known: Sequence[str], unlabeled: int
) -> KdkitError:
    odd = [column for column in present if column not in known]
    asks = {"question", "answer"} <= {column.lower() for column in present}
    return KdkitError(
        "KD-SRC-106",
        "no column of texts or labels" + (" that has one in each row" if unlabeled else ""),
        where=where,
        why=f"columns: {', '.join([*filter(None, [image]), *present])}"
        + (f"; {unlabeled} rows have no label, and a caption needs one" if unlabeled else "")
        + (f"; values that are neither texts nor whole numbers are in {', '.join(odd)}" if odd else ""),
        fix=QUESTIONS
        if asks
        else "name it text, caption or label, or write the data entry yourself with the option columns",
    )


def warn_of_numbers(labels: Sequence[str]) -> list[str]:
    """A warning for captions from labels that are numbers: ``a ct image of 0``."""
    if not labels or not all(NUMBER.fullmatch(label) for label in labels):
        return []
    return [f"the classes are numbers ({_some(labels)}), so captions do not say what they mean: use names instead"]


def _warn_of_spans(groups: Sequence[Any], splits: Sequence[str]) -> list[str]:
    found: dict[str, set[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        if group is not None and str(group).strip():
            found.setdefault(str(group).strip(), set()).add(USUAL_SPLITS.get(split.lower(), split))
    spans = [group for group, of_group in found.items() if len(of_group) > 1]
    if not spans:
        return []
    return [f"{len(spans)} groups are in more than one split ({_some(spans)}), so results on them are too good"]


def _describe_split(
    rows: Sequence[Row], column: str | None, columns: dict[str, str], says: list[str], complete: bool, where: str
) -> tuple[dict[str, Any], list[str]]:
    """Options, and the split of each row by its column."""
    named = values_of(rows, column) if column else []
    if column and len(named) == len(rows) and {value.lower() for value in named} <= USUAL_SPLITS.keys():
        columns["split"] = column
        says.append(f"splits: {_some(named)} (column '{column}')")
        return translated(named, complete), named
    if column == "split":  # the readers take it unasked
        odd = [value for value in dict.fromkeys(named) if value.lower() not in USUAL_SPLITS]
        empty = len(rows) - len(named)
        raise KdkitError(
            "KD-SRC-155",
            "the column 'split' does not name a split in each row",
            where=where,
            why=f"it has {_some(odd)}" if odd else f"it is empty in {empty} of {len(rows)} rows",
            fix="write train, calibration or test; or rename the column, and a hash splits the rows; or write the data "
            f"entry yourself with the option splits: {{{odd[0] if odd else 'fold1'}: train, ...}}",
        )
    says.append("splits: 80 % train, 10 % calibration, 10 % test, by a stable hash of the group or id")
    return {"split_fractions": FRACTIONS}, []


def translated(names: Sequence[str], complete: bool = True) -> dict[str, Any]:
    """The option ``splits`` for names that are not kdkit's own; for all usual ones if ``names`` are not complete."""
    if not complete:
        spelled = {
            str.lower,
            *(str.title for name in names if name.istitle()),
            *(str.upper for n in names if n.isupper()),
        }
        names = [
            *names,
            *(spell(name) for name in USUAL_SPLITS for spell in (str.lower, str.title, str.upper) if spell in spelled),
        ]
    splits = {name: USUAL_SPLITS[name.lower()] for name in dict.fromkeys(names) if name not in SPLITS}
    return {"splits": splits} if splits else {}


def _some(values: Sequence[str]) -> str:
    names = list(dict.fromkeys(values))
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


# ------------------------------------------------------------------------------- columns of images


def find_image_column(rows: Sequence[Row], columns: Sequence[str]) -> str | None:
    """The column of paths: by its values, then by its name."""
    paths = [column for column in columns if _are_paths(values_of(rows, column))]
    named = find_column("image", columns)
    return named if named in paths or (named and not paths) else next(iter(paths), None)


def _are_paths(values: Sequence[str]) -> bool:
    return bool(values) and all(Path(value).suffix.lower() in (*IMAGES, *DICOM) for value in values)


def find_root(folder: Path, values: Sequence[str], where: str) -> str | None:
    """The folder, relative to ``folder``, that all image files are below; None if there is none.

    Args:
        folder: which the reader starts at; it is taken if it fits.
        values: the paths; of :data:`CHECKED` of them the files must exist.
        where: the table, for errors.

    Raises:
        KdkitError: several other folders fit, such as images and their masks.
    """
    checked = values[:CHECKED]
    if not values:
        return None
    if all(os.path.isabs(value) for value in values):
        if not all(os.path.isfile(value) for value in checked):
            return None
        return os.path.relpath(os.path.commonpath([os.path.dirname(value) for value in values]), folder)
    if _fits(folder, checked):
        return "."
    near = _fitting(_below(folder), folder, checked)
    roots = near or _fitting(_beside(folder), folder, checked)
    if len(roots) > 1:
        raise KdkitError(
            "KD-SRC-114",
            "the images of this table are in more than one folder",
            where=where,
            why=f"{checked[0]} is in {_some(sorted(roots.values()))}",
            fix="write the data entry yourself with the option image_root, or move the other folders away",
        )
    return next(iter(roots.values()), None)


def _fitting(roots: Iterable[Path], folder: Path, values: Sequence[str]) -> dict[str, str]:
    """Real path -> path relative to ``folder``, of those that hold the files."""
    return {os.path.realpath(root): os.path.relpath(root, folder) for root in roots if _fits(root, values)}


def _fits(root: Path, values: Sequence[str]) -> bool:
    return all(os.path.isfile(root / value) for value in values)


def _below(folder: Path) -> list[Path]:
    """The folders below it, two levels."""
    return sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_dir())[:FOLDERS]


def _beside(folder: Path) -> Iterator[Path]:
    """The folder above it, and those beside it."""
    yield folder.parent
    yield from sorted(path for path in folder.parent.glob("*") if path.is_dir() and path != folder)[:FOLDERS]
