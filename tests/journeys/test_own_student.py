"""A team keeps the student that it has: its weights become v0, and every increment is judged against them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from kdkit.api.versions import VersionList
from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.hub import Hub
from kdkit.core.distill.import_student import import_student
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Versions
from kdkit.core.sharing.release.pull import pull_student
from kdkit.core.sharing.release.push import push_student
from kdkit.core.teachers.add import add_teacher
from tests.cli.test_distill import PLUGIN
from tests.conftest import Cli, InstallPlugin
from tests.core.sharing.release.projects import WORDS, publishable
from tests.journeys.test_push_and_pull import features, record_of
from tests.killed_projects import Life
from tests.kills import Sweep
from tests.local_hub import ALICE, Account, local_hub
from tests.recorder import Recorder
from tests.tiny_models import make_open_clip_folder
from tests.toy_project import make_project, open_project, toy_catalogue, train_teacher

BOB = Account("bob", "hf_bob")
DOMAINS = ("ct", "mri", "xray")


def start_from(root: Path, weights: Path, *, train: int = 12, held_out: int = 10) -> None:
    """A project without teachers whose student starts from a copy of ``weights``, which their card puts under CC BY-NC.

    Its samples are those of every project of :func:`make_project` of this size.
    """
    make_project(root, teachers={}, domains=DOMAINS, train=train, held_out=held_out)
    shutil.copytree(weights, root / "weights")
    (root / "weights" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n", encoding="utf-8")
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    student = "{family: open_clip, config: {init: ./weights}}"
    registry.write_text(text.replace("{family: toy, config: {width: 12}}", student), encoding="utf-8")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Another project, with one version."""
    root = tmp_path_factory.mktemp("elsewhere") / "project"
    make_project(root, teachers={"radio": ("ct", "mri")}, domains=DOMAINS)
    publishable(root)
    distill(open_project(root), Options(cpu=True))
    return open_project(root)


def accuracies(project: Project, split: str = "test") -> dict[str, float]:
    found = evaluate_version(project, split="test" if split == "test" else "calibration").evaluation
    name = Versions(project).get().name
    return {domain: score.metrics["accuracy"] for domain, score in found.model(name).domains.items()}


def test_increments_are_judged_against_the_imported_student(
    elsewhere: Project, kdkit_cli: Cli, install_plugin: InstallPlugin
) -> None:
    install_plugin("kdkit-toy", PLUGIN)
    root = kdkit_cli.folder
    root.rmdir()
    start_from(root, Versions(elsewhere).get().student_folder)
    done = kdkit_cli("import-student", "--json")
    assert done.code == 0, done.stderr
    files = {f"init/{path.name}": sha256_of(path) for path in (root / "weights").iterdir() if path.suffix != ".md"}
    assert done.json["files"] == files
    assert (done.json["version"], done.json["judged"]) == ("v0", True)
    assert done.json["start"]["license_facts"]["seen"] == "cc-by-nc-4.0"
    assert torch.equal(features(open_project(root)), features(elsewhere)), "no bit of the weights changes"
    assert accuracies(open_project(root)) == accuracies(elsewhere)
    lineage = Versions(open_project(root)).get("v0").lineage
    assert lineage.scores == Versions(elsewhere).get().lineage.scores, "judged as the result of a run is"
    assert (lineage.data.known, lineage.teachers, lineage.training.steps) == (DOMAINS, (), 0)

    (row,) = VersionList.of(Versions(open_project(root))).rows
    assert (row.version, row.status, row.imported, row.recipe) == ("v0", "current", True, None)

    train_teacher(["xray"], width=10, seed=5).save(root / "models" / "xr")
    given = {"from": "local:models/xr", "loader": "toy", "license": "mit"}
    add_teacher(open_project(root), "xr", given)
    planned = kdkit_cli("distill", "--incremental", "--cpu", "--dry-run", "--json")
    plan = planned.json
    assert (plan["parent"], plan["replayed_samples"], plan["fresh_samples"]) == ("v0", 0, 36)
    assert plan["domains_without_rehearsal"] == ["ct", "mri"]
    assert "v0 was imported" in planned.stderr
    refused = kdkit_cli("distill", "--incremental", "--cpu", "--json")
    assert (refused.code, refused.json["version"], refused.json["promoted"]) == (1, "v1", False)
    retention = refused.json["retention"]
    assert set(retention["domains"]) == set(DOMAINS), "every domain that v0 was measured on"
    assert {d: c["before"] for d, c in retention["domains"].items()} == {
        domain: pytest.approx(score["accuracy"]) for domain, score in lineage.scores.domains.items()
    }
    assert "mri" in retention["guard"]["failed"]
    assert Versions(open_project(root)).get().name == "v0"

    registry = root / "registry.yaml"
    registry.write_text(registry.read_text(encoding="utf-8").replace("tolerance: 10", "tolerance: 100"), "utf-8")
    promoted = kdkit_cli("distill", "--incremental", "--cpu", "--json")
    assert (promoted.code, promoted.json["version"], promoted.json["promoted"]) == (0, "v1", True)
    assert Versions(open_project(root)).rollback().name == "v0"


