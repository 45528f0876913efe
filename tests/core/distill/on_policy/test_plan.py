"""What on-policy distillation needs, and what the plan says about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kdkit.api.student import DistillPlan
from kdkit.core.contracts import LOGPROBS, OWN_ANSWERS, Silent
from kdkit.core.distill.cost_estimate import dry_run
from kdkit.core.distill.loop.accelerator import make_accelerator
from kdkit.core.distill.on_policy.plan import require_on_policy
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.sweep.prepare import SweepOptions, plan_sweep
from kdkit.core.distill.trials.trial import TrialOptions
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.project import Project
from kdkit.core.project.recipe import Recipe
from tests.core.distill.on_policy.conftest import OWN
from tests.core.distill.on_policy.project import LOSSES, add, set_recipe
from tests.core.teachers.stub import Notes
from tests.errors import raises_error
from tests.recorder import Recorder
from tests.toy_project import RECIPE, open_project
from tests.toy_project import make_project as make_dual_encoder_project


def planned(root: Path, reporter: Any = None) -> Any:
    return prepare(Project(root), Options(cpu=True), reporter or Silent()).plan


def edit(root: Path, *pairs: tuple[str, str]) -> None:
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    registry.write_text(text, encoding="utf-8")


def test_the_plan_counts_own_answers_and_who_scores_them(root: Path) -> None:
    add(root, "half", seed=2, domains=["vqa/mri"])
    planned = dry_run(Project(root), Options(cpu=True), Silent())
    plan, estimate, _ = planned[-1]
    assert plan.to_json()["on_policy"] == {
        "scorers": {"first": 10, "half": 7},
        "given_only": {},
        "answers": 10,
        "drawn": 20,
    }
    assert estimate.seconds > 0
    text = str(DistillPlan(planned))
    assert "10 of 20" in text
    assert "half (about 7)" in text


def test_who_scores_is_part_of_the_digest(two_teachers: Path) -> None:
    own = planned(two_teachers)
    assert planned(two_teachers).digest == own.digest
    set_recipe(two_teachers, None)
    offline = planned(two_teachers)
    assert offline.on_policy is None
    assert offline.to_json()["on_policy"] is None
    set_recipe(two_teachers, OWN)
    edit(two_teachers, ("signals: stored", "signals: live"))
    both = planned(two_teachers)
    assert list(own.on_policy.scorers) == ["first"]
    assert list(both.on_policy.scorers) == ["first", "old"]
    assert len({own.digest, offline.digest, both.digest}) == 3


def test_no_live_teacher(two_teachers: Path) -> None:
    edit(two_teachers, ("signals: live", "signals: stored"))
    with raises_error("KD-DIST-443", mentions=("first: ", "old: ")):
        planned(two_teachers)
    set_recipe(two_teachers, {"share": 0})
    assert planned(two_teachers).on_policy is None


def test_why_each_teacher_cannot_score() -> None:
    """Of teachers that a project would need servers and files of features for, by their facts alone."""
    facts = {"imported": False, "signals": {"tokens": None}, "identity": {}}
    kinds = {
        "imported": {**facts, "imported": True},
        "answers": {**facts, "signals": {}},
        "served": {**facts, "identity": {LOGPROBS: OWN_ANSWERS}},
        "clip": {**facts, "signals": {"image": None}},
        "stored": facts,
    }
    registry: Any = SimpleNamespace(live=(), student=SimpleNamespace(family="clinkd"))
    given: Any = {name: SimpleNamespace(**kind) for name, kind in kinds.items()}
    with raises_error("KD-DIST-443") as caught:
        require_on_policy(own_recipe(), load_catalogue(), registry, given)
    reasons = dict(part.split(": ", 1) for part in caught.value.why.split("; "))
    assert list(reasons) == list(kinds)
    assert len(set(reasons.values())) == len(kinds)
    registry.live = ("imported", "answers", "served", "clip")
    with raises_error("KD-DIST-443"):
        require_on_policy(own_recipe(), load_catalogue(), registry, given)
    registry.live = ("stored",)
    require_on_policy(own_recipe(), load_catalogue(), registry, given)


def own_recipe() -> Recipe:
    optimizer, trust = {"lr": 0.1, "batch_size": 2, "steps": 1}, {"policy": "all"}
    about = {"name": "own", "summary": "quick", "losses": LOSSES, "trust": trust, "optimizer": optimizer}
    return Recipe.model_validate({**about, "on_policy": {}})


def test_a_live_teacher_that_may_teach_nothing(two_teachers: Path) -> None:
    edit(two_teachers, ("signals: live", "signals: live\n    domains: [vqa/pet]"))
    with raises_error("KD-DIST-444", mentions=("first: trusted in no domain", "old: stored")):
        planned(two_teachers, Notes())


def test_a_sweep_has_a_row_without_runs_where_nobody_scores_own_answers(two_teachers: Path) -> None:
    options = SweepOptions(seeds=1, trials=TrialOptions(cpu=True))
    wanted = ("leave-one-out", "order")
    found = plan_sweep(Project(two_teachers), "n", "teachers", wanted, replace(options, length=0.2), Silent())
    without = {one.name: one for one in found.record.variations}
    assert (without["without first"].runs, len(without["without old"].runs)) == ((), 1)
    assert "score" in without["without first"].impossible
    last = next(trial.training for trial in found.trials if trial.title == "order old, first")
    last.train(two_teachers / "trial", make_accelerator("no", cpu=True), options.trials, heard := Recorder())
    assert any(line.startswith("old teaches nothing at its place: no teacher can score") for line in heard.lines)


def test_losses_that_cannot_learn_from_own_answers(root: Path) -> None:
    own = {"share": 0.5}
    set_recipe(root, own, losses=LOSSES[:1])
    with raises_error("KD-DIST-441"):
        planned(root)
    set_recipe(root, own, losses=[*LOSSES, {"name": "clip"}])
    with raises_error("KD-DIST-442", mentions=("clip",)):
        planned(root)


def test_a_dual_encoder_has_no_answers(tmp_path: Path) -> None:
    make_dual_encoder_project(tmp_path / "p", teachers={"one": ("ct",)}, domains=("ct",), train=4)
    recipe = RECIPE + "on_policy: {}\n"
    (tmp_path / "p" / "toy.yaml").write_text(recipe, encoding="utf-8")
    with raises_error("KD-DIST-440", mentions=("toy",)):
        prepare(open_project(tmp_path / "p"), Options(cpu=True), Silent())
