"""``kdkit init --from``: which source reads a file or folder, and how."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Recognition, SourceSpec
from kdkit.core.plugin_system.catalogue import Catalogue, resolve
from kdkit.core.plugin_system.failures import plugin_errors

LOOKED_AT = 2000
"""Files of which an error counts the endings."""


@dataclass(frozen=True)
class Recognized:
    """What a path was taken for.

    Attributes:
        source: name of the source.
        found: how it reads the path.
        others: names of sources that could read it too, the most certain first.
        refused: source -> why it does not read the path, though it is of its format.
    """

    source: str
    found: Recognition
    others: tuple[str, ...]
    refused: Mapping[str, KdkitError]


def recognize(path: Path, catalogue: Catalogue) -> Recognized:
    """Ask every source; the most certain one is taken, and of equals the first by name.

    Raises:
        KdkitError: no such path; no source recognizes it, or one does and misses something.
    """
    if not path.exists():
        raise KdkitError(
            "KD-DATA-022", "no such file or folder", where=str(path), fix="check the path", code=ExitCode.MISSING
        )
    found: list[tuple[int, str, Recognition]] = []
    refused: dict[str, KdkitError] = {}
    for entry in catalogue.entries("source"):
        spec: SourceSpec = entry.spec
        if not spec.recognizer:
            continue
        try:
            with plugin_errors(f"source '{spec.name}' failed"):
                one: Recognition | None = resolve(spec.recognizer)(path)
        except KdkitError as error:
            refused[spec.name] = error
            continue
        if one is not None:
            found.append((-one.certainty, spec.name, one))
    if found:
        found.sort(key=lambda each: each[:2])
        return Recognized(found[0][1], found[0][2], tuple(name for _, name, _ in found[1:]), refused)
    if refused:
        raise next(iter(refused.values()))
    raise KdkitError(
        "KD-DATA-023",
        "no source recognizes this",
        where=str(path),
        why=_endings(path),
        fix="write the data entry yourself: docs/howto/data.md lists the sources",
    )


def _endings(path: Path) -> str:
    """What a folder holds, for the message."""
    if path.is_file():
        return f"a file with the ending {path.suffix}" if path.suffix else "a file without an ending"
    names = (name for _, _, files in os.walk(path) for name in files)
    counts = Counter(Path(name).suffix.lower() or "no ending" for name in islice(names, LOOKED_AT))
    return ", ".join(f"{count} {ending}" for ending, count in counts.most_common(5)) or "an empty folder"
