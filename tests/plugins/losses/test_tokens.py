"""Losses over answer tokens, against plain float64 formulas over whole vocabularies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from kdkit.core.contracts import LossInput, TeacherView
from kdkit.core.contracts.tail_mass import MASSES, TEMPERATURES
from kdkit.core.contracts.token_signals import compress
from kdkit.plugins.losses.tokens.chunked import sums_over_tokens
from kdkit.plugins.losses.tokens.divergence import DEFAULT_MIX, DIVERGENCES
from kdkit.plugins.losses.tokens.losses import AnswerCrossEntropy, TokenDistillation, UniversalLogitDistillation
from kdkit.plugins.losses.tokens.signals import at_temperature, student_classes
from kdkit.plugins.losses.tokens.together import together
from tests.errors import raises_error

V, H, B, A = 17, 6, 4, 5
LENGTHS = (5, 2, 0, 4)
Formula = Callable[[np.ndarray, np.ndarray], float]

FORMULAS: dict[str, Formula] = {
    "forward-kl": lambda p, q: float(np.sum(p * np.log(p / q))),
    "reverse-kl": lambda p, q: float(np.sum(q * np.log(q / p))),
    "jsd": lambda p, q: 0.5 * float(np.sum(p * np.log(2 * p / (p + q))) + np.sum(q * np.log(2 * q / (p + q)))),
    "skewed-kl": lambda p, q: float(np.sum(p * np.log(p / (0.1 * p + 0.9 * q)))),
    "skewed-reverse-kl": lambda p, q: float(np.sum(q * np.log(q / (0.9 * p + 0.1 * q)))),
    "tvd": lambda p, q: float(np.abs(p - q).sum() / 2),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(lengths: tuple[int, ...] = LENGTHS, seed: int = 1) -> Tensor:
    ids = torch.randint(V, (len(lengths), A), generator=torch.Generator().manual_seed(seed))
    return torch.where(torch.arange(A) < torch.tensor(lengths)[:, None], ids, -100)


def teacher_view(name: str, logits: Tensor, ids: Tensor, weight: Tensor, k: int = V) -> TeacherView:
    """What the store would hold of (B, A, V) logits, in float64."""
    top = compress(logits.flatten(0, 1), k)
    target = {
        "tokens": ids.to(torch.int32),
        "topk_ids": top.ids.reshape(B, A, -1),
        "topk": top.log_p.reshape(B, A, -1),
        "tail": top.tail.reshape(B, A, -1),
    }
    for key, filler in (("topk_ids", -1), ("topk", torch.nan), ("tail", torch.nan)):
        target[key] = torch.where((ids >= 0)[..., None], target[key], filler)
    return TeacherView(name, weight, target, {})


def make_batch(teachers: int = 2, k: int = V, weights: Tensor | None = None) -> tuple[LossInput, list[Tensor]]:
    """(batch, each teacher's logits); hidden states and embedding want gradients."""
    ids = tokens()
    logits = [random(B, A, V, seed=10 + t) * 2 for t in range(teachers)]
    drawn = torch.rand(teachers, B, generator=torch.Generator().manual_seed(3)).double()
    weights = drawn if weights is None else weights
    views = tuple(teacher_view("abc"[t], logits[t], ids, weights[t], k) for t in range(teachers))
    student = {
        "answer_hidden": random(B, A, H).requires_grad_(),
        "answer_ids": ids,
        "output_embedding": random(V, H, seed=5).requires_grad_(),
    }
    return LossInput(student, views, torch.zeros(B, dtype=torch.long)), logits


def softmax(x: Tensor, temperature: float = 1.0) -> np.ndarray:
    values = np.exp(x.detach().numpy() / temperature)
    return np.asarray(values / values.sum())


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_equal_their_formulas(name: str, temperature: float) -> None:
    batch, logits = make_batch()
    ids, total, mass = batch.student["answer_ids"], 0.0, 0.0
    own = batch.student["answer_hidden"] @ batch.student["output_embedding"].T
    for view, theirs in zip(batch.teachers, logits, strict=True):
        for b, a in (ids >= 0).nonzero().tolist():
            p, q = softmax(theirs[b, a], temperature), softmax(own[b, a], temperature)
            square = 1.0 if name == "tvd" else temperature**2
            total += float(view.weight[b]) * square * FORMULAS[name](p, q)
            mass += float(view.weight[b])
    found = TokenDistillation(divergence=name, temperature=temperature, chunk=3)(batch).detach()
    assert float(found) == pytest.approx(total / mass, rel=1e-9)


def merged(p: np.ndarray, named: list[int]) -> np.ndarray:
    """The probabilities of the named tokens below V, and that of all others."""
    kept = [token for token in named if token < V]
    return np.array([*p[kept], p.sum() - p[kept].sum()])


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("k", [1, 12])
def test_tokens_beyond_the_students_vocabulary_count_among_the_rest(name: str, temperature: float, k: int) -> None:
    theirs = random(B, A, V + 7, seed=10) * 2
    theirs[0, 0, V + 2], theirs[3, 1, V:] = 9.0, -9.0  # nearly certain of a token that the student lacks; of none
    batch, _ = make_batch(teachers=0)
    ids, values = batch.student["answer_ids"], []
    view = teacher_view("7b", theirs, ids, torch.ones(B).double(), k)
    own = batch.student["answer_hidden"] @ batch.student["output_embedding"].T
    for b, a in (ids >= 0).nonzero().tolist():
        named = view.target["topk_ids"][b, a].tolist()
        p, q = merged(softmax(theirs[b, a], temperature), named), merged(softmax(own[b, a], temperature), named)
        values.append((1.0 if name == "tvd" else temperature**2) * FORMULAS[name](p, q))
    assert (view.target["topk_ids"] >= V).any()
    loss = TokenDistillation(divergence=name, temperature=temperature, chunk=3)
    found = loss(LossInput(batch.student, (view,), batch.domain)).detach()
    assert float(found) == pytest.approx(np.mean(values), rel=1e-9)


def test_a_teacher_that_names_more_tokens_than_the_student_has_gives_a_finite_gradient() -> None:
    batch, _ = make_batch(teachers=0)
    view = teacher_view("7b", random(B, A, V + 7, seed=10), tokens(), torch.ones(B).double(), V + 7)
    value = TokenDistillation()(LossInput(batch.student, (view,), batch.domain))
    slopes = torch.autograd.grad(value, (batch.student["answer_hidden"], batch.student["output_embedding"]))
    assert all(bool(torch.isfinite(slope).all()) for slope in (value, *slopes))


def test_cross_entropy_is_the_mean_over_answer_tokens() -> None:
    batch, _ = make_batch()
    ids = batch.student["answer_ids"]
    own = batch.student["answer_hidden"] @ batch.student["output_embedding"].T
    values = [-np.log(softmax(own[b, a])[ids[b, a]]) for b, a in (ids >= 0).nonzero().tolist()]
    assert float(AnswerCrossEntropy(chunk=4)(batch).detach()) == pytest.approx(np.mean(values), rel=1e-12)


def test_uld_is_the_distance_of_sorted_probabilities() -> None:
    batch, logits = make_batch(teachers=1, weights=torch.ones(1, B).double())
    ids = batch.student["answer_ids"]
    own = batch.student["answer_hidden"] @ batch.student["output_embedding"].T
    values = [
        np.abs(np.sort(softmax(logits[0][b, a])) - np.sort(softmax(own[b, a]))).sum()
        for b, a in (ids >= 0).nonzero().tolist()
    ]
    assert float(UniversalLogitDistillation()(batch).detach()) == pytest.approx(np.mean(values), rel=1e-9)


def test_uld_ignores_the_identity_of_tokens() -> None:
    batch, logits = make_batch(teachers=1)
    shuffled = logits[0][..., torch.randperm(V, generator=torch.Generator().manual_seed(0))]
    ids = tokens(seed=9)  # other tokens as well: another tokenizer
    other = LossInput(
        batch.student, (teacher_view("a", shuffled, ids, batch.teachers[0].weight),), torch.zeros(B, dtype=torch.long)
    )
    loss = UniversalLogitDistillation()
    assert float(loss(batch)) == pytest.approx(float(loss(other)), rel=1e-12)


LOSSES = [
    AnswerCrossEntropy,
    UniversalLogitDistillation,
    *(lambda name=name, **o: TokenDistillation(divergence=name, **o) for name in DIVERGENCES),
]


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("k", [4, V])
def test_chunked_equals_whole_in_value_and_gradient(make: Callable[..., torch.nn.Module], k: int) -> None:
    batch, _ = make_batch(k=k)
    hidden, embedding = batch.student["answer_hidden"], batch.student["output_embedding"]
    found = []
    for chunk in (1, 3, 1000):
        value = make(chunk=chunk)(batch)
        found.append((value, *torch.autograd.grad(value, (hidden, embedding))))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)

    def of(h: Tensor, w: Tensor) -> Tensor:
        student = {**batch.student, "answer_hidden": h, "output_embedding": w}
        return make(chunk=4)(LossInput(student, batch.teachers, batch.domain))  # type: ignore[no-any-return]

    # Along a random direction: entry by entry takes fifty times as long.
    assert torch.autograd.gradcheck(of, (hidden, embedding), fast_mode=True, rtol=1e-6, atol=1e-8)


