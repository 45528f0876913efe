"""Reflective correction inside a run: reviews, added samples, and the weights of teachers."""

from __future__ import annotations

import gc
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdkit.api.student import Distillation, DistillPlan
from kdkit.core.base.journal import Journal
from kdkit.core.contracts import Silent
from kdkit.core.distill.correction.loader import update_corrections
from kdkit.core.distill.cost_estimate import PlannedStage, dry_run
from kdkit.core.distill.loop.accelerator import make_accelerator
from kdkit.core.distill.loop.dataloader import DistillDataLoader
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.pseudo_labels.review import Review
from kdkit.core.distill.repair.rehearsal import Rehearsal
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project
from kdkit.core.teachers import open_answering
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.corrected import (
    BOX,
    EPOCH,
    SIZES,
    Course,
    add_server,
    in_other_words,
    make_project,
    number_of,
    reference_of,
    rows,
    run,
    same,
    samples,
    set_correction,
    weights,
    write_samples,
)
from tests.errors import raises_error
from tests.local_endpoint import LocalEndpoint, local_endpoint
from tests.plugins.students.clinkd.tiny import make


@pytest.fixture
def endpoint() -> Iterator[LocalEndpoint]:
    with local_endpoint(in_other_words) as running:
        yield running


# ------------------------------------------------------------------------------------- a whole run


