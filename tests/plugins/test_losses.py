"""Every loss against the loops in reference.py, and what must hold of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdkit.core.contracts import CaptionView, LossInput, TeacherView
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.plugins.losses import clip as clip_module
from kdkit.plugins.losses import crd as crd_module
from kdkit.plugins.losses import icl as icl_module
from kdkit.plugins.losses.clip import ClipLoss
from kdkit.plugins.losses.crd import RelationalDistillation
from kdkit.plugins.losses.fd import FeatureDistillation
from kdkit.plugins.losses.icl import InteractiveContrast
from tests.errors import raises_error
from tests.plugins.losses import reference

Batch = LossInput
DOMAINS = 3
TEMPERATURES = {"a": 0.2, "b": 0.5, "c": 0.3}


def make_batch(
    seed: int = 0, size: int = 7, widths: Sequence[int] = (5, 4, 6), absent: float = 0.4, full: bool = False
) -> Batch:
    """A batch in float64 with trainable student rows, unequal trust, and teachers that miss samples."""
    g = torch.Generator().manual_seed(seed)

    def rows(width: int) -> Tensor:
        return torch.randn(size, width, generator=g, dtype=torch.float64)

    views = []
    for name, width in zip("abc", widths, strict=False):
        weight = torch.rand(size, generator=g, dtype=torch.float64) + 0.1
        weight = weight * (full or torch.rand(size, generator=g) >= absent)
        target = {signal: torch.where(weight[:, None] > 0, rows(width), 0) for signal in ("image", "text")}
        student = {signal: rows(width).requires_grad_() for signal in ("image", "text")}
        views.append(TeacherView(name, weight, target, student))
    outputs = {"image": rows(8).requires_grad_(), "text": rows(8).requires_grad_()}
    outputs["logit_scale"] = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    return LossInput(outputs, tuple(views), torch.randint(DOMAINS, (size,), generator=g))


def views_of(batch: Batch) -> list[reference.View]:
    return [
        reference.View(
            view.weight.numpy(),
            {k: v.detach().numpy() for k, v in view.target.items()},
            {k: v.detach().numpy() for k, v in view.student.items()},
        )
        for view in batch.teachers
    ]


def student_of(batch: Batch) -> dict[str, Any]:
    return {k: v.detach().numpy() for k, v in batch.student.items() if v.ndim}


def number(value: Tensor) -> float:
    return float(value.detach())


def grad(batch: Batch, name: str) -> Tensor:
    found = batch.student[name].grad
    assert found is not None
    return found


def crd(**options: Any) -> RelationalDistillation:
    return RelationalDistillation(temperatures=TEMPERATURES, **options)


MADE: dict[str, Callable[[], nn.Module]] = {
    "clip": ClipLoss,
    "fd": FeatureDistillation,
    "fd-mean": lambda: FeatureDistillation(reduction="mean", unit=False, average_over="samples"),
    "icl": InteractiveContrast,
    "icl-released": lambda: InteractiveContrast(exp=False, learnable=False, average_over="teachers"),
    "crd": crd,
    "crd-domain": lambda: crd(within_domain=True, student_temperature=0.4),
    "crd-ensemble": lambda: crd(targets="ensemble"),
    "crd-ensemble-domain": lambda: crd(targets="ensemble", within_domain=True, average_over="samples"),
    "crd-chunked": lambda: crd(targets="ensemble", chunk=2),
}
DISTILLING = [name for name in MADE if name != "clip"]


@pytest.fixture(params=MADE)
def loss(request: pytest.FixtureRequest) -> nn.Module:
    return MADE[request.param]().double()


@pytest.fixture(params=DISTILLING)
def distilling(request: pytest.FixtureRequest) -> nn.Module:
    return MADE[request.param]().double()


# ------------------------------------------------------------------------------ parity with the equations


@pytest.mark.parametrize("over", ["pairs", "samples", "teachers"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("unit", [True, False])
def test_fd_is_the_squared_distance(reduction: Any, unit: bool, over: Any) -> None:
    batch = make_batch()
    found = FeatureDistillation(reduction=reduction, unit=unit, average_over=over)(batch)
    wanted = reference.fd(views_of(batch), reduction=reduction, unit_student=unit, over=over)
    assert number(found) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("over", ["pairs", "samples", "teachers"])
@pytest.mark.parametrize(("exp", "scale"), [(True, 1 / 0.07), (False, math.log(1 / 0.07))])
def test_icl_is_infonce_against_the_other_modality_of_the_teacher(exp: bool, scale: float, over: Any) -> None:
    batch = make_batch()
    found = InteractiveContrast(exp=exp, average_over=over).double()(batch)
    assert number(found) == pytest.approx(reference.icl(views_of(batch), scale, over=over), rel=1e-6)


def test_clip_is_infonce_of_the_student() -> None:
    batch = make_batch()
    assert number(ClipLoss()(batch)) == pytest.approx(reference.clip(student_of(batch), 3.0), rel=1e-12)


@pytest.mark.parametrize("name", ["fd", "crd"])
def test_half_the_trust_is_half_the_loss_of_a_batch(name: str) -> None:
    batch = make_batch(full=True)
    half = replace(batch, teachers=tuple(replace(view, weight=view.weight / 2) for view in batch.teachers))
    made = crd(average_over="batch") if name == "crd" else FeatureDistillation(average_over="batch")
    assert number(made(half)) == pytest.approx(number(made(batch)) / 2, rel=1e-12)


@pytest.mark.parametrize("over", ["pairs", "samples", "teachers"])
@pytest.mark.parametrize("within_domain", [True, False])
@pytest.mark.parametrize("tau", [None, 0.25])
def test_crd_is_the_divergence_of_similarity_rows(tau: float | None, within_domain: bool, over: Any) -> None:
    batch = make_batch()
    found = crd(within_domain=within_domain, student_temperature=tau, average_over=over)(batch)
    wanted = reference.crd(
        views_of(batch),
        student_of(batch),
        3.0 if tau is None else 1 / tau,
        temperatures=list(TEMPERATURES.values()),
        domain=batch.domain.numpy() if within_domain else None,
        over=over,
    )
    assert number(found) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("within_domain", [True, False])
def test_crd_ensemble_is_the_divergence_from_the_mean_row(within_domain: bool) -> None:
    batch = make_batch()
    found = crd(targets="ensemble", within_domain=within_domain)(batch)
    wanted = reference.crd_ensemble(
        views_of(batch),
        student_of(batch),
        3.0,
        temperatures=list(TEMPERATURES.values()),
        domain=batch.domain.numpy() if within_domain else None,
    )
    assert number(found) == pytest.approx(wanted, rel=1e-10)


def test_one_cross_entropy_against_the_mean_equals_the_weighted_sum_of_them() -> None:
    """Where all teachers cover all samples, ``ensemble`` and ``teachers`` differ by a constant."""
    first, second = make_batch(full=True), make_batch(full=True)
    crd(targets="teachers")(first).backward()
    crd(targets="ensemble")(second).backward()
    for name in ("image", "text", "logit_scale"):
        assert torch.allclose(grad(first, name), grad(second, name), rtol=1e-10, atol=1e-14)


def test_crd_is_zero_for_a_student_with_the_teachers_similarities() -> None:
    batch = make_batch(full=True, widths=(5,))
    turned = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    student = {name: 3 * x @ turned for name, x in batch.teachers[0].target.items()}
    student["logit_scale"] = torch.tensor(1 / TEMPERATURES["a"])
    assert number(crd()(replace(batch, student=student))) == pytest.approx(0, abs=1e-12)


# ------------------------------------------------------------------------------------- the released code


def test_released_sum_is_reproduced() -> None:
    """FD and ICL of MMKD-CLIP's KDClipLoss, typed in from its code: one teacher per sample, a shared space."""
    batch = make_batch(widths=(8, 8, 8), full=True)
    drawn = torch.tensor([0, 1, 2, 1, 0, 0, 2])
    student = {name: batch.student[name].detach() for name in ("image", "text")}
    views = tuple(
        replace(view, weight=0.7 * (drawn == number).double(), student=student)
        for number, view in enumerate(batch.teachers)
    )
    batch = replace(batch, teachers=views)
    image, text = (nn.functional.normalize(student[name]) for name in ("image", "text"))
    t_image, t_text = (
        torch.stack([views[int(t)].target[name][row] for row, t in enumerate(drawn)]) for name in ("image", "text")
    )
    cross_logit_scale, labels = np.log(1 / 0.07), torch.arange(7)
    fd = nn.functional.mse_loss(image, t_image) + nn.functional.mse_loss(text, t_text)
    icl = (
        nn.functional.cross_entropy(cross_logit_scale * image @ t_text.T, labels)
        + nn.functional.cross_entropy(cross_logit_scale * text @ t_image.T, labels)
    ) / 2
    assert number(FeatureDistillation(reduction="mean")(batch)) == pytest.approx(number(fd), rel=1e-12)
    released = InteractiveContrast(exp=False, learnable=False, mix_teachers=True).double()
    assert number(released(batch)) == pytest.approx(number(icl), rel=1e-6)
    assert not list(released.parameters())
    assert float(released.state_dict()["scale"]) == pytest.approx(2.659, abs=1e-3)


