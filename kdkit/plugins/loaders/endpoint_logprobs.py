"""Log-probabilities that a server returns with its answer: parsed, checked and converted to signals of token losses.

The protocol names tokens by text or bytes. The served model's ``tokenizer.json`` maps them to ids, which equal the
student's ids if both have one vocabulary. Without it only the probabilities are known, which is all that ``uld`` reads.
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

MAX_ALTERNATIVES = 20
"""Limit of the protocol, per token."""
UNKNOWN_TOKEN = 2**31 - 1
"""Stands for a token whose id is not known; no vocabulary has this id."""
END = "<|im_end|>"
TOLERANCE = 1e-3
"""Rounding error of a sum of probabilities."""


class Vocabulary:
    """Token ids of a byte-level ``tokenizer.json``.

    Raises:
        KdkitError: an unusable file; a tokenizer that is not byte-level.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            content = path.read_text(encoding="utf-8")
            self._tokenizer: Any = Tokenizer.from_str(content)
        except Exception as error:  # the library raises Exception itself
            raise KdkitError(
                "KD-LOAD-017",
                "not a usable tokenizer.json",
                where=str(path),
                why=str(error),
                fix="copy the file again from the served model, or delete it: the loss 'uld' needs no ids",
            ) from error
        if '"ByteLevel"' not in json.dumps(json.loads(content).get("decoder")):
            raise KdkitError(
                "KD-LOAD-018",
                "this tokenizer.json is not byte-level",
                where=str(path),
                fix="delete it from the folder: the loss 'uld' needs no ids",
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
        """Id of the token with these bytes, or None."""
        return self._ids.get(token)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in byte-level vocabularies (GPT-2's ``bytes_to_unicode``)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def parse_logprobs(choice: Mapping[str, Any], k: int, vocabulary: Vocabulary | None) -> dict[str, Any] | str:
    """Log-probabilities of a choice as JSON, or the reason (a few words) why they cannot be used.

    ``text`` is the answer; ``top`` (A, k) descending log-probabilities; with a vocabulary ``ids`` (A,) and ``top_ids``
    (A, k). An id is None, and so is a row of ``top_ids``, if the vocabulary lacks the token.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: a choice of another shape; invalid probabilities.
    """
    text = choice["message"]["content"]
    content = (choice.get("logprobs") or {}).get("content")
    if not content:
        return "no log-probabilities"
    if not all(token.get("top_logprobs") for token in content):
        return "no alternatives"
    tokens = [_bytes(token) for token in content]
    has_end = b"".join(tokens) != text.encode()
    if has_end and b"".join(tokens[:-1]) != text.encode():
        return "tokens differ from the text"
    alternatives = [_sort_alternatives(token["top_logprobs"]) for token in content]
    if any(len(row) < k for row in alternatives):
        return f"fewer than {k} alternatives"
    parsed: dict[str, Any] = {"text": text.strip(), "top": [[value for _, value in row[:k]] for row in alternatives]}
    if vocabulary is None:
        return parsed
    parsed["ids"] = [vocabulary.id(token) for token in tokens]
    if parsed["ids"][: len(tokens) - has_end] != vocabulary.encode(text.strip()):
        return "tokens differ from those of tokenizer.json"
    if has_end and (vocabulary.end is None or parsed["ids"][-1] != vocabulary.end):
        parsed["ids"][-1] = None
    rows = [[vocabulary.id(token) for token, _ in row[:k]] for row in alternatives]
    parsed["top_ids"] = [ids if None not in ids and len(set(ids)) == k else None for ids in rows]
    return parsed


def _bytes(token: Mapping[str, Any]) -> bytes:
    given = token.get("bytes")
    return bytes(given) if given is not None else str(token["token"]).encode()


def _sort_alternatives(alternatives: Sequence[Mapping[str, Any]]) -> list[tuple[bytes, float]]:
    """Tokens and log-probabilities, most likely first."""
    found = sorted(((_bytes(token), float(token["logprob"])) for token in alternatives), key=lambda pair: -pair[1])
    valid = all(isfinite(value) and value < TOLERANCE for _, value in found)
    if not valid or sum(exp(value) for _, value in found) > 1 + TOLERANCE:
        raise ValueError("invalid probabilities")
    return [(token, round(min(0.0, value), 5)) for token, value in found]


def logprob_signals(parsed: Mapping[str, Any] | None, answer: int, k: int) -> dict[str, Tensor]:
    """One row of each signal, for an answer of at most ``answer`` tokens.

    Args:
        parsed: from :func:`parse_logprobs`; None gives a row that marks every token as missing.
    """
    import torch

    from kdkit.core.contracts.tail_mass import tail_of
    from kdkit.core.contracts.token_signals import NO_TOKEN, token_specs

    signals = {
        spec.name: torch.full(spec.shape, NO_TOKEN if spec.dtype == "int32" else 0, dtype=getattr(torch, spec.dtype))
        for spec in token_specs(answer, k)
    }
    if not parsed:
        return signals
    top = torch.tensor(parsed["top"][:answer], dtype=torch.float64)
    count = len(top)
    ids = parsed.get("ids", [UNKNOWN_TOKEN] * count)
    top_ids = parsed.get("top_ids", [[UNKNOWN_TOKEN] * k] * count)
    for place, token, row in zip(range(count), ids, top_ids, strict=False):
        if token is not None and row is not None:
            signals["tokens"][place], signals["topk_ids"][place] = token, torch.tensor(row)
    signals["topk"][:count], signals["tail"][:count] = top, tail_of(top)
    return signals
