"""Answers drawn by numbers of each sample's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kdkit.core.contracts import OWN_TOKENS, Decoding, OwnTokens, Sample
from kdkit.plugins.students.clinkd.sampling import draw
from kdkit.plugins.students.clinkd.tokens import END, IMAGE, PAD
from tests.errors import raises_error
from tests.plugins.students.clinkd.stock import samples, student_of
from tests.plugins.students.clinkd.tiny import PICTURES, make, sample, stacked

SEEDS = (11, 12, 13)
MOST = 6


def test_draws_follow_the_distribution() -> None:
    logits = torch.randn(6, generator=torch.Generator().manual_seed(0))
    numbers = torch.from_numpy(np.random.default_rng(0).random((20_000, 1)))
    for temperature, top_p in ((1.0, 1.0), (0.5, 1.0), (2.0, 0.6)):
        p = (logits.double() / temperature).softmax(-1)
        order = p.argsort(descending=True)
        kept = order[: int((p[order].cumsum(0) < top_p).sum()) + 1] if top_p < 1 else order
        wanted = torch.zeros_like(p).index_copy_(0, kept, p[kept] / p[kept].sum())
        found = draw(logits.expand(len(numbers), -1), numbers, temperature=temperature, top_p=top_p)
        counts = torch.bincount(found[:, 0], minlength=6) / len(numbers)
        assert torch.allclose(counts.double(), wanted, atol=0.012)
        assert not counts[wanted == 0].any()


def test_no_impossible_token_is_drawn_at_the_ends() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]]).expand(2, -1)
    assert draw(logits, torch.tensor([[0.0], [1 - 1e-12]], dtype=torch.float64)).tolist() == [[1], [3]]


@pytest.mark.parametrize("family", ["qwen2_vl", "gemma3", "llava"])
def test_answers_equal_those_drawn_token_by_token_without_a_cache(family: str) -> None:
    """``generate`` takes prompts of these families as embeddings with positions, as ids, and as embeddings."""
    student, asked = make() if family == "qwen2_vl" else student_of(family), samples()
    found = [a[0].ids for a in student.answer(PICTURES, asked, decoding(SEEDS))]
    alone = [student.answer([PICTURES[n]], [asked[n]], decoding(SEEDS[n : n + 1]))[0][0].ids for n in range(2)]
    assert found[:2] == alone
    assert found == [reference(student, one, n) for n, one in enumerate(asked)]
    assert len(set(found)) == 3


def decoding(seeds: tuple[int, ...]) -> Decoding:
    return Decoding(max_new=MOST, samples=1, temperature=1.5, seeds=seeds)


def reference(student: Any, asked: Sample, number: int) -> tuple[int, ...]:
    """Each token from a whole forward pass over the answer so far."""
    numbers, ids = np.random.default_rng(SEEDS[number]).random(MOST), list[int]()
    tokens = student.preparation.tokens
    for place in range(MOST):
        own = OwnTokens(tokens.digest(), (*ids, tokens.id(tokens.marks.end)))
        row = student.prepare(PICTURES[number], replace(asked, extra={**asked.extra, OWN_TOKENS: own}))
        with torch.no_grad():
            outputs = student({name: x[None] for name, x in row.items()})
        logits = (outputs["answer_hidden"][0, place] @ outputs["output_embedding"].T).detach().double()
        cumulative = (logits / 1.5).softmax(-1).cumsum(-1).numpy()
        ids.append(int((cumulative > numbers[place] * cumulative[-1]).argmax()))
        if ids[-1] in tokens.ends:
            break
    return tuple(ids)


def test_own_tokens_are_prepared_as_they_were_written() -> None:
    student = make()
    tokens, end = student.preparation.tokens, student.preparation.tokens.id(END)
    split = (*tokens.encode("lu"), *tokens.encode("ng"))
    assert list(split) != tokens.encode("lung")

    def prepared(*ids: int, digest: str = tokens.digest()) -> list[int]:
        chosen = sample("lung", own_tokens=OwnTokens(digest, ids))
        return [n for n in stacked(student, [chosen])["answer_ids"][0].tolist() if n >= 0]

    assert prepared(*split, end) == [*split, end]
    assert prepared(*split) == list(split)  # cut: no end token is taught
    assert prepared(*split, digest="another") == [*tokens.encode("lung"), end]
    assert prepared(*split, tokens.id(PAD), *split) == [*split, tokens.id(PAD)]
    assert prepared(*split, tokens.id(IMAGE), *split) == [*split, end]
    assert prepared() == [end]
    assert len(prepared(*(split * 20))) == student.settings.max_answer
    text = sample("lung", own_tokens={"tokenizer": tokens.digest(), "ids": list(split)})
    row = stacked(student, [text])["answer_ids"][0].tolist()
    assert [n for n in row if n >= 0] == [*tokens.encode("lung"), end], "data cannot name tokens"


def test_own_tokens_are_cut_to_the_context() -> None:
    student = make(max_tokens=30)
    tokens = student.preparation.tokens
    own = OwnTokens(tokens.digest(), tuple(tokens.encode("x" * 20)))
    row = student.prepare(PICTURES[2], sample("lung", "<image>Where?", own_tokens=own))
    assert int(row["length"]) == 30
    assert int((row["answer_ids"] >= 0).sum()) == 30 - int(row["start"])


def test_seeds_are_for_one_answer_each() -> None:
    with raises_error("KD-API-440"):
        Decoding(samples=2, seeds=(1,))
    with raises_error("KD-API-440"):
        Decoding(seeds=(1,))
