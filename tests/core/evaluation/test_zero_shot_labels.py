"""A teacher labels training samples; trust and evaluation do not change by it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdkit.core.contracts import Sample, Split, TaskSpec
from kdkit.core.data import load_index
from kdkit.core.data.images import open_image
from kdkit.core.data.teacher_labels import GAVE, read_labels
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.evaluation.evaluator import TaskChoice, _truth_rows
from kdkit.core.evaluation.trust.report import report_trust
from kdkit.core.evaluation.trust.retrieval import RetrievalTrust
from kdkit.core.evaluation.zero_shot_labels import LabelRequest, ZeroShotLabels, label_samples, read_classes
from kdkit.core.features.extract import extraction
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.project import Project
from kdkit.core.teachers.add import add_teacher
from kdkit.core.teachers.open import open_teacher
from tests.core.distill.toy_runs import Heard
from tests.core.evaluation.trust.synthetic import table_of
from tests.errors import raises_error
from tests.toy_project import CLASSES, TEMPLATE, make_project, open_project, vision_teacher

CLASSES_OF_CT: dict[str, tuple[str, ...]] = dict.fromkeys(CLASSES["ct"], ())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_project(tmp_path, teachers={"radio": ("ct", "mri")}, domains=("ct",), train=8, held_out=6)
    return tmp_path


def change_rows(root: Path, **changes: Any) -> None:
    """Change the training rows of the manifest."""
    path = root / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [{**row, **changes} if row["split"] == "train" else row for row in rows]
    kept = [{name: value for name, value in row.items() if value is not None} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def use(root: Path, **options: Any) -> Project:
    text = (root / "registry.yaml").read_text(encoding="utf-8")
    labels = {"file": "labels/radio.csv", **options}
    entry = {"source": "jsonl", "path": "images/samples.jsonl", "options": {"teacher_labels": labels}}
    text = text.replace("{source: jsonl, path: images/samples.jsonl}", json.dumps(entry))
    (root / "registry.yaml").write_text(text, encoding="utf-8")
    return open_project(root)


def label(root: Path, classes: Any = None, **options: Any) -> ZeroShotLabels:
    request = LabelRequest("radio", CLASSES_OF_CT if classes is None else classes, **options)
    return label_samples(open_project(root), request, reporter=Heard())


def test_labels_are_those_of_the_model_itself(root: Path) -> None:
    """Against the teacher's own features, without the store."""
    done = label(root, threshold=0.0)
    project = open_project(root)
    index, rows = load_index(project), load_index(project).select("train")
    model: Any = open_teacher(project, "radio").model
    texts = [TEMPLATE.format(domain="ct", label=name) for name in CLASSES["ct"]]
    with torch.inference_mode():
        pixels = [model.preprocess(open_image(index.samples[row])) for row in rows.tolist()]
        image, text = model.encode_image(torch.stack(pixels)).numpy(), model.encode_text(texts).numpy()
    image, text = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (image, text))
    logits = 100 * image.astype(np.float64) @ text.astype(np.float64).T
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = odds / odds.sum(axis=1, keepdims=True)
    found = read_labels(root / "labels" / "radio.csv")
    assert list(found) == [index.ids[row] for row in rows]
    assert [one.label for one in found.values()] == [CLASSES["ct"][n] for n in expected.argmax(axis=1)]
    confidence = [one.confidence for one in found.values()]
    assert confidence == pytest.approx(expected.max(axis=1), abs=0.02)  # stored features are float16
    fingerprint = project.lock.teacher("radio").fingerprint
    assert {(one.teacher, one.fingerprint) for one in found.values()} == {("radio", fingerprint)}
    assert (sum(done.labeled.values()), done.unsure, done.of_known) == (24, 0, 18)
    assert done.agreed / done.checked > 0.8


def test_the_threshold_and_a_second_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = {"mass": ["a ct image of mass."], "masses": ["a ct image of a mass."]}  # texts that are nearly equal
    label(root, close, threshold=0.0)
    all_of_them = read_labels(root / "labels" / "radio.csv")
    middle = float(np.median([one.confidence for one in all_of_them.values()]))
    monkeypatch.setattr(extraction, "_run_pass", None)  # nothing is encoded again
    done = label(root, close, threshold=middle)
    found = read_labels(root / "labels" / "radio.csv")
    for id_, one in found.items():
        known = all_of_them[id_]
        assert (one.confidence, one.label) == (known.confidence, known.label if known.confidence >= middle else "")
    assert done.unsure == sum(one.confidence < middle for one in all_of_them.values()) > 0
    content = (root / "labels" / "radio.csv").read_bytes()
    label(root, close, threshold=middle)
    assert (root / "labels" / "radio.csv").read_bytes() == content


