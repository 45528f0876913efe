"""Texts that are longer than a teacher or the student reads: a check of ``kdkit data check``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import optional_write
from kdkit.core.contracts import CountsTokens
from kdkit.core.data.check.examined import Examined
from kdkit.core.data.check.finding import Check, Finding
from kdkit.core.data.names import count_of
from kdkit.core.project.project import Project

NAME = "text lengths"
STUDENT = "the student"
AT_ONCE = 10_000
"""Texts that are tokenized at once."""


@dataclass(frozen=True)
class TextLengths:
    """Tokens of the project's texts for one model, special ones included.

    Attributes:
        model: a teacher, or ``the student``.
        context: tokens that it reads; the rest of a text is cut off.
        texts: different texts.
        cut: those with more tokens.
        median, longest: tokens of a text.
    """

    model: str
    context: int
    texts: int
    cut: int
    median: int
    longest: int

    def __str__(self) -> str:
        share = f"{self.cut} of {count_of(self.texts, 'text')} ({100 * self.cut / self.texts:.0f} %)"
        return (
            f"{self.model} reads {self.context} tokens and cuts {share}; median {self.median}, longest {self.longest}"
        )


def check_text_lengths(data: Examined) -> Iterator[Finding]:
    """For each teacher of the lock, and the student, how many texts it truncates; the items are :class:`TextLengths`.

    Models are opened, so this takes seconds for each; what was counted is kept until its weights or the texts change.
    """
    project = data.project
    texts = sorted({sample.text for sample in data.samples if sample.text})
    names = [name for name in project.registry.teachers if name in project.lock.teachers]
    if not names:
        yield Finding(NAME, "skipped", "no teacher is added yet")
        return
    kept = _Kept(project.state / "text_lengths.json", texts)
    for name in [*names, STUDENT]:
        try:
            found = kept.get(name, _key(project, name)) or _measure(project, name, texts)
        except KdkitError as error:
            yield Finding(NAME, "skipped", f"{name}: {error.headline}")
            continue
        if found is None:
            continue
        kept.add(_key(project, name), found)
        if found.cut:
            yield Finding(NAME, "note", f"texts: {found}", (found,))


def lengths_of(name: str, model: CountsTokens, texts: Sequence[str]) -> TextLengths:
    """Count the tokens of ``texts``, at least one."""
    parts = [model.count_tokens(texts[start : start + AT_ONCE]) for start in range(0, len(texts), AT_ONCE)]
    counts = np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
    cut = int((counts > model.context_length).sum())
    return TextLengths(name, model.context_length, len(counts), cut, int(np.median(counts)), int(counts.max()))


def _measure(project: Project, name: str, texts: Sequence[str]) -> TextLengths | None:
    """None for a model without a tokenizer of its own, or without texts."""
    from kdkit.core.distill.model.student import StudentBuilder  # imports torch
    from kdkit.core.teachers import open_teacher

    student = name == STUDENT
    model: object = StudentBuilder.of(project).student if student else open_teacher(project, name).model
    return lengths_of(name, model, texts) if texts and isinstance(model, CountsTokens) else None


def _key(project: Project, name: str) -> str:
    """Changes with the tokenizer."""
    if name != STUDENT:
        return project.lock.teachers[name].fingerprint
    return json.dumps(project.registry.student.model_dump(mode="json"), sort_keys=True)


class _Kept:
    """Counts of earlier checks of the same texts; a damaged file counts as none."""

    def __init__(self, path: Path, texts: Sequence[str]) -> None:
        self._path, state = path, hashlib.sha256()
        for text in texts:
            state.update(hashlib.sha256(text.encode()).digest())
        self._texts = state.hexdigest()
        try:
            read = json.loads(path.read_bytes())
            self._counts = {key: TextLengths(**value) for key, value in read[self._texts].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._counts = {}

    def get(self, name: str, key: str) -> TextLengths | None:
        found = self._counts.get(key)
        return found if found is not None and found.model == name else None

    def add(self, key: str, found: TextLengths) -> None:
        if self._counts.get(key) == found:
            return
        self._counts[key] = found
        content = {self._texts: {key: asdict(value) for key, value in self._counts.items()}}
        with optional_write("the lengths of texts"):
            write_atomically(self._path, json.dumps(content).encode())


TEXT_LENGTHS = Check(NAME, "texts against the tokenizers of teachers and student", check_text_lengths)
