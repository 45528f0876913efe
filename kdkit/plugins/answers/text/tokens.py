"""Tokenizer of the captioning metrics.

The rules follow the Penn Treebank tokenizer that pycocoevalcap calls (Stanford's ``PTBTokenizer``, in Java), without
Java: lower case, contractions split (``doesn't`` -> ``does n't``), hyphenated words and numbers kept whole, brackets
and punctuation apart, and then pycocoevalcap's list of punctuation removed.
"""

from __future__ import annotations

import re

PUNCTUATION = frozenset(("''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"))
"""What pycocoevalcap removes after tokenizing."""
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
"""Not removed: pycocoevalcap's list has them in upper case, its tokenizer writes lower case."""

_DASHES = re.compile("[–—―]|-{2,}|…")
_QUOTES = str.maketrans("‘’“”", "''\"\"")
_MONTHS = "jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
_TITLES = "dr|mr|mrs|ms|prof|st|jr|sr|inc|corp|ltd|co|dept"
_ABBREVIATION = rf"(?:[a-z]\.){{2,}}|(?:{_TITLES}|{_MONTHS}|vs|etc|cf|al|ph\.d|[a-z])\.(?!\w)|(?:fig|no)\.(?=\s*\d)"
_SIGNED = r"[-+](?:\d*(?:[.,:]\d+)+|\d+)"
_NUMBER = rf"\d+(?:[.,:/]\d+)*(?:-\w+)+|{_SIGNED}|\d*(?:[.,:]\d+)+|\d+(?:/\d+)+|\d+(?![\w-])"
_WORD = r"(?-i:[A-Z]&[A-Z])\b|\w+(?:[-‐‑_/']\w+|\.(?!\d)\w+)*"
_TOKEN = re.compile(
    rf"<[^<>\s]+>|{_ABBREVIATION}|{_NUMBER}|n't\b|'(?:s|m|d|ll|re|ve|\d\ds)\b|{_WORD}|\.\.\.|[?!]{{2,}}|[^\w\s]",
    re.IGNORECASE,
)
_CONTRACTION = re.compile(r"(\w)(n't)\b|(\w)('(?:s|m|d|ll|re|ve))\b", re.IGNORECASE)
_FUSED = re.compile(r"\b(can)(not)\b|\b(gon)(na)\b|\b(got)(ta)\b|\b(wan)(na)\b|\b(gim)(me)\b|\b(lem)(me)\b", re.I)


def words_of(text: str) -> list[str]:
    """Lower-case words of ``text`` in their order, without punctuation."""
    text = _DASHES.sub(" ", text.translate(_QUOTES))
    text = _CONTRACTION.sub(lambda m: " ".join(part for part in m.groups() if part), text)
    text = _FUSED.sub(lambda m: " ".join(part for part in m.groups() if part), text)
    tokens = (token.lower() for token in _TOKEN.findall(text))
    return [BRACKETS.get(token, token) for token in tokens if token not in PUNCTUATION]
