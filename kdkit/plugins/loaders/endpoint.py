"""A model behind an OpenAI-compatible endpoint as a teacher: it answers, and may tell what else it held likely."""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import IMAGE_MARK, OWN_ANSWERS, SETTINGS, TELLS, TOLD, Answer, Decoding, Sample, SignalSpec
from kdkit.core.data.images import decode
from kdkit.plugins.answers.boxes.own import OwnBoxes, Size
from kdkit.plugins.loaders.endpoint_requests import Garbage, Requests
from kdkit.plugins.loaders.endpoint_settings import FILE, Settings
from kdkit.plugins.loaders.endpoint_tokens import Vocabulary, made_signals, read_told

if TYPE_CHECKING:
    from torch import Tensor

PROMPT = "chat messages, images as PNG where they are marked 1"
"""Part of the teacher's identity; it changes with what the same sample sends."""
TOKENIZER = "tokenizer.json"
UNIT = 28
"""Pixels along the side of a token of the models whose boxes are pixels."""


@dataclass(frozen=True)
class _Question:
    """What is sent about a sample, whose images the model sees in ``sizes``."""

    sample: Sample
    sizes: tuple[Size, ...]
    messages: list[dict[str, Any]]


class EndpointTeacher:
    """Fulfils ``contracts.Answering``; as a ``contracts.SignalSource`` it has no signals, or those of its own answers.

    Args:
        vocabulary: of the served model; None where the ids of its tokens do not matter.
    """

    def __init__(self, settings: Settings, where: str, vocabulary: Vocabulary | None = None) -> None:
        self.settings = settings
        self._where, self._vocabulary = where, vocabulary
        self._useless: list[str] = []

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        """``tokens``, ``topk_ids``, ``topk`` and ``tail`` as of the loader ``qwen2-vl``, with ``top_logprobs``."""
        if not self.settings.top_logprobs:
            return ()
        from kdkit.core.contracts.token_signals import token_specs  # it needs torch

        return token_specs(self.settings.max_answer, self.settings.top_logprobs)

    def identity(self) -> Mapping[str, str]:
        """What changes an answer, or what is stored of it; not who is asked, and how."""
        identity = {SETTINGS: FILE, "prompt": PROMPT, **self.settings.identity(UNIT)}
        return {**identity, TELLS: OWN_ANSWERS} if self.settings.top_logprobs else identity

    def prepare(self, image: Image, sample: Sample) -> Mapping[str, Any] | None:
        """What was told with the sample's answer, if its text is that answer still."""
        told: Mapping[str, Any] | None = sample.extra.get(TOLD)
        if told is None:
            return None
        pictures = [image, *(decode(Path(path)) for path in sample.extra.get("images") or ())]
        same = OwnBoxes(self.settings.boxes).answer(sample, self._sizes(pictures)) == told["text"]
        return told if same else None

    def compute(self, items: Sequence[Mapping[str, Any] | None]) -> Mapping[str, Tensor]:
        """B items -> the signals, (B, *shape); nothing is asked."""
        import torch

        rows = [made_signals(told, self.settings.max_answer, self.settings.top_logprobs) for told in items]
        return {spec.name: torch.stack([row[spec.name] for row in rows]) for spec in self.signals}

    def answer(
        self, images: Sequence[Image], samples: Sequence[Sample], decoding: Decoding | None = None
    ) -> list[list[Answer]]:
        """See the contract. The server keeps its token ids to itself: ``ids`` are empty; so are ``log_probs`` where
        it gives none. Boxes in the texts are in the coordinates of the samples' texts.

        Raises:
            KdkitError: a beam search, which this protocol does not have; messages whose marks and images differ in
                number; a server that refuses, or that does not answer well after all tries.
        """
        decoding = decoding or Decoding()
        if decoding.beams > 1:
            raise KdkitError(
                "KD-LOAD-001", "an endpoint has no beam search", where=self._where, fix="draw samples instead"
            )
        requests = Requests(
            self.settings.endpoint.rstrip("/") + "/chat/completions",
            key=self._key(),
            timeout=self.settings.timeout,
            tries=self.settings.tries,
        )
        asked = [self._question(image, sample) for image, sample in zip(images, samples, strict=True)]
        with ThreadPoolExecutor(self.settings.parallel) as pool:
            try:
                found = list(pool.map(lambda question: self._ask(requests, question, decoding), asked))
            except BaseException:
                requests.stop()
                pool.shutdown(cancel_futures=True)
                raise
        requests.tell(self._where)
        if self._useless:
            what = ", ".join(f"{count} x {why}" for why, count in Counter(self._useless).most_common())
            warnings.warn(
                f"{self._where}: {len(self._useless)} answers came without alternatives that can be used: {what}",
                stacklevel=2,
            )
            self._useless.clear()
        return found

    def _key(self) -> str:
        variable = self.settings.key_variable
        if variable and not os.environ.get(variable):
            raise KdkitError(
                "KD-LOAD-002",
                f"the environment variable {variable} is not set",
                where=self._where,
                why="the endpoint's key is taken from it",
                fix=f"export {variable}=...",
            )
        return os.environ[variable] if variable else ""

    def _ask(self, requests: Requests, question: _Question, decoding: Decoding) -> list[Answer]:
        """A server that knows no ``n`` gives one answer at a time: it is asked again, with the next seed."""
        found: list[Answer] = []
        while len(found) < decoding.answers:
            body = self._body(question.messages, decoding, len(found))
            found += requests.post(body, lambda reply: read_answers(reply, self._told, scored=decoding.scored))
        said = OwnBoxes(self.settings.boxes).said
        return [
            replace(answer, text=said(question.sample, answer.text, question.sizes))
            for answer in found[: decoding.answers]
        ]

    def _told(self, choice: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What comes with an answer, to be kept; None where nothing was asked for, or it is of no use."""
        if not self.settings.top_logprobs:
            return None
        told = read_told(choice, self.settings.top_logprobs, self._vocabulary)
        if isinstance(told, str):
            self._useless.append(told)
            return None
        return told

    def _body(self, messages: list[dict[str, Any]], decoding: Decoding, have: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": messages,
            "max_tokens": decoding.max_new,
            "temperature": 0.0,
        }
        if decoding.samples:
            drawn = {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": decoding.seed + have}
            body |= {**drawn, "n": decoding.samples - have}
        if decoding.scored:
            body["logprobs"] = True
            if self.settings.top_logprobs:
                body["top_logprobs"] = self.settings.top_logprobs
        return body

    def _question(self, image: Image, sample: Sample) -> _Question:
        pictures = [image, *(decode(Path(path)) for path in sample.extra.get("images") or ())]
        try:
            sizes = self._sizes(pictures)
        except KdkitError as error:
            raise KdkitError(
                "KD-LOAD-003", f"sample '{sample.id}': {error.what}", where=sample.origin, why=error.why
            ) from error
        return _Question(sample, sizes, self._messages(OwnBoxes(self.settings.boxes).question(sample, sizes), pictures))

    def _sizes(self, pictures: Sequence[Image]) -> tuple[Size, ...]:
        """Of the images as the model sees them, where that matters."""
        if not OwnBoxes(self.settings.boxes).pixels:
            return tuple(picture.size for picture in pictures)
        from kdkit.plugins.students.clinkd.images import smart_resize  # it needs torch

        least, most = self.settings.min_pixels, self.settings.max_pixels
        return tuple(smart_resize(*picture.size, unit=UNIT, least=least, most=most) for picture in pictures)

    def _messages(self, sample: Sample, pictures: Sequence[Image]) -> list[dict[str, Any]]:
        given = sample.extra.get("messages") or [{"role": "user", "content": IMAGE_MARK + self.settings.question}]
        marks = sum(str(message["content"]).count(IMAGE_MARK) for message in given)
        if marks != len(pictures):
            images = f"{len(pictures)} image{'s' * (len(pictures) != 1)}"
            raise KdkitError(
                "KD-LOAD-004", f"sample '{sample.id}': {marks} {IMAGE_MARK} marks for {images}", where=sample.origin
            )
        addresses = iter([data_url(picture) for picture in pictures])
        told = [{"role": str(m["role"]), "content": _content(str(m["content"]), addresses)} for m in given]
        if self.settings.system and told[0]["role"] != "system":
            told.insert(0, {"role": "system", "content": self.settings.system})
        return told


def data_url(image: Image) -> str:
    """The image in an address, as PNG: nothing of it is lost."""
    with io.BytesIO() as file:
        image.save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _content(text: str, addresses: Any) -> str | list[dict[str, Any]]:
    """Text alone as it is; around marks, parts in their order."""
    pieces = text.split(IMAGE_MARK)
    if len(pieces) == 1:
        return text
    parts: list[dict[str, Any]] = []
    for number, piece in enumerate(pieces):
        if number:
            parts.append({"type": "image_url", "image_url": {"url": next(addresses)}})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


Told = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def read_answers(reply: Any, told: Told, *, scored: bool) -> list[Answer]:
    """The answers of a reply to a chat completion, at least one.

    Args:
        told: a choice -> what is to be kept with a scored answer.

    Raises:
        Garbage: a reply of another shape.
    """
    try:
        choices = reply["choices"]
        found = [
            Answer(_text(choice), (), _log_probs(choice), told(choice)) if scored else Answer(_text(choice))
            for choice in choices
        ]
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise Garbage(f"{type(error).__name__}: {error}") from error
    if not found:
        raise Garbage("no choices")
    return found


def _text(choice: Mapping[str, Any]) -> str:
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise TypeError("an answer that is no text")
    return text.strip()


def _log_probs(choice: Mapping[str, Any]) -> tuple[float, ...]:
    given = (choice.get("logprobs") or {}).get("content") or ()
    values = tuple(min(0.0, float(token["logprob"])) for token in given)
    if not all(isfinite(value) for value in values):
        raise ValueError("a log-probability that is no number")
    return values


def load_endpoint(folder: Path) -> EndpointTeacher:
    """A teacher from a folder with ``endpoint.json``; asks nobody until there is something to answer.

    With ``top_logprobs``, a ``tokenizer.json`` beside it is the served model's.

    Raises:
        KdkitError: as :meth:`Settings.read` and :class:`Vocabulary`.
    """
    settings, tokenizer = Settings.read(folder), folder / TOKENIZER
    vocabulary = Vocabulary(tokenizer) if settings.top_logprobs and tokenizer.is_file() else None
    return EndpointTeacher(settings, f"{settings.model} at {settings.endpoint}", vocabulary)
