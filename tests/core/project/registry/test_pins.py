"""A name that a project uses cannot come from another distribution without an explicit change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import LossSpec, RopeSpec, TeacherSpec
from kdkit.core.distill.model.student import StudentBuilder
from kdkit.core.plugin_system.catalogue import FAMILIES, Catalogue, Entry
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.project import Project
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.registry.pinned import pinned
from kdkit.core.project.registry.pins import pin_names
from kdkit.core.project.versions import load_student
from kdkit.core.teachers import add_teacher, check_lock, lock_teachers, open_teacher
from tests.conftest import Cli, InstallPlugin
from tests.core.teachers import stub
from tests.errors import raises_error
from tests.lineages import lineage, write_version

REGISTRY = """\
version: 1
student: {family: open_clip}
data: [{source: csv, path: data.csv}]
recipe: ./mine.yaml
trust: {policy: all}
"""
RECIPE = """\
name: mine
summary: s
losses:
  - {name: huber}
  - {name: kdkit-other:tilted}
trust: {policy: soft}
increment: {previous: {loss: fd}}
optimizer: {lr: 0.01, batch_size: 4, steps: 2}
"""


def loss(name: str, provider: str) -> Entry:
    return Entry(LossSpec(name=name, summary=provider, factory="builtins:dict"), provider, "1.0")


def catalogue(*losses: Entry) -> Catalogue:
    """The built-ins and these."""
    known = load_catalogue()
    return replace(known, contents={**known.contents, "loss": (*known.entries("loss"), *losses)})


def make_project(root: Path, *losses: Entry) -> Project:
    """The project as a new process with these plugins sees it."""
    return Project(root).with_catalogue(catalogue(*losses)).reloaded()


OURS, THEIRS, TILTED = loss("huber", "kdkit-huber"), loss("huber", "kdkit-other"), loss("tilted", "kdkit-other")
THIRD = loss("huber", "kdkit-third")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose names were pinned while kdkit-huber was the only one with a loss 'huber'."""
    (tmp_path / "registry.yaml").write_text(REGISTRY)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    pin_names(make_project(tmp_path, OURS, TILTED))
    return tmp_path


def test_every_name_of_registry_and_recipe_is_pinned(root: Path) -> None:
    assert Lock.load(root / "registry.lock").providers == {
        "task": {"zero-shot": "kdkit", "retrieval": "kdkit"},
        "student": {"open_clip": "kdkit"},
        "source": {"csv": "kdkit"},
        "policy": {"all": "kdkit", "soft": "kdkit"},
        "loss": {
            "huber": "kdkit-huber",
            "fd": "kdkit",
            "crd": "kdkit",
        },  # 'kdkit-other:tilted' says itself where it comes from
    }


def test_pinning_again_changes_nothing(root: Path) -> None:
    before = (root / "registry.lock").stat().st_mtime_ns
    pin_names(make_project(root, OURS, TILTED))
    assert (root / "registry.lock").stat().st_mtime_ns == before


def test_a_pin_decides_between_two_providers(root: Path) -> None:
    assert make_project(root, OURS, THEIRS).catalogue.get("loss", "huber").provider == "kdkit-huber"
    assert make_project(root, OURS, loss("huber", "kdkit")).catalogue.get("loss", "huber").provider == "kdkit-huber"
    assert make_project(root, OURS, THEIRS).catalogue.get("loss", "kdkit-other:huber").provider == "kdkit-other"


def test_a_pinned_name_of_another_distribution_is_refused(root: Path) -> None:
    moved = make_project(root, THEIRS)
    with raises_error("KD-PLUG-002", where="registry.lock") as caught:
        moved.catalogue.make("loss", "huber")
    assert "'huber'" in caught.value.what
    assert "kdkit-other 1.0" in caught.value.why
    for remedy in ("kdkit install kdkit-huber", "'kdkit-other:huber'", "kdkit lock huber"):
        assert remedy in caught.value.fix
    assert caught.value.code == ExitCode.MISSING
    pin_names(moved)  # what a command that writes would do
    assert Lock.load(root / "registry.lock").providers["loss"]["huber"] == "kdkit-huber"


def test_a_built_in_of_a_newer_kdkit_does_not_take_over(root: Path) -> None:
    with raises_error("KD-PLUG-002", where="registry.lock"):
        make_project(root, loss("huber", "kdkit")).catalogue.get("loss", "huber")


