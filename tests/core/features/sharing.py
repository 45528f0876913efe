"""Projects with a teacher ``radio`` that has features but no model: what sharing columns needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kdkit.core.contracts import SignalSpec
from kdkit.core.data import load_index
from kdkit.core.features import Column, FeatureStore, Header
from kdkit.core.features.store.shard import PRESENT, Shard
from kdkit.core.project.project import Project
from kdkit.core.project.registry.lock import LicenseSeen, Lock, LockedTeacher
from tests.core.features.small import paint

FINGERPRINT = "ab" * 32
HEADER = Header("radio", FINGERPRINT, {"weights": "w", "loader": "toy"}, (SignalSpec("image", (3,)),))


def fill(store: FeatureStore, keys: list[tuple[str, int]], values: np.ndarray[Any, Any] | None = None) -> Column:
    """One more complete shard of the column; features are random unless given."""
    column = store.create(HEADER)
    path = column.add_shard([name for name, _ in keys], np.array([d for _, d in keys], np.uint64), block_rows=4)
    shard = Shard(path, writable=True)
    rows = np.random.default_rng(len(keys)).normal(size=(len(keys), 3)) if values is None else values
    for block in shard.pending():
        part = rows[shard.rows_of(block)].astype(np.float16)
        shard.commit(block, {"image": part}, np.full(len(part), PRESENT, np.uint8))
    shard.close()
    return store.column("radio")


def lock_of(fingerprint: str = FINGERPRINT) -> LockedTeacher:
    return LockedTeacher(
        provider="registry",
        source="local:models/radio",
        commit=None,
        loader="open_clip",
        options={},
        files={},
        also={},
        license=LicenseSeen(name="mit", evidence="README.md"),
        gated=False,
        signals={},
        identity={"preprocess": "squash"},
        fingerprint=fingerprint,
        locked_at="2026-01-01T00:00:00+00:00",
    )


def make_project(root: Path, names: str = "a", teachers: tuple[str, ...] = ("radio",), pictures: int = 6) -> Project:
    """A project whose samples are called after ``names``, with the teachers locked."""
    rows = []
    for number in range(pictures):
        paint(root / "images" / f"{number}.png", number)
        row = {"id": f"{names}-{number}", "image": f"{number}.png", "text": f"t{number % 2}", "domain": "ct"}
        rows.append({**row, "label": f"l{number % 2}", "split": "train"})
    (root / "images" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    entries = "".join(f"  {name}: {{from: local:models/radio, loader: open_clip}}\n" for name in teachers)
    (root / "registry.yaml").write_text(
        f"version: 1\nteachers:\n{entries}data: [{{source: jsonl, path: images/samples.jsonl}}]\n"
        "prompts: {default: ['a {domain} of {label}']}\n",
        encoding="utf-8",
    )
    lock = Lock()
    for name in teachers:
        lock = lock.with_teacher(name, lock_of())
    lock.save(root / "registry.lock")
    return Project(root)


def extracted(project: Project) -> Column:
    """The column of ``radio`` with features of every sample and prompt."""
    table, store = load_index(project), FeatureStore(project.features)
    fill(store, list(zip(table.ids, table.digests.tolist(), strict=True)))
    store.put_texts("radio", FINGERPRINT, {f"a ct of l{i}": np.full(3, i) for i in range(2)})
    return store.column("radio")
