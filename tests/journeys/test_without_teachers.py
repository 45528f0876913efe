"""Runs whose losses read no teacher: the supervised baseline, and a start or a step between distillations."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdkit.api.versions import VersionList
from kdkit.core.contracts import Silent
from kdkit.core.data import SampleIndex
from kdkit.core.distill.cost_estimate import dry_run
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.plan import make_plan
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.promotion import Outcome
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.project.lineage import Lineage
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Versions
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.pseudo_labels import project as example
from tests.core.distill.pseudo_labels.project import Oracle
from tests.errors import raises_error
from tests.local_endpoint import local_endpoint
from tests.plugins.students.clinkd.tiny import SIZES, SMALL
from tests.toy_project import make_project, open_project, train_teacher, write_images

CAPTIONS = """\
name: own
summary: captions alone
losses: [{name: clip}]
teachers_per_sample: one
trust: {policy: threshold, options: {value: 0.7}}
optimizer: {lr: 0.01, batch_size: 24, steps: 40}
increment: {replay: 0.5, steps: 0.5}
"""


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without teachers, with a version trained on the captions of two domains."""
    root = tmp_path_factory.mktemp("toy") / "project"
    make_project(root, teachers={}, domains=("ct", "mri"))
    (root / "captions.yaml").write_text(CAPTIONS, encoding="utf-8")
    run(open_project(root))
    return root


@pytest.fixture
def folder(first_version: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first_version, tmp_path / "project"))


def run(project: Project, recipe: str | None = "./captions.yaml", **options: Any) -> Outcome:
    outcome = distill(project, Options(cpu=True, recipe=recipe, **options))
    assert outcome is not None
    return outcome


def plan(root: Path, **options: Any) -> Plan:
    return prepare(open_project(root), Options(recipe="./captions.yaml", **options), Silent()).plan


def add_xray(root: Path) -> None:
    rows = write_images(root / "images", ("xray",), train=12, held_out=10, seed=1)
    with open(root / "images" / "samples.jsonl", "a", encoding="utf-8") as manifest:
        manifest.write("".join(json.dumps(row) + "\n" for row in rows))


def add_radio(root: Path, *knows: str) -> None:
    train_teacher(knows or ("ct", "mri"), width=8, seed=0).save(root / "models" / "radio")
    add_teacher(open_project(root), "radio", {"from": "local:models/radio", "loader": "toy", "license": "mit"})


def test_captions_alone_make_a_version(first_version: Path) -> None:
    found = evaluate_version(open_project(first_version))
    assert [model.name for model in found.evaluation.models] == ["v1"]
    assert found.evaluation.model("v1").means["accuracy"] > 0.8
    lineage = Lineage.load(first_version / "versions" / "v1" / "lineage.json")
    assert lineage.teachers == ()
    assert lineage.data.known == ("ct", "mri")
    assert lineage.data.domains_without_teacher == ()
    assert not (first_version / "features").exists()


def test_a_student_that_nothing_can_judge_is_a_version(folder: Path) -> None:
    manifest = folder / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    rows = [{key: value for key, value in row.items() if key != "label"} for row in rows]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert plan(folder, seed=1).domains_not_judged == ("ct", "mri")
    made = run(open_project(folder), seed=1)
    lineage = made.version.lineage
    assert (lineage.version, lineage.judged, lineage.scores.mean) == ("v2", False, {})
    assert made.evaluation.split == "none"
    row = VersionList.of(Versions(open_project(folder)))[1]
    assert (row.status, row.accuracy) == ("current", None)
    assert evaluate_version(open_project(folder)).evaluation.settings["task"] == "retrieval"


