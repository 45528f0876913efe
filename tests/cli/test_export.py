"""``kdkit export`` on a project with one version."""

from __future__ import annotations

import json
from pathlib import Path

from kdkit.core.sharing.release.layout import RECORD, Record
from tests.conftest import Cli
from tests.core.sharing.release.projects import lay_out
from tests.lineages import lineage
from tests.tiny_models import make_open_clip_folder


def test_without_a_version_it_says_how_to_make_one(kdkit_cli: Cli) -> None:
    (kdkit_cli.folder / "registry.yaml").write_text("version: 1\n")
    outcome = kdkit_cli("export", "--to", "out")
    assert outcome.code == 3
    assert "kdkit distill" in outcome.stderr
    assert not (kdkit_cli.folder / "out").exists()


def test_exports_the_current_version(kdkit_cli: Cli) -> None:
    project = kdkit_cli.folder
    lay_out(project, make_open_clip_folder)
    outcome = kdkit_cli("export", "--to", "out", "--json")
    assert outcome.code == 0, outcome.stderr
    data = json.loads(outcome.stdout)
    assert Path(data["folder"]) == project / "out"
    assert data["moves"] is True
    assert max(data["checks"]["open_clip"][f"{kind}_difference"] for kind in ("image", "text")) <= 1e-5
    record = Record.from_json(json.loads((project / "out" / RECORD).read_text()))
    assert (record.version, record.repository, record.lineage) == ("v1", None, lineage())

    before = {path.name: path.read_bytes() for path in (project / "out").iterdir()}
    again = kdkit_cli("export", "v1", "--to", "out")
    assert again.code == 0, again.stderr
    assert {path.name: path.read_bytes() for path in (project / "out").iterdir()} == before
