"""Adapters on a base that 'hf download --local-dir' made: a person says the repository, the files say the commit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.hub import Hub
from kdkit.plugins.students.clinkd.create import create_student, load_student
from kdkit.plugins.students.clinkd.download import RECORDS
from kdkit.plugins.students.clinkd.publish import publish
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from tests.errors import raises_error
from tests.local_hub import local_hub
from tests.plugins.students.clinkd.tiny import make

REPO = "vendor/Tiny-VL"
LORA = {"r": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """(a folder that the Hub's own client has downloaded, the commit)."""
    root = tmp_path_factory.mktemp("world")
    make(max_tokens=2048).save(root / "model")
    (root / "model" / "clinkd.json").unlink()
    with local_hub(root / "hub") as server:
        server.add(REPO, {path.name: path.read_bytes() for path in (root / "model").iterdir()})
        Hub(server.url, "hf_alice").api.snapshot_download(REPO, local_dir=root / "download")
        yield root / "download", server.head(REPO).oid


@pytest.fixture
def folder(world: tuple[Path, str], tmp_path: Path) -> Path:
    """The download, to be spoilt."""
    return Path(shutil.copytree(world[0], tmp_path / "base"))


def adapted(init: Path, **config: Any) -> ClinkdStudent:
    return make(init=str(init), lora=LORA, **config)


def saved(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "clinkd.json").read_text(encoding="utf-8"))
    return content


def test_what_a_person_says_is_pinned_to_the_commit_of_the_files(world: tuple[Path, str], tmp_path: Path) -> None:
    folder, commit = world
    student = adapted(folder, base=REPO)
    assert student.config["base"] == REPO
    student.save(tmp_path / "a")
    load_student(tmp_path / "a").save(tmp_path / "b")
    for name in "ab":
        base = saved(tmp_path / name)["base"]
        assert (base["repo"], base["commit"], base["folder"]) == (REPO, commit, str(folder))
    adapters = json.loads((tmp_path / "b" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (adapters["base_model_name_or_path"], adapters["revision"]) == (REPO, commit)


def test_the_base_may_be_named_when_the_student_is_published(world: tuple[Path, str], tmp_path: Path) -> None:
    folder, commit = world
    adapted(folder).save(tmp_path / "a")
    remedy = ("'base: ORG/NAME'", "student.config", "--merge", str(tmp_path / "a"))
    with raises_error("KD-STUD-037", mentions=remedy):
        publish(tmp_path / "a", tmp_path / "refused", "lab/student", merged=False, skip={})
    content = saved(tmp_path / "a")
    content["config"]["base"] = REPO
    (tmp_path / "a" / "clinkd.json").write_text(json.dumps(content), encoding="utf-8")
    done = publish(tmp_path / "a", tmp_path / "out", "lab/student", merged=False, skip={})
    assert done.base is not None
    assert (done.base.repository, done.base.commit, done.base.folder) == (REPO, commit, folder)
    written = saved(tmp_path / "out")["base"]
    assert written == {**content["base"], "folder": None, "repo": REPO, "commit": commit}


def test_files_that_are_not_of_one_commit_or_not_as_downloaded(folder: Path) -> None:
    def refused(why: str) -> None:
        with raises_error("KD-STUD-015") as caught:
            adapted(folder, base=REPO)
        assert why in caught.value.why

    weights = folder / "model.safetensors"
    record = folder / RECORDS / f"{weights.name}.metadata"
    told, content = record.read_text(encoding="utf-8"), weights.read_bytes()
    weights.write_bytes(content[:-1] + b"\1")
    refused("model.safetensors was changed since")
    weights.write_bytes(content)
    os.utime(weights)
    record.write_text("c" * 40 + told[40:], encoding="utf-8")
    refused("its files are of several commits: ")
    record.write_text("main\n", encoding="utf-8")
    refused("model.safetensors.metadata is not what 'hf download' writes")
    (folder / "config.json").write_text((folder / "config.json").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    refused("config.json was changed since")
    shutil.rmtree(folder / ".cache")
    refused("config.json")


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"base": REPO}, "base needs init and lora"),
        ({"base": "../vendor", "lora": LORA}, "'../vendor' is no repository"),
    ],
)
def test_a_base_that_says_nothing(config: dict[str, Any], what: str, world: tuple[Path, str]) -> None:
    with pytest.raises(KdkitError, match=what):
        create_student(init=str(world[0]), **config)


def test_a_snapshot_of_another_repository(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Org--Other" / "snapshots" / ("0" * 40)
    shutil.copytree(folder, snapshot)
    with raises_error("KD-STUD-030"):
        adapted(snapshot, base=REPO)
