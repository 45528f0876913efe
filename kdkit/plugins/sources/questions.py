"""Questions about images with their answers: what every such source makes of its records."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import BOX_FAMILY, IMAGE_MARK, SPLITS, Sample, Split
from kdkit.plugins.answers.boxes.codec import BoxCodec
from kdkit.plugins.answers.names import TASKS
from kdkit.plugins.sources.records import Record
from kdkit.plugins.sources.splits import read_fractions, stable_split


@dataclass(frozen=True)
class Question:
    """One question, read from a file.

    Attributes:
        id: unique in the project.
        images: those of its messages, in the order of their marks; at least one.
        messages: (role, content) pairs; the last one is the user's.
        answer: the reference.
        task: a name of :data:`TASKS`; ``modality``: what the domain adds to it.
        extra: more for ``Sample.extra``.
    """

    id: str
    images: Sequence[Path]
    messages: Sequence[tuple[str, str]]
    answer: str
    task: str
    modality: str
    extra: Mapping[str, Any] = field(default_factory=dict)


class Boxes:
    """Checks the boxes of answers, and translates them where another family is asked for.

    Args:
        family: which one wrote the file; None: boxes are text like any other.
        target: which one the samples shall have; by default as they are.
        where: for messages.
    """

    def __init__(self, family: str | None, target: str | None, where: str) -> None:
        if target is not None and family is None:
            raise KdkitError(
                "KD-SRC-017",
                "boxes_as is given without boxes",
                where=where,
                fix="boxes: qwen-vl, or who wrote the file",
            )
        self.family = target or family
        """Which one the samples' texts have; None where boxes are text like any other."""
        try:
            self._codec = BoxCodec(family) if family else None
            self._target = BoxCodec(target) if target else None
        except KdkitError as error:
            raise KdkitError(
                "KD-SRC-018",
                error.what,
                where=where,
                fix=f"{error.fix}; pixels have to be translated before (BoxCodec.reencode)",
            ) from error

    def translated(self, text: str, where: str) -> str:
        """``text`` with its boxes in the target's form; without a target as it is, its boxes checked.

        Raises:
            KdkitError: boxes of another family or outside of the image.
        """
        if self._codec is None:
            return text
        if self._target is None:
            self._codec.parse(text, where)
            return text
        return self._codec.reencode(text, self._target, where)

    def corners(self, question: Question, where: str) -> list[tuple[float, float, float, float]]:
        """Of the answer, in fractions of the image.

        Raises:
            KdkitError: boxes of another family or outside of the image; none where the task is to find some.
        """
        found = self._codec.parse(question.answer, where) if self._codec else []
        if self._codec and not found and question.task == "vg":
            raise KdkitError(
                "KD-SRC-019", "the answer of a grounding question has no box", where=where, why=question.answer[:80]
            )
        return [box.corners for box in found]


class SplitRule:
    """The split of a sample: one for all, or by a hash of its first image, so that an image never spans two.

    Args:
        split: of all samples.
        fractions: lengths per split.
        where: for messages.
    """

    def __init__(self, split: str | None, fractions: Mapping[str, float] | None, where: str) -> None:
        if split is not None and split not in SPLITS:
            raise KdkitError("KD-SRC-020", f"'{split}' is not a split ({', '.join(SPLITS)})", where=where)
        if (split is None) == (fractions is None):
            both = "exclude each other" if split else "are both missing, and the file has no splits"
            raise KdkitError(
                "KD-SRC-021",
                f"split and split_fractions {both}",
                where=where,
                fix="split: test, or split_fractions: {train: 0.8, calibration: 0.1, test: 0.1}",
            )
        self._split = split
        self._fractions = read_fractions(fractions, where) if fractions is not None else {}

    def __call__(self, image: str) -> Split:
        return next((s for s in SPLITS if s == self._split), None) or stable_split(image, self._fractions)


def sample_of(question: Question, split: Split, boxes: Boxes, where: str) -> Sample:
    """The sample of a question.

    Raises:
        KdkitError: with ``where``: marks and images differ in number, roles do not alternate, boxes make no sense.
    """
    _check_turns([role for role, _ in question.messages], where)
    marks = sum(content.count(IMAGE_MARK) for _, content in question.messages)
    if marks != len(question.images) or not question.images:
        raise KdkitError(
            "KD-SRC-022",
            f"{marks} {IMAGE_MARK} marks for {len(question.images)} image{'s' * (len(question.images) != 1)}",
            where=where,
            fix=f"a record has at least one image, and {IMAGE_MARK} once for each",
        )
    if IMAGE_MARK in question.answer:
        raise KdkitError("KD-SRC-023", f"the answer contains {IMAGE_MARK}", where=where)
    corners = boxes.corners(question, where)
    extra: dict[str, Any] = {
        "task": question.task,
        "messages": [
            {"role": role, "content": boxes.translated(content, where)} for role, content in question.messages
        ],
        **question.extra,
    }
    if len(question.images) > 1:
        extra["images"] = list(question.images[1:])
    if corners:
        extra["boxes"] = corners
    if boxes.family:
        extra[BOX_FAMILY] = boxes.family
    return Sample(
        id=question.id,
        image=question.images[0],
        text=boxes.translated(question.answer, where),
        domain=f"{question.task}/{question.modality}",
        split=split,
        origin=where,
        extra=extra,
    )


def _check_turns(roles: Sequence[str], where: str) -> None:
    turns = list(roles[1:] if roles[:1] == ["system"] else roles)
    if turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise KdkitError(
            "KD-SRC-024",
            f"roles are {', '.join([*roles, 'assistant'])}",
            where=where,
            why="after an optional system message, user and assistant alternate, the user first",
        )


def check_task(task: str, where: str) -> str:
    """``task`` itself.

    Raises:
        KdkitError: when kdkit cannot score it.
    """
    if task not in TASKS:
        raise KdkitError(
            "KD-SRC-025", f"'{task}' is not a task of answers", where=where, fix=did_you_mean(task, tuple(TASKS))
        )
    return task


def read_all(
    records: Iterable[tuple[str, Record]],
    convert: Callable[[Record, str], Iterable[Sample]],
    location: Path,
    *,
    skip_broken: bool = False,
) -> Iterator[Sample]:
    """Samples of all records; with ``skip_broken`` those that ``convert`` refuses are left out, counted and warned of.

    Raises:
        KdkitError: of a record that is refused; no record at all, or none that is whole.
    """
    count, broken = 0, list[KdkitError]()
    for where, record in records:
        count += 1
        try:
            samples = list(convert(record, where))
        except KdkitError as error:
            if not skip_broken:
                raise
            broken.append(error)
            continue
        yield from samples
    if count == len(broken):
        raise broken[0] if broken else KdkitError("KD-SRC-026", "no records in this file", where=str(location))
    if broken:
        first = f"the first at {broken[0].headline}"
        warnings.warn(f"{location}: {len(broken)} of {count} records are broken and left out, {first}", stacklevel=2)
