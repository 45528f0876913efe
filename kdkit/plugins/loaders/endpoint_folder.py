"""Makes the teacher that a folder with ``endpoint.json`` describes."""

from __future__ import annotations

from pathlib import Path

from kdkit.plugins.loaders.endpoint import EndpointTeacher
from kdkit.plugins.loaders.endpoint_logprobs import Vocabulary
from kdkit.plugins.loaders.endpoint_prompt import PromptTokens
from kdkit.plugins.loaders.endpoint_scoring import ScoringEndpoint
from kdkit.plugins.loaders.endpoint_settings import Settings


def load_endpoint(folder: Path) -> EndpointTeacher:
    """A teacher from a folder with ``endpoint.json``; it sends no request until it has to answer or to score.

    With ``top_logprobs``, a ``tokenizer.json`` in the folder is the served model's; ``prompt_logprobs`` need it.

    Raises:
        KdkitError: as :meth:`Settings.read`, :class:`Vocabulary` and :class:`PromptTokens`.
    """
    settings, tokenizer = Settings.read(folder), folder / "tokenizer.json"
    where = f"{settings.model} at {settings.endpoint}"
    if settings.prompt_logprobs:
        tokens = PromptTokens(tokenizer, end=settings.end_token, image=settings.image_token)
        return ScoringEndpoint(settings, where, tokens)
    vocabulary = Vocabulary(tokenizer) if settings.top_logprobs and tokenizer.is_file() else None
    return EndpointTeacher(settings, where, vocabulary)
