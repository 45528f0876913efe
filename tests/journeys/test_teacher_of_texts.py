"""A teacher of texts alone: added, measured by its captions, taught by the losses that can read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdkit.core.contracts import Silent
from kdkit.core.data.load import load_index
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.compatibility import compare_with_student
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.trust.report import report_trust
from kdkit.core.features.extract.missing import extract_missing
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.toy_runs import ALL, recipe
from tests.errors import raises_error
from tests.journeys.test_teacher_without_text import CAPTIONS, Told
from tests.tiny_models import make_bert_folder
from tests.toy_project import make_project, open_project

ENTRY = {"from": "local:models/words", "license": "mit"}
WAYS = ("{label} seen in {domain} number {n}", "image {n} of {domain} shows {label}", "{n}: {label}, {domain}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Captions of CT and X-rays name the finding, those of MRI none; no other teacher is there."""
    at = tmp_path / "project"
    make_project(at, teachers={}, domains=ALL, train=12, held_out=24)
    manifest = at / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for n, row in enumerate(rows):
        named = row["label"] if row["domain"] != "mri" else "something"
        row["text"] = WAYS[n % 3].format(label=named, domain=row["domain"], n=n)
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = {word for row in rows for text in (*WAYS, row["label"]) for word in text.split() if word.isalpha()}
    make_bert_folder(at / "models" / "words", words=sorted(words))
    return at


def test_it_is_added_measured_and_taught(root: Path) -> None:
    recipe(root, CAPTIONS)
    told = Told()
    add_teacher(open_project(root), "words", ENTRY, reporter=told)
    compare_with_student(open_project(root), "words", told)
    said = "words has no image features: a probe measures trust in it; the losses crd skip it"
    assert any(said in line for line in told.said)
    project = open_project(root)
    locked = project.lock.teacher("words")
    assert (locked.loader, set(locked.signals)) == ("transformers-text", {"text"})
    report = report_trust(project, device="cpu")
    assert report.table.probed == {"words": "text"}
    row = report.table.teachers.index("words")
    weights = dict(zip(report.table.domains, report.chosen.weights.teachers[row], strict=True))
    assert weights == {"ct": 1, "mri": 0, "xray": 1}
    assert report.to_json()["teachers"][row]["signal"] == "text"

    told = Told()
    plan = prepare(project, Options(), told).plan
    assert {t.name: t.skipping_losses for t in plan.teachers} == {"words": ("crd",)}
    assert any("'xray'" in line and "words teaches texts alone; captions" in line for line in told.said)
    outcome = distill(project, Options(cpu=True), reporter=told)
    assert outcome is not None
    assert {t.name: sorted(t.domains) for t in outcome.version.lineage.teachers}["words"] == ["ct", "xray"]
    assert {t.name: t.precision for t in outcome.version.lineage.teachers}["words"] == "float32"
    assert any(line.startswith("words: no image features") for line in told.said)
    again = extract_missing(open_project(root), load_index(project, Silent()))
    assert again == ()  # its prompts are stored too, so that it lacks nothing

    recipe(root, ("  - {name: fd, weight: 1.0}\n", ""))
    with raises_error("KD-DIST-019", mentions=("'words'", "text", "crd", "fd")):
        prepare(open_project(root), Options(), Silent())
