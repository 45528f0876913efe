"""Distillation whole, on a toy project: versions, increments, the guard, exact resumption, several processes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import Silent
from kdkit.core.distill import judge, promotion
from kdkit.core.distill import prepare as prepare_module
from kdkit.core.distill.guard_tasks import GuardTasks
from kdkit.core.distill.loop import sharding
from kdkit.core.distill.loop.sharding import Sharding
from kdkit.core.distill.model import student
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.guard import apply_guard
from kdkit.core.evaluation.retention import Retention
from kdkit.core.project.project import Project
from kdkit.core.project.registry import load
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.registry.schema import GuardEntry
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.building import build_prepared
from tests.core.distill.toy_runs import Heard, assert_equal, recipe, run, weights
from tests.errors import raises_error
from tests.toy_project import make_project, open_project, toy_catalogue, train_teacher


def test_the_first_version_learns_what_its_teacher_may_teach(first_version: Path) -> None:
    version = Versions(open_project(first_version)).get()
    scores = version.lineage.scores.domains
    assert version.name == "v1"
    assert scores["ct"]["accuracy"] > 0.8
    assert scores["mri"]["accuracy"] > 0.8
    assert version.lineage.data.domains_without_teacher == ("xray",)
    assert version.lineage.data.known == ("ct", "mri")
    teacher = version.lineage.teachers[0]
    assert (teacher.name, teacher.since, sorted(teacher.domains)) == ("radio", "v1", ["ct", "mri"])
    assert not list((first_version / ".kdkit" / "runs").glob("*"))


def test_an_increment_learns_the_new_domain_and_keeps_the_old(with_xray: Path) -> None:
    outcome = run(open_project(with_xray), incremental=True)
    lineage = outcome.version.lineage
    assert (outcome.version.name, lineage.parent) == ("v2", "v1")
    assert lineage.scores.domains["xray"]["accuracy"] > 0.8
    assert outcome.retention is not None
    assert outcome.retention.new_domains == ("xray",)
    assert set(outcome.retention.domains) == {"ct", "mri"}
    assert outcome.retention.mean is not None
    assert outcome.retention.mean > -10
    assert {t.name: t.since for t in lineage.teachers} == {"radio": "v1", "xr": "v2"}
    assert Versions(open_project(with_xray)).get().name == "v2"


def test_an_increment_needs_the_old_teacher_no_more(with_xray: Path) -> None:
    shutil.rmtree(with_xray / "models" / "radio")
    shutil.rmtree(with_xray / ".kdkit" / "artifacts" / "radio")
    outcome = run(open_project(with_xray), incremental=True)
    assert outcome.version.lineage.data.replayed > 0
    assert outcome.evaluation.model("radio").means["accuracy"] > 0.5


def test_a_missing_teacher_teaches_from_its_stored_column(with_xray: Path) -> None:
    manifest = with_xray / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    extra = [dict(row, id=row["id"] + "-b", text=row["text"] + " again") for row in rows if row["domain"] == "xray"]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *extra]), encoding="utf-8")
    shutil.rmtree(with_xray / "models" / "radio")
    shutil.rmtree(with_xray / ".kdkit" / "artifacts" / "radio")
    heard = Heard()
    outcome = distill(open_project(with_xray), Options(cpu=True, incremental=True), reporter=heard)
    assert outcome is not None
    assert outcome.version.name == "v2"
    assert any("'radio'" in line and "opened" in line for line in heard.warnings)


def test_previous_version_keeps_a_known_domain_without_a_teacher(with_xray: Path) -> None:
    registry = with_xray / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("license: mit", "license: mit\n    domains: [ct]", 1)
    registry.write_text(text.replace("tolerance: 10", "tolerance: 10, domains: {mrj: 2.0}"), encoding="utf-8")
    heard = Heard()
    plan = prepare(open_project(with_xray), Options(incremental=True), heard).plan
    assert plan.domains_without_teacher == ("mri",)
    assert plan.domains_without_rehearsal == ("mri",)
    assert any("v1 knows mri" in line and "increment.previous" in line for line in heard.warnings)
    assert any("guard.domains" in line and "'mrj'" in line for line in heard.warnings)
    recipe(with_xray, ("replay: 0.5", "replay: 0.5, previous: {weight: 1.0}"))
    outcome = run(open_project(with_xray), incremental=True)
    assert outcome.retention is not None
    assert outcome.retention.domains["mri"].points > -10


def test_unreadable_images_are_left_out_where_that_is_asked_for(folder: Path) -> None:
    (folder / "images" / "ct-mass-0-0.png").write_bytes(b"no image")
    with raises_error("KD-FEAT-005", mentions=("1", "288")):
        run(open_project(folder))
    registry = folder / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    asked = text.replace("path: images/samples.jsonl", "path: images/samples.jsonl, options: {skip_unreadable: true}")
    registry.write_text(asked, encoding="utf-8")
    assert sum(run(open_project(folder)).version.lineage.data.samples.values()) == 6 * 12 - 1


def test_forgetting_is_refused_and_kept_aside_and_can_be_overruled(with_xray: Path) -> None:
    recipe(with_xray, ("replay: 0.5, steps: 0.5", "replay: 0.0, steps: 4.0, repair: null"))
    registry = with_xray / "registry.yaml"
    others = "tolerance: 10, retrieval/ct: 0, 'knn:auc/mri': 100"
    registry.write_text(registry.read_text(encoding="utf-8").replace("tolerance: 10", others), "utf-8")
    outcome = run(open_project(with_xray), incremental=True)
    assert outcome.retention is not None
    assert [(c.name, c.tolerance) for c in outcome.retention.checks] == [("retrieval/ct", 0), ("knn:auc/mri", 100)]
    versions = Versions(open_project(with_xray))
    guard = outcome.version.lineage.guard
    assert guard is not None
    assert guard.failed
    assert outcome.version.lineage.repair is None
    compared = [*outcome.retention.domains.values(), *outcome.retention.checks]
    assert set(guard.failed) == {c.name for c in compared if c.over_tolerance and c.significant}
    assert outcome.version.refused
    assert run(open_project(with_xray), incremental=True).version == outcome.version
    assert (versions.get().name, versions.candidates()) == ("v1", ("v2",))
    registry.write_text(registry.read_text(encoding="utf-8").replace(others, "tolerance: 100"), "utf-8")
    judged = run(open_project(with_xray), incremental=True).version
    assert (judged.name, judged.refused, judged.lineage.guard and judged.lineage.guard.failed) == ("v2", False, ())
    assert versions.get().name == "v2"
    assert versions.rollback().name == "v1"
    assert versions.names() == ("v1", "v2")


@pytest.mark.parametrize("target", ["retrieval:recall@10/ct", "'retrieval:median rank image-to-text/ct'"])
def test_a_metric_that_the_guard_cannot_compare_is_refused_before_training(with_xray: Path, target: str) -> None:
    registry = with_xray / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace("tolerance: 10", f"tolerance: 10, {target}: 1.0"), "utf-8")
    with raises_error("KD-DIST-280", mentions=("recall@1", "image-to-text@1")):
        run(open_project(with_xray), incremental=True)
    assert not list((with_xray / ".kdkit" / "runs").glob("*"))


def test_a_task_that_fails_after_training_is_said_not_to_be_compared(with_xray: Path) -> None:
    registry = with_xray / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace("tolerance: 10", "tolerance: 10, knn/ct: 1.0, retrieval/ct: 1.0"), "utf-8")
    project, heard = open_project(with_xray), Heard()
    inventory = prepare(project, Options(incremental=True), heard).inventory
    parent = Versions(project).get()
    image = next(s.image for s in inventory.index.samples if s.domain == "ct" and s.split == "train")
    tasks, student = GuardTasks(project, inventory), cast(nn.Module, load_student(parent, project.catalogue))
    Path(str(image)).write_bytes(b"no image")
    found = list(tasks.compare(student, parent, heard))
    assert [one if isinstance(one, str) else one.name for one in found] == ["knn/ct", "retrieval/ct"]
    assert isinstance(found[0], str)
    assert any("'knn'" in line for line in heard.warnings)
    mask = np.array([s.image == image for s in inventory.index.samples])
    skipping = GuardTasks(project, replace(inventory, unreadable=mask))
    assert all(not isinstance(one, str) for one in skipping.compare(student, parent, heard))


@pytest.mark.parametrize(
    ("mean", "high", "test", "promoted"),
    [(-3.0, -0.5, "bootstrap", False), (-3.0, 0.5, "bootstrap", True), (-3.0, 0.5, "point", False)],
)
def test_many_small_losses_break_the_guard_together(mean: float, high: float, test: str, promoted: bool) -> None:
    lost = Retention({}, {}, (), (), (), mean, -6.0, high, "accuracy")
    assert apply_guard(lost, GuardEntry.model_validate({"test": test})).promoted is promoted


def test_new_samples_alone_are_an_increment(folder: Path) -> None:
    manifest = folder / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    extra = [dict(row, id=row["id"] + "-b", text=row["text"] + " again") for row in rows if row["domain"] == "ct"][:9]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *extra]), encoding="utf-8")
    plan = prepare(open_project(folder), Options(incremental=True), Silent()).plan
    assert (plan.fresh, plan.new_teachers) == (9, ())
    assert plan.replayed == 2 * 3 * 12, "no teacher covers xray"
    for _ in range(2):
        assert run(open_project(folder), incremental=True).version.name == "v2"
    with raises_error("KD-DIST-035"):
        run(open_project(folder), incremental=True, restart=True)


@pytest.mark.parametrize(("oversample", "times"), [(None, 1.0), (2.0, 2.0), (4.0, 0.9 * 3)])
def test_new_samples_are_shown_no_more_often_than_asked_for(
    with_xray: Path, oversample: float | None, times: float
) -> None:
    """Of the training samples a third is new: 0.9 of a batch, which replay leaves, is 2.7 times as often."""
    more = "" if oversample is None else f", oversample: {oversample}"
    recipe(with_xray, ("replay: 0.5, steps: 0.5", f"replay: 0.1, steps: 1.0{more}"))
    plan = prepare(open_project(with_xray), Options(incremental=True), Silent()).plan
    from_scratch = 40 * 24 / (9 * 12)  # steps * batch_size / samples
    shown = plan.settings.steps * plan.batch_size * plan.pools[-1].share / plan.fresh
    assert shown / from_scratch == pytest.approx(times)
    assert sum(pool.share for pool in plan.pools) == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "term"),
    [
        ("previous: {weight: 1.0, loss: fd}", "@previous/fd"),
        ("pull: 0.1", "pull"),
    ],
)
def test_strategies_enter_the_loss(with_xray: Path, change: str, term: str) -> None:
    recipe(with_xray, ("replay: 0.5", f"replay: 0.5, {change}"))
    log = run(open_project(with_xray), incremental=True).version.lineage.training.log
    assert term in log[-1]


def test_interpolation_lies_between_the_parent_and_the_trained_weights(with_xray: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(with_xray, tmp_path / "other"))
    recipe(other, ("replay: 0.5", "replay: 0.5, interpolate: 0.25"))
    run(open_project(with_xray), incremental=True)
    run(open_project(other), incremental=True)
    before, trained, mixed = weights(other, "v1"), weights(with_xray, "v2"), weights(other, "v2")
    name = "image_tower.0.weight"
    torch.testing.assert_close(mixed[name], 0.75 * before[name] + 0.25 * trained[name])


def test_a_new_teacher_is_aligned_to_the_space_that_the_student_lives_in(folder: Path) -> None:
    recipe(folder, ("space: heads", "space: shared\naligner: {name: procrustes}"))
    shutil.rmtree(folder / "versions")
    run(open_project(folder))
    train_teacher(["xray"], width=20, seed=5).save(folder / "models" / "xr")
    add_teacher(open_project(folder), "xr", {"from": "local:models/xr", "loader": "toy", "license": "mit"})
    run(open_project(folder), incremental=True)
    before, after = weights(folder, "v1"), weights(folder, "v2")
    old = {name for name in before if ".aligner." in name}
    assert old
    assert all(torch.equal(before[name], after[name]) for name in old)
    assert {name.replace("@radio", "@xr") for name in old} == {n for n in after if ".aligner." in n} - old


def test_target_normalization_is_fitted_on_training_samples_alone(folder: Path) -> None:
    recipe(folder, ("space: heads", "space: heads\ntargets: {normalize: standardize}"))
    project = open_project(folder)
    prepared = prepare(project, Options(), Silent())
    made = build_prepared(project, prepared)
    table, teaching = prepared.inventory.index, made.targets[0]
    train = table.select(split="train", domains=["ct", "mri"])
    expected = teaching.gather("image", teaching.rows[train]).astype(np.float64).mean(axis=0)
    mean = made.task.get_buffer("projections.@radio.norms.image.mean").numpy()
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)


def test_the_whole_of_a_version_comes_back(folder: Path) -> None:
    project = open_project(folder)
    student: Any = load_student(Versions(project).get(), project.catalogue)
    saved = load_file(folder / "versions" / "v1" / "student" / "toy.safetensors")
    assert_equal(dict(student.state_dict()), saved)
    assert not student.training


def test_same_seed_same_student_and_another_seed_another(folder: Path) -> None:
    run(open_project(folder), restart=True)
    run(open_project(folder), seed=1)
    assert_equal(weights(folder, "v1"), weights(folder, "v2"))
    assert not torch.equal(weights(folder, "v3")["log_scale"], weights(folder, "v1")["log_scale"])


def test_a_moving_average_is_what_is_kept(folder: Path) -> None:
    recipe(folder, ("steps: 40}", "steps: 40, ema: 0.9}"))
    run(open_project(folder))
    assert not torch.equal(weights(folder, "v2")["log_scale"], weights(folder, "v1")["log_scale"])


def test_the_lineage_says_the_policy_that_the_registry_chose(folder: Path) -> None:
    with (folder / "registry.yaml").open("a", encoding="utf-8") as registry:
        registry.write("\ntrust: {policy: all, options: {unmeasured: true}}\n")
    recipe = run(open_project(folder)).version.lineage.recipe
    assert (recipe.trust.policy, recipe.trust.options) == ("all", {"unmeasured": True})


def test_a_loss_that_is_not_a_number_stops_the_run(folder: Path) -> None:
    recipe(folder, ("lr: 0.01", "lr: 1.0e+30"), ("steps: 40", "steps: 41"))
    with raises_error("KD-DIST-017"):
        run(open_project(folder))
    assert Versions(open_project(folder)).names() == ("v1",)


def test_what_several_processes_cannot_do_is_refused_before_extraction(
    with_xray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a dry run and the run itself plan, in one process as in many."""
    before = sorted((with_xray / "features").rglob("*.h5"))

    def refused(error: str, *mentions: str, **options: Any) -> None:
        with raises_error(error, mentions=mentions):
            prepare(open_project(with_xray), Options(cpu=True, **options), Silent())
        assert sorted((with_xray / "features").rglob("*.h5")) == before

    refused("KD-DIST-038", "7 processes", incremental=True, processes=7)
    with monkeypatch.context() as old:
        old.setattr(sharding, "LEAST_TORCH", "99.0")
        refused("KD-DIST-403", "99.0", incremental=True, processes=2, sharding=Sharding())
    with monkeypatch.context() as quantized:
        packed = nn.Linear(2, 2)
        packed.weight = nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
        quantized.setattr(student.StudentBuilder, "student", packed)
        refused("KD-DIST-597", "weight", incremental=True, processes=2, sharding=Sharding())
    recipe(with_xray, ("replay: 0.5", "pull: 0.1, previous: {frozen_energy: 0.5}, replay: 0.5"))
    refused("KD-DIST-405", "increment.pull, frozen_energy", incremental=True, sharding=Sharding())
    prepare(open_project(with_xray), Options(cpu=True, sharding=Sharding(), restart=True), Silent()).close()


