"""Every listed word is one token, whatever its letters and whichever words stand beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.plugins.students.clinkd.byte_tokenizer import byte_tokenizer_files
from kdkit.plugins.students.clinkd.tokens import Tokens

REPEATING = ["papa", "mama", "bonbon", "aaaa", "1010", "...", "))))"]


def assert_whole(words: list[str]) -> None:
    tokens = Tokens(byte_tokenizer_files(words), "here")
    for word in words:
        for text in (word, f" {word}"):
            (number,) = tokens.encode(text)
            assert tokens.decode([number]) == text


@pytest.mark.parametrize("word", REPEATING)
def test_a_word_that_repeats_itself_is_one_token(word: str) -> None:
    assert_whole([word])


@given(st.lists(st.text("abé", min_size=1, max_size=9), min_size=1, max_size=12, unique=True))
def test_words_of_few_letters_are_whole(words: list[str]) -> None:
    assert_whole(words)
