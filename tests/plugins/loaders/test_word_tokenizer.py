"""Word-level tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.plugins.loaders.word_tokenizer import word_tokenizer_files, words_of
from tests.errors import raises_error
from tests.tiny_models import WORDS


def test_word_tokenizer_files_are_read_back_and_recognized(folders: dict[str, Path]) -> None:
    files = word_tokenizer_files(WORDS)
    assert words_of(files) == list(WORDS)
    assert words_of({**files, "special_tokens_map.json": b"{}"}) is None
    names = ("tokenizer.json", "tokenizer_config.json")
    assert words_of({name: (folders["biomedclip"] / name).read_bytes() for name in names}) is None


@pytest.mark.parametrize("words", [["two words"], [""], ["CT"], ["ct", "ct"], ["x-ray"], ["<pad>"]])
def test_invalid_words_are_refused(words: list[str]) -> None:
    with raises_error("KD-LOAD-032", where="tokenizer.words"):
        word_tokenizer_files(words)
