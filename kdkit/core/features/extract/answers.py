"""What a generating teacher answered, beside its column: one line of JSON per sample, appended batch by batch.

An answer is found again by (id, content digest), like a row of the column. A line that a kill cut off is left
out, and its sample is asked again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.contracts import Answering, Decoding, Reporter, Sample, SignalSpec
from kdkit.core.data.images import open_image

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.extract.extraction import OpenedTeacher
    from kdkit.core.features.store.column import Column

ANSWERS = "answers.jsonl"
TOKENS = "tokens"
"""The signal by which a generating teacher is known: the token ids of a sample's answer. One without any signal only
answers: an endpoint."""
BATCH = 16
Key = tuple[str, int]


def tells_texts(signals: Sequence[SignalSpec]) -> bool:
    """Whether a column of these signals is a generating teacher's: then texts about the samples can be read from it.

    Its numbers are token ids along the data's own answers, and beside it lie the teacher's.
    """
    return not signals or any(spec.name == TOKENS for spec in signals)


def read_answers(folder: Path) -> dict[Key, str]:
    """(sample id, content digest) -> the teacher's answer; empty where it was never asked."""
    try:
        lines = (folder / ANSWERS).read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        row = _row(line)
        if row is not None:
            found[str(row["id"]), int(row["digest"])] = str(row["answer"])
    return found


def answers_of(folder: Path, table: SampleIndex) -> list[str | None]:
    """The answer to each sample of the table, None where there is none."""
    known = read_answers(folder)
    keys = zip(table.ids, table.digests.tolist(), strict=True)
    return [known.get(key) for key in keys]


def asked(table: SampleIndex) -> list[int]:
    """Samples that a generating teacher answers: those of the calibration and test splits that have a reference."""
    return [row for row, sample in enumerate(table.samples) if sample.split != "train" and sample.text]


def unanswered(column: Column, table: SampleIndex) -> int:
    """How many of these a column lacks the answer to; 0 for a teacher that does not answer."""
    if not tells_texts(column.signals):
        return 0
    found = answers_of(column.folder, table)
    return sum(found[row] is None for row in asked(table))


def ask(teacher: OpenedTeacher, folder: Path, table: SampleIndex, rows: Sequence[int], reporter: Reporter) -> int:
    """Let a teacher answer the samples ``rows`` of the table that it has not answered yet, greedily.

    May be stopped at any moment and goes on where it was. A teacher that does not answer is not asked.

    Returns:
        How many were asked.
    """
    if not isinstance(teacher.model, Answering):
        return 0
    known = read_answers(folder)
    todo = [row for row in rows if (table.ids[row], int(table.digests[row])) not in known]
    with open(folder / ANSWERS, "ab") as file:
        _end_line(file)
        for start in range(0, len(todo), BATCH):
            part = todo[start : start + BATCH]
            samples = [table.samples[row] for row in part]
            for row, answer in zip(part, greedy(teacher.model, samples), strict=True):
                told = {"id": table.ids[row], "digest": int(table.digests[row]), "answer": answer}
                file.write(json.dumps(told).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            reporter.progress(f"{teacher.name}: answering", start + len(part), len(todo))
    return len(todo)


def greedy(model: Answering, samples: Sequence[Sample]) -> list[str]:
    """The model's answer to each sample by greedy decoding."""
    images = [open_image(sample) for sample in samples]
    return [answers[0].text for answers in model.answer(images, samples, Decoding())]


def _row(line: bytes) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"id", "digest", "answer"} <= set(row) else None


def _end_line(file: Any) -> None:
    """What a kill cut off stays a line of its own."""
    if file.tell():
        file.write(b"\n")
