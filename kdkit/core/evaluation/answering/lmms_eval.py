"""Answers in the form of lmms-eval's sample logs: ``DATE_samples_TASK.jsonl``, a JSON object per sample.

Keys are those that lmms-eval writes (``evaluator.py`` and ``evaluation_tracker.py`` of EvolvingLMMs-Lab/lmms-eval at
03cbb1f and 0716c69) and that its offline scorer reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from kdkit.core.contracts import IMAGE_MARK, Sample


def sample_log(number: int, sample: Sample, answer: str) -> dict[str, Any]:
    """One row.

    Args:
        number: place of the sample in its split, from 0. lmms-eval finds the record of its own task by it.
        answer: becomes ``filtered_resps``; ``resps``, which would be the same, is left out, as lmms-eval does.

    ``doc`` is left out as well; its hash is that of id, question and answer here, not of lmms-eval's own record.
    """
    question = question_of(sample.extra.get("messages") or ())
    doc = {"id": sample.id, "question": question, "answer": sample.text}
    return {
        "doc_id": number,
        "target": sample.text,
        "filtered_resps": [answer],
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(question),
        "target_hash": _hash(sample.text),
        "input": question,
        "id": sample.id,
        "domain": sample.domain,
    }


def question_of(messages: Sequence[Mapping[str, str]]) -> str:
    """The last message, without marks of images."""
    return str(messages[-1]["content"]).replace(IMAGE_MARK, "").strip() if messages else ""


def is_sample_log(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of :func:`sample_log`: lmms-eval's own have no ``id``."""
    return {"doc_id", "filtered_resps", "id"} <= row.keys()


def _hash(text: str) -> str:
    """As lmms-eval's ``hash_string``."""
    return sha256(text.encode()).hexdigest()
