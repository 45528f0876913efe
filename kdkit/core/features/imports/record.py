"""``imported/NAME/imported.json``: what an imported column holds and where it comes from; a teacher's only file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.json_record import JsonRecord
from kdkit.core.contracts import Reporter, SignalSpec
from kdkit.core.project.registry.lock import SignalFact

FOLDER = "imported"
FILE = "imported.json"
LOADER = "imported"
"""The loader that reads the file."""


@dataclass(frozen=True)
class ImportRecord(JsonRecord):
    """The declaration of an imported teacher; the fingerprint of its column covers all of it.

    Attributes:
        sha256: over names and content of the imported files.
        files: their number.
        read: options that changed how they were read.
        signals: name -> shape and dtype of a row.
        model, revision, preprocessing: as the user declares them; empty if unknown.
    """

    FORMAT: ClassVar[int] = 1

    sha256: str
    files: int
    read: Mapping[str, str]
    signals: Mapping[str, SignalFact]
    model: str = ""
    revision: str = ""
    preprocessing: str = ""

    @property
    def specs(self) -> tuple[SignalSpec, ...]:
        """The signals of the column."""
        dtypes: Any = {name: fact.dtype for name, fact in self.signals.items()}  # of a fact, a plain str
        return tuple(SignalSpec(name, fact.shape, dtypes[name]) for name, fact in self.signals.items())

    def differences(self, other: ImportRecord) -> str:
        """The fields that differ, with both values, for a message."""
        ours, theirs = _shown(self), _shown(other)
        return "; ".join(f"{key} was {ours[key]} and is {theirs[key]}" for key in ours if ours[key] != theirs[key])


def record_path(root: Path, name: str) -> Path:
    """The record of the teacher ``name`` in the project at ``root``."""
    return root / FOLDER / name / FILE


def source_of(name: str) -> str:
    """The teacher's source in registry.yaml."""
    return f"local:{FOLDER}/{name}"


def read_record(path: Path) -> ImportRecord | None:
    """The record at ``path``; None if there is none that can be read."""
    try:
        return ImportRecord.from_bytes(path.read_bytes())
    except (OSError, ValueError):
        return None


def digest_files(files: Mapping[str, Path], reporter: Reporter) -> str:
    """sha256 over the names and contents of ``files``."""
    digest = hashlib.sha256()
    for done, (name, path) in enumerate(sorted(files.items()), start=1):
        digest.update(f"{name}\0{sha256_of(path)}\n".encode())
        reporter.progress("hashing", done, len(files), name)
    return digest.hexdigest()


def _shown(record: ImportRecord) -> dict[str, Any]:
    facts = {**asdict(record), "signals": {name: fact.model_dump() for name, fact in record.signals.items()}}
    facts["signals"] = ", ".join(
        f"{name} {'x'.join(str(size) for size in fact['shape'])} {fact['dtype']}"
        for name, fact in facts["signals"].items()
    )
    facts["sha256"] = record.sha256[:12]
    return {key: json.dumps(value) if isinstance(value, dict) else f"'{value}'" for key, value in facts.items()}
