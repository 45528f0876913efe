"""Evaluation of a project: two versions of a student beside teachers and the oracle."""

from __future__ import annotations

import json
import shutil
from contextvars import Context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdkit.core.data import load_index
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.evaluation.evaluator import TaskChoice
from kdkit.core.evaluation.features import StoredFeatures
from kdkit.core.evaluation.report import EvaluationReport, write_report
from kdkit.core.evaluation.suites.run import SuiteChoice, evaluate_suite
from kdkit.core.evaluation.trust.measurements import trust_file
from kdkit.core.evaluation.trust.report import report_trust
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.missing import extract_missing
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.versions import Versions
from kdkit.core.teachers.add import add_teacher, lock_teachers
from tests.core.evaluation.trust.synthetic import Warned
from tests.errors import raises_error
from tests.journeys.test_generating_student import add_vlm, generating_project, reopened
from tests.toy_project import make_project, open_project, train_teacher, vision_teacher

ALL = ("ct", "mri", "xray")


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1 learned ct and mri; v2 learned xray from a new teacher."""
    root = tmp_path_factory.mktemp("toy") / "project"
    make_project(root, teachers={"radio": ("ct", "mri")}, domains=ALL)
    manifest = root / "images" / "samples.jsonl"
    rows = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(row for row in rows if '"domain": "xray"' not in row))
    distill(open_project(root), Options(cpu=True))
    manifest.write_text("".join(rows))
    train_teacher(["xray"], width=20, seed=5).save(root / "models" / "xr")
    add_teacher(open_project(root), "xr", {"from": "local:models/xr", "loader": "toy", "license": "mit"})
    distill(open_project(root), Options(cpu=True, incremental=True))
    # Promote it whatever the guard decided.
    versions = Versions(open_project(root))
    if "v2" in versions.candidates():
        versions.promote("v2")
    return root


@pytest.fixture(scope="module")
def report(two_versions: Path) -> EvaluationReport:
    return evaluate_version(open_project(two_versions))


def test_students_teachers_and_oracles_are_side_by_side(report: EvaluationReport) -> None:
    assert [(m.name, m.role) for m in report.evaluation.models] == [
        ("v2", "student"),
        ("v1", "student"),
        ("radio", "teacher"),
        ("xr", "teacher"),
        ("oracle", "oracle"),
        ("oracle-on-test", "oracle"),
    ]
    assert report.evaluation.model("oracle").chosen == {"ct": "radio", "mri": "radio", "xray": "xr"}
    assert all(score.count == 30 for m in report.evaluation.models for score in m.domains.values())


def test_the_student_beats_every_teacher_over_all_domains(report: EvaluationReport) -> None:
    means = {m.name: m.means["accuracy"] for m in report.evaluation.models}
    assert means["v2"] > max(means["radio"], means["xr"])
    assert report.evaluation.ratios["v2"]["accuracy"] == pytest.approx(means["v2"] / means["oracle"])


def test_history_and_learned_domains(report: EvaluationReport) -> None:
    assert report.history == ("v1", "v2")
    assert report.learned == {"ct": "v1", "mri": "v1", "xray": "v2"}
    assert report.retention is not None
    assert set(report.retention.domains) == {"ct", "mri"}
    assert set(report.retention.teachers) == {"radio"}
    assert report.continual is not None
    v1, v2 = report.evaluation.model("v1"), report.evaluation.model("v2")
    assert report.continual.transfer == pytest.approx(v1.domains["xray"].metrics["accuracy"])
    change = [v2.domains[d].metrics["accuracy"] - v1.domains[d].metrics["accuracy"] for d in ("ct", "mri")]
    assert report.continual.backward_transfer == pytest.approx(np.mean(change))


def test_settings_of_the_metrics_are_recorded(report: EvaluationReport) -> None:
    settings = report.evaluation.settings
    assert (settings["task"], settings["logit_scale"], settings["seed"]) == ("zero-shot", 100.0, 42)


def test_another_version_and_split_alone(two_versions: Path) -> None:
    found = evaluate_version(open_project(two_versions), "v1", split="calibration", ancestors=False)
    assert (found.history, found.retention, found.continual) == (("v1",), None, None)
    assert found.evaluation.split == "calibration"
    assert found.evaluation.model("v1").domains["ct"].count == 30


def test_evaluation_is_deterministic(two_versions: Path, report: EvaluationReport) -> None:
    assert evaluate_version(open_project(two_versions)).evaluation.to_json() == report.evaluation.to_json()


def evaluate_by(root: Path, task: str, **options: Any) -> EvaluationReport:
    options = {"resamples": 20, **options}
    return evaluate_version(open_project(root), task=TaskChoice(task, options), ancestors=False)


def test_retrieval_beside_teachers_and_the_oracle_of_the_calibration_split(two_versions: Path) -> None:
    report = evaluate_by(two_versions, "retrieval")
    evaluation = report.evaluation
    assert (evaluation.headline, report.own_task) == ("recall@1", False)
    assert [m.name for m in evaluation.models] == ["v2", "radio", "xr", "oracle", "oracle-on-test"]
    radio = evaluation.model("radio")
    assert radio.domains["ct"].metrics["recall@1"] > radio.domains["xray"].metrics["recall@1"]
    assert evaluation.model("oracle").chosen["xray"] == "xr"
    points, low, high = evaluation.against_oracle["v2"]["ct"]
    own, best = (evaluation.model(name).domains["ct"].metrics["recall@1"] for name in ("v2", "oracle"))
    assert points == pytest.approx(own - best)
    assert low <= points <= high
    # three captions a domain, each of ten images: the task is zero-shot classification by captions, and exact
    view = StoredFeatures(
        "radio",
        FeatureStore(two_versions / "features").column("radio"),
        index := load_index(open_project(two_versions)),
    )
    samples = [s for s in index.samples if s.split == "test" and s.domain == "ct"]
    captions = sorted({s.text for s in samples})
    text = view.captions([next(s for s in samples if s.text == caption) for caption in captions])
    nearest = (view.image(samples).astype(np.float64) @ text.astype(np.float64).T).argmax(axis=1)
    right = np.mean([captions[n] == s.text for n, s in zip(nearest, samples, strict=True)])
    assert radio.domains["ct"].metrics["image-to-text@1"] == pytest.approx(right)
    assert EvaluationReport.from_json(json.loads(json.dumps(report.to_json()))).to_json() == report.to_json()


def test_a_probe_scores_teachers_without_text_too(two_versions: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(two_versions, tmp_path / "project"))
    vision_teacher("mri", ["ct", "xray"]).save(root / "models" / "eye")
    add_teacher(open_project(root), "eye", {"from": "local:models/eye", "loader": "toy-vision", "license": "mit"})
    project = open_project(root)
    extract_missing(project, load_index(project), teachers=["eye"])
    report = evaluate_by(root, "linear-probe", fractions=(), shots=(4,), draws=2)
    eye = report.evaluation.model("eye").domains
    assert eye["mri"].metrics["accuracy"] > 0.9 > eye["ct"].metrics["accuracy"]
    without = evaluate_by(root, "retrieval").evaluation
    assert without.settings["teachers_left_out"] == {"eye": ("text",)}


def test_a_second_evaluation_computes_nothing(two_versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"fractions": (), "shots": (1,), "draws": 2, "k": (1, 3)}
    first = evaluate_by(two_versions, "knn", **options)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("kdkit.core.evaluation.evaluate.load_student", refuse)
    monkeypatch.setattr("kdkit.plugins.tasks.probes.fit_chosen", refuse)
    assert evaluate_by(two_versions, "knn", **options).to_json() == first.to_json()
    with pytest.raises(AssertionError, match="computed again"):
        evaluate_by(two_versions, "knn", **{**options, "k": (1,)})
    monkeypatch.undo()
    for path in (two_versions / ".kdkit" / "evaluation").rglob("*.*"):  # damaged caches count as absent
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-40] + b"0" * 40)
    assert evaluate_by(two_versions, "knn", **options).to_json() == first.to_json()


def test_without_labels_captions_are_the_measure(two_versions: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(two_versions, tmp_path / "project"))
    manifest = root / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps({**row, "label": None}) + "\n" for row in rows))
    report = evaluate_version(open_project(root))
    assert (report.evaluation.settings["task"], report.own_task) == ("retrieval", False)
    assert report.retention is not None
    assert report.retention.metric == "recall@1"
    written = write_report(open_project(root).reports, report)
    assert written.file.name == "evaluation-v2-test-retrieval.json"
    assert written.alt.startswith("Recall@1 of v2")
    manifest.write_text("".join(json.dumps({**row, "label": None, "text": "an image"}) + "\n" for row in rows))
    with raises_error("KD-EVAL-007"):
        evaluate_version(open_project(root), task=TaskChoice("retrieval"))


def test_a_task_or_option_that_does_not_exist(two_versions: Path) -> None:
    with raises_error("KD-PLUG-003", mentions=("'retrieve'",)):
        evaluate_by(two_versions, "retrieve")
    with raises_error("KD-PLUG-005", mentions=("'depth'",)):
        evaluate_by(two_versions, "knn", depth=3)


def test_a_removed_teacher_is_evaluated_from_the_store(
    two_versions: Path, tmp_path: Path, report: EvaluationReport
) -> None:
    root = Path(shutil.copytree(two_versions, tmp_path / "project"))
    shutil.rmtree(root / "models")
    shutil.rmtree(root / ".kdkit" / "artifacts")
    found = evaluate_version(open_project(root), ancestors=False)
    assert found.evaluation.model("radio").means == report.evaluation.model("radio").means


@pytest.mark.parametrize("published", [True, False])
def test_a_teacher_without_new_samples_is_not_evaluated_in_their_domain(
    two_versions: Path, tmp_path: Path, published: bool
) -> None:
    """Without the teacher's files (a pulled student) the warning does not suggest extraction."""
    root = Path(shutil.copytree(two_versions, tmp_path / "project"))
    shutil.copy(root / "images" / "ct-mass-0-0.png", root / "images" / "extra.png")
    with (root / "images" / "samples.jsonl").open("a") as manifest:
        manifest.write(
            '{"id": "extra", "image": "extra.png", "text": "t", "domain": "ct", "label": "mass", "split": "test"}\n'
        )
    if not published:
        lock = Lock.load(root / "registry.lock")
        held = lock.teacher("radio").model_copy(update={"source": "local:(not published)"})
        lock.with_teacher("radio", held).save(root / "registry.lock")
    reporter = Warned([])
    found = evaluate_version(open_project(root), ancestors=False, reporter=reporter)
    assert set(found.evaluation.model("radio").domains) == {"mri", "xray"}
    assert found.evaluation.model("v2").domains["ct"].count == 31
    (warning,) = (w for w in reporter.warnings if "teacher 'radio'" in w and " ct:" in w)
    assert ("features extract" in warning) is published


