"""kdkit's training loop and a hand-written one, taking turns step by step on the same tensors.

The student is ViT + BERT (a text tower of transformers, made from its configuration: nothing is downloaded). Both loops
have the same losses: CLIP's, and the relations of some teachers with stored features. kdkit's loop is the real one: its
task, losses, optimizer groups, clipping, learning rate, and a check that the loss is finite.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from loss_contenders import SCALE, Features, clip_plain, crd_shared
from measuring import Clock
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from kdkit.core.contracts import Silent
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.dataloader import DistillBatch
from kdkit.core.distill.loop.optimizer import make_optimizer
from kdkit.core.distill.loop.train import train
from kdkit.core.distill.model.micro_batches import MicroBatches
from kdkit.core.distill.model.projection import TeacherProjection
from kdkit.core.distill.model.task import DistillTask, Term
from kdkit.core.distill.plan.types import TrainSettings
from kdkit.plugins.losses.clip import ClipLoss
from kdkit.plugins.losses.crd import RelationalDistillation


@dataclass(frozen=True)
class Size:
    """A student and its batches."""

    vision: str = "vit_base_patch16_224"
    pixels: int = 224
    text: Mapping[str, int] | None = None  # of BertConfig; None: BERT base
    tokens: int = 77
    width: int = 512
    batch: int = 4096
    teachers: int = 9


TINY_TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TINY_TEXT |= {"vocab_size": 500}
TINY = Size("test_vit", 160, TINY_TEXT, 16, 32, 4, 2)
SMALL_TEXT = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 768}
SMALL = Size("vit_tiny_patch16_224", 224, SMALL_TEXT, 32, 256, 16, 4)
"""For a CPU."""


class DualEncoder(nn.Module):
    """ViT and BERT, with a linear map each into one space."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.vision = timm.create_model(size.vision, num_classes=0)
        config = BertConfig(**(size.text or {}), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        self.text = BertModel(config, add_pooling_layer=False)
        self.image_map = nn.Linear(self.vision.num_features, size.width, bias=False)
        self.text_map = nn.Linear(config.hidden_size, size.width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(SCALE).log())

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``pixels`` (B, 3, H, W) and ``tokens`` (B, L) -> ``image``, ``text`` (B, D) and ``logit_scale``."""
        states = self.text(input_ids=inputs["tokens"]).last_hidden_state
        return {
            "image": self.image_map(self.vision(inputs["pixels"])),
            "text": self.text_map(states[:, 0]),
            "logit_scale": self.log_scale.exp(),
        }


def make_batch(size: Size, device: torch.device) -> DistillBatch:
    """Random pictures, texts and teachers' features."""
    vocabulary = (size.text or {}).get("vocab_size", 30_000)
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    tokens = torch.randint(1, vocabulary, (size.batch, size.tokens), generator=generator, device=device)
    targets = {
        f"t{number}": {name: F.normalize(draw(size.batch, size.width), dim=-1) for name in ("image", "text")}
        for number in range(size.teachers)
    }
    weights = {name: torch.ones(size.batch, device=device) for name in targets}
    inputs = {"pixels": draw(size.batch, 3, size.pixels, size.pixels), "tokens": tokens}
    return DistillBatch(inputs, targets, weights, torch.zeros(size.batch, dtype=torch.int64, device=device))


def arguments_of(batch: DistillBatch, dtype: torch.dtype) -> dict[str, Any]:
    """The task's arguments, with real numbers of another type."""

    def cast(x: Any) -> Any:
        if isinstance(x, Mapping):
            return {name: cast(value) for name, value in x.items()}
        return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

    return {name: cast(value) for name, value in batch.to(batch.domain.device).items()}


def make_task(student: nn.Module, teachers: Mapping[str, object], micro: int | None) -> DistillTask:
    """CLIP, and the relations of the teachers."""
    crd = RelationalDistillation(targets="ensemble", temperature=1 / SCALE)
    terms = [Term("clip", 1.0, ClipLoss(positives="own"), by_rows=True), Term("crd", 1.0, crd, by_rows=True)]
    projections = {name: TeacherProjection() for name in teachers}
    return DistillTask(student, projections, terms, micro_batches=MicroBatches(micro))


def settings_of(steps: int) -> TrainSettings:
    return TrainSettings(
        steps=steps, lr=1e-4, weight_decay=0.02, betas=(0.9, 0.98), warmup=0.05, schedule="cosine", clip_norm=1.0,
        seed=0, checkpoint_seconds=1e9,
    )  # fmt: skip


def compare_loops(
    size: Size, device: torch.device, steps: int, clock: Clock, *, precision: str = "no", micro: int | None = None
) -> dict[str, list[float]]:
    """Seconds of each step of ``kdkit`` and ``by hand``; the first two steps of each are not counted.

    Raises:
        torch.OutOfMemoryError: the batch does not fit.
    """
    batch = make_batch(size, device)
    student = DualEncoder(size).to(device)
    hand = hand_written(copy.deepcopy(student), batch, settings_of(steps), precision, micro)
    seconds: dict[str, list[float]] = {"kdkit": [], "by hand": []}

    class Loader:
        """Requests come between the steps of kdkit; then the other loop makes one."""

        pauses: frozenset[int] = frozenset()

        def batches(self, start: int) -> Iterator[tuple[int, DistillBatch]]:
            for step in range(start, steps):
                begun = clock()
                yield step, batch
                seconds["kdkit"].append(clock() - begun)
                begun = clock()
                hand()
                seconds["by hand"].append(clock() - begun)

    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision)
    task = make_task(student, batch.targets, micro)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        train(task, Loader(), settings_of(steps), accelerator=accelerator, checkpoints=checkpoints, reporter=Silent())
    # The last step of kdkit writes a checkpoint.
    return {name: values[2:-1] for name, values in seconds.items()}


