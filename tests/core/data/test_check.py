"""Problems of the data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from kdkit.core.contracts import Silent
from kdkit.core.data import load_index
from kdkit.core.data.check import check_data
from kdkit.core.data.check.shared_images import Contradiction, Leak
from kdkit.core.data.images import decode
from kdkit.core.data.names import SimilarNames
from kdkit.core.data.unreadable import find_skipped
from kdkit.core.project.project import Project
from tests.core.data.projects import make_project, row, write_registry
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
    assert sorted(bad.id for bad in report.items("images", "problem")) == ["s25", "s26"]
    assert len({bad.what for bad in report.items("images", "problem")}) == 2
    assert [name for name, _ in report.items("ids")] == ["s4"]
    assert report.items("ids")[0][1][1].endswith(f"samples.jsonl:{len(rows)}")
    assert report.items("leaks") == (
        Leak("file", ("s20", "s0"), ("train", "calibration")),
        Leak("pixels", ("s1", "s21"), ("calibration", "test")),
        Leak("group", ("s22", "s23"), ("train", "test")),
    )
    assert report.items("uncalibrated") == (("ct", "rare"),)
    assert report.items("unlabeled") == ("mr",)
    assert [int(line.split()[0]) for line in report.problems] == [1, 1, 1, 1, 1, 1, 1]
    skipping = check_data(project, skip_unreadable=True)
    assert len(skipping.problems) == 5
    assert [bad.id for bad in skipping.items("images", "note")] == ["s25", "s26"]


def test_an_entry_without_any_image_is_one_problem(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(24)])
    good = {"source": "jsonl", "path": "data/samples.jsonl"}
    bad = {**good, "options": {"image_root": "imgs", "id_prefix": "again/"}}
    (tmp_path / "registry.yaml").write_text(
        f"version: 1\ndata:\n- {json.dumps(good)}\n- {json.dumps(bad)}\n", encoding="utf-8"
    )
    report = check_data(Project(tmp_path))
    path = str(tmp_path / "data/imgs/0.png")
    assert ("registry.yaml:4", path) in report.items("images")
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
    assert report.items("unlabeled") == ("captions",)
    assert report.items("uncalibrated-questions") == ("vqa/mr",)
    assert report.items("unanswered") == (("vqa/mr", {"train": 0, "calibration": 1, "test": 0}),)
    assert not report.problems


def test_all_images_of_a_sample_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(0), row(1, extra={"images": ["0.png", "bad.png"]}), row(2, extra={"images": ["gone.png"]})]
    project = make_project(tmp_path, rows)
    (tmp_path / "data" / "bad.png").write_bytes(b"no image")
    report = check_data(project)
    bad = report.items("images", "problem")
    assert [(one.id, Path(one.image).name) for one in bad] == [("s2", "gone.png"), ("s1", "bad.png")]
    with raises_error("KD-DATA-004", mentions=("1",)) as caught:
        load_index(project)
    assert caught.value.where.endswith("samples.jsonl:3")
    paint(tmp_path / "data" / "gone.png", seed=0)
    skipping = make_project(tmp_path, rows, {"skip_unreadable": True})
    reporter = Silent()
    monkeypatch.setattr(reporter, "warn", (warnings := list[str]()).append)
    assert find_skipped(load_index(skipping), skipping.state, reporter).tolist() == [False, True, False]
    assert [warning for warning in warnings if "1" in warning and "s1" in warning]


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
    assert report.items("leaks") == (
        Leak("file", ("s0", "s1"), ("train", "calibration")),
        Leak("pixels", ("s0", "s2"), ("train", "test")),
    )
    assert report.items("repeated") == (1,)
    twice = [row(0, extra={"images": ["9.png"]}), row(1, image="0.png", extra={"images": ["9.png"]})]
    both = check_data(make_project(tmp_path, twice))
    assert both.items("leaks") == (Leak("file", ("s0", "s1"), ("train", "calibration")),)


def test_good_data_has_no_problems(tmp_path: Path) -> None:
    report = check_data(make_project(tmp_path, [row(i) for i in range(24)]))
    assert report.problems == ()
    assert report.items("repeated") == ()


def test_names_that_mean_one_thing_are_a_problem(tmp_path: Path) -> None:
    labels = ["Pneumonia", "pneumonia", "n\u00e6vus \u00e9", "n\u00e6vus e\u0301", "a|b", "b|a", "1", "1.0", "none"]
    rows = [row(i, label=label, domain="ct", split="calibration") for i, label in enumerate(labels)]
    rows += [row(20, domain="CT", label=None, split="calibration"), row(21, domain="mr", label="a|b")]
    report = check_data(make_project(tmp_path, rows))
    assert [set(names.counts) for names in report.items("similar-names")] == [
        {"CT", "ct"}, {"1", "1.0"}, {"Pneumonia", "pneumonia"}, {"a|b", "b|a"}, {labels[2], labels[3]}
    ]  # fmt: skip
    assert report.items("similar-names")[0] == SimilarNames(None, {"CT": 1, "ct": 9})
    assert report.items("similar-names")[2] == SimilarNames("ct", {"Pneumonia": 1, "pneumonia": 1})
    assert len([line for line in report.problems if "classes of ct" in line]) == 4
    (forms,) = [line for line in report.problems if "vus" in line]
    assert "\\xe9" in forms  # the two look alike


def test_missing_values_and_lists_as_text_are_a_problem(tmp_path: Path) -> None:
    rows = [
        row(0, label="nan"), row(1, label="['n']"), row(2, text="nan"), row(3, text="['one', 'two']"),
        row(4, domain="NaN"), row(5, text="(PA) film"), row(6, label="none"), row(7, text="[x"),
        row(8, label=None, text="[1, 2]", extra={"messages": [{"role": "user", "content": "<image>?"}]}),
        row(9, label=None, text="nan", extra={"messages": [{"role": "user", "content": "<image>?"}]}),
    ]  # fmt: skip
    report = check_data(make_project(tmp_path, rows))
    assert dict(report.items("missing-values")) == {
        "class ['n']": 1, "class nan": 1, "domain NaN": 1, "text [...]": 1, "text nan": 2
    }  # fmt: skip
    assert any("class nan" in line for line in report.problems)


def test_one_image_with_several_labels_is_a_problem(tmp_path: Path) -> None:
    rows = [
        row(0, label="a", domain="ct"),
        row(3, label="b", domain="ct", image="0.png"),
        row(6, label="b", domain="ct", image="0.png"),
        row(9, label="c", domain="mr", image="0.png"),
        row(12, label="d", domain="ct"),
    ]
    report = check_data(make_project(tmp_path, rows))
    assert report.items("contradictions") == (Contradiction(("s0", "s3"), ("a", "b")),)
    assert any("s3" in line for line in report.problems)


def test_training_images_in_a_folder_of_another_split_are_a_problem(tmp_path: Path) -> None:
    rows = [row(i, image=f"{'test' if i < 2 else 'train'}/{i}.png", split="train") for i in range(5)]
    rows += [row(5, image="test/5.png", split="test"), row(6, image="val/6.png", split="calibration")]
    report = check_data(make_project(tmp_path, rows))
    assert report.items("folders") == (("test", 2),)
    assert any("2" in line and "'test'" in line for line in report.problems)
    below = check_data(make_project(tmp_path / "test", [row(i, split="train") for i in range(3)]))
    assert below.items("folders") == ()


def test_domains_named_as_splits_are_a_problem(tmp_path: Path) -> None:
    rows = [row(i, domain=["train", "Test", "ct"][i % 3], label=["valid", "x"][i % 2]) for i in range(12)]
    assert check_data(make_project(tmp_path, rows)).items("split-names") == ("Test", "train")


def test_images_are_counted_by_what_is_wrong(tmp_path: Path) -> None:
    rows = [row(i, label=None) for i in range(4)]
    project = make_project(tmp_path, rows, student={"family": "clinkd"})
    data = tmp_path / "data"
    Image.new("L", (4000, 10)).save(data / "0.png")
    frames = [Image.new("L", (8, 8), value) for value in (0, 99)]
    frames[0].save(data / "1.png", save_all=True, append_images=frames[1:])
    (data / "2.png").rename(data / "2.PNG")
    report = check_data(project)
    bad = {bad.id: bad.why for bad in report.items("images", "problem")}
    assert {id_: why.split(" ")[0] for id_, why in bad.items()} == {"s0": "4000", "s1": "2", "s2": "did"}
    assert [line.split(" ")[0] for line in report.problems] == ["1", "1", "1"]
    assert str(data / "2.PNG") in bad["s2"]
    (data / "2.PNG").rename(data / "2.png")
    index = load_index(project)
    with raises_error("KD-DATA-018", mentions=("2", "s0", "s1")):
        find_skipped(index, project.state, refuse=True)
    chosen = make_project(tmp_path, rows, {"frame": 0}, student={"family": "open_clip"})
    assert check_data(chosen).items("images", "problem") == ()


def test_what_a_source_skips_is_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        paint(tmp_path / "set/ct/normal" / name, seed=ord(name[0]))
    for name in ("a.txt", "c.dcm", "d.dcm"):
        (tmp_path / "set/ct/normal" / name).write_bytes(b"x")
    write_registry(tmp_path, [{"source": "folder", "path": "set", "options": {"split": "calibration"}}])
    report = check_data(Project(tmp_path))
    assert [(kind.entry, kind.count, kind.level) for kind in report.items("skipped-files")] == [
        ("registry.yaml:2", 1, "note"),
        ("registry.yaml:2", 2, "problem"),
    ]
    assert report.samples == 2
    (problem,) = report.problems
    assert "DICOM" in problem
