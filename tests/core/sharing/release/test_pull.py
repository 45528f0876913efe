"""A published student becomes a project that teaches on, or nothing at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdkit.core.base.errors import ExitCode
from kdkit.core.base.hub import Hub
from kdkit.core.contracts import Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.lineage import Origin
from kdkit.core.project.project import Project
from kdkit.core.project.registry.lock import NOT_PUBLISHED, Lock
from kdkit.core.project.registry.schema import Registry
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.sharing.features import push_features
from kdkit.core.sharing.release.layout import LOCK, RECORD, Record
from kdkit.core.sharing.release.pull import pull_student, staging
from kdkit.core.sharing.release.pulled_release import Lacking
from kdkit.core.sharing.release.registry_text import registry_text
from kdkit.core.teachers.add import add_teacher, check_lock
from tests.core.sharing.release.toy_release import REPO, contents, pull, seal
from tests.core.teachers.stub import Notes
from tests.errors import raises_error
from tests.local_hub import LocalHub
from tests.tiny_models import pictures
from tests.toy_project import open_project, train_teacher, write_images

COLUMNS = "alice/columns"


def features(project: Project) -> tuple[torch.Tensor, torch.Tensor]:
    student: Any = load_student(Versions(project).get(), project.catalogue)
    pixels = torch.stack([student.preprocess(picture) for picture in pictures()])
    with torch.no_grad():
        return student.encode_image(pixels), student.encode_text(["a ct image of mass.", "a b c"])


def test_the_project_holds_the_student_and_its_history(author: Path, local: LocalHub, tmp_path: Path) -> None:
    done = pull(local, tmp_path / "p")
    there, here = open_project(author), open_project(tmp_path / "p")
    assert all(torch.equal(a, b) for a, b in zip(features(there), features(here), strict=True))
    assert (done.version, done.origin.version, done.origin.endpoint) == ("v2", "v2", local.url)
    assert (done.teachers, done.unpublished, done.lacking) == ((), ("radio", "more"), ())
    version = Versions(here).get()
    origin = Versions(here).origin(version)
    assert origin is not None
    assert origin.commit == local.head(REPO).oid
    assert [item.version for item in Versions(here).history(version)] == ["v1", "v2"]
    assert version.known_samples().tolist() == Versions(there).get().known_samples().tolist()
    assert not (version.folder / "evaluation.json").exists()
    assert Versions(here).next_name() == "v3"
    assert sorted(path.name for path in here.root.iterdir()) == [
        "recipe.yaml",
        "registry.lock",
        "registry.yaml",
        "versions",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["hub", "p"], "nothing is left beside it"
    assert str(author) not in "".join(text.decode("utf-8", "replace") for text in contents(here.root).values())


def test_the_registry_is_readable_and_teachers_are_restored_by_hand(
    author: Path, local: LocalHub, tmp_path: Path
) -> None:
    pull(local, tmp_path / "p")
    registry = tmp_path / "p" / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    project = open_project(tmp_path / "p")
    assert project.registry.student.config == {"width": 12}
    assert (project.registry.recipe, project.registry.data) == ("./recipe.yaml", [])
    assert project.registry.prompts
    assert project.registry.prompts == open_project(author).registry.prompts
    assert project.registry.guard.tolerance == 100
    assert project.registry.teachers == {}
    assert f"{REPO} at {local.head(REPO).oid}: version v2 " in text
    entry = text[text.index("  # radio:") : text.index("  # Its files", text.index("  # radio:"))]
    registry.write_text(text.replace(entry, entry.replace("  # ", "  ")), encoding="utf-8")
    radio = open_project(tmp_path / "p").registry.teachers["radio"]
    assert (radio.source, radio.loader, radio.license) == (f"local:{NOT_PUBLISHED}", "toy", "mit")
    registry.write_text(text, encoding="utf-8")
    train_teacher(["ct"], width=8, seed=3).save(tmp_path / "models" / "new")
    add_teacher(open_project(tmp_path / "p"), "new", {"from": "local:../models/new", "loader": "toy"})
    assert list(open_project(tmp_path / "p").registry.teachers) == ["new"]
    assert check_lock(open_project(tmp_path / "p")) == []  # the author's teachers stand in the lock alone
    assert "  # radio:" in registry.read_text(encoding="utf-8")


def test_an_interrupted_pull_leaves_no_project_and_goes_on(local: LocalHub, tmp_path: Path) -> None:
    local.fail("GET .*/resolve/.*/toy.safetensors", status=404, code="EntryNotFound")
    with raises_error("KD-HUB-017", where=f"alice/student@{local.head(REPO).oid}"):
        pull(local, tmp_path / "p")
    assert not (tmp_path / "p").exists()
    fetched = [request.line for request in local.requests if "kdkit/task.safetensors" in request.line]
    assert fetched
    assert pull(local, tmp_path / "p").version == "v2"
    assert [request.line for request in local.requests if "kdkit/task.safetensors" in request.line] == fetched
    assert [path.name for path in tmp_path.iterdir()] == ["hub", "p"]


def test_of_two_pulls_at_once_one_makes_the_project(local: LocalHub, tmp_path: Path) -> None:
    with staging(tmp_path / "p"):
        with raises_error("KD-REL-021", mentions=("'kdkit pull'",)) as caught:
            pull(local, tmp_path / "p")
        assert caught.value.code == ExitCode.FOUND
        assert pull(local, tmp_path / "q").version == "v2"
    assert pull(local, tmp_path / "p").version == "v2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "p", "q"]


def test_a_project_stays_if_its_features_are_not_found(local: LocalHub, tmp_path: Path) -> None:
    with raises_error("KD-HUB-010", where="alice/nothing@main", mentions=("the project exists", "same command")):
        pull(local, tmp_path / "p", features="alice/nothing")
    assert Versions(open_project(tmp_path / "p")).get().name == "v2"
    assert pull(local, tmp_path / "p").version == "v2"  # without them: then nothing is to come
    assert not (tmp_path / "p" / ".kdkit" / "pulled").exists()


def test_features_that_were_cut_off_are_fetched_by_the_same_command(
    author: Path, local: LocalHub, tmp_path: Path
) -> None:
    push_features(open_project(author), COLUMNS, hub=Hub(local.url, "hf_alice"))
    pull(local, tmp_path / "whole", features=COLUMNS)
    for name in ("cut", "edited"):
        local.fail("GET .*/resolve/.*shard-0000.h5", status=404, code="EntryNotFound")
        with raises_error("KD-HUB-017"):
            pull(local, tmp_path / name, features=COLUMNS)
        assert open_project(tmp_path / name).registry.teachers == {}
    cut, edited = tmp_path / "cut" / "registry.yaml", tmp_path / "edited" / "registry.yaml"
    edited.write_text(edited.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    local.add(REPO, {"README.md": b"a newer one"})
    before, notes = len(local.requests), Notes()
    done = pull(local, tmp_path / "cut", features=COLUMNS, reporter=notes)
    assert (done.version, done.teachers, done.unpublished) == ("v2", ("radio", "more"), ())
    assert [column.rows > 0 for column in done.columns] == [True, True]
    assert not [request.line for request in local.requests[before:] if REPO in request.line]
    text = cut.read_text(encoding="utf-8")
    assert text == (tmp_path / "whole" / "registry.yaml").read_text(encoding="utf-8")
    with raises_error("KD-REL-015", mentions=("in use",)):  # of a newer commit
        pull(local, tmp_path / "cut", features=COLUMNS)
    again = pull(local, tmp_path / "cut", features=COLUMNS, revision=done.origin.commit)
    assert (again.teachers, again.unpublished) == (done.teachers, ())
    assert [(column.rows, column.here > 0) for column in again.columns] == [(0, True), (0, True)]
    assert pull(local, tmp_path / "cut", revision=done.origin.commit).teachers == done.teachers
    assert cut.read_text(encoding="utf-8") == text
    pull(local, tmp_path / "edited", features=COLUMNS, reporter=notes)
    (warning,) = notes.warnings
    assert warning.startswith("registry.yaml ")
    assert "'# '" in warning
    assert "radio, more" in warning
    assert edited.read_text(encoding="utf-8").endswith("# mine\n")


def change(name: str, content: bytes | None) -> Callable[[dict[str, bytes]], None]:
    def changed(files: dict[str, bytes]) -> None:
        if content is None:
            del files[name]
        else:
            files[name] = content

    return changed


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (change("toy.safetensors", b"other weights"), "'toy.safetensors'"),
        (change("kdkit/task.safetensors", None), "'kdkit/task.safetensors'"),
    ],
)
def test_a_repository_that_is_not_what_was_pushed_is_refused(
    tamper: Callable[[dict[str, bytes]], None],
    named: str,
    local: LocalHub,
    release: tuple[Path, Record],
    tmp_path: Path,
) -> None:
    pushed, files = local.head(REPO).oid, contents(release[0])
    tamper(files)
    local.add(REPO, files)
    with raises_error("KD-REL-017", where="alice/student", mentions=(str(named),)) as caught:
        pull(local, tmp_path / "p")
    assert caught.value.code == ExitCode.FOUND
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]
    assert pull(local, tmp_path / "p", revision=pushed).origin.commit == pushed


def test_what_people_added_on_the_hub_is_not_fetched(
    local: LocalHub, release: tuple[Path, Record], tmp_path: Path
) -> None:
    more = {"open_clip_pytorch_model.bin": b"a pickle", "json.py": b"1 / 0", "README.md": b"# Better\n"}
    local.add(REPO, {**contents(release[0]), **more})
    pull(local, tmp_path / "p")
    assert not set(local.downloads()) & more.keys()
    assert not {path.name for path in (tmp_path / "p").rglob("*")} & more.keys()


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ({"version": "../../v2"}, "cannot be its version's name"),
        ({"student": ("kdkit/task.safetensors",)}, "is no file at its top"),
        ({"student": ("kdkit.json",)}, "is no file at its top"),
        ({"student": ("../registry.yaml",)}, "is no file at its top"),
        ({"student": ()}, "it has no student"),
        ({"history": [{"format": 9, "version": "v2"}]}, "format 9"),
    ],
)
def test_a_record_is_not_believed(
    lie: dict[str, Any], why: str, local: LocalHub, release: tuple[Path, Record], tmp_path: Path
) -> None:
    folder, record = release
    lying = Path(shutil.copytree(folder, tmp_path / "lying"))
    (lying / RECORD).write_text(json.dumps({**record.to_json(), **lie}))
    local.add(REPO, contents(lying))
    with raises_error("KD-REL-018", where="alice/student") as caught:
        pull(local, tmp_path / "p")
    assert why in caught.value.why
    assert not (tmp_path / "p").exists()


def test_a_pickle_that_the_record_lists_is_refused(
    local: LocalHub, release: tuple[Path, Record], tmp_path: Path
) -> None:
    folder, record = release
    lying = Path(shutil.copytree(folder, tmp_path / "lying"))
    (lying / "model.bin").write_bytes(b"a pickle")
    seal(lying, replace(record, student=(*record.student, "model.bin")))
    local.add(REPO, contents(lying))
    with raises_error("KD-REL-018", where="alice/student"):
        pull(local, tmp_path / "p")


@pytest.mark.parametrize("record", [b"{}", b"no json", b"[]", b'{"format": 1}'])
def test_other_records_are_refused(record: bytes, local: LocalHub, tmp_path: Path) -> None:
    local.add(REPO, {RECORD: record})
    with raises_error("KD-REL-018", where="alice/student"):
        pull(local, tmp_path / "p")


def test_facts_of_the_lock_stay_comments(local: LocalHub, release: tuple[Path, Record], tmp_path: Path) -> None:
    folder, record = release
    lying = Path(shutil.copytree(folder, tmp_path / "lying"))
    lock = Lock.load(lying / "kdkit" / "registry.lock")
    evil = lock.teacher("radio").model_copy(update={"source": "hf:a/b\nuse: commercial\u2028recipe: evil"})
    lock.with_teacher("radio", evil).save(lying / "kdkit" / "registry.lock")
    seal(lying, record)
    local.add(REPO, contents(lying))
    done = pull(local, tmp_path / "p")
    assert done.teachers == ("radio",)
    registry = open_project(tmp_path / "p").registry
    assert (registry.use, registry.recipe) == ("research", "./recipe.yaml")


def test_a_recipe_that_did_not_come_along_is_refused(
    local: LocalHub, release: tuple[Path, Record], tmp_path: Path
) -> None:
    folder, record = release
    lying = Path(shutil.copytree(folder, tmp_path / "lying"))
    (lying / "kdkit" / "recipe.yaml").unlink()
    seal(lying, record)
    local.add(REPO, contents(lying))
    with raises_error("KD-REL-019", where="alice/student"):
        pull(local, tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_where_it_may_not_go_and_what_is_no_release(local: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    before = len(local.requests)
    with raises_error("KD-REL-015", mentions=("in use",)) as caught:
        pull(local, tmp_path / "full")
    assert "features pull" not in caught.value.fix
    (tmp_path / "full" / "registry.yaml").write_text("version: 1\n")
    with raises_error("KD-REL-015", mentions=("in use",)) as caught:
        pull(local, tmp_path / "full")
    assert "features pull" in caught.value.fix
    assert len(local.requests) == before
    local.add("alice/plain", {"config.json": b"{}"})
    with raises_error("KD-REL-016", where="alice/plain") as caught:
        pull_student("alice/plain", tmp_path / "p", hub=Hub(local.url, "hf_alice"))
    assert "add-teacher" in caught.value.fix
    (tmp_path / "empty").mkdir()
    assert pull(local, tmp_path / "empty").root == tmp_path / "empty"


def test_missing_plugins_are_named(local: LocalHub, release: tuple[Path, Record], tmp_path: Path) -> None:
    folder, record = release
    plugins = {**record.lineage.environment.plugins, "kdkit-toy": "1.0"}
    lineage = replace(record.lineage, environment=replace(record.lineage.environment, plugins=plugins))
    changed = Path(shutil.copytree(folder, tmp_path / "changed"))
    seal(changed, replace(record, history=(*record.history[:-1], lineage)))
    local.add(REPO, contents(changed))
    done = pull_student(REPO, tmp_path / "p", hub=Hub(local.url, "hf_alice"), catalogue=load_catalogue())
    assert done.lacking == (
        Lacking("student 'toy'", ("kdkit-toy==1.0",)),
        Lacking("loader 'toy'", ("kdkit-toy==1.0",)),
    )
    assert str(done.lacking[0]).endswith(" kdkit-toy==1.0")


def test_a_name_of_the_release_that_another_plugin_has_here_is_missing(
    local: LocalHub, release: tuple[Path, Record], tmp_path: Path
) -> None:
    folder, record = release
    changed = Path(shutil.copytree(folder, tmp_path / "changed"))
    lock = Lock.load(changed / LOCK)
    lock.model_copy(update={"providers": {**lock.providers, "student": {"toy": "kdkit-other"}}}).save(changed / LOCK)
    seal(changed, record)
    local.add(REPO, contents(changed))
    assert pull(local, tmp_path / "p").lacking == (Lacking("student 'toy'", ("kdkit-other",)),)


def test_only_teachers_from_a_local_folder_are_marked_as_unpublished() -> None:
    entries = {"ours": {"from": "local:(not published)", "loader": "open_clip"}, "theirs": {"from": "hf:lab/theirs"}}
    registry = Registry.model_validate({"version": 1, "teachers": entries})
    origin = Origin("lab/student", "c" * 40, "v1")
    text = registry_text(registry, Lock(), origin, recipe_file=False, with_features=("ours", "theirs"))
    ours, theirs = text[: text.index("\n  theirs:")].split("\n  ours:")
    assert "Its files" in ours
    assert "Its files" not in theirs


def test_with_columns_old_teachers_replay_without_their_files(author: Path, local: LocalHub, tmp_path: Path) -> None:
    hub = Hub(local.url, "hf_alice")
    push_features(open_project(author), COLUMNS, hub=hub)
    done = pull(local, tmp_path / "p", features=COLUMNS)
    assert (done.teachers, done.unpublished) == (("radio", "more"), ())
    root = tmp_path / "p"
    shutil.copytree(author / "images", root / "images")
    rows = write_images(root / "images", ["xray"], train=12, held_out=10, seed=1)
    with open(root / "images" / "samples.jsonl", "a", encoding="utf-8") as manifest:
        manifest.write("".join(json.dumps(row) + "\n" for row in rows))
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace("data:\n", "data:\n  - {source: jsonl, path: images/samples.jsonl}\n"), "utf-8")
    train_teacher(["xray"], width=20, seed=5).save(root / "models" / "xr")
    add_teacher(open_project(root), "xr", {"from": "local:models/xr", "loader": "toy", "license": "mit"})
    plan = prepare(open_project(root), Options(incremental=True), Silent()).plan
    assert plan.new_teachers == ("xr",)
    assert (plan.fresh, plan.replayed) == (36, 72)
    assert {t.name: t.samples for t in plan.teachers} == {"radio": 72, "more": 36, "xr": 36}
    assert Lock.load(root / "registry.lock").teacher("radio").source == f"local:{NOT_PUBLISHED}"
