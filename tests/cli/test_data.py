"""``kdkit data check``, as a user runs it."""

from __future__ import annotations

import json

from tests.conftest import Cli
from tests.core.data.test_index import make_project, row, write_registry
from tests.core.features.small import paint


def test_good_data(kdkit_cli: Cli) -> None:
    make_project(kdkit_cli.folder, [row(i) for i in range(24)])
    done = kdkit_cli("data", "check")
    assert done.code == 0, done.stderr
    assert "24 samples, 2 domains\nno problems found\n" in done.stdout
    assert done.stdout.splitlines()[2].split() == ["ct", "abnormal", "2", "2", "2", "6"]


def test_problems_are_named_and_the_command_ends_with_1(kdkit_cli: Cli) -> None:
    make_project(kdkit_cli.folder, [*(row(i) for i in range(24)), row(30, image="bad.png"), row(3)])
    (kdkit_cli.folder / "data" / "bad.png").write_bytes(b"no image")
    done = kdkit_cli("data", "check")
    assert done.code == 1
    assert "problem: 1 unreadable image: s30" in done.stdout
    assert "problem: 1 duplicate id: s3" in done.stdout
    done = kdkit_cli("data", "check", "--json", "--skip-unreadable")
    assert done.code == 1
    report = json.loads(done.stdout)
    assert report["ok"] is False
    assert [len(report[kind]) for kind in ("unreadable", "skipped", "duplicates", "problems")] == [0, 1, 1, 1]
    assert report["counts"]["ct"]["abnormal"] == {"train": 3, "calibration": 2, "test": 2}


def test_an_error_in_a_manifest_is_one_message(kdkit_cli: Cli) -> None:
    make_project(kdkit_cli.folder, [row(0), row(1, split="val")])
    done = kdkit_cli("data", "check")
    assert done.code == 2
    assert done.stdout == ""
    assert "samples.jsonl:2: 'val' is not a split" in done.stderr
    assert "splits: {val: calibration}" in done.stderr


def test_what_a_source_warns_of_reads_like_any_other_warning(kdkit_cli: Cli) -> None:
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
    done = kdkit_cli("data", "check")
    assert done.code == 0, done.stderr
    assert "note: no calibration questions, so neither trust nor the guard can judge, in: vqa/us" in done.stdout
    (warning,) = [line for line in done.stderr.splitlines() if "broken" in line]
    assert warning.startswith("warning: ")
    assert "1 of 2 records are broken and left out" in warning
    assert "UserWarning" not in done.stderr
