"""Verdicts of a served model: asked once, kept on disk, and all by one model as far as its replies tell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.journal import Journal, JournalEntry, SampleKey, Value
from kdkit.core.contracts import Served
from kdkit.plugins.answers.judge.prompt import Prompt, read_verdict
from kdkit.plugins.loaders.endpoint_client import ChatClient, InvalidReply
from kdkit.plugins.loaders.endpoint_folder import load_endpoint
from kdkit.plugins.loaders.endpoint_settings import open_client

BLOCK = 64
"""Verdicts between two checks of the model; a block that passes is on the disk."""
CHECK: SampleKey = ("check", 0)
"""Key of the first check beside the verdicts."""


class Case(NamedTuple):
    """One answer to be judged."""

    question: str
    reference: str
    answer: str

    @property
    def key(self) -> SampleKey:
        return hashlib.sha256(json.dumps(self).encode()).hexdigest(), 0


CONTROLS = (
    Case("Which organ is shown?", "the liver", "This is the liver."),
    Case("Which organ is shown?", "the liver", "the left lung"),
)
"""Fixed cases: they begin and end each block, and get the same verdicts each time."""


class JudgeServer:
    """The model that a folder with ``endpoint.json`` describes, with a prompt.

    Args:
        max_new: tokens of a reply.
        journal: file of the verdicts; None keeps them in memory.
    """

    def __init__(self, folder: Path, prompt: Prompt, max_new: int, journal: Path | None) -> None:
        self._teacher = load_endpoint(folder)
        self.settings, self._prompt, self._max_new = self._teacher.settings, prompt, max_new
        named = {name: getattr(self.settings, name) for name in ("model", "revision", "system")}
        self._journal = None
        if journal is not None:
            self._journal = Journal(journal, {**named, "prompt": prompt.digest, "max_new": max_new})
        self._known: dict[SampleKey, Value] = {} if self._journal is None else self._journal.read()

    @property
    def host(self) -> str:
        """Of the endpoint, with its port."""
        return urlsplit(self.settings.endpoint).netloc

    @property
    def named(self) -> str:
        """The server's own name of the model; empty before any reply."""
        return str(self._known.get(CHECK, {}).get("model", ""))

    def judge(self, cases: Sequence[Case]) -> list[bool | None]:
        """Whether each answer is right; None where the reply is no verdict. Equal cases are asked once.

        Raises:
            KdkitError: another model than that of the known verdicts, or one that gives no verdict on the fixed
                cases; a damaged journal; errors of the client.
        """
        new = [case for case in dict.fromkeys(cases) if case.key not in self._known]
        if new:
            self._ask(new)
        return [read_verdict(self._known[case.key]["reply"]) for case in cases]

    def _ask(self, cases: Sequence[Case]) -> None:
        client, count = open_client(self.settings), len(CONTROLS)
        for start in range(0, len(cases), BLOCK):
            part = cases[start : start + BLOCK]
            replies = self._send(client, [*CONTROLS, *part, *CONTROLS])
            if CHECK not in self._known:
                self._require_verdict(replies[:count])
            first = self._known.get(CHECK) or self._facts(replies[:count])
            self._require_same(first, replies)
            found = {case.key: reply for case, reply in zip(part, replies[count:-count], strict=True)}
            self._keep(found if CHECK in self._known else {CHECK: first, **found})
        client.warn_of_retries(f"{self.settings.model} at {self.settings.endpoint}")

    def _facts(self, replies: Sequence[Value]) -> dict[str, Any]:
        """What tells this model from another one, by its replies to the controls."""
        facts = {"model": replies[0]["model"], "controls": [read_verdict(reply["reply"]) for reply in replies]}
        return {**facts, "canary": dict(self._teacher.canary())} if isinstance(self._teacher, Served) else facts

    def _require_verdict(self, replies: Sequence[Value]) -> None:
        """A model that judges none of the fixed cases judges nothing; its replies would stay for good."""
        if all(read_verdict(reply["reply"]) is None for reply in replies):
            raise KdkitError(
                "KD-ANS-700",
                "the judge gives no verdict on cases that anyone can judge",
                where=f"{self.settings.model} at {self.settings.endpoint}",
                why=f"its reply ends with {replies[0]['reply'][-80:]!r}, not with a line VERDICT: ...",
                fix="give it room to finish: --option max_new=2048; or another prompt: --option prompt=FILE; or take "
                "another model. No verdict was kept",
                code=ExitCode.FOUND,
            )

    def _require_same(self, first: Value, replies: Sequence[Value]) -> None:
        """``replies`` begin and end with those to the controls."""
        count = len(CONTROLS)
        if isinstance(self._teacher, Served):
            self._teacher.require_same(first["canary"])
        names = {reply["model"] for reply in replies}
        verdicts = [[read_verdict(reply["reply"]) for reply in some] for some in (replies[:count], replies[-count:])]
        if names == {first["model"]} and all(own == first["controls"] for own in verdicts):
            return
        was = f"{first['model'] or 'no name'}, verdicts on the fixed cases {first['controls']}"
        raise KdkitError(
            "KD-ANS-612",
            "the judge is another model than the one that gave the earlier verdicts",
            where=f"{self.settings.model} at {self.settings.endpoint}",
            why=f"it was {was}, and is {', '.join(sorted(names)) or 'no name'}, {verdicts[-1]}",
            fix="serve the earlier model again, or write another 'revision' into endpoint.json: all answers are then "
            "judged again",
            code=ExitCode.FOUND,
        )

    def _keep(self, found: Mapping[SampleKey, Value]) -> None:
        if self._journal is not None:
            self._journal.append(JournalEntry(key, value) for key, value in found.items())
        self._known |= found

    def _send(self, client: ChatClient, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """``model`` and ``reply`` of each case, in order."""

        async def request(case: Case) -> dict[str, Any]:
            return await client.post(self._body(case), _parse)

        return client.map(request, cases)

    def _body(self, case: Case) -> dict[str, Any]:
        system = [{"role": "system", "content": self.settings.system}] if self.settings.system else []
        messages = [*system, {"role": "user", "content": self._prompt.fill(*case)}]
        return {
            "model": self.settings.model,
            "messages": messages,
            "max_tokens": self._max_new,
            "temperature": 0.0,
        }


def _parse(reply: Any) -> dict[str, Any]:
    try:
        text, model = reply["choices"][0]["message"]["content"], str(reply.get("model") or "")
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InvalidReply(f"{type(error).__name__}: {error}") from error
    if not isinstance(text, str):
        raise InvalidReply("content is not text")
    return {"model": model, "reply": text}
