"""``kdkit export`` on a project with one version."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Cli
from tests.tiny_models import make_open_clip_folder


def test_without_a_version_it_says_how_to_make_one(kdkit_cli: Cli) -> None:
    (kdkit_cli.folder / "registry.yaml").write_text("version: 1\n")
    outcome = kdkit_cli("export", "--to", "out")
    assert outcome.code == 3
    assert "kdkit distill" in outcome.stderr
    assert not (kdkit_cli.folder / "out").exists()


def test_exports_the_current_version(kdkit_cli: Cli) -> None:
    project = kdkit_cli.folder
    version = project / "versions" / "v1"
    make_open_clip_folder(version / "student")
    (project / "registry.yaml").write_text("version: 1\n")
    lineage = {"format": 1, "student": {"family": "open_clip"}, "teachers": []}
    (version / "lineage.json").write_text(json.dumps(lineage))
    (project / "versions" / "current").write_text("v1\n")

    outcome = kdkit_cli("export", "--to", "out", "--json")
    assert outcome.code == 0, outcome.stderr
    data = json.loads(outcome.stdout)
    assert Path(data["folder"]) == project / "out"
    assert max(data["image_difference"], data["text_difference"]) <= 1e-5
    assert json.loads((project / "out" / "kdkit.json").read_text())["lineage"] == {"version": "v1", **lineage}

    again = kdkit_cli("export", "v1", "--to", "out")
    assert again.code == 1
    assert "--overwrite" in again.stderr