def hand_written(
    student: nn.Module, batch: DistillBatch, settings: TrainSettings, precision: str, micro: int | None
) -> Callable[[], None]:
    """One step of a plain loop: with ``micro``, open_clip's ``--accum-freq``: features first, then part by part."""
    optimizer = make_optimizer(student, settings)
    device = batch.domain.device
    teachers = tuple((target["image"], target["text"]) for target in batch.targets.values())
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")

    def forward(rows: slice) -> Mapping[str, Tensor]:
        with autocast:
            outputs: Mapping[str, Tensor] = student({name: x[rows] for name, x in batch.inputs.items()})
        return {name: x.float() for name, x in outputs.items()}

    def loss(outputs: Mapping[str, Tensor]) -> Tensor:
        features = Features(outputs["image"], outputs["text"], outputs["logit_scale"], teachers)
        return clip_plain(features) + crd_shared(features)

    def step() -> None:
        if micro is None:
            loss(forward(slice(None))).backward()
        else:
            in_parts(forward, loss, range(0, len(batch.domain), micro), micro)
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def in_parts(
    forward: Callable[[slice], Mapping[str, Tensor]],
    loss: Callable[[Mapping[str, Tensor]], Tensor],
    starts: range,
    size: int,
) -> None:
    """GradCache by hand (arXiv 2101.06983): features, their gradients, then each part with these."""
    rows = [slice(start, start + size) for start in starts]
    with torch.no_grad():
        parts = [forward(part) for part in rows]
    whole = {name: torch.cat([part[name] for part in parts]).requires_grad_() for name in ("image", "text")}
    scale = parts[0]["logit_scale"].clone().requires_grad_()
    loss({**whole, "logit_scale": scale}).backward()
    for number, part in enumerate(rows):
        outputs = forward(part)
        pairs: list[tuple[Tensor, Any]] = [(outputs[name], whole[name].grad[part]) for name in whole]  # type: ignore[index]
        if number == 0:
            pairs.append((outputs["logit_scale"], scale.grad))
        torch.autograd.backward([x for x, _ in pairs], [g for _, g in pairs])


def flops_of_step(size: Size, device: torch.device) -> float:
    """Floating-point operations of forward and backward of the towers for the whole batch (multiply and add are two).

    Counted for two samples; towers treat samples alike.
    """
    two = replace(size, batch=2)
    student, batch = DualEncoder(two).to(device), make_batch(two, device)
    with FlopCounterMode(display=False) as counter:
        outputs = student(batch.inputs)
        (outputs["image"].sum() + outputs["text"].sum()).backward()
    return counter.get_total_flops() * size.batch / 2
