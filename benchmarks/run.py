"""The figures of kdkit's speed that a CPU can measure, each against a baseline in the same process.

    python benchmarks/run.py [--only NAME ...] [--quick] [--rounds 5] [--json FILE]

Contenders take turns; a figure is the median of the rounds with the smallest and largest. Times are processor seconds
of one thread, which other jobs on the machine hardly change; memory is what a process of its own grows by. ``--quick``
shrinks every size, for a look at the code rather than at the figures. ``benchmarks/gpu.py`` has the rows of a GPU.
Exits with 1 if a figure misses its target.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loss_contenders import LOSSES, agree, loss_peak, make_features, rank_share
from measuring import HEADER, Row, device_clock, machine, medians, ratios, row, take_turns
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from training_step import SMALL, TINY, DualEncoder, arguments_of, compare_loops, make_batch, make_task

from kdkit.core.features import FeatureStore
from kdkit.plugins.losses.clip import ClipLoss
from kdkit.plugins.losses.crd import RelationalDistillation
from kdkit.plugins.losses.icl import InteractiveContrast

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Given:
    """Sizes of all rows."""

    quick: bool
    rounds: int

    @property
    def losses(self) -> tuple[int, int, int]:
        """Batch, teachers, width."""
        return (128, 3, 64) if self.quick else (2048, 9, 512)


def losses(given: Given) -> Iterator[Row]:
    """Forward and backward of each loss: time and memory."""
    features = make_features(*given.losses, CPU)
    limits = {("crd", "open_clip"): (2.9, 40.0), ("crd", "shared"): (1.0, 10.0)}
    for name, others in {"crd": ("open_clip", "shared"), "clip": ("plain",), "icl": ("plain",)}.items():
        names = [f"{name} kdkit", *(f"{name} {other}" for other in others)]
        contenders = {n: (lambda n=n: features.gradients(LOSSES[n])) for n in names}
        seconds = take_turns(contenders, given.rounds, device_clock(CPU))
        peaks = {n: loss_peak(n, *given.losses) for n in names}
        for other in others:
            baseline = f"{name} {other}"
            fast, small = limits.get((name, other), (1.0, 10.0))
            same = agree(features, f"{name} kdkit", baseline)
            detail = {"cpu_seconds": medians(seconds), "gradients_differ": same}
            times = ratios(seconds, f"{name} kdkit", baseline)
            yield row(f"{name}: speed", f"{other}, same sizes", times, least=fast, detail=detail)
            saved = peaks[baseline] / max(peaks[f"{name} kdkit"], 0.01)
            yield row(f"{name}: memory saved", f"{other}, same sizes", [saved], least=small, detail={"mib": peaks})


def gradients(given: Given) -> Iterator[Row]:
    """float32 gradients, chunked and in micro-batches, against plain float64."""
    features = make_features(*((64, 3, 32) if given.quick else (512, 9, 256)), CPU)
    for name, plain in (("crd", "shared"), ("clip", "plain"), ("icl", "plain")):
        exact = features.to(torch.float64).gradients(LOSSES[f"{name} {plain}"])
        pairs = list(zip(features.gradients(LOSSES[f"{name} kdkit"]), exact, strict=True))
        errors = [float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in pairs if b.any()]
        yield row(f"{name}: gradient error", "plain torch, float64", [max(errors)], unit="relative", most=1e-5)
    yield _micro_batch_error()


def _micro_batch_error() -> Row:
    """Of every parameter of a small student, the norm of the difference relative to the gradient's norm.

    Gradients that are zero but for rounding have no relative error: softmax ignores the biases of attention's keys.
    """
    batch, found = make_batch(TINY, CPU), {}
    for micro, dtype in ((None, torch.float64), (2, torch.float32)):
        task = make_task(DualEncoder(TINY), batch.targets, micro).to(dtype)
        task(**arguments_of(batch, dtype))["loss"].backward()
        found[dtype] = {name: p.grad.double() for name, p in task.named_parameters() if p.grad is not None}
    exact, cached = found[torch.float64], found[torch.float32]
    whole = torch.stack([g.norm() for g in exact.values()]).norm()
    errors = [float((cached[n] - g).norm() / g.norm()) for n, g in exact.items() if g.norm() > 1e-9 * whole]
    detail = {"median": statistics.median(errors), "parameters": len(errors), "zero": len(exact) - len(errors)}
    name = "micro-batches: gradient error"
    return row(name, "float64, whole batch", [max(errors)], unit="relative", most=1e-5, detail=detail)


def flops(given: Given) -> Iterator[Row]:
    """Counted operations of a loss on one of four ranks, relative to the whole batch on one."""
    features = make_features(*((64, 3, 32) if given.quick else (512, 9, 256)), CPU)
    batch = features.batch()
    made: Mapping[str, nn.Module] = {
        "crd": RelationalDistillation(targets="ensemble"), "clip": ClipLoss(), "icl": InteractiveContrast()
    }  # fmt: skip
    for name, loss in made.items():
        counts = []
        for given_batch in (batch, rank_share(batch, 1, 4)):
            with FlopCounterMode(display=False) as counter:
                torch.autograd.backward(loss(given_batch))
            counts.append(counter.get_total_flops())
        yield row(f"{name}: operations of a rank of 4", "whole batch on one", [counts[1] / counts[0]], most=0.30)


def store(given: Given) -> Iterator[Row]:
    """Random rows of the feature store against raw memory maps; both in the page cache."""
    import feature_store as bench

    samples, batches = (2000, 40) if given.quick else (20_000, 400)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for teacher in range(bench.TEACHERS):
            bench.make_raw(folder, bench.make_column(folder, teacher, samples, 1))
        bench.read_again(folder)
        opened = FeatureStore(folder)
        columns = [opened.column(teacher) for teacher in opened.teachers]
        raw = [[np.load(bench.raw_path(folder, c, s), mmap_mode="r") for s in bench.SIGNALS] for c in columns]
        contenders = {
            "np.memmap": lambda rows: [array.take(rows, axis=0) for pair in raw for array in pair],
            "kdkit": lambda rows: [c.gather(s, rows) for c in columns for s in bench.SIGNALS],
        }
        rng = np.random.default_rng(0)
        bench.check(contenders, rng.integers(0, samples, bench.BATCH))
        rates = bench.measure(contenders, rng, samples, batches)
    parts = max(1, batches // given.rounds)
    shares = [
        statistics.median(rates["kdkit"][i : i + parts]) / statistics.median(rates["np.memmap"][i : i + parts])
        for i in range(0, batches - parts + 1, parts)
    ]
    detail = {"samples_per_second": {name: statistics.median(values) for name, values in rates.items()}}
    yield row("store: 256 random rows, 5 teachers", "np.memmap take", shares, least=0.95, detail=detail)


def step(given: Given) -> Iterator[Row]:
    """The training loop with cached teachers against a hand-written one."""
    seconds = compare_loops(TINY if given.quick else SMALL, CPU, 4 + 2 * given.rounds, device_clock(CPU))
    overhead = [a / b - 1 for a, b in zip(seconds["kdkit"], seconds["by hand"], strict=True)]
    detail = {"cpu_seconds": medians(seconds)}
    yield row("training step: overhead", "hand-written loop", overhead, unit="of a step", most=0.05, detail=detail)


def extraction(given: Given) -> Iterator[Row]:
    """Extraction in one pass against bare forwards of prepared inputs."""
    import extraction as bench

    count, teachers, model = (8, 2, "test_vit") if given.quick else (32, 4, "vit_tiny_patch16_224")
    with tempfile.TemporaryDirectory() as folder:
        index = bench.make_images(Path(folder), count)
        models = [bench.Vision(model, seed, distinct=False) for seed in range(teachers)]
        made = bench.extractions(models, index, Path(folder) / "store", bench.prepared(models, index))
        contenders = {name: made[name] for name in ("bare forward", "one pass")}
        seconds = take_turns(contenders, given.rounds, device_clock(CPU))
    detail = {"cpu_seconds": medians(seconds), "model": model}
    values = ratios(seconds, "one pass", "bare forward")
    yield row(f"extraction, {teachers} teachers", "sum of bare forwards", values, least=0.97, detail=detail)


ROWS: dict[str, Callable[[Given], Iterator[Row]]] = {
    "losses": losses,
    "gradients": gradients,
    "flops": flops,
    "store": store,
    "step": step,
    "extraction": extraction,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(ROWS), nargs="+", default=list(ROWS))
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    given = Given(options.quick, 1 if options.quick else options.rounds)
    with one_thread():
        return measure(given, options.only, options.json)


def measure(given: Given, names: list[str], path: Path | None) -> int:
    """Print each row when it is known; write them all."""
    before, found = machine(), []
    print(HEADER, flush=True)
    for name in names:
        for line in ROWS[name](given):
            found.append(line)
            print(line.line(), flush=True)
    missed = [line.name for line in found if line.reached is False]
    load = os.getloadavg()[0]
    print(f"\nload {before['load']:.1f} before, {load:.1f} after; {before['cores']} cores, one thread")
    if path is not None:
        rows: list[dict[str, Any]] = [line.as_json() for line in found]
        report = {"machine": before, "load_after": load, "quick": given.quick, "rows": rows}
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if missed and not given.quick:
        print("missed: " + "; ".join(missed))
    return int(bool(missed) and not given.quick)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's operators use one thread, so that processor seconds compare."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
