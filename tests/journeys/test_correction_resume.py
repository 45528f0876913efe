"""A corrected run resumes after a kill, a failure of its corrector, or the loss of a round."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.journal import Journal
from tests.conftest import start_module
from tests.core.distill.corrected import EPOCH, Course, add_server, in_other_words, make_project, run, same, weights
from tests.errors import raises_error
from tests.local_endpoint import LocalEndpoint, Reply, local_endpoint


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, LocalEndpoint]]:
    """A project with an uninterrupted v1, and the corrector's server."""
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


def assert_resumes_like(root: Path, whole: Path) -> None:
    run(root)
    assert same(weights(root, "v1"), weights(whole, "v1"))
    files = [place / "versions" / "v1" / "corrections.jsonl" for place in (root, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_killed_during_correction_resumes_bit_for_bit(
    project: tuple[Path, LocalEndpoint], uninterrupted: tuple[Path, LocalEndpoint]
) -> None:
    """In the second group of the second round: 24, 16, and some that are lost."""
    root, running = project
    requests = 24 + 16 + 4

    with silent_from(running, requests):
        process, lines = start_module("tests.core.distill.corrected", str(root), "60")
        while len(running.requests) < requests:
            assert process.poll() is None, lines.read()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        lines.close()
    (kept,) = (root / ".kdkit" / "runs").glob("*/corrections/round-2/answers-0.jsonl")
    assert len(Journal(kept).read()) == 16
    running.requests.clear()
    assert_resumes_like(root, uninterrupted[0])
    assert len(running.requests) == 24 - 16


def test_a_run_killed_between_two_rounds_resumes_bit_for_bit(
    project: tuple[Path, LocalEndpoint], uninterrupted: tuple[Path, LocalEndpoint]
) -> None:
    """It goes on in the middle of what follows from the first round."""
    root, running = project
    with silent_from(running, 24 + 1):
        process, lines = start_module("tests.core.distill.corrected", str(root), "0")
        with lines:
            for line in lines:
                if line.startswith(f"distill: {EPOCH + 3}/"):
                    os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    assert not (root / "versions").exists()
    (newest,) = sorted((root / ".kdkit" / "runs").glob("*/step-*"))[-1:]
    assert newest.name > f"step-{EPOCH:08d}"
    running.requests.clear()
    assert_resumes_like(root, uninterrupted[0])
    assert len(running.requests) == 24, "the second round"


@contextmanager
def silent_from(running: LocalEndpoint, request: int) -> Iterator[None]:
    """That many requests arrive, and from this one on none is answered: the process gets no further before its end."""
    over = threading.Event()

    def answer(body: Mapping[str, Any]) -> Reply:
        if len(running.requests) >= request:
            over.wait(300)
        return in_other_words(body)

    running.answer = answer
    try:
        yield
    finally:
        over.set()
        running.answer = in_other_words


def test_a_failing_server_stops_the_run_and_its_answers_are_kept(
    project: tuple[Path, LocalEndpoint], uninterrupted: tuple[Path, LocalEndpoint]
) -> None:
    root, running = project
    running.faults += [503, "garbage"]  # of the first requests: tried again

    def fails_later(body: Mapping[str, Any]) -> Reply:
        if len(running.requests) > 20:
            running.faults += [401] * 8
        return in_other_words(body)

    running.answer = fails_later
    with raises_error("KD-LOAD-006", mentions=("refuses",)):
        run(root)
    assert not (root / "versions").exists()
    running.settle()
    running.answer = in_other_words
    running.faults.clear()
    running.requests.clear()
    assert_resumes_like(root, uninterrupted[0])
    assert len(running.requests) == 48 - 16


def test_a_lost_round_is_an_error(project: tuple[Path, LocalEndpoint]) -> None:
    """Its student is gone: the run is further."""
    root, _ = project
    course = Course(root, root / "run")
    course.batches()
    shutil.rmtree(root / "run" / "corrections" / "round-1")
    with raises_error("KD-DIST-007", mentions=("6",)) as caught:
        course.batches(EPOCH + 1)
    assert "--restart" in caught.value.fix
    assert sorted(course.batches(EPOCH)) == list(range(EPOCH, 14))  # here it still is the student of that round
