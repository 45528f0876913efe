"""What a teacher said to questions without an answer, beside its column: a line per sample, kept whatever filters say.

An answer is found again by (id, content digest); the column's folder is that of one fingerprint of the teacher. A
line that a kill cut off is left out, and its sample is asked again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdkit.core.contracts import Answering, Decoding, Reporter, Sample
from kdkit.core.data.images import open_image

FILE = "pseudo-labels.jsonl"
BATCH = 16
Key = tuple[str, int]


@dataclass(frozen=True)
class Said:
    """One answer.

    Attributes:
        answer: the text.
        confidence: mean probability of its tokens, in [0, 1]; None where the teacher does not tell it.
    """

    answer: str
    confidence: float | None


def read_rows(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The lines that are whole."""
    try:
        lines = (folder / FILE).read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                yield row


def read_said(folder: Path, decoding: Decoding) -> dict[Key, Said]:
    """(sample id, content digest) -> what was said under this decoding so far."""
    found: dict[Key, Said] = {}
    for row in read_rows(folder):
        with suppress(KeyError, TypeError):
            if row["decoding"] == settings_of(decoding):
                found[row["id"], row["digest"]] = Said(row["answer"], row["confidence"])
    return found


def ask(
    model: Answering,
    folder: Path,
    todo: Sequence[tuple[Key, Sample]],
    decoding: Decoding,
    reporter: Reporter,
    label: str,
) -> None:
    """Let the model answer the samples of ``todo``; every batch is on the disk before the next is asked.

    Raises:
        KdkitError: what the model raises, and unreadable images; what was said before is kept.
    """
    settings = settings_of(decoding)
    with open(folder / FILE, "ab") as file:
        if file.tell():
            file.write(b"\n")  # what a kill cut off stays a line of its own
        for start in range(0, len(todo), BATCH):
            part = todo[start : start + BATCH]
            images = [open_image(sample) for _, sample in part]
            answered = model.answer(images, [sample for _, sample in part], decoding)
            for (key, _), answers in zip(part, answered, strict=True):
                said = {"answer": answers[0].text.strip(), "confidence": answers[0].confidence}
                kept = {} if answers[0].told is None else {"told": answers[0].told}
                row = {"id": key[0], "digest": key[1], **said, "decoding": settings, **kept}
                file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            reporter.progress(label, start + len(part), len(todo))


def settings_of(decoding: Decoding) -> dict[str, Any]:
    """What decides the answers, for records; not how many are made at a time."""
    return {name: value for name, value in asdict(decoding).items() if name not in ("scored", "batch_size")}
