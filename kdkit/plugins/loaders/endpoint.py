"""Loader ``openai``: a model behind an OpenAI-compatible endpoint as a teacher, which answers and may give logprobs."""

from __future__ import annotations

import base64
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import (
    IMAGE_MARK,
    LOGPROBS,
    OWN_ANSWERS,
    SETTINGS,
    TOP_LOGPROBS,
    Answer,
    Decoding,
    Sample,
    SignalSpec,
)
from kdkit.core.data.images import open_further_images
from kdkit.plugins.answers.boxes.own import OwnBoxes, Size
from kdkit.plugins.loaders.endpoint_client import ChatClient, InvalidReply
from kdkit.plugins.loaders.endpoint_logprobs import Vocabulary, logprob_signals, parse_logprobs
from kdkit.plugins.loaders.endpoint_settings import FILE, Settings, open_client

if TYPE_CHECKING:
    from torch import Tensor

PROMPT = "chat messages, images as PNG where they are marked 1"
"""Part of the teacher's identity; changes whenever the request for the same sample changes."""
UNIT = 28
"""Side of a token in pixels, of models whose boxes are in pixels."""


@dataclass(frozen=True)
class _Request:
    """Messages about a sample; ``sizes`` are those of its images as the model sees them."""

    sample: Sample
    sizes: tuple[Size, ...]
    messages: list[dict[str, Any]]


class EndpointTeacher:
    """Implements ``contracts.Answering``; as a ``contracts.SignalSource`` it may have signals for its own answers.

    Args:
        vocabulary: of the served model; None if token ids are not needed.
    """

    def __init__(self, settings: Settings, where: str, vocabulary: Vocabulary | None = None) -> None:
        self.settings = settings
        self._where, self._vocabulary, self._boxes = where, vocabulary, OwnBoxes(settings.boxes)
        self._unusable: Counter[str] = Counter()

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        """As of the loader ``image-text-to-text`` (tokens, topk_ids, topk, tail), with ``top_logprobs``."""
        if not self.settings.top_logprobs:
            return ()
        from kdkit.core.contracts.token_signals import token_specs  # imports torch

        return token_specs(self.settings.max_answer, self.settings.top_logprobs)

    def identity(self) -> Mapping[str, str]:
        """Everything that changes an answer or what is stored of it; not the address and its limits."""
        identity = {SETTINGS: FILE, "prompt": PROMPT, **self.settings.identity(UNIT)}
        return {**identity, LOGPROBS: OWN_ANSWERS} if self.settings.top_logprobs else identity

    def prepare(self, image: Image, sample: Sample) -> Any:
        """The log-probabilities that came with the sample's answer, if its text still is that answer."""
        parsed: Mapping[str, Any] | None = sample.extra.get(TOP_LOGPROBS)
        if parsed is None:
            return None
        unchanged = self._boxes.answer(sample, self._sizes([image, *open_further_images(sample)])) == parsed["text"]
        return parsed if unchanged else None

    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        """B items -> the signals, (B, *shape); sends no request."""
        import torch

        rows = [logprob_signals(parsed, self.settings.max_answer, self.settings.top_logprobs) for parsed in items]
        return {spec.name: torch.stack([row[spec.name] for row in rows]) for spec in self.signals}

    def answer(
        self, images: Sequence[Image], samples: Sequence[Sample], decoding: Decoding | None = None
    ) -> list[list[Answer]]:
        """See the contract. ``ids`` are empty, and so are ``log_probs`` if the server returns none. Boxes in the texts
        are in the coordinates of the samples' texts.

        Raises:
            KdkitError: a beam search; a sample whose image marks and images differ in number; a refusal of the server,
                or no valid reply after all tries.
        """
        decoding = decoding or Decoding()
        if decoding.beams > 1:
            raise KdkitError(
                "KD-LOAD-001", "an endpoint has no beam search", where=self._where, fix="draw samples instead"
            )
        client = self._client()

        async def request_answers(request: _Request) -> list[Answer]:
            return await self._request_answers(client, request, decoding)

        requests = [self._make_request(image, sample) for image, sample in zip(images, samples, strict=True)]
        found = client.map(request_answers, requests)
        client.warn_of_retries(self._where)
        if self._unusable:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in self._unusable.most_common())
            total = self._unusable.total()
            warnings.warn(f"{self._where}: {total} answers without usable log-probabilities: {reasons}", stacklevel=2)
            self._unusable.clear()
        return found

    def _client(self) -> ChatClient:
        return open_client(self.settings)

    async def _request_answers(self, client: ChatClient, request: _Request, decoding: Decoding) -> list[Answer]:
        """All answers to one sample. A server that ignores ``n`` gets further requests, each with the next seed."""

        def parse(reply: Any) -> list[Answer]:
            return parse_answers(reply, self._parse_logprobs, scored=decoding.scored)

        found: list[Answer] = []
        while len(found) < decoding.answers:
            found += await client.post(self._body(request.messages, decoding, len(found)), parse)
        return [
            replace(answer, text=self._boxes.from_model(request.sample, answer.text, request.sizes))
            for answer in found[: decoding.answers]
        ]

    def _parse_logprobs(self, choice: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if not self.settings.top_logprobs:
            return None
        parsed = parse_logprobs(choice, self.settings.top_logprobs, self._vocabulary)
        if isinstance(parsed, str):
            self._unusable[parsed] += 1
            return None
        return parsed

    def _body(self, messages: list[dict[str, Any]], decoding: Decoding, have: int) -> dict[str, Any]:
        body = {"model": self.settings.model, "messages": messages, "max_tokens": decoding.max_new, "temperature": 0.0}
        if decoding.samples:
            drawn = {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": decoding.seed + have}
            body |= {**drawn, "n": decoding.samples - have}
        if decoding.scored:
            body["logprobs"] = True
            if self.settings.top_logprobs:
                body["top_logprobs"] = self.settings.top_logprobs
        return body

    def _make_request(self, image: Image, sample: Sample) -> _Request:
        images = [image, *open_further_images(sample)]
        try:
            sizes = self._sizes(images)
        except KdkitError as error:
            raise KdkitError(
                "KD-LOAD-003",
                f"sample '{sample.id}': {error.what}",
                where=sample.origin,
                why=error.why,
                fix=error.fix or "remove the sample from the data",
            ) from error
        return _Request(sample, sizes, self._messages(self._boxes.question(sample, sizes), images))

    def _sizes(self, images: Sequence[Image]) -> tuple[Size, ...]:
        """Of the images as the model sees them if its boxes are in pixels; otherwise as they are."""
        if not self._boxes.pixels:
            return tuple(image.size for image in images)
        from kdkit.plugins.students.clinkd.images import smart_resize  # imports torch

        least, most = self.settings.min_pixels, self.settings.max_pixels
        return tuple(smart_resize(*image.size, unit=UNIT, least=least, most=most) for image in images)

    def _messages(self, sample: Sample, images: Sequence[Image]) -> list[dict[str, Any]]:
        given = sample.extra.get("messages") or [{"role": "user", "content": IMAGE_MARK + self.settings.question}]
        marks = sum(str(message["content"]).count(IMAGE_MARK) for message in given)
        if marks != len(images):
            raise KdkitError(
                "KD-LOAD-004",
                f"sample '{sample.id}': {marks} {IMAGE_MARK} marks, {len(images)} images",
                where=sample.origin,
                fix=f"write one {IMAGE_MARK} per image in the sample's messages",
            )
        urls = iter([data_url(image) for image in images])
        messages = [{"role": str(m["role"]), "content": _content(str(m["content"]), urls)} for m in given]
        if self.settings.system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.settings.system})
        return messages