def test_a_frozen_embedding_gets_no_gradient_and_costs_none() -> None:
    hidden, embedding = random(7, H).requires_grad_(), random(V, H)
    total, sums = sums_over_tokens(
        hidden, embedding, lambda logits, _: logits.square().sum()[None], torch.ones(1), chunk=2
    )
    assert torch.equal(total, sums.sum())
    torch.autograd.backward(total * 3)
    assert embedding.grad is None
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, 6 * (hidden @ embedding.T) @ embedding)


def plain(batch: LossInput, logits: list[Tensor], weights: tuple[float, float], temperature: float) -> Tensor:
    """``w CE + v T^2 KL`` by torch over all logits at once, for teachers with all V classes."""
    ids = batch.student["answer_ids"]
    at = ids >= 0
    own = (batch.student["answer_hidden"] @ batch.student["output_embedding"].T)[at]
    total, mass = own.new_zeros(()), own.new_zeros(())
    for view, theirs in zip(batch.teachers, logits, strict=True):
        weight = view.weight[:, None].expand(B, A)[at]
        log_p, log_q = ((x / temperature).log_softmax(-1) for x in (theirs[at], own))
        total = total + (weight * F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)).sum()
        mass = mass + weight.sum()
    return weights[0] * F.cross_entropy(own, ids[at]) + weights[1] * temperature**2 * total / mass


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_cross_entropy_and_distillation_in_one_pass_are_those_of_plain_torch(temperature: float, chunk: int) -> None:
    weights = torch.tensor([[0.5, 0.0, 1.0, 0.0], [0.2, 1.0, 0.0, 0.0]]).double()  # nobody knows the last sample
    batch, logits = make_batch(weights=weights)
    hidden, embedding = batch.student["answer_hidden"], batch.student["output_embedding"]
    losses = [AnswerCrossEntropy(chunk=chunk), TokenDistillation(temperature=temperature, chunk=1000)]
    total, values = together(losses, [batch, batch], [0.6, 0.4])
    expected = plain(batch, logits, (0.6, 0.4), temperature)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-14)
    for loss, value in zip(losses, values, strict=True):
        torch.testing.assert_close(value, loss(batch).detach(), rtol=1e-12, atol=1e-14)
    slopes = (torch.autograd.grad(x, (hidden, embedding)) for x in (total, expected))
    for found, wanted in zip(*slopes, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)


