"""Recipes with stages: one run is two runs by hand, resumes in any stage, and has one lineage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from kdkit.core.contracts import Silent
from kdkit.core.distill.cost_estimate import dry_run
from kdkit.core.distill.explain.explain import explain
from kdkit.core.distill.explain.runs import ExplainOptions
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Versions
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.on_policy import project as answering
from tests.core.distill.toy_runs import ALL, Heard, add_xray, assert_equal, run, weights
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import make
from tests.toy_project import RECIPE, make_project, open_project

FIRST = """\
name: first
summary: captions
losses: [{name: clip}]
trust: {policy: all}
optimizer: {lr: 0.01, batch_size: 24, steps: 6}
"""
STAGED = """\
name: staged
summary: captions, then teachers
stages:
  - {recipe: ./first.yaml}
  - {recipe: ./toy.yaml, optimizer: {steps: 8}}
"""


class Interrupting(Silent):
    """Ctrl-C after a step of a stage; keeps what is said."""

    def __init__(self, stage: int, step: int) -> None:
        self.stage, self.step = stage, step
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        begun = sum(line.startswith("stage ") and ": " in line for line in self.said)
        if (label, begun, done) == ("distill", self.stage, self.step):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with features, and with a recipe of two stages."""
    root = tmp_path_factory.mktemp("staged") / "project"
    made = make_project(root, teachers={"radio": ("ct", "mri")}, domains=ALL, train=4, held_out=4)
    prepare(made, Options(), Silent())
    (root / "first.yaml").write_text(FIRST, encoding="utf-8")
    (root / "toy.yaml").write_text(RECIPE.replace("steps: 40", "steps: 8"), encoding="utf-8")
    (root / "staged.yaml").write_text(STAGED, encoding="utf-8")
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("tolerance: 10", "tolerance: 100")
    registry.write_text(text.replace("./toy.yaml", "./staged.yaml"), encoding="utf-8")
    return root


@pytest.fixture
def project(extracted: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(extracted, tmp_path / "project"))


def copy(folder: Path) -> Path:
    return Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-copy")))


def by_hand(folder: Path, first: str = "./first.yaml", then: str = "./toy.yaml") -> Path:
    other = copy(folder)
    run(open_project(other), recipe=first)
    run(open_project(other), recipe=then, incremental=True, continued=True)
    return other


@pytest.mark.parametrize(
    "change",
    [
        None,
        ("space: heads", "space: shared\naligner: {name: procrustes}\ntargets: {normalize: standardize}"),
    ],
)
def test_two_stages_are_two_runs_by_hand(project: Path, change: tuple[str, str] | None) -> None:
    if change is not None:
        text = (project / "toy.yaml").read_text(encoding="utf-8")
        (project / "toy.yaml").write_text(text.replace(*change), encoding="utf-8")
    other = by_hand(project)
    run(open_project(project))
    assert_equal(weights(project, "v1"), weights(other, "v2"))
    alone = weights(other, "v1")
    assert any(not alone[name].equal(x) for name, x in weights(project, "v1").items() if name in alone)


def test_stages_of_one_recipe_continue_its_heads(project: Path) -> None:
    (project / "staged.yaml").write_text(STAGED.replace("./first.yaml", "./toy.yaml"), encoding="utf-8")
    other = by_hand(project, "./toy.yaml", "./toy.yaml")
    run(open_project(project))
    assert_equal(weights(project, "v1"), weights(other, "v2"))
    for stage, made in ((1, "v1"), (2, "v2")):  # a stage alone is the run by hand, which is finished here
        assert run(open_project(other), stage=stage, continued=stage > 1).version.name == made


def test_one_lineage_has_all_stages(project: Path) -> None:
    lineage = run(open_project(project)).version.lineage
    assert (lineage.version, lineage.parent, lineage.recipe.name) == ("v1", None, "staged")
    assert [stage.name for stage in lineage.recipe.stages] == ["first", "toy"]
    (first,) = lineage.stages
    assert (first.number, first.name, first.teachers, first.training.steps) == (1, "first", (), 6)
    assert first.samples == {"ct": 12, "mri": 12, "xray": 12}
    assert lineage.training.steps == 8
    assert lineage.data.samples == first.samples
    assert (lineage.data.fresh, lineage.data.replayed, lineage.data.skipped_samples) == (36, 0, 0)
    assert lineage.data.known == ("ct", "mri", "xray")
    assert lineage.data.domains_without_teacher == ("xray",)
    assert sum(lineage.data.drawn.values()) == 24 * (6 + 8)
    assert lineage.seconds > lineage.training.seconds
    assert not list((project / ".kdkit" / "runs").iterdir())
    assert run(open_project(project)).version.name == "v1", "a finished run makes no second version"


