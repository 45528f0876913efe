"""Sample logs of lmms-eval, as its offline scorer reads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from kdkit.core.contracts import Sample
from kdkit.core.evaluation.answering.lmms_eval import is_sample_log, sample_log

FRAMEWORK_KEYS = {
    "doc_id",
    "target",
    "filtered_resps",
    "token_counts",
    "doc_hash",
    "input",
    "resps",
    "arguments",
    "doc",
}
"""Of lmms-eval's scorer, which takes all others for fields of the record, or for metrics if they are numbers."""


def results_of(row: dict[str, Any]) -> list[str]:
    """What the scorer gives to ``process_results`` of a task."""
    given = row.get("filtered_resps", "")
    return [given] if isinstance(given, str) else given if isinstance(given, list) else [str(given)]


def test_a_row() -> None:
    messages = [{"role": "user", "content": "<image>\nIs it a cyst?"}]
    sample = Sample("q1", Path("x.png"), "yes", "vqa/ct", None, "test", extra={"messages": messages})
    row = json.loads(json.dumps(sample_log(7, sample, "Yes.")))
    assert results_of(row) == ["Yes."]
    assert (row["doc_id"], row["target"], row["input"]) == (7, "yes", "Is it a cyst?")
    assert row["target_hash"] == hashlib.sha256(b"yes").hexdigest()
    assert not [key for key, value in row.items() if key not in FRAMEWORK_KEYS and isinstance(value, int | float)]
    assert is_sample_log(row)
    assert not is_sample_log({"doc_id": 7, "filtered_resps": ["Yes."]})
