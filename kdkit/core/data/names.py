"""Names that are nearly right: of files that are missing, and of domains and classes that people mean to be one."""

from __future__ import annotations

import ast
import os
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from kdkit.core.contracts import USUAL_SPLITS, Sample

SHOWN = 3
"""How many of many equal problems a message names."""
MISSING_NUMBERS = frozenset({"nan", "NaN", "NAN", "NaT", "<NA>"})
"""How libraries write a missing value as text."""
MISSING_VALUES = MISSING_NUMBERS | {"N/A", "n/a", "NA", "None", "NULL", "null", "#NA", "#N/A", "#REF!", "#NAME?"}
"""And those that may be the answer to a question; ``none`` may be a class."""


def printable(text: str) -> str:
    """``text`` with escapes for what is not valid Unicode, such as a file name in another encoding."""
    return text.encode(errors="backslashreplace").decode()


def name_some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def count_of(things: Sequence[object] | Mapping[Any, object] | int, what: str) -> str:
    """``1 image``, ``2 images``, ``2 classes``."""
    count = things if isinstance(things, int) else len(things)
    return f"{count} {what}{('es' if what.endswith('s') else 's') if count != 1 else ''}"


def near_miss(path: Path) -> str:
    """The existing file that a missing path probably means; empty if there is none.

    The name may differ by slashes, case, Unicode form, spaces around it, percent encoding or extension.
    """
    if "\0" in str(path):
        return ""
    found = Path(os.sep)
    for part in Path(str(path).replace("\\", "/")).parts[1:]:
        name = part if os.path.lexists(found / part) else _nearest(found, part) or _nearest(found, unquote(part))
        if not name:
            return ""
        found /= name
    return f"did you mean '{found}'?" if found != path and os.path.isfile(found) else ""


def _nearest(folder: Path, name: str) -> str:
    """The entry of ``folder`` with nearly this name, or an image with another extension."""
    from PIL import Image

    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return ""
    wanted, stem = spelling(name), spelling(Path(name).stem)
    same = [entry for entry in names if spelling(entry) == wanted]
    if same:
        return same[0]
    images = Image.registered_extensions()
    others = (entry for entry in names if spelling(Path(entry).stem) == stem)
    return next((entry for entry in others if Path(entry).suffix.lower() in images), "")


LOOK_ALIKE = str.maketrans("\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u03bf", "aeopcyxijso")
"""Small letters of Cyrillic, and omicron, that look like Latin ones (Unicode's confusables, UTS 39)."""


def spelling(name: str) -> str:
    """``name`` without what people overlook: case, Unicode form, alike letters, invisible marks, repeated spaces."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    shown = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    return " ".join(shown.translate(LOOK_ALIKE).split())


def same_meaning(name: str) -> object:
    """Equal for classes that probably are one: also ``no_tumor`` and ``no tumor``, ``1`` and ``1.0``, ``a|b`` and
    ``b|a``."""
    parts = (spelling(re.sub(r"_|(?<=\w)[-\u2010-\u2015](?=\w)", " ", part)) for part in re.split(r"[|;]|, ", name))
    return tuple(sorted(re.sub(r"^(-?\d+)\.0+$", r"\1", part) for part in parts))


def is_no_name(text: str) -> bool:
    """A missing value, or a Python or JSON list, written as text."""
    if text in MISSING_VALUES:
        return True
    if re.match(r"array\(.*\)$", text, re.S):  # of NumPy
        return True
    if text[:1] + text[-1:] not in ("[]", "{}", "()"):
        return False
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):
            return isinstance(ast.literal_eval(text), list | dict | set | tuple)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


@dataclass(frozen=True)
class SimilarNames:
    """Names that probably mean one thing: domains, or classes of ``domain``; name -> samples."""

    domain: str | None
    counts: Mapping[str, int]

    def __str__(self) -> str:
        kind = "domains" if self.domain is None else f"classes of {self.domain}"
        alike = len({unicodedata.normalize("NFC", name) for name in self.counts}) < len(self.counts)
        quoted = ascii if alike else repr  # ascii tells Unicode forms apart
        return f"{kind} {', '.join(f'{quoted(name)} ({count})' for name, count in self.counts.items())}"


def find_split_names(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Domains, or classes of one domain, of which several are named as different splits."""
    levels = [sorted({sample.domain for sample in samples}), *_classes(samples).values()]
    named: list[str] = []
    for names in levels:
        splits = {name: split for name in names if (split := USUAL_SPLITS.get(name.lower()))}
        named += splits if len(set(splits.values())) > 1 else ()
    return tuple(named)


def find_similar_names(samples: Sequence[Sample]) -> tuple[SimilarNames, ...]:
    """Domains, and classes of one domain, that probably are one."""
    levels: list[tuple[str | None, list[str]]] = [(None, [sample.domain for sample in samples])]
    found: dict[tuple[str | None, object], dict[str, int]] = defaultdict(dict)
    for domain, names in [*levels, *_classes(samples).items()]:
        for name, count in sorted(Counter(names).items()):
            found[domain, same_meaning(name)][name] = count
    return tuple(SimilarNames(key[0], names) for key, names in found.items() if len(names) > 1)


def _classes(samples: Sequence[Sample]) -> dict[str, list[str]]:
    """Domain -> the label of each of its labeled samples."""
    found: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if sample.label is not None:
            found[sample.domain].append(sample.label)
    return dict(sorted(found.items()))


def _short(name: str, text: str) -> str:
    """Captions are counted as one kind each."""
    return f"{text[0]}...{text[-1]}" if name == "text" and text not in MISSING_VALUES else text


def count_no_names(samples: Sequence[Sample]) -> dict[str, int]:
    """Domains, classes and captions that are a missing value or a list, written as text -> samples."""
    found: Counter[str] = Counter()
    for sample in samples:
        fields = {"domain": sample.domain, "class": sample.label or "", "text": sample.text}
        if sample.extra.get("messages"):  # an answer may be a list, or none
            found["text " + sample.text] += fields.pop("text") in MISSING_NUMBERS
        found.update(f"{name} {_short(name, text)}" for name, text in fields.items() if is_no_name(text))
    return dict(sorted((+found).items()))
