"""Which records a CSV file has, found without parsing it; None where Arrow's reader and Python's could differ."""

from __future__ import annotations

import codecs
import csv
import io
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 25
"""Bytes that are looked at at once."""
QUOTE, NEWLINE, RETURN, NUL = b'"'[0], b"\n"[0], b"\r"[0], 0
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Records:
    """The records of a file below its header.

    Attributes:
        header: names of the columns.
        lines: (R,) line of each record, from 1.
        multiline: whether a quoted field spans lines.
    """

    header: list[str]
    lines: Places
    multiline: bool


def find_records(path: Path, delimiter: str) -> Records | None:
    """The records of a UTF-8 file in which every quote is where RFC 4180 has it; None for other files."""
    if len(delimiter.encode()) != 1 or path.stat().st_size == 0:
        return None
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:4] == b"sep=" or content[:3] == codecs.BOM_UTF8 or not is_plain_utf8(content):
            return None
        quotes, newlines, returns = (places_of(content, byte) for byte in (QUOTE, NEWLINE, RETURN))
        if not _well_quoted(content, quotes, ord(delimiter)) or not _ends_lines(content, returns, quotes):
            return None
        outside = np.searchsorted(quotes, newlines) % 2 == 0
        ends = newlines[outside]
        if not len(ends):
            return None
        header = _header(content[: ends[0]], delimiter)
        starts = ends + 1
        stops = np.append(ends[1:], len(content))
        sizes = stops - starts
        carriage = np.isin(starts, returns)  # a line with nothing but \r\n
        filled = (sizes > 0) & ~(carriage & (sizes == 1))
        if header is None or not filled.any():
            return None
        lines = np.searchsorted(newlines, starts[filled]) + 1
    return Records(header, lines.astype(np.int64), not bool(outside.all()))


def is_plain_utf8(content: mmap.mmap) -> bool:
    """UTF-8 without NUL; UTF-16 and UTF-32 have NULs or no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(content), BLOCK):
            block = content[start : start + BLOCK]
            if NUL in block:
                return False
            decoder.decode(block, final=start + BLOCK >= len(content))
    except UnicodeDecodeError:
        return False
    return True


def places_of(content: mmap.mmap, byte: int) -> Places:
    """Ascending positions of a byte."""

    def parts() -> Iterator[Places]:
        for start in range(0, len(content), BLOCK):
            block = np.frombuffer(content[start : start + BLOCK], dtype=np.uint8)
            yield np.flatnonzero(block == byte) + start

    return np.concatenate(list(parts()))


def _at(content: mmap.mmap, places: Places, outside: int) -> NDArray[np.uint8]:
    """The bytes at these positions; ``outside`` before the beginning and behind the end."""
    whole = np.frombuffer(content, dtype=np.uint8)
    found = np.full(len(places), outside, dtype=np.uint8)
    inside = (places >= 0) & (places < len(whole))
    found[inside] = whole[places[inside]]
    return found


def _well_quoted(content: mmap.mmap, quotes: Places, delimiter: int) -> bool:
    """Quotes open a field at its beginning and close it at its end; two quotes inside stand for one."""
    if len(quotes) % 2:
        return False
    before = _at(content, quotes[0::2] - 1, NEWLINE)
    behind = _at(content, quotes[1::2] + 1, NEWLINE)
    opens = np.isin(before, [delimiter, NEWLINE, QUOTE])
    closes = np.isin(behind, [delimiter, NEWLINE, RETURN, QUOTE])
    return bool(opens.all() and closes.all())


def _ends_lines(content: mmap.mmap, returns: Places, quotes: Places) -> bool:
    """Every carriage return is outside of quotes and before a newline."""
    followed = _at(content, returns + 1, RETURN) == NEWLINE
    return bool(followed.all() and (np.searchsorted(quotes, returns) % 2 == 0).all())


def _header(content: bytes, delimiter: str) -> list[str] | None:
    text = content.decode().removesuffix("\r")
    if not text or "\n" in text:
        return None
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
