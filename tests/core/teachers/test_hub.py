"""Teachers from the Hub: the real client against a small server on the loopback interface."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import TeacherSpec
from kdkit.core.project.project import Project
from kdkit.core.teachers import add_teacher, lock_teachers, materialize, open_teacher, plan_addition
from tests.core.teachers import stub
from tests.local_hub import LocalHub, local_hub

Offline = Callable[[], None]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub of our own, and a cache of our own; the client reads its constants when it is imported."""
    with local_hub(tmp_path / "server") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("KDKIT_HUB_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


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


def test_a_revision_can_be_asked_for(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("org/teacher", files(tmp_path, width=4))
    tagged = hub.add("org/teacher", files(tmp_path, width=6), branch="v2")
    project = stub.make_project(tmp_path / "project")
    by_tag = add_teacher(project, "a", {"from": "hf:org/teacher@v2"})
    by_commit = add_teacher(project, "b", {"from": f"hf:org/teacher@{tagged}"})
    assert by_tag.commit == by_commit.commit == tagged
    assert by_tag.fingerprint == by_commit.fingerprint


def test_what_is_in_the_cache_needs_no_network(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("org/teacher", files(tmp_path) | {"pytorch_model.bin": b"never looked at"})
    online = add_teacher(stub.make_project(tmp_path / "one"), "t", {"from": "hf:org/teacher"})
    asked = len(hub.requests)
    offline = add_teacher(stub.make_project(tmp_path / "two"), "t", {"from": "hf:org/teacher"}, offline=True)
    assert len(hub.requests) == asked
    assert (offline.commit, offline.files) == (online.commit, online.files)


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


def _failing(project: Project, source: str, **options: Any) -> KdkitError:
    before = stub.tree(project.root)
    with pytest.raises(KdkitError) as caught:
        add_teacher(project, "t", {"from": source}, **options)
    assert stub.tree(project.root) == before
    return caught.value


def test_what_the_hub_refuses_is_explained(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/gated", files(tmp_path), gated=True)
    hub.add("org/open", files(tmp_path))
    project = stub.make_project(tmp_path / "project")
    gated = _failing(project, "hf:org/gated")
    assert gated.code == ExitCode.DENIED
    assert f"{hub.url}/org/gated" in gated.fix
    absent = _failing(project, "hf:org/absent")
    assert (absent.what, absent.code) == ("not found on the Hub", ExitCode.MISSING)
    revision = _failing(project, "hf:org/open@v9")
    assert (revision.what, revision.code) == ("no such revision", ExitCode.MISSING)
    assert "'v9'" in revision.why
    uncached = _failing(project, "hf:org/open", offline=True)
    assert uncached.code == ExitCode.MISSING
    assert "--from local:DIR" in uncached.fix
    hub.fail(".", times=10**6, status=402, message="pay first")
    broken = _failing(project, "hf:org/open")
    assert (broken.what, broken.code) == ("the Hub refused", ExitCode.MISSING)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    unreachable = _failing(project, "hf:org/open")
    assert (unreachable.what, unreachable.code) == ("the Hub cannot be reached", ExitCode.MISSING)


def test_a_hub_that_names_files_outside_its_folder_is_not_trusted(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("org/evil", files(tmp_path) | {"../../evil.json": b"{}"})
    refused = _failing(stub.make_project(tmp_path / "project"), "hf:org/evil")
    assert "not to be trusted" in refused.what
    assert hub.downloads() == []


def test_a_plan_knows_the_sizes_without_downloading(hub: LocalHub, tmp_path: Path) -> None:
    content = files(tmp_path)
    hub.add("org/teacher", content)
    planned = plan_addition(stub.make_project(tmp_path / "project"), "t", {"from": "hf:org/teacher"})
    assert planned.sizes == {name: len(data) for name, data in content.items()}
    assert hub.downloads() == []


def test_other_sources_of_the_catalogue_bring_descriptions_only(hub: LocalHub, tmp_path: Path) -> None:
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


OPEN_CLIP = b'{"model_cfg": {"text_cfg": {"hf_model_name": "org/bert", "hf_tokenizer_name": "%s"}}}'
BERT = {
    "config.json": b'{"model_type": "bert"}',
    "vocab.txt": b"a",
    "tokenizer_config.json": b"{}",
    "model.bin": b"big",
}


@pytest.mark.parametrize(
    ("own", "tokenizer", "expected"),
    [
        ({}, b"org/bert", {"text/config.json", "text/vocab.txt", "text/tokenizer_config.json"}),
        (
            {},
            b"org/bpe",
            {"text/config.json", "text/vocab.txt", "text/tokenizer_config.json", "merges.txt", "vocab.json"},
        ),
        (
            {"vocab.txt": b"b"},
            b"org/bpe",
            {"text/config.json", "text/vocab.txt", "text/tokenizer_config.json", "vocab.txt"},
        ),
        ({"text/config.json": b"{}", "tokenizer.json": b"{}"}, b"org/bert", {"text/config.json", "tokenizer.json"}),
        ({"config.json": b'{"model_type": "bert"}', "vocab.txt": b""}, b"org/bert", {"config.json", "vocab.txt"}),
    ],
)
def test_an_open_clip_folder_gets_what_it_lacks_of_its_text_tower(
    hub: LocalHub, tmp_path: Path, own: dict[str, bytes], tokenizer: bytes, expected: set[str]
) -> None:
    hub.add("org/bert", BERT)
    hub.add("org/bpe", {"vocab.json": b"{}", "merges.txt": b"", "config.json": b"{}"})
    own = own | files(tmp_path) | {"open_clip_config.json": OPEN_CLIP % tokenizer}
    hub.add("org/teacher", own)
    facts = add_teacher(stub.make_project(tmp_path / "project"), "t", {"from": "hf:org/teacher"})
    assert set(facts.files) == expected | {"stub.json", "model.safetensors", "open_clip_config.json"}
    assert all(source.startswith("hf:org/b") and "@" in source for source in facts.also.values())


def test_a_text_tower_that_cannot_be_had_says_which_file_to_bring(hub: LocalHub, tmp_path: Path) -> None:
    content = files(tmp_path) | {"open_clip_config.json": OPEN_CLIP % b"org/bert"}
    hub.add("org/teacher", content)
    missing = _failing(stub.make_project(tmp_path / "project"), "hf:org/teacher")
    assert "hf:org/bert" in missing.what
    assert "text/config.json" in missing.fix
    assert missing.code == ExitCode.MISSING
