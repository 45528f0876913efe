"""Teachers from the Hub: the real client against a small server on the loopback interface."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import TeacherSpec
from kdkit.core.project.project import Project
from kdkit.core.teachers import add_teacher, lock_teachers, materialize, open_teacher, plan_addition
from tests.core.teachers import stub
from tests.errors import raises_error
from tests.local_hub import LocalHub

Offline = Callable[[], None]


def files(tmp_path: Path, **kind: Any) -> dict[str, bytes]:
    """The content of a stub teacher's folder."""
    folder = tmp_path / f"stub-{len(list(tmp_path.iterdir()))}"
    return stub.tree(stub.write(folder, **kind))


def test_a_repository_is_pinned_to_its_commit(hub: LocalHub, tmp_path: Path) -> None:
    first = files(tmp_path, width=4) | {"README.md": b"---\nlicense: apache-2.0\n---\n", "train.py": b"evil"}
    commit = hub.add("org/teacher", first | {"optimizer.pt": b"big", "images/a.png": b"png"})
    project = stub.make_project(tmp_path / "project")
    facts = add_teacher(project, "t", {"from": "hf:org/teacher"})
    assert facts.commit == commit
    assert facts.dims == {"image": 4, "text": 4}
    assert set(facts.files) == {"stub.json", "model.safetensors", "README.md"}
    assert facts.license is not None
    assert facts.license.name == "apache-2.0"
    assert hub.downloads() == ["README.md", "model.safetensors", "stub.json"]

    hub.add("org/teacher", files(tmp_path, width=9))
    shutil.rmtree(project.state)
    shutil.rmtree(tmp_path / "cache")
    project = project.reloaded()
    assert materialize(project, "t").files == facts.files, "the locked commit, not the branch"
    assert open_teacher(project, "t").fingerprint == facts.fingerprint
    assert lock_teachers(project, ["t"])["t"].dims["image"] == 9