def test_the_scale_of_icl_is_trained_and_bounded() -> None:
    loss = InteractiveContrast(initial=9.0)
    loss(make_batch()).backward()
    assert [name for name, _ in loss.named_parameters()] == ["scale"]
    assert loss.scale.grad is not None
    assert number(loss.scale.exp()) == pytest.approx(100)


def test_mixing_teachers_of_different_widths_is_refused() -> None:
    with raises_error("KD-LOSS-001", mentions=("different widths",)):
        InteractiveContrast(mix_teachers=True)(make_batch())


# --------------------------------------------------------------------------------- what holds of all of them


def test_gradients(loss: nn.Module) -> None:
    batch = make_batch(size=4)
    leaves = list(batch.student.values()) + [x for v in batch.teachers for x in v.student.values()]

    def value(*changed: Tensor) -> Tensor:
        it = iter(changed)
        student = {name: next(it) for name in batch.student}
        views = tuple(replace(v, student={name: next(it) for name in v.student}) for v in batch.teachers)
        out: Tensor = loss(LossInput(student, views, batch.domain))
        return out

    assert torch.autograd.gradcheck(value, leaves)


def test_the_order_of_samples_has_no_effect(loss: nn.Module) -> None:
    batch, order = make_batch(), torch.randperm(7, generator=torch.Generator().manual_seed(3))
    moved = LossInput(
        {name: x[order] if x.ndim else x for name, x in batch.student.items()},
        tuple(
            TeacherView(
                v.name,
                v.weight[order],
                {name: x[order] for name, x in v.target.items()},
                {name: x[order] for name, x in v.student.items()},
            )
            for v in batch.teachers
        ),
        batch.domain[order],
    )
    assert number(loss(moved)) == pytest.approx(number(loss(batch)), rel=1e-10)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -1e30])