class Heard(Silent):
    """Records warnings and messages."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.messages: list[str] = []

    def say(self, text: str) -> None:
        self.messages.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_the_lineage_names_the_file_of_corrections(tmp_path: Path) -> None:
    make_project(tmp_path / "p", {"share": 0.5, "limit": 10})
    outcome = run(tmp_path / "p")
    record = outcome.version.lineage.correction
    assert record is not None
    found = rows(outcome)
    assert (record.file, record.corrector, record.corrected) == ("corrections.jsonl", "reference", len(found))
    assert [(part.step, part.epoch, part.answered) for part in record.rounds] == [(6, 1, 10), (12, 2, 10)]
    assert [sum(row["step"] == part.step for row in found) for part in record.rounds] == [
        part.wrong for part in record.rounds
    ]
    assert found
    texts = {row["id"]: row["text"] for row in samples(tmp_path / "p")}
    for row in found:
        assert set(row) == {"sample", "domain", "epoch", "step", "answer", "score", "corrector", "text"}
        assert (row["text"], row["corrector"]) == (texts[row["sample"]], "reference")
        assert row["score"] < 0.8
    assert not list((tmp_path / "p" / ".kdkit" / "runs").glob("*"))
    assert re.search(rf"\n{len(found)} .*: {re.escape(str(outcome.version.folder))}", str(Distillation(outcome)))


def test_dry_run_estimates_the_corrections(tmp_path: Path) -> None:
    make_project(tmp_path / "p", {"share": 0.5})
    plan, estimate, _ = dry_run(Project(tmp_path / "p"), Options(cpu=True), Silent())[-1]
    assert estimate.correction_seconds > 0
    assert "step 6, 12:" in str(DistillPlan((PlannedStage(plan, estimate),)))
    assert plan.to_json()["correction"] == {"steps": [6, 12], "answers_per_round": 12, "corrector": "reference"}
    assert not (tmp_path / "p" / "versions").exists()


def test_without_wrong_answers_a_run_equals_one_without_correction(tmp_path: Path) -> None:
    """Grounding without a box in the reference cannot be scored, so no answer is wrong."""
    root = tmp_path / "p"
    make_project(root, {})
    changed = samples(root)
    for row in changed:
        if row["split"] == "train":
            row |= {"text": "here", "domain": "vg/ct", "extra": {**row["extra"], "task": "vg"}}
    write_samples(root, changed)
    asked = run(root)
    record = asked.version.lineage.correction
    assert record is not None
    assert [part.unscored for part in record.rounds] == [24, 24]
    assert rows(asked) == []
    set_correction(root, None)
    plain = run(root)
    assert plain.version.lineage.correction is None
    assert same(weights(root, "v1"), weights(root, "v2"))
    set_correction(root, {"steps": [3, 99]})
    again = run(root)
    record = again.version.lineage.correction
    assert record is not None
    assert [part.step for part in record.rounds] == [3]
    assert same(weights(root, "v1"), weights(root, "v3"))
    set_correction(root, {"every": 3})
    heard = Heard()
    assert distill(Project(root), Options(cpu=True), reporter=heard) is not None
    assert any("14 steps" in warning for warning in heard.warnings)
    assert same(weights(root, "v1"), weights(root, "v4"))


def test_a_corrector_is_not_reported_as_unused(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    root = tmp_path / "p"
    make_project(root, {"corrector": "remote"})
    add_server(root, endpoint.url)

    def mentions(corrector: str) -> list[str]:
        heard = Heard()
        set_correction(root, {"corrector": corrector})
        prepare(Project(root), Options(cpu=True), heard)
        return [line for line in heard.messages if "remote" in line]

    assert mentions("remote") == []
    assert [line.split(":")[0] for line in mentions("reference")] == ["remote"]


# ------------------------------------------------------------------------ what the batches are made of


def test_rewritten_samples_are_added_with_teacher_weight_zero(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    root = tmp_path / "p"
    make_project(root, {"corrector": "remote"}, steps=18)
    add_server(root, endpoint.url)
    course = Course(root, tmp_path / "run")
    assert course.loader.pauses == {6, 12}
    batches = course.batches()
    assert sorted(batches) == list(range(18))
    for step in range(EPOCH):
        assert torch.equal(batches[step].inputs["answer_ids"], course.plain.make(step).inputs["answer_ids"])
    shown: list[tuple[str, float]] = []
    for step in range(EPOCH, 18):
        batch = batches[step]
        shown += zip(course.answers(batch), batch.weights["first"].tolist(), strict=True)
        assert torch.isfinite(course.built.task(**batch.to(torch.device("cpu")))["loss"])
    rewritten = [weight for text, weight in shown if text.startswith("It is ")]
    plain = [weight for text, weight in shown if not text.startswith("It is ")]
    assert set(rewritten) == {0.0}
    assert set(plain) == {1.0}
    # All 24 were wrong, so half of what is shown is a correction, as if there were 48 samples.
    assert abs(len(rewritten) - len(shown) / 2) <= 8
    made = course.loader.summarize()
    assert [part.rewritten for part in made.rounds] == [24] * 2


def test_a_rehearsal_learns_from_the_latest_corrections(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    root = tmp_path / "p"
    make_project(root, {"corrector": "remote"}, steps=12)
    add_server(root, endpoint.url)
    course = Course(root, tmp_path / "run")
    course.batches()
    plan, index = course.prepared.plan, course.prepared.inventory.index
    accelerator = make_accelerator("no", cpu=True)
    rehearsal = Rehearsal(plan, course.built, index, accelerator, tmp_path, 60.0, Silent(), course.loader)
    loader = rehearsal.dataloader(["vqa/ct"], 12, seed=1)
    assert isinstance(loader, DistillDataLoader)
    shown: list[tuple[str, float]] = []
    for _, batch in loader.batches(0):
        shown += zip(course.answers(batch), batch.weights["first"].tolist(), strict=True)
    weights = {text.startswith("It is "): weight for text, weight in shown}
    assert weights == {True: 0.0, False: 1.0}
    assert abs(sum(text.startswith("It is ") for text, _ in shown) - 24) <= 8, "half of 48, as in the run"


def test_signals_of_the_original_do_not_fit_the_corrected_text(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    """Why their weight is 0: their tokens are not those of the corrected text."""
    root = tmp_path / "p"
    make_project(root, {"corrector": "remote"})
    add_server(root, endpoint.url)
    course = Course(root, tmp_path / "run")
    batch = course.batches()[EPOCH]
    assert any(text.startswith("It is ") for text in course.answers(batch))
    original = course.plain.make(EPOCH)
    arguments = batch.to(torch.device("cpu"))
    arguments |= {"targets": original.targets, "weights": {"first": torch.ones(4)}}
    with raises_error("KD-LOSS-002"):
        course.built.task(**arguments)


def test_with_the_reference_wrong_samples_are_drawn_twice_as_often(tmp_path: Path) -> None:
    root = tmp_path / "p"
    make_project(root, {"share": 0.5}, steps=12)
    course = Course(root, tmp_path / "run")
    assert course.prepared.plan.correction is not None
    batches = course.batches()
    wrong = {row["sample"] for row in course.loader.summarize().rows if row["step"] == EPOCH}
    assert len(wrong) == 12
    _, sampler = course.loader._part(1, 6, 12, {0: "left", 1: "right"})
    counts = np.bincount(np.concatenate([sampler[step] for step in range(6, 12)]), minlength=24)
    assert counts.sum() == 24
    assert counts[2:].max() == 1
    assert {int(counts[0]), int(counts[1])} <= {1, 2}
    assert all(set(batch.weights["first"].tolist()) == {1.0} for batch in batches.values())


def test_the_latest_answer_of_a_sample_counts() -> None:
    wrong: dict[int, str] = {}
    bad, good = Review("x", 0.1, "left", "reference"), Review("left", 1.0)
    update_corrections(wrong, {1: bad, 2: bad, 3: good})
    update_corrections(wrong, {2: good, 4: Review("x", None)})
    assert wrong == {1: "left"}


WORDS: dict[int, tuple[Callable[[str], str], bool]] = {
    0: (lambda text: f"It is at {text}", True),
    1: (lambda _: "", False),
    2: (lambda _: "I cannot help with that.", False),
    3: (lambda text: f"It is at {text}", True),
    4: (lambda text: text + " it" * 60, False),  # longer than the student takes
    5: (lambda text: text + "<|im_end|>", False),  # would end the answer
    6: (lambda text: text + BOX, False),  # coordinates that the reference does not have
    7: (lambda text: text.replace("(250,250)", "(250,260)"), False),  # nearly the same box is another box
    11: (lambda text: text + text, False),  # a box more
}
"""Number of a sample -> the corrector's text for a reference, and whether it is accepted."""


