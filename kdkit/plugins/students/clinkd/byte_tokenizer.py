"""A tokenizer made from a list of words that can write anything: unknown text falls apart into bytes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

from kdkit.core.base.errors import KdkitError

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
"""Qwen2-VL's special tokens, in its order."""
_ROLES = ("system", "user", "assistant")

_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",  # a name that transformers 4 and 5 both know
    "pad_token": "<|endoftext|>",
    "eos_token": "<|im_end|>",
    "clean_up_tokenization_spaces": False,
}


def byte_tokenizer_files(words: Sequence[str]) -> dict[str, bytes]:
    """File name -> content of a byte-level BPE tokenizer, as Qwen's are, that needs no training and no download.

    A word (a run of letters, or of one kind of marks) is one token, with or without a space before it; everything
    else is written byte by byte, so that decoding gives back every text exactly.

    Raises:
        KdkitError: for a word that is empty, repeated, or has a space in it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    bad = [word for word in words if not word or word.split() != [word]]
    if bad or len(set(words)) != len(words):
        raise KdkitError(
            "KD-STUD-005",
            f"the tokenizer cannot use the word {(bad or [w for w in words if words.count(w) > 1])[0]!r}",
            where="student.config.sizes.words",
            why="a word is not empty, has no space, and is listed once",
            fix="leave the word out, or write it without spaces and special tokens",
        )
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: dict[tuple[str, str], int] = {}
    texts = [text for word in dict.fromkeys((*_ROLES, *words)) for text in (word, f" {word}")]
    parts = [part for text in texts for part, _ in cut.pre_tokenize_str(text)]
    while parts:  # until all are whole: a merge joins its pair wherever it stands, as that of 'papa' makes 'pa pa'
        parts = [part for part in parts if _learn(part, vocabulary, merges)]
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": json.dumps(_CONFIG, indent=2).encode(),
    }


def _learn(part: str, vocabulary: dict[str, int], merges: dict[tuple[str, str], int]) -> bool:
    """Join the pieces into which the merges (pair -> rank) so far put ``part``; False where it is one already. Later
    merges come last in encoding too, so words that are whole stay so."""
    pieces = _encode(part, merges)
    learns = len(pieces) > 1
    while len(pieces) > 1:
        pair = (pieces[0], pieces[1])
        vocabulary.setdefault("".join(pair), len(vocabulary))
        merges.setdefault(pair, len(merges))
        pieces[:2] = ["".join(pair)]
    return learns


def _encode(part: str, ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding: the pair of the lowest rank is joined first."""
    pieces = list(part)
    while len(pieces) > 1:
        rank, place = min((ranks.get(pair, len(ranks)), n) for n, pair in enumerate(itertools.pairwise(pieces)))
        if rank == len(ranks):
            break
        pieces[place : place + 2] = ["".join(pieces[place : place + 2])]
    return pieces
