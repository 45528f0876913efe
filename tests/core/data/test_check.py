"""Problems of the data."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from kdkit.core.data import load_index
from kdkit.core.data.check import Leak, check_data, find_skipped
from kdkit.core.data.images import decode
from kdkit.core.project.project import Project
from tests.core.data.projects import make_project, row
from tests.core.features.small import paint
from tests.errors import raises_error


def test_problems_are_found(tmp_path: Path) -> None:
    rows = [row(i, split="calibration") for i in range(4)]  # calibration samples of every class
    rows += [row(i) for i in range(4, 12)]
    rows += [
        row(20, image="0.png", split="train"),  # the file of s0
        row(21, image="copy.bmp", split="test"),  # the pixels of s1 in another file
        row(22, group="p1", split="train"),
        row(23, group="p1", split="test"),
        row(24, label="rare", domain="ct", split="test"),
        row(25, image="bad.png"),
        row(26, image="gone.png"),
        row(27, domain="mr", label=None),
        row(4, text="again"),
    ]
    project = make_project(tmp_path, rows)
    data = tmp_path / "data"
    decode(data / "1.png").save(data / "copy.bmp")
    (data / "bad.png").write_bytes((data / "2.png").read_bytes()[:100])
    (data / "gone.png").unlink()
    report = check_data(project)
    assert report.samples == len(rows)
    assert report.counts["ct"]["rare"] == {"train": 0, "calibration": 0, "test": 1}
    assert sum(n for labels in report.counts.values() for c in labels.values() for n in c.values()) == len(rows)
    assert [bad.id for bad in report.unreadable] == ["s25", "s26"]
    assert list(report.duplicates) == ["s4"]
    assert report.duplicates["s4"][1].endswith(f"samples.jsonl:{len(rows)}")
    assert report.leaks == (
        Leak("file", ("s20", "s0"), ("train", "calibration")),
        Leak("pixels", ("s1", "s21"), ("calibration", "test")),
        Leak("group", ("s22", "s23"), ("train", "test")),
    )
    assert report.uncalibrated == (("ct", "rare"),)
    assert report.unlabeled == ("mr",)
    assert [int(line.split()[0]) for line in report.problems] == [2, 1, 1, 1, 1, 1]
    skipping = check_data(project, skip_unreadable=True)
    assert len(skipping.problems) == 5
    assert [bad.id for bad in skipping.skipped] == ["s25", "s26"]


def test_an_entry_without_any_image_is_one_problem(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(24)])
    good = {"source": "jsonl", "path": "data/samples.jsonl"}
    bad = {**good, "options": {"image_root": "imgs", "id_prefix": "again/"}}
    (tmp_path / "registry.yaml").write_text(
        f"version: 1\ndata:\n- {json.dumps(good)}\n- {json.dumps(bad)}\n", encoding="utf-8"
    )
    report = check_data(Project(tmp_path))
    path = str(tmp_path / "data/imgs/0.png")
    assert report.entries_without_images == {"registry.yaml:4": path}
    (problem,) = [line for line in report.problems if line.startswith("registry.yaml:4")]
    assert path in problem
    with raises_error("KD-DATA-004", mentions=("24",)) as error:
        load_index(Project(tmp_path))
    assert "image_root" in error.value.fix


def test_questions_need_calibration_answers_instead_of_labels(tmp_path: Path) -> None:
    question = {"label": None, "extra": {"messages": [{"role": "user", "content": "<image>Which?"}]}}
    rows = [
        row(0, domain="vqa/ct", split="train", **question),
        row(1, domain="vqa/ct", split="calibration", **question),
        row(2, domain="vqa/mr", split="train", **question),
        row(3, domain="vqa/mr", split="calibration", text=None, **question),
        row(4, domain="vqa/us", split="test", **question),
        row(5, domain="captions", split="train", label=None),
    ]
    report = check_data(make_project(tmp_path, rows))
    assert report.unlabeled == ("captions",)
    assert report.without_calibration_answers == ("vqa/mr",)
    assert report.unanswered == {"vqa/mr": {"train": 0, "calibration": 1, "test": 0}}
    assert not report.problems


def test_all_images_of_a_sample_are_checked(tmp_path: Path) -> None:
    rows = [row(0), row(1, extra={"images": ["0.png", "bad.png"]}), row(2, extra={"images": ["gone.png"]})]
    project = make_project(tmp_path, rows)
    (tmp_path / "data" / "bad.png").write_bytes(b"no image")
    report = check_data(project)
    assert [(bad.id, Path(bad.image).name) for bad in report.unreadable] == [("s1", "bad.png"), ("s2", "gone.png")]
    with raises_error("KD-DATA-004", mentions=("1",)) as caught:
        load_index(project)
    assert caught.value.where.endswith("samples.jsonl:3")
    paint(tmp_path / "data" / "gone.png", seed=0)
    skipping = make_project(tmp_path, rows, {"skip_unreadable": True})
    assert find_skipped(load_index(skipping), skipping.state).tolist() == [False, True, False]


def test_a_leak_through_any_image_of_a_sample_is_found_once(tmp_path: Path) -> None:
    rows = [
        row(0, extra={"images": ["9.png", "same.bmp"]}),  # train
        row(1, extra={"images": ["8.png", "0.png"]}),  # calibration: shares the first image of s0
        row(2, extra={"images": ["same.png", "2.png"]}),  # test: shares one of s0 in another format
        row(5, extra={"images": ["2.png"]}),  # test: shares one with s2
    ]
    (tmp_path / "data").mkdir()
    for number in (8, 9):
        paint(tmp_path / "data" / f"{number}.png", seed=100 + number)
    Image.open(paint(tmp_path / "data" / "same.png", seed=200)).convert("RGB").save(tmp_path / "data" / "same.bmp")
    report = check_data(make_project(tmp_path, rows))
    assert report.leaks == (
        Leak("file", ("s0", "s1"), ("train", "calibration")),
        Leak("pixels", ("s0", "s2"), ("train", "test")),
    )
    assert report.repeated == 1
    twice = [row(0, extra={"images": ["9.png"]}), row(1, image="0.png", extra={"images": ["9.png"]})]
    both = check_data(make_project(tmp_path, twice))
    assert both.leaks == (Leak("file", ("s0", "s1"), ("train", "calibration")),)


def test_good_data_has_no_problems(tmp_path: Path) -> None:
    report = check_data(make_project(tmp_path, [row(i) for i in range(24)]))
    assert report.problems == ()
    assert report.repeated == 0
