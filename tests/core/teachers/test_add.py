"""Adding, locking and removing teachers; a failure leaves the project unchanged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextvars import Context
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Sample, SignalSource, TeacherSpec
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.project import Project
from kdkit.core.project.registry.lock import Lock
from kdkit.core.teachers import (
    add_teacher,
    check_lock,
    lock_teachers,
    materialize,
    open_teacher,
    plan_addition,
    remove_teacher,
)
from tests.core.features.small import paint
from tests.core.teachers import stub
from tests.errors import raises_error


def test_a_folder_becomes_a_locked_teacher(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "models" / "a", width=5)
    facts = add_teacher(project, "a", {"from": "local:models/a", "domains": ["ct"]})
    assert (facts.loader, facts.dims, facts.commit) == ("stub", {"image": 5, "text": 5}, None)
    assert set(facts.files) == {"stub.json", "model.safetensors"}
    lines = (tmp_path / "registry.yaml").read_text("utf-8").splitlines()
    assert lines == ["version: 1", "# mine", "teachers:", "  a:", "    from: local:models/a", "    domains: [ct]"]

    project = project.reloaded()
    assert list(project.registry.teachers) == ["a"]
    opened = open_teacher(project, "a")
    assert opened.fingerprint == facts.fingerprint == Lock.load(project.lock_path).teacher("a").fingerprint
    assert isinstance(opened.signals, SignalSource)
    assert isinstance(opened.model, torch.nn.Module)
    assert not opened.model.training
    assert not any(parameter.requires_grad for parameter in opened.model.parameters())
    assert check_lock(project) == []


def test_an_added_teacher_does_not_need_its_source(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path / "here")
    add_teacher(project, "a", {"from": f"local:{stub.write(tmp_path / 'a')}"})
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = Project(tmp_path / "there").with_catalogue(project.catalogue)
    assert open_teacher(moved, "a").name == "a"
    assert check_lock(moved) == []


def test_a_deleted_artifact_is_fetched_again_unchanged(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "a")
    locked = add_teacher(project, "a", {"from": "local:a"})
    project = project.reloaded()
    shutil.rmtree(project.state)
    assert materialize(project, "a").files == locked.files
    assert open_teacher(project, "a").fingerprint == locked.fingerprint
    shutil.rmtree(project.state)
    (tmp_path / "a" / "stub.json").write_text("{}", encoding="utf-8")
    with raises_error("KD-TEACH-002", where="registry.yaml:4", mentions=("'stub.json'",)):
        materialize(project, "a")
    assert not (project.artifacts / "a").exists()


def test_the_fingerprint_depends_on_weights_options_and_configs_but_not_on_the_card(tmp_path: Path) -> None:
    def fingerprint(name: str, change: Callable[[Path], object], **options: str) -> str:
        project = stub.make_project(tmp_path / name)
        change(stub.write(tmp_path / name / "a"))
        return add_teacher(project, "a", {"from": "local:a", "options": options}).fingerprint

    def wider(folder: Path) -> None:
        shutil.rmtree(folder)
        stub.write(folder, width=6)

    plain = fingerprint("plain", Path.touch)
    assert fingerprint("card", lambda f: (f / "README.md").write_text("hello")) == plain
    assert fingerprint("license", lambda f: (f / "LICENSE").write_text("hello")) == plain
    others = {
        fingerprint("config", lambda f: (f / "stub.json").write_text("{}")),
        fingerprint("more", lambda f: (f / "vocab.txt").write_text("a")),
        fingerprint("option", Path.touch, trouble="none"),
        fingerprint("weights", wider),
    }
    assert len(others) == 4
    assert plain not in others


@pytest.mark.parametrize(
    ("trouble", "id", "mentions"),
    [
        ("crash", "KD-TEACH-013", ("RuntimeError",)),
        ("random", "KD-TEACH-014", ("'image'",)),
        ("wrong width", "KD-TEACH-014", ("'image'", "(5,)", "(4,)")),
    ],
)
def test_a_broken_model_leaves_nothing_behind(tmp_path: Path, trouble: str, id: str, mentions: tuple[str, ...]) -> None:
    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "a")
    stub.refused(project, "a", {"from": "local:a", "options": {"trouble": trouble}}, id, mentions=mentions)


def test_a_signal_can_be_one_number(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "a")
    facts = add_teacher(project, "a", {"from": "local:a", "options": {"trouble": "one number"}})
    assert facts.signals["score"].shape == ()


def test_nan_in_the_features_is_found_by_the_probe(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "a", nan=True)
    stub.refused(project, "a", {"from": "local:a"}, "KD-TEACH-014", mentions=("NaN",))


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("model.safetensors", b"", "empty"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "LFS pointer"),
        ("stub.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "LFS pointer"),
        ("model.safetensors", b"\n <!DOCTYPE html><html>Log in</html>", "web page"),
        ("model.safetensors", None, "cut off"),
    ],
)
def test_what_a_failed_download_left_is_named(tmp_path: Path, name: str, content: bytes | None, named: str) -> None:
    source = stub.write(tmp_path / "m")
    whole = (source / name).read_bytes()
    (source / name).write_bytes(whole[:-5] if content is None else content)
    project = stub.make_project(tmp_path / "p")
    mentions = (f"local:{source}: {name}", named, *((f"{len(whole):,}",) if content is None else ()))
    stub.refused(project, "a", {"from": f"local:{source}"}, "KD-TEACH-025", mentions=mentions, code=ExitCode.MISSING)


def test_an_empty_license_does_not_matter(tmp_path: Path) -> None:
    (stub.write(tmp_path / "m") / "LICENSE").touch()
    assert add_teacher(stub.make_project(tmp_path / "p"), "a", {"from": f"local:{tmp_path / 'm'}"}).loader == "stub"


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "README.md").write_text("holidays", encoding="utf-8")
    (tmp_path / "photos" / "cat.png").write_bytes(b"png")
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "package.json").write_text("{}", encoding="utf-8")
    stub.write(tmp_path / "both")
    (tmp_path / "both" / "other.json").write_text("{}", encoding="utf-8")
    (stub.write(tmp_path / "bare") / "model.safetensors").unlink()
    stub.refused(project, "a", {"from": "local:empty"}, "KD-TEACH-017")
    stub.refused(project, "a", {"from": "local:photos"}, "KD-TEACH-017")
    stub.refused(project, "a", {"from": "local:json"}, "KD-TEACH-016", mentions=("stub.json", "other.json"))
    stub.refused(project, "a", {"from": "local:both"}, "KD-TEACH-015", mentions=("--loader other", "--loader stub"))
    stub.refused(project, "a", {"from": "local:bare"}, "X-001")
    stub.refused(project, "a", {"from": "local:nowhere"}, "KD-TEACH-021", code=ExitCode.MISSING)
    stub.refused(project, "a", {"from": "local:both", "loader": "stubb"}, "KD-PLUG-003", mentions=("'stub'",))
    stub.refused(project, "a", {"from": str(tmp_path / "bare")}, "KD-TEACH-020", mentions=("local:",))


def test_unknown_names_are_refused_with_a_proposal(tmp_path: Path) -> None:
    spec = TeacherSpec(name="biomedclip", summary="", source="hf:a/b", loader="stub")
    own = TeacherSpec(name="medclip", summary="", source="", loader="", unavailable="own code")
    project = stub.make_project(tmp_path, spec, own)
    stub.refused(project, "biomedclp", {}, "KD-REG-002", mentions=("'biomedclip'",))
    stub.refused(project, "medclip", {}, "KD-REG-001", mentions=("own code",), code=ExitCode.MISSING)
    stub.write(tmp_path / "a")
    assert add_teacher(project, "medclip", {"from": "local:a", "loader": "stub"}).provider == "kdkit-stub@1.0"
    project = project.reloaded()
    with raises_error("KD-REG-006", mentions=("'medclip'",)):
        add_teacher(project, "medclip", {})
    locked, again = project.lock, add_teacher(project, "medclip", {"from": "local:a", "loader": "stub"})
    assert (project.reloaded().lock, again) == (locked, locked.teacher("medclip")), "the same command again"
    (project.features / "medclip").mkdir(parents=True)
    for _ in range(2):
        remove_teacher(project, "medclip")
    assert project.reloaded().registry.teachers == {}
    add_teacher(project.reloaded(), "medclip", {"from": "local:a", "loader": "stub"})
    for use, id in ((open_teacher, "KD-REG-004"), (materialize, "KD-REG-004"), (remove_teacher, "KD-REG-007")):
        with raises_error(id, mentions=("'medclip'",)):
            use(project, "medclop")


def test_an_unknown_registry_entry_is_reported_with_its_line(tmp_path: Path) -> None:
    spec = TeacherSpec(name="biomedclip", summary="", source="hf:a/b", loader="stub")
    project = stub.make_project(tmp_path, spec, registry="version: 1\nteachers:\n  biomedclp: {}\n")
    with raises_error("KD-REG-002", where="registry.yaml:3", mentions=("'biomedclip'",)):
        open_teacher(project, "biomedclp")


def test_a_name_of_two_plugins_must_be_chosen(tmp_path: Path) -> None:
    project = stub.make_project(
        tmp_path, *(TeacherSpec(name="t", summary="", source=f"local:{n}", loader="stub") for n in "ab")
    )
    entries = project.catalogue.entries("teacher")
    two = (replace(entries[0], provider="kdkit-one"), replace(entries[1], provider="kdkit-two"))
    contents = {**project.catalogue.contents, "teacher": two}
    project = project.with_catalogue(replace(project.catalogue, contents=contents))
    stub.write(tmp_path / "b")
    stub.refused(project, "t", {}, "KD-PLUG-001", mentions=("kdkit-one", "PROVIDER:t"))
    assert add_teacher(project, "t", {"provider": "kdkit-two"}).source == "local:b"
    assert open_teacher(project.reloaded(), "t").name == "t"


def test_a_changed_file_is_reported_with_both_hashes(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    source = stub.write(tmp_path / "a")
    locked = add_teacher(project, "a", {"from": "local:a"}).files["model.safetensors"].sha256
    project = project.reloaded()
    artifact = project.artifacts / "a" / "model.safetensors"
    whole = artifact.read_bytes()
    for path in (artifact, source / "model.safetensors"):
        path.write_bytes(whole[:-1] + b"\x01")
        with pytest.raises(KdkitError) as caught:
            open_teacher(project, "a")
        assert "'model.safetensors'" in caught.value.what
        assert locked in caught.value.why
        assert caught.value.why.count("sha256") == 1
        assert caught.value.where == "registry.yaml:4"
        assert len(check_lock(project)) == 1
        path.write_bytes(whole)
        assert open_teacher(project, "a").name == "a"
    (project.artifacts / "a" / "extra.json").write_text("{}", encoding="utf-8")
    with raises_error("KD-TEACH-002", where="registry.yaml:4", mentions=("extra.json",)):
        open_teacher(project, "a")


def test_locking_again_accepts_the_present_files(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    source = stub.write(tmp_path / "a")
    first = add_teacher(project, "a", {"from": "local:a"})
    assert lock_teachers(project) == {}
    shutil.rmtree(source)
    stub.write(source, width=7)
    second = lock_teachers(project, ["a"])["a"]
    assert second.dims == {"image": 7, "text": 7}
    assert open_teacher(project.reloaded(), "a").fingerprint == second.fingerprint != first.fingerprint


def test_an_edited_registry_is_reported_with_both_values(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "a")
    add_teacher(project, "a", {"from": "local:a"})
    path = tmp_path / "registry.yaml"
    path.write_text(path.read_text("utf-8").replace("local:a", "local:b"), encoding="utf-8")
    with raises_error("KD-TEACH-007", where="registry.yaml", mentions=("'local:a'", "'local:b'")):
        open_teacher(project.reloaded(), "a")
    path.write_text("version: 1\nteachers: {}\n", encoding="utf-8")
    (problem,) = check_lock(project.reloaded())
    assert problem.startswith("registry.lock: ")
    assert "'a'" in problem


def test_teachers_written_by_hand_are_locked_and_unavailable_ones_skipped(tmp_path: Path) -> None:
    own = TeacherSpec(name="medclip", summary="", source="", loader="", unavailable="own code")
    registry = "version: 1\nteachers:\n  medclip:\n  a: {from: local:a}\n"
    project = stub.make_project(tmp_path, own, registry=registry)
    stub.write(tmp_path / "a")
    with raises_error("KD-REG-013", where="registry.lock"):
        open_teacher(project, "a")
    assert len(check_lock(project)) == 1
    notes = stub.Notes()
    assert list(lock_teachers(project, reporter=notes)) == ["a"]
    assert "own code" in notes.warnings[0]
    assert check_lock(project.reloaded()) == []
    with raises_error("KD-REG-001", where="registry.yaml:3"):
        lock_teachers(project, ["medclip"])
    assert (tmp_path / "registry.yaml").read_text("utf-8") == registry


def test_removing_keeps_the_registry_text_and_cached_features(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    before = (tmp_path / "registry.yaml").read_bytes()
    stub.write(tmp_path / "a")
    add_teacher(project, "a", {"from": "local:a"})
    (project.features / "a").mkdir(parents=True)
    remove_teacher(project, "a")
    assert (tmp_path / "registry.yaml").read_bytes() == before
    assert Lock.load(project.lock_path).teachers == {}
    assert not (project.artifacts / "a").exists()
    assert (project.features / "a").is_dir()
    assert dict(project.reloaded().registry.teachers) == {}


def test_planning_writes_nothing(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "a", pickled=True)
    before = stub.tree(tmp_path)
    planned = plan_addition(project, "a", {"from": "local:a"})
    assert stub.tree(tmp_path) == before
    assert set(planned.forecast.sizes) == {"stub.json", "pytorch_model.bin"}
    assert "+  a:\n+    from: local:a\n" in planned.diff


def test_a_plan_warns_of_the_license_like_the_addition(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    folder = stub.write(tmp_path / "a")
    for notes, add in ((stub.Notes(), plan_addition), (stub.Notes(), plan_addition), (stub.Notes(), add_teacher)):
        add(project, "a", {"from": "local:a"}, reporter=notes)
        assert [("license" in text) for text in notes.warnings] == ([] if (folder / "README.md").exists() else [True])
        (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")


def test_an_invalid_name_is_refused(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "a")
    stub.refused(project, "Gewebe", {"from": "local:a"}, "KD-TEACH-001", mentions=("'Gewebe'",))


def test_domains_without_samples_are_reported_before_fetching(tmp_path: Path) -> None:
    (tmp_path / "data" / "fundus").mkdir(parents=True)
    entry = "{source: folder, path: data, options: {domain: retina, split: train}}"
    project = stub.make_project(tmp_path, registry=f"version: 1\ndata:\n- {entry}\nteachers:\n")
    sources = load_catalogue().contents["source"]
    contents = {**project.catalogue.contents, "source": sources}
    project = project.with_catalogue(replace(project.catalogue, contents=contents))
    stub.write(tmp_path / "a")
    fields = {"from": "local:a", "domains": ["retin", "retina"]}
    notes = stub.Notes()
    plan_addition(project, "a", fields, reporter=notes)  # no image yet: the data cannot be read
    assert not [text for text in notes.warnings if "domain" in text]
    paint(tmp_path / "data" / "fundus" / "0.png", seed=0)
    for add in (plan_addition, add_teacher):
        notes = stub.Notes()
        add(project, "a", fields, reporter=notes)
        (warning,) = [text for text in notes.warnings if "domain" in text]
        assert "'retin'" in warning
        assert "'retina'" in warning


def test_two_processes_cannot_write_at_once(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "a")
    with project.exclusive("kdkit distill"):
        for attempt in (
            lambda: add_teacher(project, "a", {"from": "local:a"}),
            lambda: remove_teacher(project, "a"),
            lambda: lock_teachers(project),
        ):
            with raises_error("KD-PROJ-002", mentions=("'kdkit distill'",)):
                Context().run(attempt)  # as another command: a command may take its own lock again


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "a")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr(shutil, "copy2", full)
    stub.refused(project, "a", {"from": "local:a"}, "KD-BASE-002", code=ExitCode.MISSING)


def test_signals_of_an_opened_teacher(tmp_path: Path) -> None:
    from PIL import Image

    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "a", width=4)
    add_teacher(project, "a", {"from": "local:a"})
    signals = open_teacher(project.reloaded(), "a").signals
    sample = Sample(id="s", image=Path("s.png"), text="four", domain="ct")
    rows = signals.compute([signals.prepare(Image.new("RGB", (2, 2), (1, 2, 3)), sample)])
    matrix = torch.arange(12.0).view(3, 4) / 10
    torch.testing.assert_close(rows["image"], torch.tensor([[1.0, 2.0, 3.0]]) @ matrix)
    torch.testing.assert_close(rows["text"], torch.tensor([[4.0, 4.0, 4.0]]) @ matrix)