def test_a_finished_run_makes_no_second_version(folder: Path) -> None:
    (folder / "versions" / "current").unlink()  # a kill between the two renames of a promotion
    assert run(open_project(folder)).version.name == "v1"
    assert Versions(open_project(folder)).get().name == "v1"


def test_a_finished_increment_makes_no_second_version(with_xray: Path) -> None:
    made = weights(with_xray, run(open_project(with_xray), incremental=True).version.name)
    assert prepare(open_project(with_xray), Options(incremental=True), Silent()).plan.finished == "v2"
    assert Versions(open_project(with_xray)).rollback().name == "v1"
    assert run(open_project(with_xray), incremental=True).version.name == "v2"
    assert Versions(open_project(with_xray)).get().name == "v2"
    assert_equal(made, weights(with_xray, "v2"))
    (with_xray / "versions" / "v2" / "task.safetensors").write_bytes(b"damaged")
    Versions(open_project(with_xray)).make_current("v1")
    assert run(open_project(with_xray), incremental=True).version.name == "v3", "a damaged version is no result"


def test_increment_without_a_version(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", teachers={"radio": ("ct",)}, domains=("ct",), train=4, held_out=4)
    with raises_error("KD-DIST-037"):
        run(project, incremental=True)


def test_another_student_is_refused(with_xray: Path) -> None:
    registry = with_xray / "registry.yaml"
    registry.write_text(registry.read_text(encoding="utf-8").replace("width: 12", "width: 13"), encoding="utf-8")
    with raises_error("KD-DIST-018"):
        run(open_project(with_xray), incremental=True)


def test_cached_features_need_permission_too(folder: Path) -> None:
    registry = folder / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("license: mit", "license: cc-by-nc-4.0")
    registry.write_text(text.replace("version: 1", "version: 1\nuse: commercial", 1), encoding="utf-8")
    with raises_error("KD-TEACH-009", where="registry.yaml:5", mentions=("'radio'",)) as caught:
        run(open_project(folder))
    assert caught.value.code == ExitCode.DENIED


def test_an_entry_that_changed_since_the_lock_is_said(folder: Path) -> None:
    registry = folder / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("from: local:models/radio", "from: local:models/other")
    registry.write_text(text, encoding="utf-8")
    with raises_error("KD-TEACH-007", where="registry.yaml", mentions=("'radio'",)):
        run(open_project(folder))


def test_a_changed_teacher_is_a_new_teacher(folder: Path) -> None:
    from kdkit.core.teachers.add import lock_teachers

    train_teacher(["ct", "mri"], width=8, seed=77).save(folder / "models" / "radio")
    lock_teachers(open_project(folder), ["radio"])
    plan = prepare(open_project(folder), Options(incremental=True), Silent()).plan
    assert plan.new_teachers == ("radio",)


def test_files_are_read_and_the_student_is_built_once(with_xray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe(with_xray, ("replay: 0.5", "replay: 0.5, interpolate: 0.25, previous: {weight: 1.0}"))
    project, calls = Project(with_xray).with_catalogue(toy_catalogue()), Counter[str]()
    for owner, name in (
        (load, "load_registry"),
        (Lock, "load"),
        (prepare_module, "load_index"),
        (student, "load_student"),
        (promotion, "load_student"),
        (judge, "load_student"),
    ):
        monkeypatch.setattr(owner, name, partial(_counted, calls, f"{owner.__name__}.{name}", getattr(owner, name)))
    run(project, incremental=True)
    names = ("registry.load.load_registry", "Lock.load", "prepare.load_index", "student.load_student")
    assert [sum(n for call, n in calls.items() if call.endswith(name)) for name in names] == [1, 1, 1, 1]
    assert sum(calls.values()) == len(names)


def _counted(calls: Counter[str], name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    calls[name] += 1
    return function(*args, **options)
