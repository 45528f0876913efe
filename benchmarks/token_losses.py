"""Peak memory and time of distillation at a large vocabulary, against the plain KL a good engineer would write.

    python benchmarks/token_losses.py [--tokens 1024] [--vocabulary 151936] [--width 256] [--runs 5]

Both get the same states and output embeddings of student and teacher; forward and backward. Peak memory is what the
process grows by beyond these, in a process of its own; times (of the processor) are taken interleaved in this one.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kdkit.plugins.losses.tokens.chunked import sum_over_tokens
from kdkit.plugins.losses.tokens.divergence import forward_kl

Setting = tuple[Tensor, Tensor, Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peak-of", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        setting = make(arguments.tokens, arguments.vocabulary, arguments.width)
        before = _high_water()
        WAYS[arguments.peak_of](*setting)
        print(_high_water() - before)
        return
    sizes = ["--tokens", str(arguments.tokens), "--vocabulary", str(arguments.vocabulary)]
    sizes += ["--width", str(arguments.width)]
    peaks = {name: _peak(name, sizes) for name in WAYS}  # first: a child's peak is never below its parent's
    setting = make(arguments.tokens, arguments.vocabulary, arguments.width)
    values = {name: way(*setting) for name, way in WAYS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(arguments.runs):
        for name, way in WAYS.items():
            start = time.process_time()
            way(*setting)
            seconds[name].append(time.process_time() - start)
    print("| way | peak memory, MB | CPU seconds: median (smallest to largest) | value |\n|---|---|---|---|")
    for name in WAYS:
        command = [sys.executable, __file__, "--peak-of", name, *sizes]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        s = seconds[name]
        print(
            f"| {name} | {peak:.0f} | {statistics.median(s):.2f} ({min(s):.2f} to {max(s):.2f}) | {values[name]:.7f} |"
        )


def _high_water() -> float:
    """MB of memory that this process has held at most (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _peak(name: str, sizes: list[str]) -> float:
    command = [sys.executable, __file__, "--peak-of", name, *sizes]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def make(tokens: int, vocabulary: int, width: int) -> Setting:
    """Student states and embedding, teacher states and embedding, at random."""
    g = torch.Generator().manual_seed(0)
    shapes = ((tokens, width), (vocabulary, width), (tokens, width), (vocabulary, width))
    student, head, teacher, other = (torch.randn(*shape, generator=g) * width**-0.25 for shape in shapes)
    return student.requires_grad_(), head.requires_grad_(), teacher, other


def plain(student: Tensor, head: Tensor, teacher: Tensor, other: Tensor) -> float:
    """Logits of all tokens, two log softmaxes, ``kl_div``, backward."""
    student.grad = head.grad = None
    log_p = (teacher @ other.T).log_softmax(-1)
    loss = F.kl_div((student @ head.T).log_softmax(-1), log_p, reduction="batchmean", log_target=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def chunked(student: Tensor, head: Tensor, teacher: Tensor, other: Tensor) -> float:
    """The same through :func:`sum_over_tokens`."""
    student.grad = head.grad = None

    def value(logits: Tensor, part: slice) -> Tensor:
        return forward_kl((teacher[part] @ other.T).log_softmax(-1), logits.log_softmax(-1), 0).sum()

    loss = sum_over_tokens(student, head, value) / len(student)
    torch.autograd.backward(loss)
    return loss.item()


WAYS = {"plain KL": plain, "kdkit, chunked": chunked}


if __name__ == "__main__":
    main()
