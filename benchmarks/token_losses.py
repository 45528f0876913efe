"""Peak memory and time of token losses at a large vocabulary, against what a good engineer would write.

    python benchmarks/token_losses.py [--tokens 1024] [--vocabulary 151936] [--width 256] [--runs 5]

Forward and backward of the KL from a teacher's stored top-64 and tail, and of cross entropy beside it, from the same
states and output embedding: plain torch over all logits, each loss in a pass of its own, both in one pass, and torch's
chunked ``linear_cross_entropy`` (where torch has it) beside a pass of ``token-kd``.
Peak memory is what the process grows by beyond these, in a process of its own; times (of the processor) are taken
interleaved in this one.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from measuring import peak_here, peak_of
from torch import Tensor

from kdkit.core.contracts import LossInput, TeacherView
from kdkit.core.contracts.token_signals import compress
from kdkit.plugins.losses.tokens.losses import AnswerCrossEntropy, TokenDistillation
from kdkit.plugins.losses.tokens.signals import at_temperature
from kdkit.plugins.losses.tokens.together import together

Setting = tuple[Tensor, Tensor, dict[str, Tensor]]


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
        print(peak_here(lambda: WAYS[arguments.peak_of](*setting)))
        return
    sizes = ["--tokens", str(arguments.tokens), "--vocabulary", str(arguments.vocabulary)]
    sizes += ["--width", str(arguments.width)]
    peaks = {name: peak_of(__file__, ["--peak-of", name, *sizes]) for name in WAYS}
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
        s = seconds[name]
        times = f"{statistics.median(s):.2f} ({min(s):.2f} to {max(s):.2f})"
        print(f"| {name} | {peaks[name]:.0f} | {times} | {values[name]:.7f} |")


def make(tokens: int, vocabulary: int, width: int, k: int = 64) -> Setting:
    """Student states and embedding, token ids, and the teacher's stored top-k, at random; two answers."""
    g = torch.Generator().manual_seed(0)
    student, head = (
        torch.randn(*shape, generator=g) * width**-0.25 for shape in ((tokens, width), (vocabulary, width))
    )
    parts = [compress(3 * torch.randn(64, vocabulary, generator=g), k) for _ in range(tokens // 64)]
    ids, log_p, tail = (torch.cat(part) for part in zip(*parts, strict=True))
    target = {"tokens": ids[:, 0], "topk_ids": ids, "topk": log_p.half(), "tail": tail.half()}
    two = {name: x.reshape(2, tokens // 2, *x.shape[1:]) for name, x in target.items()}
    return student.requires_grad_(), head.requires_grad_(), two


def plain(student: Tensor, head: Tensor, stored: dict[str, Tensor]) -> float:
    """Logits of all tokens, ``log_softmax``, the k classes and the rest, ``kl_div``, backward."""
    student.grad = head.grad = None
    loss = _plain_kl((student @ head.T).log_softmax(-1), stored)
    torch.autograd.backward(loss)
    return loss.item()


def _plain_kl(log_q: Tensor, stored: dict[str, Tensor]) -> Tensor:
    ids = stored["topk_ids"].flatten(0, 1).long()
    named = log_q.gather(-1, ids)
    rest = log_q.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    log_p = at_temperature(stored["topk"].flatten(0, 1).float(), stored["tail"].flatten(0, 1).float(), 1.0)
    return F.kl_div(torch.cat([named, rest], dim=-1), log_p, reduction="batchmean", log_target=True)


def plain_both(student: Tensor, head: Tensor, stored: dict[str, Tensor]) -> float:
    """As :func:`plain`, with the cross entropy of the same logits."""
    student.grad = head.grad = None
    log_q = (student @ head.T).log_softmax(-1)
    loss = _plain_kl(log_q, stored) + F.nll_loss(log_q, stored["tokens"].flatten().long())
    torch.autograd.backward(loss)
    return loss.item()


def kdkit(student: Tensor, head: Tensor, stored: dict[str, Tensor]) -> float:
    """The loss ``token-kd``."""
    student.grad = head.grad = None
    loss = TokenDistillation()(batch_of(student, head, stored))
    torch.autograd.backward(loss)
    return loss.item()


def two_passes(student: Tensor, head: Tensor, stored: dict[str, Tensor]) -> float:
    """``answer-ce`` and ``token-kd``, each with logits of its own."""
    student.grad = head.grad = None
    batch = batch_of(student, head, stored)
    loss = AnswerCrossEntropy()(batch) + TokenDistillation()(batch)
    torch.autograd.backward(loss)
    return loss.item()


def one_pass(student: Tensor, head: Tensor, stored: dict[str, Tensor]) -> float:
    """``answer-ce`` and ``token-kd`` from the same logits."""
    student.grad = head.grad = None
    batch = batch_of(student, head, stored)
    loss, _ = together([AnswerCrossEntropy(), TokenDistillation()], [batch, batch], [1.0, 1.0])
    torch.autograd.backward(loss)
    return loss.item()


def torch_and_kdkit(student: Tensor, head: Tensor, stored: dict[str, Tensor]) -> float:
    """torch's chunked ``linear_cross_entropy``, and a pass of ``token-kd``."""
    student.grad = head.grad = None
    ids = stored["tokens"].flatten().long()
    ce = F.linear_cross_entropy(student, head, ids, options=torch.nn.LinearCrossEntropyOptions())
    loss = ce + TokenDistillation()(batch_of(student, head, stored))
    torch.autograd.backward(loss)
    return loss.item()


def batch_of(student: Tensor, head: Tensor, stored: dict[str, Tensor]) -> LossInput:
    """Two answers and their teacher, as losses get them."""
    outputs = {"answer_hidden": student.reshape(2, -1, student.shape[1]), "output_embedding": head}
    view = TeacherView("teacher", torch.ones(2), stored, {})
    return LossInput({**outputs, "answer_ids": stored["tokens"]}, (view,), torch.zeros(2, dtype=torch.long))


WAYS = {
    "plain KL": plain,
    "token-kd": kdkit,
    "plain CE + KL": plain_both,
    "answer-ce, token-kd: two passes": two_passes,
    "answer-ce, token-kd: one pass": one_pass,
}
if hasattr(torch.nn, "LinearCrossEntropyOptions"):  # torch 2.14
    WAYS["torch's linear_cross_entropy, token-kd"] = torch_and_kdkit


if __name__ == "__main__":
    main()