def test_rows_without_weight_have_no_effect(distilling: nn.Module, garbage: float) -> None:
    clean, dirty = make_batch(seed=1), make_batch(seed=1)
    spoilt = []
    for view in dirty.teachers:
        absent = view.weight == 0
        assert absent.any()
        for rows in (*view.target.values(), *view.student.values()):
            rows.data[absent] = garbage
    untaught = ~torch.stack([v.weight > 0 for v in dirty.teachers]).any(0)
    assert untaught.any()
    for rows in (dirty.student["image"], dirty.student["text"]):
        rows.data[untaught] = garbage
    distilling(clean).backward()
    value = distilling(dirty)
    value.backward()
    assert number(value) == number(distilling(clean))
    for batch in (clean, dirty):
        tensors = [*batch.student.values(), *(x for v in batch.teachers for x in v.student.values())]
        spoilt.append([torch.zeros_like(x) if x.grad is None else x.grad for x in tensors])
    for expected, found in zip(*spoilt, strict=True):
        assert torch.equal(expected, found)


@pytest.mark.parametrize("teachers", ["none", "silent"])
def test_without_weight_the_loss_is_zero_with_a_graph(distilling: nn.Module, teachers: str) -> None:
    batch = make_batch()
    silent = tuple(replace(v, weight=torch.zeros_like(v.weight)) for v in batch.teachers)
    batch = replace(batch, teachers=() if teachers == "none" else silent)
    value = distilling(batch)
    assert number(value) == 0
    value.backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) == 0 for p in distilling.parameters())


