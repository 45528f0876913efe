"""A server's log-probabilities of its own answer: read, checked, and made into the signals that token losses read.

The protocol names tokens by their text or bytes. With the served model's ``tokenizer.json`` they become its ids, which
are a student's where both have one vocabulary; without it only how the mass is spread is known, which is all that
``uld`` reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import exp, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import KdkitError

if TYPE_CHECKING:
    from torch import Tensor

MOST = 20
"""Alternatives of a token, by the protocol."""
UNKNOWN_TOKEN = 2**31 - 1
"""Id of a token that is there and whose id is not known: it is no student's."""
END = "<|im_end|>"
MASS = 1e-3
"""By so much may rounded probabilities exceed 1 in sum."""


class Vocabulary:
    """The tokens of a byte-level ``tokenizer.json``, by their bytes.

    Raises:
        KdkitError: no usable file, or one whose tokens are not bytes.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            content = path.read_text(encoding="utf-8")
            self._tokenizer: Any = Tokenizer.from_str(content)
        except Exception as error:  # the library raises Exception itself
            raise KdkitError("KD-LOAD-017", "not a usable tokenizer.json", where=str(path), why=str(error)) from error
        if '"ByteLevel"' not in json.dumps(json.loads(content).get("decoder")):
            raise KdkitError(
                "KD-LOAD-018",
                "the tokens of this tokenizer.json are not bytes",
                where=str(path),
                fix="leave it out of the folder: the loss 'uld' needs no ids",
            )
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        letters = {letter: byte for byte, letter in _byte_letters().items()}
        added = self._tokenizer.get_added_tokens_decoder()
        self._ids = {str(token.content).encode(): number for number, token in added.items()}
        for token, number in self._tokenizer.get_vocab(with_added_tokens=False).items():
            if all(letter in letters for letter in token):
                self._ids[bytes(letters[letter] for letter in token)] = number
        self.end: int | None = self._tokenizer.token_to_id(END)

    def id(self, token: bytes) -> int | None:
        """None for bytes that are no token."""
        return self._ids.get(token)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, as a student is taught it."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in byte-level vocabularies (GPT-2's ``bytes_to_unicode``)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def read_told(choice: Mapping[str, Any], k: int, vocabulary: Vocabulary | None) -> dict[str, Any] | str:
    """What a choice tells of its answer's tokens, as JSON; or in a few words why it tells nothing that can be used.

    ``text`` is the answer; ``top`` (A, k) falling log-probabilities; with a vocabulary ``ids`` (A,) and ``top_ids``
    (A, k), None for a place with a token that the vocabulary does not have.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: a reply of another shape; numbers that are no probabilities.
    """
    text = choice["message"]["content"]
    content = (choice.get("logprobs") or {}).get("content")
    if not content:
        return "no log-probabilities"
    if not all(token.get("top_logprobs") for token in content):
        return "no alternatives of tokens"
    tokens = [_bytes(token) for token in content]
    ended = b"".join(tokens) != text.encode()
    if ended and b"".join(tokens[:-1]) != text.encode():
        return "tokens that do not make the text"
    places = [_falling(token["top_logprobs"]) for token in content]
    if any(len(place) < k for place in places):
        return f"less than {k} alternatives of a token"
    told: dict[str, Any] = {"text": text.strip(), "top": [[value for _, value in place[:k]] for place in places]}
    if vocabulary is None:
        return told
    told["ids"] = [vocabulary.id(token) for token in tokens]
    if told["ids"][: len(tokens) - ended] != vocabulary.encode(text.strip()):
        return "tokens that the tokenizer does not make of the text"
    if ended and (vocabulary.end is None or told["ids"][-1] != vocabulary.end):
        told["ids"][-1] = None
    found = [[vocabulary.id(token) for token, _ in place[:k]] for place in places]
    told["top_ids"] = [ids if None not in ids and len(set(ids)) == k else None for ids in found]
    return told


def _bytes(token: Mapping[str, Any]) -> bytes:
    given = token.get("bytes")
    return bytes(given) if given is not None else str(token["token"]).encode()


def _falling(given: Sequence[Mapping[str, Any]]) -> list[tuple[bytes, float]]:
    """Tokens and their log-probabilities, the likeliest first."""
    found = sorted(((_bytes(token), float(token["logprob"])) for token in given), key=lambda pair: -pair[1])
    if (
        not all(isfinite(value) and value < MASS for _, value in found)
        or sum(exp(value) for _, value in found) > 1 + MASS
    ):
        raise ValueError("alternatives whose probabilities are none")
    return [(token, round(min(0.0, value), 5)) for token, value in found]


def made_signals(told: Mapping[str, Any] | None, answer: int, k: int) -> dict[str, Tensor]:
    """One row of the signals of an answer of at most ``answer`` tokens, from what :func:`read_told` gave.

    From nothing, a row that says nothing about any token.
    """
    import torch

    from kdkit.core.contracts.token_signals import NO_TOKEN, tail_of, token_specs

    made = {
        spec.name: torch.full(spec.shape, NO_TOKEN if spec.dtype == "int32" else 0, dtype=getattr(torch, spec.dtype))
        for spec in token_specs(answer, k)
    }
    if not told:
        return made
    top = torch.tensor(told["top"][:answer], dtype=torch.float64)
    count = len(top)
    known = zip(
        told.get("ids", [UNKNOWN_TOKEN] * count), told.get("top_ids", [[UNKNOWN_TOKEN] * k] * count), strict=False
    )
    for place, (token, ids) in zip(range(count), known, strict=False):
        if token is not None and ids is not None:
            made["tokens"][place], made["topk_ids"][place] = token, torch.tensor(ids)
    made["topk"][:count], made["tail"][:count] = top, tail_of(top)
    return made
