"""Med-GRIT-270k (Huang et al., MICCAI 2024): a file per task and split, as BiRD's scripts read it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import IMAGE_MARK, Sample, Skipped, Split
from kdkit.plugins.sources.questions import Boxes, Question, SplitRule, check_task, read_all, sample_of
from kdkit.plugins.sources.records import Ids, Record, file_below, fingerprint, json_records, text_of

_PICTURE = re.compile(r"(?:Picture \d+:\s*)?<img>.*?</img>\s*")


def read_med_grit(
    location: Path,
    *,
    task: str,
    image_root: str = ".",
    modality: str | None = None,
    split: Split | None = None,
    split_fractions: Mapping[str, float] | None = None,
    boxes: str | None = "qwen-vl",
    boxes_as: str | None = None,
    id_prefix: str = "",
    skip_broken: bool = False,
) -> Iterator[Sample | Skipped]:
    """A sample per pair of question and answer: ``[{id, conversations: [[question, answer], ...]}, ...]``.

    The image is ``id`` + ``.png``; ``Picture 1: <img>...</img>`` in a question becomes the image mark.

    Args:
        location: the JSON file.
        task: of the whole file.
        image_root: folder of the images, relative to the file's.
        modality: of all samples; by default the part of an image's name before its first ``_`` (ct, mr, x, ...).
        split, split_fractions: the file is one split, or is divided by a hash of the image.
        boxes, boxes_as: families of boxes in the file and in the samples.
        id_prefix: prefix of every id, which is task, image and a hash of question and answer.
        skip_broken: skip broken records, and count them.

    Raises:
        KdkitError: with ``file:line``; a record is broken.
    """
    where, root, ids = str(location), location.parent / image_root, Ids(id_prefix)
    split_rule, codec = SplitRule(split, split_fractions, where), Boxes(boxes, boxes_as, where)
    check_task(task, where)

    def samples(record: Record, where: str) -> Iterator[Sample]:
        """A sample per pair; earlier pairs are its history."""
        name = text_of(record, "id", where)
        image = file_below(root, f"{name}.png", where)
        messages: list[tuple[str, str]] = []
        for question_text, answer in _pairs(record, where):
            messages.append(("user", _mark_image(question_text, first=not messages)))
            question = Question(
                id=ids(f"{task}/{name}/{fingerprint([messages, answer])}"),
                images=[image],
                messages=list(messages),
                answer=answer.strip(),
                task=task,
                modality=modality or image.name.partition("_")[0].lower(),
            )
            yield sample_of(question, split_rule(name), codec, where)
            messages.append(("assistant", answer))

    return read_all(json_records(location), samples, location, skip_broken=skip_broken)


def _pairs(record: Record, where: str) -> list[tuple[str, str]]:
    given = record.get("conversations")
    good = isinstance(given, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in given
    )
    if not given or not good:
        raise KdkitError(
            "KD-SRC-016",
            "conversations must be a list of [question, answer] pairs",
            where=where,
            fix="use the source 'sharegpt' for files with {from, value} objects",
        )
    return [(question, answer) for question, answer in given]


def _mark_image(question: str, *, first: bool) -> str:
    text = _PICTURE.sub(f"{IMAGE_MARK}\n", question)
    return f"{IMAGE_MARK}\n{text}" if first and IMAGE_MARK not in text else text