def data_url(image: Image) -> str:
    """The image as a data URL with a lossless PNG."""
    with io.BytesIO() as file:
        image.save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _content(text: str, urls: Iterator[str]) -> str | list[dict[str, Any]]:
    """Plain text as a string; text with image marks as a list of parts."""
    first, *others = text.split(IMAGE_MARK)
    if not others:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": first}] if first else []
    for piece in others:
        parts.append({"type": "image_url", "image_url": {"url": next(urls)}})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def parse_answers(
    reply: Any, logprobs: Callable[[Mapping[str, Any]], Mapping[str, Any] | None], *, scored: bool
) -> list[Answer]:
    """The answers of a chat completion, at least one.

    Args:
        logprobs: parses the log-probabilities of a choice; used for scored answers.

    Raises:
        InvalidReply: a reply of another shape.
    """
    try:
        found = [
            Answer(_text(choice), (), _log_probs(choice), logprobs(choice)) if scored else Answer(_text(choice))
            for choice in reply["choices"]
        ]
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise InvalidReply(f"{type(error).__name__}: {error}") from error
    if not found:
        raise InvalidReply("no choices")
    return found


def _text(choice: Mapping[str, Any]) -> str:
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise TypeError("content is not text")
    return text.strip()


def _log_probs(choice: Mapping[str, Any]) -> tuple[float, ...]:
    tokens = (choice.get("logprobs") or {}).get("content") or ()
    values = tuple(min(0.0, float(token["logprob"])) for token in tokens)
    if not all(isfinite(value) for value in values):
        raise ValueError("logprob is not finite")
    return values
