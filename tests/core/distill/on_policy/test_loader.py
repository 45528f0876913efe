"""The student's own answers in a batch: who wrote them, who scores them, and what is learned from them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdkit.core.contracts import OWN_TOKENS, Answer, Decoding
from kdkit.core.data.images import open_image
from kdkit.core.distill.loop.dataloader import DistillBatch
from kdkit.core.distill.on_policy.loader import _seed
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.on_policy.conftest import OWN
from tests.core.distill.on_policy.project import LIVE, LOSSES, SIZES, Course, add, same, set_recipe, train
from tests.core.teachers.stub import Notes
from tests.plugins.students.clinkd.tiny import make, stock_arguments


@pytest.fixture(scope="module")
def course(own_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """Its batches, with a student that does not change."""
    return Course(Path(shutil.copytree(own_project, tmp_path_factory.mktemp("course") / "p")))


@pytest.fixture(scope="module")
def batches(course: Course) -> dict[int, DistillBatch]:
    return course.batches()


def answers(batch: DistillBatch) -> list[list[int]]:
    return [[n for n in row if n >= 0] for row in batch.inputs["answer_ids"].tolist()]


def test_own_answers_are_what_the_student_says(course: Course, batches: dict[int, DistillBatch]) -> None:
    index, student = course.prepared.inventory.index, course.student
    seen = list[list[int]]()
    for step, batch in batches.items():
        rows = course.sampler[step]
        assert batch.own is not None
        for place, row in enumerate(rows.tolist()):
            sample = index.samples[row]
            image = open_image(sample)
            if not batch.own[place]:
                plain = student.prepare(image, sample)
                assert all(torch.equal(batch.inputs[name][place], x) for name, x in plain.items())
                continue
            seed = course.loader._own.rows.seed
            decoding = Decoding(max_new=10, samples=1, seeds=(_seed(seed, 11, step, row),))
            ((found,),) = student.answer([image], [sample], decoding)
            assert answers(batch)[place] == list(found.ids)
            seen.append(list(found.ids))
    assert 4 < len(seen) < 16
    assert len({tuple(ids) for ids in seen}) > len(seen) // 2


def test_the_loss_is_that_of_float64(course: Course, batches: dict[int, DistillBatch]) -> None:
    """Cross entropy of the given answers, and reverse KL over all tokens of both, from logits of stock modules."""
    (teacher,) = course.loader._own.scorers.values()
    for step in (0, 1):
        batch = batches[step]
        found = course.built.task(**batch.to(torch.device("cpu")))
        ours, theirs = (logits(model, batch) for model in (course.student, teacher._model.model))
        ids, own = batch.inputs["answer_ids"], batch.own
        assert own is not None
        assert own.any()
        assert not own.all()
        present = ids >= 0
        q, p = (x.log_softmax(-1) for x in (ours, rounded(theirs)))
        kl = (q.exp() * (q - p)).sum(-1)[present].mean()
        given = present & ~own[:, None]
        ce = torch.nn.functional.cross_entropy(ours[given], ids[given])
        assert float(found["token-kd"]) == pytest.approx(float(kl), rel=1e-5)
        assert float(found["answer-ce"]) == pytest.approx(float(ce), rel=1e-5)
        assert float(found["loss"].detach()) == pytest.approx(float(kl + 0.5 * ce), rel=1e-5)
        assert int(found["own/answers"]) == int(own.sum())


def logits(model: Any, batch: DistillBatch) -> Tensor:
    """(B, A, V) float64."""
    model.double()
    try:
        with torch.no_grad():
            made: Tensor = model.base(**arguments(model, batch)).logits
    finally:
        model.float()
    start, places = batch.inputs["start"], batch.inputs["answer_ids"].shape[1]
    at = (start[:, None] - 1 + torch.arange(places)).clamp(max=made.shape[1] - 1)
    return made.gather(1, at[..., None].expand(-1, -1, made.shape[-1])).double()


def arguments(model: Any, batch: DistillBatch) -> dict[str, Tensor]:
    """Of stock transformers' forward."""
    made = stock_arguments(model, batch.inputs)
    size = made["input_ids"].shape[1]
    positions = batch.inputs["positions"][..., :size].transpose(0, 1)
    return {**made, "position_ids": positions, "pixel_values": made["pixel_values"].double()}


def rounded(x: Tensor) -> Tensor:
    """A teacher's logits with the float16 of its rows."""
    return x.log_softmax(-1).to(torch.float16).double()


def test_a_resumed_run_continues_with_the_same_batches(course: Course, batches: dict[int, DistillBatch]) -> None:
    again = course.batches(4)
    assert sorted(again) == [4]
    for step, batch in again.items():
        assert all(torch.equal(x, batch.inputs[name]) for name, x in batches[step].inputs.items())
        assert all(torch.equal(x, batch.targets["first"][name]) for name, x in batches[step].targets["first"].items())


def test_runs_with_and_without_own_answers(root: Path) -> None:
    set_recipe(root, None)
    plain = train(root)
    set_recipe(root, {"share": 0})
    assert same(train(root), plain)
    set_recipe(root, {"share": 1e-12})
    assert same(train(root), plain), "own answers are possible and none is drawn"
    set_recipe(root, OWN)
    own = train(root)
    assert not same(own, plain)
    assert same(train(root, stopped_at=3), own), "an interrupted run ends bit for bit as another one"


