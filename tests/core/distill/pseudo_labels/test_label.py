"""Pseudo-labels of a teacher behind an endpoint: trust, filters, provenance, and use as data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import Silent
from kdkit.core.data import load_index
from kdkit.core.data.locations import file_of
from kdkit.core.distill.options import Options
from kdkit.core.distill.pseudo_labels.label import LabelReport, LabelRequest, no_labels_error, write_pseudo_labels
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.missing import extract_missing
from kdkit.core.features.extract.status import column_statuses
from kdkit.core.project.project import Project
from tests.core.distill.pseudo_labels import project as example
from tests.core.distill.pseudo_labels.project import Oracle
from tests.errors import raises_error
from tests.journeys.test_generating_student import add_vlm, reopened
from tests.local_endpoint import LocalEndpoint, local_endpoint
from tests.plugins.students.clinkd.tiny import SIZES, SMALL


@dataclass
class Scene:
    project: Project
    endpoint: LocalEndpoint
    oracle: Oracle
    to: Path

    def label(self, dry_run: bool = False, **wanted: Any) -> LabelReport:
        return write_pseudo_labels(
            reopened(self.project.root), "remote", self.to, LabelRequest(**wanted), dry_run=dry_run
        )

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.to.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    oracle = Oracle()
    with local_endpoint(oracle) as endpoint:
        yield Scene(
            example.make(tmp_path / "p", endpoint, oracle), endpoint, oracle, tmp_path / "p" / "out" / "l.jsonl"
        )


def test_a_teacher_without_signals_has_a_complete_column(scene: Scene) -> None:
    (status,) = column_statuses(scene.project, load_index(scene.project))
    assert (status.signals, status.rows, status.complete) == ({}, 0, True)
    assert extract_missing(reopened(scene.project.root), load_index(scene.project)) == ()
    assert scene.oracle.open == 0


def test_missing_answers_are_counted_and_requested(scene: Scene) -> None:
    table = load_index(scene.project)
    path = FeatureStore(scene.project.features).column("remote").folder / "answers.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    count = len(lines) - 1
    (status,) = column_statuses(scene.project, table)
    assert (status.answers, status.complete) == ((count - 2, count), False)
    (done,) = extract_missing(reopened(scene.project.root), table)
    assert (done.new, done.answers) == (0, 2)
    (status,) = column_statuses(scene.project, table)
    assert (status.answers, status.complete) == ((count, count), True)


def test_labels_of_trusted_domains_have_provenance_and_pass_filters(scene: Scene) -> None:
    planned = scene.label(dry_run=True)
    assert (planned.unanswered, planned.not_trusted, planned.answered, planned.kept) == (18, {"mri": 9}, 0, {})
    assert scene.oracle.open == 0
    assert not scene.to.exists()

    done = scene.label(min_confidence=0.5)
    assert (done.answered, done.known, done.unsure, done.empty, done.unknown, done.over_limit) == (9, 0, 3, 0, 0, 0)
    assert (done.kept, done.not_trusted) == ({"ct": 6}, {"mri": 9})
    rows = scene.rows()
    assert len(rows) == 6
    about = rows[0]["extra"]["pseudo"]
    fingerprint = FeatureStore(scene.project.features).column("remote").fingerprint
    assert (about["teacher"], about["fingerprint"], about["decoding"]["samples"]) == ("remote", fingerprint, 0)
    assert about["trust"]["accuracy"] == pytest.approx(1.0)
    assert about["trust"]["weight"] == 1.0
    assert all(row["extra"]["pseudo"]["confidence"] == pytest.approx(0.9) for row in rows)

    again = scene.label()  # another filter sends no request
    assert (again.answered, again.known, again.kept) == (0, 9, {"ct": 9})
    assert scene.oracle.open == 9
    limited = scene.label(limit=2, domains=("ct",))
    assert (limited.over_limit, limited.kept) == (7, {"ct": 2})


def test_a_random_part_of_each_domain(scene: Scene) -> None:
    """ClinKD labels a random part; a larger share of the same seed has the questions of a smaller one."""
    drawn = []
    for share, seed in ((0.5, 1), (0.8, 1), (0.5, 2)):
        done = scene.label(share=share, seed=seed)
        drawn.append({row["extra"]["pseudo"]["sample"] for row in scene.rows()})
        assert (done.not_drawn, done.kept) == (9 - len(drawn[-1]), {"ct": len(drawn[-1])})
    assert [len(one) for one in drawn] == [5, 8, 5]
    assert drawn[0] < drawn[1]
    assert drawn[0] != drawn[2]
    with raises_error("KD-LABEL-570"):
        scene.label(share=0.0)


def test_an_earlier_manifest_stays_if_no_answer_passes(scene: Scene) -> None:
    scene.label()
    before = scene.to.read_bytes()
    none = scene.label(min_confidence=0.95)
    assert (none.kept, none.unsure, scene.to.read_bytes()) == ({}, 9, before)
    error = no_labels_error(none)
    assert (error.id, error.code) == ("KD-LABEL-007", ExitCode.FOUND)
    assert re.findall(r"\d+", error.why) == ["18", "9", "9"]
    assert "--min-confidence" in error.fix
    untrusted = no_labels_error(scene.label(domains=("mri",)))
    assert (re.findall(r"\d+", untrusted.why), untrusted.fix) == (["9", "9"], "kdkit trust")


def test_other_files_are_not_replaced(scene: Scene) -> None:
    root = scene.project.root
    for name, id in (
        ("images", "KD-BASE-030"),
        ("registry.yaml", "KD-BASE-031"),
        ("images/open.jsonl", "KD-BASE-031"),
    ):
        before = (root / name).read_bytes() if (root / name).is_file() else b""
        scene.to = root / name
        with raises_error(id, where=str(root / name)):
            scene.label()
        assert scene.to.is_dir() or scene.to.read_bytes() == before
    assert scene.oracle.open == 0


def test_the_manifest_is_data_and_its_questions_stay_open(scene: Scene) -> None:
    done = scene.label()
    registry = scene.project.registry_path
    entry = f"  - {{source: jsonl, path: {done.file}, options: {{image_root: {done.image_root}}}}}\n"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace("prompts:", entry + "prompts:"), encoding="utf-8")
    table = load_index(reopened(scene.project.root))
    made = [sample for sample in table.samples if sample.id.endswith("#remote")]
    assert len(made) == 9
    for sample in made:
        source = next(other for other in table.samples if other.id == sample.extra["pseudo"]["sample"])
        assert source.text == ""
        assert sample.text.split()
        assert file_of(sample.image).samefile(file_of(source.image))
        assert (sample.domain, sample.split) == (source.domain, "train")
        assert sample.extra["messages"] == source.extra["messages"]
    assert int(table.unanswered.sum()) == 18
    assert not any(table.unanswered[row] for row, sample in enumerate(table.samples) if sample.text)
    assert scene.label().unanswered == 18  # the manifest may be data already


def test_answers_that_the_student_refuses_are_no_pseudo_labels(scene: Scene) -> None:
    """Invalid boxes and long answers would stop a training run."""
    root = scene.project.root
    registry, path = scene.project.registry_path, root / "images" / "open.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["extra"]["box_family"] = "qwen2-vl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    student = f"student: {{family: clinkd, config: {json.dumps({'sizes': SIZES, **SMALL})}}}"
    text = "\n".join(student if x.startswith("student:") else x for x in registry.read_text("utf-8").splitlines())
    everybody = "{policy: all, options: {unmeasured: true}}"
    registry.write_text(text.replace("{policy: threshold, options: {value: 0.8}}", everybody) + "\n", encoding="utf-8")
    said = ["<|box_start|>(9,1),(3,4)<|box_end|>", "word " * 30, "<|box_start|>(1,2),(3,4)<|box_end|>", "<|im_end|>"]
    for number, (key, (_, sure)) in enumerate(list(scene.oracle.known.items())[-18:-9]):
        scene.oracle.known[key] = (said[number % 4], sure)
    done = scene.label(domains=("ct",))
    assert (done.unlearnable, done.kept) == (7, {"ct": 2})
    entry = f"  - {{source: jsonl, path: {done.file}, options: {{image_root: {done.image_root}}}}}\n"
    registry.write_text(registry.read_text("utf-8").replace("prompts:", entry + "prompts:"), encoding="utf-8")
    assert {s.text for s in load_index(reopened(root)).samples if "pseudo" in s.extra} == {said[2]}


def test_labeling_resumes_after_a_kill(scene: Scene) -> None:
    scene.label()
    whole = scene.rows()
    path = next(scene.project.features.glob("remote/*/pseudo-labels.jsonl"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    scene.to.unlink()
    done = scene.label()
    assert (done.answered, done.known) == (5, 4)
    assert scene.rows() == whole


def test_changed_samples_are_answered_again(scene: Scene) -> None:
    scene.label()
    questions = scene.project.root / "images" / "open.jsonl"
    lines = questions.read_text(encoding="utf-8").splitlines(keepends=True)
    assert '"ct"' in lines[0]
    questions.write_text("".join([lines[0].replace("What is it?", "What is this?"), *lines[1:]]), encoding="utf-8")
    done = scene.label()
    assert (done.answered, done.known) == (1, 8)


def test_servers_without_probabilities(scene: Scene) -> None:
    oracle = scene.oracle
    scene.endpoint.answer = lambda body: [(text, []) for text, _ in oracle(body)]
    done = scene.label(min_confidence=0.5)
    assert (done.unknown, done.kept) == (9, {})
    assert "--min-confidence" in no_labels_error(done).fix
    assert scene.label().kept == {"ct": 9}
    assert {row["extra"]["pseudo"]["confidence"] for row in scene.rows()} == {None}


def test_invalid_requests(scene: Scene) -> None:
    with raises_error("KD-LABEL-008", mentions=("'remot'",)) as caught:
        write_pseudo_labels(scene.project, "remot", scene.to, reporter=Silent())
    assert "'remote'" in caught.value.fix
    with raises_error("KD-DATA-013", mentions=("'xray'",)):
        scene.label(domains=("xray",))
    with raises_error("KD-LABEL-005", where="min_confidence", mentions=("0", "1")):
        scene.label(min_confidence=1.5)
    scene.endpoint.faults += [401] * 20
    with raises_error("KD-LOAD-006", mentions=("401",)):
        scene.label()
    assert not scene.to.exists()


def test_a_teacher_without_signals_teaches_only_through_labels(scene: Scene) -> None:
    root = scene.project.root
    (root / "toy.yaml").write_text(
        "name: toy\nsummary: toy\nlosses: [{name: answers}]\ntrust: {policy: all}\n"
        "optimizer: {lr: 0.01, batch_size: 16, steps: 5}\n",
        encoding="utf-8",
    )
    with raises_error("KD-DIST-032"):
        distill(reopened(root), Options(cpu=True))
    add_vlm(root, "first", seed=0, sureness=30.0)
    done = distill(reopened(root), Options(cpu=True))
    assert done is not None
    assert [teacher.name for teacher in done.version.lineage.teachers] == ["first"]
    table = load_index(reopened(root))
    answered = [row for row in table.select(split="train") if table.samples[row].text]
    assert done.version.known_samples().tolist() == sorted(table.digests[answered].tolist())
    assert evaluate_version(reopened(root)).evaluation.model("remote").domains["ct"].metrics["accuracy"] == 1.0
