"""Generated answers: greedy, beam search or sampling, batched, with a cache, on stock ``generate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Answer, Decoding
from kdkit.plugins.students.clinkd.prepare import Preparation, Prompt, padded
from kdkit.plugins.students.clinkd.tokens import PAD


def generate(
    network: Any, preparation: Preparation, prompts: Sequence[Prompt], decoding: Decoding
) -> list[list[Answer]]:
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
            numbers = order[start : start + decoding.batch_size]
            batch = Padded.of(network, preparation, [prompts[number] for number in numbers])
            found |= zip(numbers, _answers(network, preparation, batch, decoding), strict=True)
    return [found[number] for number in range(len(prompts))]


@dataclass(frozen=True)
class Padded:
    """B prompts, left-padded to S tokens: ``embeddings`` (B, S, H), ``mask`` (B, S), ``positions`` (3, B, S)."""

    embeddings: Tensor
    mask: Tensor
    positions: Tensor

    @classmethod
    def of(cls, network: Any, preparation: Preparation, prompts: Sequence[Prompt]) -> Padded:
        """Pad prompts and embed their images once."""
        device, size = network.device, max(len(prompt.ids) for prompt in prompts)
        pad = preparation.tokens.id(PAD)
        ids = torch.stack([padded(prompt.ids, size, pad, left=True) for prompt in prompts]).to(device)
        mask = torch.stack([padded(torch.ones_like(p.ids), size, left=True) for p in prompts]).to(device)
        positions = torch.stack([padded(p.positions[:, :-1], size, left=True) for p in prompts], dim=1).to(device)
        embeddings = network.get_input_embeddings()(ids)
        patches, grids = (torch.cat([getattr(p, name) for p in prompts]).to(device) for name in ("patches", "grids"))
        pixels = preparation.images.normalized(patches).to(network.dtype)
        seen = network.model.visual(pixels, grid_thw=grids)
        seen = getattr(seen, "pooler_output", seen)  # transformers before 5.3 gives the merged tokens themselves
        places = (ids == network.config.image_token_id)[..., None]
        return cls(embeddings.masked_scatter(places, seen.to(embeddings.dtype)), mask, positions)

    def repeated(self, times: int) -> Padded:
        """Every row ``times`` times, one after the other."""
        return Padded(
            self.embeddings.repeat_interleave(times, 0),
            self.mask.repeat_interleave(times, 0),
            self.positions.repeat_interleave(times, 1),
        )


def _answers(network: Any, preparation: Preparation, batch: Padded, decoding: Decoding) -> list[list[Answer]]:
    tokens, count = preparation.tokens, decoding.answers
    ids: Tensor = network.generate(
        inputs_embeds=batch.embeddings,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        generation_config=_generation_config(decoding, tokens.ends, tokens.id(PAD)),
    )
    cut: list[list[int]] = []
    for row in ids.tolist():
        stop = next((place + 1 for place, token in enumerate(row) if token in tokens.ends), len(row))
        cut.append(row[:stop])
    scores: list[tuple[float, ...]] = [()] * len(cut)
    if decoding.scored:
        scores = log_probabilities(network, batch.repeated(count), cut, tokens.id(PAD))
    made = [Answer(tokens.decode(row), tuple(row), score) for row, score in zip(cut, scores, strict=True)]
    return [made[start : start + count] for start in range(0, len(made), count)]


def _generation_config(decoding: Decoding, ends: Sequence[int], pad: int) -> Any:
    """Sets all fields, since the folder's own config (Qwen's) samples and penalizes repetition."""
    from transformers import GenerationConfig

    drawn = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0} if decoding.samples else {}
    return GenerationConfig(
        max_new_tokens=decoding.max_new,
        do_sample=decoding.samples > 0,
        num_beams=decoding.beams,
        num_return_sequences=decoding.answers,
        repetition_penalty=1.0,
        eos_token_id=list(ends),
        pad_token_id=pad,
        **drawn,
    )


def log_probabilities(
    network: Any, batch: Padded, answers: Sequence[Sequence[int]], pad: int
) -> list[tuple[float, ...]]:
    """Log probability of each token of ``answers`` (one per row of ``batch``); one pass, no cache."""
    size, device = max(len(answer) for answer in answers), batch.mask.device
    ids = torch.stack([padded(torch.tensor(answer), size, pad) for answer in answers]).to(device)
    known = torch.stack([padded(torch.ones(len(answer), dtype=torch.int64), size) for answer in answers]).to(device)
    after = batch.positions[..., -1:] + torch.arange(1, size + 1, device=device).to(batch.positions.dtype)
    hidden = network.model(
        inputs_embeds=torch.cat([batch.embeddings, network.get_input_embeddings()(ids)], dim=1),
        attention_mask=torch.cat([batch.mask, known], dim=1),
        position_ids=torch.cat([batch.positions, after], dim=-1),
        use_cache=False,
    ).last_hidden_state[:, -size - 1 : -1]
    out = []
    for states, answer in zip(hidden, answers, strict=True):  # one answer's logits at a time
        log_p = network.lm_head(states[: len(answer)]).float().log_softmax(-1)
        out.append(tuple(log_p.gather(1, torch.tensor(answer, device=device)[:, None])[:, 0].tolist()))
    return out