def test_kdkit_lock_accepts_the_present_provider(root: Path) -> None:
    moved = make_project(root, THEIRS)
    assert lock_teachers(moved, ["huber"]) == {}
    assert Lock.load(root / "registry.lock").providers["loss"]["huber"] == "kdkit-other"
    assert make_project(root, THEIRS).catalogue.get("loss", "huber").provider == "kdkit-other"
    with raises_error("KD-REG-004", where="registry.yaml", mentions=("'hubert'",)):
        lock_teachers(moved, ["hubert"])


@pytest.mark.parametrize(("now", "id"), [((THEIRS, THIRD), "KD-PLUG-001"), ((), "KD-PLUG-003")])
def test_kdkit_lock_refuses_unknown_and_ambiguous_names(now: tuple[Entry, ...], id: str, root: Path) -> None:
    moved = make_project(root, *now)
    with raises_error("KD-PLUG-002", where="registry.lock") as caught:
        moved.catalogue.get("loss", "huber")
    assert "kdkit lock" not in caught.value.fix
    with raises_error(id, mentions=("'huber'",)):
        lock_teachers(moved, ["huber"])
    assert Lock.load(root / "registry.lock").providers["loss"]["huber"] == "kdkit-huber"


def test_kdkit_lock_check_reports_it(root: Path) -> None:
    assert check_lock(make_project(root, OURS, TILTED)) == []
    (problem,) = check_lock(make_project(root, THEIRS, TILTED))
    assert problem.startswith("registry.lock: ")
    assert "loss 'huber'" in problem


def test_two_providers_are_an_error_until_one_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "registry.yaml").write_text(REGISTRY)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    both = make_project(tmp_path, OURS, THEIRS, TILTED)
    pin_names(both)
    assert "huber" not in Lock.load(tmp_path / "registry.lock").providers["loss"]
    with raises_error("KD-PLUG-001", mentions=("'huber'",)):
        both.catalogue.get("loss", "huber")


def test_pins_cannot_be_removed_unnoticed(root: Path) -> None:
    path = root / "registry.lock"
    raw = json.loads(path.read_text())
    del raw["providers"]
    path.write_text(json.dumps(raw))
    with raises_error("KD-REG-014", where="registry.lock"):
        Lock.load(path)


def test_every_family_can_be_pinned() -> None:
    known = load_catalogue()
    for family in FAMILIES:
        name = known.names(family)[0]
        moved = replace(known, pins={family: {name: "kdkit-gone"}})
        with raises_error("KD-PLUG-002", where="registry.lock"):
            moved.get(family, name)


def test_names_in_the_students_config_are_pinned_and_reach_its_factory(tmp_path: Path) -> None:
    config: dict[str, Any] = {"sizes": {"hidden": 32, "heads": 2, "kv_heads": 1}, "max_tokens": 64}
    for rope in ("turned", {"name": "turned"}):
        registry = {"version": 1, "student": {"family": "clinkd", "config": {**config, "rope": rope}}}
        (tmp_path / "registry.yaml").write_text(json.dumps(registry), encoding="utf-8")
        (tmp_path / "registry.lock").unlink(missing_ok=True)
        ours, theirs = (
            Entry(replace(load_catalogue().spec(RopeSpec, name), name="turned"), provider, "1.0")
            for name, provider in (("mrope", "kdkit-ours"), ("mcg-rope", "kdkit-theirs"))
        )
        pin_names(with_ropes(tmp_path, ours))
        assert Lock.load(tmp_path / "registry.lock").providers["rope"] == {"turned": "kdkit-ours"}
        made: Any = StudentBuilder.of(with_ropes(tmp_path, theirs, ours)).student
        assert made.config["rope"]["name"] == "kdkit-ours:turned"
        with raises_error("KD-PLUG-002", where="registry.lock", mentions=("kdkit lock turned",)):
            _ = StudentBuilder.of(with_ropes(tmp_path, theirs)).student


def with_ropes(root: Path, *ropes: Entry) -> Project:
    known, project = load_catalogue(), Project(root)
    contents = {**known.contents, "rope": (*known.contents["rope"], *ropes)}
    return project.with_catalogue(pinned(replace(known, contents=contents), project.lock))


