"""Reflective correction inside a run: what is asked, what is fed back, what teachers say of it, and kills meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kdkit.core.contracts import Silent
from kdkit.core.distill.batches import BatchSchedule
from kdkit.core.distill.build import Build, build
from kdkit.core.distill.correction import CorrectedFeed
from kdkit.core.distill.feed import Batch
from kdkit.core.distill.finish import Outcome
from kdkit.core.distill.run import Options, Prepared, accelerate, corrected_feed, distill, make_feed, prepare
from kdkit.core.errors import KdkitError
from kdkit.core.pseudo.review import Reviewed
from kdkit.core.workspace import Workspace
from kdkit.testing.endpoint import LocalEndpoint, Reply, local_endpoint
from tests.conftest import clean_environment
from tests.core.distill.corrected import BOX, add_server, make_project, number_of, reference_of, set_correction

REPOSITORY = Path(__file__).parents[3]
EPOCH = 6
"""Steps: 24 samples in batches of 4."""


def in_other_words(body: Mapping[str, Any]) -> Reply:
    """What a good corrector says; ``It is`` does not change the score."""
    return [(f"It is {reference_of(body)}.", [])]


@pytest.fixture
def endpoint() -> Iterator[LocalEndpoint]:
    with local_endpoint(in_other_words) as running:
        yield running


def run(root: Path) -> Outcome:
    outcome = distill(Workspace(root), Options(cpu=True))
    assert outcome is not None
    return outcome


def weights(root: Path, version: str) -> dict[str, torch.Tensor]:
    saved: dict[str, torch.Tensor] = load_file(root / "versions" / version / "student" / "model.safetensors")
    return saved


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    text = (outcome.version.folder / "corrections.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


# ------------------------------------------------------------------------------------- a whole run


def test_what_was_wrong_is_a_file_that_the_lineage_names(tmp_path: Path) -> None:
    make_project(tmp_path / "p", {"share": 0.5, "limit": 10})
    outcome = run(tmp_path / "p")
    told = outcome.version.lineage["correction"]
    found = rows(outcome)
    assert (told["file"], told["corrector"], told["corrected"]) == ("corrections.jsonl", "reference", len(found))
    assert [(part["step"], part["epoch"], part["answered"]) for part in told["rounds"]] == [(6, 1, 10), (12, 2, 10)]
    assert [sum(row["step"] == part["step"] for row in found) for part in told["rounds"]] == [
        part["wrong"] for part in told["rounds"]
    ]
    assert found
    texts = {row["id"]: row["text"] for row in data(tmp_path / "p")}
    for row in found:
        assert set(row) == {"sample", "domain", "epoch", "step", "answer", "score", "corrector", "text"}
        assert (row["text"], row["corrector"]) == (texts[row["sample"]], "reference")
        assert row["score"] < 0.8
    assert not list((tmp_path / "p" / ".kdkit" / "runs").glob("*"))


def data(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "data" / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def test_where_nothing_is_wrong_the_run_is_as_without_correction(tmp_path: Path) -> None:
    """Grounding without a box in the reference cannot be scored, so nothing is wrong; asking must leave no trace."""
    root = tmp_path / "p"
    make_project(root, {})
    changed = data(root)
    for row in changed:
        if row["split"] == "train":
            row |= {"text": "here", "domain": "vg/ct", "extra": {**row["extra"], "task": "vg"}}
    path = root / "data" / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")
    asked = run(root)
    assert [part["unscored"] for part in asked.version.lineage["correction"]["rounds"]] == [24, 24]
    assert rows(asked) == []
    set_correction(root, None)
    plain = run(root)
    assert plain.version.lineage["correction"] is None
    assert same(weights(root, "v1"), weights(root, "v2"))
    set_correction(root, {"steps": [3, 99]})
    again = run(root)
    assert [part["step"] for part in again.version.lineage["correction"]["rounds"]] == [3]
    assert same(weights(root, "v1"), weights(root, "v3"))


# ------------------------------------------------------------------------ what the batches are made of


class Course:
    """A run's batches without its training: the student stays as it was made."""

    def __init__(self, root: Path, folder: Path, at: Any = None) -> None:
        workspace, options = Workspace(root), Options(cpu=True)
        self.prepared: Prepared = prepare(workspace, options, Silent())
        self.built: Build = build(workspace, self.prepared.plan, self.prepared.survey, None, Silent())
        place, plan = at or accelerate(options), self.prepared.plan
        self.steps = plan.settings.steps
        schedule = BatchSchedule(plan.pools, batch_size=plan.batch_size, steps=self.steps, seed=plan.settings.seed)
        self.plain = make_feed(self.prepared, self.built, place, schedule)
        made = corrected_feed(workspace, self.prepared, self.built, place, schedule, folder, Silent())
        assert made is not None
        self.feed: CorrectedFeed = made

    def batches(self, start: int = 0) -> dict[int, Batch]:
        return dict(self.feed.run(start))

    def answers(self, batch: Batch) -> list[str]:
        """The texts that the student is taught."""
        tokens = self.built.task.student.preparation.tokens  # type: ignore[union-attr]
        return [tokens.decode([t for t in row.tolist() if t >= 0]) for row in batch.inputs["answer_ids"]]  # type: ignore


