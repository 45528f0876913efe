"""From data entries to the index of samples."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageOptions, Sample, Silent
from kdkit.core.data import load_index
from kdkit.core.data.entries import read_sources
from kdkit.core.project.project import Project
from tests.core.data.projects import make_project, row, write_registry
from tests.core.features.small import paint
from tests.errors import raises_error


def test_many_samples_are_quick(tmp_path: Path) -> None:
    """All rows share one file, so that the index is timed, not the disk."""
    paint(tmp_path / "data/0.png", seed=0)
    project = make_project(tmp_path, [row(i, image="0.png") for i in range(20_000)])
    load_index(project)
    start = time.process_time()
    index = load_index(project)
    index.select("train", ["ct"], True)
    assert len(index) == 20_000
    assert time.process_time() - start < 4  # about 0.4 s of an idle core; this guards against anything quadratic


@pytest.mark.parametrize(
    ("rows", "mentions", "line"),
    [
        ([row(0), row(1), row(0, text="again")], ("1", "s0"), 3),
        ([row(0), row(1, id="s0"), row(2, id="s0")], ("2", "s0"), 2),
    ],
)
def test_ids_must_be_unique(tmp_path: Path, rows: list[dict[str, Any]], mentions: tuple[str, ...], line: int) -> None:
    project = make_project(tmp_path, rows)
    with raises_error("KD-DATA-009", where=f"{tmp_path}/data/samples.jsonl:{line}", mentions=mentions) as error:
        load_index(project)
    assert f"{tmp_path}/data/samples.jsonl:1" in error.value.why


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    project = make_project(tmp_path, [row(i) for i in range(9)])
    for i in (2, 4, 5, 7):
        (tmp_path / f"data/{i}.png").unlink()
    with raises_error("KD-DATA-004", mentions=("4", "2", "5", "1")) as error:
        load_index(project)
    assert error.value.where.endswith("samples.jsonl:3")


def test_a_registry_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "registry.yaml").write_text("version: 1\n", encoding="utf-8")
    with raises_error("KD-DATA-007"):
        load_index(Project(tmp_path))


def test_an_entry_without_any_sample_is_refused(tmp_path: Path) -> None:
    empty = np.zeros((0, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "breastmnist.npz", train_images=empty, train_labels=empty[:, :1, 0], more=empty)
    write_registry(tmp_path, [{"source": "medmnist", "path": "breastmnist.npz"}])
    with raises_error("KD-DATA-150", mentions=("1", "arrays")):
        read_sources(Project(tmp_path))


def test_entries_keep_their_order(tmp_path: Path) -> None:
    make_project(tmp_path, [row(0), row(1)])
    options = {"domain": "mr", "split": "test", "skip_unreadable": True, "id_prefix": "more/"}
    first = {"source": "jsonl", "path": "data/samples.jsonl"}
    write_registry(tmp_path, [first, {"source": "folder", "path": "more", "options": options}])
    paint(tmp_path / "more/normal/x.png", seed=1)
    index = load_index(Project(tmp_path))
    assert index.ids == ("s0", "s1", "more/normal/x")
    assert index.may_skip.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("option", "id", "line"),
    [
        ("colums: 1", "KD-PLUG-005", 3),
        ("skip_unreadable: 1", "KD-DATA-012", 5),
        ("frame: -1", "KD-DATA-008", 5),
        ("max_pixels: 0", "KD-DATA-008", 5),
        ("jpeg_min_side: 0", "KD-DATA-008", 5),
    ],
)
def test_a_wrong_option_is_reported_with_its_line(tmp_path: Path, option: str, id: str, line: int) -> None:
    (tmp_path / "registry.yaml").write_text(
        f"version: 1\ndata:\n- source: jsonl\n  path: a.jsonl\n  options: {{{option}}}\n", encoding="utf-8"
    )
    with raises_error(id, where=f"registry.yaml:{line}"):
        load_index(Project(tmp_path))


def test_frame_and_scale_belong_to_the_content(tmp_path: Path) -> None:
    rows = [row(0)]
    digests = {
        str(options): load_index(make_project(tmp_path, rows, options)).digests[0]
        for options in ({}, {"frame": 0}, {"frame": 1}, {"max_pixels": 1_000}, {"jpeg_min_side": 1})
    }
    plain, first, second, larger, reduced = digests.values()
    assert plain == larger
    assert len({plain, first, second, reduced}) == 4
    (sample,) = load_index(make_project(tmp_path, rows, {"frame": 1, "max_pixels": 9})).samples
    assert sample.image_options == ImageOptions(1, 9, None)


def test_the_family_of_the_student_limits_thin_images(tmp_path: Path) -> None:
    project = make_project(tmp_path, [row(0)], student={"family": "clinkd"})
    assert load_index(project).samples[0].image_options.max_aspect == 200


@pytest.mark.parametrize("field", ["id", "text", "domain", "label", "extra"])
def test_half_surrogates_are_refused_with_their_line(tmp_path: Path, field: str) -> None:
    half = "a\ud83d"
    project = make_project(tmp_path, [row(0), row(1, **{field: {"note": half} if field == "extra" else half})])
    with raises_error("KD-DATA-006", where=f"{tmp_path}/data/samples.jsonl:2", mentions=(field,)) as caught:
        load_index(project)
    assert str(caught.value).encode()


def test_a_file_name_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = paint(tmp_path / "set/ct/normal/a.png", seed=1)
    os.rename(path, os.fsencode(path.parent) + b"/caf\xe9.png")
    write_registry(tmp_path, [{"source": "folder", "path": "set", "options": {"split": "train"}}])
    with raises_error("KD-DATA-006", mentions=("\\udce9",)) as caught:
        load_index(Project(tmp_path))
    assert str(caught.value).encode()


def test_a_missing_image_with_nearly_this_name_is_suggested(tmp_path: Path) -> None:
    project = make_project(tmp_path, [row(0, image="pictures/0.png")])
    manifest = tmp_path / "data/samples.jsonl"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("pictures/0.png", "Pictures\\\\0.PNG"))
    with raises_error("KD-DATA-004") as caught:
        load_index(project)
    assert str(tmp_path / "data/pictures/0.png") in caught.value.fix


def test_lost_data_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "set/ct/normal/a.png", seed=1)
    for name in (".hidden.png", "a.txt", "b.jp2", "c.jp2"):
        (tmp_path / "set/ct/normal" / name).write_bytes(b"x")
    write_registry(tmp_path, [{"source": "folder", "path": "set", "options": {"split": "train"}}])
    reporter = Silent()
    monkeypatch.setattr(reporter, "warn", (warnings := list[str]()).append)
    load_index(Project(tmp_path), reporter)
    (warning,) = warnings
    assert warning.startswith("registry.yaml:2: 2 ")
    assert ".jp2" in warning


def read_oddly(location: Path, *, fail: bool = False) -> Iterator[Sample]:
    """A source that limits its own images, and fails while it is read."""
    yield Sample("a", location / "a.png", "x", "ct", image_options=ImageOptions(1, 9, 3))
    if fail:
        raise KdkitError("ODD-001", "it fails", fix="mend it")


def test_errors_and_limits_of_a_source_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdkit.plugins.sources.folder.read_folder", read_oddly)
    cases: list[dict[str, Any]] = [{"frame": 2}, {"max_pixels": 5}, {"fail": True}]
    for options in cases:
        write_registry(
            tmp_path, [{"source": "folder", "path": "set", "options": options}], student={"family": "clinkd"}
        )
        if "fail" in options:
            with raises_error("ODD-001", where="registry.yaml:2"):
                read_sources(Project(tmp_path))
        else:
            (entry,) = read_sources(Project(tmp_path))
            assert entry.samples[0].image_options == ImageOptions(
                options.get("frame", 1), options.get("max_pixels", 9), 3
            )
