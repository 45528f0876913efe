"""The mass of unnamed tokens at any temperature, against whole distributions in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kdkit.core.contracts.tail_mass import (
    NEVER,
    NOT_KNOWN,
    SUM_ERROR,
    TAIL,
    TEMPERATURES,
    has_temperature,
    tail_mass,
    tail_of,
)
from kdkit.core.contracts.token_signals import compress
from kdkit.plugins.losses.tokens.divergence import forward_kl, reverse_kl
from kdkit.plugins.losses.tokens.signals import at_temperature, student_classes

V, K = 4000, 16
BETWEEN = (0.55, 0.7, 0.9, 1.25, 1.5, 1.8, 2.5, 3.0, 5.0, 8.0, 12.0)
ROUNDING = 2.0**-11
"""Relative error of float16."""


def shapes() -> Tensor:
    """(11, V) logits: normal, Laplace and Student tails, power laws, one sure token, two bumps, tokens that are out."""
    drawn = torch.Generator().manual_seed(0)
    normal = torch.randn(6, V, generator=drawn, dtype=torch.float64)
    flat = torch.rand(2, V, generator=drawn, dtype=torch.float64)
    rank = torch.arange(1, V + 1, dtype=torch.float64).log()
    sure, bumps, out = normal[3] * 2, normal[4] * 1.5 - 5, normal[5] * 2
    sure[0], bumps[:300], out[V // 2 :] = sure.max() + 12, bumps[:300] + 10, -30
    laplace = -1.5 * flat[0].log() * normal[0].sign()
    student = normal[1] / flat[1].sqrt()
    return torch.stack([*(normal[0] * s for s in (1, 2, 3)), laplace, student, *(-a * rank for a in (1, 1.5, 2.5)),
                        sure, bumps, out])  # fmt: skip


def whole(logits: Tensor, temperature: float, ids: Tensor) -> Tensor:
    """(N, 1) the log mass of the unnamed tokens."""
    named = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids.long(), True)
    scaled = (logits.log_softmax(-1) / temperature).masked_fill(named, -torch.inf)
    return scaled.logsumexp(-1, keepdim=True)


def kl(logits: Tensor, student: Tensor, temperature: float, ids: Tensor) -> Tensor:
    """KL over the named tokens and one class for the others, of whole distributions."""
    p, q = (student_classes(x, ids.long(), temperature) for x in (logits, student))
    return forward_kl(p, q, 0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_stored_temperatures_are_exact(temperature: float) -> None:
    logits = shapes()
    top = compress(logits, K)
    torch.testing.assert_close(tail_mass(top.tail, temperature).estimate, whole(logits, temperature, top.ids))


@pytest.mark.parametrize("temperature", BETWEEN)
def test_the_truth_lies_between_the_bounds_and_near_the_estimate(temperature: float) -> None:
    """The figures of docs/reference/losses.md, without and with the store's float16."""
    logits = shapes()
    top = compress(logits, K)
    truth = whole(logits, temperature, top.ids)
    found = tail_mass(top.tail, temperature)
    assert bool((found.least <= truth + 1e-9).all())
    assert bool((truth <= found.most + 1e-9).all())
    assert float((found.estimate - truth).abs().max()) < 0.06
    student = logits.roll(1, 0)
    exact = kl(logits, student, temperature, top.ids)
    for stored, limit in ((top, 1.5e-2), (top._replace(log_p=top.log_p.half(), tail=top.tail.half()), 2e-2)):
        log_p = at_temperature(stored.log_p.double(), stored.tail.double(), temperature)
        log_q = student_classes(student, top.ids.long(), temperature)
        relative = (forward_kl(log_p, log_q, 0) - exact).abs() / exact.clamp(min=0.1)
        assert float(relative.max()) < limit


