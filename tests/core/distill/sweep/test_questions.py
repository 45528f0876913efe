"""What each question compares, planned on a toy project."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import Silent
from kdkit.core.distill.sweep.arrival import ArrivingTeachers
from kdkit.core.distill.sweep.prepare import PlannedSweep, SweepOptions, plan_sweep
from kdkit.core.distill.sweep.questions import teachers_question
from kdkit.core.distill.sweep.run import SweepRequest, sweep
from kdkit.core.distill.sweep.variation import Asked
from kdkit.core.distill.trials.trial import PlannedTraining, TrialOptions
from kdkit.core.evaluation.sweeps.record import SweepFolder
from kdkit.core.project.recipe_file import load_recipe
from tests.core.distill.toy_runs import ALL
from tests.errors import raises_error
from tests.toy_project import make_project, open_project

ONCE = SweepOptions(seeds=1, trials=TrialOptions(cpu=True))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions") / "project"
    make_project(folder, teachers={"radio": ("ct", "mri"), "xr": ("xray",)}, domains=ALL)
    return folder


def planned(root: Path, question: str, *arguments: str) -> PlannedSweep:
    return plan_sweep(open_project(root), "n", question, arguments, ONCE, Silent())


def test_teachers(root: Path) -> None:
    found = planned(root, "teachers")
    rows = {one.name: one for one in found.record.variations}
    assert set(rows) == {
        *("all teachers", "without radio", "without xr", "the best 1: radio"),
        *("order radio, xr", "order xr, radio"),
    }  # fmt: skip
    assert rows["without xr"].runs == rows["the best 1: radio"].runs, "one training for both"
    assert len(found.trials) == 5
    trained = {trial.title: trial.training for trial in found.trials}
    alone = trained["without radio"]
    assert isinstance(alone, PlannedTraining)
    assert [teacher.name for teacher in alone.plan.teachers] == ["xr"]
    order = trained["order xr, radio"]
    assert isinstance(order, ArrivingTeachers)
    assert order.order == ("xr", "radio")
    with raises_error("KD-DIST-390", mentions=("'counts'",)):
        planned(root, "teachers", "count")


def test_teachers_that_arrive_in_an_order(root: Path) -> None:
    short = SweepOptions(length=0.1, seeds=1, trials=TrialOptions(cpu=True))
    found = sweep(open_project(root), SweepRequest("teachers", ("order",)), short, Silent())
    assert found.folder == "sweeps/teachers-order", "the other parts of the question have folders of their own"
    assert found.missing == ()
    assert [result.variation.steps for result in found.results] == [4, 6, 6]
    assert found.results[1].accuracies != found.results[2].accuracies
    assert not (root / "versions").exists()


def test_a_policy_that_admits_no_teacher_is_a_row(root: Path) -> None:
    found = planned(root, "recipe", "trust.options.value=1.0", "trust.options.on=estimate,lower")
    impossible = found.record.variation("trust.options.value=1.0, trust.options.on=lower")
    assert impossible.runs == ()
    assert "kdkit trust" in impossible.impossible
    assert [one.name for one in planned(root, "trust", "all", "all").record.variations] == ["as it is", "all"]
    with raises_error("KD-PLUG-003", mentions=("treshold", "'threshold'")):
        planned(root, "trust", "treshold")


def test_a_domain_that_is_held_out(root: Path) -> None:
    found = planned(root, "held-out", "xray")
    row = found.record.variation("without xray")
    assert (row.domains, row.against) == (("xray",), "as it is")
    training = {trial.title: trial.training for trial in found.trials}["without xray"]
    assert isinstance(training, PlannedTraining)
    index, samples = training.inventory.index, training.plan.samples
    assert "xray" not in {index.domains[number] for number in np.unique(index.domain_index[samples])}
    assert len(index.select(split="calibration", domains=["xray"])) == 30
    assert found.record.chance["xray"] == pytest.approx(1 / 3)
    with raises_error("KD-DIST-388", mentions=("'xray'",)):
        planned(root, "held-out", "xrya")
    with raises_error("KD-DIST-387", mentions=("xray",)):
        planned(root, "held-out")


def test_a_domain_that_is_held_out_is_scored_with_all_of_its_classes(tmp_path: Path) -> None:
    """A class that only training samples have is a wrong answer for both students."""
    make_project(tmp_path / "p", teachers={"radio": ("ct", "xray")}, domains=("ct", "xray"), train=4)
    manifest = tmp_path / "p" / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    first = next(row for row in rows if (row["domain"], row["split"]) == ("xray", "train"))
    manifest.write_text("".join(json.dumps({**row, "label": "rare"} if row is first else row) + "\n" for row in rows))
    short = SweepOptions(length=0.1, seeds=1, trials=TrialOptions(cpu=True))
    sweep(project := open_project(tmp_path / "p"), SweepRequest("held-out", ("xray",), "n"), short, Silent())
    folder = SweepFolder(project, "n")
    record = folder.read()
    assert record is not None
    for one in record.variations:
        assert "rare" in str(folder.kept.load(one.runs[0]).to_json()), one.name


def test_imbalance_is_a_key_of_the_recipe(root: Path) -> None:
    found = planned(root, "imbalance")
    assert found.record.axis == "sampling.domain_power"
    assert [one.values.get("sampling.domain_power") for one in found.record.variations[1:]] == [
        0.0,
        0.25,
        0.5,
        0.75,
        1.0,
    ]
    with raises_error("KD-DIST-386"):
        planned(root, "recipe")


def test_one_teacher_cannot_be_left_out(tmp_path: Path) -> None:
    make_project(tmp_path / "project", teachers={"radio": ("ct",)}, domains=("ct",))
    with raises_error("KD-DIST-391", mentions=("1 teacher",)):
        planned(tmp_path / "project", "teachers")
    with raises_error("KD-DIST-389", mentions=("ct",)):
        planned(tmp_path / "project", "held-out", "ct")
    with raises_error("KD-DIST-398"):
        planned(tmp_path / "project", "clinkd")


def test_stages_against_each_alone_and_the_other_order(root: Path) -> None:
    (root / "first.yaml").write_text((root / "toy.yaml").read_text(encoding="utf-8").replace("toy", "first"), "utf-8")
    found = planned(root, "stages", "./first.yaml", "./toy.yaml")
    rows = {one.name: one.steps for one in found.record.variations}
    assert rows == {"first, then toy": 80, "first alone": 80, "toy alone": 80, "toy, then first": 80}
    short = SweepOptions(length=0.1, seeds=1, domains=("ct",), trials=TrialOptions(cpu=True))
    report = sweep(open_project(root), SweepRequest("stages", ("./first.yaml", "./toy.yaml")), short, Silent())
    assert (report.missing, {result.variation.steps for result in report.results}) == ((), {8})
    for wrong in ((), ("./toy.yaml",)):
        with raises_error("KD-PROJ-384"):
            planned(root, "stages", *wrong)


def test_stages_of_one_recipe_with_other_settings_are_told_apart(root: Path) -> None:
    staged = "name: twice\nsummary: two\nstages: [{recipe: ./toy.yaml}, {recipe: ./toy.yaml, optimizer: {lr: 0.001}}]\n"
    (root / "twice.yaml").write_text(staged, encoding="utf-8")
    options = replace(ONCE, recipe="./twice.yaml")
    found = plan_sweep(open_project(root), "n", "stages", (), options, Silent()).record.variations
    assert [one.name for one in found] == ["toy 1, then toy 2", "toy 1 alone", "toy 2 alone", "toy 2, then toy 1"]
    assert len({one.runs for one in found}) == 4
    assert [one.against for one in found] == ["", *["toy 1, then toy 2"] * 3]


def test_other_questions_change_every_stage(root: Path) -> None:
    staged = "name: staged\nsummary: two\nstages: [{recipe: ./toy.yaml}, {recipe: ./toy.yaml}]\n"
    (root / "staged.yaml").write_text(staged, encoding="utf-8")
    options = SweepOptions(seeds=1, recipe="./staged.yaml", trials=TrialOptions(cpu=True))

    def rows(question: str, *arguments: str) -> list[PlannedTraining]:
        made = plan_sweep(open_project(root), "n", question, arguments, options, Silent())
        return [trial.training for trial in made.trials if isinstance(trial.training, PlannedTraining)]

    assert [[p.recipe.trust.policy for p, _ in t.stages] for t in rows("trust", "all")] == [
        ["threshold"] * 2,
        ["all"] * 2,
    ]
    found = rows("recipe", "stages.1.optimizer.steps=10")
    assert [[plan.settings.steps for plan, _ in training.stages] for training in found] == [[40, 40], [40, 10]]


def test_a_teacher_whose_files_the_student_starts_from_stays(root: Path) -> None:
    project = open_project(root)
    student = project.registry.student.model_copy(update={"config": {"init": "teacher:xr"}})
    project = project.with_registry(project.registry.model_copy(update={"student": student}))
    inventory = planned(root, "trust", "all").inventories[0]
    recipe = load_recipe("./toy.yaml", project.catalogue, root)
    asked = Asked(project, recipe, (), inventory.index, lambda _: inventory)
    impossible = {one.name for one in teachers_question(asked).variations if one.impossible}
    assert impossible == {"without xr", "the best 1: radio", "order radio, xr"}
