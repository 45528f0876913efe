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

_ABBREVIATION = r"(?:[a-z]\.){2,}|(?:dr|mr|mrs|ms|prof|vs|st|jr|sr)\.|(?:fig|no)\.(?=\s*\d)"
_NUMBER = r"\d+\.\d+-\d+|[-+]?\d+(?:[.,:/]\d+)+|[-+]?\.\d+|[-+]?\d+(?![\w-])"
_WORD = r"[a-z]&[a-z]\b|\w+(?:[-_/.']\w+)*"
_TOKEN = re.compile(rf"<[^<>\s]+>|{_ABBREVIATION}|{_NUMBER}|n't\b|'(?:s|m|d|ll|re|ve)\b|{_WORD}|\.\.\.|--+|[^\w\s]")
_CONTRACTION = re.compile(r"(\w)(n't)\b|(\w)('(?:s|m|d|ll|re|ve))\b")
_FUSED = re.compile(r"\b(can)(not)\b|\b(gon)(na)\b|\b(got)(ta)\b|\b(wan)(na)\b|\b(gim)(me)\b|\b(lem)(me)\b")


def words_of(text: str) -> list[str]:
    """Lower-case words of ``text`` in their order, without punctuation."""
    text = text.replace("’", "'").lower()
    text = _CONTRACTION.sub(lambda m: " ".join(part for part in m.groups() if part), text)
    text = _FUSED.sub(lambda m: " ".join(part for part in m.groups() if part), text)
    return [BRACKETS.get(token, token) for token in _TOKEN.findall(text) if token not in PUNCTUATION]
