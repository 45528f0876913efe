"""``kdkit demo clinkd`` with few pictures."""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import Cli


def test_demo_compares_methods_and_increments(kdkit_cli: Cli) -> None:
    sizes = ("--train", "12", "--calibration", "2", "--test", "2")
    done = kdkit_cli("demo", "clinkd", "here", *sizes, timeout=1500)
    assert done.code == 0, done.stderr[-3000:]
    project = kdkit_cli.folder / "here"
    assert "STAND-INS" in done.stderr
    figures = json.loads((project / "figures.json").read_text(encoding="utf-8"))
    methods = ["chance", "teacher demo-reader", "answers alone", "Pseudo-KD", "Pseudo-KD, best of 5"]
    assert list(figures["methods"]) == methods
    table = done.stdout[done.stdout.index("Test split") :]
    assert re.search(r"VG +ROC +RC +MIA +average", table)
    assert all(f"\n{name} " in table for name in [*methods, "increment with retention", "plain fine-tuning"])

    gain, before, after = figures["gain"], *(figures["methods"][name] for name in methods[2:4])
    assert gain["pictures"] == 6
    assert gain["low"] <= gain["points"] <= gain["high"]
    assert gain["points"] == pytest.approx(100 * sum(after[d] - before[d] for d in before) / len(before))
    assert "Pseudo-KD against the answers alone: " in table
    assert {one["why"] for one in figures["gates"]} == {"too few images or patients: 2 of 20"}
    assert len(figures["gates"]) == 12
    assert figures["methods"]["Pseudo-KD, best of 5"].keys() == after.keys()

    for version in ("v3", "v4"):
        folder = next(project.glob(f"versions/**/{version}"))
        lineage = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
        assert lineage["parent"] == "v2"
        assert "vg/ct" in lineage["data"]["known"]
        assert (lineage["data"]["replayed"] > 0) == (version == "v4")

    exported = kdkit_cli("export", "--project", "here", "--to", "student", timeout=300)
    assert exported.code == 0, exported.stderr
    assert "With transformers:" in exported.stdout

    again = kdkit_cli("demo", "clinkd", "here")
    assert (again.code, again.stderr.split(":")[0]) == (2, "error[KD-CLI-003]")
    wrong = kdkit_cli("demo", "klinkd", "here")
    assert (wrong.code, wrong.stderr.split(":")[0]) == (2, "error[KD-CLI-002]")
