"""What a run says about the version that it made."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.api.student import Distillation
from kdkit.core.distill.promotion import Outcome
from kdkit.core.project.versions import CANDIDATES, Version
from tests.lineages import guard, lineage, retention, write_version


@pytest.mark.parametrize(("name", "points"), [("retrieval/oct", "-7.5"), ("ct, sex F", "-3.5")])
def test_a_check_that_the_guard_names_is_described_by_its_own_change(tmp_path: Path, name: str, points: str) -> None:
    compared = retention({"domain": "ct", "points": 1.25})
    changes = [
        {**compared["domains"]["ct"], "domain": "oct", "points": -7.5, "task": "retrieval"},
        {**compared["domains"]["ct"], "points": -3.5, "subgroup": "sex F"},
    ]
    own = lineage("v2", "v1", retention={**compared, "checks": changes, "guard": guard(name, promoted=False)})
    folder = tmp_path / CANDIDATES / "v2"
    write_version(folder, own)
    said = str(Distillation(Outcome(Version("v2", folder))))
    assert [points in line for line in said.splitlines() if f"{name}: " in line] == [True]
