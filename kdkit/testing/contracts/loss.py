"""Checks of a loss: a scalar with a gradient, computed from rows with weight only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import LossInput, LossSpec, TeacherView
from kdkit.core.plugin_system.catalogue import Family, resolve
from kdkit.testing.contract import Contract, skip
from kdkit.testing.contracts.batches import example_batch
from kdkit.testing.contracts.two_ranks import Rank, on_two_ranks
from kdkit.testing.tensors import assert_near


class LossContract(Contract):
    """Subclass with ``name``; override :meth:`batch` for signals that kdkit does not know."""

    family: ClassVar[Family] = "loss"

    @property
    def signals(self) -> tuple[str, ...]:
        """The teachers' signals that the loss reads."""
        return self.catalogue.spec(LossSpec, self.name).signals

    def batch(self, dtype: torch.dtype = torch.float32) -> LossInput:
        """Samples, teachers and a student's outputs, some rows without weight; the same at every call.

        The student's outputs want gradients, the targets do not, as in training. ``dtype`` is float64 where
        gradients are compared with finite differences.
        """
        batch = example_batch(self.signals, dtype)
        if batch is None:
            raise skip(f"no example of the signals {', '.join(self.signals)}; override batch() of LossContract")
        return batch

    def test_scalar(self) -> None:
        """The value is one finite number, and the same when computed again."""
        loss, batch = self.make(), self.batch()
        value, again = _seeded(loss, batch), _seeded(loss, batch)
        assert isinstance(value, Tensor), f"expected a tensor, got {type(value).__name__}"
        assert value.shape == (), f"expected a scalar of shape (), got {tuple(value.shape)}; reduce over the rows"
        assert value.dtype == torch.float32, f"expected float32 from float32 rows, got {value.dtype}"
        assert value.isfinite(), f"expected a finite value, got {value.item()}"
        assert_near("value, computed again", again, value, 0)

    def test_gradient_reaches_student(self) -> None:
        """A gradient reaches the student's rows and every parameter of the loss, and is finite."""
        loss, batch = self.make(), self.batch()
        _backward(loss(batch))
        gradients = [x.grad for x in _student(batch).values() if x.grad is not None]
        assert any(bool(gradient.any()) for gradient in gradients), "expected a gradient at the student, got none or 0"
        assert all(bool(gradient.isfinite().all()) for gradient in gradients), "the student's gradient is not finite"
        for name, parameter in loss.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"no gradient at the parameter '{name}': training would stop there"

    def test_inputs_unchanged(self) -> None:
        """Targets and weights are neither changed nor made to want gradients."""
        loss, batch = self.make(), self.batch()
        kept = {name: x.clone() for name, x in _given(batch).items()}
        _backward(loss(batch))
        for name, x in _given(batch).items():
            assert torch.equal(x, kept[name]), f"{name} was changed in place; work on a copy"
            assert not x.requires_grad, f"{name} wants a gradient now; a teacher is not trained"

    def test_rows_without_weight(self) -> None:
        """Rows of weight 0 change neither the value nor a gradient, whatever they hold."""
        self._needs_teachers()
        loss, batch = self.make(), self.batch()
        other = _with_other_silent_rows(self.batch())
        value, changed = _seeded(loss, batch), _seeded(loss, other)
        assert_near("value after rows of weight 0 changed", changed, value, 1e-6, fix="multiply no row by 0: select")
        _backward(changed)
        for view in other.teachers:
            for signal, x in view.student.items():
                if x.grad is not None:
                    wrong = bool(x.grad[view.weight == 0].any())
                    assert not wrong, f"'{signal}' for teacher '{view.name}' has a gradient in rows of weight 0"

    def test_no_weight_at_all(self) -> None:
        """All weights 0, or no teacher: the value is 0, with a graph."""
        self._needs_teachers()
        loss = self.make()
        silent = tuple(_silent(view) for view in self.batch().teachers)
        for what, teachers in (("all weights 0", silent), ("no teacher", ())):
            value = loss(replace(self.batch(), teachers=teachers))
            assert value.item() == 0, f"{what}: expected 0, got {value.item()}"
            assert value.requires_grad, f"{what}: expected a graph, got none; add 0 * something of the student"
            _backward(value)

    def test_other_signals(self) -> None:
        """Signals that only other losses read change nothing; a teacher without some signals is accepted."""
        self._needs_teachers()
        loss, batch = self.make(), self.batch()
        first, last = batch.teachers[0], batch.teachers[-1]
        raw = {"of another loss": torch.ones(len(last.weight), 3, 2)}
        more = replace(batch, teachers=tuple(replace(v, target={**v.target, **raw}) for v in batch.teachers))
        advice = "read the signals that 'signals' declares, and that the student has, alone"
        assert_near("value beside another loss's signals", _seeded(loss, more), _seeded(loss, batch), 0, fix=advice)
        for target in (raw, *({signal: last.target[signal]} for signal in last.student)):
            student = {signal: x for signal, x in last.student.items() if signal in target}
            value = _seeded(loss, replace(batch, teachers=(first, replace(last, target=target, student=student))))
            what = f"a teacher that gives only signals {', '.join(target)}"
            assert value.isfinite(), f"{what}: expected a finite value, got {value.item()}"

    def test_other_tokens(self) -> None:
        """Other tokens than the student's raise a KdkitError if and only if the spec says ``same_tokens``."""
        spec, batch = self.catalogue.spec(LossSpec, self.name), self.batch()
        if "tokens" not in spec.signals:
            assert not spec.same_tokens, "expected 'tokens' among its signals, since the spec says same_tokens"
            return  # the loss reads no tokens
        others = [{**view.target, "tokens": view.target["tokens"] + 1} for view in batch.teachers]
        views = tuple(replace(view, target=target) for view, target in zip(batch.teachers, others, strict=True))
        try:
            self.make()(replace(batch, teachers=views))
        except KdkitError:
            assert spec.same_tokens, "other tokens than the student's: expected a value, or same_tokens in the spec"
        else:
            assert not spec.same_tokens, "other tokens than the student's: expected KdkitError, got a value"

    def test_shares_add_up(self) -> None:
        """Values and gradients of two shares of a batch add up to its own, where the spec says that ranks share it."""
        spec, whole = self.catalogue.spec(LossSpec, self.name), self.batch()
        assert not (spec.per_sample and spec.by_rows), "expected per_sample or by_rows in the spec, got both"
        if not (spec.per_sample or spec.by_rows):
            return  # every rank computes the whole batch
        cut = _share if spec.per_sample else _rows_of
        value = self.make()(whole)
        _backward(value)

        def compute(rank: Rank) -> tuple[Tensor, LossInput]:
            batch, size = self.batch(), len(whole.domain)
            rows = (slice(0, size // 2), slice(size // 2, size))[rank.number]
            share = self.make()(replace(cut(batch, rows), total=rank.total, gather=rank.gather))
            _backward(share)
            return share, batch

        (first, one), (second, two) = on_two_ranks(compute)
        advice = "divide by batch.total(...) of what is counted; with by_rows, compute batch.rows alone"
        assert_near("sum of two shares' values", first + second, value, 1e-5, fix=advice)
        parts = _student(one), _student(two)
        for name, x in _student(whole).items():
            found = _gradient(parts[0][name]) + _gradient(parts[1][name])
            assert_near(f"sum of two shares' gradients of {name}", found, _gradient(x), 1e-4, fix=advice)

    def test_together(self) -> None:
        """Two such losses in one call have the values and gradients of two, where the spec names ``together``."""
        spec, one, two = self.catalogue.spec(LossSpec, self.name), self.batch(), self.batch()
        if not spec.together:
            return
        assert spec.per_sample, "expected per_sample in the spec, since it says together"
        weights = (0.25, 2.0)
        total, values = resolve(spec.together)([self.make(), self.make()], [one, one], weights)
        alone = self.make()(two)
        _backward(total)
        _backward(sum(weights) * alone)
        assert_near("total of two losses in one call", total, sum(weights) * alone, 1e-5)
        for value in values:
            assert not value.requires_grad, "expected values without a graph; the total carries it"
            assert_near("value of a loss in one call", value, alone, 1e-5)
        for name, x in _student(two).items():
            assert_near(f"gradient of {name}", _gradient(_student(one)[name]), _gradient(x), 1e-4)

    def test_one_sample(self) -> None:
        """A batch of one sample has a gradient, unless ``least_batch`` says that the loss compares samples."""
        if self.catalogue.spec(LossSpec, self.name).least_batch > 1:
            return
        for row in range(len(self.batch().domain)):
            batch = self.batch()
            _backward(self.make()(_share(batch, slice(row, row + 1))))
            if any(x.grad is not None and bool(x.grad.any()) for x in _student(batch).values()):
                return
        raise AssertionError("batches of one sample: expected a gradient, or least_batch=2 in the spec")

    def test_gradcheck(self) -> None:
        """The gradient is that of finite differences, in float64."""
        loss, batch = self.make().double(), self.batch(torch.float64)
        names, rows = zip(*_student(batch).items(), strict=True)

        def value(*given: Tensor) -> Tensor:
            return cast(Tensor, loss(_with_student(batch, dict(zip(names, given, strict=True)))))

        try:
            torch.autograd.gradcheck(value, rows, fast_mode=True)
        except RuntimeError as error:
            raise AssertionError(f"gradcheck failed: {' '.join(str(error).split())[:300]}") from None

    def test_state_round_trip(self) -> None:
        """``state_dict`` loads into a new object, which then gives the same value."""
        loss, again, batch = self.make(), self.make(), self.batch()
        with torch.no_grad():
            for parameter in loss.parameters():
                parameter.mul_(1.1)
        again.load_state_dict(loss.state_dict())
        assert_near("value after a state round trip", _seeded(again, batch), _seeded(loss, batch), 0)

    def _needs_teachers(self) -> None:
        if not self.signals:
            raise skip("it reads no signal of a teacher")


def _seeded(loss: nn.Module, batch: LossInput) -> Tensor:
    """A loss may draw random numbers; the same seed must give the same value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cast(Tensor, loss(batch))


def _backward(value: Tensor) -> None:
    torch.autograd.backward(value)


def _student(batch: LossInput) -> dict[str, Tensor]:
    """Everything that wants a gradient, by name."""
    found = {f"student {name}": x for name, x in batch.student.items()}
    for view in batch.teachers:
        found |= {f"{view.name} {name}": x for name, x in view.student.items()}
    return {name: x for name, x in found.items() if x.requires_grad}


def _with_student(batch: LossInput, rows: Mapping[str, Tensor]) -> LossInput:
    """The batch with other tensors where :func:`_student` found some."""

    def renewed(prefix: str, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: rows.get(f"{prefix} {name}", x) for name, x in old.items()}

    views = tuple(replace(view, student=renewed(view.name, view.student)) for view in batch.teachers)
    return replace(batch, student=renewed("student", batch.student), teachers=views)


def _gradient(x: Tensor) -> Tensor:
    return torch.zeros_like(x) if x.grad is None else x.grad


def _rows_of(batch: LossInput, rows: slice) -> LossInput:
    """What one of several processes sees that computes these rows against the whole batch."""
    views = (replace(view, student={name: x[rows] for name, x in view.student.items()}) for view in batch.teachers)
    return replace(batch, teachers=tuple(views), rows=rows)


def _share(batch: LossInput, rows: slice) -> LossInput:
    """What one of several processes sees; the output embedding and the scale are the same for all."""
    size = len(batch.domain)

    def cut(x: Tensor) -> Tensor:
        return x[rows] if x.ndim and len(x) == size else x

    views = tuple(
        replace(
            view,
            weight=view.weight[rows],
            target={name: cut(x) for name, x in view.target.items()},
            student={name: cut(x) for name, x in view.student.items()},
        )
        for view in batch.teachers
    )
    student = {name: cut(x) for name, x in batch.student.items()}
    return replace(batch, student=student, teachers=views, domain=batch.domain[rows])


def _given(batch: LossInput) -> dict[str, Tensor]:
    """What comes from teachers."""
    found = {f"weight of '{view.name}'": view.weight for view in batch.teachers}
    for view in batch.teachers:
        found |= {f"target '{signal}' of '{view.name}'": x for signal, x in view.target.items()}
    return found


def _silent(view: TeacherView) -> TeacherView:
    zeros = {name: torch.zeros_like(x) for name, x in view.target.items()}
    return replace(view, weight=torch.zeros_like(view.weight), target=zeros)


def _with_other_silent_rows(batch: LossInput) -> LossInput:
    """Other numbers where a weight is 0, and in the student's own rows that no teacher gives weight."""
    taught = torch.stack([view.weight > 0 for view in batch.teachers]).any(0)
    views = tuple(
        replace(view, target=_changed(view.target, view.weight > 0), student=_changed(view.student, view.weight > 0))
        for view in batch.teachers
    )
    return replace(batch, student=_changed(batch.student, taught), teachers=views)


def _changed(rows: Mapping[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    """Other numbers in the rows that are not kept; scalars and whole numbers stay."""

    def other(x: Tensor) -> Tensor:
        if x.shape[:1] != keep.shape or not x.is_floating_point():
            return x
        mask = keep.reshape(-1, *[1] * (x.ndim - 1))
        return torch.where(mask, x, 3 - 2 * x).detach().requires_grad_(x.requires_grad)

    return {name: other(x) for name, x in rows.items()}
