"""The gate of one model on disk: JSON with a checksum."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.json_record import JsonRecord, with_checksum, without_checksum
from kdkit.core.base.system_errors import optional_write
from kdkit.core.evaluation.answering.gate import DomainGate
from kdkit.core.evaluation.answering.names import PLAIN

_NAME = re.compile(r"[0-9a-f]{16}\.json")
GATES = "best-of-n"
"""Folder of gates in that of a version; those of teachers are in the project's state."""


@dataclass(frozen=True)
class Gate(JsonRecord):
    """By which rule the answers of one model are chosen in each domain.

    Attributes:
        model: version or teacher.
        settings: what determines its answers and their scores.
        domains: domain -> decision.
    """

    FORMAT: ClassVar[int] = 1

    model: str
    settings: Mapping[str, Any]
    domains: Mapping[str, DomainGate] = field(default_factory=dict)

    def rule(self, domain: str) -> str:
        """The rule of a domain; ``plain`` where nothing was measured."""
        return self.domains[domain].rule if domain in self.domains else PLAIN


def read_gate(path: Path) -> Gate | None:
    """None without a gate; a damaged one counts as absent."""
    try:
        return Gate.from_json(without_checksum(json.loads(path.read_bytes())))
    except (OSError, ValueError, RecursionError):
        return None


def read_gates(version: Path) -> dict[str, Gate]:
    """Name of file -> gate, of those in the folder of a version, sorted."""
    found = {path.name: read_gate(path) for path in sorted((version / GATES).glob("*.json"))}
    return {name: gate for name, gate in found.items() if gate is not None and is_gate_name(name)}


def is_gate_name(name: str) -> bool:
    """Whether a file may hold a gate: the digest of its settings is its name."""
    return _NAME.fullmatch(name) is not None


def write_gate(path: Path, gate: Gate) -> None:
    """In one step. Where nothing can be written there is a warning: the gate is measured again next time."""
    with optional_write("the gate of the best of several answers"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, gate_bytes(gate))


def gate_bytes(gate: Gate) -> bytes:
    """The content of its file."""
    return (json.dumps(with_checksum(gate.to_json()), indent=1) + "\n").encode()
