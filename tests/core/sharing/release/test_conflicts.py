"""A push goes on from what the repository holds, or says whose it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub, connect
from kdkit.core.contracts import Silent
from kdkit.core.project.lineage import Lineage
from kdkit.core.project.registry.lock import FileFact
from kdkit.core.sharing.hub import plan_upload, upload
from kdkit.core.sharing.hub.edits import PublishedFiles
from kdkit.core.sharing.release.conflicts import free_tag, record_there, require_successor, says_the_same
from kdkit.core.sharing.release.layout import RECORD, RESULTS, Record
from tests.errors import raises_error
from tests.lineages import lineage
from tests.local_hub import ALICE, local_hub

REPO = "lab/student"


def record(*history: Lineage) -> Record:
    return Record("0.1.0", history[-1].version, REPO, "mit", (), history, {}, {}, None)


def line(version: str, made: str = "2026-01-01T00:00:00+00:00") -> Lineage:
    return lineage(version, created=made)


SILENT = Silent()
V1, V2, V3 = line("v1"), line("v2"), line("v3")


class Heard(Silent):
    """Keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with local_hub(tmp_path / "hub") as local:
        yield connect(local.url, ALICE.token)


def folder(tmp_path: Path, content: Record, more: str = "") -> Path:
    path = tmp_path / f"release-{more}-{content.version}"
    path.mkdir(exist_ok=True)
    (path / RECORD).write_text(json.dumps(content.to_json()))
    (path / "README.md").write_text(f"# {content.version} {more}\n")
    return path


def published(hub: Hub, tmp_path: Path) -> PublishedFiles:
    return PublishedFiles(hub, REPO, "model", tmp_path / f"scratch-{time.monotonic_ns()}")


def check(hub: Hub, tmp_path: Path, content: Record, known: tuple[Lineage, ...] = (), heard: Silent = SILENT) -> None:
    there = published(hub, tmp_path)
    require_successor(there, record_there(there), content, [*content.history, *known], heard)


def tag(hub: Hub, tmp_path: Path, content: Record, known: tuple[Lineage, ...] = (), more: str = "") -> str:
    """Pushes, too."""
    check(hub, tmp_path, content, known)
    plan = plan_upload(hub, REPO, "model", folder(tmp_path, content, more))
    found = free_tag(hub, plan, content.version)
    upload(hub, plan, tag=found)
    return found


def test_versions_follow_one_another(hub: Hub, tmp_path: Path) -> None:
    assert tag(hub, tmp_path, record(V1)) == "v1"
    assert tag(hub, tmp_path, record(V1, V2)) == "v2"
    assert tag(hub, tmp_path, record(V1, V2)) == "v2", "unchanged: the same commit"
    assert tag(hub, tmp_path, record(V1, V2), more="test figures") == "v2-r2"
    assert tag(hub, tmp_path, record(V1, V2), more="more figures") == "v2-r3"
    assert tag(hub, tmp_path, record(V1, V2, V3)) == "v3"
    assert tag(hub, tmp_path, record(V1, V2), known=(V3,), more="v3 withdrawn") == "v2-r4"


def test_an_older_version_in_its_place_is_told(hub: Hub, tmp_path: Path) -> None:
    tag(hub, tmp_path, record(V1, V2, V3))
    heard = Heard()
    for content in (record(V1, V2, V3), record(V1, V2)):
        check(hub, tmp_path, content, (V3,), heard)
    assert [REPO in warning for warning in heard.warnings] == [True]


@pytest.mark.parametrize(
    "theirs", [line("v2", "2026-02-02T00:00:00+00:00"), V3, line("v1", "2020-01-01T00:00:00+00:00")]
)
def test_another_student_is_not_replaced(theirs: Lineage, hub: Hub, tmp_path: Path) -> None:
    tag(hub, tmp_path, record(theirs), more="theirs")
    before = hub.api.repo_info(REPO).sha
    with pytest.raises(KdkitError, match=theirs.version) as caught:
        tag(hub, tmp_path, record(V1, V2))
    assert caught.value.code == ExitCode.FOUND
    assert "--pr" in caught.value.fix
    assert hub.api.repo_info(REPO).sha == before


def test_other_things_are_not_replaced(hub: Hub, tmp_path: Path) -> None:
    plain = tmp_path / "model"
    plain.mkdir()
    (plain / "README.md").write_text("# soon\n")
    upload(hub, plan_upload(hub, REPO, "model", plain))
    check(hub, tmp_path, record(V1))  # a page without a model
    (plain / "weights.safetensors").write_bytes(b"years of work")
    upload(hub, plan_upload(hub, REPO, "model", plain))
    with raises_error("KD-REL-005") as caught:
        tag(hub, tmp_path, record(V1))
    assert "weights.safetensors" in caught.value.why


@pytest.mark.parametrize("broken", ["{", "[]", '{"format": 99}', '{"format": 3, "history": []}'])
def test_a_record_of_another_kdkit_is_not_replaced(broken: str, hub: Hub, tmp_path: Path) -> None:
    there = folder(tmp_path, record(V1), "broken")
    (there / RECORD).write_text(broken)
    upload(hub, plan_upload(hub, REPO, "model", there))
    with raises_error("KD-REL-005"):
        tag(hub, tmp_path, record(V1))


def test_another_machine_publishes_the_same() -> None:
    facts = {name: FileFact(size=1, sha256="0" * 64) for name in ("model.safetensors", "config.json", RESULTS)}
    before = replace(record(V1), student=("model.safetensors",), checks={"a": {"difference": 1.0}}, files=facts)
    other = {"config.json": FileFact(size=2, sha256="1" * 64)}  # a form for another library
    machine = replace(before, kdkit="9", environment={"torch": "9"}, checks={"a": {"difference": 2.0}})
    assert says_the_same(replace(machine, files={**facts, **other}), before)
    for name in ("model.safetensors", RESULTS):
        assert not says_the_same(replace(before, files={**facts, name: other["config.json"]}), before)
    assert not says_the_same(replace(before, license="cc-by-4.0"), before)
    assert not says_the_same(replace(before, checks={"a": {"missing": "why"}}), before)
    assert not says_the_same(replace(before, history=(V2,)), before)
