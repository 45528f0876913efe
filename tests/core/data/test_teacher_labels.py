"""Labels of a teacher in a data entry: training samples alone, and never as the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import Sample
from kdkit.core.data import load_index, stamps
from kdkit.core.data.teacher_labels import HEADER, TeacherLabel, read_labels, write_labels
from kdkit.core.project.project import Project
from tests.core.data.projects import make_project, row
from tests.errors import raises_error
from tests.recorder import Recorder

FOUND = {
    "s0": TeacherLabel("mass", 0.93, "radio", "f00d"),
    "s3": TeacherLabel("", 0.41, "radio", "f00d"),
    "s6": TeacherLabel('clear, "plain"', 0.8, "radio", "f00d"),
}


def labeled_project(root: Path, found: dict[str, TeacherLabel] = FOUND, **use: Any) -> Project:
    """Samples s0, s3 and s6 are of the training split, s1 of calibration, s2 of test; none has a label."""
    write_labels(root / "labels" / "radio.csv", found)
    rows = [row(i, label=None, domain="unknown", group=f"p{i}") for i in range(7)]
    return make_project(root, rows, {"teacher_labels": {"file": "labels/radio.csv", **use}})


def samples_of(project: Project) -> dict[str, Sample]:
    return {sample.id: sample for sample in load_index(project).samples}


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.csv", FOUND)
    assert read_labels(tmp_path / "a.csv") == FOUND
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(HEADER)


def test_labels_are_metadata_and_no_labels(tmp_path: Path) -> None:
    project = labeled_project(tmp_path)
    index = load_index(project)
    samples = {sample.id: sample for sample in index.samples}
    assert samples["s0"].extra == {
        "metadata": {
            "teacher_label": "mass",
            "teacher_confidence": 0.93,
            "teacher_name": "radio",
            "teacher_fingerprint": "f00d",
        },
        "group": "p0",
    }
    assert samples["s3"].extra == {"group": "p3"}  # below the threshold
    assert (samples["s0"].label, samples["s0"].domain, samples["s0"].text) == (None, "unknown", "picture 0")
    assert not len(index.select(labeled=True))
    assert dict(index.classes) == {"unknown": ()}
    (tmp_path / "data" / "samples.jsonl").write_text(
        (tmp_path / "data" / "samples.jsonl").read_text(encoding="utf-8"), encoding="utf-8"
    )
    plain = make_project(tmp_path, [row(i, label=None, domain="unknown", group=f"p{i}") for i in range(7)])
    assert (load_index(plain).digests == index.digests).all()  # no feature becomes invalid


def test_training_uses_them_as_domain_and_text_where_asked(tmp_path: Path) -> None:
    samples = samples_of(labeled_project(tmp_path, domain=True, text="a {domain} picture of {label}"))
    assert (samples["s0"].domain, samples["s0"].text) == ("mass", "a mass picture of mass")
    assert (samples["s3"].domain, samples["s3"].text) == ("unknown", "picture 3")
    assert samples["s6"].domain == 'clear, "plain"'
    index = load_index(Project(tmp_path))
    for found in (index.domain_of_teacher, index.text_of_teacher):
        assert [index.ids[row] for row in np.flatnonzero(found)] == ["s0", "s6"]
    index = load_index(labeled_project(tmp_path, text="{label}"))
    assert (index.domain_of_teacher.sum(), index.text_of_teacher.sum()) == (0, 2)
    assert {samples[name].domain for name in ("s1", "s2")} == {"unknown"}
    with raises_error("KD-DATA-340", mentions=["{label}"]):
        samples_of(labeled_project(tmp_path, text="{name}"))
    with raises_error("KD-DATA-341"):
        samples_of(labeled_project(tmp_path, label=True))


def test_held_out_samples_and_unknown_ids_are_told(tmp_path: Path) -> None:
    one = TeacherLabel("mass", 0.9, "radio", "f00d")
    project = labeled_project(tmp_path, {"s1": one, "s2": one, "gone": one}, domain=True, text="{label}")
    heard = Recorder()
    samples = {sample.id: sample for sample in load_index(project, heard).samples}
    assert {samples[name].domain for name in ("s1", "s2")} == {"unknown"}
    assert {samples[name].text for name in ("s1", "s2")} == {"picture 1", "picture 2"}
    assert all("metadata" not in sample.extra for sample in samples.values())
    assert sorted(line.partition(" skipped")[0].partition(": ")[2] for line in heard.warnings) == [
        "1 labels of teacher 'radio' on calibration samples",
        "1 labels of teacher 'radio' on test samples",
        "1 labels of teacher 'radio' without a sample in this data entry",
    ]


def test_they_are_refused_as_a_map_of_labels(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.csv", FOUND)
    for target in ("label_by", "domain_by"):
        project = make_project(tmp_path, [row(0)], {target: {"of": "id", "map": "labels.csv"}})
        with raises_error("KD-DATA-343", where=f"{tmp_path / 'labels.csv'}"):
            load_index(project)


def test_another_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "RECENT_NS", 0)
    project = labeled_project(tmp_path, domain=True)
    assert samples_of(project)["s0"].domain == "mass"
    write_labels(tmp_path / "labels" / "radio.csv", {"s0": TeacherLabel("cyst", 0.9, "radio", "f00d")})
    assert samples_of(project)["s0"].domain == "cyst"


@pytest.mark.parametrize(
    "content",
    ["", "id,label\na,b\n", "{H}\na,b,0.5,radio\n", "{H}\na,b,much,radio,f\n", "{H}\na,b,nan,radio,f\n",
     "{H}\na,b,0.5,radio,f\na,b,0.5,radio,f\n", "{H}\na,b,0.5,,f\n", '{H}\n"a'],
)  # fmt: skip
def test_other_files(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content.replace("{H}", ",".join(HEADER)), encoding="utf-8")
    with raises_error("KD-DATA-342", where=str(tmp_path / "a.csv")):
        read_labels(tmp_path / "a.csv")
    with raises_error("KD-DATA-342"):
        read_labels(tmp_path / "missing.csv")
