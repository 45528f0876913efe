"""``kdkit pull``, ``kdkit features push`` and ``pull`` as commands, against a Hub in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kdkit.core.project.registry.lock import Lock
from kdkit.core.sharing.release.layout import LOCK, REGISTRY, SAMPLES, TASK, Record
from tests.conftest import Cli, InstallPlugin
from tests.core.features.sharing import extracted, lock_of, make_project
from tests.core.sharing.release.toy_release import contents, seal
from tests.lineages import lineage
from tests.local_hub import LocalHub, local_hub

TOY = """\
from kdkit.core.contracts import StudentSpec
from kdkit.core.contracts.hookspecs import hookimpl


@hookimpl
def kdkit_students():
    return [StudentSpec(name="toy", summary="toy", factory="tests.toys:make_toy", loader="tests.toys:load_toy")]
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def cli(kdkit_cli: Cli, hub: LocalHub) -> Cli:
    """The command of somebody whose home is empty."""
    kdkit_cli.environment.update(hub.environment(), HOME=str(kdkit_cli.folder.parent / "home"))
    return kdkit_cli


def publish(hub: LocalHub, folder: Path) -> str:
    """A release of a student of the family ``toy``; the commit."""
    (folder / "kdkit").mkdir(parents=True)
    save_file({"w": np.ones(1, np.float32)}, folder / "toy.safetensors")
    save_file({"t": np.ones(1, np.float32)}, folder / TASK)
    save_file({"digests": np.arange(3)}, folder / SAMPLES)
    (folder / REGISTRY).write_text("version: 1\nstudent: {family: toy}\nrecipe: kdkit\n", encoding="utf-8")
    Lock().save(folder / LOCK)
    history = tuple(
        lineage(
            name, parent, student={"family": "toy"}, environment={"plugins": {"kdkit": "0.1.0", "kdkit-toy": "1.0"}}
        )
        for name, parent in (("v1", None), ("v2", "v1"), ("v3", "v2"))
    )
    record = Record("0.1.0", "v3", "alice/toy", "mit", ("toy.safetensors",), history, {}, {}, None)
    seal(folder, record)
    return hub.add("alice/toy", contents(folder))


def test_pull(cli: Cli, hub: LocalHub, install_plugin: InstallPlugin, tmp_path: Path) -> None:
    commit = publish(hub, tmp_path / "release")
    done = cli("pull", "alice/toy")
    assert done.code == 0, done.stderr
    assert "v3" in done.stdout
    assert "alice/toy" in done.stdout
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "student 'toy'" in warning
    assert warning.endswith("kdkit-toy==1.0")
    assert (cli.folder / "toy" / "versions" / "current").read_text() == "v3\n"
    again = cli("pull", "alice/toy")
    assert again.code == 0
    assert "is pulled already, unchanged" in again.stderr
    assert again.stdout == done.stdout
    (cli.folder / "toy" / "registry.lock").unlink()
    again = cli("pull", "alice/toy")
    assert (again.code, again.error) == (1, "KD-REL-015")
    assert "registry.lock has changed since it was pulled" in again.stderr
    install_plugin("kdkit-toy", TOY)
    done = cli("pull", "alice/toy", "--to", "other", "--revision", commit, "--json")
    data = json.loads(done.stdout)
    assert data["origin"] == {"repository": "alice/toy", "commit": commit, "version": "v3", "endpoint": hub.url}
    assert (data["lacking"], data["unpublished_teachers"], Path(data["project"]).name) == ([], [], "other")
    assert "hf_alice" not in done.stdout + done.stderr
    hub.add("alice/toy", {**contents(tmp_path / "release"), "toy.safetensors": b"other weights"})
    done = cli("pull", "alice/toy", "--to", "third")
    assert (done.code, done.error) == (1, "KD-REL-017")
    assert "'toy.safetensors'" in done.stderr
    assert sorted(path.name for path in cli.folder.iterdir()) == ["other", "toy"]


def test_features_push_and_pull(cli: Cli, hub: LocalHub, tmp_path: Path) -> None:
    author = make_project(tmp_path / "author")
    extracted(author)
    dry = cli("features", "push", "alice/columns", "--dry-run", "-C", str(author.root))
    assert dry.code == 0, dry.stderr
    assert "nothing" in dry.stdout.splitlines()[-1]
    assert not hub.repositories
    pushed = cli("features", "push", "alice/columns", "radio", "--json", "-C", str(author.root))
    assert pushed.code == 0, pushed.stderr
    data = json.loads(pushed.stdout)
    assert data["columns"] == {"radio": {"rows": 6, "prompts": 2, "license": "mit"}}
    assert data["uploaded"]["commit"] == hub.head("alice/columns", kind="dataset").oid
    other = make_project(tmp_path / "other", names="b")
    pulled = cli("features", "pull", "alice/columns", "--json", "-C", str(other.root))
    assert pulled.code == 0, pulled.stderr
    assert [(row["teacher"], row["rows"], row["texts"]) for row in json.loads(pulled.stdout)] == [("radio", 6, 2)]
    shutil.rmtree(other.features)
    Lock().with_teacher("radio", lock_of("cd" * 32)).save(other.lock_path)
    refused = cli("features", "pull", "alice/columns", "-C", str(other.root))
    assert (refused.code, refused.error) == (1, "KD-SHARE-006")
    assert "'radio'" in refused.stderr
