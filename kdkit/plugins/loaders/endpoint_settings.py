"""The file ``endpoint.json`` of a served model, and a client for it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import AS_IS, MAX_ANSWER
from kdkit.plugins.answers.boxes.own import OwnBoxes
from kdkit.plugins.loaders.endpoint_client import ChatClient
from kdkit.plugins.loaders.endpoint_logprobs import END, MAX_ALTERNATIVES

FILE = "endpoint.json"
IMAGE = "<|image_pad|>"


def _check_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("not an address such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise ValueError("holds a password; name an environment variable with the key in 'key_variable'")
    return value


def _check_boxes(value: str) -> str:
    try:
        OwnBoxes(value)
    except KdkitError as error:
        raise ValueError(f"{error.what}; {error.fix}") from error
    return value


class Settings(BaseModel):
    """Content of ``endpoint.json``. Fields of :meth:`identity` change the fingerprint; address and limits do not.

    Attributes:
        endpoint: base address, such as ``http://127.0.0.1:8000/v1``.
        model: name of the model at the server.
        revision: any word; change it when the server loads other weights under the same name.
        key_variable: environment variable that holds the key; empty for none.
        question: prompt for samples without messages.
        system: system message of samples that have none; empty for no system message.
        timeout: seconds to wait for one answer.
        tries: per request, at most.
        parallel: requests in flight, at most.
        boxes: family of :class:`BoxCodec` in whose coordinates the model reads and writes boxes, or ``as-is``.
        top_logprobs: alternatives per token of a scored answer; 0 for none.
        max_answer: tokens of an answer whose alternatives are stored, at most.
        prompt_logprobs: alternatives per token of a given answer, through vLLM; 0 for none.
        end_token, image_token: of the served model, for ``prompt_logprobs``.
        min_pixels, max_pixels: image sizes of the model's processor, used if its boxes are in pixels; the defaults are
            those of the released Qwen2.5-VL.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    endpoint: Annotated[str, AfterValidator(_check_address)]
    model: str = Field(min_length=1)
    revision: str = ""
    key_variable: str = ""
    question: str = "Describe this image."
    system: str = ""
    timeout: float = Field(120.0, gt=0)
    tries: int = Field(6, ge=1)
    parallel: int = Field(4, ge=1)
    boxes: Annotated[str, AfterValidator(_check_boxes)] = AS_IS
    top_logprobs: int = Field(0, ge=0, le=MAX_ALTERNATIVES)
    prompt_logprobs: int = Field(0, ge=0)
    end_token: str = END
    image_token: str = IMAGE
    max_answer: int = Field(MAX_ANSWER, ge=1)
    min_pixels: int = 4 * 28 * 28
    max_pixels: int = 16384 * 28 * 28

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        if self.top_logprobs and self.prompt_logprobs:
            raise ValueError("'top_logprobs' and 'prompt_logprobs' exclude each other; the latter covers all answers")
        return self

    def identity(self, unit: int) -> dict[str, str]:
        """Everything that changes an answer or what is stored of it.

        Locks and features are published, so it holds no text or address of the user.

        Args:
            unit: side of a token in pixels, for boxes in pixels.
        """
        identity = {
            "model": self.model,
            "question": _digest(self.question),
            "system": _digest(self.system),
            "boxes": OwnBoxes(self.boxes).identity(self.min_pixels, self.max_pixels, unit),
        }
        if self.revision:
            identity["revision"] = self.revision
        if self.top_logprobs:
            identity["stored"] = f"{self.top_logprobs} alternatives of {self.max_answer} tokens, mass of others 2"
        if self.prompt_logprobs:
            end = "" if self.end_token == END else f", ended by {self.end_token}"
            identity["stored"] = f"{self.prompt_logprobs} likeliest at {self.max_answer} tokens of given answers{end}"
        return identity

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The folder's ``endpoint.json``.

        Raises:
            KdkitError: no such file, or invalid content.
        """
        path = folder / FILE
        if not path.is_file():
            raise KdkitError(
                "KD-LOAD-007",
                f"no {FILE} in this folder",
                where=str(folder),
                fix=f'write {FILE} with {{"endpoint": URL, "model": NAME}}',
            )
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            unknown = first["type"] == "extra_forbidden"
            raise KdkitError(
                "KD-LOAD-008",
                f"unknown key '{key}'" if unknown else f"{key or FILE}: {first['msg']}",
                where=str(path),
                fix=did_you_mean(key, tuple(cls.model_fields)) if unknown else f"correct {FILE}",
            ) from None


def open_client(settings: Settings) -> ChatClient:
    """A client of the endpoint; it sends nothing yet.

    Raises:
        KdkitError: the environment variable of the key is not set.
    """
    variable = settings.key_variable
    if variable and not os.environ.get(variable):
        raise KdkitError(
            "KD-LOAD-002",
            f"the environment variable {variable} is not set",
            where=f"{settings.model} at {settings.endpoint}",
            why="'key_variable' in endpoint.json names it for the endpoint's key",
            fix=f"export {variable}=...",
        )
    return ChatClient(
        settings.endpoint.rstrip("/") + "/chat/completions",
        key=os.environ[variable] if variable else "",
        timeout=settings.timeout,
        tries=settings.tries,
        parallel=settings.parallel,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
