"""Manifests and records for the tests of sources."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdkit.core.contracts import Sample, Skipped
from kdkit.core.data.batches import in_samples
from kdkit.core.plugin_system.discovery import load_catalogue

ROW = {"id": "a", "image": "x/a.png", "text": "a picture", "domain": "ct", "label": "normal", "split": "train"}


def read_all(source: str, location: Path, **options: Any) -> list[Sample | Skipped]:
    return list(in_samples(load_catalogue().make("source", source, location=location, **options)))


def read(source: str, location: Path, **options: Any) -> list[Sample]:
    return [item for item in read_all(source, location, **options) if isinstance(item, Sample)]


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as CSV or JSONL, according to the suffix."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with open(path, "w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def read_manifest(path: Path, rows: Sequence[Mapping[str, Any]], **options: Any) -> list[Sample]:
    return read(path.suffix[1:], write_manifest(path, rows), **options)


def write_records(path: Path, *records: Mapping[str, Any]) -> Path:
    """Write a JSON list with one record per line, starting in line 2."""
    lines = ",\n".join(json.dumps(item) for item in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return path
