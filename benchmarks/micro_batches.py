"""Peak memory and time of a contrastive step in micro-batches, against the whole batch.

    python benchmarks/micro_batches.py [--batch 128] [--sizes 64 16 4] [--runs 3]

Forward and backward of ``clip`` with a ViT-S/16 of open_clip at 112 pixels and a text tower of 4 layers, float32. Peak
memory is what the process grows by beyond weights and inputs, in a process of its own; CPU seconds are taken
interleaved in this one. The error is the largest difference of any gradient from the whole batch's, relative to the
largest value of that gradient.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import cast

import open_clip
import torch
from measuring import peak_here, peak_of
from torch import Tensor, nn

from kdkit.core.distill.model.micro_batches import MicroBatches
from kdkit.core.distill.model.task import DistillTask, Term
from kdkit.plugins.losses.clip import ClipLoss

WHOLE = "whole"


class Encoder(nn.Module):
    """A small dual encoder."""

    def __init__(self) -> None:
        super().__init__()
        vision = {"image_size": 112, "patch_size": 16, "width": 384, "layers": 12, "head_width": 64}
        text = {"context_length": 32, "vocab_size": 1000, "width": 256, "heads": 4, "layers": 4}
        self.clip = open_clip.CLIP(256, vision, text)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "image": self.clip.encode_image(inputs["pixels"]),
            "text": self.clip.encode_text(inputs["tokens"]),
            "logit_scale": self.clip.logit_scale.exp(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 16, 4])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    task, inputs = make(arguments.batch)
    if arguments.peak_of:
        print(peak_here(lambda: step(task, inputs, arguments.peak_of)))
        return
    names = [WHOLE, *map(str, arguments.sizes)]
    peaks = {name: peak_of(__file__, ["--batch", str(arguments.batch), "--peak-of", name]) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gradients: dict[str, dict[str, Tensor]] = {}
    for _ in range(arguments.runs):
        for name in names:
            start = time.process_time()
            gradients[name] = step(task, inputs, name)
            seconds[name].append(time.process_time() - start)
    print("| micro-batch | peak memory, MiB | CPU seconds: median (smallest to largest) | error |\n|---|---|---|---|")
    for name in names:
        s = seconds[name]
        error = max(
            float((gradients[name][key] - x).abs().max() / x.abs().max()) for key, x in gradients[WHOLE].items()
        )
        times = f"{statistics.median(s):.1f} ({min(s):.1f} to {max(s):.1f})"
        print(f"| {name} | {peaks[name]:.0f} | {times} | {error:.1e} |")


def make(batch: int) -> tuple[DistillTask, dict[str, Tensor]]:
    torch.manual_seed(0)
    inputs = {"pixels": torch.randn(batch, 3, 112, 112), "tokens": torch.randint(1, 1000, (batch, 32))}
    return DistillTask(Encoder(), {}, [Term("clip", 1.0, ClipLoss())]), inputs


def step(task: DistillTask, inputs: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The gradients of a step."""
    task.zero_grad()
    task.micro_batches = MicroBatches(None if name == WHOLE else int(name))
    rows = torch.zeros(len(inputs["pixels"]), dtype=torch.int64)
    task(inputs=inputs, targets={}, weights={}, domain=rows)["loss"].backward()
    return {key: cast(Tensor, p.grad).clone() for key, p in task.named_parameters()}


if __name__ == "__main__":
    main()
