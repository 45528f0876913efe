"""Questions in data sets of Hugging Face: PathVQA, and VQA-RAD and SLAKE as the Hub has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import IMAGE_MARK, METADATA, ImageLocation, Sample, Skipped
from kdkit.plugins.readers.arrow_files import open_arrow
from kdkit.plugins.readers.parquet_files import binary_leaf, open_parquet
from kdkit.plugins.sources.fields import Fractions, held_back
from kdkit.plugins.sources.hf_dataset import HfDataset
from kdkit.plugins.sources.questions import Boxes, Question, sample_of
from kdkit.plugins.sources.records import text_of
from kdkit.plugins.sources.rows import RowReader

AT_ONCE = 64
"""Rows whose images are read at once, for their digests."""
ANSWER_TYPE = "answer_type"
UNREAD = ("caption", "extra", "label_separator", "no_finding", "labels")
"""Options of tables that say nothing about questions."""


@dataclass(frozen=True)
class HubQuestions(HfDataset):
    """A row per question: an image, its question and its answer. The domain is ``vqa/`` and the modality.

    One image has many questions, in a cell each. Its group is the digest of its bytes, unless a column ``group`` names
    it, so intervals are grouped by image, and a split by a hash keeps its questions together.

    Attributes:
        modality: of all samples.
        question, answer: columns. A column ``answer_type`` (OPEN, CLOSED) is used if it is there.
        calibration: share of the training images, by a hash, that becomes the calibration split.
        skip_broken: skip broken rows, and count them.
    """

    modality: str = ""
    question: str = "question"
    answer: str = "answer"
    calibration: float = 0.0
    skip_broken: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.modality:
            fix = "set modality: pathology"
            raise KdkitError("KD-SRC-585", "the option modality is missing", where=str(self.location), fix=fix)
        unread = [f"columns: {name}" for name in self.columns if name not in ("id", "image", "split", "group")]
        unread += [f"constants: {name}" for name in self.constants if name != "split"]
        unread += [one.name for one in fields(self) if one.name in UNREAD and getattr(self, one.name) != one.default]
        if unread:
            raise KdkitError(
                "KD-SRC-599",
                f"hub-questions does not read {', '.join(unread)}",
                where=str(self.location),
                fix="remove that; questions and answers are named by the options question and answer",
            )
        held_back(self.calibration, str(self.location))

    def __iter__(self) -> Iterator[Sample | Skipped]:
        """Samples one by one: a question is more than a row's columns."""
        return RowReader.__iter__(self)

    def _sample(self, row: Mapping[str, Any], where: str, root: Path, fractions: Fractions | None) -> Sample:
        image, name = self._image(row, root, where)
        group = self._optional(row, "group", where)
        if group is None:
            group = self._group(image) if isinstance(image, ImageLocation) else name
        extra: dict[str, Any] = {"group": group}
        if row.get(ANSWER_TYPE):
            extra[ANSWER_TYPE] = text_of(row, ANSWER_TYPE, where).upper()
        if self.metadata:
            extra[METADATA] = self._metadata(row, where)
        question = Question(
            id=self.id_prefix + (name if self._has_no_id(row) else self._required(row, "id", where)),
            images=[image],
            messages=[("user", f"{IMAGE_MARK}\n{text_of(row, self.question, where)}")],
            answer=text_of(row, self.answer, where),
            task="vqa",
            modality=self.modality,
            extra=extra,
        )
        split = self._split(row, where, group, fractions)
        if split == "train" and self.calibration:
            split = held_back(self.calibration, str(self.location))(group)
        return sample_of(question, split, Boxes(None, None, where), where)

    def _group(self, image: ImageLocation) -> str:
        """The digest of the bytes in a cell."""
        column, number = image.at
        if (image.file, column) not in self._digests:
            contents = _contents(image.reader, image.file, str(column))
            digests = tuple(blake2b(content or b"", digest_size=12).hexdigest() for content in contents)
            self._digests.clear()  # rows come file by file
            self._digests[image.file, column] = digests
        return self._digests[image.file, column][int(str(number))]

    @cached_property
    def _digests(self) -> dict[tuple[Path, Any], tuple[str, ...]]:
        return {}


def _contents(reader: str, path: Path, column: str) -> Iterator[bytes | None]:
    if reader == "parquet":
        with open_parquet(path) as file:
            leaf = binary_leaf(file.schema_arrow, column)
            for batch in file.iter_batches(AT_ONCE, columns=[leaf], use_threads=False):
                yield from _cells(batch.column(0))
        return
    with open_arrow(path) as (_, batches):
        for batch in batches:
            for start in range(0, batch.num_rows, AT_ONCE):
                yield from _cells(batch.column(column).slice(start, AT_ONCE))


def _cells(cells: Any) -> Iterator[bytes | None]:
    import pyarrow as pa

    found = cells.field("bytes") if pa.types.is_struct(cells.type) else cells
    yield from (cell.as_py() for cell in found)
