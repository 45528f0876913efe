"""Records of JSON files with their line numbers, and checked fields: texts, and paths inside a folder."""

from __future__ import annotations

import json
import math
import os.path
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError

Record = Mapping[str, Any]
POINTER = b"version https://git-lfs"


def json_records(path: Path) -> Iterator[tuple[str, Record]]:
    """(``file:line``, object) of a JSON list of objects, or of JSON Lines, whatever the file's ending.

    Records that share a line also have their number: ``file:1, record 3``.

    Raises:
        KdkitError: with ``file:line``; the file is missing or has another form.
    """
    require_file(path)
    text = read_text(path)
    if text.lstrip()[:1] == "{":
        yield from ((f"{path}:{line}", row) for line, row in jsonl_rows(path))
        return
    line, place, minified = 1, 0, "\n" not in text.strip()
    for number, (start, value) in enumerate(_items(text, path), start=1):
        lines = text.count("\n", place, start)
        line, place = line + lines, start
        where = f"{path}:{line}"
        if minified or not (lines or number == 1):
            where += f", record {number}"
        if not isinstance(value, dict):
            raise KdkitError("KD-SRC-028", "not a JSON object", where=where, fix="write a list of objects")
        yield where, value


def json_object(path: Path) -> Record:
    """The one object of a JSON file.

    Raises:
        KdkitError: with ``file:line``; the file is missing or has another form.
    """
    require_file(path)
    try:
        value = parse_json(read_text(path))
    except (ValueError, RecursionError) as error:
        fix = "correct the file at this line"
        where = f"{path}:{getattr(error, 'lineno', 1)}"
        raise KdkitError("KD-SRC-030", "not valid JSON", where=where, why=str(error), fix=fix) from error
    if not isinstance(value, dict):
        fix = "give a file with one object, such as dataset_info.json"
        raise KdkitError("KD-SRC-031", "not a JSON object", where=f"{path}:1", fix=fix)
    return value


def require_file(path: Path) -> None:
    """Raises: KdkitError when ``path`` is not a file (did you mean)."""
    if path.is_file():
        return
    near = get_close_matches(path.name, [found.name for found in path.parent.glob("*") if found.is_file()], n=1)
    raise KdkitError(
        "KD-SRC-047",
        "not a file" if path.exists() else "no such file",
        where=str(path),
        fix=f"did you mean '{near[0]}'?" if near else "check the path of the data entry",
        code=ExitCode.MISSING,
    )


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, or of a UTF-16 or UTF-32 file (as PowerShell and spreadsheets write them).

    Raises:
        KdkitError: with ``file:line``; the file has another encoding.
    """
    refuse_pointer(path)
    content = path.read_bytes()
    encoding = json.detect_encoding(content[:4])
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"{path}:{error.object[: error.start].count(10) + 1}"
        fix = "save it as UTF-8 (spreadsheets call it 'CSV UTF-8')"
        raise KdkitError("KD-SRC-032", "not UTF-8 text", where=where, why=str(error), fix=fix) from error


def parse_json(text: str) -> Any:
    """``json.loads``, which takes the last of several equal keys, but refuses these.

    Raises:
        ValueError: no valid JSON, or a key that occurs twice in an object.
        RecursionError: nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key '{twice}' occurs twice in one object")
    return found


def refuse_pointer(path: Path) -> None:
    """Raises: KdkitError when a pointer of Git LFS is in the place of a file."""
    with open(path, "rb") as file:
        if not file.read(len(POINTER)).startswith(POINTER):
            return
    raise KdkitError(
        "KD-SRC-150",
        "this is a pointer of Git LFS, not the file itself",
        where=str(path),
        fix="run 'git lfs pull' in that repository, or download the file itself",
        code=ExitCode.MISSING,
    )


def jsonl_rows(path: Path) -> Iterator[tuple[int, Record]]:
    """(line number, object) pairs; raises KdkitError with ``file:line`` for anything else."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where, fix = f"{path}:{number}", "write one JSON object per line"
        fix += " (this may be indented JSON)" * (line.strip() in ("[", "[{", "{"))
        try:
            row = parse_json(line)
        except (ValueError, RecursionError) as error:
            raise KdkitError("KD-SRC-014", "not valid JSON", where=where, why=str(error), fix=fix) from error
        if not isinstance(row, dict):
            raise KdkitError("KD-SRC-015", "not a JSON object", where=where, fix=fix)
        yield number, row


def _items(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """(place, value) of a list's items; ``json.loads`` would lose the places."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique)

    def skip(place: int) -> int:
        while place < len(text) and text[place].isspace():
            place += 1
        return place

    def refuse(what: str, place: int) -> KdkitError:
        return KdkitError(
            "KD-SRC-033",
            f"not valid JSON: {what}",
            where=f"{path}:{text.count(chr(10), 0, place) + 1}",
            fix="correct the file at this line; it must be one list of objects",
        )

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
    """A required field as text; numbers are converted.

    Raises:
        KdkitError: the field is missing, empty or something else.
    """
    value = record.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        why = f"fields: {', '.join(record)}" if name not in record else f"it is {value!r}"
        raise KdkitError(
            "KD-SRC-034",
            f"a record needs '{name}', a text that is not empty",
            where=where,
            why=why,
            fix="correct the record, or skip such records with the option skip_broken: true",
        )
    return value.strip()


IMAGE_ROOT = "set the folder of the images by the option image_root"


def file_below(root: Path, name: object, where: str, fix: str = IMAGE_ROOT) -> Path:
    """The file ``name`` inside ``root``, relative or absolute.

    Raises:
        KdkitError: the path leads outside, or is no text.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise KdkitError("KD-SRC-035", f"not a path: {name!r}", where=where, fix="write a path as a string")
    if re.match(r"[a-z]+://|data:", name, re.I):
        fix = "download the file, and write its path"
        raise KdkitError("KD-SRC-042", f"not a local file: {name[:80]}", where=where, fix=fix)
    folder = os.path.abspath(root)
    path = os.path.normpath(os.path.join(folder, name))
    if not _is_below(path, folder) and os.path.isabs(name):  # a root behind a link has two absolute names
        path = os.path.join(folder, os.path.relpath(os.path.realpath(name), os.path.realpath(folder)))
        path = os.path.normpath(path)
    if not _is_below(path, folder):
        raise KdkitError(
            "KD-SRC-036",
            f"'{name}' is outside of the folder {folder}",
            where=where,
            why="a data file may not name files outside its folder",
            fix=fix,
        )
    return Path(path)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)


def fingerprint(value: object) -> str:
    """Twelve hexadecimal digits of a JSON value's hash."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=6).hexdigest()


class Ids:
    """Makes ids unique: a repeated id gets ``-2``, ``-3``, ..."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._counts: Counter[str] = Counter()

    def __call__(self, name: str) -> str:
        self._counts[name] += 1
        count = self._counts[name]
        return self.prefix + (name if count == 1 else f"{name}-{count}")
