"""Projects with a JSONL manifest and painted images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdkit.core.contracts import SPLITS
from kdkit.core.project.project import Project
from tests.core.features.small import paint


def row(i: int, **changes: Any) -> dict[str, Any]:
    """A row of a manifest, with its own image ``i.png``."""
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
    """A project with one JSONL entry; missing images are painted."""
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
    """Write one key per line; JSON is YAML."""
    document = {"version": 1, "data": entries, **registry}
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in document.items())
    (root / "registry.yaml").write_text(lines, encoding="utf-8")
