"""ClinKD's tables on a tiny student that answers: which rows there are, and the evaluation of chosen answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdkit.core.contracts import Silent
from kdkit.core.distill.sweep.prepare import PlannedSweep, SweepOptions, plan_sweep
from kdkit.core.distill.sweep.run import SweepRequest, sweep
from kdkit.core.distill.trials.trial import PlannedTraining, TrialOptions
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.answering import QUESTION, STUDENT
from tests.core.distill.explain.test_explain import Counting
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import make
from tests.toy_project import make_project, open_project

OPTIONS = SweepOptions(length=0.5, seeds=1, trials=TrialOptions(cpu=True))
READER = {"from": "local:models/reader", "loader": "image-text-to-text", "license": "mit", "options": {"hidden": True}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that answers, with its states, and a dual encoder that takes no part in training."""
    folder = tmp_path_factory.mktemp("clinkd") / "project"
    make_project(folder, teachers={"radio": ("ct",)}, domains=("ct",), train=3, held_out=2)
    registry, manifest = folder / "registry.yaml", folder / "images" / "samples.jsonl"
    text = registry.read_text(encoding="utf-8").replace("{family: toy, config: {width: 12}}", json.dumps(STUDENT))
    text = text.replace("recipe: ./toy.yaml", "recipe: clinkd")
    more = "optimizer: {lr: 0.01, batch_size: 6, steps: 4}\ntrust: {policy: all, options: {unmeasured: true}}\n"
    registry.write_text(text + more, encoding="utf-8")
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    extra = {"task": "vqa", "messages": [{"role": "user", "content": QUESTION}]}
    lines = (json.dumps({**r, "text": r["label"], "domain": "vqa/ct", "extra": extra}) + "\n" for r in rows)
    manifest.write_text("".join(lines), encoding="utf-8")
    make(seed=1, **STUDENT["config"]).save(folder / "models" / "reader")  # type: ignore[arg-type]
    add_teacher(open_project(folder), "reader", READER)
    return folder


def planned(root: Path, *arguments: str) -> PlannedSweep:
    return plan_sweep(open_project(root), "n", "clinkd", arguments, OPTIONS, Silent())


def test_rows(root: Path) -> None:
    found = planned(root, "alpha=0,0.5,1", "rope-alpha=2")
    rows = {one.name: one for one in found.record.variations}
    assert not any(one.impossible for one in rows.values())
    assert rows["alpha 0.5"].runs == rows["Pseudo-KD"].runs, "the recipe's own alpha"
    assert rows["SASG"].runs != rows["answers alone"].runs
    assert len(found.trials) == 8, "SASG chooses among answers of the same student"
    assert sorted(len(trial.measurements) for trial in found.trials) == [1] * 6 + [2] * 2
    training = {trial.title: trial.training for trial in found.trials}
    for name, teachers, rope, heads in (
        ("answers alone", [], "mrope", "linear"),
        ("Pseudo-KD", ["reader"], "mrope", "linear"),
        ("MCG-RoPE", [], "mcg-rope", "linear"),
        ("V_kD", ["reader"], "mrope", "orthogonal"),
    ):
        made = training[name]
        assert isinstance(made, PlannedTraining)
        assert [teacher.name for teacher in made.plan.teachers] == teachers
        assert made.project.registry.student.config["rope"] == rope
        assert made.plan.recipe.heads == heads
    for wrong, error in (("alpha=x", "KD-ANS-381"), ("samples=1", "KD-DIST-399"), ("rerank=reader", "KD-ANS-383")):
        with raises_error(error):
            planned(root, wrong)
    with raises_error("KD-ANS-380", mentions=("'alpha'",)):
        planned(root, "alhpa=1")
    with raises_error("KD-ANS-382"):
        planned(root, "samples=2,3")


def test_chosen_answers_need_no_training_of_their_own(root: Path) -> None:
    request = SweepRequest("clinkd", ("samples=2", "alpha=0"), "s", (1, 6))
    found = sweep(open_project(root), request, OPTIONS, counting := Counting())
    assert counting.steps == 2
    done = {result.variation.name for result in found.results if result.seeds}
    assert done == {"answers alone", "SASG"}
    shown = str(found)
    assert [shown.index(title) for title in ("Table 2", "Table 3", "Figure 4")] == sorted(
        shown.index(title) for title in ("Table 2", "Table 3", "Figure 4")
    )
    assert "VQA" in shown
