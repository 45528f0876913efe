"""Questions about images with their answers: the common part of all such sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import BOX_FAMILY, IMAGE_MARK, ImageRef, Sample, Skipped, Split
from kdkit.plugins.answers import TASKS
from kdkit.plugins.answers.boxes.codec import BoxCodec
from kdkit.plugins.sources.fields import EXAMPLE, parse_split, read_fractions, stable_split

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """One question, read from a file.

    Attributes:
        id: unique in the project.
        images: at least one, in the order of their marks in the messages.
        messages: (role, content) pairs; the last one is the user's.
        answer: the reference.
        task: a name of :data:`TASKS`.
        modality: the second part of the domain.
        extra: added to ``Sample.extra``.
    """

    id: str
    images: Sequence[ImageRef]
    messages: Sequence[tuple[str, str]]
    answer: str
    task: str
    modality: str
    extra: Mapping[str, Any] = field(default_factory=dict)


class Boxes:
    """Checks the boxes of answers, and converts them to another family's form.

    Args:
        family: of the file; None if boxes are plain text.
        target: of the samples; by default the file's.
        where: for messages.
    """

    def __init__(self, family: str | None, target: str | None, where: str) -> None:
        if target is not None and family is None:
            raise KdkitError(
                "KD-SRC-017",
                "boxes_as is set without boxes",
                where=where,
                fix="set boxes to the family of the file, such as qwen-vl",
            )
        self.family = target or family
        """Of the samples' texts; None if boxes are plain text."""
        try:
            self._codec = BoxCodec(family) if family else None
            self._target = BoxCodec(target) if target else None
        except KdkitError as error:
            raise KdkitError(
                "KD-SRC-018",
                error.what,
                where=where,
                fix=f"{error.fix}; convert boxes in pixels beforehand (BoxCodec.reencode)",
            ) from error

    def convert(self, text: str, where: str) -> str:
        """``text`` with its boxes checked, and in the target's form if there is one.

        Raises:
            KdkitError: boxes of another family or outside the image.
        """
        if self._codec is None:
            return text
        if self._target is None:
            self._codec.parse(text, where)
            return text
        return self._codec.reencode(text, self._target, where)

    def corners(self, question: Question, where: str) -> list[tuple[float, float, float, float]]:
        """The boxes of the answer, in fractions of the image.

        Raises:
            KdkitError: boxes of another family or outside the image; no box although the task is grounding.
        """
        found = self._codec.parse(question.answer, where) if self._codec else []
        if self._codec and not found and question.task == "vg":
            raise KdkitError(
                "KD-SRC-019",
                "the answer of a grounding question has no box",
                where=where,
                why=question.answer[:80],
                fix="correct the record, or skip such records with the option skip_broken: true",
            )
        return [box.corners for box in found]


class SplitRule:
    """Assigns splits: one for all samples, or by a hash of the first image, so that an image never spans two.

    Args:
        split: of all samples.
        fractions: split -> share.
        where: for messages.
    """

    def __init__(self, split: str | None, fractions: Mapping[str, float] | None, where: str) -> None:
        self._split = None if split is None else parse_split(split, where)
        if (split is None) == (fractions is None):
            both = "exclude each other" if split else "are both missing, and the file has no splits"
            raise KdkitError(
                "KD-SRC-021",
                f"split and split_fractions {both}",
                where=where,
                fix=f"set split: test, or {EXAMPLE}",
            )
        self._fractions = read_fractions(fractions, where) if fractions is not None else {}

    def __call__(self, image: str) -> Split:
        return self._split or stable_split(image, self._fractions)


def sample_of(question: Question, split: Split, boxes: Boxes, where: str) -> Sample:
    """The sample of a question.

    Raises:
        KdkitError: marks and images differ in number, roles do not alternate, or boxes are invalid.
    """
    check_messages([*question.messages, ("assistant", question.answer)], len(question.images), where)
    if IMAGE_MARK in question.answer:
        fix = "move the mark into the question"
        raise KdkitError("KD-SRC-023", f"the answer contains {IMAGE_MARK}", where=where, fix=fix)
    corners = boxes.corners(question, where)
    extra: dict[str, Any] = {
        "task": question.task,
        "messages": [{"role": role, "content": boxes.convert(content, where)} for role, content in question.messages],
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
        text=boxes.convert(question.answer, where),
        domain=f"{question.task}/{question.modality}",
        split=split,
        origin=where,
        extra=extra,
    )


def check_messages(messages: Sequence[tuple[str, str]], images: int, where: str) -> None:
    """Check the roles of a conversation that ends with an answer, and that there is a mark for each image.

    Raises:
        KdkitError: marks and images differ in number, or roles do not alternate.
    """
    roles = [role for role, _ in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        raise KdkitError(
            "KD-SRC-024",
            f"roles are {', '.join(roles)}",
            where=where,
            why="after an optional system message, user and assistant must alternate, the user first",
            fix="correct the record, or skip such records with the option skip_broken: true",
        )
    marks = sum(content.count(IMAGE_MARK) for _, content in messages[:-1])
    if marks != images or not images:
        raise KdkitError(
            "KD-SRC-022",
            f"{marks} {IMAGE_MARK} marks for {images} image{'s' * (images != 1)}",
            where=where,
            fix=f"give each record at least one image, and {IMAGE_MARK} once for each",
        )


def check_task(task: str, where: str) -> str:
    """``task`` itself.

    Raises:
        KdkitError: kdkit cannot score it.
    """
    if task not in TASKS:
        raise KdkitError(
            "KD-SRC-025", f"'{task}' is not a task of answers", where=where, fix=did_you_mean(task, tuple(TASKS))
        )
    return task


def read_all(
    records: Iterable[tuple[str, T]],
    convert: Callable[[T, str], Iterable[Sample | Skipped]],
    location: Path,
    *,
    skip_broken: bool = False,
) -> Iterator[Sample | Skipped]:
    """Samples of all records. With ``skip_broken``, records that ``convert`` refuses are skipped as a whole.

    Raises:
        KdkitError: a record is refused; there is no record, or none gives a sample.
    """
    found, refused, skipped = False, None, Counter[str]()
    for where, record in records:
        try:
            items = list(convert(record, where))
        except KdkitError as error:
            if not skip_broken:
                raise
            refused = refused or error
            items = [Skipped("broken records", error.where or where, error.what, level="warning")]
        found = found or any(isinstance(item, Sample) for item in items)
        skipped.update(item.what for item in items if isinstance(item, Skipped))
        yield from items
    if not found:
        raise refused or KdkitError(
            "KD-SRC-026",
            "no questions in this file" if skipped else "no records in this file",
            where=str(location),
            why=", ".join(f"{count} {what}" for what, count in skipped.items()),
            fix="check that it is the right file",
        )
