"""The table, its digests, the check and the prompts, on projects on disk."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import SPLITS, Sample
from kdkit.core.data import SampleIndex, load_index, prompt_sets
from kdkit.core.data.check import Leak, check_data, skipped_images
from kdkit.core.data.digests import DigestCache, file_digest
from kdkit.core.data.images import decode, decoding_threads, open_image
from kdkit.core.data.prompts import DEFAULT_TEMPLATES, all_prompts
from kdkit.core.project.project import Project
from kdkit.core.project.registry.schema import Registry
from tests.core.features.small import paint
from tests.errors import raises_error


def row(i: int, **changes: Any) -> dict[str, Any]:
    """A row of a manifest, with its own picture ``i.png``."""
    base = {
        "id": f"s{i}",
        "image": f"{i}.png",
        "text": f"picture {i}",
        "domain": "ct" if i % 2 else "fundus",
        "label": "normal" if i % 4 < 2 else "abnormal",
        "split": SPLITS[i % 3],
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def make_project(
    root: Path, rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any] | None = None, **registry: Any
) -> Project:
    """A project with one JSONL entry; pictures that rows name and that do not exist are painted."""
    data = root / "data"
    data.mkdir(parents=True, exist_ok=True)
    for i, one in enumerate(rows):
        if not (data / one["image"]).exists():
            paint(data / one["image"], seed=i)
    (data / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    entry = {"source": "jsonl", "path": "data/samples.jsonl", "options": dict(options or {})}
    write_registry(root, [entry], **registry)
    return Project(root)


def write_registry(root: Path, entries: Sequence[Mapping[str, Any]], **registry: Any) -> None:
    """One key a line; JSON is YAML."""
    document = {"version": 1, "data": entries, **registry}
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in document.items())
    (root / "registry.yaml").write_text(lines, encoding="utf-8")


def test_the_table(tmp_path: Path) -> None:
    rows = [row(i) for i in range(24)] + [row(24, label=None, domain="mr")]
    table = load_index(make_project(tmp_path, rows))
    assert len(table) == 25
    assert table.ids == tuple(one["id"] for one in rows)
    assert table.domains == ("ct", "fundus", "mr")
    assert [table.domains[i] for i in table.domain_index] == [one["domain"] for one in rows]
    assert table.classes == {"ct": ("abnormal", "normal"), "fundus": ("abnormal", "normal"), "mr": ()}
    labels = [
        table.classes[s.domain][i] if i >= 0 else None for s, i in zip(table.samples, table.label_index, strict=True)
    ]
    assert labels == [one.get("label") for one in rows]
    for split in (None, *SPLITS):
        for domains in (None, ["ct"], ["mr", "fundus"], []):
            for labeled in (None, True, False):
                expected = [
                    i
                    for i, one in enumerate(rows)
                    if (split is None or one["split"] == split)
                    and (domains is None or one["domain"] in domains)
                    and (labeled is None or ("label" in one) == labeled)
                ]
                got = table.select(split, domains, labeled)
                assert got.tolist() == expected
                assert got.dtype == np.int64
    with raises_error("KD-DATA-013", mentions=("'fondus'",)) as error:
        table.select(domains=["fondus"])
    assert error.value.fix == "did you mean 'fundus'?"


def test_digests_follow_the_content(tmp_path: Path) -> None:
    project = make_project(tmp_path, [row(i) for i in range(4)])
    before = load_index(project)
    assert len(set(before.digests.tolist())) == 4
    os.utime(tmp_path / "data/0.png")  # another time, the same bytes
    paint(tmp_path / "data/1.png", seed=99)
    make_project(tmp_path, [row(0), row(1), row(2, text="other"), row(3, label="x", domain="mr")])
    after = load_index(Project(tmp_path))
    assert (before.digests == after.digests).tolist() == [True, False, False, True]
    assert (before.image_digests == after.image_digests).tolist() == [True, False, True, True]


def test_digests_follow_further_images(tmp_path: Path) -> None:
    """What a model sees of a sample is all of its images, not their names."""
    paint(tmp_path / "data/more.png", seed=50)
    paint(tmp_path / "data/other.png", seed=51)
    rows = [row(i, extra={"images": images}) for i, images in enumerate([["more.png"], ["other.png", "more.png"], []])]
    before = load_index(make_project(tmp_path, rows))
    paint(tmp_path / "data/more.png", seed=52)
    after = load_index(make_project(tmp_path, rows))
    assert (before.digests == after.digests).tolist() == [False, False, True]
    assert (before.image_digests == after.image_digests).all()


def test_files_are_hashed_once_and_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    project = make_project(tmp_path, [row(i) for i in range(4)])
    first = load_index(project)
    hashed: list[Path] = []

    def counting(path: Path) -> int | str:
        hashed.append(path)
        return file_digest(path)

    cache = DigestCache(project.state / "digests.json", counting)
    stat = os.stat(first.samples[2].image)
    files = [(str(first.samples[2].image), (stat.st_size, stat.st_mtime_ns))]
    assert cache.get(files) == [first.image_digests[2]]
    assert hashed == []
    for content in (b"", b"{", b"[1]", b'{"a": 1}'):
        cache.path.write_bytes(content)
        assert cache.get(files) == [first.image_digests[2]]
    assert len(hashed) == 4
    assert (load_index(project).digests == first.digests).all()


def test_many_samples_are_quick(tmp_path: Path) -> None:
    """All rows share one file: what is timed is the table, not the disk."""
    paint(tmp_path / "data/0.png", seed=0)
    project = make_project(tmp_path, [row(i, image="0.png") for i in range(20_000)])
    load_index(project)
    start = time.process_time()
    table = load_index(project)
    table.select("train", ["ct"], True)
    assert len(table) == 20_000
    assert time.process_time() - start < 4  # about 0.4 s of an idle core; this guards against anything quadratic


@pytest.mark.parametrize(
    ("rows", "message", "line"),
    [
        ([row(0), row(1), row(0, text="again")], "1 id is used twice: s0", 3),
        ([row(0), row(1, id="s0"), row(2, id="s0")], "2 ids are used twice: s0, s0", 2),
    ],
)
def test_ids_must_be_unique(tmp_path: Path, rows: list[dict[str, Any]], message: str, line: int) -> None:
    project = make_project(tmp_path, rows)
    with pytest.raises(KdkitError, match=message) as error:
        load_index(project)
    assert error.value.where == f"{tmp_path}/data/samples.jsonl:{line}"
    assert f"{tmp_path}/data/samples.jsonl:1" in error.value.why


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    project = make_project(tmp_path, [row(i) for i in range(9)])
    for i in (2, 4, 5, 7):
        (tmp_path / f"data/{i}.png").unlink()
    with raises_error("KD-DATA-004", mentions=("4", "2", "5", "1")) as error:
        load_index(project)
    assert error.value.where.endswith("samples.jsonl:3")


def test_a_registry_without_data(tmp_path: Path) -> None:
    (tmp_path / "registry.yaml").write_text("version: 1\n", encoding="utf-8")
    with raises_error("KD-DATA-007"):
        load_index(Project(tmp_path))


def test_two_entries_keep_their_order(tmp_path: Path) -> None:
    make_project(tmp_path, [row(0), row(1)])
    options = {"domain": "mr", "split": "test", "skip_unreadable": True, "id_prefix": "more/"}
    first = {"source": "jsonl", "path": "data/samples.jsonl"}
    write_registry(tmp_path, [first, {"source": "folder", "path": "more", "options": options}])
    paint(tmp_path / "more/normal/x.png", seed=1)
    table = load_index(Project(tmp_path))
    assert table.ids == ("s0", "s1", "more/normal/x")
    assert table.may_skip.tolist() == [False, False, True]


def test_data_check_finds_what_is_wrong(tmp_path: Path) -> None:
    rows = [row(i, split="calibration") for i in range(4)]  # every class of both domains has calibration
    rows += [row(i) for i in range(4, 12)]
    rows += [
        row(20, image="0.png", split="train"),  # the same file as calibration's s0
        row(21, image="copy.bmp", split="test"),  # the same pixels as s1, another file
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
    assert report.unreadable[1].why == "no such file"
    assert list(report.duplicates) == ["s4"]
    assert report.duplicates["s4"][1].endswith(f"samples.jsonl:{len(rows)}")
    assert report.leaks == (
        Leak("file", ("s20", "s0"), ("train", "calibration")),
        Leak("pixels", ("s1", "s21"), ("calibration", "test")),
        Leak("group", ("s22", "s23"), ("train", "test")),
    )
    assert report.uncalibrated == (("ct", "rare"),)
    assert report.unlabeled == ("mr",)
    assert [line.split(":")[0] for line in report.problems] == [
        "2 unreadable images",
        "1 duplicate id",
        "1 leak between splits, the same file",
        "1 leak between splits, the same pixels",
        "1 leak between splits, one group",
        "1 class without a calibration sample",
    ]
    skipping = check_data(project, skip_unreadable=True)
    assert len(skipping.problems) == 5
    assert [bad.id for bad in skipping.skipped] == ["s25", "s26"]


def test_an_entry_without_any_image_is_told_once_with_its_line(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(24)])
    good = {"source": "jsonl", "path": "data/samples.jsonl"}
    bad = {**good, "options": {"image_root": "imgs", "id_prefix": "again/"}}
    (tmp_path / "registry.yaml").write_text(
        f"version: 1\ndata:\n- {json.dumps(good)}\n- {json.dumps(bad)}\n", encoding="utf-8"
    )
    report = check_data(Project(tmp_path))
    path = str(tmp_path / "data/imgs/0.png")
    assert report.elsewhere == {"registry.yaml:4": path}
    said = f"registry.yaml:4: no image of this entry is there, as {path}; does its option image_root fit?"
    assert said in report.problems
    with raises_error("KD-DATA-004", mentions=("24",)) as error:
        load_index(Project(tmp_path))
    assert "image_root" in error.value.fix


@pytest.mark.parametrize(("option", "what"), [("colums", "no option 'colums'"), ("skip_unreadable", "true or false")])
def test_a_wrong_option_is_told_with_the_line_of_its_entry(tmp_path: Path, option: str, what: str) -> None:
    (tmp_path / "registry.yaml").write_text(
        f"version: 1\ndata:\n- source: jsonl\n  path: a.jsonl\n  options: {{{option}: 1}}\n", encoding="utf-8"
    )
    with pytest.raises(KdkitError, match=what) as error:
        load_index(Project(tmp_path))
    assert error.value.where == f"registry.yaml:{5 if option == 'skip_unreadable' else 3}"


def test_questions_are_judged_by_answers_and_need_some_for_calibration(tmp_path: Path) -> None:
    asked = {"label": None, "extra": {"messages": [{"role": "user", "content": "<image>Which?"}]}}
    rows = [
        row(0, domain="vqa/ct", split="train", **asked),
        row(1, domain="vqa/ct", split="calibration", **asked),
        row(2, domain="vqa/mr", split="train", **asked),
        row(3, domain="vqa/mr", split="calibration", text=None, **asked),
        row(4, domain="vqa/us", split="test", **asked),
        row(5, domain="captions", split="train", label=None),
    ]
    report = check_data(make_project(tmp_path, rows))
    assert report.unlabeled == ("captions",)
    assert report.unasked == ("vqa/mr",)
    assert report.unanswered == {"vqa/mr": {"train": 0, "calibration": 1, "test": 0}}
    assert not report.problems


def test_further_images_of_a_sample_are_looked_at_too(tmp_path: Path) -> None:
    rows = [row(0), row(1, extra={"images": ["0.png", "bad.png"]}), row(2, extra={"images": ["gone.png"]})]
    project = make_project(tmp_path, rows)
    (tmp_path / "data" / "bad.png").write_bytes(b"no image")
    report = check_data(project)
    assert [(bad.id, Path(bad.image).name) for bad in report.unreadable] == [("s1", "bad.png"), ("s2", "gone.png")]
    assert report.unreadable[1].why == "no such file"
    with raises_error("KD-DATA-004", mentions=("1",)) as caught:
        load_index(project)
    assert caught.value.where.endswith("samples.jsonl:3")
    paint(tmp_path / "data" / "gone.png", seed=0)
    skipping = make_project(tmp_path, rows, {"skip_unreadable": True})
    assert skipped_images(skipping, load_index(skipping)).tolist() == [False, True, False]


def test_a_leak_through_any_image_of_a_sample_is_found_once(tmp_path: Path) -> None:
    rows = [
        row(0, extra={"images": ["9.png", "same.bmp"]}),  # train
        row(1, extra={"images": ["8.png", "0.png"]}),  # calibration: the first image of s0
        row(2, extra={"images": ["same.png", "2.png"]}),  # test: one of s0 in another format
        row(5, extra={"images": ["2.png"]}),  # test: that of s2, and its own
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


def test_data_check_is_content_with_good_data(tmp_path: Path) -> None:
    report = check_data(make_project(tmp_path, [row(i) for i in range(24)]))
    assert report.problems == ()
    assert report.repeated == 0


def sample_at(path: Path) -> Sample:
    return Sample("s", path, "text", "domain")


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "LA"])
def test_images_of_any_8_bit_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tiff"
    Image.new("RGB", (5, 4), (200, 200, 200)).convert(mode).save(path)
    image = open_image(sample_at(path))
    assert (image.mode, image.size) == ("RGB", (5, 4))


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(deep)
    with raises_error("KD-DATA-001", mentions=("8",)):
        open_image(sample_at(deep))
    whole = paint(tmp_path / "whole.png", seed=1).read_bytes()
    for content in (b"", b"text", whole[:-30], whole[:40]):
        (tmp_path / "bad.png").write_bytes(content)
        with raises_error("KD-DATA-001", mentions=("'s'",)) as error:
            open_image(sample_at(tmp_path / "bad.png"))
        assert error.value.where == str(tmp_path / "bad.png")


def prompts_of(tmp_path: Path, prompts: dict[str, list[str]]) -> tuple[Registry, SampleIndex]:
    rows = [row(0, domain="brain_mr", label="no_tumour"), row(1, domain="ct"), row(2, domain="x", label=None)]
    project = make_project(tmp_path, rows, prompts=prompts)
    return project.registry, load_index(project)


@pytest.mark.parametrize(
    ("processors", "beside", "expected"),
    [(1, None, 4), (2, "1", 4), (12, "1", 12), (64, "8", 8), (64, None, 16), (8, "4", 4), (12, "0", 12)],
)
def test_processes_of_a_machine_share_its_processors_for_decoding(
    monkeypatch: pytest.MonkeyPatch, processors: int, beside: str | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(processors), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if beside is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", beside)
    assert decoding_threads() == expected


def test_prompts(tmp_path: Path) -> None:
    registry, table = prompts_of(tmp_path, {"ct": ["{label}", "CT: {label}"], "default": ["{domain}, {label}"]})
    sets = prompt_sets(registry, table)
    assert sets == {
        "brain_mr": {"no_tumour": ["brain mr, no tumour"]},
        "ct": {"normal": ["normal", "CT: normal"]},
    }
    assert all_prompts(sets) == ("brain mr, no tumour", "normal", "CT: normal")


def test_default_prompts(tmp_path: Path) -> None:
    sets = prompt_sets(*prompts_of(tmp_path, {}))
    assert len(sets["ct"]["normal"]) == len(DEFAULT_TEMPLATES)
    assert len(all_prompts(sets)) == 2 * len(DEFAULT_TEMPLATES)
