"""Answers of a generating teacher: a journal beside its column, keyed by sample like the rows of the column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.journal import Journal, JournalEntry, SampleKey
from kdkit.core.contracts import TOP_LOGPROBS, Answer, Answering, Decoding, Reporter, Sample, SignalSpec
from kdkit.core.data.images import open_image

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column
    from kdkit.core.teachers.open import OpenTeacher

ANSWERS = "answers.jsonl"
TOKENS = "tokens"
"""The signal by which a generating teacher is known: the token ids of a sample's answer. One without any signal only
answers: an endpoint."""
BATCH = 16


def tells_texts(signals: Sequence[SignalSpec]) -> bool:
    """Whether a column of these signals is a generating teacher's: then texts about the samples can be read from it.

    Its numbers are token ids along the data's own answers, and beside it lie the teacher's.
    """
    return not signals or any(spec.name == TOKENS for spec in signals)


def answer_journal(file: Path, decoding: Decoding) -> Journal:
    """The journal of answers under this decoding; see :func:`append_answers`."""
    return Journal(file, decoding_settings(decoding))


def decoding_settings(decoding: Decoding) -> dict[str, Any]:
    """The fields that determine the answers, for records."""
    return {name: value for name, value in asdict(decoding).items() if name not in ("scored", "batch_size")}


def append_answers(
    model: Answering,
    journal: Journal,
    todo: Sequence[tuple[SampleKey, Sample]],
    decoding: Decoding,
    reporter: Reporter,
    label: str,
) -> None:
    """Let the model answer samples; each batch is in the journal before the next one starts.

    The values of the journal have ``answer``, ``confidence`` (mean token probability or None) and, if the model returns
    them, ``top_logprobs``.

    Raises:
        KdkitError: an error of the model; an unreadable image.
    """
    for start in range(0, len(todo), BATCH):
        part = todo[start : start + BATCH]
        samples = [sample for _, sample in part]
        answered = model.answer([open_image(sample) for sample in samples], samples, decoding)
        journal.append(
            JournalEntry(key, _to_value(answers[0])) for (key, _), answers in zip(part, answered, strict=True)
        )
        reporter.progress(label, start + len(part), len(todo))


def _to_value(answer: Answer) -> dict[str, Any]:
    value = {"answer": answer.text, "confidence": answer.confidence}
    return value if answer.top_logprobs is None else {**value, TOP_LOGPROBS: answer.top_logprobs}


def read_answers(folder: Path) -> dict[SampleKey, str]:
    """(sample id, content digest) -> the teacher's answer."""
    journal = answer_journal(folder / ANSWERS, Decoding())
    return {key: str(value["answer"]) for key, value in journal.read().items()}


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


def ask(teacher: OpenTeacher, folder: Path, table: SampleIndex, rows: Sequence[int], reporter: Reporter) -> int:
    """Let a teacher answer the samples ``rows`` of the table that it has not answered yet, greedily.

    May be stopped at any moment and goes on where it was. A teacher that does not answer is not asked.

    Returns:
        How many were asked.
    """
    if not isinstance(teacher.model, Answering):
        return 0
    journal = answer_journal(folder / ANSWERS, Decoding())
    known = journal.read()
    keys = {row: (table.ids[row], int(table.digests[row])) for row in rows}
    todo = [(key, table.samples[row]) for row, key in keys.items() if key not in known]
    append_answers(teacher.model, journal, todo, Decoding(), reporter, f"{teacher.name}: answering")
    return len(todo)


def greedy(model: Answering, samples: Sequence[Sample]) -> list[str]:
    """The model's answer to each sample by greedy decoding."""
    images = [open_image(sample) for sample in samples]
    return [answers[0].text for answers in model.answer(images, samples, Decoding())]