def test_only_corrections_that_keep_meaning_and_coordinates_are_used(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    root = tmp_path / "p"
    make_project(root, {"corrector": "remote", "steps": [1]}, steps=2, train=12)
    add_server(root, endpoint.url)
    usual = WORDS[0]
    endpoint.answer = lambda body: [(WORDS.get(number_of(body), usual)[0](reference_of(body)), [])]
    course = Course(root, tmp_path / "run")
    course.batches()
    made = course.loader.summarize()
    texts = {row["id"]: row["text"] for row in samples(root)}
    assert len(made.rows) == 12
    for row in made.rows:
        words, taken = WORDS.get(int(row["sample"][1:]), usual)
        reference = texts[row["sample"]]
        assert (row["text"], row["corrector"]) == ((words(reference), "remote") if taken else (reference, "reference"))
    (counts,) = made.rounds
    assert (counts.rewritten, counts.refused) == (5, 7)
    summary = next(line for line in str(Distillation(run(root))).splitlines() if line.startswith("12 "))
    assert re.findall(r"\b\d+\b", summary)[:3] == ["12", "5", "7"]


def test_a_local_corrector_is_loaded_once_per_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, opened = tmp_path / "p", []
    make_project(root, {"corrector": "own", "limit": 4})
    make(seed=2, sizes=SIZES, max_tokens=512, max_answer=36, system="").save(root / "models" / "own")
    add_teacher(Project(root), "own", {"from": "local:models/own", "loader": "image-text-to-text", "license": "mit"})

    def open_and_note(*args: Any, **options: Any) -> Any:
        opened.append(weakref.ref(model := open_answering(*args, **options)))
        return model

    monkeypatch.setattr("kdkit.core.teachers.open_answering", open_and_note)
    course = Course(root, tmp_path / "run")
    course.batches()
    assert [part.wrong for part in course.loader.summarize().rounds] == [4, 4]
    gc.collect()
    assert [model() for model in opened] == [None], "loaded once, and released after the last round"


class Place:
    """The part of an accelerator that a round uses; its processes are threads."""

    num_processes = 2
    device = torch.device("cpu")

    def __init__(self, index: int, barrier: threading.Barrier) -> None:
        self.process_index, self.wait_for_everyone = index, barrier.wait

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()


def test_every_process_reviews_its_share_and_reads_all(tmp_path: Path) -> None:
    root = tmp_path / "p"
    make_project(root, {"steps": [1]}, steps=3)
    alone = Course(root, tmp_path / "alone")
    alone.batches()
    barrier = threading.Barrier(2, timeout=300)
    both = [Course(root, tmp_path / "both", Place(index, barrier)) for index in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda course: course.batches(), both)
    for number in range(2):
        (file,) = (tmp_path / "both").rglob(f"answers-{number}.jsonl")
        assert len(Journal(file).read()) == 12
    assert [course.loader.summarize().rounds for course in both] == [alone.loader.summarize().rounds] * 2
    for step in (1, 2):
        assert len(first[step].inputs["answer_ids"]) == 2
        assert torch.equal(first[step].domain, second[step].domain)
