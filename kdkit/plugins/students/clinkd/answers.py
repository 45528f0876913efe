"""Generated answers: greedy, beam search or sampling, batched, with a cache, on stock ``generate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Answer, Decoding
from kdkit.plugins.students.clinkd.answer_reader import padded
from kdkit.plugins.students.clinkd.batches import Batch, WithImages
from kdkit.plugins.students.clinkd.tokens import Tokens


class Reads(Protocol):
    """What makes batches of prompts."""

    @property
    def tokens(self) -> Tokens: ...

    def batch(self, network: Any, prompts: Sequence[Any]) -> Batch: ...


def generate(network: Any, preparation: Reads, prompts: Sequence[Any], decoding: Decoding) -> list[list[Answer]]:
    """``decoding.answers`` answers per prompt, most likely first (sampled ones in the order of drawing).

    Raises:
        KdkitError: transformers before 5.2: its ``generate`` does not continue given position ids.
    """
    if not hasattr(network, "_prepare_position_ids_for_generation"):
        raise KdkitError(
            "KD-STUD-001",
            "this transformers cannot generate from given positions",
            fix="install transformers 5.2 or later",
        )
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number].ids))
    found: dict[int, list[Answer]] = {}
    devices = [network.device] if network.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(decoding.seed)
        for start in range(0, len(order), decoding.batch_size):
            found |= _numbered(network, preparation, prompts, order[start : start + decoding.batch_size], decoding)
    return [found[number] for number in range(len(prompts))]


def _numbered(
    network: Any, preparation: Reads, prompts: Sequence[Any], numbers: Sequence[int], decoding: Decoding
) -> dict[int, list[Answer]]:
    """Number of a prompt -> its answers; in halves where a GPU has no memory for all at once."""
    part = replace(decoding, seeds=tuple(decoding.seeds[number] for number in numbers if decoding.seeds))
    try:  # the batch has no name here: it would stay on the GPU beside its halves
        found = _answers(network, preparation.tokens, preparation.batch(network, [prompts[n] for n in numbers]), part)
        return dict(zip(numbers, found, strict=True))
    except torch.OutOfMemoryError:
        if len(numbers) == 1:
            raise
    middle = len(numbers) // 2
    halves = [_numbered(network, preparation, prompts, some, decoding) for some in (numbers[:middle], numbers[middle:])]
    return halves[0] | halves[1]


def _answers(network: Any, tokens: Tokens, batch: Batch, decoding: Decoding) -> list[list[Answer]]:
    _require_expansion(network, batch, decoding)
    count, pad, given = decoding.answers, tokens.id(tokens.marks.pad), batch.arguments()
    before = given["input_ids"].shape[1] if "input_ids" in given else 0
    made_ids: Tensor = network.generate(
        **given,
        generation_config=_generation_config(decoding, tokens.ends, pad),
        logits_processor=_seeded(decoding, before),
    )
    ids = made_ids[:, before:]
    cut: list[list[int]] = []
    for row in ids.tolist():
        stop = next((place + 1 for place, token in enumerate(row) if token in tokens.ends), len(row))
        cut.append(row[:stop])
    scores: list[tuple[float, ...]] = [()] * len(cut)
    if decoding.scored:
        scores = log_probabilities(network, batch.repeated(count), cut, pad)
    made = [Answer(tokens.decode(row), tuple(row), score) for row, score in zip(cut, scores, strict=True)]
    return [made[start : start + count] for start in range(0, len(made), count)]


def _require_expansion(network: Any, batch: Batch, decoding: Decoding) -> None:
    """Refuse several answers to prompts of several images where transformers would mix these up."""
    joined = isinstance(batch, WithImages) and batch.joined
    if joined and decoding.answers > 1 and not hasattr(network, "_expand_multimodal_outputs"):
        raise KdkitError(
            "KD-STUD-437",
            "this transformers mixes up the images of a sample in beam search and in several samples",
            why=f"generate of {type(network).__name__} repeats images one by one",
            fix="update transformers (5.24 does it right), decode greedily, or give samples one image",
        )


def _seeded(decoding: Decoding, before: int) -> list[Any] | None:
    """What draws the tokens if each row has a seed; ``before``: tokens of the prompt among the ids."""
    if not decoding.seeds:
        return None
    from kdkit.plugins.students.clinkd.sampling import SeededSampling

    limits = {"temperature": decoding.temperature, "top_p": decoding.top_p}
    return [SeededSampling(decoding.seeds, most=decoding.max_new, before=before, **limits)]


def _generation_config(decoding: Decoding, ends: Sequence[int], pad: int) -> Any:
    """Sets all fields, since the folder's own config (Qwen's) samples and penalizes repetition."""
    from transformers import GenerationConfig

    samples = decoding.samples > 0 and not decoding.seeds
    drawn = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0} if samples else {}
    return GenerationConfig(
        max_new_tokens=decoding.max_new,
        do_sample=samples,
        num_beams=decoding.beams,
        num_return_sequences=decoding.answers,
        repetition_penalty=1.0,
        eos_token_id=list(ends),
        pad_token_id=pad,
        **drawn,
    )


def log_probabilities(
    network: Any, batch: Batch, answers: Sequence[Sequence[int]], pad: int
) -> list[tuple[float, ...]]:
    """Log probability of each token of ``answers`` (one per row of ``batch``); one pass, no cache."""
    size, device = max(len(answer) for answer in answers), batch.mask.device
    ids = torch.stack([padded(torch.tensor(answer), size, pad) for answer in answers]).to(device)
    known = torch.stack([padded(torch.ones(len(answer), dtype=torch.int64), size) for answer in answers]).to(device)
    given = batch.continued(network, ids, known)
    hidden = network.model(**given, use_cache=False).last_hidden_state[:, -size - 1 : -1]
    head = network.get_output_embeddings()
    out = []
    for states, answer in zip(hidden, answers, strict=True):  # one answer's logits at a time
        log_p = head(states[: len(answer)]).float().log_softmax(-1)
        out.append(tuple(log_p.gather(1, torch.tensor(answer, device=device)[:, None])[:, 0].tolist()))
    return out