def test_rewritten_samples_are_shown_beside_the_others_and_teachers_are_silent_about_them(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    root = tmp_path / "p"
    make_project(root, {"corrector": "remote"}, steps=30)
    add_server(root, endpoint.url)
    course = Course(root, tmp_path / "run")
    assert course.feed.pauses == {6, 12, 18, 24}
    batches = course.batches()
    assert sorted(batches) == list(range(30))
    for step in range(EPOCH):
        assert torch.equal(batches[step].inputs["answer_ids"], course.plain.make(step).inputs["answer_ids"])
    shown: list[tuple[str, float]] = []
    for step in range(EPOCH, 30):
        batch = batches[step]
        shown += zip(course.answers(batch), batch.weights["first"].tolist(), strict=True)
        assert torch.isfinite(course.built.task(**batch.to(torch.device("cpu")))["loss"])
    rewritten = [weight for text, weight in shown if text.startswith("It is ")]
    plain = [weight for text, weight in shown if not text.startswith("It is ")]
    assert set(rewritten) == {0.0}
    assert set(plain) == {1.0}
    # All 24 were wrong, so half of what is shown is a correction, as if there were 48 samples.
    assert abs(len(rewritten) - len(shown) / 2) <= 12
    made = course.feed.made()
    assert [part["rewritten"] for part in made.rounds] == [24] * 4


def test_what_teachers_said_of_the_original_would_be_refused_for_another_text(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    """Why their weight is 0: the tokens that they spoke of are not those of the corrected text."""
    root = tmp_path / "p"
    make_project(root, {"corrector": "remote"})
    add_server(root, endpoint.url)
    course = Course(root, tmp_path / "run")
    batch = course.batches()[EPOCH]
    assert any(text.startswith("It is ") for text in course.answers(batch))
    original = course.plain.make(EPOCH)
    arguments = batch.to(torch.device("cpu"))
    arguments |= {"targets": original.targets, "weights": {"first": torch.ones(4)}}
    with pytest.raises(KdkitError, match="into different tokens"):
        course.built.task(**arguments)


def test_the_reference_as_corrector_shows_what_was_wrong_twice_as_often(tmp_path: Path) -> None:
    root = tmp_path / "p"
    make_project(root, {"share": 0.5}, steps=36)
    course = Course(root, tmp_path / "run")
    assert course.prepared.plan.rounds is not None
    batches = course.batches()
    wrong = {row["sample"] for row in course.feed.made().rows if row["step"] == EPOCH}
    assert len(wrong) == 12
    part = course.feed._part(1, 6, 12, {0: "left", 1: "right"})  # two wrong ones, by hand
    counts = np.bincount(np.concatenate([part.schedule[step] for step in range(6, 12)]), minlength=24)
    assert counts.sum() == 24
    assert counts[2:].max() == 1
    assert {int(counts[0]), int(counts[1])} <= {1, 2}
    assert all(set(batch.weights["first"].tolist()) == {1.0} for batch in batches.values())


def test_a_samples_latest_answer_counts() -> None:
    wrong: dict[int, str] = {}
    bad, good = Reviewed("x", 0.1, "left", "reference"), Reviewed("left", 1.0)
    CorrectedFeed._update(wrong, {1: bad, 2: bad, 3: good})
    CorrectedFeed._update(wrong, {2: good, 4: Reviewed("x", None)})
    assert wrong == {1: "left"}


WORDS: dict[int, tuple[Callable[[str], str], bool]] = {
    0: (lambda text: f"It is at {text}", True),
    1: (lambda _: "", False),
    2: (lambda _: "I cannot help with that.", False),
    3: (lambda text: f"It is at {text}", True),
    4: (lambda text: text + " it" * 60, False),  # longer than the student takes
    5: (lambda text: text + "<|im_end|>", False),  # would end the answer
    6: (lambda text: text + BOX, False),  # coordinates that the reference does not have
    7: (lambda text: text.replace("(250,250)", "(250,251)"), False),  # nearly the same box is another box
    11: (lambda text: text + text, False),  # a box more
}
"""Number of a sample -> what the corrector makes of its reference, and whether it counts."""


def test_a_correctors_words_count_where_they_keep_meaning_and_coordinates(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    root = tmp_path / "p"
    make_project(root, {"corrector": "remote", "steps": [1]}, steps=2, train=12)
    add_server(root, endpoint.url)
    usual = WORDS[0]
    endpoint.answer = lambda body: [(WORDS.get(number_of(body), usual)[0](reference_of(body)), [])]
    course = Course(root, tmp_path / "run")
    course.batches()
    made = course.feed.made()
    texts = {row["id"]: row["text"] for row in data(root)}
    assert len(made.rows) == 12
    for row in made.rows:
        words, taken = WORDS.get(int(row["sample"][1:]), usual)
        reference = texts[row["sample"]]
        assert (row["text"], row["corrector"]) == ((words(reference), "remote") if taken else (reference, "reference"))
    (counts,) = made.rounds
    assert (counts["rewritten"], counts["refused"]) == (5, 7)


class Place:
    """One of several processes, as far as a round needs it; the processes are threads."""

    num_processes = 2
    device = torch.device("cpu")

    def __init__(self, index: int, meet: threading.Barrier) -> None:
        self.process_index, self.wait_for_everyone = index, meet.wait

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()


def test_every_process_asks_its_share_and_reads_those_of_all(tmp_path: Path) -> None:
    root = tmp_path / "p"
    make_project(root, {"steps": [1]}, steps=3)
    alone = Course(root, tmp_path / "alone")
    alone.batches()
    meet = threading.Barrier(2, timeout=60)
    both = [Course(root, tmp_path / "both", Place(index, meet)) for index in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda course: course.batches(), both)
    for number in range(2):
        (file,) = (tmp_path / "both").rglob(f"answers-{number}.jsonl")
        assert len(file.read_text(encoding="utf-8").splitlines()) == 12
    assert [course.feed.made().rounds for course in both] == [alone.feed.made().rounds] * 2
    for step in (1, 2):
        assert len(first[step].inputs["answer_ids"]) == 2
        assert torch.equal(first[step].domain, second[step].domain)


# ------------------------------------------------------------------------------- kills and failures


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, LocalEndpoint]]:
    """A project whose v1 was made without interruption, and the corrector's server."""
    root = tmp_path_factory.mktemp("corrected") / "p"
    with local_endpoint(in_other_words) as running:
        make_project(root, {"corrector": "remote"})
        add_server(root, running.url)
        run(root)
        yield root, running


@pytest.fixture
def project(uninterrupted: tuple[Path, LocalEndpoint], tmp_path: Path) -> Iterator[tuple[Path, LocalEndpoint]]:
    """A copy without the version, and with the server in order."""
    whole, running = uninterrupted
    root = Path(shutil.copytree(whole, tmp_path / "p"))
    shutil.rmtree(root / "versions")
    running.requests.clear()
    yield root, running
    running.answer = in_other_words
    running.faults.clear()


def as_if_nothing_had_happened(root: Path, whole: Path) -> None:
    run(root)
    assert same(weights(root, "v1"), weights(whole, "v1"))
    files = [place / "versions" / "v1" / "corrections.jsonl" for place in (root, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_killed_while_it_is_corrected_it_ends_bit_for_bit_as_if_it_had_not_been(
    project: tuple[Path, LocalEndpoint], uninterrupted: tuple[Path, LocalEndpoint]
) -> None:
    """In the second group of the second round: 24, 16, and some that are lost."""
    root, running = project
    requests = 24 + 16 + 4

    def slowly(body: Mapping[str, Any]) -> Reply:
        if len(running.requests) >= requests:
            time.sleep(0.5)
        return in_other_words(body)

    running.answer = slowly
    with process(root) as started:
        deadline = time.monotonic() + 120
        while len(running.requests) < requests and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(started.pid, signal.SIGKILL)
    assert len(running.requests) >= requests
    (kept,) = (root / ".kdkit" / "runs").glob("*/corrections/round-2/answers-0.jsonl")
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 16
    running.answer = in_other_words
    running.requests.clear()
    as_if_nothing_had_happened(root, uninterrupted[0])
    assert len(running.requests) == 24 - 16


def test_killed_after_it_was_corrected(
    project: tuple[Path, LocalEndpoint], uninterrupted: tuple[Path, LocalEndpoint]
) -> None:
    root, running = project
    with process(root) as started:
        assert started.stderr is not None
        for line in started.stderr:
            if line.startswith(f"distil: {EPOCH + 2}/"):
                os.kill(started.pid, signal.SIGKILL)
                break
    assert (root / "versions").exists() is False
    running.requests.clear()
    as_if_nothing_had_happened(root, uninterrupted[0])
    assert len(running.requests) == 24


def process(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.core.distill.corrected", str(root)],
        cwd=REPOSITORY,
        env={**clean_environment(), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_server_that_fails_stops_the_run_and_what_it_said_is_kept(
    project: tuple[Path, LocalEndpoint], uninterrupted: tuple[Path, LocalEndpoint]
) -> None:
    root, running = project
    running.faults += [503, "garbage"]  # of the first requests: tried again

    def fails_later(body: Mapping[str, Any]) -> Reply:
        if len(running.requests) > 20:
            running.faults += [401] * 8
        return in_other_words(body)

    running.answer = fails_later
    with pytest.raises(KdkitError, match="refuses"):
        run(root)
    assert not (root / "versions").exists()
    running.answer = in_other_words
    running.faults.clear()
    running.requests.clear()
    as_if_nothing_had_happened(root, uninterrupted[0])
    assert len(running.requests) == 48 - 16


def test_a_lost_round_is_not_made_up(project: tuple[Path, LocalEndpoint]) -> None:
    """Its student is gone: the run is further."""
    root, _ = project
    course = Course(root, root / "run")
    course.batches()
    shutil.rmtree(root / "run" / "corrections" / "round-1")
    with pytest.raises(KdkitError, match="the corrections after step 6 are not complete") as caught:
        course.batches(EPOCH + 1)
    assert "--restart" in caught.value.fix
    assert sorted(course.batches(EPOCH)) == list(range(EPOCH, 14))  # here it still is the student of that round
