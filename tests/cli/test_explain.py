"""``kdkit explain``."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cli.test_distill import PLUGIN
from tests.conftest import Cli, InstallPlugin
from tests.toy_project import make_project


@pytest.fixture
def toy(kdkit_cli: Cli, install_plugin: InstallPlugin) -> Cli:
    """The command in a project with v1 of two teachers."""
    install_plugin("kdkit-toy", PLUGIN)
    kdkit_cli.folder.rmdir()
    teachers: dict[str, Sequence[str]] = {"radio": ("ct", "mri"), "xr": ("xray",)}
    make_project(kdkit_cli.folder, teachers=teachers, domains=("ct", "mri", "xray"))
    assert kdkit_cli("distill").code == 0
    return kdkit_cli


def test_explain(toy: Cli) -> None:
    planned = toy("explain", "v1", "--dry-run", "--json")
    assert planned.code == 0, planned.stderr
    plan = planned.json
    assert plan.pop("seconds") > 0
    assert plan == {
        **{"version": "v1", "sources": ["radio", "xr"], "domains": ["ct", "mri", "xray"]},
        **{"length": 0.25, "steps": 10, "runs": 9, "finished": 0},
    }

    shown = toy("explain", "--seeds", "1", "--domain", "ct", "--domain", "xray")
    assert shown.code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[1].split() == ["domain", "without", "radio", "without", "xr", "with", "all,", "%", "images"]
    assert [line.split()[0] for line in lines[3:6]] == ["ct", "xray", "mean"]
    told = shown.stderr.splitlines()
    assert any("3 runs of 10 steps" in line and " s of training" in line for line in told)
    assert [line for line in told if line.startswith("run ")] == [
        "run 1 of 3: with all sources, seed 0",
        "run 2 of 3: without radio, seed 0",
        "run 3 of 3: without xr, seed 0",
    ]

    again = toy("explain", "--seeds", "1", "--json")
    assert again.code == 0, again.stderr
    assert "run 1 of 3" not in again.stderr
    data = again.json
    assert [source["source"] for source in data["sources"]] == ["radio", "xr"]
    assert [change["domain"] for change in data["sources"][1]["domains"]] == ["ct", "mri", "xray"]
    assert (data["version"], data["seeds"], data["steps"], data["split"]) == ("v1", [0], 10, "calibration")
    assert [row["version"] for row in toy("versions", "--json").json] == ["v1"]

    unknown = toy("explain", "v2", "--json")
    assert (unknown.code, unknown.error, unknown.json["error"]["id"]) == (3, "KD-PROJ-010", "KD-PROJ-010")
    wrong = toy("explain", "--length", "2")
    assert (wrong.code, wrong.stdout, wrong.error) == (2, "", "KD-DIST-083")