def test_a_dry_run_plans_and_measures_every_stage(project: Path) -> None:
    from kdkit.api.student import DistillPlan

    plan = DistillPlan(dry_run(open_project(project), Options(cpu=True), Silent()))
    data = plan.to_json()
    (first,) = data["earlier"]
    assert [(one["recipe"], one["stage"]["number"], one["steps"]) for one in (first, data)] == [
        ("first", 1, 6),
        ("toy", 2, 8),
    ]
    assert first["estimate"]["seconds"] > 0
    assert plan.plan.digest == prepare(open_project(project), Options(), Silent()).plan.digest != first["digest"]
    text = "\n".join(section for section in plan.sections() if isinstance(section, str))
    assert "Stage 1 of 2: first; a new student" in text
    assert text.startswith("Recipe staged: first, then toy")
    assert "Stage 2 of 2: toy; from the stage before" in text


def test_teachers_of_an_earlier_stage_are_teachers_of_the_version(project: Path) -> None:
    lines = STAGED.splitlines(keepends=True)
    (project / "staged.yaml").write_text("".join([*lines[:3], lines[4], lines[3]]), encoding="utf-8")
    lineage = run(open_project(project)).version.lineage
    assert [(one.name, one.since, one.inherited, one.samples) for one in lineage.teachers] == [
        ("radio", "v1", False, 24)
    ]
    assert lineage.stages[0].teachers == ("radio",)
    assert lineage.data.domains_without_teacher == ("xray",)
    plan = prepare(open_project(add_xray(project)), Options(incremental=True), Silent()).plan
    assert (plan.recipe.name, plan.stage and plan.stage.number, plan.new_teachers) == ("toy", 1, ("xr",))


