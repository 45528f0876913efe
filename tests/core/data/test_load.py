"""From data entries to the index of samples."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.data import load_index
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


def test_entries_keep_their_order(tmp_path: Path) -> None:
    make_project(tmp_path, [row(0), row(1)])
    options = {"domain": "mr", "split": "test", "skip_unreadable": True, "id_prefix": "more/"}
    first = {"source": "jsonl", "path": "data/samples.jsonl"}
    write_registry(tmp_path, [first, {"source": "folder", "path": "more", "options": options}])
    paint(tmp_path / "more/normal/x.png", seed=1)
    index = load_index(Project(tmp_path))
    assert index.ids == ("s0", "s1", "more/normal/x")
    assert index.may_skip.tolist() == [False, False, True]


@pytest.mark.parametrize(("option", "id"), [("colums", "KD-PLUG-005"), ("skip_unreadable", "KD-DATA-008")])
def test_a_wrong_option_is_reported_with_its_line(tmp_path: Path, option: str, id: str) -> None:
    (tmp_path / "registry.yaml").write_text(
        f"version: 1\ndata:\n- source: jsonl\n  path: a.jsonl\n  options: {{{option}: 1}}\n", encoding="utf-8"
    )
    with raises_error(id, where=f"registry.yaml:{5 if option == 'skip_unreadable' else 3}"):
        load_index(Project(tmp_path))