def test_a_published_v0_can_be_pulled_and_taught(
    elsewhere: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_from(tmp_path / "own", Versions(elsewhere).get().student_folder)
    import_student(open_project(tmp_path / "own"), Recorder())
    with local_hub(tmp_path / "hub", accounts=[ALICE, BOB]) as server:
        pushed = push_student(
            open_project(tmp_path / "own"), "alice/own", public=True, hub=Hub(server.url, ALICE.token)
        )
        assert pushed.license == "cc-by-nc-4.0", "that of the initial weights"
        record = record_of(server, "alice/own")
        assert record.lineage.imported is not None
        assert record.lineage.imported.files == Versions(open_project(tmp_path / "own")).get().lineage.imported.files  # type: ignore[union-attr]
        file = server.head("alice/own").files["README.md"]
        card = server.store.path(file.sha256 or file.oid).read_text(encoding="utf-8")
        assert "license: cc-by-nc-4.0" in card
        assert "trained on" not in card.replace("were trained on", "")
        assert "0 step" not in card
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        pulled = pull_student("alice/own", tmp_path / "mine", hub=Hub(server.url, BOB.token), catalogue=toy_catalogue())
        assert pulled.origin.version == "v0"
    root = tmp_path / "mine"
    assert torch.equal(features(open_project(root)), features(elsewhere))
    shutil.copytree(tmp_path / "own" / "images", root / "images")
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("tolerance: 10", "tolerance: 100")
    text = text.replace("data:\n", "data:\n  - {source: jsonl, path: images/samples.jsonl}\n")
    registry.write_text(text, encoding="utf-8")
    train_teacher(["xray"], width=10, seed=5).save(root / "models" / "xr")
    add_teacher(open_project(root), "xr", {"from": "local:models/xr", "loader": "toy", "license": "mit"})
    outcome = distill(open_project(root), Options(cpu=True, incremental=True))
    assert outcome is not None
    assert outcome.retention is not None
    assert (outcome.version.name, outcome.version.lineage.parent) == ("v1", "v0")
    assert set(outcome.retention.domains) == set(DOMAINS)


def make_own(project: Path) -> None:
    """A small project with a student to import."""
    weights = make_open_clip_folder(project.parent / "weights", words=WORDS)
    start_from(project, weights, train=2, held_out=2)


@pytest.fixture
def import_killed(tmp_path: Path) -> Iterator[Sweep]:
    with closing(Sweep(tmp_path / "kills", Life(make_own, ("import-student",)))) as sweep:
        yield sweep


def test_a_killed_import_leaves_nothing_half_made(import_killed: Sweep) -> None:
    """Before and between the renames that make the version and that make it current."""
    (step,) = import_killed.steps
    trials = [import_killed.kill_at(step, step.operations - back) for back in (0, 2, 4)]
    assert [trial.problem for trial in trials] == [""] * len(trials)
    assert any(trial.killed for trial in trials)
    assert json.loads((import_killed.place / "p" / "versions" / "v0" / "manifest.json").read_text())