def test_a_teacher_without_trust_changes_nothing(root: Path) -> None:
    plain = train(root)
    add(root, "second", seed=2, domains=["vqa/mri"])
    course = Course(root)
    for step, batch in course.batches().items():
        domains = [course.prepared.inventory.index.samples[row].domain for row in course.sampler[step].tolist()]
        weights = batch.weights["second"].tolist()
        assert weights == [float(domain == "vqa/mri") for domain in domains]
        for place, weight in enumerate(weights):
            assert bool(batch.targets["second"]["topk"][place].any()) == bool(weight)
    text = (root / "registry.yaml").read_text(encoding="utf-8")
    (root / "registry.yaml").write_text(text.replace("[vqa/mri]", "[vqa/pet]"), encoding="utf-8")
    assert "vqa/pet" in (root / "registry.yaml").read_text(encoding="utf-8")
    assert same(train(root), plain)


def test_stored_teachers_teach_along_given_answers_alone(two_teachers: Path) -> None:
    course = Course(two_teachers)
    for batch in course.batches().values():
        assert batch.own is not None
        assert batch.weights["old"].tolist() == (~batch.own).float().tolist()
        assert batch.weights["first"].tolist() == [1.0] * 4
    assert course.prepared.plan.on_policy is not None
    assert dict(course.prepared.plan.on_policy.given_only) == {"old": "stored"}
    assert list(course.prepared.plan.on_policy.scorers) == ["first"]


class Says:
    """A student's answers, replaced."""

    def __init__(self, course: Course, answer: Answer) -> None:
        self.answer, self.course = answer, course

    def batch(self) -> DistillBatch:
        course = self.course
        course.student.answer = lambda _, samples, decoding: [[self.answer] for _ in samples]  # noqa: ARG005
        try:
            return course.batches(4)[4]
        finally:
            del course.student.answer


def test_a_student_that_answers_nothing_learns_how_to_begin(course: Course) -> None:
    end = course.student.preparation.tokens.id("<|im_end|>")
    for answer in (Answer("", (end,)), Answer("")):
        batch = Says(course, answer).batch()
        assert batch.own is not None
        assert batch.own.any()
        for place, own in enumerate(batch.own.tolist()):
            if own:
                assert answers(batch)[place] == [end]
                assert batch.targets["first"]["tokens"][place].tolist()[:2] == [end, -100]
        assert torch.isfinite(course.built.task(**batch.to(torch.device("cpu")))["loss"])


def test_an_answer_that_nobody_can_read_teaches_nothing(course: Course) -> None:
    """A text that would break the sequence, of a student that does not say which tokens it wrote."""
    notes = Notes()
    own = course.loader._own
    course.loader._own = replace(own, reporter=notes, _told=set())
    try:
        batch = Says(course, Answer("left <|im_start|>")).batch()
    finally:
        course.loader._own = own
    assert batch.own is not None
    assert batch.weights["first"].tolist() == (~batch.own).float().tolist()
    figures = course.built.task(**batch.to(torch.device("cpu")))
    assert (float(figures["own/unscored"]), float(figures["own/answers"])) == (1, int(batch.own.sum()))
    assert len(notes.warnings) == 1


def test_a_teacher_with_another_tokenizer(root: Path) -> None:
    """``uld`` reads it along own answers; a loss that compares token by token would drop what it splits otherwise."""
    sizes = {**SIZES, "words": ["ri", "gh", "ef", "Where"]}
    other = make(seed=3, sizes=sizes, max_tokens=80, max_answer=28, max_pixels=3136, system="")
    other.save(root / "models" / "other")
    add_teacher(Project(root), "other", {**LIVE, "from": "local:models/other"})
    set_recipe(root, {"share": 1, "max_new": 4}, losses=[{"name": "uld"}], steps=2)
    course = Course(root)
    ours, theirs = course.student.preparation.tokens, other.preparation.tokens
    for batch in course.batches().values():
        assert batch.weights["other"].tolist() == [1.0] * 4
        stored = [[n for n in row if n >= 0] for row in batch.targets["other"]["tokens"].tolist()]
        assert [theirs.decode(row) for row in stored] == [ours.decode(row) for row in answers(batch)]
        assert torch.isfinite(course.built.task(**batch.to(torch.device("cpu")))["loss"])
        differ = [a != b for a, b in zip(stored, answers(batch), strict=True)]
        assert any(differ)
    course.loader._own = replace(course.loader._own, same_tokens=True)
    last = course.batches()[1]
    assert last.weights["other"].tolist() == [float(not d) for d in differ]
    assert last.weights["first"].tolist() == [1.0] * 4


def test_a_trained_version_says_who_scored(root: Path) -> None:
    set_recipe(root, {"share": 1, "temperature": 0, "max_new": 6}, losses=LOSSES[1:])
    outcome = distill(Project(root), Options(cpu=True))
    assert outcome is not None
    lineage = outcome.version.lineage
    assert lineage.on_policy is not None
    assert (dict(lineage.on_policy.teachers), lineage.on_policy.answers) == ({"first": 20}, 20)
    assert lineage.recipe.on_policy is not None
    assert lineage.recipe.on_policy.temperature == 0
    assert [point["own/answers"] for point in lineage.training.log] == [4.0] * 5
    assert all(0 < point["own/tokens"] <= 7 for point in lineage.training.log)


def test_keys_of_samples_are_not_shared(course: Course, batches: dict[int, DistillBatch]) -> None:
    """The index is unchanged: evaluation and trust read it."""
    assert batches
    assert not any(OWN_TOKENS in sample.extra for sample in course.prepared.inventory.index.samples)
