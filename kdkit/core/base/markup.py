"""HTML by construction: every text is escaped unless it is markup already."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

_UNBROKEN, _WBR = 16, "<wbr>"
_VOID = ("img", "meta")
"""Elements without content, which have no end tag."""


class Markup(str):
    """HTML that is complete and safe; any other ``str`` is text."""

    __slots__ = ()


Child = str | None


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """An element; children and attributes are escaped. ``class_`` is ``class``, ``data_v`` is ``data-v``.

    Attributes that are None or False are left out; True has no value.

    Example:
        >>> tag("b", "a < b", title='"c"')
        '<b title="&quot;c&quot;">a &lt; b</b>'
        >>> tag("p", tag("i", "x"), class_="wide")
        '<p class="wide"><i>x</i></p>'
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        plain = key.rstrip("_").replace("_", "-")
        parts.append(plain if value is True else f'{plain}="{escape(str(value), quote=True)}"')
    start = f"<{' '.join(parts)}>"
    return Markup(start if name in _VOID else f"{start}{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after another; text is escaped, None is left out."""
    return Markup("".join(c if isinstance(c, Markup) else escape(printable(c)) for c in children if c is not None))


def breakable(content: Child) -> Child:
    """Text whose long words may break after punctuation, else after 16 characters; markup stays as it is.

    Example:
        >>> breakable("a_very_long_name_without_spaces")
        'a_<wbr>very_<wbr>long_<wbr>name_<wbr>without_<wbr>spaces'
    """
    if content is None or isinstance(content, Markup):
        return content
    return Markup(" ".join(_WBR.join(map(str, _pieces(word))) for word in content.split(" ")))


def _pieces(word: str) -> list[Markup]:
    if len(word) <= _UNBROKEN:
        return [join([word])]
    parts = [part for part in re.split(r"(?<=[_/.:,;=-])", word) if part]
    return [join([part[at : at + _UNBROKEN]]) for part in parts for at in range(0, len(part), _UNBROKEN)]


def printable(text: str) -> str:
    """Text without control characters and without marks that reverse the direction of what follows."""
    return "".join(c if c.isprintable() or c in " \n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def shorten(text: str, length: int) -> str:
    """Text of at most ``length`` characters: the middle of a longer one is left out.

    Example:
        >>> shorten("abcdefghij", 7)
        'abc…hij'
    """
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
