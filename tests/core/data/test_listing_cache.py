"""Samples that are kept between commands."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import Sample
from kdkit.core.data import arrow_files, listing_cache, load_index, stamps
from kdkit.core.data.collect import to_table
from kdkit.core.data.entries import read_sources
from kdkit.core.data.listing_cache import Changes, find_changes
from kdkit.core.data.locations import file_of
from kdkit.core.project.project import Project
from kdkit.plugins.sources.manifest import JsonlManifest
from tests.core.data.projects import make_project, row, write_registry
from tests.core.features.small import paint
from tests.errors import raises_error
from tests.recorder import Recorder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The manifests that were read; files that have just changed count as old ones."""
    found: list[Path] = []
    read = JsonlManifest.__iter__

    def counted(self: JsonlManifest) -> Iterator[Any]:
        found.append(self.location)
        yield from read(self)

    monkeypatch.setattr(JsonlManifest, "__iter__", counted)
    monkeypatch.setattr(stamps, "RECENT_NS", -(10**15))
    return found


def load(project: Project, **options: Any) -> tuple[list[Sample], list[int], list[str]]:
    reporter = Recorder()
    index = load_index(Project(project.root), reporter, **options)
    return list(index.samples), index.digests.tolist(), reporter.lines


def index_file(project: Project) -> Path:
    (path,) = (project.state / "index").glob("entry-*.arrow")
    return path


def test_a_source_is_read_once(tmp_path: Path, reads: list[Path]) -> None:
    project = make_project(tmp_path, [row(i, extra={"group": f"g{i}"}) for i in range(5)])
    first = load(project)
    assert [load(project), load(project)] == [first, first]
    assert len(reads) == 1
    make_project(tmp_path, [row(i) for i in range(5)], {"id_prefix": "x/"})
    assert [one.id for one in load(project)[0]] == [f"x/s{i}" for i in range(5)]
    assert len(reads) == 2, "other options are another listing"


def test_what_changed_is_said(tmp_path: Path, reads: list[Path]) -> None:
    project = make_project(tmp_path, [row(i) for i in range(6)])
    load(project)
    rows = [row(0), row(2, text="other"), row(3, label=None), row(4), row(5), row(6), row(7)]
    make_project(tmp_path, rows)
    samples, digests, lines = load(project)
    assert [one.text for one in samples] == [one["text"] for one in rows]
    (line,) = lines
    assert [word for word in line.split() if word.isdigit()] == ["2", "2", "1"], line
    assert line.startswith("registry.yaml:2:")
    assert load(project) == (samples, digests, [])
    assert len(reads) == 2


def test_a_manifest_that_has_just_changed_is_read_again(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "RECENT_NS", 10**15)
    project = make_project(tmp_path, [row(0)])
    load(project)
    load(project)
    assert len(reads) == 2


@pytest.mark.parametrize("harm", ["cut", "empty", "text", "flip", "format", "columns"])
def test_a_damaged_or_older_index_is_made_anew(
    tmp_path: Path, reads: list[Path], harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path, [row(i) for i in range(5)])
    if harm == "format":
        monkeypatch.setattr(listing_cache, "FORMAT", 0)
    first = load(project)
    monkeypatch.setattr(listing_cache, "FORMAT", 1)
    path = index_file(project)
    if harm == "columns":
        table = arrow_files.read_table(path)
        metadata = {listing_cache.HEAD: table.schema.metadata[listing_cache.HEAD.encode()].decode()}
        arrow_files.write_table(table.drop_columns(["text"]), tmp_path / "other", metadata)
        os.replace(tmp_path / "other", path)  # the old one is mapped
    else:
        content = path.read_bytes()
        flipped = content.replace(b"picture 3", b"picture 2")  # a text that is as valid
        path.write_bytes({"cut": content[:-90], "empty": b"", "text": b"x" * 900, "flip": flipped}.get(harm, content))
    samples, digests, lines = load(project)
    assert (samples, digests) == first[:2]
    assert len(lines) == 1
    assert load(project) == first
    assert len(reads) == 2


@pytest.mark.usefixtures("reads")
def test_replaced_images_are_found_by_policy(tmp_path: Path) -> None:
    """Two images of one size change places; the second time their times stay as they were."""
    rows = [row(i, image=f"{i}.bmp") for i in range(3)]
    seen = {}
    for verify in ("none", "stat", "hash"):
        project = make_project(tmp_path / verify, rows, {"verify": verify})
        found = [load(project)[1]]
        paths = [project.root / f"data/{i}.bmp" for i in (0, 1)]
        for keep_times in (False, True):
            contents = [path.read_bytes() for path in reversed(paths)]
            for path, content in zip(paths, contents, strict=True):
                before = path.stat().st_mtime_ns
                path.write_bytes(content)
                os.utime(path, ns=(before, before if keep_times else before + 10**9))
            assert load(project, verify=False)[1] == found[-1], "commands that only read do not look"
            _, digests, lines = load(project)
            assert len(lines) == (digests != found[-1])
            found.append(digests)
        seen[verify] = [found[0] != found[1], found[1] != found[2]]
    assert seen == {"none": [False, False], "stat": [True, False], "hash": [True, True]}