@pytest.mark.parametrize(("stage", "step"), [(1, 4), (2, 5)])
def test_an_interrupted_stage_continues(project: Path, stage: int, step: int) -> None:
    other = copy(project)
    run(open_project(other))
    (stopped, again) = Interrupting(stage, step), Interrupting(0, 0)
    options = Options(cpu=True, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        distill(open_project(project), options, reporter=stopped)
    distill(open_project(project), options, reporter=again)
    assert any(line.startswith(f"continuing at step {step - 1}") for line in again.said)
    assert ("stage 1 of 2 was finished before" in again.said) == (stage == 2)
    assert_equal(weights(project, "v1"), weights(other, "v1"))


def test_a_damaged_result_of_a_stage_is_trained_again(project: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        distill(open_project(project), Options(cpu=True), reporter=Interrupting(2, 1))
    (result,) = (project / ".kdkit" / "runs").glob("*/stage-1")
    (result / "student" / "toy.safetensors").write_bytes(b"damaged")
    heard = Heard()
    assert distill(open_project(project), Options(cpu=True), reporter=heard) is not None
    assert any("trained again" in line for line in heard.warnings)


def test_an_increment_leaves_out_stages_with_nothing_new(project: Path) -> None:
    run(open_project(project))
    with raises_error("KD-DIST-035"):
        prepare(open_project(project), Options(incremental=True), Silent())
    heard = Interrupting(0, 0)
    add_xray(project)
    plan = prepare(open_project(project), Options(incremental=True), heard)
    assert any(line.startswith("stage 1 (first) is left out") for line in heard.said)
    assert not plan.earlier
    assert (plan.plan.new_teachers, plan.plan.fresh, plan.plan.replayed) == (("xr",), 12, 24)
    lineage = run(open_project(project), incremental=True).version.lineage
    assert (lineage.parent, lineage.stages, lineage.recipe.name) == ("v1", (), "staged")
    assert {one.name: one.since for one in lineage.teachers} == {"radio": "v1", "xr": "v2"}


def test_every_stage_of_an_increment_replays_and_the_end_is_judged(project: Path) -> None:
    run(open_project(project))
    add_xray(project)
    manifest = project / "images" / "samples.jsonl"
    rows = manifest.read_text(encoding="utf-8").splitlines()
    more = [row.replace('"id": "xray', '"id": "more').replace('."', ' again."') for row in rows if '"id": "xray' in row]
    manifest.write_text("\n".join([*rows, *more]) + "\n", encoding="utf-8")
    first = (project / "first.yaml").read_text(encoding="utf-8")
    (project / "first.yaml").write_text(first + "increment: {replay: 0.5, steps: 1.0}\n", encoding="utf-8")
    registry = project / "registry.yaml"
    registry.write_text(registry.read_text(encoding="utf-8").replace("tolerance: 100", "tolerance: 0, test: point"))
    prepared = prepare(open_project(project), Options(incremental=True), Silent())
    assert [stage.plan.replayed > 0 for stage in prepared.stages] == [True, True]
    outcome = run(open_project(project), incremental=True)
    lineage = outcome.version.lineage
    assert lineage.parent == "v1"
    assert outcome.retention is not None
    assert [stage.name for stage in lineage.stages] == ["first"]
    if lineage.repair is not None and lineage.repair.kept is not None:  # tried between v1 and the end
        assert Versions(open_project(project)).get().name == "v2"


def test_a_version_continues_with_a_recipe_that_has_nothing_new(project: Path) -> None:
    first: Any = {"recipe": "./first.yaml"}
    run(open_project(project), **first)
    with raises_error("KD-DIST-035"):
        run(open_project(project), **first, incremental=True)
    lineage = run(open_project(project), **first, continued=True).version.lineage
    assert (lineage.parent, lineage.training.steps, lineage.training.lr) == ("v1", 6, 0.01)
    assert (lineage.data.fresh, lineage.data.replayed, lineage.training.previous) == (36, 0, None)
    again = run(open_project(project), **first, continued=True).version.name
    assert again == "v2", "the same command makes no second version"
    heard = Heard()
    plan = prepare(open_project(project), Options(cpu=True, recipe="./toy.yaml", continued=True), heard).plan
    assert (plan.parent, plan.continued, plan.settings.steps, plan.fresh, plan.replayed) == ("v2", True, 8, 24, 0)
    assert plan.domains_without_rehearsal == ("xray",)
    assert any("--continue" in line for line in heard.warnings)


def test_stages_that_cannot_be_trained_are_found_before_the_first(project: Path) -> None:
    (project / "staged.yaml").write_text(STAGED.replace("./toy.yaml", "sft"), encoding="utf-8")
    with raises_error("KD-DIST-360", where="recipe sft", mentions=("answer_hidden", "image")):
        run(open_project(project))
    assert not (project / ".kdkit" / "runs").exists() or not list((project / ".kdkit" / "runs").iterdir())
    (project / "staged.yaml").write_text(STAGED, encoding="utf-8")
    registry = project / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("license: mit", "license: mit\n    domains: [xray]")
    registry.write_text(text, encoding="utf-8")
    with raises_error("KD-DIST-033", where="recipe staged, stage 2 (toy)"):
        run(open_project(project))
    with raises_error("KD-DIST-361", where="--stage"):
        run(open_project(project), stage=3)


def test_an_explanation_of_stages_is_refused(project: Path) -> None:
    run(open_project(project))
    with raises_error("KD-DIST-362"):
        explain(open_project(project), None, ExplainOptions(cpu=True), Silent())


def test_a_teacher_that_a_later_stage_cannot_use_is_found_before_the_first_trains(tmp_path: Path) -> None:
    """Its tokens are compared with the student's once they are stored and trust is known."""
    root = tmp_path / "p"
    answering.make_project(root, None, live=False, losses=[{"name": "uld"}])
    (root / "registry.yaml").write_text(answering.REGISTRY, encoding="utf-8")  # without its teacher
    sizes = {**answering.SIZES, "words": answering.WORDS[::-1]}
    make(seed=2, sizes=sizes, max_tokens=80, max_answer=28, max_pixels=3136, system="").save(root / "models" / "other")
    add_teacher(Project(root), "other", {**answering.LIVE, "from": "local:models/other", "signals": "stored"})
    prepare(Project(root), Options(cpu=True), Silent())  # extracts
    trust = "trust: {policy: all, options: {unmeasured: true}}, optimizer: {batch_size: 4, steps: 2}"
    listed = "".join(f"  - {{recipe: {name}, {trust}}}\n" for name in ("sft", "clinkd"))
    (root / "own.yaml").write_text(f"name: two\nsummary: two\nstages:\n{listed}", encoding="utf-8")
    with raises_error("KD-DIST-036", mentions=("'other'",)):
        run(Project(root))
    assert not list((root / ".kdkit" / "runs").glob("*/*"))


def test_an_answering_student_learns_from_teachers_and_then_from_answers(tmp_path: Path) -> None:
    root = tmp_path / "p"
    answering.make_project(root, None, live=False)
    stage = "{recipe: %s, trust: {policy: all, options: {unmeasured: true}}, optimizer: {%s, batch_size: 4, steps: 4}}"
    listed = "".join(f"  - {stage % (name, rate)}\n" for name, rate in (("clinkd", "lr: 0.003"), ("sft", "lr: 0.001")))
    text = f"name: two\nsummary: distill, then fine-tune\nstages:\n{listed}"
    (root / "own.yaml").write_text(text, encoding="utf-8")
    with (root / "registry.yaml").open("a", encoding="utf-8") as registry:
        registry.write("guard: {tolerance: 100}\n")
    prepare(Project(root), Options(cpu=True), Silent())  # extracts
    other = copy(root)
    whole = run(Project(root)).version
    run(Project(other), stage=1)
    last = run(Project(other), stage=2, continued=True).version
    assert_equal(*(load_file(one.folder / "student" / "model.safetensors") for one in (whole, last)))
    assert [one.name for one in whole.lineage.teachers] == ["first"]
    assert ([one.name for one in whole.lineage.stages], whole.lineage.training.lr) == (["clinkd"], 0.001)
