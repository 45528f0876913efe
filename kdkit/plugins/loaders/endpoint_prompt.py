"""Log-probabilities of a prompt's tokens, as vLLM returns them for ``prompt_logprobs``: checked, for a given answer.

The request holds the sample's answer as the assistant's message. The reply has the tokens of the whole prompt and, at
each of them, the likeliest tokens given those before it. Nothing in the protocol says where the answer is: its tokens,
which the served model's ``tokenizer.json`` gives, are searched at the end of the prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import exp, isfinite
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.loaders.endpoint_client import InvalidReply

MAX_AFTER = 8
"""Tokens that a chat template writes after the end token of an answer, at most (Qwen: one line feed)."""
TOLERANCE = 1e-3
"""Rounding error of a sum of probabilities."""
IMPOSSIBLE = -1e4
"""vLLM writes -9999 for minus infinity, which JSON does not have."""


class UnusableReply(Exception):
    """A valid reply that cannot give the signals; no further try would.

    Attributes:
        what: the finding; ``fix``: the remedy.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


class PromptTokens:
    """Token ids of answers, by the served model's ``tokenizer.json``.

    Args:
        end: the token that ends an answer; ``image``: the one that an image takes the place of.

    Raises:
        KdkitError: no usable file; one without these tokens.
    """

    def __init__(self, path: Path, *, end: str, image: str) -> None:
        from tokenizers import Tokenizer

        try:
            self._content = path.read_bytes()
            self._tokenizer: Any = Tokenizer.from_str(self._content.decode())
        except Exception as error:  # the library raises Exception itself
            raise KdkitError(
                "KD-LOAD-560",
                "'prompt_logprobs' needs the served model's tokenizer.json beside endpoint.json",
                where=str(path),
                why=f"{error}; with it kdkit finds the answer's tokens in the prompt",
                fix="copy tokenizer.json from the served model's folder",
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.end, self.image = self._id("end_token", end, path), self._id("image_token", image, path)

    def _id(self, key: str, token: str, path: Path) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise KdkitError(
                "KD-LOAD-561",
                f"the tokenizer has no token '{token}'",
                where=str(path),
                fix=f"set '{key}' in endpoint.json to the served model's",
            )
        return int(found)

    @cached_property
    def digest(self) -> str:
        """As in the identity of a local model with the same file, so that both count as one tokenizer."""
        return f"sha256:{hashlib.sha256(self._content).hexdigest()}"

    def encode_answer(self, text: str) -> list[int]:
        """Ids of an answer with the end token."""
        return [*self._tokenizer.encode(text, add_special_tokens=False).ids, self.end]


@dataclass(frozen=True)
class AnswerScores:
    """What a model holds likely at each of the A tokens of an answer.

    Attributes:
        ids: (A,) its tokens.
        top_ids, top: (A, k) the likeliest tokens and their log-probabilities, decreasing.
        prompt: number of tokens of the whole prompt.
    """

    ids: tuple[int, ...]
    top_ids: tuple[tuple[int, ...], ...]
    top: tuple[tuple[float, ...], ...]
    prompt: int


def parse_prompt_logprobs(reply: Any, answer: Sequence[int], k: int, *, image: int, images: int) -> AnswerScores:
    """The scores of an answer's tokens.

    Args:
        reply: a chat completion of vLLM with ``prompt_logprobs`` and ``prompt_token_ids``.
        answer: its tokens, the end token included.
        k: likeliest tokens at each place.
        image: id of image tokens; ``images``: how many images the request has.

    Raises:
        InvalidReply: another shape, or probabilities that are none; the request may be repeated.
        UnusableReply: no log-probabilities, fewer than ``k``, an image or the answer is absent from the prompt.
    """
    try:
        ids, rows = reply.get("prompt_token_ids"), reply.get("prompt_logprobs")
        if rows is None:
            raise UnusableReply(
                "the reply has no prompt_logprobs", "serve the model by vLLM, or remove 'prompt_logprobs'"
            )
        if ids is None:
            raise UnusableReply("the reply has no prompt_token_ids", "use a vLLM that knows 'return_token_ids'")
        if len(ids) != len(rows):
            raise UnusableReply(
                f"{len(rows)} rows of prompt_logprobs for {len(ids)} tokens of the prompt",
                "update vLLM: its rows do not belong to the tokens",
            )
        start = _find(ids, answer)
        _require_images(ids[:start], image, images)
        places = [_row(rows[start + i], token, k) for i, token in enumerate(answer)]
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise InvalidReply(f"{type(error).__name__}: {error}") from error
    top_ids, top = zip(*places, strict=True)
    return AnswerScores(tuple(answer), top_ids, top, len(ids))


def _find(ids: Sequence[int], answer: Sequence[int]) -> int:
    """Where the answer begins: at its last place before the end of the prompt."""
    last = len(ids) - len(answer)
    for start in range(last, max(last - MAX_AFTER, 1) - 1, -1):
        if list(ids[start : start + len(answer)]) == list(answer):
            return start
    raise UnusableReply(
        "the prompt does not end with the answer's tokens",
        "copy tokenizer.json from the served model, check 'end_token', and that its chat template keeps answers",
    )


def _require_images(prompt: Sequence[int], image: int, images: int) -> None:
    runs = sum(token == image for token, _ in groupby(prompt))
    if runs < images:
        raise UnusableReply(
            f"the prompt has {runs} of {images} images",
            "serve a model that reads images with a chat template that keeps them, and check 'image_token'",
        )


def _row(row: Mapping[str, Mapping[str, Any]], token: int, k: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The k likeliest tokens at a place, where ``token`` stands."""
    found = sorted(((float(entry["logprob"]), int(id)) for id, entry in row.items()), key=lambda pair: -pair[0])
    if str(token) not in row:
        raise UnusableReply("a row of prompt_logprobs lacks its own token", "update vLLM: its rows are shifted")
    if len(found) < k:
        raise UnusableReply(
            f"{len(found)} likeliest tokens instead of {k}",
            f"start the server with --max-logprobs {k}, or lower 'prompt_logprobs'",
        )
    values = [value for value, _ in found[:k]]
    if not all(isfinite(value) and value < TOLERANCE for value in values):
        raise ValueError("invalid probabilities")
    if sum(map(exp, values)) > 1 + TOLERANCE:
        raise ValueError("probabilities above 1 in sum")
    return tuple(id for _, id in found[:k]), tuple(max(IMPOSSIBLE, min(0.0, value)) for value in values)