def test_losses_in_one_pass_may_have_labels_of_their_own() -> None:
    """As with answers of the student's own, which no supervised loss may learn."""
    batch, _ = make_batch()
    ids = batch.student["answer_ids"].clone()
    ids[0] = -100
    given = LossInput({**batch.student, "answer_ids": ids}, batch.teachers, batch.domain)
    losses = [AnswerCrossEntropy(chunk=2), TokenDistillation(chunk=2), UniversalLogitDistillation(chunk=2)]
    batches, weights = [given, batch, batch], [1.0, 0.5, 0.25]
    leaves = (batch.student["answer_hidden"], batch.student["output_embedding"])
    total, values = together(losses, batches, weights)
    alone = [loss(one) for loss, one in zip(losses, batches, strict=True)]
    expected = torch.stack([weight * value for weight, value in zip(weights, alone, strict=True)]).sum()
    torch.testing.assert_close(torch.stack(list(values)), torch.stack(alone).detach(), rtol=1e-12, atol=0)
    for found, wanted in zip(*(torch.autograd.grad(x, leaves) for x in (total, expected)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)


def test_one_pass_multiplies_with_the_embedding_once() -> None:
    batch, _ = make_batch()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        together([AnswerCrossEntropy(chunk=4), TokenDistillation(chunk=4)], [batch, batch], [1.0, 1.0])
    products = [event.input_shapes for event in seen.events() or () if event.name == "aten::mm"]
    rows = [shapes[0][0] for shapes in products if shapes[1] == [H, V]]
    assert sum(rows) == int((batch.student["answer_ids"] >= 0).sum())


@given(st.integers(0, 10_000), st.integers(1, V - 1), st.sampled_from(TEMPERATURES))
def test_merging_the_rest_never_makes_kl_larger(seed: int, k: int, temperature: float) -> None:
    teacher, student = random(3, V, seed=seed) * 3, random(3, V, seed=seed + 1) * 3
    top = compress(teacher, k)
    log_p = at_temperature(top.log_p, top.tail, temperature)
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(3).double())
    log_q = student_classes(student, top.ids.long(), temperature)
    merged = DIVERGENCES["forward-kl"](log_p, log_q, 0)
    full_p, full_q = ((x / temperature).log_softmax(-1) for x in (teacher, student))
    whole = DIVERGENCES["forward-kl"](full_p, full_q, 0)
    assert bool((merged >= -1e-12).all())
    assert bool((merged <= whole + 1e-12).all())


