"""``--replace``: registry.yaml reads the shards, whatever happened meanwhile, and however often it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdkit.core.base.locks import file_lock
from kdkit.core.contracts import Silent
from kdkit.core.data import load_index
from kdkit.core.data.entries import read_sources
from kdkit.core.data.shards import ShardRequest, plan_shards, write_shards
from kdkit.core.data.shards.plan import ShardReport
from kdkit.core.data.shards.write import LOCK
from kdkit.core.project.project import Project
from tests.core.data.projects import make_project, row, write_registry
from tests.errors import raises_error

JSONL = {"source": "jsonl", "path": "data/samples.jsonl"}


def write(root: Path, **options: Any) -> ShardReport:
    return write_shards(Project(root), ShardRequest(root / "shards", replace=True, **options), Silent())


def test_repeating_it_changes_nothing(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(6)])
    (tmp_path / "data" / "4.png").unlink()
    options: dict[str, Any] = {"rows_per_shard": 4, "skip_unreadable": True}
    done, registry = write(tmp_path, **options), (tmp_path / "registry.yaml").read_bytes()
    assert (done.rows, done.written, done.replaced) == (6, 5, True)
    for entry in ("", "1", "shards", "data/samples.jsonl"):
        assert write(tmp_path, entry=entry, **options) == done
    assert (tmp_path / "registry.yaml").read_bytes() == registry
    with raises_error("KD-DATA-631", mentions=("5 samples", "nothing is left to do")):
        plan_shards(Project(tmp_path), ShardRequest(tmp_path / "shards", **options), Silent())
    with raises_error("KD-DATA-512", mentions=("other.jsonl",)):
        write(tmp_path, entry="data/other.jsonl", **options)
    with raises_error("KD-DATA-514", mentions=("options",)):
        write(tmp_path, rows_per_shard=2)
    (tmp_path / "shards" / "shard-000000.tar").unlink()
    with raises_error("KD-DATA-515", mentions=("shard-000000.tar",)):
        write(tmp_path, **options)


class Edits(Silent):
    """A user who edits registry.yaml while shards are written."""

    def __init__(self, root: Path, entries: list[dict[str, Any]]) -> None:
        self.root, self.entries = root, entries

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
        if label == "writing shards":
            write_registry(self.root, self.entries)


def test_an_entry_that_moved_meanwhile_is_the_one_that_is_replaced(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(3)])
    write_registry(tmp_path, [JSONL])
    other = {"source": "csv", "path": "other.csv"}
    request = ShardRequest(tmp_path / "shards", replace=True)
    write_shards(Project(tmp_path), request, Edits(tmp_path, [other, JSONL]))
    found = [(one.source, one.path) for one in Project(tmp_path).registry.data]
    assert found == [("csv", "other.csv"), ("webdataset", "shards")]


def test_an_entry_that_changed_meanwhile_is_kept(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(3)])
    write_registry(tmp_path, [JSONL])
    changed = {**JSONL, "options": {"id_prefix": "b-"}}
    request = ShardRequest(tmp_path / "shards", replace=True)
    with raises_error("KD-DATA-590", mentions=("samples.jsonl", "source: webdataset, path: shards")):
        write_shards(Project(tmp_path), request, Edits(tmp_path, [changed]))
    (entry,) = Project(tmp_path).registry.data
    assert (entry.source, dict(entry.options)) == ("jsonl", {"id_prefix": "b-"})
    assert json.loads((tmp_path / "shards" / "shards.json").read_text(encoding="utf-8"))["complete"]


def test_the_folder_holds_no_private_path_and_no_option(tmp_path: Path) -> None:
    rows = [row(i) for i in range(3)]
    make_project(tmp_path / "DOE_JANE", rows)
    project = tmp_path / "project"
    project.mkdir()
    options = {"id_prefix": "secret-of-", "skip_unreadable": True, "columns": {"text": "text"}}
    (tmp_path / "DOE_JANE" / "data" / "2.png").unlink()
    write_registry(project, [{**JSONL, "path": "../DOE_JANE/data/samples.jsonl", "options": options}])
    assert write(project).left_out == {"No such file or directory": 1}
    manifest = (project / "shards" / "shards.json").read_text(encoding="utf-8")
    assert "columns" not in manifest
    for path in (project / "shards").iterdir():
        assert b"DOE_JANE" not in path.read_bytes()


def test_shards_leave_nothing_over_for_the_source(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(3)])
    write(tmp_path)
    (loaded,) = read_sources(Project(tmp_path))
    assert loaded.skipped == ()
    assert len(load_index(Project(tmp_path)).ids) == 3


def test_one_command_writes_into_a_folder(tmp_path: Path) -> None:
    make_project(tmp_path, [row(0)])
    (tmp_path / "shards").mkdir()
    with file_lock(tmp_path / "shards" / LOCK), raises_error("KD-DATA-632"):  # a command of another project
        write(tmp_path)
    assert write(tmp_path).written == 1
    assert [path.suffix for path in sorted((tmp_path / "shards").iterdir())] == [".tar", ".json"]
