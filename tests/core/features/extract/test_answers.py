"""Answers of a teacher without signals, behind an endpoint: unreadable images follow the rule of all teachers."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from kdkit.core.data import load_index
from kdkit.core.data.locations import file_of
from kdkit.core.evaluation.trust.report import report_trust
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.answers import answers_of
from kdkit.core.features.extract.extraction import Extracted
from kdkit.core.features.extract.missing import extract_missing
from kdkit.core.features.extract.status import column_statuses
from tests.core.distill.pseudo_labels.project import Oracle, make
from tests.core.teachers.stub import Notes
from tests.errors import raises_error
from tests.journeys.test_generating_student import reopened
from tests.local_endpoint import LocalEndpoint, local_endpoint


@pytest.fixture
def endpoint() -> Iterator[LocalEndpoint]:
    with local_endpoint(Oracle()) as running:
        yield running


def run(root: Path, notes: Notes) -> tuple[Extracted, ...]:
    return extract_missing(reopened(root), load_index(reopened(root)), reporter=notes)


def held_out_images(root: Path) -> list[Path]:
    samples = [sample for sample in load_index(reopened(root)).samples if sample.split != "train"]
    return [file_of(samples[0].image), file_of(samples[-1].image)]


def unanswered(root: Path) -> list[Path]:
    project = reopened(root)
    index, column = load_index(project), FeatureStore(project.features).column("remote")
    answers = zip(index.samples, answers_of(column.folder, index), strict=True)
    return [file_of(sample.image) for sample, answer in answers if sample.split != "train" and answer is None]


def test_unreadable_images_are_reported_after_all_others_are_answered(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    root = tmp_path / "project"
    make(root, endpoint, Oracle(), extracted=False)
    broken = held_out_images(root)
    contents = [path.read_bytes() for path in broken]
    for path in broken:
        path.write_bytes(b"")
    before = len(endpoint.requests)
    for attempt in range(2):  # each time; the second one asks nothing
        with raises_error("KD-FEAT-005", where=str(broken[0]), mentions=("2 of",)):
            run(root, Notes())
        assert unanswered(root) == broken
        if not attempt:
            asked = len(endpoint.requests) - before
    assert len(endpoint.requests) - before == asked > 0
    broken[0].write_bytes(contents[0])
    with raises_error("KD-FEAT-005", where=str(broken[1]), mentions=("1 of",)):
        run(root, Notes())
    assert unanswered(root) == broken[1:]
    assert len(endpoint.requests) - before == asked + 1
    broken[1].write_bytes(contents[1])
    (done,) = run(root, Notes())
    assert (done.answers, done.unreadable, unanswered(root)) == (1, 0, [])


def test_skipped_unreadable_images_are_told_each_time(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    root, notes = tmp_path / "project", Notes()
    make(root, endpoint, Oracle(), extracted=False)
    registry = root / "registry.yaml"
    entry = "path: images/samples.jsonl"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace(entry, f"{entry}, options: {{skip_unreadable: true}}"), encoding="utf-8")
    broken = held_out_images(root)
    for path in broken:
        path.write_bytes(b"no image")
    (done,) = run(root, notes)
    assert done.unreadable == 2
    assert run(root, notes) == ()
    assert [warning for warning in notes.warnings if warning.startswith("2 unreadable images skipped")] == [
        notes.warnings[0]
    ] * 2
    project = reopened(root)
    (status,) = column_statuses(project, load_index(project))
    assert (status.unreadable, status.complete) == (2, True)
    table = report_trust(project, index=load_index(project), device=None, reporter=notes).table
    assert table.teachers == ("remote",)


def test_an_error_of_the_moment_is_tried_again(
    tmp_path: Path, endpoint: LocalEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, really = tmp_path / "project", Image.open
    make(root, endpoint, Oracle(), extracted=False)
    away = held_out_images(root)

    def fails(path: Path, **options: object) -> Image.Image:
        if path in away:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return really(path, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", fails)
        for _ in range(2):
            with raises_error("KD-FEAT-005", mentions=("2 of",)):
                run(root, Notes())
    assert unanswered(root) == away
    (done,) = run(root, Notes())
    assert (done.answers, done.unreadable, unanswered(root)) == (2, 0, [])
    assert run(root, Notes()) == ()