@pytest.mark.usefixtures("reads")
def test_a_missing_image_is_found_by_commands_that_verify(tmp_path: Path) -> None:
    project = make_project(tmp_path, [row(i) for i in range(3)])
    load(project)
    (tmp_path / "data/1.png").unlink()
    assert len(load(project, verify=False)[0]) == 3
    with raises_error("KD-DATA-004", where=f"{tmp_path}/data/samples.jsonl:2"):
        load(project)


@pytest.mark.usefixtures("reads")
def test_further_images_belong_to_the_content(tmp_path: Path) -> None:
    paint(tmp_path / "data/more.png", seed=50)
    paint(tmp_path / "data/other.png", seed=51)
    images = [["more.png"], ["other.png", "more.png"], [], ["other.png"]]
    project = make_project(tmp_path, [row(i, extra={"images": one}) for i, one in enumerate(images)])
    before = load(project)
    paint(tmp_path / "data/more.png", seed=52)
    after = load(project)
    assert [a == b for a, b in zip(before[1], after[1], strict=True)] == [False, False, True, True]
    (project.state / "digests.arrow").unlink()
    index_file(project).unlink()
    assert load(project)[:2] == after[:2], "as if read for the first time"


def test_the_frame_belongs_to_the_content(tmp_path: Path, reads: list[Path]) -> None:
    project, digests = make_project(tmp_path, [row(0)]), []
    for options in ({}, {"frame": 0}, {"frame": 1}, {}):
        write_registry(tmp_path, [{"source": "jsonl", "path": "data/samples.jsonl", "options": options}])
        digests.append(load(project)[1])
    assert len({tuple(one) for one in digests}) == 3
    assert digests[0] == digests[3]
    assert len(reads) == 1


@pytest.mark.usefixtures("reads")
def test_entries_that_share_a_listing_have_the_same_ids(tmp_path: Path) -> None:
    entry: dict[str, Any] = {"source": "jsonl", "path": "data/samples.jsonl"}
    load(make_project(tmp_path, [row(i) for i in range(3)]))
    write_registry(tmp_path, [entry, {**entry, "options": {"verify": "none"}}])
    with raises_error("KD-DATA-009"):
        load(Project(tmp_path))


def test_data_that_change_while_they_are_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, read, times = make_project(tmp_path, [row(i) for i in range(3)]), JsonlManifest.__iter__, 1

    def changing(self: JsonlManifest) -> Iterator[Any]:
        nonlocal times
        for number, found in enumerate(read(self)):
            if number == 0 and times:
                times -= 1
                self.location.write_text(self.location.read_text() + json.dumps(row(3, image="0.png")) + "\n")
            yield found

    monkeypatch.setattr(JsonlManifest, "__iter__", changing)
    assert len(load(project)[0]) == 4, "read again"
    times = 9
    with raises_error("KD-DATA-181", where=str(tmp_path / "data/samples.jsonl")):
        load(make_project(tmp_path, [row(i) for i in range(3)]))
    assert times == 9 - listing_cache.TRIES


@pytest.mark.usefixtures("reads")
def test_a_new_image_in_a_folder_is_seen(tmp_path: Path) -> None:
    paint(tmp_path / "set/ct/normal/a.png", seed=1)
    paint(tmp_path / "elsewhere/b.png", seed=2)
    os.symlink(tmp_path / "elsewhere", tmp_path / "set/ct/linked")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "set/ct/normal/c.png")
    write_registry(tmp_path, [{"source": "folder", "path": "set", "options": {"split": "train"}}])
    project = Project(tmp_path)
    assert [one.id for one in load(project)[0]] == ["ct/linked/b", "ct/normal/a"]
    paint(tmp_path / "elsewhere/d.png", seed=3)
    paint(tmp_path / "nowhere.png", seed=4)
    samples, _, lines = load(project)
    assert [one.id for one in samples] == ["ct/linked/b", "ct/linked/d", "ct/normal/a", "ct/normal/c"]
    assert len(lines) == 1
    assert (tmp_path / "set/ct/normal/a.png") in [file_of(one.image) for one in samples]
    assert load(project)[2] == []


@pytest.mark.usefixtures("reads")
def test_skipped_files_are_kept_too(tmp_path: Path) -> None:
    paint(tmp_path / "set/ct/normal/a.png", seed=1)
    (tmp_path / "set/ct/normal/b.jp2").write_bytes(b"x")
    write_registry(tmp_path, [{"source": "folder", "path": "set", "options": {"split": "train"}}])
    first, second = (read_sources(Project(tmp_path))[0].skipped for _ in range(2))
    assert first == second
    assert [kind.count for kind in first] == [1]


def test_changes_are_counted_by_id() -> None:
    def sample(id_: str, **fields: Any) -> Sample:
        return Sample(id_, Path("/a.png"), "x", "ct", **fields)

    old = to_table([sample("a"), sample("b", label="1"), sample("c"), sample("d", origin="m.csv:2")])
    new = to_table([sample("d", origin="m.csv:9"), sample("b"), sample("c", extra={"group": "g"}), sample("e")])
    assert find_changes(old, new) == Changes(new=1, changed=2, vanished=1)
    assert find_changes(new, new.take(np.array([3, 1, 2, 0]))) == Changes(0, 0, 0)
