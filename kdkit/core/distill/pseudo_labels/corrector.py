"""Who rewrites what the student got wrong: a model that knows the right answer and says it in its own words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import IMAGE_MARK, Answering, Reporter, Sample, SignalSpec
from kdkit.core.data.images import open_image
from kdkit.core.features.extract.answers import answers_texts

if TYPE_CHECKING:
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.lock import LockedTeacher

REFERENCE = "reference"
"""The corrector that writes the sample's own text."""
ASK = (
    "Your answer is wrong. The right answer is: {reference}\n"
    "Write the right answer again, in your own words. Keep its meaning and its names, and its coordinates as they are. "
    "Write nothing else."
)
_TOKEN = re.compile(r"<\|\w+\|>")
"""Special tokens, which a bad answer may hold and no prompt may, but for those of the reference: a box's."""
NEAR = 0.005
"""Of the image, or of 1000 units."""
_NUMBER = r"-?(?:\d+(?:\.\d+)?|\.\d+)"
_COORDINATES = re.compile(rf"{_NUMBER}(?:\s*[,;()\[\]][\s,;()\[\]]*{_NUMBER}){{3,}}")


class Corrector:
    """A model of the registry, opened when it is first needed.

    Args:
        name: in the registry.
        load: makes the model.
        device: where it rewrites, if it is a model of this machine.
    """

    def __init__(self, name: str, load: Callable[[], Answering], device: str = "cpu") -> None:
        self.name, self._load, self._device = name, load, device
        self._model: Answering | None = None

    def rewrite(self, wrong: Sequence[Sample], answers: Mapping[str, str]) -> dict[str, str]:
        """Sample id -> the right answer in the corrector's words, as it came.

        Raises:
            KdkitError: what the model raises: a server that does not answer after all tries, a sample that it refuses.
        """
        if self._model is None:
            self._model = self._load()
        self._move(self._device)
        asked = [_reproached(sample, answers[sample.id]) for sample in wrong]
        found = self._model.answer([open_image(sample) for sample in asked], asked)
        return {sample.id: said[0].text.strip() for sample, said in zip(wrong, found, strict=True)}

    def park(self) -> None:
        """Leave the device to others: until the next question its weights are on the CPU."""
        self._move("cpu")

    def close(self) -> None:
        """Let go of the model."""
        self._model = None

    def _move(self, device: str) -> None:
        from torch import nn

        model: object = self._model
        if isinstance(model, nn.Module):  # not one behind a server
            model.to(device)


def corrector_of(project: Project, name: str, device: str, reporter: Reporter) -> Corrector | None:
    """The corrector of that name; None for :data:`REFERENCE`.

    Raises:
        KdkitError: see :func:`locked_corrector`.
    """
    if locked_corrector(project, name) is None:
        return None

    def load() -> Answering:
        from kdkit.core.teachers import open_answering

        return open_answering(project, name, device, reporter=reporter)

    return Corrector(name, load, device)


def locked_corrector(project: Project, name: str) -> LockedTeacher | None:
    """What ``registry.lock`` knows of a corrector, without opening it; None for :data:`REFERENCE`.

    Raises:
        KdkitError: a teacher that is not in the registry or not locked, or that does not answer.
    """

    if name == REFERENCE:
        return None
    known = tuple(project.registry.teachers)
    if name not in known:
        raise KdkitError(
            "KD-LABEL-003",
            f"no teacher '{name}' in the registry to correct the student",
            where=str(project.registry_path),
            fix=f"'{REFERENCE}' takes the reference as it is; else {did_you_mean(name, known)}",
        )
    locked = project.lock.teacher(name)
    if not answers_texts([SignalSpec(signal, fact.shape) for signal, fact in locked.signals.items()]):
        raise KdkitError(
            "KD-LABEL-004", f"teacher '{name}' does not answer, so it cannot correct", fix="docs/pseudo-labels.md"
        )
    return locked


def with_coordinates(text: str, reference: str) -> str | None:
    """The text with the reference's coordinates in the place of its own; None where it has others, more or fewer.

    Coordinates are four or more numbers with nothing but commas and brackets between them. Those of the text may
    differ by :data:`NEAR`: a corrector that has coordinates of its own (pixels) rounds when it reads and writes.
    """
    left = [re.findall(_NUMBER, row) for row in _COORDINATES.findall(reference)]
    parts, end = list[str](), 0
    for found in _COORDINATES.finditer(text):
        near = _nearest(re.findall(_NUMBER, found[0]), left)
        if near is None:
            return None
        left.remove(near)
        numbers = iter(near)
        parts += [text[end : found.start()], re.sub(_NUMBER, lambda _: next(numbers), found[0])]  # noqa: B023  # used up here
        end = found.end()
    return None if left else "".join([*parts, text[end:]])


def _nearest(numbers: Sequence[str], rows: Sequence[list[str]]) -> list[str] | None:
    """The row that differs least, none of its numbers by more than :data:`NEAR`."""
    given = [float(number) for number in numbers]
    scale = 1.0 if max(map(abs, given)) <= 1 else 1000.0
    distances = [
        (max(abs(a - float(b)) for a, b in zip(given, row, strict=True)), place)
        for place, row in enumerate(rows)
        if len(row) == len(given)
    ]
    distance, place = min(distances, default=(scale, 0))
    return rows[place] if distance <= NEAR * scale else None


def _reproached(sample: Sample, answer: str) -> Sample:
    """The sample's conversation, the student's answer in it, and what is asked of the corrector."""
    before = sample.extra.get("messages") or [{"role": "user", "content": IMAGE_MARK}]
    plain = _TOKEN.sub(lambda token: token[0] if token[0] in sample.text else " ", answer.replace(IMAGE_MARK, " "))
    said = plain.strip() or "(nothing)"
    asked = {"role": "user", "content": ASK.format(reference=sample.text.replace(IMAGE_MARK, " "))}
    messages = [*before, {"role": "assistant", "content": said}, asked]
    return replace(sample, text="", extra={**sample.extra, "messages": messages})