@given(st.integers(0, 10_000), st.floats(0.01, 0.99))
def test_bounds_of_the_divergences(seed: int, mix: float) -> None:
    log_p, log_q = ((random(4, V, seed=seed + i) * 3).log_softmax(-1) for i in (0, 1))
    skewed = DIVERGENCES["skewed-kl"](log_p, log_q, mix)
    assert bool((skewed <= -np.log(mix) + 1e-12).all())
    for name, divergence in DIVERGENCES.items():
        assert bool((divergence(log_p, log_q, mix) >= -1e-12).all()), name
        assert float(divergence(log_p, log_p, mix).abs().max()) < 1e-12, name


def test_jsd_goes_to_kl_at_its_ends() -> None:
    log_p, log_q = (random(4, V, seed=i).log_softmax(-1) for i in (0, 1))
    for end, near in ((0.0, 1e-7), (1.0, 1 - 1e-7)):
        small = DIVERGENCES["jsd"](log_p, log_q, near) / 1e-7
        torch.testing.assert_close(small, DIVERGENCES["jsd"](log_p, log_q, end), rtol=1e-4, atol=1e-6)


def test_a_half_precision_store_changes_little() -> None:
    batch, _ = make_batch(k=8)
    loss = TokenDistillation(temperature=2.0)
    views = []
    for view in batch.teachers:
        target = {n: x.half() if x.is_floating_point() else x for n, x in view.target.items()}
        views.append(TeacherView(view.name, view.weight, target, {}))
    rounded = loss(LossInput(batch.student, tuple(views), batch.domain))
    assert float(rounded) == pytest.approx(float(loss(batch)), rel=2e-3)