def test_a_batch_of_one(loss: nn.Module) -> None:
    value = loss(make_batch(size=1, full=True))
    assert torch.isfinite(value)
    value.backward()


def test_a_teacher_without_text_gives_image_features_alone() -> None:
    batch = make_batch(full=True)
    blind = replace(batch.teachers[0], target={"image": batch.teachers[0].target["image"]})
    alone = replace(batch, teachers=batch.teachers[1:])
    both = replace(batch, teachers=(blind, *batch.teachers[1:]))
    for loss in (InteractiveContrast().double(), crd()):
        assert number(loss(both)) == number(loss(alone))
    assert number(FeatureDistillation()(both)) != number(FeatureDistillation()(alone))


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 9),
    chunk=st.integers(1, 10),
    seed=st.integers(0, 1000),
    targets=st.sampled_from(["teachers", "ensemble"]),
    within_domain=st.booleans(),
)
def test_chunked_equals_plain(size: int, chunk: int, seed: int, targets: Any, within_domain: bool) -> None:
    plain, pieces = make_batch(seed, size), make_batch(seed, size)
    options: dict[str, Any] = {"targets": targets, "within_domain": within_domain}
    whole, parts = crd(chunk=size, **options)(plain), crd(chunk=chunk, **options)(pieces)
    whole.backward()
    parts.backward()
    assert number(whole) == pytest.approx(number(parts), rel=1e-12, abs=1e-14)
    for name in ("image", "text", "logit_scale"):
        assert torch.allclose(grad(plain, name), grad(pieces, name), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("made", ["own", "equal", "similar", "icl", "crd"])
@pytest.mark.parametrize("scale", [3.0, 95.0])
def test_tiles_change_nothing(made: str, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ragged tiles against one, with exponents that need a shift of their own and with those that need none."""
    losses: dict[str, Callable[[], nn.Module]] = {
        "icl": lambda: InteractiveContrast(initial=math.log(scale)),
        "crd": lambda: RelationalDistillation(targets="ensemble", temperature=1 / scale, within_domain=True),
    }
    loss = losses.get(made, lambda: ClipLoss(positives=cast(Any, made), similarity=0.2))().double()
    found = []
    for rows in (64, 2):
        for module in (crd_module, clip_module, icl_module):
            monkeypatch.setattr(module, "default_rows", lambda _, rows=rows: rows)
        batch = make_batch(seed=2, size=11)
        batch.student["logit_scale"].data.fill_(scale)
        weight, text = torch.ones(11).double(), torch.tensor([0, 1, 0, 3, 4, 1, 6, 7, 7, 7, 10])
        weight[[2, 5]] = 0
        batch = replace(batch, captions=CaptionView(weight, text))
        value = loss(batch)
        leaves = [*batch.student.values(), *(x for v in batch.teachers for x in v.student.values())]
        once, again = (torch.autograd.grad(2 * value, leaves, allow_unused=True, retain_graph=True) for _ in range(2))
        found.append([value, *(x for x in once if x is not None)])
        assert all(x is y is None or torch.equal(x, y) for x, y in zip(once, again, strict=True))
    for one, many in zip(*found, strict=True):
        assert torch.allclose(one, many, rtol=1e-9, atol=1e-13)
    if made == "equal":
        assert number(value) == pytest.approx(
            reference.clip(student_of(batch), scale, weight.tolist(), text.tolist()), rel=1e-10
        )
    if made == "crd":
        wanted = reference.crd_ensemble(
            views_of(batch), student_of(batch), scale, temperatures=[1 / scale] * 3, domain=batch.domain.numpy()
        )
        assert number(value) == pytest.approx(wanted, rel=1e-9)


def test_the_catalogue_makes_the_losses() -> None:
    catalogue = load_catalogue()
    assert {"clip", "fd", "icl", "crd"} <= set(catalogue.names("loss"))
    made = catalogue.make("loss", "fd", reduction="mean")
    assert isinstance(made, FeatureDistillation)
    assert made.reduction == "mean"
