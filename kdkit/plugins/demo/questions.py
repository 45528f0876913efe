"""Questions of the four ClinKD tasks about made-up pictures, and their answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdkit.plugins.answers.boxes.codec import Box, BoxCodec
from kdkit.plugins.demo.answerers import TASKS
from kdkit.plugins.demo.captions import NOUNS
from kdkit.plugins.demo.dataset import MANIFEST, SPLITS, new_folder
from kdkit.plugins.demo.images import DOMAINS, PLACED, render_placed

STEP = 50
"""Corners are written to this precision, in the 0 to 1000 of Qwen2-VL: each number is one token."""
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
"""Shares of the picture from which a finding is medium, and large."""
_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "center", "right")


@dataclass(frozen=True)
class Slips:
    """How often whoever labeled the training split erred: the shares of answers with another finding, and of
    boxes (and what is said of their place and size) that are shifted by up to 15 % of the picture."""

    finding: float = 0.15
    box: float = 0.3


NO_SLIPS = Slips(0.0, 0.0)


@dataclass(frozen=True)
class Asked:
    """One picture, a question about it and the answer; ``box`` is that of the question or the answer, if any."""

    id: str
    picture: int
    task: str
    question: str
    answer: str
    finding: str
    split: str


def draw_questions(
    modality: str, split: str, *, seed: int, count: int, slips: Slips | None = None
) -> tuple[NDArray[np.uint8], list[Asked]]:
    """``count`` pictures (count, SIZE, SIZE, 3) of one split, findings in turn, and four questions about each.

    Args:
        slips: instead of the usual ones, which are none but in the training split.

    Raises:
        ValueError: for a modality without findings that have a place.
    """
    if modality not in PLACED:
        raise ValueError(f"no questions about {modality!r}; there are some about {', '.join(MODALITIES)}")
    slips = slips or (Slips() if split == "train" else NO_SLIPS)
    findings = PLACED[modality]
    share = -(-count // len(findings))
    key = [seed, DOMAINS.index(modality), SPLITS.index(split)]
    drawn = [
        render_placed(modality, finding, np.random.default_rng([*key, number, 1]), share)
        for number, finding in enumerate(findings)
    ]
    rng = np.random.default_rng([*key, 99])
    pictures, asked = [], list[Asked]()
    for index in range(count):
        kind, place = index % len(findings), index // len(findings)
        pictures.append(drawn[kind][0][place])
        name = f"{modality}-{split}-{seed}-{index:05d}"
        asked += _ask(name, index, modality, split, findings[kind], drawn[kind][1][place], slips, rng)
    return np.stack(pictures) if pictures else np.empty((0, 1, 1, 3), np.uint8), asked


def _ask(
    name: str,
    picture: int,
    modality: str,
    split: str,
    finding: str,
    box: NDArray[np.float64],
    slips: Slips,
    rng: np.random.Generator,
) -> Iterator[Asked]:
    """The four questions about one picture; each answer errs on its own."""
    for task in TASKS:
        others = [other for other in PLACED[modality] if other != finding]
        said = str(rng.choice(others)) if rng.random() < slips.finding else finding
        shifted = box + rng.uniform(-0.15, 0.15, 4) if rng.random() < slips.box else box
        asks = finding if task == "vg" else said
        corners = box if task in ("roc", "rc") else shifted
        words = {"finding": asks, "box": write_box(corners), "noun": NOUNS[modality][0]} | _where(shifted)
        question, answer = _QUESTIONS[task].format(**words), _ANSWERS[task].format(**words)
        yield Asked(f"{name}-{task}", picture, task, question, answer, finding, split)


def write_box(corners: Sequence[float] | NDArray[np.float64]) -> str:
    """A box (x1, y1, x2, y2 in fractions) as Qwen2-VL writes it, to the precision of :data:`STEP`."""
    cells = 1000 // STEP
    x1, y1, x2, y2 = (int(value) for value in np.clip(np.rint(np.asarray(corners) * cells), 0, cells))
    (x1, x2), (y1, y2) = _apart(x1, x2, cells), _apart(y1, y2, cells)
    return BoxCodec("qwen2-vl").emit([Box(x1 / cells, y1 / cells, x2 / cells, y2 / cells)])


def _apart(low: int, high: int, most: int) -> tuple[int, int]:
    low, high = min(low, high), max(low, high)
    return (low, high) if low < high else (min(low, most - 1), min(low, most - 1) + 1)


def _where(box: NDArray[np.float64]) -> dict[str, str]:
    """Size and place in words."""
    area = abs((box[2] - box[0]) * (box[3] - box[1]))
    column, row = (min(2, max(0, int(3 * (box[k] + box[k + 2]) / 2))) for k in (0, 1))
    middle = (row, column) == (1, 1)
    place = "center" if middle else f"{_ROWS[row]} {_COLUMNS[column]}"
    return {"size": _SIZES[sum(area >= limit for limit in _AREAS)], "place": place}


def question_words() -> list[str]:
    """Every word and number of this world, sorted: one token each for the demo's models."""
    words = {word for text in (*_QUESTIONS.values(), *_ANSWERS.values()) for word in text.split() if "{" not in word}
    words |= {word for nouns in NOUNS.values() for word in nouns[0].split()}
    words |= {word for findings in PLACED.values() for finding in findings for word in finding.split()}
    words |= {*_SIZES, *_ROWS, *_COLUMNS} | {str(number) for number in range(0, 1001, STEP)}
    words |= {"(", ",", "),(", ")"}
    return sorted({part for word in words for part in (word.rstrip("?."), word[len(word.rstrip("?.")) :]) if part})


def write_questions(
    folder: Path, *, seed: int, train: int, calibration: int, test: int, domains: Sequence[str] | None = None
) -> None:
    """Write pictures and ``samples.jsonl``: ``train`` + ``calibration`` + ``test`` pictures of each of ``domains``
    (all modalities by default), each with four questions, into a new ``folder`` that appears complete or not at all.

    Raises:
        FileExistsError: for an existing folder; ValueError: for a modality without findings that have a place.
    """
    sizes = {"train": train, "calibration": calibration, "test": test}
    with new_folder(folder) as draft, (draft / MANIFEST).open("w", encoding="utf-8", newline="\n") as lines:
        for modality in MODALITIES if domains is None else domains:
            images = draft / "images" / modality
            images.mkdir(parents=True)
            for split, count in sizes.items():
                pictures, asked = draw_questions(modality, split, seed=seed, count=count)
                names = [f"{modality}-{split}-{seed}-{number:05d}.png" for number in range(count)]
                for name, picture in zip(names, pictures, strict=True):
                    Image.fromarray(picture).save(images / name, compress_level=1)
                rows = (_row(question, modality, names[question.picture]) for question in asked)
                lines.writelines(json.dumps(row) + "\n" for row in rows)


def _row(asked: Asked, modality: str, name: str) -> dict[str, Any]:
    """A line of the manifest."""
    messages = [{"role": "user", "content": f"<image>{asked.question}"}]
    return {
        "id": asked.id,
        "image": f"images/{modality}/{name}",
        "text": asked.answer,
        "domain": f"{asked.task}/{modality}",
        "split": asked.split,
        "extra": {"task": asked.task, "messages": messages, "box_family": "qwen2-vl"},
    }
