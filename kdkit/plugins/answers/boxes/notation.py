"""Notations of boxes in text: tags, tokens or JSON, with numbers in any units."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

Numbers = tuple[float, float, float, float]
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_CORNERS = rf"\({_NUMBER},{_NUMBER}\)\s*,\s*\({_NUMBER},{_NUMBER}\)"


@dataclass(frozen=True)
class Written:
    """One box: x1, y1, x2, y2 in the text's units, and its label, which may be empty."""

    numbers: Numbers
    label: str = ""


@dataclass(frozen=True)
class Piece:
    """``text[start:end]`` is these boxes."""

    start: int
    end: int
    boxes: tuple[Written, ...]


@dataclass(frozen=True)
class Stray:
    """A box in another notation: its text, and that notation."""

    text: str
    notation: str


@dataclass(frozen=True)
class Notation:
    """A way to write boxes: how they are found, and how they are written."""

    read: Callable[[str], list[Piece]]
    write: Callable[[Sequence[Written]], str]


def _tagged(ref: tuple[str, str], box: tuple[str, str]) -> Notation:
    """Pairs of tags around labels and corners; a label belongs to all boxes right behind it."""
    one = rf"{re.escape(box[0])}{_CORNERS}{re.escape(box[1])}"
    named = rf"(?:{re.escape(ref[0])}([^<]*){re.escape(ref[1])}\s*)?"
    group = re.compile(rf"{named}({one}(?:\s*{one})*)")
    single = re.compile(one)

    def write(boxes: Sequence[Written]) -> str:
        made, last = "", ""
        for number, item in enumerate(boxes):
            if item.label and (number == 0 or item.label != last):
                made += f"{ref[0]}{item.label}{ref[1]}"
            x1, y1, x2, y2 = (f"{value:g}" for value in item.numbers)
            made += f"{box[0]}({x1},{y1}),({x2},{y2}){box[1]}"
            last = item.label
        return made

    return Notation(partial(_labeled, group, single), write)


def _labeled(group: re.Pattern[str], single: re.Pattern[str], text: str) -> list[Piece]:
    """Labels, the first part of ``group``, with the boxes of the second."""
    return [
        Piece(m.start(), m.end(), tuple(Written(_four(b.groups()), m[1] or "") for b in single.finditer(m[2])))
        for m in group.finditer(text)
    ]


def _listed() -> Notation:
    """InternVL's: a label, and a list of boxes that it belongs to, ``<ref>a</ref><box>[[x1, y1, x2, y2]]</box>``."""
    one = rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]"
    group = re.compile(rf"(?:<ref>([^<]*)</ref>\s*)?<box>\s*\[(\s*{one}(?:\s*,\s*{one})*\s*)\]\s*</box>")
    single = re.compile(one)

    def write(boxes: Sequence[Written]) -> str:
        made = ""
        for label, same in itertools.groupby(boxes, lambda box: box.label):
            corners = ", ".join(f"[{', '.join(f'{value:g}' for value in box.numbers)}]" for box in same)
            made += f"<ref>{label}</ref>" * bool(label) + f"<box>[{corners}]</box>"
        return made

    return Notation(partial(_labeled, group, single), write)


def _json(key: str) -> Notation:
    """A list of objects, or one object, with ``key`` and ``label``; a code fence around it belongs to it."""
    fenced = re.compile(r"```(?:json)?\s*(?P<fenced>[\[{].*?[\]}])\s*```", re.DOTALL)
    decoder = json.JSONDecoder()

    def read(text: str) -> list[Piece]:
        pieces, place, last = [], 0, text.rfind(f'"{key}"')
        while (start := _next_bracket(text, place)) is not None and start < last:
            boxes, end = _decoded(decoder, text, start, key)
            place = end if boxes else start + 1
            if boxes:
                fence = fenced.match(text, max(0, text.rfind("```", 0, start)))
                inside = fence is not None and fence.start("fenced") == start and fence.end("fenced") == end
                pieces.append(
                    Piece(fence.start(), fence.end(), boxes) if fence and inside else Piece(start, end, boxes)
                )
        return pieces

    def write(boxes: Sequence[Written]) -> str:
        rows = [
            {key: [int(v) if v == int(v) and key == "bbox_2d" else v for v in item.numbers]}
            | ({"label": item.label} if item.label else {})
            for item in boxes
        ]
        return json.dumps(rows, ensure_ascii=False)

    return Notation(read, write)


def _next_bracket(text: str, place: int) -> int | None:
    found = re.compile(r"[\[{]").search(text, place)
    return found.start() if found else None


def _decoded(decoder: json.JSONDecoder, text: str, start: int, key: str) -> tuple[tuple[Written, ...], int]:
    """The boxes of the JSON value at ``start`` and where it ends; none where it is something else."""
    try:
        value, end = decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        return (), start
    rows = value if isinstance(value, list) else [value]
    boxes = tuple(Written(_four(row[key]), str(row.get("label", ""))) for row in rows if _has_box(row, key))
    return (boxes, end) if len(boxes) == len(rows) else ((), start)


def _has_box(row: object, key: str) -> bool:
    corners = row.get(key) if isinstance(row, dict) else None
    return (
        isinstance(corners, list)
        and len(corners) == 4
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in corners)
    )


def _four(values: Sequence[object]) -> Numbers:
    x1, y1, x2, y2 = (float(str(value)) for value in values)
    return x1, y1, x2, y2


NOTATIONS = {
    "tags": _tagged(("<ref>", "</ref>"), ("<box>", "</box>")),
    "tokens": _tagged(("<|object_ref_start|>", "<|object_ref_end|>"), ("<|box_start|>", "<|box_end|>")),
    "lists": _listed(),
    "bbox_2d": _json("bbox_2d"),
    "box": _json("box"),
}

_STRAYS = (
    ("lists", re.compile(r"<box>\s*\[.{0,60}")),
    ("tags", re.compile(r"<box>.{0,60}")),
    ("tokens", re.compile(r"<\|?box_start\|?>.{0,60}")),
    ("bbox_2d", re.compile(r'"bbox_2d".{0,60}')),
    ("box", re.compile(r'"box"\s*:.{0,60}')),
    ("", re.compile(_CORNERS)),
)


def foreign_boxes(text: str) -> Stray | None:
    """The first thing in ``text`` that looks like a box."""
    for notation, pattern in _STRAYS:
        found = pattern.search(text)
        if found:
            return Stray(found.group(0), notation)
    return None