def test_a_folder_inside_a_project_has_its_pins(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    inside, outside = root / "versions" / "v1", tmp_path_factory.mktemp("outside") / "v1"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
        write_version(folder, lineage(student={"family": "toy"}))
    Lock(providers={"student": {"toy": "kdkit-gone"}}).save(root / "registry.lock")
    assert Project.catalogue_at(inside).pins["student"] == {"toy": "kdkit-gone"}
    assert not Project.catalogue_at(outside).pins.get("student")
    with raises_error("KD-PLUG-002", where="registry.lock", mentions=("'toy'",)):
        load_student(inside)
    with raises_error("KD-PLUG-003", mentions=("'toy'",)):
        load_student(outside)


# ----------------------------------------------------------------------------------- teachers


def stub_project(root: Path, provider: str) -> Project:
    """A project whose teacher 't' is in the catalogue, by ``provider`` (or by none)."""
    project = stub.make_project(root, TeacherSpec(name="t", summary="", source="local:a", loader="stub"))
    known = project.catalogue
    entries = (replace(known.entries("teacher")[0], provider=provider),) if provider else ()
    own = replace(known, contents={**known.contents, "teacher": entries})
    return project.with_catalogue(own).reloaded()


@pytest.mark.parametrize(("then", "now"), [("kdkit-a", "kdkit-b"), ("kdkit-a", "kdkit"), ("", "kdkit-b")])
def test_a_teacher_of_another_provider_is_refused(then: str, now: str, tmp_path: Path) -> None:
    before = stub_project(tmp_path, then)
    stub.write(tmp_path / "a")
    add_teacher(before, "t", {"from": "local:a", "loader": "stub"})
    text = before.registry_path.read_text()
    after = stub_project(tmp_path, now)
    after.registry_path.write_text(text)
    with raises_error("KD-PLUG-002" if then else "KD-TEACH-007", mentions=("kdkit lock t", now)):
        open_teacher(after, "t")
    assert len(check_lock(after)) == 1
    lock_teachers(after, ["t"])
    after = after.reloaded()
    assert open_teacher(after, "t").name == "t"
    assert Lock.load(after.lock_path).teacher("t").provider == f"{now}@1.0"


def test_a_teacher_whose_provider_is_gone(tmp_path: Path) -> None:
    stub.write(tmp_path / "a")
    before = stub_project(tmp_path, "kdkit-a")
    add_teacher(before, "t", {})
    text = before.registry_path.read_text()
    after = stub_project(tmp_path, "")
    after.registry_path.write_text(text)
    with raises_error("KD-PLUG-002", where="registry.yaml:4", mentions=("'t'",)) as caught:
        open_teacher(after, "t")
    assert caught.value.fix.split() == ["kdkit", "install", "kdkit-a"]


# ---------------------------------------------------------------------------- the real command

TEACHER = """
from kdkit import TeacherSpec, hookimpl

@hookimpl
def kdkit_teachers():
    return [TeacherSpec(name="shared", summary="{who}", source="package:kdkit/plugins", loader="open_clip")]
"""
SOURCE = """
from kdkit import SourceSpec, hookimpl

@hookimpl
def kdkit_sources():
    return [SourceSpec(name="rows", summary="{who}", factory="kdkit.plugins.sources.manifest:CsvManifest")]
"""


def test_the_command_refuses_and_names_the_remedies(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    (kdkit_cli.folder / "registry.yaml").write_text("version: 1\ndata: [{source: rows, path: rows.csv}]\n")
    (kdkit_cli.folder / "rows.csv").write_text("id,image,text,domain\n")
    providers = {"source": {"rows": "kdkit-first"}}
    Lock(providers=providers).save(kdkit_cli.folder / "registry.lock")
    install_plugin("kdkit-second", SOURCE.format(who="second"))
    refused = kdkit_cli("data", "check")
    assert (refused.code, refused.error) == (ExitCode.MISSING, "KD-PLUG-002")
    assert "registry.lock:" in refused.stderr
    assert "kdkit-first" in refused.stderr
    assert "'kdkit-second:rows'" in refused.stderr
    assert "lock rows" in refused.stderr
    taken = kdkit_cli("lock", "rows", "--json")
    assert taken.json["providers"] == [{"kind": "source", "name": "rows", "provider": "kdkit-second"}]
    assert kdkit_cli("data", "check").error != "KD-PLUG-002"


def test_the_same_teacher_of_two_plugins(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    kdkit_cli("init")
    install_plugin("kdkit-one", TEACHER.format(who="one"), version="1.1")
    install_plugin("kdkit-two", TEACHER.format(who="two"), version="2.2")
    assert kdkit_cli("teachers").code == 0  # it matters only to those who use it
    refused = kdkit_cli("add-teacher", "shared", "--dry-run")
    assert (refused.code, refused.error) == (ExitCode.USAGE, "KD-PLUG-001")
    for named in ("kdkit-one 1.1", "kdkit-two 2.2", "PROVIDER:shared"):
        assert named in refused.stderr
    chosen = kdkit_cli("add-teacher", "kdkit-two:shared", "--dry-run")
    assert chosen.error != "KD-PLUG-001"
