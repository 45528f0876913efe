"""A model behind an OpenAI-compatible endpoint as a teacher: it answers, and gives no signal for the store."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from PIL.Image import Image

from kdkit.core.contracts import Answer, Decoding, Sample, SignalSpec
from kdkit.core.data.images import decode
from kdkit.core.errors import KdkitError
from kdkit.plugins.answers.boxes.own import AS_IS, OwnBoxes, Size
from kdkit.plugins.loaders.endpoint_requests import Garbage, Requests

FILE = "endpoint.json"
MARK = "<image>"
"""Where an image is in a message's content."""
PROMPT = "chat messages, images as PNG where they are marked 1"
"""Part of the teacher's identity; it changes with what the same sample sends."""


@dataclass(frozen=True)
class Settings:
    """What ``endpoint.json`` says. Another model, question or address is another teacher: its fingerprint changes.

    Attributes:
        endpoint: base address, such as ``http://127.0.0.1:8000/v1``.
        model: the name that the server knows it by.
        key_variable: environment variable that holds the key; empty where the server asks for none.
        question: what is asked about samples without messages.
        system: the system message where a sample has none; empty for no such message.
        timeout: seconds to wait for one answer.
        tries: how often one request is sent, at most.
        parallel: requests at one time.
        boxes: family of :class:`BoxCodec` in whose coordinates the model reads and writes boxes, or ``as-is``.
        min_pixels, max_pixels: between which its processor resizes images, where its boxes are pixels of these; by
            default those of the released Qwen2.5-VL.
    """

    endpoint: str
    model: str
    key_variable: str = ""
    question: str = "Describe this image."
    system: str = ""
    timeout: float = 120.0
    tries: int = 6
    parallel: int = 4
    boxes: str = AS_IS
    min_pixels: int = 4 * 28 * 28
    max_pixels: int = 16384 * 28 * 28

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The folder's ``endpoint.json``.

        Raises:
            KdkitError: no such file, or one that says something else; a key in it.
        """
        path = folder / FILE
        if not path.is_file():
            raise KdkitError(f"no {FILE} in this folder", where=str(folder), fix='{"endpoint": URL, "model": NAME}')
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise KdkitError("not valid JSON", where=str(path), why=str(error)) from error
        kinds = {field.name: field.type for field in fields(cls)}
        if not isinstance(given, dict) or {"endpoint", "model"} - set(given) or set(given) - set(kinds):
            raise KdkitError(
                f"{FILE} is an object with endpoint and model", where=str(path), why=f"it may have {', '.join(kinds)}"
            )
        for name, value in given.items():
            wanted = {"str": (str,), "int": (int,), "float": (int, float)}[str(kinds[name])]
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise KdkitError(f"{name} must be {kinds[name]}", where=str(path))
        made = cls(**given)
        made.check(str(path))
        return made

    def check(self, where: str) -> None:
        """Raises: KdkitError for an address that is none, or that holds a password; counts below 1."""
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise KdkitError("endpoint is not an address", where=where, fix="such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise KdkitError(
                "endpoint holds a password", where=where, fix="name an environment variable with the key: key_variable"
            )
        if not self.model or self.timeout <= 0 or min(self.tries, self.parallel) < 1:
            raise KdkitError("model is empty, timeout not above 0, or tries or parallel below 1", where=where)
        try:
            OwnBoxes(self.boxes)
        except KdkitError as error:
            raise KdkitError(error.what, where=where, fix=error.fix) from error


@dataclass(frozen=True)
class _Question:
    """What is sent about a sample, whose images the model sees in ``sizes``."""

    sample: Sample
    sizes: tuple[Size, ...]
    messages: list[dict[str, Any]]


class EndpointTeacher:
    """Fulfils ``contracts.Answering``; as a ``contracts.SignalSource`` it has no signals."""

    def __init__(self, settings: Settings, where: str) -> None:
        self.settings = settings
        self._where = where

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        return ()

    def identity(self) -> Mapping[str, str]:
        return {"model": self.settings.model, "prompt": PROMPT}

    def prepare(self, image: Image, sample: Sample) -> None:  # noqa: ARG002  # of the contract
        return None

    def compute(self, items: Sequence[Any]) -> Mapping[str, Any]:  # noqa: ARG002  # of the contract
        return {}

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
            raise KdkitError("an endpoint has no beam search", where=self._where, fix="draw samples instead")
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
        return found

    def _key(self) -> str:
        variable = self.settings.key_variable
        if variable and not os.environ.get(variable):
            raise KdkitError(
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
            found += requests.post(body, lambda reply: read_answers(reply, scored=decoding.scored))
        said = OwnBoxes(self.settings.boxes).said
        return [
            replace(answer, text=said(question.sample, answer.text, question.sizes))
            for answer in found[: decoding.answers]
        ]

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
        return body | ({"logprobs": True} if decoding.scored else {})

    def _question(self, image: Image, sample: Sample) -> _Question:
        pictures = [image, *(decode(Path(path)) for path in sample.extra.get("images", ()))]
        try:
            sizes = self._sizes(pictures)
        except KdkitError as error:
            raise KdkitError(f"sample '{sample.id}': {error.what}", where=sample.origin, why=error.why) from error
        return _Question(sample, sizes, self._messages(OwnBoxes(self.settings.boxes).question(sample, sizes), pictures))

    def _sizes(self, pictures: Sequence[Image]) -> tuple[Size, ...]:
        """Of the images as the model sees them, where that matters."""
        if not OwnBoxes(self.settings.boxes).pixels:
            return tuple(picture.size for picture in pictures)
        from kdkit.plugins.students.clinkd.images import ImageSettings  # it needs torch

        images = ImageSettings(self.settings.min_pixels, self.settings.max_pixels)
        return tuple(images.resized(*picture.size) for picture in pictures)

    def _messages(self, sample: Sample, pictures: Sequence[Image]) -> list[dict[str, Any]]:
        given = sample.extra.get("messages") or [{"role": "user", "content": MARK + self.settings.question}]
        marks = sum(str(message["content"]).count(MARK) for message in given)
        if marks != len(pictures):
            raise KdkitError(
                f"{marks} {MARK} marks for {len(pictures)} images of sample '{sample.id}'", where=sample.origin
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
    pieces = text.split(MARK)
    if len(pieces) == 1:
        return text
    parts: list[dict[str, Any]] = []
    for number, piece in enumerate(pieces):
        if number:
            parts.append({"type": "image_url", "image_url": {"url": next(addresses)}})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def read_answers(reply: Any, *, scored: bool) -> list[Answer]:
    """The answers of a reply to a chat completion, at least one.

    Raises:
        Garbage: a reply of another shape.
    """
    try:
        choices = reply["choices"]
        found = [Answer(_text(choice), (), _log_probs(choice) if scored else ()) for choice in choices]
    except (KeyError, TypeError, IndexError, ValueError) as error:
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

    Raises:
        KdkitError: as :meth:`Settings.read`.
    """
    settings = Settings.read(folder)
    return EndpointTeacher(settings, f"{settings.model} at {settings.endpoint}")
