"""Markup by construction."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.core.base.markup import breakable, join, printable, shorten, tag


class Reader(HTMLParser):
    """What a browser sees: elements, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@settings(max_examples=40, deadline=None)
@given(st.text(), st.text())
def test_text_stays_text_and_attributes_stay_attributes(text: str, title: str) -> None:
    seen = Reader(tag("p", text, title=title))
    assert seen.elements == ["p"]
    assert seen.text == printable(text)
    assert seen.attributes == [("title", title)] or "\x00" in title


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_breaks_change_no_letter(text: str) -> None:
    seen = Reader(tag("p", breakable(text)))
    assert seen.text == printable(text)
    assert set(seen.elements) <= {"p", "wbr"}
    assert all(len(word) <= 16 for word in str(breakable("x" * 60)).split("<wbr>"))


@settings(max_examples=40, deadline=None)
@given(st.text(), st.integers(3, 40))
def test_shortened_text_fits(text: str, length: int) -> None:
    short = shorten(text, length)
    assert len(short) <= length
    if len(text) > length:
        assert text.startswith(short.split("…")[0])
    else:
        assert short == text


def test_marks_that_reverse_the_text_are_not_shown() -> None:
    assert join(["safe\u202egpj.exe\x1b[31m"]) == "safe�gpj.exe�[31m"