def test_features_of_another_fingerprint_are_refused(two_versions: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(two_versions, tmp_path / "project"))
    old = Lock.load(root / "registry.lock").teacher("radio").fingerprint[:12]
    train_teacher(["ct"], width=8, seed=9).save(root / "models" / "radio")
    lock_teachers(open_project(root), ("radio",))
    new = Lock.load(root / "registry.lock").teacher("radio").fingerprint[:12]
    assert old != new
    for call in (evaluate_version, report_trust):
        with raises_error("KD-FEAT-018", mentions=(str(old), str(new))) as caught:
            call(open_project(root))
        assert caught.value.fix.split() == ["kdkit", "features", "extract", "radio"]


def test_without_a_version(tmp_path: Path) -> None:
    root = tmp_path / "project"
    make_project(root, teachers={}, domains=("ct",), train=1, held_out=1)
    with raises_error("KD-PROJ-009"):
        evaluate_version(open_project(root))


def test_trust_report(two_versions: Path) -> None:
    project = open_project(two_versions)
    found = report_trust(project)
    assert (found.chosen.policy, found.chosen.options["value"]) == ("threshold", 0.7)
    assert found.chosen.weights.teachers.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert found.chosen.domains_without_teacher == ()
    assert [other.policy for other in found.others] == ["all", "evidence", "soft", "threshold", "top-k"]
    strict = report_trust(project, options={"value": 1.0, "on": "lower"})
    assert [gap.domain for gap in strict.chosen.domains_without_teacher] == ["ct", "mri", "xray"]
    assert [gap.teacher for gap in strict.chosen.teachers_without_domain] == ["radio", "xr"]
    other = report_trust(project, "top-k", {"k": 2})
    assert (other.chosen.policy, other.chosen.options) == ("top-k", {"k": 2})
    with raises_error("KD-PLUG-003", mentions=("'top-kk'",)):
        report_trust(project, "top-kk")
    with raises_error("KD-PLUG-005"):
        report_trust(project, "top-k", {"sharpness": 1})


