"""Gates on disk, and their section of a version's page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdkit.core.evaluation.answering.gate import judge_domain, unmeasured
from kdkit.core.evaluation.answering.gate_file import GATES, Gate, read_gate, read_gates, write_gate
from kdkit.core.evaluation.page.detail_sections import best_of_n

NAME = f"{10:016x}.json"


def test_a_gate_is_read_as_it_was_written(tmp_path: Path) -> None:
    outcomes = {"plain": np.zeros(30), "agreement": np.ones(30)}
    domains = {"vg/ct": judge_domain("vg/ct", outcomes, np.arange(30), known="x"), "rc/ct": unmeasured("rc/ct")}
    gate = Gate("v2", {"decoding": {"samples": 5, "beams": 1}}, domains)
    write_gate(tmp_path / GATES / NAME, gate)
    assert read_gates(tmp_path) == {NAME: gate}
    assert [gate.rule(domain) for domain in ("vg/ct", "rc/ct", "new/ct")] == ["agreement", "plain", "plain"]
    damaged = tmp_path / GATES / f"{1:016x}.json"
    damaged.write_text((tmp_path / GATES / NAME).read_text(encoding="utf-8").replace("v2", "v3"), encoding="utf-8")
    assert read_gate(damaged) is None
    assert read_gate(tmp_path / "none.json") is None
    assert read_gates(tmp_path) == {NAME: gate}
    assert read_gates(tmp_path / "other") == {}

    page, wanted = (
        str(best_of_n([gate])),
        ("5 sampled answers and the greedy one", "+100.0 (+100.0 to +100.0)", "helps"),
    )
    for text in (*wanted, "no calibration samples"):
        assert text in page
