"""What ``endpoint.json`` says about a served model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import AS_IS
from kdkit.plugins.answers.boxes.own import OwnBoxes
from kdkit.plugins.loaders.endpoint_tokens import MOST

FILE = "endpoint.json"


@dataclass(frozen=True)
class Settings:
    """What ``endpoint.json`` says: what is asked (:meth:`identity`); whom, and how patiently, makes no other teacher.

    Attributes:
        endpoint: base address, such as ``http://127.0.0.1:8000/v1``.
        model: the name that the server knows it by.
        revision: any word; another one is another teacher, for a server that loads other weights under the same name.
        key_variable: environment variable that holds the key; empty where the server asks for none.
        question: what is asked about samples without messages.
        system: the system message where a sample has none; empty for no such message.
        timeout: seconds to wait for one answer.
        tries: how often one request is sent, at most.
        parallel: requests at one time.
        boxes: family of :class:`BoxCodec` in whose coordinates the model reads and writes boxes, or ``as-is``.
        top_logprobs: alternatives that are asked for with each token of a scored answer, up to 20; 0 for none.
        max_answer: tokens of an answer whose alternatives are stored, at most.
        min_pixels, max_pixels: between which its processor resizes images, where its boxes are pixels of these; by
            default those of the released Qwen2.5-VL.
    """

    endpoint: str
    model: str
    revision: str = ""
    key_variable: str = ""
    question: str = "Describe this image."
    system: str = ""
    timeout: float = 120.0
    tries: int = 6
    parallel: int = 4
    boxes: str = AS_IS
    top_logprobs: int = 0
    max_answer: int = 256
    min_pixels: int = 4 * 28 * 28
    max_pixels: int = 16384 * 28 * 28

    def identity(self, unit: int) -> dict[str, str]:
        """What decides the answers and what is stored of them; no text or address of the user's, for locks and features
        are published.

        Args:
            unit: pixels along the side of a token, where boxes are pixels.
        """
        told = {
            "model": self.model,
            "question": _digest(self.question),
            "system": _digest(self.system),
            "boxes": OwnBoxes(self.boxes).told(self.min_pixels, self.max_pixels, unit),
        }
        if self.revision:
            told["revision"] = self.revision
        if self.top_logprobs:
            told["stored"] = f"{self.top_logprobs} alternatives of {self.max_answer} tokens"
        return told

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The folder's ``endpoint.json``.

        Raises:
            KdkitError: no such file, or one that says something else; a key in it.
        """
        path = folder / FILE
        if not path.is_file():
            raise KdkitError(
                "KD-LOAD-007", f"no {FILE} in this folder", where=str(folder), fix='{"endpoint": URL, "model": NAME}'
            )
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise KdkitError("KD-LOAD-008", "not valid JSON", where=str(path), why=str(error)) from error
        kinds = {field.name: field.type for field in fields(cls)}
        if not isinstance(given, dict) or {"endpoint", "model"} - set(given):
            raise KdkitError(
                "KD-LOAD-009",
                f"{FILE} is an object with endpoint and model",
                where=str(path),
                why=f"it may have {', '.join(kinds)}",
            )
        for name in given:
            if name not in kinds:
                raise KdkitError(
                    "KD-LOAD-010", f"unknown key '{name}'", where=str(path), fix=did_you_mean(name, tuple(kinds))
                )
        for name, value in given.items():
            wanted = {"str": (str,), "int": (int,), "float": (int, float)}[str(kinds[name])]
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise KdkitError("KD-LOAD-011", f"{name} must be {kinds[name]}", where=str(path))
        made = cls(**given)
        made.check(str(path))
        return made

    def check(self, where: str) -> None:
        """Raises: KdkitError for an address that is none, or that holds a password; counts below 1."""
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise KdkitError(
                "KD-LOAD-012", "endpoint is not an address", where=where, fix="such as http://127.0.0.1:8000/v1"
            )
        if parts.username or parts.password:
            raise KdkitError(
                "KD-LOAD-013",
                "endpoint holds a password",
                where=where,
                fix="name an environment variable with the key: key_variable",
            )
        if not self.model or self.timeout <= 0 or min(self.tries, self.parallel) < 1:
            raise KdkitError(
                "KD-LOAD-014", "model is empty, timeout not above 0, or tries or parallel below 1", where=where
            )
        if not 0 <= self.top_logprobs <= MOST or self.max_answer < 1:
            raise KdkitError("KD-LOAD-015", f"top_logprobs is not in 0 to {MOST}, or max_answer below 1", where=where)
        try:
            OwnBoxes(self.boxes)
        except KdkitError as error:
            raise KdkitError("KD-LOAD-016", error.what, where=where, fix=error.fix) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
