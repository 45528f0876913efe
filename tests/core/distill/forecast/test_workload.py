"""A forecast in words, and the page of plans that is computed by it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from kdkit.core.distill.forecast.workload import Forecast, Limit

ROOT = Path(__file__).parents[4]


def made(*limits: Limit) -> Forecast:
    return Forecast("1 x H100", 1, 1.0, 10.0, {}, {}, 0, {}, 0.1, (), limits)


def test_the_page_of_plans_is_what_the_code_computes() -> None:
    """A changed formula, device or assumption changes the page."""
    scaling = runpy.run_path(str(ROOT / "benchmarks" / "scaling.py"))
    text = (ROOT / "docs" / "explanation" / "scaling.md").read_text(encoding="utf-8")
    assert "| 10,000,000,000 | 50 |" in text
    assert scaling["page_with_tables"](text) == text, "python benchmarks/scaling.py --write"


def test_what_breaks_first_is_the_largest_share() -> None:
    memory, disk = Limit("memory", 3.0, 2.0, "--shard"), Limit("disk", 1.0, 4.0, "a disk")
    assert made(memory, disk).breaks_first == "memory breaks first: 1.5 times what there is; --shard lowers it"
    assert made(disk).breaks_first == "everything fits; tightest is disk, 25 % used; a disk lowers it"
    assert made(Limit("disk", 1.0, 0.0, "a disk")).breaks_first == "no limit is known"


def test_json_has_every_figure() -> None:
    found = json.loads(json.dumps(made(Limit("memory", 3.0, 2.0, "--shard")).to_json()))
    assert found["limits"] == [{"name": "memory", "needed": 3.0, "available": 2.0, "knob": "--shard", "share": 1.5}]
    assert found["breaks_first"].startswith("memory breaks first")
    assert found["training_seconds"] == 10.0