def test_teachers_that_nothing_measures_make_a_version(folder: Path) -> None:
    """Policy ``all``, a released recipe, and captions without labels."""
    add_radio(folder)
    manifest, registry = folder / "images" / "samples.jsonl", folder / "registry.yaml"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    rows = [{key: value for key, value in row.items() if key != "label"} for row in rows]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = registry.read_text(encoding="utf-8") + "trust: {policy: all, options: {unmeasured: true}}\n"
    registry.write_text(text + "optimizer: {lr: 0.001, batch_size: 24, steps: 12}\n", encoding="utf-8")
    options: dict[str, Any] = {"recipe": "mmkd-released", "seed": 2}
    planned, _, _ = dry_run(open_project(folder), Options(cpu=True, recipe="mmkd-released", seed=2), Silent())[-1]
    assert planned.domains_not_judged == ("ct", "mri")
    made = run(open_project(folder), **options)
    lineage = made.version.lineage
    assert (lineage.version, lineage.judged, [teacher.name for teacher in lineage.teachers]) == ("v2", False, ["radio"])
    assert VersionList.of(Versions(open_project(folder)))[1].status == "current"
    assert lineage.training.steps == 12


class Interrupts(Silent):
    """Ctrl-C when the evaluation begins; counts the steps of training."""

    steps = 0

    def __init__(self, *, evaluation: bool) -> None:
        self.evaluation = evaluation

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        self.steps += label == "distill"
        if label == "evaluating" and self.evaluation:
            raise KeyboardInterrupt


def test_what_fails_after_training_costs_no_training(folder: Path) -> None:
    options = Options(cpu=True, recipe="./captions.yaml", restart=True)
    with pytest.raises(KeyboardInterrupt):
        distill(open_project(folder), options, reporter=Interrupts(evaluation=True))
    shutil.move(folder / "versions", folder / "whole")
    watched = Interrupts(evaluation=False)
    made = distill(open_project(folder), replace(options, restart=False), reporter=watched)
    assert made is not None
    assert (made.version.name, watched.steps) == ("v1", 0)
    for file in ("student/toy.safetensors", "task.safetensors", "evaluation.json"):
        assert (made.version.folder / file).read_bytes() == (folder / "whole" / "v1" / file).read_bytes()


def test_an_increment_brings_samples_that_are_new(folder: Path) -> None:
    with raises_error("KD-DIST-035") as caught:
        plan(folder, incremental=True)
    assert "v1 has seen" in caught.value.why
    assert "add-teacher" not in caught.value.fix
    add_xray(folder)
    made = plan(folder, incremental=True)
    assert (made.fresh, made.replayed, made.domains_without_rehearsal, made.domains_without_teacher) == (36, 72, (), ())
    outcome = run(open_project(folder), incremental=True)
    assert outcome.retention is not None
    assert outcome.retention.new_domains == ("xray",)
    assert set(outcome.retention.domains) == {"ct", "mri"}
    assert outcome.version.lineage.scores.domains["xray"]["accuracy"] > 0.8


def test_a_known_domain_without_samples_here_is_unguarded(folder: Path) -> None:
    manifest = folder / "images" / "samples.jsonl"
    kept = [line for line in manifest.read_text(encoding="utf-8").splitlines(True) if '"domain": "ct"' in line]
    manifest.write_text("".join(kept), encoding="utf-8")
    add_xray(folder)
    assert plan(folder, incremental=True).domains_without_rehearsal == ("mri",)


def test_distillation_goes_on_from_it_and_back(folder: Path) -> None:
    """v1 captions, v2 a teacher, v3 captions of a new domain: the teacher stays in the lineage and takes no part."""
    add_radio(folder)
    second = run(open_project(folder), recipe=None, incremental=True).version.lineage
    assert [(t.name, t.since) for t in second.teachers] == [("radio", "v2")]
    add_xray(folder)
    shutil.rmtree(folder / "models" / "radio")
    shutil.rmtree(folder / ".kdkit" / "artifacts")
    before = sorted((folder / "features").rglob("*"))
    third = run(open_project(folder), incremental=True)
    assert [(t.name, t.inherited) for t in third.version.lineage.teachers] == [("radio", True)]
    assert [model.name for model in third.evaluation.models] == ["student"]
    assert sorted((folder / "features").rglob("*")) == before


