"""Labels that a teacher gave by zero-shot classification: what training may do with them, and nothing else may.

The option ``teacher_labels`` of a data entry names a file of ``kdkit data label``. A label never becomes
``Sample.label`` and never touches a calibration or test sample, so trust and evaluation cannot take it for the truth.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.templates import fill
from kdkit.core.contracts import METADATA, Sample, Skipped
from kdkit.core.data.table import GROUP
from kdkit.core.project.registry.schema import Part

HEADER = ("id", "label", "confidence", "teacher", "fingerprint")
LABEL, CONFIDENCE, TEACHER, FINGERPRINT = (
    "teacher_label",
    "teacher_confidence",
    "teacher_name",
    "teacher_fingerprint",
)
"""Keys of a sample's metadata."""
GAVE = {"domain": "teacher_gave_domain", "text": "teacher_gave_text"}
"""What of a training sample is the label -> key of its metadata that says so."""


class LabelUse(Part):
    """What training does with the labels of a file; by default they are kept in the metadata alone.

    Example:
        >>> LabelUse.model_validate({"file": "labels/radio.csv", "text": "a {domain} image of {label}"}).domain
        False
    """

    file: str
    """Of ``kdkit data label``, relative to the project."""
    domain: bool = False
    """The label becomes the domain of a training sample."""
    text: str | None = None
    """The caption of a training sample: a template with ``{domain}`` and ``{label}``."""


@dataclass(frozen=True)
class TeacherLabel:
    """What a teacher says of a sample; ``label`` is empty below the threshold of the command."""

    label: str
    confidence: float
    teacher: str
    fingerprint: str


@dataclass(frozen=True)
class TeacherLabels:
    """The labels of a data entry.

    Attributes:
        use: what training does with them.
        path: of the file.
    """

    use: LabelUse
    path: Path

    def as_json(self) -> dict[str, Any]:
        """All that decides what they do, beside the content of the file."""
        return self.use.model_dump()

    def apply(self, samples: Iterable[Sample]) -> Iterator[Sample | Skipped]:
        """The samples; training samples with a label have it in their metadata, and in domain or text if asked for.

        Reported are labels of calibration and test samples, which are not used, and of samples that do not exist.

        Raises:
            KdkitError: the file cannot be read; a template of something else.
        """
        labels = read_labels(self.path)
        for sample in samples:
            found = labels.pop(sample.id, None)
            if found is None or not found.label:
                yield sample
            elif sample.split != "train":
                what = f"labels of teacher '{found.teacher}' on {sample.split} samples"
                yield Skipped(what, sample.id, "trust and evaluation use no label of a teacher", level="warning")
                yield sample
            else:
                yield self._labeled(sample, found)
        for id_, lost in labels.items():
            what = f"labels of teacher '{lost.teacher}' without a sample in this data entry"
            fix = "they may be of another entry, which can name the file too; or write it again: kdkit data label"
            yield Skipped(what, id_, fix, level="warning")

    def _labeled(self, sample: Sample, found: TeacherLabel) -> Sample:
        facts: dict[str, str | float] = {
            LABEL: found.label,
            CONFIDENCE: found.confidence,
            TEACHER: found.teacher,
            FINGERPRINT: found.fingerprint,
        }
        used = {"domain": self.use.domain, "text": self.use.text is not None}
        facts |= {GAVE[what]: True for what in GAVE if used[what]}
        extra = {name: value for name, value in sample.extra.items() if name != GROUP}
        extra[METADATA] = {**sample.extra.get(METADATA, {}), **facts}
        if GROUP in sample.extra:
            extra[GROUP] = sample.extra[GROUP]
        if self.use.text is not None and sample.extra.get("messages"):
            raise KdkitError(
                "KD-DATA-344",
                f"sample '{sample.id}' is a question, whose text is its answer",
                where=sample.origin,
                why="a label of a teacher would replace the answer",
                fix="remove text from the option teacher_labels",
            )
        domain = found.label if self.use.domain else sample.domain
        text = sample.text if self.use.text is None else self._text(domain, found.label)
        return replace(sample, domain=domain, text=text, extra=extra)

    def _text(self, domain: str, label: str) -> str:
        template = self.use.text or ""
        try:
            return fill(template, {"domain": domain.replace("_", " "), "label": label.replace("_", " ")})
        except (KeyError, ValueError) as error:
            raise KdkitError(
                "KD-DATA-340",
                f"the template '{template}' of teacher_labels cannot be filled in",
                why=f"no {error} here" if isinstance(error, KeyError) else str(error),
                fix="a template may use {domain} and {label}",
            ) from error


def read_use(given: Mapping[str, Any] | None, root: Path) -> TeacherLabels | None:
    """The option ``teacher_labels`` of a data entry; None without it.

    Raises:
        KdkitError: a key is wrong.
    """
    if given is None:
        return None
    try:
        use = LabelUse.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        raise KdkitError(
            "KD-DATA-341",
            f"teacher_labels is wrong at '{'.'.join(map(str, first['loc'])) or 'file'}'",
            why=first["msg"],
            fix="for example teacher_labels: {file: labels/radio.csv, text: 'a {domain} image of {label}'}",
        ) from None
    return TeacherLabels(use, Path(os.path.abspath(root / use.file)))


def read_labels(path: Path) -> dict[str, TeacherLabel]:
    """Sample id -> its label, of a file of :func:`write_labels`.

    Raises:
        KdkitError: there is no such file, or it has another form.
    """
    why = "the file ends in the middle"
    try:
        rows = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        if tuple(next(rows, ())) != HEADER:
            why = f"its columns are not {', '.join(HEADER)}"
            raise ValueError(why)
        found: dict[str, TeacherLabel] = {}
        for number, row in enumerate(rows, start=2):
            why = f"row {number} has no id, label, confidence, teacher and fingerprint"
            id_, label, confidence, teacher, fingerprint = row
            if id_ in found or not math.isfinite(float(confidence)) or not teacher or not fingerprint:
                raise ValueError(why)
            found[id_] = TeacherLabel(label, float(confidence), teacher, fingerprint)
    except (OSError, ValueError, csv.Error) as error:
        raise KdkitError(
            "KD-DATA-342",
            "no file of labels of a teacher",
            where=str(path),
            why=(error.strerror or "") if isinstance(error, OSError) else why,
            fix="write it: kdkit data label TEACHER --classes NAMES",
            code=ExitCode.MISSING if isinstance(error, OSError) else ExitCode.USAGE,
        ) from None
    return found


def write_labels(path: Path, labels: Mapping[str, TeacherLabel]) -> None:
    """Write a CSV file with a row per sample."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEADER)
    for id_, one in labels.items():
        writer.writerow((id_, one.label, f"{one.confidence:.6f}", one.teacher, one.fingerprint))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, stream.getvalue().encode())


def refuse_as_truth(header: Sequence[str], where: str) -> None:
    """Raises: KdkitError when a file of a teacher's labels is used where labels are the truth."""
    if tuple(header) != HEADER:
        return
    raise KdkitError(
        "KD-DATA-343",
        "labels of a teacher are no truth",
        where=where,
        why="trust and evaluation would measure models by what a model says",
        fix="name the file by the option teacher_labels instead of a map",
    )
