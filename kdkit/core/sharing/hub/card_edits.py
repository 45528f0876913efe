"""A three-way merge of cards, part by part: the front matter's keys, and the sections below the ``## `` headings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_DERIVED = ("license", "license_name", "license_link")
"""Never kept: they follow from the teachers' licenses."""


@dataclass(frozen=True)
class Kept:
    """A new card with the edits; ``notes`` says what stays, for the reporter."""

    text: str
    notes: tuple[str, ...]


def keep_edits(before: str, new: str, theirs: str) -> Kept:
    """Carry edits over to a newly computed card.

    A part that only one side changed is that side's. Where both changed it, the new part stays, followed by the lines
    that people added; of the front matter's values, the new one stays.

    Args:
        before: as computed for the last push; empty where that is not known.
        new: as computed now; ``theirs``: as it stands on the Hub.

    Example:
        >>> before, new = "# S\\n\\n## Results\\n80\\n", "# S\\n\\n## Results\\n90\\n"
        >>> keep_edits(before, new, before.replace("# S", "# S\\nHi!", 1)).text
        '# S\\nHi!\\n\\n## Results\\n90\\n'
    """
    (front_was, was), (front_now, now), (front_there, there) = map(_split, (before, new, theirs))
    notes: list[str] = []
    front, body = _front(front_was, front_now, front_there, notes), _body(was, now, there, notes)
    return Kept(front + body, tuple(notes))


def _split(text: str) -> tuple[str, dict[str, str]]:
    """The front matter between its dashes, and heading -> section; the text before the first heading has none."""
    match = _FRONT.match(text := text.removeprefix("\ufeff"))
    front, body = (match[1], text[match.end() :]) if match else ("", text)
    sections, heading, fenced = {"": ""}, "", False
    for line in body.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            heading = line.strip()
            while heading in sections:
                heading += " "
            sections[heading] = ""
        sections[heading] += line if line.endswith("\n") else f"{line}\n"
    return front, sections


def _body(before: Mapping[str, str], new: Mapping[str, str], theirs: Mapping[str, str], notes: list[str]) -> str:
    merged: dict[str, str] = {}
    for heading, text in new.items():
        merged[heading] = _section(heading, before.get(heading), text, theirs.get(heading), notes)
    order = list(theirs)
    for heading, text in theirs.items():
        if heading in new or before.get(heading, "").strip() == text.strip():
            continue  # merged above, or dropped by kdkit and not edited
        notes.append(f"its part '{heading.strip('# ')}' stays")
        above = next((known for known in reversed(order[: order.index(heading)]) if known in merged), "")
        place = list(merged).index(above) + 1
        merged = dict([*list(merged.items())[:place], (heading, text), *list(merged.items())[place:]])
    parts = [text for text in merged.values() if text]
    return "".join(part if part.endswith("\n\n") else f"{part}\n" for part in parts[:-1]) + parts[-1]


def _section(heading: str, before: str | None, new: str, theirs: str | None, notes: list[str]) -> str:
    """One section of the new card."""
    name = heading.strip("# ") or "beginning"
    was, now, there = ((text or "").strip() for text in (before, new, theirs))
    if there == now:
        return theirs or new
    if there == was:
        return new
    if now == was:
        notes.append(f"its part '{name}' stays as it is there" if there else f"its part '{name}' stays removed")
        return theirs or ""
    known = {line.strip() for line in (*was.splitlines(), *now.splitlines())}
    added = [line for line in there.splitlines() if line.strip() and line.strip() not in known]
    if not added:
        return new
    notes.append(f"its part '{name}' has changed here too, so the lines added there follow the new ones")
    return f"{new.rstrip()}\n\n" + "\n".join(added) + "\n\n"


def _front(before: str, new: str, theirs: str, notes: list[str]) -> str:
    """The new front matter with its dashes."""
    from huggingface_hub import CardData

    was, now = _yaml(before) or {}, _yaml(new) or {}
    if (there := _yaml(theirs)) is None:
        notes.append("the values at its top cannot be read there, and are replaced")
        there = now
    merged = dict(now)
    for key in dict.fromkeys([*there, *was]):
        if there.get(key) in (was.get(key), now.get(key)):
            continue
        if now.get(key) == was.get(key) and key not in _DERIVED:
            notes.append(f"'{key}' at its top stays {there.get(key)!r:.60}")
            merged[key] = there.get(key)
        elif isinstance(now.get(key), list) and isinstance(there.get(key), list) and key != "model-index":
            merged[key] = [*now[key], *(item for item in there[key] if item not in [*now[key], *was.get(key, [])])]
            notes.append(f"what was added to '{key}' at its top stays")
        else:
            notes.append(f"'{key}' at its top is replaced by {now.get(key)!r:.60}")
    merged = {key: value for key, value in merged.items() if value is not None}
    if merged == now:
        return f"---\n{new}\n---\n" if new else ""
    return f"---\n{CardData(**merged).to_yaml()}\n---\n"


def _yaml(text: str) -> dict[str, Any] | None:
    """The front matter's values; None where it cannot be read."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError):
        return None
    return dict(found) if isinstance(found, Mapping) else {} if found is None else None