def test_trust_extracts_what_calibration_lacks(two_versions: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(two_versions, tmp_path / "project"))
    recipe = (root / "toy.yaml").read_text(encoding="utf-8")
    (root / "toy.yaml").write_text(recipe.replace("losses:\n", "losses:\n  - {name: clip}\n"), encoding="utf-8")
    complete = report_trust(open_project(root))
    shutil.rmtree(root / "features")
    found = report_trust(open_project(root), device="cpu")
    np.testing.assert_array_equal(found.table.accuracy, complete.table.accuracy)
    assert found.captions is not None
    assert complete.captions is not None
    assert np.isnan(found.captions.accuracy).all()  # they are measured on training samples
    assert complete.captions.accuracy.min() > 0.9
    index = load_index(open_project(root))
    stored = FeatureStore(root / "features").column("radio").locate(index) >= 0
    assert stored.tolist() == [sample.split == "calibration" for sample in index.samples]
    shutil.rmtree(root / "features")
    shutil.rmtree(root / "models" / "xr")
    shutil.rmtree(root / ".kdkit" / "artifacts" / "xr")
    reporter = Warned([])
    with open_project(root).exclusive("kdkit distill"), raises_error("KD-TRUST-001"):
        Context().run(report_trust, open_project(root), device="cpu", reporter=reporter)  # as another command
    assert any("'kdkit distill'" in warning for warning in reporter.warnings)
    alone = report_trust(open_project(root), device="cpu", reporter=reporter).table
    assert alone.teachers == ("radio",)
    assert any("'xr'" in warning for warning in reporter.warnings)


