"""The identity of a column: teacher, fingerprint and signals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import IMPORTED, SignalSpec

FORMAT = "kdkit-features"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Header:
    """The identity of a column, repeated in each of its shards.

    Attributes:
        teacher: its name.
        fingerprint: hex SHA-256 of everything that the features depend on besides the data.
        parts: what the fingerprint covers, by name (weights, preprocessing, tokenizer, ...), so that a mismatch can
            show what differs.
        signals: the arrays per sample.
    """

    teacher: str
    fingerprint: str
    parts: Mapping[str, str]
    signals: tuple[SignalSpec, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample's signals."""
        return sum(np.dtype(s.dtype).itemsize * int(np.prod(s.shape)) for s in self.signals)

    @property
    def remedy(self) -> str:
        """The command that adds missing or damaged features."""
        if IMPORTED in self.parts:
            return import_command(self.teacher)
        return f"kdkit features extract {self.teacher}"

    def to_json(self) -> str:
        document = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(document, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str) -> Header:
        """Read what :meth:`to_json` wrote.

        Raises:
            KdkitError: the text is something else, or from a newer kdkit.
        """
        try:
            raw = json.loads(text)
            if raw["format"] != FORMAT:
                raise ValueError(f"format is {raw['format']!r}")
            version = int(raw["format_version"])
            signals = tuple(SignalSpec(s["name"], tuple(s["shape"]), s["dtype"]) for s in raw["signals"])
            header = cls(raw["teacher"], raw["fingerprint"], dict(raw["parts"]), signals)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged(where, str(error)) from error
        if version > FORMAT_VERSION:
            raise KdkitError(
                "KD-FEAT-011",
                f"the features have format {version}; this kdkit reads formats up to {FORMAT_VERSION}",
                where=where,
                fix="pip install -U kdkit",
            )
        return header

    def differences(self, parts: Mapping[str, str]) -> str:
        """The parts that differ from this header's, for an error message."""
        return "; ".join(
            f"{name} is '{_short(parts.get(name))}', was '{_short(self.parts.get(name))}'"
            for name in sorted({*parts, *self.parts})
            if parts.get(name) != self.parts.get(name)
        )


def import_command(teacher: str) -> str:
    """How features of an imported teacher are added: it has no model that computes them."""
    return f"kdkit features import {teacher} --from PATH --replace"


def damaged(where: str, why: str) -> KdkitError:
    """The error for a damaged or foreign file."""
    return KdkitError(
        "KD-FEAT-012",
        "damaged feature file, or a file of another program",
        where=where,
        why=why,
        fix="kdkit features extract (import imported ones again; if the teacher is no longer in the registry, "
        "delete the folder)",
        code=ExitCode.FOUND,
    )


def is_damage(error: KdkitError) -> bool:
    """Whether the error is that of :func:`damaged` or of a journal's damaged line, which an extraction repairs."""
    return error.id in ("KD-FEAT-012", "KD-BASE-020")


def _short(value: str | None) -> str:
    if value is None:
        return "absent"
    return value if len(value) <= 60 else value[:57] + "..."
