"""Padding and time of a training step of answers: padded batches, packed ones, and conversations in one sequence.

    python benchmarks/packing.py [--samples 16] [--hidden 128] [--layers 4] [--pack 1024] [--runs 5]

Forward and backward of a Qwen2-VL-shaped student over questions of mixed lengths (log-normal, as answers and reports
are), and over conversations of four turns. Times are of the processor, taken in turn in one process. The largest
difference of the gradients is relative to the largest gradient.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from kdkit.core.contracts import Sample
from kdkit.plugins.students.clinkd.create import create_student
from kdkit.plugins.students.clinkd.packing import Packing
from kdkit.plugins.students.clinkd.shared_turns import owners
from kdkit.plugins.students.clinkd.student import ClinkdStudent

Inputs = dict[str, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--pack", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    torch.manual_seed(0)
    student = create_student(
        sizes={"hidden": given.hidden, "layers": given.layers, "vision_layers": 1, "words": ["nodule"]},
        max_tokens=1024,
        max_answer=512,
        max_pixels=112 * 112,
        system="",
    )
    mixed = [question(number, lengths(given.samples)[number]) for number in range(given.samples)]
    turns = [turn for number in range(given.samples // 4) for turn in conversation(number)]
    print("| samples | way | tokens of the language tower | CPU seconds: median (smallest to largest) | difference |")
    print("|---|---|---|---|---|")
    report(student, "mixed lengths", inputs_of(student, mixed), given.pack, given.runs)
    report(student, "four turns each", inputs_of(student, turns), given.pack, given.runs)


def lengths(count: int) -> list[int]:
    """Words of answers: most short, some long."""
    drawn = random.Random(0)
    return [min(400, max(4, round(drawn.lognormvariate(3.5, 1.0)))) for _ in range(count)]


def question(number: int, words: int) -> Sample:
    messages = [{"role": "user", "content": "<image>What is it?"}]
    return Sample(f"q{number}", Path("x.png"), "nodule " * words, "vqa/ct", extra={"messages": messages})


def conversation(number: int) -> list[Sample]:
    """Four turns about one image."""
    said = [{"role": "user", "content": f"<image>What is number {number}?"}]
    made = []
    for turn in range(4):
        text = "nodule " * (10 + 5 * turn)
        made.append(Sample(f"c{number}-{turn}", Path("x.png"), text, "vqa/ct", extra={"messages": list(said)}))
        said += [{"role": "assistant", "content": text}, {"role": "user", "content": "And then?"}]
    return made


def inputs_of(student: ClinkdStudent, samples: Sequence[Sample]) -> Inputs:
    pixels = random.Random(1).randbytes(112 * 112 * 3)
    image = Image.frombytes("RGB", (112, 112), pixels)
    rows = [student.prepare(image, sample) for sample in samples]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def report(student: ClinkdStudent, name: str, inputs: Inputs, pack: int, runs: int) -> None:
    count = len(inputs["tokens"])
    student.pack_samples(pack)
    packing = student.packing
    apart = [{key: x[n : n + 1] for key, x in inputs.items()} for n in range(count)]
    ways: dict[str, Callable[[], Tensor]] = {
        "a sequence each, padded": lambda: padded(student, inputs),
        "kdkit, padded": lambda: step(student, [inputs], None),
        f"kdkit, pack_tokens {pack}": lambda: step(student, [inputs], packing),
        "one by one": lambda: step(student, apart, None),
    }
    whole = {way: run() for way, run in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, run in ways.items():
            start = time.process_time()
            run()
            seconds[way].append(time.process_time() - start)
    size, kept = inputs["length"], sorted(set(owners(inputs)))
    tokens = {
        "a sequence each, padded": count * int(size.max()),
        "kdkit, padded": len(kept) * int(size[kept].max()),
        f"kdkit, pack_tokens {pack}": int(size[kept].sum()),
        "one by one": int(size.sum()),
    }
    exact = whole["one by one"]
    for way, s in seconds.items():
        difference = float((whole[way] - exact).abs().max() / exact.abs().max())
        times = f"{statistics.median(s):.2f} ({min(s):.2f} to {max(s):.2f})"
        print(f"| {name} | {way} | {tokens[way]:,} | {times} | {difference:.1g} |", flush=True)


def step(student: ClinkdStudent, parts: Sequence[Inputs], packing: Packing | None) -> Tensor:
    """Forward and backward of the parts; the gradient of all weights."""
    student.zero_grad()
    student.packing = packing
    for part in parts:
        torch.autograd.backward(student(part)["answer_hidden"].square().sum())
    return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])


def padded(student: ClinkdStudent, inputs: Inputs) -> Tensor:
    """The whole batch in the padded rows that stock transformers takes, no sequence shared."""
    student.zero_grad()
    student.packing = None
    ids = inputs["answer_ids"]
    hidden = student._states(inputs)
    place = (inputs["start"][:, None] - 1 + torch.arange(ids.shape[1])).clamp(max=hidden.shape[1] - 1)
    answer = hidden[torch.arange(len(ids))[:, None], place].masked_fill((ids < 0)[..., None], 0)
    torch.autograd.backward(answer.square().sum())
    return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])


if __name__ == "__main__":
    main()
