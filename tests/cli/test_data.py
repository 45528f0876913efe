"""``kdkit data check`` and ``kdkit data label``."""

from __future__ import annotations

import json

from tests.conftest import Cli
from tests.core.data.projects import make_project, row, write_registry
from tests.core.features.small import paint


def test_good_data(kdkit_cli: Cli) -> None:
    make_project(kdkit_cli.folder, [row(i) for i in range(24)])
    done = kdkit_cli("data", "check")
    assert done.code == 0, done.stderr
    assert kdkit_cli("data", "check", "--json").json["samples"] == 24
    assert done.stdout.splitlines()[2].split() == ["ct", "abnormal", "2", "2", "2", "6"]


def test_problems_are_listed_and_the_exit_code_is_1(kdkit_cli: Cli) -> None:
    make_project(kdkit_cli.folder, [*(row(i) for i in range(24)), row(30, image="bad.png"), row(3)])
    (kdkit_cli.folder / "data" / "bad.png").write_bytes(b"no image")
    done = kdkit_cli("data", "check")
    assert done.code == 1
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    assert [line.rpartition(" ")[2] for line in problems] == ["s30", "s3"]
    done = kdkit_cli("data", "check", "--json", "--skip-unreadable")
    assert done.code == 1
    report = done.json
    assert report["ok"] is False
    assert [(one["check"], len(one["items"])) for one in report["findings"] if one["level"] == "problem"] == [
        ("ids", 1)
    ]
    assert [one["items"][0]["id"] for one in report["findings"] if one["check"] == "images"] == ["s30"]
    assert "ids" in report["looked_at"]
    assert report["counts"]["ct"]["abnormal"] == {"train": 3, "calibration": 2, "test": 2}


def test_an_error_in_a_manifest_is_one_message(kdkit_cli: Cli) -> None:
    make_project(kdkit_cli.folder, [row(0), row(1, split="val")])
    done = kdkit_cli("data", "check")
    assert (done.code, done.error, done.stdout) == (2, "KD-SRC-020", "")
    assert "samples.jsonl:2: " in done.stderr
    assert "{val: calibration}" in done.stderr


def test_warnings_of_a_source_look_like_any_other_warning(kdkit_cli: Cli) -> None:
    turns = [{"from": "human", "value": "<image>Which?"}, {"from": "gpt", "value": "a cyst"}]
    images = kdkit_cli.folder / "images"
    paint(images / "a.png", seed=0)
    records = [{"conversations": turns, "images": ["images/a.png"]}, {"conversations": turns, "images": []}]
    columns = {"messages": "conversations", "images": "images"}
    described = {"q": {"file_name": "q.json", "formatting": "sharegpt", "columns": columns}}
    (kdkit_cli.folder / "q.json").write_text(json.dumps(records), encoding="utf-8")
    (kdkit_cli.folder / "dataset_info.json").write_text(json.dumps(described), encoding="utf-8")
    options = {"task": "vqa", "modality": "us", "split": "train", "skip_broken": True}
    write_registry(kdkit_cli.folder, [{"source": "sharegpt", "path": "dataset_info.json", "options": options}])
    done = kdkit_cli("data", "check", "--json")
    assert done.code == 0, done.stderr
    findings = {one["check"]: one["items"] for one in done.json["findings"]}
    assert findings["uncalibrated-questions"] == ["vqa/us"]
    (kind,) = findings["skipped-files"]
    assert (kind["count"], kind["level"], kind["first"].rpartition(":")[2]) == (1, "warning", "1, record 2")


def test_a_teacher_that_is_not_in_the_registry_labels_nothing(kdkit_cli: Cli) -> None:
    make_project(kdkit_cli.folder, [row(i) for i in range(6)])
    done = kdkit_cli("data", "label", "radio", "--classes", "normal,mass")
    assert done.code == 2
    assert "radio" in done.stderr
    assert kdkit_cli("data", "label", "radio", "--classes", "normal").code == 2