def test_a_teacher_without_answers_on_the_split_is_reported_and_not_evaluated(tmp_path: Path) -> None:
    root = tmp_path / "p"
    generating_project(root, held_out=4)
    recipe = "name: toy\nsummary: toy\nlosses: [{name: answers}]\ntrust: {policy: all}\n"
    (root / "toy.yaml").write_text(recipe + "optimizer: {lr: 0.01, batch_size: 16, steps: 4}\n", encoding="utf-8")
    add_vlm(root, "first", seed=0)
    distill(reopened(root), Options(cpu=True))
    heard = Warned([])
    report = evaluate_version(reopened(root), split="train", reporter=heard)
    assert sum("'first'" in text for text in heard.warnings) == 1
    assert report.evaluation.model("first").means == {}
    assert "teacher" not in write_report(reopened(root).reports, report).alt


def test_a_suite_is_evaluated_on_what_is_present(two_versions: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        f"{part}_{kind}": rng.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        if kind == "images"
        else np.arange(count) % 2
        for part, count in (("val", 12), ("test", 20))
        for kind in ("images", "labels")
    }
    for name in ("breastmnist", "pneumoniamnist"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / f"{name}.npz", **arrays)
    (tmp_path / "busi" / "Dataset_BUSI_with_GT" / "benign (mask)").mkdir(parents=True)
    picture = tmp_path / "busi" / "Dataset_BUSI_with_GT" / "benign (mask)" / "1.png"
    Image.fromarray(arrays["val_images"][0]).save(picture)
    project, said = open_project(two_versions), Warned([])
    trust = trust_file(project.features).read_bytes()
    choice = SuiteChoice("mmkd", ("breastmnist", "pneumoniamnist", "busi", "bus-bra"), tmp_path)
    report = evaluate_suite(project, choice, reporter=said)
    evaluation = report.evaluation
    assert set(evaluation.domains) == {"breastmnist", "pneumoniamnist"}
    assert {m.name: sum(s.count for s in m.domains.values()) for m in evaluation.models} == dict.fromkeys(
        ("v2", "v1", "radio", "xr", "oracle", "oracle-on-test"), 40
    )
    assert evaluation.settings["suite"] == "mmkd"
    assert evaluation.settings["suite_other_release"] == ["pneumoniamnist", "breastmnist"]
    assert any("busi" in text and "benign (mask)" in text for text in said.warnings)
    assert trust_file(project.features).read_bytes() == trust  # the project's own trust is as before
    assert set(load_index(project).domains) == set(ALL)
    assert write_report(tmp_path, report).file.name == "evaluation-v2-test-suite-mmkd.json"
    with raises_error("KD-EVAL-230"):
        evaluate_suite(project, choice, by=["scanner"])
    with raises_error("KD-EVAL-253"):
        evaluate_suite(project, SuiteChoice("mmkd", ("bus-bra",), tmp_path))
