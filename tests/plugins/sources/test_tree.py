"""What is below a folder: nothing is left out without a word."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import Sample, Skipped
from kdkit.plugins.sources.tree import walk_files
from tests.plugins.sources.archives import png, write_parquet, write_tar
from tests.plugins.sources.dicom_files import write_dicom
from tests.plugins.sources.files import read_all


def test_links_are_followed_and_all_else_is_counted(tmp_path: Path) -> None:
    for name in ("top/b.png", "top/.ipynb_checkpoints/a.png", "top/a/c.png", "elsewhere/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path / "elsewhere", tmp_path / "top/linked")
    os.symlink(tmp_path / "top", tmp_path / "elsewhere/loop")
    os.symlink(tmp_path / "nowhere", tmp_path / "top/broken")
    os.mkfifo(tmp_path / "top/pipe")
    found = list(walk_files(tmp_path / "top"))
    assert [path.relative_to(tmp_path).as_posix() for path in found if isinstance(path, Path)] == [
        "top/a/c.png",
        "top/b.png",
        "top/linked/d.png",
    ]
    assert [(one.what, Path(one.where).name, one.level) for one in found if isinstance(one, Skipped)] == [
        ("hidden files and folders", ".ipynb_checkpoints", "note"),
        ("broken links and special files", "broken", "problem"),
        ("links to a folder above them", "loop", "note"),
        ("broken links and special files", "pipe", "problem"),
    ]


@pytest.mark.parametrize("source", ["webdataset", "parquet", "dicom"])
def test_sources_of_many_files_leave_none_out(tmp_path: Path, source: str) -> None:
    ending = {"webdataset": "TAR", "parquet": "Parquet", "dicom": "dcm"}[source]
    for folder, seed in (("data", 0), ("elsewhere", 1)):
        _write_one(source, tmp_path / folder / f"train-{seed}.{ending}", seed)
    os.symlink(tmp_path / "elsewhere", tmp_path / "data/linked")
    (tmp_path / "data/.hidden").touch()
    (tmp_path / "data/notes.txt").touch()
    (tmp_path / "data/more.tar.gz").touch()
    (tmp_path / "data/more.pq").touch()
    found = read_all(source, tmp_path / "data", **({"split": "train"} if source == "dicom" else {}))
    assert len([one for one in found if isinstance(one, Sample)]) == 2
    skipped = {Path(one.where).name: one.level for one in found if isinstance(one, Skipped)}
    lost = {"webdataset": "more.tar.gz", "parquet": "more.pq", "dicom": ""}[source]
    named = (".hidden", "notes.txt", "more.tar.gz", "more.pq")
    assert skipped == {name: "problem" if name == lost else "note" for name in named}


def _write_one(source: str, path: Path, seed: int) -> None:
    if source == "webdataset":
        write_tar(path, {f"{seed}.png": png(seed), f"{seed}.json": b'{"domain": "ct", "text": "a scan"}'})
    elif source == "parquet":
        write_parquet(path, {"image": [png(seed)], "text": ["a scan"], "domain": ["ct"], "id": [str(seed)]})
    else:
        path.parent.mkdir(exist_ok=True)
        write_dicom(path, np.full((8, 8), seed, dtype=np.uint8))
