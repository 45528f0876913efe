"""A tiny model behind the part of vLLM's chat protocol that scores prompts, on the loopback interface.

Its numbers are the model's own, so they can be compared with a local extraction. What it does by default is what vLLM
does: it refuses more alternatives than ``--max-logprobs``, adds a generation prompt unless told otherwise, and returns
token ids only when asked. It is written from vLLM's protocol files; no vLLM runs here.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from kdkit.core.contracts import IMAGE_MARK, Sample
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from kdkit.plugins.students.clinkd.tokens import END
from tests.loopback import serving

Reply = dict[str, Any]


@dataclass
class LocalVllm:
    """The running server.

    Attributes:
        model: computes the replies; another one may take its place at any time.
        name: of the model, in replies.
        answer: to every question.
        max_logprobs: as ``--max-logprobs``.
        change: is applied to each reply.
        before: is called with the number of each request, before its reply.
        faults: statuses of the next replies.
        requests: received bodies; ``keys``: their ``Authorization`` headers.
    """

    model: ClinkdStudent
    name: str = "big"
    answer: str = "the lung"
    max_logprobs: int = 20
    change: Callable[[Reply], Reply] = lambda reply: reply
    before: Callable[[int], object] = lambda _: None
    faults: list[int] = field(default_factory=list)
    requests: list[Mapping[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""
    lock: Any = field(default_factory=threading.Lock)

    def reply(self, body: Mapping[str, Any]) -> tuple[int, Reply]:
        most = body.get("prompt_logprobs")
        if most is not None and most > self.max_logprobs:
            text = f"Requested prompt logprobs of {most}, which is greater than max allowed: {self.max_logprobs}"
            return 400, {"error": {"message": text, "type": "BadRequestError", "code": 400}}
        if most is None:
            message = {"role": "assistant", "content": self.answer}
            return 200, {"model": self.name, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        ids, log_p = self._prompt(body)
        message = {"role": "assistant", "content": "x"}
        found: Reply = {
            "object": "chat.completion",
            "model": self.name,
            "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
            "prompt_token_ids": ids if body.get("return_token_ids") else None,
            "prompt_logprobs": [_entries(i, ids, log_p, most) for i in range(len(ids))],
        }
        return 200, self.change(found)

    def _prompt(self, body: Mapping[str, Any]) -> tuple[list[int], Tensor]:
        """Tokens (S,) of the prompt by Qwen's template, and (S, V): what is likely at each place but the first."""
        messages, images = _read(body)
        *before, last = messages
        tokens = self.model.preparation.tokens
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{number}.png" for number in range(1, len(images))]
            for file, image in zip(files, images[1:], strict=True):
                image.save(file)
            sample = Sample("s", Path("x.png"), last["content"], "d", extra={"messages": before, "images": files})
            inputs = {name: x[None] for name, x in self.model.prepare(images[0], sample).items()}
        size = int(inputs["length"])
        with torch.no_grad():
            logits = self.model.base(
                input_ids=inputs["tokens"][:, :size],
                attention_mask=torch.ones(1, size, dtype=torch.long),
                use_cache=False,
                **self.model.preparation.arguments(inputs, size),
            ).logits[0]
        ids = inputs["tokens"][0, :size].tolist()
        assert ids[-1] == tokens.id(END)
        after = "\n<|im_start|>assistant\n" if body.get("add_generation_prompt", True) else "\n"
        more = tokens.encode(after)
        places = torch.cat([logits, logits[-1:].expand(len(more) - 1, -1)])  # those after the answer are not compared
        return ids + more, torch.cat([logits[:1], places]).float().log_softmax(-1)


def _read(body: Mapping[str, Any]) -> tuple[list[dict[str, str]], list[Image.Image]]:
    """Messages with marks, and the images."""
    images: list[Image.Image] = []
    messages = []
    for message in body["messages"]:
        parts = message["content"]
        text = parts if isinstance(parts, str) else ""
        for part in [] if isinstance(parts, str) else parts:
            if part["type"] == "text":
                text += part["text"]
            else:
                content = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                images.append(Image.open(io.BytesIO(content)).convert("RGB"))
                text += IMAGE_MARK
        messages.append({"role": message["role"], "content": text})
    return messages, images


def _entries(place: int, ids: list[int], log_p: Tensor, most: int) -> dict[str, Any] | None:
    """vLLM's row of one place: its token first, then the likeliest ones; None for the first place."""
    if not place:
        return None
    row = log_p[place]
    top = row.topk(most)
    numbers = dict.fromkeys([ids[place], *top.indices.tolist()])
    return {
        str(number): {
            "logprob": max(float(row[number]), -9999.0),
            "rank": int((row > row[number]).sum()) + 1,
            "decoded_token": "?",
        }
        for number in numbers
    }


class _Connection(BaseHTTPRequestHandler):
    served: LocalVllm

    def do_POST(self) -> None:
        served, body = self.served, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with served.lock:
            served.requests.append(body)
            served.keys.append(self.headers["Authorization"])
            served.before(len(served.requests))
            if served.faults:
                status, found = served.faults.pop(0), {"error": {"message": f"key {self.headers['Authorization']}"}}
            elif self.path != "/v1/chat/completions":
                status, found = 404, {}
            else:
                status, found = served.reply(body)
        content = json.dumps(found).encode()
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@contextmanager
def local_vllm(model: ClinkdStudent) -> Iterator[LocalVllm]:
    """Run a server of ``model`` in a thread until the end of the block."""
    served = LocalVllm(model)
    with serving(type("Connection", (_Connection,), {"served": served})) as url:
        served.url = f"{url}/v1"
        yield served