def test_a_revision_can_be_given(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("org/teacher", files(tmp_path, width=4))
    tagged = hub.add("org/teacher", files(tmp_path, width=6), branch="v2")
    project = stub.make_project(tmp_path / "project")
    by_tag = add_teacher(project, "a", {"from": "hf:org/teacher@v2"})
    by_commit = add_teacher(project, "b", {"from": f"hf:org/teacher@{tagged}"})
    assert by_tag.commit == by_commit.commit == tagged
    assert by_tag.fingerprint == by_commit.fingerprint


def test_a_model_in_the_repository_of_a_data_set(hub: LocalHub, tmp_path: Path) -> None:
    """As PMC-CLIP is published; a model may have the same name."""
    hub.add("org/data", files(tmp_path, width=9))
    commit = hub.add("org/data", files(tmp_path, width=4) | {"images.zip": b"big"}, kind="dataset")
    project = stub.make_project(tmp_path / "project")
    facts = add_teacher(project, "t", {"from": "hf:datasets/org/data"})
    assert (facts.commit, facts.dims["image"]) == (commit, 4)
    shutil.rmtree(project.state)
    assert open_teacher(project.reloaded(), "t").fingerprint == facts.fingerprint
    assert hub.downloads() == ["model.safetensors", "stub.json"]


def test_cached_files_need_no_network(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/teacher", files(tmp_path) | {"pytorch_model.bin": b"never looked at"})
    online = add_teacher(stub.make_project(tmp_path / "one"), "t", {"from": "hf:org/teacher"})
    requests = len(hub.requests)
    offline = add_teacher(stub.make_project(tmp_path / "two"), "t", {"from": "hf:org/teacher"}, offline=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    by_variable = add_teacher(stub.make_project(tmp_path / "three"), "t", {"from": "hf:org/teacher"})
    assert len(hub.requests) == requests
    for found in (offline, by_variable):
        assert (found.commit, found.files) == (online.commit, online.files)


def test_a_token_for_huggingface_co_is_not_sent_to_a_mirror(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/teacher", files(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_saved")
    add_teacher(stub.make_project(tmp_path / "one"), "t", {"from": "hf:org/teacher"})
    assert {request.token for request in hub.requests} == {None}
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv("KDKIT_HUB_TOKEN", "hf_alice")
    add_teacher(stub.make_project(tmp_path / "two"), "t", {"from": "hf:org/teacher"})
    assert hub.requests[-1].token == "hf_alice"


def test_files_come_from_the_cache_without_a_second_copy(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("org/teacher", files(tmp_path))
    project = stub.make_project(tmp_path / "project")
    add_teacher(project, "t", {"from": "hf:org/teacher"})
    artifact = project.artifacts / "t" / "model.safetensors"
    assert not artifact.is_symlink()
    assert artifact.stat().st_nlink == 2


def _failing(
    project: Project, source: str, id: str, code: ExitCode, *, mentions: tuple[str, ...] = (), offline: bool = False
) -> None:
    before = stub.tree(project.root)
    with raises_error(id, code=code, mentions=mentions):
        add_teacher(project, "t", {"from": source}, offline=offline)
    assert stub.tree(project.root) == before


def test_errors_of_the_hub_are_explained(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/gated", files(tmp_path), gated=True)
    hub.add("org/open", files(tmp_path))
    project = stub.make_project(tmp_path / "project")
    _failing(project, "hf:org/gated", "KD-HUB-014", ExitCode.DENIED, mentions=(f"{hub.url}/org/gated",))
    _failing(project, "hf:org/absent", "KD-HUB-018", ExitCode.MISSING)
    _failing(project, "hf:org/open@v9", "KD-HUB-015", ExitCode.MISSING, mentions=("'v9'",))
    _failing(project, "hf:org/open", "KD-HUB-026", ExitCode.MISSING, mentions=("local:DIR",), offline=True)
    hub.fail(".", times=10**6, status=402, message="pay first")
    _failing(project, "hf:org/open", "KD-HUB-023", ExitCode.MISSING)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    _failing(project, "hf:org/open", "KD-HUB-025", ExitCode.MISSING)


def test_file_names_of_the_hub_must_stay_inside_the_folder(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("org/evil", files(tmp_path) | {"../../evil.json": b"{}"})
    _failing(stub.make_project(tmp_path / "project"), "hf:org/evil", "KD-TEACH-018", ExitCode.USAGE)
    assert hub.downloads() == []


def test_a_plan_has_sizes_without_downloading(hub: LocalHub, tmp_path: Path) -> None:
    content = files(tmp_path)
    hub.add("org/teacher", content)
    planned = plan_addition(stub.make_project(tmp_path / "project"), "t", {"from": "hf:org/teacher"})
    assert planned.forecast.sizes == {name: len(data) for name, data in content.items()}
    assert planned.forecast.cached == 0
    assert hub.downloads() == []
    add_teacher(stub.make_project(tmp_path / "one"), "t", {"from": "hf:org/teacher"})
    again = plan_addition(stub.make_project(tmp_path / "two"), "t", {"from": "hf:org/teacher"}).forecast
    assert again.cached == again.bytes == planned.forecast.bytes


def test_extra_sources_of_the_catalogue_bring_descriptions_only(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("org/main", files(tmp_path))
    side = hub.add(
        "org/text", {"config.json": b"{}", "vocab.txt": b"a", "pytorch_model.bin": b"big", "m.safetensors": b""}
    )
    spec = TeacherSpec(name="t", summary="", source="hf:org/main", loader="stub", extra_sources={"text": "hf:org/text"})
    project = stub.make_project(tmp_path / "project", spec)
    facts = add_teacher(project, "t", {})
    assert set(facts.files) == {"stub.json", "model.safetensors", "text/config.json", "text/vocab.txt"}
    assert facts.also == {"text": f"hf:org/text@{side}"}
    hub.add("org/text", {"config.json": b'{"changed": true}'})
    shutil.rmtree(project.state)
    assert materialize(project.reloaded(), "t").files == facts.files


VOCABULARY = {"vocab.txt": b"b", "config.json": b"{}"}


@pytest.mark.parametrize(
    ("text", "also"),
    [
        ({"config.json": b"{}", "vocab.txt": b"a", "m.safetensors": b""}, {"text/config.json", "text/vocab.txt"}),
        ({"config.json": b"{}"}, {"text/config.json", "vocab.txt"}),
    ],
    ids=["the first companion suffices", "both companions"],
)
def test_companions_of_the_loader_are_fetched_and_pinned(
    hub: LocalHub, tmp_path: Path, text: dict[str, bytes], also: set[str]
) -> None:
    hub.add("org/main", files(tmp_path))
    hub.add("org/text", text)
    hub.add("org/vocabulary", VOCABULARY)
    project = stub.make_project(tmp_path / "project").with_catalogue(stub.catalogue(companions="find_companions"))
    facts = add_teacher(project, "t", {"from": "hf:org/main"})
    assert set(facts.files) == {"stub.json", "model.safetensors", *also}
    assert all(source.startswith("hf:org/") and "@" in source for source in facts.also.values())
    hub.add("org/text", {**text, "config.json": b'{"changed": true}'})
    hub.add("org/vocabulary", {"vocab.txt": b"changed"})
    shutil.rmtree(project.state)
    assert materialize(project.reloaded(), "t").files == facts.files


def test_a_missing_companion_is_reported_with_the_file_to_provide(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("org/main", files(tmp_path))
    project = stub.make_project(tmp_path / "project").with_catalogue(stub.catalogue(companions="find_companions"))
    _failing(project, "hf:org/main", "KD-TEACH-023", ExitCode.MISSING, mentions=("hf:org/text", "text/config.json"))


def test_a_base_model_is_fetched_whole_and_its_license_counts(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("org/adapters", files(tmp_path) | {"README.md": b"---\nlicense: mit\n---\n"})
    base = {"config.json": b"{}", "a.safetensors": files(tmp_path)["model.safetensors"], "run.py": b"1"}
    commit = hub.add("org/base", base | {"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"})
    project = stub.make_project(tmp_path / "project").with_catalogue(stub.catalogue(companions="find_base"))
    facts = add_teacher(project, "t", {"from": "hf:org/adapters"})
    assert {name for name in facts.files if name.startswith("base/")} == {
        "base/config.json",
        "base/a.safetensors",
        "base/README.md",
    }
    assert facts.also == {"base": f"hf:org/base@{commit}"}
    assert facts.license is not None
    assert (facts.license.name, facts.license.evidence) == ("cc-by-nc-4.0", "README.md")


def test_terms_of_a_base_model_count(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDKIT_HUB_TOKEN", "hf_alice")
    hub.add("org/adapters", files(tmp_path))
    hub.add("org/base", files(tmp_path), gated=True)
    hub.repositories["model", "org/base"].granted.add("alice")
    project = stub.make_project(tmp_path / "project").with_catalogue(stub.catalogue(companions="find_base"))
    assert add_teacher(project, "t", {"from": "hf:org/adapters"}).gated
