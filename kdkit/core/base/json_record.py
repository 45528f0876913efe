"""Frozen dataclasses that are written as JSON, and checked by pydantic when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter


class JsonRecord:
    """Base of a dataclass; unknown keys in the JSON are errors.

    ``FORMAT`` is written as ``format`` where it is not 0; a record of another format is not read.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Point(JsonRecord):
        ...     x: int
        ...     y: int = 0
        >>> Point.from_json({"x": 1}).to_json()
        {'x': 1, 'y': 0}
    """

    FORMAT: ClassVar[int] = 0
    __pydantic_config__ = ConfigDict(extra="forbid")

    def to_json(self) -> dict[str, Any]:
        """Plain data; the inverse of :meth:`from_json`."""
        plain = _adapter(type(self)).dump_python(self, mode="json")
        return {"format": self.FORMAT, **plain} if self.FORMAT else dict(plain)

    def to_bytes(self) -> bytes:
        """JSON, as it stands in a file."""
        return (json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: anything else, or another format.
        """
        if not isinstance(data, Mapping):
            raise ValueError("not a mapping")
        if cls.FORMAT and data.get("format") != cls.FORMAT:
            raise ValueError(f"format {data.get('format')!r}; this kdkit reads {cls.FORMAT}")
        plain = {key: value for key, value in data.items() if key != "format"} if cls.FORMAT else data
        record: Self = _adapter(cls).validate_python(plain)
        return record

    @classmethod
    def from_bytes(cls, content: bytes | str) -> Self:
        """Read what :meth:`to_bytes` gave. Raises: ValueError, as :meth:`from_json`."""
        try:
            found = json.loads(content)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        return cls.from_json(found)


CHECKSUM = "checksum"


def with_checksum(facts: Mapping[str, Any]) -> dict[str, Any]:
    """``facts`` and the digest over them, for a file in which a changed value would still be valid.

    Example:
        >>> without_checksum(with_checksum({"x": 1}))
        {'x': 1}
    """
    return {**facts, CHECKSUM: _digest(facts)}


def without_checksum(facts: Any) -> dict[str, Any]:
    """The inverse. Raises: ValueError for facts that changed since :func:`with_checksum`."""
    if not isinstance(facts, Mapping):
        raise ValueError("not a mapping")
    rest = {key: value for key, value in facts.items() if key != CHECKSUM}
    if facts.get(CHECKSUM) != _digest(rest):
        raise ValueError("it does not match its checksum, so it was edited or damaged")
    return rest


def _digest(facts: Mapping[str, Any]) -> str:
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(record: type) -> TypeAdapter[Any]:
    """Made once per class: it takes milliseconds."""
    if record not in _ADAPTERS:
        _ADAPTERS[record] = TypeAdapter(record)
    return _ADAPTERS[record]