def test_trust_and_evaluation_do_not_change_by_them(root: Path) -> None:
    """Nor with wrong labels of all training samples; the student learns from their captions."""
    change_rows(root, label=None, text="nothing is known")
    before = report_trust(open_project(root), device="cpu").table
    label(root, threshold=0.0)
    path = root / "labels" / "radio.csv"
    wrong = path.read_text(encoding="utf-8").replace(",clear,", ",mass,").replace(",cyst,", ",mass,")
    path.write_text(wrong, encoding="utf-8")
    project = use(root, text="a {domain} image of {label}")
    index = load_index(project)
    assert {sample.text for sample in index.samples if sample.split == "train"} == {"a ct image of mass"}
    assert not len(index.select("train", labeled=True))
    after = report_trust(project, device="cpu").table
    assert (after.accuracy == before.accuracy).all()
    assert (after.count == before.count).all()
    assert prepare(project, Options(), Heard()).plan is not None
    outcome = distill(project, Options(cpu=True))
    assert outcome is not None
    assert {score.domain: score.count for model in outcome.evaluation.models for score in model.domains.values()} == {
        "ct": 18
    }
    heard = Heard()
    change_rows(root, label="mass")  # true labels are used, whoever wrote the text
    spec = project.catalogue.spec(TaskSpec, "knn")
    assert len(_truth_rows(load_index(open_project(root)), spec, {}, "train")) == 24
    with raises_error("KD-EVAL-011"):  # captions of training samples are the truth of retrieval there
        evaluate_version(open_project(root), split="train", task=TaskChoice("retrieval"), reporter=heard)
    assert any(line.startswith("24 training samples are not used") for line in heard.warnings)


def test_trust_per_sample_has_no_score_of_captions_of_teachers() -> None:
    table = table_of([_captioned(n, given=n < 3) for n in range(40)])
    trust = RetrievalTrust(table, Heard(), every_sample=True)
    rows = np.arange(40)
    assert trust._others("ct", np.flatnonzero(table.split_index == 1), rows).tolist() == list(range(3, 20))


def _captioned(number: int, *, given: bool) -> Sample:
    """A training sample, or from number 20 on one of calibration; its caption is a teacher's label."""
    extra = {"metadata": {GAVE["text"]: True}} if given else {}
    split: Split = "train" if number < 20 else "calibration"
    return Sample(f"s{number}", Path(f"/{number}.png"), f"caption {number}", "ct", None, split, extra=extra)


def test_what_cannot_label(root: Path) -> None:
    with raises_error("KD-EVAL-341"):
        label(root, threshold=1.5)
    with raises_error("KD-EVAL-342", mentions=["'mass'"]):
        label(root, {"mass": ["{name}"], "clear": []})
    with raises_error("KD-EVAL-345", mentions=["'normal'", "'clear'"]):
        label(root, classes={"normal": ["a scan"], "mass": ["a mass"], "clear": ["a scan"]})
    with raises_error("KD-DATA-013"):
        label(root, domains=("xray",))
    with raises_error("KD-BASE-300"):  # before anything is extracted
        label_samples(open_project(root), LabelRequest("radio", CLASSES_OF_CT), root / "images", reporter=Heard())
    vision_teacher("ct", ["mri"]).save(root / "models" / "eyes")
    add_teacher(open_project(root), "eyes", {"from": "local:models/eyes", "loader": "toy-vision", "license": "mit"})
    with raises_error("KD-EVAL-344", mentions=["image"]):
        label_samples(open_project(root), LabelRequest("eyes", CLASSES_OF_CT), reporter=Heard())


def test_classes(tmp_path: Path) -> None:
    assert read_classes("normal, mass", tmp_path) == {"normal": (), "mass": ()}
    file = tmp_path / "classes.yaml"
    file.write_text("{normal: [a normal scan, clear], mass: 'a {domain} scan with a mass'}", encoding="utf-8")
    assert read_classes("classes.yaml", tmp_path) == {
        "normal": ["a normal scan", "clear"],
        "mass": ["a {domain} scan with a mass"],
    }
    for content in ("normal", "[normal]", "{normal: 1, mass: a}", "[normal, 1]", "{normal: [''], mass: a}", "a: [", ""):
        file.write_text(content, encoding="utf-8")
        with raises_error("KD-EVAL-340", where=str(file)):
            read_classes("classes.yaml", tmp_path)
    with raises_error("KD-EVAL-340"):
        read_classes("normal", tmp_path)
    with raises_error("KD-EVAL-340"):
        read_classes("none.yaml", tmp_path)


@pytest.mark.parametrize(
    ("task", "given", "used"), [("knn", "domain", 17), ("knn", "text", 20), ("retrieval", "text", 17)]
)
def test_a_task_uses_no_truth_of_teachers(task: str, given: str, used: int) -> None:
    samples = [replace(_captioned(n, given=False), label="mass") for n in range(40)]
    samples[:3] = [replace(one, extra={"metadata": {GAVE[given]: True}}) for one in samples[:3]]
    spec = load_catalogue().spec(TaskSpec, task)
    assert len(_truth_rows(table_of(samples), spec, {}, "train")) == used


def test_a_file_that_gives_domains_is_not_written_again(root: Path) -> None:
    """With ``domains`` the second call would lose the labels of all samples that the first one named."""
    label(root, threshold=0.0, domains=("ct",))
    use(root, domain=True)
    before = (root / "labels" / "radio.csv").read_bytes()
    with raises_error("KD-EVAL-460"):
        label(root, threshold=0.0, domains=("ct",))
    assert (root / "labels" / "radio.csv").read_bytes() == before
