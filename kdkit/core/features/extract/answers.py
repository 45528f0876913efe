"""Answers of a generating teacher: a journal beside its column, keyed by sample like the rows of the column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.journal import Journal, JournalEntry, SampleKey
from kdkit.core.contracts import SPLITS, TOP_LOGPROBS, Answer, Answering, Decoding, Reporter, Sample, SignalSpec
from kdkit.core.data.images import UnreadableImage, open_further_images, open_image
from kdkit.core.plugin_system.failures import plugin_errors

if TYPE_CHECKING:
    from PIL.Image import Image

    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column
    from kdkit.core.teachers.open import OpenTeacher

ANSWERS = "answers.jsonl"
Mask = NDArray[np.bool_]
TOKENS = "tokens"
"""Token ids of a sample's answer: the signal of every generating teacher, except one without signals (an endpoint)."""
BATCH = 16


def answers_texts(signals: Sequence[SignalSpec]) -> bool:
    """Whether a column with these signals is a generating teacher's, from which texts about the samples can be read."""
    return not signals or any(spec.name == TOKENS for spec in signals)


def answer_journal(file: Path, decoding: Decoding) -> Journal:
    """The journal of answers under this decoding; see :func:`append_answers`."""
    return Journal(file, decoding_settings(decoding))


def decoding_settings(decoding: Decoding) -> dict[str, Any]:
    """The fields that determine the answers, for records."""
    return {name: value for name, value in asdict(decoding).items() if name not in ("scored", "batch_size", "seeds")}


def append_answers(
    model: Answering,
    journal: Journal,
    todo: Sequence[tuple[SampleKey, Sample]],
    decoding: Decoding,
    reporter: Reporter,
    label: str,
) -> dict[SampleKey, UnreadableImage]:
    """Let the model answer samples; each batch is in the journal before the next one starts.

    The values of the journal have ``answer``, ``confidence`` (mean token probability or None) and, if the model returns
    them, ``top_logprobs``.

    Returns:
        The samples whose images cannot be read, which have no answer, and why.

    Raises:
        KdkitError: an error of the model.
    """
    unreadable: dict[SampleKey, UnreadableImage] = {}
    for start in range(0, len(todo), BATCH):
        part: list[tuple[SampleKey, Sample]] = []
        images: list[Image] = []
        for key, sample in todo[start : start + BATCH]:
            try:
                images.append(_open_all(sample))
                part.append((key, sample))
            except UnreadableImage as error:
                unreadable[key] = error
        if part:
            samples = [sample for _, sample in part]
            with plugin_errors(f"{label}: failed on samples '{samples[0].id}' to '{samples[-1].id}'", model):
                answered = model.answer(images, samples, decoding)
            journal.append(
                JournalEntry(key, _to_value(answers[0])) for (key, _), answers in zip(part, answered, strict=True)
            )
        reporter.progress(label, min(start + BATCH, len(todo)), len(todo))
    return unreadable


def _open_all(sample: Sample) -> Image:
    """The sample's image; its further ones, which the model opens, can be read too."""
    image = open_image(sample)
    open_further_images(sample)
    return image


def _to_value(answer: Answer) -> dict[str, Any]:
    value = {"answer": answer.text, "confidence": answer.confidence}
    return value if answer.top_logprobs is None else {**value, TOP_LOGPROBS: answer.top_logprobs}


def read_answers(folder: Path) -> dict[SampleKey, str]:
    """(sample id, content digest) -> the teacher's answer."""
    journal = answer_journal(folder / ANSWERS, Decoding())
    return {key: str(value["answer"]) for key, value in journal.read().items()}


def answers_of(folder: Path, index: SampleIndex) -> list[str | None]:
    """The answer to each sample, None if there is none."""
    known = read_answers(folder)
    keys = zip(index.ids, index.digests.tolist(), strict=True)
    return [known.get(key) for key in keys]


def rows_to_answer(index: SampleIndex, column: Column, again: Mask | None = None) -> list[int]:
    """Calibration and test samples with a reference and a readable image, which every generating teacher answers.

    Args:
        again: (N,) images that an earlier extraction could not read and that can be read now.
    """
    unreadable = column.unreadable(index)
    if again is not None:
        unreadable &= ~again
    held_out = index.split_index != SPLITS.index("train")
    return np.flatnonzero(held_out & index.has_text & ~unreadable).tolist()


def count_unanswered(column: Column, index: SampleIndex, again: Mask | None = None) -> int:
    """Count the samples of :func:`rows_to_answer` without an answer; 0 for a teacher that does not answer."""
    if not answers_texts(column.signals):
        return 0
    found = answers_of(column.folder, index)
    return sum(found[row] is None for row in rows_to_answer(index, column, again))


def answer_missing(teacher: OpenTeacher, column: Column, index: SampleIndex, again: Mask, reporter: Reporter) -> int:
    """Let a teacher answer those of :func:`rows_to_answer` without an answer, greedily; returns their number.

    The column remembers images that cannot be read. May be interrupted at any time; a later call resumes. Does nothing
    for a teacher that does not answer.
    """
    if not isinstance(teacher.model, Answering):
        return 0
    journal = answer_journal(column.folder / ANSWERS, Decoding())
    known = journal.read()
    todo = [(key, sample) for key, sample in index.keyed(rows_to_answer(index, column, again)) if key not in known]
    unreadable = append_answers(teacher.model, journal, todo, Decoding(), reporter, f"{teacher.name}: answering")
    column.remember_images({key: key not in unreadable for key, _ in todo})
    return len(todo) - len(unreadable)


def greedy(model: Answering, samples: Sequence[Sample]) -> list[str]:
    """The model's answer to each sample, with greedy decoding."""
    images = [open_image(sample) for sample in samples]
    return [answers[0].text for answers in model.answer(images, samples, Decoding())]
