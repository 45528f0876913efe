"""One run on the same images in several forms: folders, tables, tar shards, Arrow, decoded inputs; several captions.

The form ``written`` has the shards of ``kdkit data shards``.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import IMAGE, TEXT, Silent
from kdkit.core.data import load_index
from kdkit.core.data.shards import ShardRequest, write_shards
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.features.store.shard import Shard
from kdkit.core.features.store.store import FeatureStore
from tests.plugins.sources.archives import members_of, save_to_disk, write_parquet, write_tar
from tests.toy_project import TEMPLATE, make_project, open_project

Row = dict[str, Any]


def as_folder(root: Path, rows: list[Row], images: dict[str, bytes]) -> Row:
    for row in rows:
        path = root / "tree" / f"{row['id']}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images[row["image"]])
    return {"source": "folder", "path": "tree", "options": {"caption": TEMPLATE}}


def as_csv(root: Path, rows: list[Row], images: dict[str, bytes]) -> Row:
    as_folder(root, rows, images)
    with open(root / "tree" / "rows.csv", "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "image": f"{row['id']}.png"} for row in rows)
    return {"source": "csv", "path": "tree/rows.csv"}


def as_shards(root: Path, rows: list[Row], images: dict[str, bytes]) -> Row:
    for start in range(0, len(rows), 20):
        write_tar(root / "shards" / f"{start:03d}.tar", members_of(rows[start : start + 20], images))
    return {"source": "webdataset", "path": "shards"}


def as_parquet(root: Path, rows: list[Row], images: dict[str, bytes]) -> Row:
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "image"}
    write_parquet(root / "rows.parquet", {**columns, "image": [images[row["image"]] for row in rows]}, row_group=16)
    return {"source": "parquet", "path": "rows.parquet"}


def as_saved(root: Path, rows: list[Row], images: dict[str, bytes]) -> Row:
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "image"}
    cells = [{"bytes": images[row["image"]], "path": None} for row in rows]
    save_to_disk(root / "saved", {**columns, "image": cells}, files=3)
    return {"source": "hf-dataset", "path": "saved"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The project of each form, distilled."""
    forms: dict[str, Callable[[Path, list[Row], dict[str, bytes]], Row]]
    forms = {"folder": as_folder, "csv": as_csv, "webdataset": as_shards, "parquet": as_parquet}
    forms |= {"hf-dataset": as_saved, "stored": as_csv, "written": as_parquet}
    first, done = tmp_path_factory.mktemp("archives") / "first", {}
    make_project(first, teachers={"radio": ("ct", "mri")}, domains=("ct",), train=6, held_out=6)
    for name, write in forms.items():
        root = shutil.copytree(first, first.parent / name)
        lines = (root / "images" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        images = {row["image"]: (root / "images" / row["image"]).read_bytes() for row in rows}
        for row in rows:
            row["id"] = f"{row['split']}/{row['domain']}/{row['label']}/{row['id']}"
        rows.sort(key=lambda row: f"{row['id']}.png")
        entry = write(root, rows, images)
        registry = (root / "registry.yaml").read_text(encoding="utf-8")
        registry = registry.replace("{source: jsonl, path: images/samples.jsonl}", json.dumps(entry))
        (root / "registry.yaml").write_text(registry, encoding="utf-8")
        if name == "written":
            request = ShardRequest(root / "written", rows_per_shard=20, replace=True)
            assert write_shards(open_project(root), request, Silent()).written == len(rows)
        if name == "stored":
            with open(root / "registry.yaml", "a", encoding="utf-8") as file:
                file.write("inputs: {cache: uint8, threads: 1}\n")
        recipe = (root / "toy.yaml").read_text(encoding="utf-8")
        (root / "toy.yaml").write_text(recipe.replace("steps: 40", "steps: 6"), encoding="utf-8")
        assert distill(open_project(root), Options(cpu=True)) is not None
        done[name] = root
    return done


def test_the_index_is_the_same(trained: dict[str, Path]) -> None:
    first, *others = (load_index(open_project(root)) for root in trained.values())
    assert len(first) == 3 * 18
    for other in others:
        assert other.ids == first.ids
        assert (other.digests == first.digests).all()


def test_inputs_were_stored_where_the_registry_asks_for_it(trained: dict[str, Path]) -> None:
    stored = {name: sorted(root.glob(".kdkit/inputs/student/*/shard-*.h5")) for name, root in trained.items()}
    assert [name for name, shards in stored.items() if shards] == ["stored"]
    (shard,) = stored["stored"]
    assert len(Shard(shard)) == 3 * 6  # the training split


def test_the_student_is_bit_identical(trained: dict[str, Path]) -> None:
    students = {
        name: {path.name: path.read_bytes() for path in sorted((root / "versions/v1/student").iterdir())}
        for name, root in trained.items()
    }
    assert students["folder"]
    assert all(student == students["folder"] for student in students.values())


# ------------------------------------------------------------------------------ several captions


class Stopped(Silent):
    """A reporter that stops a run after so many steps."""

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
        if label == "distill" and done == 7:
            raise RuntimeError("killed")


@pytest.fixture(scope="module")
def captioned(trained: dict[str, Path]) -> Path:
    """The project before it was trained, with several captions of each image."""
    first = trained["folder"].parent / "first"
    root = Path(shutil.copytree(first, first.parent / "captioned"))
    path = root / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows):
        text = row.pop("text")
        row["captions"] = [text, f"{text} Seen again.", *["A third one."] * (number % 2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, old, new in (
        ("registry.yaml", "jsonl, path", "pmc-jsonl, path"),
        ("toy.yaml", "steps: 40", "steps: 12"),
    ):
        text = (root / name).read_text(encoding="utf-8")
        (root / name).write_text(text.replace(old, new), encoding="utf-8")
    return root


def test_a_resumed_run_is_bit_identical(captioned: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(captioned, tmp_path / "whole"))
    assert distill(open_project(whole), Options(cpu=True)) is not None
    with pytest.raises(RuntimeError, match="killed"):
        distill(open_project(captioned), Options(cpu=True, checkpoint_seconds=0.0), reporter=Stopped())
    assert list((captioned / ".kdkit" / "runs").glob("*/step-*"))
    assert distill(open_project(captioned), Options(cpu=True)) is not None
    students = [
        {path.name: path.read_bytes() for path in sorted((one / "versions/v1/student").iterdir())}
        for one in (captioned, whole)
    ]
    assert students[0] == students[1]


def test_features_are_kept_per_caption(captioned: Path) -> None:
    project = open_project(captioned)
    index = load_index(project)
    assert index.caption_groups is not None
    train = index.select("train")
    assert len(train) == 18 * 2 + 9  # two captions or three
    assert len(np.unique(index.caption_groups[train])) == 18
    assert len(index.select("test")) == 18
    column = FeatureStore(project.features).column("radio")
    places = column.locate(index)
    assert (places >= 0).all()
    images, texts = (column.gather(signal, places) for signal in (IMAGE, TEXT))
    for group in np.unique(index.caption_groups[train]):
        rows = train[index.caption_groups[train] == group]
        assert np.allclose(images[rows], images[rows[0]], atol=1e-3)
        assert len(np.unique(texts[rows], axis=0)) == len({index.texts[row] for row in rows.tolist()})
