"""Records of JSON files with the line where each begins, and paths in them that must not lead elsewhere."""

from __future__ import annotations

import json
import os.path
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.plugins.sources.manifest import jsonl_rows

Record = Mapping[str, Any]


def json_records(path: Path) -> Iterator[tuple[str, Record]]:
    """(``file:line``, object) of a JSON list of objects, or of a JSON Lines file (``.jsonl``).

    Raises:
        KdkitError: with ``file:line``, for a file that is missing or something else.
    """
    if not path.is_file():
        raise KdkitError("KD-SRC-027", "no such file", where=str(path), code=ExitCode.MISSING)
    if path.suffix == ".jsonl":
        yield from ((f"{path}:{line}", row) for line, row in jsonl_rows(path))
        return
    text = _text(path)
    line, place = 1, 0
    for start, value in _items(text, path):
        line, place = line + text.count("\n", place, start), start
        where = f"{path}:{line}"
        if not isinstance(value, dict):
            raise KdkitError("KD-SRC-028", "not a JSON object", where=where)
        yield where, value


def json_object(path: Path) -> Record:
    """The one object of a JSON file.

    Raises:
        KdkitError: with ``file:line``, for a file that is missing or something else.
    """
    if not path.is_file():
        raise KdkitError("KD-SRC-029", "no such file", where=str(path), code=ExitCode.MISSING)
    try:
        value = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise KdkitError("KD-SRC-030", "not valid JSON", where=f"{path}:{error.lineno}", why=error.msg) from error
    if not isinstance(value, dict):
        raise KdkitError("KD-SRC-031", "not a JSON object", where=f"{path}:1")
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise KdkitError("KD-SRC-032", "not a UTF-8 file", where=f"{path}:1", why=str(error)) from error


def _items(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """(place, value) of a list's items."""
    decoder = json.JSONDecoder()

    def skip(place: int) -> int:
        while place < len(text) and text[place].isspace():
            place += 1
        return place

    def refuse(what: str, place: int) -> KdkitError:
        return KdkitError("KD-SRC-033", f"not valid JSON: {what}", where=f"{path}:{text.count(chr(10), 0, place) + 1}")

    place = skip(0)
    if text[place : place + 1] != "[":
        raise refuse("a list of objects is expected", place)
    place = skip(place + 1)
    while text[place : place + 1] != "]":
        try:
            value, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise refuse(error.msg, error.pos) from error
        except (RecursionError, ValueError) as error:  # nested too deeply, a number of too many digits
            raise refuse(str(error), place) from error
        yield place, value
        place = skip(end)
        if text[place : place + 1] == ",":
            place = skip(place + 1)
        elif text[place : place + 1] != "]":
            raise refuse("a comma or the end of the list is missing", place)


def text_of(record: Record, name: str, where: str) -> str:
    """A field that must be there, as text; numbers are written out.

    Raises:
        KdkitError: where it is missing, empty or something else.
    """
    value = record.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        why = f"fields: {', '.join(record)}" if name not in record else f"it is {value!r}"
        raise KdkitError("KD-SRC-034", f"a record needs '{name}', a text that is not empty", where=where, why=why)
    return value.strip()


def file_below(root: Path, name: object, where: str) -> Path:
    """The file ``name`` inside ``root``; an absolute path is taken if it lies there.

    Raises:
        KdkitError: for a path that leads elsewhere, or no text.
    """
    if not isinstance(name, str) or not name.strip():
        raise KdkitError("KD-SRC-035", f"an image must be a path, not {name!r}", where=where)
    folder = os.path.abspath(root)
    path = os.path.normpath(os.path.join(folder, name))
    if not path.startswith(folder.rstrip(os.sep) + os.sep):
        raise KdkitError(
            "KD-SRC-036",
            f"'{name}' is outside of the folder {folder}",
            where=where,
            why="a path in a file must not reach elsewhere",
            fix="give the folder of the images by the option image_root",
        )
    return Path(path)


def fingerprint(value: object) -> str:
    """Twelve hexadecimal digits that change with the content of a JSON value, and not with its place in a file."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=6).hexdigest()


class Ids:
    """Makes ids unique: an id that comes again gets ``-2``, ``-3``, ..."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._seen: Counter[str] = Counter()

    def __call__(self, name: str) -> str:
        self._seen[name] += 1
        times = self._seen[name]
        return self.prefix + (name if times == 1 else f"{name}-{times}")
