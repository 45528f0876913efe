"""A seeded sample of the generated data of ``benchmarks/fuzz.py``."""

from __future__ import annotations

import pytest

from benchmarks.fuzz import GENERATORS, from_seeds


@pytest.mark.parametrize("kind", GENERATORS)
def test_generated_data_is_read_refused_or_counted(kind: str) -> None:
    found = from_seeds(kind, 15)
    assert [outcome for outcome in found if outcome.status in ("lost", "internal")] == []
    assert {outcome.status for outcome in found} >= {"read"}
