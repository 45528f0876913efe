"""Texts of the demo's dual encoders."""

from __future__ import annotations

from kdkit.plugins.demo.captions import all_texts, word_list


def test_texts_fit_the_context_and_use_known_words() -> None:
    words = set(word_list())
    for text in all_texts():
        assert len(text.split()) <= 14
        assert words.issuperset(text.split())
