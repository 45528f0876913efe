"""Questions of the four ClinKD tasks about procedural pictures, and answers: samples of ``procedural-questions``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.plugins.answers.boxes.codec import Box, BoxCodec
from kdkit.plugins.demo.captions import NOUNS
from kdkit.plugins.demo.dataset import SPLITS
from kdkit.plugins.demo.images import DOMAINS, PLACED, render_placed
from kdkit.plugins.demo.teachers import TASKS

STEP = 50
"""Precision of written corners, in Qwen2-VL's units of 0 to 1000: each number is one token."""
MODALITIES: tuple[str, ...] = tuple(PLACED)

_QUESTIONS = {
    "vg": "Where is the {finding}?",
    "roc": "What is in {box}?",
    "rc": "Describe {box}.",
    "mia": "What does this image show?",
}
_ANSWERS = {
    "vg": "{box}",
    "roc": "{finding}",
    "rc": "a {size} {finding} in the {place}",
    "mia": "{noun} showing {finding} in the {place}",
}
_SIZES = ("small", "medium", "large")
_AREAS = (0.055, 0.14)
"""Least shares of the picture that a medium and a large finding cover."""
_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "center", "right")


@dataclass(frozen=True)
class LabelNoise:
    """Errors in the training split: shares of answers with another finding, and of boxes (with the words for their
    place and size) that are shifted by up to 15 % of the picture."""

    finding: float = 0.15
    box: float = 0.3


NO_NOISE = LabelNoise(0.0, 0.0)


@dataclass(frozen=True)
class Question:
    """A question about the picture with index ``picture``, and its answer; ``finding`` is the true finding."""

    id: str
    picture: int
    task: str
    question: str
    answer: str
    finding: str


def draw_questions(
    modality: str, split: str, *, seed: int, count: int, noise: LabelNoise | None = None
) -> tuple[NDArray[np.uint8], list[Question]]:
    """``count`` pictures (count, SIZE, SIZE, 3) of one split, findings in turn, and four questions about each.

    Args:
        noise: replaces the default, which is none except in the training split.

    Raises:
        ValueError: a modality without localized findings.
    """
    if modality not in PLACED:
        raise ValueError(f"no questions about {modality!r}; choose from {', '.join(MODALITIES)}")
    noise = noise or (LabelNoise() if split == "train" else NO_NOISE)
    findings = PLACED[modality]
    share = -(-count // len(findings))
    key = [seed, DOMAINS.index(modality), SPLITS.index(split)]
    drawn = [
        render_placed(modality, finding, np.random.default_rng([*key, number, 1]), share)
        for number, finding in enumerate(findings)
    ]
    rng = np.random.default_rng([*key, 99])
    pictures, questions = [], list[Question]()
    for index in range(count):
        kind, place = index % len(findings), index // len(findings)
        pictures.append(drawn[kind][0][place])
        name = f"{modality}-{split}-{seed}-{index:05d}"
        questions += _make_questions(name, index, modality, findings[kind], drawn[kind][1][place], noise, rng)
    return np.stack(pictures) if pictures else np.empty((0, 1, 1, 3), np.uint8), questions


def _make_questions(
    name: str,
    picture: int,
    modality: str,
    finding: str,
    box: NDArray[np.float64],
    noise: LabelNoise,
    rng: np.random.Generator,
) -> Iterator[Question]:
    """The four questions about one picture; errors of their answers are independent."""
    for task in TASKS:
        others = [other for other in PLACED[modality] if other != finding]
        named = str(rng.choice(others)) if rng.random() < noise.finding else finding
        shifted = box + rng.uniform(-0.15, 0.15, 4) if rng.random() < noise.box else box
        shown = finding if task == "vg" else named
        corners = box if task in ("roc", "rc") else shifted
        words = {"finding": shown, "box": write_box(corners), "noun": NOUNS[modality][0]} | _describe(shifted)
        question, answer = _QUESTIONS[task].format(**words), _ANSWERS[task].format(**words)
        yield Question(f"{name}-{task}", picture, task, question, answer, finding)


def write_box(corners: Sequence[float] | NDArray[np.float64]) -> str:
    """A box (x1, y1, x2, y2 in fractions) as Qwen2-VL writes it, to the precision of :data:`STEP`."""
    cells = 1000 // STEP
    x1, y1, x2, y2 = (int(value) for value in np.clip(np.rint(np.asarray(corners) * cells), 0, cells))
    (x1, x2), (y1, y2) = _with_area(x1, x2, cells), _with_area(y1, y2, cells)
    return BoxCodec("qwen2-vl").emit([Box(x1 / cells, y1 / cells, x2 / cells, y2 / cells)])


def _with_area(low: int, high: int, most: int) -> tuple[int, int]:
    low, high = min(low, high), max(low, high)
    return (low, high) if low < high else (min(low, most - 1), min(low, most - 1) + 1)


def _describe(box: NDArray[np.float64]) -> dict[str, str]:
    """Size and place in words."""
    area = abs((box[2] - box[0]) * (box[3] - box[1]))
    column, row = (min(2, max(0, int(3 * (box[k] + box[k + 2]) / 2))) for k in (0, 1))
    middle = (row, column) == (1, 1)
    place = "center" if middle else f"{_ROWS[row]} {_COLUMNS[column]}"
    return {"size": _SIZES[sum(area >= limit for limit in _AREAS)], "place": place}


def question_words() -> list[str]:
    """Sorted vocabulary of the answering models: every word and number is one token."""
    words = {word for text in (*_QUESTIONS.values(), *_ANSWERS.values()) for word in text.split() if "{" not in word}
    words |= {word for nouns in NOUNS.values() for word in nouns[0].split()}
    words |= {word for findings in PLACED.values() for finding in findings for word in finding.split()}
    words |= {*_SIZES, *_ROWS, *_COLUMNS} | {str(number) for number in range(0, 1001, STEP)}
    words |= {"(", ",", "),(", ")"}
    return sorted({part for word in words for part in (word.rstrip("?."), word[len(word.rstrip("?.")) :]) if part})


def question_rows(
    modality: str, split: str, *, seed: int, count: int
) -> Iterator[tuple[dict[str, Any], NDArray[np.uint8]]]:
    """Rows of the manifest, four for each picture, with their pictures; ``image`` is relative to its folder.

    Raises:
        ValueError: see :func:`draw_questions`.
    """
    pictures, questions = draw_questions(modality, split, seed=seed, count=count)
    for question in questions:
        messages = [{"role": "user", "content": f"<image>{question.question}"}]
        row = {
            "id": question.id,
            "image": f"images/{modality}/{modality}-{split}-{seed}-{question.picture:05d}.png",
            "text": question.answer,
            "domain": f"{question.task}/{modality}",
            "split": split,
            "extra": {"task": question.task, "messages": messages, "box_family": "qwen2-vl"},
        }
        yield row, pictures[question.picture]
