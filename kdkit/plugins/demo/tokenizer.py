"""A word-level tokenizer in Hugging Face format that ``open_clip.get_tokenizer("local-dir:...")`` loads offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kdkit.plugins.demo.captions import word_list

CONTEXT_LENGTH = 16
"""Tokens in a text, with its begin and end; longer texts are cut."""

_PAD, _UNKNOWN, _BEGIN, _END = "[PAD]", "[UNK]", "[BOS]", "[EOS]"


def vocabulary(words: Sequence[str] | None = None) -> dict[str, int]:
    """Token -> id. The end mark has the largest id, because open_clip's text tower pools at ``argmax`` of the ids.

    The padding (id 0) comes after the end mark and the text tower is causal, so padding cannot change a feature.
    """
    tokens = [_PAD, _UNKNOWN, _BEGIN, *(word_list() if words is None else words), _END]
    return {token: index for index, token in enumerate(tokens)}


def write_tokenizer(folder: Path, words: Sequence[str] | None = None) -> None:
    """Write the tokenizer's two JSON files into ``folder``: lower case, split at spaces and punctuation."""
    _write_json(folder / "tokenizer.json", _tokenizer_json(vocabulary(words)))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT_LENGTH,
        "pad_token": _PAD,
        "unk_token": _UNKNOWN,
        "bos_token": _BEGIN,
        "eos_token": _END,
    }


def _tokenizer_json(tokens: dict[str, int]) -> dict[str, object]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(token, tokens[token]) for token in (_PAD, _UNKNOWN, _BEGIN, _END)],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": _frame(tokens),
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": tokens, "unk_token": _UNKNOWN},
    }


def _special(token: str, index: int) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": token, **flags, "special": True}


def _frame(tokens: dict[str, int]) -> dict[str, object]:
    """The template that puts a begin and an end mark around a text (or around each of two)."""
    begin, end = {"SpecialToken": {"id": _BEGIN, "type_id": 0}}, {"SpecialToken": {"id": _END, "type_id": 0}}
    one, two = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}
    marks = {mark: {"id": mark, "ids": [tokens[mark]], "tokens": [mark]} for mark in (_BEGIN, _END)}
    return {
        "type": "TemplateProcessing",
        "single": [begin, one, end],
        "pair": [begin, one, end, begin, two, end],
        "special_tokens": marks,
    }
