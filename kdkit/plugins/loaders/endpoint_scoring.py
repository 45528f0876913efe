"""A served model that scores given answers: the signals of a local one, through vLLM's ``prompt_logprobs``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import ANY_ANSWERS, BOX_FAMILY, LOGPROBS, Sample, SignalSpec
from kdkit.core.data.images import open_further_images
from kdkit.plugins.loaders.endpoint import EndpointTeacher
from kdkit.plugins.loaders.endpoint_canary import Canary, canary_image, canary_sample
from kdkit.plugins.loaders.endpoint_client import ChatClient
from kdkit.plugins.loaders.endpoint_prompt import AnswerScores, PromptTokens, UnusableReply, parse_prompt_logprobs
from kdkit.plugins.loaders.endpoint_settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

_Reply = tuple[Mapping[str, Any], AnswerScores]


@dataclass(frozen=True)
class _Scored:
    """A request about one sample, and the tokens of its answer."""

    id: str
    body: dict[str, Any]
    answer: tuple[int, ...]
    images: int


class ScoringEndpoint(EndpointTeacher):
    """A ``contracts.SignalSource`` for any answer; fulfills ``contracts.Served`` and ``contracts.ChecksAnswers`` too.

    Each :meth:`compute` ends with the canary, a fixed request. If the server then answers it otherwise than at the
    first one of this process, the rows are not returned.

    Args:
        tokens: of the served model.
    """

    def __init__(self, settings: Settings, where: str, tokens: PromptTokens) -> None:
        super().__init__(settings, where)
        self._tokens = tokens
        self._canary: Canary | None = None

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        from kdkit.core.contracts.token_signals import token_specs  # imports torch

        return token_specs(self.settings.max_answer, self.settings.prompt_logprobs)

    def identity(self) -> Mapping[str, str]:
        return {**super().identity(), LOGPROBS: ANY_ANSWERS, "tokenizer": self._tokens.digest}

    def check_answer(self, sample: Sample) -> None:
        """``contracts.ChecksAnswers``."""
        if not self._needs_sizes(sample):
            self._answer_ids(sample)

    def answer_tokens(self, sample: Sample) -> list[int] | None:
        """``token_signals.SplitsAnswers``."""
        if self._needs_sizes(sample):
            return None
        try:
            return list(self._answer_ids(sample))
        except KdkitError:
            return None

    def _needs_sizes(self, sample: Sample) -> bool:
        return self._boxes.pixels and bool(sample.extra.get(BOX_FAMILY))

    def prepare(self, image: Image, sample: Sample) -> _Scored:
        """The request about a sample; nothing is sent yet."""
        scored = self._request(image, sample)
        self._require_fitting(sample, scored.answer)
        return scored

    def _request(self, image: Image, sample: Sample) -> _Scored:
        request = self._make_request(image, sample)
        text = self._boxes.answer(sample, request.sizes)
        messages = [*request.messages, {"role": "assistant", "content": text}]
        body = {
            "model": self.settings.model,
            "messages": messages,
            "max_tokens": 1,  # the protocol's least
            "temperature": 1.0,
            "prompt_logprobs": self.settings.prompt_logprobs,
            "return_token_ids": True,
            "add_generation_prompt": False,
        }
        images = 1 + len(open_further_images(sample))
        return _Scored(sample.id, body, tuple(self._tokens.encode_answer(text)), images)

    def compute(self, items: Sequence[_Scored]) -> Mapping[str, Tensor]:
        """B items -> the signals, (B, *shape), in as many requests, and the canary.

        Raises:
            KdkitError: a reply that cannot give them; another model than before; as :meth:`ChatClient.post`.
        """
        import torch

        before = self._canary or self._first_canary()
        rows = [_signals(scores, self.settings) for _, scores in self._send(items)]
        self._require(before, self._ask_canary(0), "since this command began")
        return {spec.name: torch.stack([row[spec.name] for row in rows]) for spec in self.signals}

    def canary(self) -> Mapping[str, Any]:
        """``contracts.Served``."""
        return (self._canary or self._first_canary()).to_json()

    def require_same(self, canary: Mapping[str, Any]) -> None:
        """``contracts.Served``."""
        try:
            before = Canary.from_json(canary)
        except (KeyError, TypeError, ValueError) as error:
            raise KdkitError(
                "KD-LOAD-567",
                "the stored reply to the fixed request is damaged",
                where=self._where,
                why=f"{type(error).__name__}: {error}",
                fix="delete canary.json beside the teacher's features if the server has the same model as before",
                code=ExitCode.FOUND,
            ) from error
        self._require(before, self._ask_canary(0), "since its features were computed")

    def _first_canary(self) -> Canary:
        """The first one of this process, after a check that another image gives other scores."""
        first, other = self._ask_canary(0), self._ask_canary(1)
        if first.scores == other.scores:
            raise KdkitError(
                "KD-LOAD-562",
                "the endpoint ignores images",
                where=self._where,
                why="two different images give exactly the same log-probabilities",
                fix="serve a model that reads images, with its own chat template",
                code=ExitCode.FOUND,
            )
        self._canary = first
        return first

    def _ask_canary(self, image: int) -> Canary:
        ((reply, scores),) = self._send([self._request(canary_image(image), canary_sample())])
        return Canary.of(reply, scores)

    def _require(self, before: Canary, now: Canary, since: str) -> None:
        if difference := before.difference(now):
            raise KdkitError(
                "KD-LOAD-563",
                f"the endpoint's model changed {since}",
                where=self._where,
                why=difference,
                fix="serve the earlier model again, or write another 'revision' into endpoint.json and lock the "
                "teacher: its features are then computed again",
                code=ExitCode.FOUND,
            )

    def _send(self, items: Sequence[_Scored]) -> list[_Reply]:
        """Replies and what they say of the answers, in order."""
        client = self._client()

        async def request(item: _Scored) -> _Reply:
            def parse(reply: Any) -> _Reply:
                k, image = self.settings.prompt_logprobs, self._tokens.image
                return reply, parse_prompt_logprobs(reply, item.answer, k, image=image, images=item.images)

            return await self._post(client, item, parse)

        found = client.map(request, items)
        client.warn_of_retries(self._where)
        return found

    async def _post(self, client: ChatClient, item: _Scored, parse: Callable[[Any], _Reply]) -> _Reply:
        try:
            return await client.post(item.body, parse)
        except UnusableReply as error:
            raise KdkitError(
                "KD-LOAD-564",
                f"the endpoint cannot score the answer of sample '{item.id}': {error.what}",
                where=self._where,
                fix=error.fix,
                code=ExitCode.FOUND,
            ) from error
        except KdkitError as error:
            if error.id != "KD-LOAD-006" or "logprobs" not in error.why:
                raise
            raise KdkitError(
                "KD-LOAD-565",
                f"the endpoint refuses {self.settings.prompt_logprobs} prompt log-probabilities",
                where=self._where,
                why=error.why,
                fix=f"start the server with --max-logprobs {self.settings.prompt_logprobs}, or lower "
                "'prompt_logprobs' in endpoint.json",
                code=error.code,
            ) from error

    def _answer_ids(self, sample: Sample) -> tuple[int, ...]:
        ids = tuple(self._tokens.encode_answer(self._boxes.answer(sample, ())))
        self._require_fitting(sample, ids)
        return ids

    def _require_fitting(self, sample: Sample, ids: Sequence[int]) -> None:
        most, long = self.settings.max_answer, len(ids) > self.settings.max_answer
        if long or self._tokens.end in ids[:-1] or self._tokens.image in ids:
            what = f"{len(ids)} tokens, the teacher takes {most}" if long else "a token of the chat template"
            raise KdkitError(
                "KD-LOAD-566",
                f"sample '{sample.id}': the answer has {what}",
                where=sample.origin,
                fix="raise 'max_answer' in endpoint.json" if long else "remove it from the text",
            )


def _signals(scores: AnswerScores, settings: Settings) -> dict[str, Tensor]:
    """One row of each signal."""
    import torch

    from kdkit.core.contracts.tail_mass import tail_of
    from kdkit.core.contracts.token_signals import NO_TOKEN, token_specs

    made = {
        spec.name: torch.full(spec.shape, NO_TOKEN if spec.dtype == "int32" else 0, dtype=getattr(torch, spec.dtype))
        for spec in token_specs(settings.max_answer, settings.prompt_logprobs)
    }
    count, top = len(scores.ids), torch.tensor(scores.top, dtype=torch.float64)
    made["tokens"][:count], made["topk_ids"][:count] = torch.tensor(scores.ids), torch.tensor(scores.top_ids)
    made["topk"][:count], made["tail"][:count] = top, tail_of(top)
    return made
