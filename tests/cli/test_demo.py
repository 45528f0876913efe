"""``kdkit demo`` with few pictures."""

from __future__ import annotations

import json

from tests.conftest import Cli


def test_demo_makes_two_versions_a_report_and_an_export(kdkit_cli: Cli) -> None:
    sizes = ("--train", "40", "--calibration", "20", "--test", "20")
    done = kdkit_cli("demo", "here", *sizes, timeout=600)
    assert done.code == 0, done.stderr[-3000:]
    project = kdkit_cli.folder / "here"
    assert "STAND-INS" in done.stderr
    assert "oracle" in done.stderr
    lineage = json.loads((project / "versions" / "v2" / "lineage.json").read_text(encoding="utf-8"))
    assert lineage["parent"] == "v1"
    assert {t["name"]: t["since"] for t in lineage["teachers"]}["demo-eye"] == "v2"
    assert "oct" in lineage["scores"]["domains"]
    assert (project / "student" / "open_clip_model.safetensors").is_file()
    assert list((project / "reports").glob("*.png"))

    again = kdkit_cli("demo", "here", *sizes)
    assert (again.code, again.stderr.split(":")[0]) == (2, "error[KD-CLI-003]")
