"""Checks of equal exports by the stock libraries are made once.

Their process imports the libraries for seconds. In a sweep, nearly all exports are equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kdkit.core.sharing.release import compare, form


@contextmanager
def remembered_stock_checks(memory: Path) -> Iterator[None]:
    """What the libraries found is kept in the folder ``memory``, by the content of the export."""
    memory.mkdir(parents=True, exist_ok=True)
    folders: list[Path] = []
    run, compared = compare.run_check, compare.compare_with_stock

    def remember(published: Any, student: Any, *, where: str, name: str, folder: Path) -> compare.Compared:
        folders[:] = [folder]
        return compared(published, student, where=where, name=name, folder=folder)

    def check(scratch: Path, where: str) -> Any:
        asked = json.dumps([digests(scratch, folders[0]), digests(folders[0], folders[0])])
        known = memory / hashlib.sha256(asked.encode()).hexdigest()
        if not known.with_suffix(".json").exists():
            answer = run(scratch, where)
            known.with_suffix(".safetensors").write_bytes((scratch / "found.safetensors").read_bytes())
            known.with_suffix(".json").write_text(json.dumps(answer), encoding="utf-8")
        (scratch / "found.safetensors").write_bytes(known.with_suffix(".safetensors").read_bytes())
        return json.loads(known.with_suffix(".json").read_text(encoding="utf-8"))

    with patch.object(compare, "run_check", check), patch.object(form, "compare_with_stock", remember):
        yield


def digests(folder: Path, place: Path | None = None) -> dict[str, str]:
    """File -> digest of its content, in which the path ``place`` has another name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if place is not None:
                content = content.replace(json.dumps(str(place))[1:-1].encode(), b"PLACE")
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found