@pytest.mark.parametrize("make", [TokenDistillation, UniversalLogitDistillation])
def test_samples_without_trust_have_no_effect(make: Callable[[], torch.nn.Module]) -> None:
    weights = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).double()
    batch, _ = make_batch(teachers=1, weights=weights)
    value = make()(batch)
    (grad,) = torch.autograd.grad(value, batch.student["answer_hidden"])
    assert bool(torch.isfinite(grad).all())
    assert grad.abs().sum((1, 2)).gt(0).tolist() == [True, False, False, False]  # the third has no answer
    for view in batch.teachers:
        view.target["topk"][1] = torch.nan
        view.target["tokens"][1] = 0
    assert torch.equal(make()(batch), value)


@pytest.mark.parametrize("make", [AnswerCrossEntropy, TokenDistillation, UniversalLogitDistillation])
def test_without_tokens_the_loss_is_zero_with_a_graph(make: Callable[[], torch.nn.Module]) -> None:
    batch, _ = make_batch(teachers=1, weights=torch.zeros(1, B).double())
    student = {**batch.student, "answer_ids": torch.full((B, A), -100)}
    value = make()(LossInput(student, batch.teachers, batch.domain))
    torch.autograd.backward(value)
    assert float(value) == 0
    assert batch.student["answer_hidden"].grad is not None


def test_another_tokenizer_is_refused() -> None:
    batch, logits = make_batch(teachers=1)
    view = teacher_view("radiologist", logits[0], tokens(seed=2), torch.ones(B).double())
    with raises_error("KD-LOSS-002", mentions=("'radiologist'",)) as caught:
        TokenDistillation()(LossInput(batch.student, (view,), batch.domain))
    assert "uld" in caught.value.fix


def test_a_shorter_teacher_answer_is_compared_to_its_end() -> None:
    batch, _ = make_batch(teachers=1, weights=torch.ones(1, B).double())
    (view,) = batch.teachers
    short = TeacherView(view.name, view.weight, {n: x[:, :3] for n, x in view.target.items()}, {})
    cut = {**batch.student, "answer_ids": batch.student["answer_ids"][:, :3]}
    cut["answer_hidden"] = batch.student["answer_hidden"][:, :3]
    loss = UniversalLogitDistillation()
    expected = loss(LossInput(cut, (short,), batch.domain))
    torch.testing.assert_close(loss(LossInput(batch.student, (short,), batch.domain)), expected)


def test_noise_is_per_class_and_seeded() -> None:
    batch, _ = make_batch()
    torch.manual_seed(0)
    one = TokenDistillation(noise=0.5)(batch)
    torch.manual_seed(0)
    assert torch.equal(one, TokenDistillation(noise=0.5)(batch))
    assert abs(float(one) - float(TokenDistillation()(batch))) > 1e-3


def test_invalid_options_are_refused() -> None:
    with raises_error("KD-LOSS-003", where="token-kd", mentions=("'foward-kl'",)) as caught:
        TokenDistillation(divergence="foward-kl")
    assert "forward-kl" in caught.value.fix
    with raises_error("KD-LOSS-004", where="token-kd"):
        TokenDistillation(divergence="tvd", mix=0.5)
    for make in (TokenDistillation, UniversalLogitDistillation):
        with raises_error("KD-LOSS-005", mentions=("0.4",)):
            make(temperature=0.4)
    assert set(DEFAULT_MIX) < set(DIVERGENCES)


def test_a_teacher_with_three_masses_has_three_temperatures() -> None:
    batch, _ = make_batch()
    views = tuple(
        TeacherView(v.name, v.weight, {**v.target, "tail": v.target["tail"][..., :MASSES]}, {}) for v in batch.teachers
    )
    short = LossInput(batch.student, views, batch.domain)
    for temperature in TEMPERATURES[:MASSES]:
        loss = TokenDistillation(temperature=temperature)
        assert torch.equal(loss(short), loss(batch))
    with raises_error("KD-LOSS-005", mentions=("0.7",)) as caught:
        TokenDistillation(temperature=0.7)(short)
    assert "0.5, 1, 2" in caught.value.fix
