"""Micro-batches: the losses and gradients of the whole batch, with the activations of a part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdkit.core.contracts import Silent
from kdkit.core.distill.model import micro_batches
from kdkit.core.distill.model.altered_inputs import AlteredInputs
from kdkit.core.distill.model.micro_batches import MicroBatches, activation_bytes, require_separable
from kdkit.core.distill.model.task import DistillTask, Term
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.plugins.losses.clip import ClipLoss
from tests.core.distill.loop.test_distributed import LENGTHS
from tests.core.distill.loop.test_distributed import make_batch as make_answers
from tests.core.distill.loop.test_distributed import make_task as make_answering_task
from tests.core.distill.model.test_task import gradients, make_batch
from tests.core.distill.toy_runs import run, weights
from tests.errors import raises_error
from tests.recorder import Recorder
from tests.toy_project import open_project
from tests.toys import LETTERS, SIDE, ToyEncoder

ROWS = 12


def pairs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "pixels": torch.rand(ROWS, 3, SIDE, SIDE, generator=generator, dtype=torch.float64),
        "letters": torch.rand(ROWS, LETTERS, generator=generator, dtype=torch.float64),
    }


def clip_gradients(task: DistillTask) -> dict[str, Tensor]:
    captions = task_captions()
    task(inputs=pairs(), targets={}, weights={}, domain=torch.zeros(ROWS, dtype=torch.int64), captions=captions)[
        "loss"
    ].backward()
    return gradients(task)


def task_captions() -> Any:
    from kdkit.core.contracts import CaptionView

    return CaptionView(torch.ones(ROWS), torch.arange(ROWS))


def clip_task(size: int | None = None, dropout: float = 0.0) -> DistillTask:
    torch.manual_seed(0)
    student = ToyEncoder(width=6, dropout=dropout).double()
    return DistillTask(student, {}, [Term("clip", 1.0, ClipLoss())], micro_batches=MicroBatches(size))


@pytest.mark.parametrize("size", [1, 5, 11])
def test_every_gradient_is_that_of_the_whole_batch(size: int) -> None:
    expected, found = clip_gradients(clip_task()), clip_gradients(clip_task(size))
    assert found.keys() == expected.keys() == dict(clip_task().named_parameters()).keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=1e-9, atol=1e-12, msg=name)


def test_accumulation_as_in_open_clip_has_a_wrong_scale_and_micro_batches_have_not() -> None:
    """open_clip's ``--accum-freq`` sums the scale's gradient once for each part."""
    task = clip_task()
    student, inputs, size = cast(ToyEncoder, task.student), pairs(), ROWS // 4
    whole = clip_gradients(task)["student.log_scale"]
    student.zero_grad()
    with torch.no_grad():
        cached = student(inputs)
    for start in range(0, ROWS, size):
        part = student({name: x[start : start + size] for name, x in inputs.items()})
        rows = {
            name: torch.cat([cached[name][:start], part[name], cached[name][start + size :]])
            for name in ("image", "text")
        }
        image, text = (F.normalize(rows[name], dim=-1) for name in ("image", "text"))
        logits, order = part["logit_scale"] * image @ text.T, torch.arange(ROWS)
        loss = (F.cross_entropy(logits, order) + F.cross_entropy(logits.T, order)) / 2
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
    assert student.log_scale.grad is not None
    torch.testing.assert_close(student.log_scale.grad, 4 * whole, rtol=1e-6, atol=0)
    torch.testing.assert_close(clip_gradients(clip_task(size))["student.log_scale"], whole, rtol=1e-9, atol=0)


def test_the_second_pass_drops_what_the_first_dropped() -> None:
    task = clip_task(4, dropout=0.5)
    torch.manual_seed(7)
    found = clip_gradients(task)
    plain = clip_task(dropout=0.5)
    student = cast(ToyEncoder, plain.student)
    torch.manual_seed(7)
    parts = [student({name: x[start : start + 4] for name, x in pairs().items()}) for start in range(0, ROWS, 4)]
    joined = {name: torch.cat([part[name] for part in parts]) for name in ("image", "text")}
    plain.student = Given({**joined, "logit_scale": parts[0]["logit_scale"]})
    clip_gradients(plain)
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[f"student.{name}"], parameter.grad, rtol=1e-9, atol=1e-12, msg=name)


class Given(nn.Module):
    """It has its outputs already."""

    def __init__(self, outputs: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, _: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self._outputs


@pytest.mark.parametrize("size", [1, 4])
def test_all_losses_and_the_answers_of_a_generating_student(size: int) -> None:
    for lengths in LENGTHS:
        expected, found = make_answering_task(), make_answering_task()
        found.micro_batches = MicroBatches(size)
        for task in (expected, found):
            task(**make_answers(lengths))["loss"].backward()
        for name, x in gradients(expected).items():
            torch.testing.assert_close(gradients(found)[name], x, rtol=1e-5, atol=1e-7, msg=name)


def test_the_forward_pass_keeps_no_activations() -> None:
    """What remains are the inputs, which the batch holds anyway, and the outputs."""
    torch.manual_seed(0)
    student = ToyEncoder(width=6, hidden=4096)
    inputs = {"pixels": torch.rand(64, 3, SIDE, SIDE), "letters": torch.rand(64, LETTERS)}
    whole = activation_bytes(student, inputs)
    parts = Through(student, MicroBatches(4))
    assert whole > 4 * 2 * 64 * 4096  # two towers, float32
    assert activation_bytes(parts, inputs) < whole / 8


class Through(nn.Module):
    def __init__(self, student: nn.Module, parts: MicroBatches) -> None:
        super().__init__()
        self.student, self._parts = student, parts

    def forward(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self._parts.forward(self.student, inputs)


@pytest.mark.parametrize("size", [1, 3])
def test_altered_inputs_in_parts(size: int) -> None:
    student, inputs, seeds = ToyEncoder(width=6), cast(dict[str, Tensor], make_batch()["inputs"]), torch.arange(8)
    altered = AlteredInputs(student, 1.0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    found = []
    for slices in ([], MicroBatches(size).slices(student, inputs)):
        student.zero_grad()
        loss = altered.loss(student, inputs, seeds, slices)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        found.append([loss.detach(), *(p.grad.clone() for p in student.parameters() if p.grad is not None)])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-7)


def test_a_run_in_micro_batches_is_the_same_run(folder: Path) -> None:
    """AdamW turns rounding into small steps, so the weights are near, not equal."""
    whole = weights(folder, "v1")
    registry = folder / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(f"{text}optimizer: {{micro_batch: 5}}\n", encoding="utf-8")
    finished = prepare(open_project(folder), Options(cpu=True), Silent())
    finished.inventory.close()
    assert finished.plan.finished == "v1", "another micro-batch is no other plan, so a run continues with it"
    version = run(open_project(folder), restart=True).version
    assert version.lineage.recipe.optimizer.micro_batch == 5
    for name, x in weights(folder, version.name).items():
        torch.testing.assert_close(x, whole[name], rtol=0, atol=1e-3, msg=name)


def test_batch_normalization_is_refused_unless_it_is_frozen() -> None:
    student = ToyEncoder(width=6)
    student.image_tower.append(nn.BatchNorm1d(6))
    with raises_error("KD-DIST-270", mentions=("BatchNorm1d",)) as caught:
        require_separable(student)
    assert caught.value.where == "ToyEncoder.image_tower.4"
    student.image_tower[-1].eval()
    require_separable(student)


def bytes_of_a_sample(student: nn.Module, inputs: dict[str, Tensor]) -> float:
    half = {name: x[:4] for name, x in inputs.items()}
    return (activation_bytes(student, inputs) - activation_bytes(student, half)) / 4


@pytest.mark.parametrize(("samples", "size"), [(2.5, 2), (0.0, 1), (1000.0, 8)])
def test_auto_fills_half_of_the_free_memory(samples: float, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    student, inputs = ToyEncoder(width=6), cast(dict[str, Tensor], make_batch()["inputs"])
    each = bytes_of_a_sample(student, inputs)
    states = 3 * sum(p.nbytes for p in student.parameters())
    monkeypatch.setattr(micro_batches, "free_memory", lambda _: states + 2 * samples * each)
    reporter = Recorder()
    slices = MicroBatches("auto", reporter).slices(student, inputs)
    assert slices[0].stop == size
    assert slices[-1].stop == len(inputs["pixels"]) == 8
    assert bool(reporter.lines) == (size < 8)


class Shared(ToyEncoder):
    """Computes neighbors with equal letters once, as a student does with the turns of a conversation."""

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        _, row = torch.unique_consecutive(inputs["letters"], dim=0, return_inverse=True)
        first = torch.tensor([row.tolist().index(number) for number in range(int(row.max()) + 1)])
        outputs = super().forward({name: x[first] for name, x in inputs.items()})
        return {name: x[row] if x.ndim else x for name, x in outputs.items()}


def test_auto_does_not_take_the_turns_of_one_conversation_for_the_size_of_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twelve turns of three conversations: the first three rows are one conversation."""
    torch.manual_seed(0)
    student = Shared(width=6)
    turns = torch.rand(3, LETTERS).repeat_interleave(4, 0)
    inputs = {"pixels": torch.rand(12, 3, SIDE, SIDE), "letters": turns}
    one, two = (activation_bytes(student, {name: x[::step] for name, x in inputs.items()}) for step in (12, 6))
    each = two - one
    states = 3 * sum(p.nbytes for p in student.parameters())
    monkeypatch.setattr(micro_batches, "free_memory", lambda _: states + 2 * 2.5 * each)
    assert MicroBatches("auto").slices(student, inputs)[0].stop == 2


def test_weights_in_lower_precision_are_no_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    student = ToyEncoder(width=6, hidden=4096)
    inputs = {"pixels": torch.rand(8, 3, SIDE, SIDE), "letters": torch.rand(8, LETTERS)}
    states = 3 * sum(p.nbytes for p in student.parameters())
    each = bytes_of_a_sample(student, inputs)
    monkeypatch.setattr(micro_batches, "free_memory", lambda _: states + 2 * 4.5 * each)
    with torch.autocast("cpu", torch.bfloat16):
        assert MicroBatches("auto").slices(student, inputs)[0].stop >= 4, "half of the bytes, so not fewer samples"