@given(st.integers(0, 10_000), st.floats(TEMPERATURES[0], TEMPERATURES[-1]), st.integers(1, 39))
def test_bounds_hold_for_any_distribution(seed: int, temperature: float, k: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 40, generator=drawn, dtype=torch.float64) * torch.rand(4, 1, generator=drawn).double() * 12
    top = compress(logits, k)
    truth, found = whole(logits, temperature, top.ids), tail_mass(top.tail, temperature)
    assert bool((found.least - 1e-9 <= truth).all())
    assert bool((truth <= found.most + 1e-9).all())
    error = (found.estimate - truth).abs()
    assert bool((error <= found.most - found.least + 1e-9).all())
    log_p = at_temperature(top.log_p, top.tail, temperature).exp()[:, -1]
    exact = (logits / temperature).softmax(-1).gather(-1, top.ids.long()).sum(-1).neg() + 1
    assert bool(((log_p - exact).abs() <= error[:, 0] / 4 + 1e-9).all()), "an error of f moves the mass by a quarter"


def test_impossible_tokens_and_an_empty_tail_give_finite_statistics() -> None:
    logits = torch.tensor([[1.0, 0.0, -torch.inf, -torch.inf], [3.0, 2.0, 1.0, -torch.inf]])
    for k in (2, 4):
        tail = compress(logits, k).tail
        assert bool(torch.isfinite(tail).all())
        assert float(tail_mass(tail[:1], 1.5).estimate) == pytest.approx(NEVER)
    assert float(tail_mass(compress(logits, 2).tail[1:], 3.0).estimate) == pytest.approx(
        float(logits[1].log_softmax(-1)[2] / 3), abs=1e-5
    )


def test_a_server_gives_a_bound_below_one_and_nothing_above() -> None:
    logits = shapes()[whole(shapes(), 1.0, compress(shapes(), K).ids)[:, 0] > -12]  # below, 1 - sum p cancels
    top = compress(logits, K)
    tail = tail_of(top.log_p)
    assert tail.shape == (len(top.ids), TAIL)
    for temperature in (0.5, 0.6, 0.8, 1.0):
        truth = whole(logits, temperature, top.ids)
        found = tail_mass(tail, temperature)
        assert bool((found.estimate >= truth - 1e-9).all())
        bound = tail[:, 1:2] + (1 / temperature - 1) * top.log_p[:, -1:]
        torch.testing.assert_close(found.estimate, bound, msg="m p_k^(1/T - 1)")
    assert bool((tail_mass(tail, 1.01).estimate == NOT_KNOWN).all())


def test_a_remainder_that_cancels_does_not_make_a_reverse_kl_huge() -> None:
    """A sure server's k probabilities sum to 1 in float32; a student has mass elsewhere."""
    logits = torch.zeros(1, V)
    logits[0, :K] = torch.linspace(40, 25, K)
    top = compress(logits, K)
    assert float(top.log_p.exp().sum()) >= 1 - SUM_ERROR
    log_p = at_temperature(top.log_p, tail_of(top.log_p), 1.0)
    student = student_classes(torch.zeros(1, V), top.ids.long(), 1.0)
    exact = reverse_kl(at_temperature(top.log_p, top.tail, 1.0), student, 0)
    assert 10 < float(reverse_kl(log_p, student, 0)) < float(exact) < 40
    assert float(log_p.exp()[:, -1]) <= 2 * SUM_ERROR


def test_all_tokens_named_leave_no_mass() -> None:
    """Of a model by itself, and of a server that writes minus infinity for the last."""
    logits = torch.randn(3, K, generator=torch.Generator().manual_seed(0))
    top = compress(logits, K)
    for temperature in (0.5, 0.7, 1.0, 3.0, 16.0):
        log_p, log_q = (
            at_temperature(top.log_p, top.tail, temperature),
            student_classes(logits, top.ids.long(), temperature),
        )
        for divergence in (forward_kl, reverse_kl):
            torch.testing.assert_close(divergence(log_p, log_q, 0), torch.zeros(3), atol=1e-6, rtol=0)
    assert float(tail_of(torch.tensor([[0.0, NEVER]]))[0, 1]) == NEVER


def test_which_temperatures_a_tail_has() -> None:
    assert [has_temperature(t) for t in (0.49, 0.5, 0.7, 16, 17)] == [False, True, True, True, False]
    assert [has_temperature(t, 3) for t in (0.5, 0.7, 2, 4)] == [True, False, True, False]
