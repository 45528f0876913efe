"""Correctors: teachers that rephrase the reference after a wrong answer of the student."""

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
    from kdkit.core.project.registry.lock import Lock, LockedTeacher
    from kdkit.core.project.registry.schema import Registry

REFERENCE = "reference"
"""Stands for no corrector: the sample's own text is the correction."""
PROMPT = (
    "Your answer is wrong. The right answer is: {reference}\n"
    "Write the right answer again, in your own words. Keep its meaning and its names, and its coordinates as they are. "
    "Write nothing else."
)
_TOKEN = re.compile(r"<\|\w+\|>")
"""Special tokens; those of a wrong answer are not sent, except the reference's own (of boxes)."""
TOLERANCE = 0.005
"""Of coordinates, as a share of the image."""
_NUMBER = r"-?(?:\d+(?:\.\d+)?|\.\d+)"
_COORDINATES = re.compile(rf"{_NUMBER}(?:\s*[,;()\[\]][\s,;()\[\]]*{_NUMBER}){{3,}}")


class Corrector:
    """A teacher that is loaded on first use.

    Args:
        name: in the registry.
        load: returns the model.
        device: for a local model.
    """

    def __init__(self, name: str, load: Callable[[], Answering], device: str = "cpu") -> None:
        self.name, self._load, self._device = name, load, device
        self._model: Answering | None = None

    def rewrite(self, wrong: Sequence[Sample], answers: Mapping[str, str]) -> dict[str, str]:
        """Sample id -> the corrector's text, unchecked.

        Raises:
            KdkitError: an error of the model.
        """
        if self._model is None:
            self._model = self._load()
        self._move(self._device)
        prompts = [_correction_prompt(sample, answers[sample.id]) for sample in wrong]
        found = self._model.answer([open_image(sample) for sample in prompts], prompts)
        return {sample.id: texts[0].text.strip() for sample, texts in zip(wrong, found, strict=True)}

    def offload(self) -> None:
        """Move a local model to the CPU until it is used again."""
        self._move("cpu")

    def close(self) -> None:
        """Release the model."""
        self._model = None

    def _move(self, device: str) -> None:
        from torch import nn

        model: object = self._model
        if isinstance(model, nn.Module):
            model.to(device)


def make_corrector(project: Project, name: str, device: str, reporter: Reporter) -> Corrector | None:
    """The corrector with this name; None for :data:`REFERENCE`.

    Raises:
        KdkitError: see :func:`locked_corrector`.
    """
    if locked_corrector(project.registry, project.lock, name) is None:
        return None

    def load() -> Answering:
        from kdkit.core.teachers import open_answering

        return open_answering(project, name, device, reporter=reporter)

    return Corrector(name, load, device)


def locked_corrector(registry: Registry, lock: Lock, name: str) -> LockedTeacher | None:
    """The lock's entry of a corrector; None for :data:`REFERENCE`.

    Raises:
        KdkitError: a teacher that is not in the registry, not locked or does not answer.
    """
    if name == REFERENCE:
        return None
    known = tuple(registry.teachers)
    if name not in known:
        raise KdkitError(
            "KD-LABEL-003",
            f"corrector '{name}' is no teacher of the registry",
            where="registry.yaml",
            fix=f"{did_you_mean(name, known)}; '{REFERENCE}' uses the reference unchanged",
        )
    locked = lock.teacher(name)
    if not answers_texts([SignalSpec(signal, fact.shape) for signal, fact in locked.signals.items()]):
        raise KdkitError(
            "KD-LABEL-004",
            f"teacher '{name}' does not answer, so it cannot correct",
            fix=f"use a generating teacher, or '{REFERENCE}'",
        )
    return locked


def with_coordinates(text: str, reference: str) -> str | None:
    """The text with its coordinates replaced by the reference's, or None if they do not match one to one.

    Coordinates are four or more numbers separated only by commas and brackets. They may differ by :data:`TOLERANCE`,
    because models with other units round them.
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
    """The closest row of the same length, if no number differs by more than :data:`TOLERANCE`."""
    given = [float(number) for number in numbers]
    scale = 1.0 if max(map(abs, given)) <= 1 else 1000.0
    distances = [
        (max(abs(a - float(b)) for a, b in zip(given, row, strict=True)), place)
        for place, row in enumerate(rows)
        if len(row) == len(given)
    ]
    distance, place = min(distances, default=(scale, 0))
    return rows[place] if distance <= TOLERANCE * scale else None


def _correction_prompt(sample: Sample, answer: str) -> Sample:
    """The sample's conversation with the student's answer and the request to correct it."""
    before = sample.extra.get("messages") or [{"role": "user", "content": IMAGE_MARK}]
    plain = _TOKEN.sub(lambda token: token[0] if token[0] in sample.text else " ", answer.replace(IMAGE_MARK, " "))
    request = {"role": "user", "content": PROMPT.format(reference=sample.text.replace(IMAGE_MARK, " "))}
    messages = [*before, {"role": "assistant", "content": plain.strip() or "(nothing)"}, request]
    return replace(sample, text="", extra={**sample.extra, "messages": messages})
