"""What the source would change is found before the first shard is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import Sample
from kdkit.core.data.collect import to_table
from kdkit.core.data.shards.read_back import require_unchanged
from tests.errors import raises_error


def sample(id_: str = "a", text: str = "a scan", label: str | None = "mass", **extra: object) -> Sample:
    return Sample(id_, Path("/data/a.png"), text, "ct", label, extra=extra)


@pytest.mark.parametrize(
    ("odd", "field"),
    [
        (sample(text=" a scan"), "text"),
        (sample(text="a scan\u00a0"), "text"),
        (sample(text="\ufeffa scan"), "text"),
        (sample(text=""), "text"),
        (sample(label=""), "label"),
        (sample(id_="a\n"), "id"),
        (sample(group="p 1 "), "group"),
    ],
)
def test_a_value_that_would_change_is_named(odd: Sample, field: str) -> None:
    table = to_table([sample(), odd, sample(label=None)])
    with raises_error("KD-DATA-510", mentions=(f"the {field} of sample",)):
        require_unchanged(table, np.array([0, 1, 2]))
    require_unchanged(table, np.array([0, 2]))  # rows that are not chosen do not matter


def test_a_question_needs_no_text() -> None:
    table = to_table([sample(text="", messages=[{"role": "user", "content": "What is this?"}])])
    require_unchanged(table, np.array([0]))