def test_samples_without_a_caption_teach_nothing(folder: Path) -> None:
    """Some sources give pictures without a text."""
    found = prepare(open_project(folder), Options(recipe="./captions.yaml"), Silent())

    def plan_for(domains: tuple[str, ...]) -> Plan:
        index = found.inventory.index
        samples = [s if s.domain in domains else replace(s, text="") for s in index.samples]
        inventory = replace(found.inventory, index=SampleIndex(samples, index.digests, index.may_skip))
        return make_plan(found.plan.recipe, inventory, None, {}, seed=0)

    assert plan_for(("ct", "mri")).fresh == 72
    assert plan_for(("ct",)).fresh == 36
    with raises_error("KD-DIST-034"):
        plan_for(())


def test_unreadable_images_are_skipped_where_that_is_asked_for(folder: Path) -> None:
    for name in ("ct-mass-0-0", "ct-mass-0-30"):  # of training and of test
        (folder / "images" / f"{name}.png").write_bytes(b"no image")
    registry = folder / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    asked = text.replace("path: images/samples.jsonl", "path: images/samples.jsonl, options: {skip_unreadable: true}")
    registry.write_text(asked, encoding="utf-8")
    outcome = run(open_project(folder))
    assert outcome.version.lineage.data.samples == {"ct": 35, "mri": 36}
    assert evaluate_version(open_project(folder)).evaluation.model("v2").domains["ct"].count == 29


def test_a_loss_that_reads_teachers_needs_one(folder: Path) -> None:
    text = CAPTIONS.replace("[{name: clip}]", "[{name: clip}, {name: fd}]")
    (folder / "captions.yaml").write_text(text, encoding="utf-8")
    with raises_error("KD-DIST-032") as caught:
        plan(folder)
    assert "'sft'" in caught.value.fix
    add_radio(folder, "xray")
    assert [teacher.samples for teacher in plan(folder).teachers] == [0]  # captions teach what no teacher may
    text = text.replace("{name: clip}, ", "")
    (folder / "captions.yaml").write_text(text, encoding="utf-8")
    with raises_error("KD-DIST-033") as caught:
        plan(folder)
    assert "'captions'" in caught.value.fix


def test_a_dry_run_measures_it(folder: Path) -> None:
    made, estimate, _ = dry_run(open_project(folder), Options(cpu=True, recipe="./captions.yaml"), Silent())[-1]
    assert made.teachers == ()
    assert estimate.seconds > 0


def test_sft_beside_a_teacher_that_only_answers(tmp_path: Path) -> None:
    """A Qwen2-VL-shaped student; the endpoint gives no signals, and its open questions are no samples yet."""
    root, oracle = tmp_path / "project", Oracle()
    with local_endpoint(oracle) as endpoint:
        example.make(root, endpoint, oracle, extracted=False)
    manifest, registry = root / "images" / "samples.jsonl", root / "registry.yaml"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    extra = {"task": "vqa", "messages": [{"role": "user", "content": "<image>What is it?"}]}
    manifest.write_text("".join(json.dumps({**row, "extra": extra}) + "\n" for row in rows), encoding="utf-8")
    config = json.dumps({"family": "clinkd", "config": {"sizes": SIZES, **SMALL, "max_answer": 40, "max_tokens": 128}})
    text = registry.read_text(encoding="utf-8").replace("{family: toy-vlm, config: {width: 12}}", config)
    text = text.replace("{family: toy-vlm}", config)
    registry.write_text(text + "optimizer: {steps: 6, lr: 0.01, batch_size: 6}\n", encoding="utf-8")
    with raises_error("KD-DIST-032"):
        prepare(open_project(root), Options(recipe="clinkd"), Silent())
    outcome = run(open_project(root), recipe="sft")
    log = outcome.version.lineage.training.log
    assert set(log[0]) == {"step", "loss", "answer-ce"}
    assert log[-1]["answer-ce"] < 0.9 * log[0]["answer-ce"]
    samples = outcome.version.lineage.data.samples
    assert sum(samples.values()) == 60
    assert outcome.version.lineage.teachers == ()
