"""The stems of English words: Porter, An algorithm for suffix stripping, Program 14 (3), 1980."""

from __future__ import annotations

import re
from functools import lru_cache

_STEP_2 = (
    "ational:ate tional:tion enci:ence anci:ance izer:ize abli:able alli:al entli:ent eli:e ousli:ous ization:ize "
    "ation:ate ator:ate alism:al iveness:ive fulness:ful ousness:ous aliti:al iviti:ive biliti:ble"
)
_STEP_3 = "icate:ic ative: alize:al iciti:ic ical:ic ful: ness:"
_STEP_4 = "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize"


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of a lower-case word; words with anything but a to z, and those of up to two letters, stay."""
    if len(word) < 3 or not re.fullmatch("[a-z]+", word):
        return word
    word = _past_and_gerund(_plural(word))
    if word[-1] == "y" and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _replaced(_replaced(word, _STEP_2), _STEP_3)
    return _final_e(_without_step_4(word))


def _shape(word: str) -> str:
    """``c`` for consonants, ``v`` for vowels; y is a vowel after a consonant."""
    shape = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and shape[-1:] == "c")
        shape += "v" if vowel else "c"
    return shape


def _measure(word: str) -> int:
    """Porter's m: how often a vowel is followed by a consonant."""
    return len(re.findall("vc", re.sub(r"(.)\1+", r"\1", _shape(word))))


def _has_vowel(word: str) -> bool:
    return "v" in _shape(word)


def _ends_short(word: str) -> bool:
    """Porter's *o: consonant, vowel, consonant, the last one not w, x or y."""
    return _shape(word).endswith("cvc") and word[-1] not in "wxy"


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past_and_gerund(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) else word
    for suffix in ("ed", "ing"):
        base = word.removesuffix(suffix)
        if base != word and _has_vowel(base):
            if base.endswith(("at", "bl", "iz")):
                return base + "e"
            if base[-1:] == base[-2:-1] and _shape(base)[-1] == "c" and base[-1] not in "lsz":
                return base[:-1]
            return base + "e" if _measure(base) == 1 and _ends_short(base) else base
    return word


def _replaced(word: str, rules: str) -> str:
    """The longest suffix that fits is replaced where the rest has a measure above 0."""
    pairs = sorted((rule.partition(":") for rule in rules.split()), key=lambda rule: -len(rule[0]))
    for suffix, _, replacement in pairs:
        if word.endswith(suffix):
            base = word.removesuffix(suffix)
            return base + replacement if _measure(base) else word
    return word


def _without_step_4(word: str) -> str:
    for suffix in sorted(_STEP_4.split(), key=len, reverse=True):
        if word.endswith(suffix):
            base = word.removesuffix(suffix)
            fits = _measure(base) > 1 and (suffix != "ion" or base.endswith(("s", "t")))
            return base if fits else word
    return word


def _final_e(word: str) -> str:
    base = word.removesuffix("e")
    if base != word and (_measure(base) > 1 or (_measure(base) == 1 and not _ends_short(base))):
        word = base
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word
