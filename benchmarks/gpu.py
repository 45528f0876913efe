"""The figures of kdkit's speed on one GPU, each against a baseline of the same run; under 8 minutes.

    python benchmarks/gpu.py [--only NAME ...] [--seconds 420] [--json FILE]
    python benchmarks/gpu.py --device cpu --tiny      # every row in small: for a look at the code

Needs a checkout and what ``pip install kdkit`` installs: weights are random, nothing is downloaded. Rows are printed
when they are known; the JSON comes last. A row starts while less than ``--seconds`` have passed, and one that fails is
named with its error; the others run. Exits with 3 if there is no GPU, with 1 if a row failed or missed its target.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from loss_contenders import LOSSES, agree, make_features
from measuring import HEADER, Row, device_clock, gpu_peak, machine, medians, ratios, row, take_turns
from training_step import TINY, Size, compare_loops, flops_of_step

NO_GPU, FAILED = 3, 1


@dataclass(frozen=True)
class Given:
    """The device, and whether all sizes are tiny."""

    device: torch.device
    tiny: bool

    @property
    def student(self) -> Size:
        return TINY if self.tiny else Size()


def crd(given: Given) -> Iterator[Row]:
    """crd with an ensemble of teachers: time and memory of forward and backward."""
    features = make_features(*((64, 2, 32) if given.tiny else (8192, 9, 512)), given.device)
    contenders = {name: (lambda n=name: features.gradients(LOSSES[n])) for name in LOSSES if name.startswith("crd")}
    seconds = take_turns(contenders, 1 if given.tiny else 5, device_clock(given.device))
    for other in ("open_clip", "shared"):
        detail = {"seconds": medians(seconds), "gradients_differ": agree(features, "crd kdkit", f"crd {other}")}
        times = ratios(seconds, "crd kdkit", f"crd {other}")
        yield row("crd ensemble: speed", other, times, least={"open_clip": 2.9, "shared": 1.0}[other], detail=detail)
    if given.device.type == "cuda":
        peaks = {name: gpu_peak(run, given.device) for name, run in contenders.items()}
        for other, least in (("open_clip", 40.0), ("shared", 10.0)):
            saved = peaks[f"crd {other}"] / peaks["crd kdkit"]
            yield row("crd ensemble: memory saved", other, [saved], least=least, detail={"mib": peaks})


def largest_batch(given: Given) -> Iterator[Row]:
    """The largest power of two that the loss computes, of 9 teachers; a step over 20 s ends the search too."""
    largest, ended = {}, {}
    for name in ("crd open_clip", "crd kdkit"):
        largest[name], ended[name] = _double(name, given)
    detail = {"largest": largest, "ended_by": ended}
    times = [largest["crd kdkit"] / largest["crd open_clip"]]
    yield row("largest batch of the loss, 9 teachers", "DistillClipLoss per teacher", times, least=16, detail=detail)


def _double(name: str, given: Given) -> tuple[int, str]:
    clock, batch = device_clock(given.device), 32 if given.tiny else 4096
    largest = 0
    while True:
        try:
            features = make_features(batch, 2 if given.tiny else 9, 32 if given.tiny else 512, given.device)
            begun = clock()
            features.gradients(LOSSES[name])
            seconds = clock() - begun
        except torch.OutOfMemoryError:
            return largest, "memory"
        finally:
            del_cache(given.device)
        largest = batch
        if given.tiny and batch >= 64:
            return largest, "size"
        if seconds > 20:
            return largest, "time"
        batch *= 2


def del_cache(device: torch.device) -> None:
    """Give freed memory back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def step(given: Given) -> Iterator[Row]:
    """kdkit's training step in bf16 against a hand-written loop, and its share of the matrix units' ceiling."""
    size, micro = given.student, None
    steps = 6 if given.tiny else 10
    while True:
        try:
            clock = device_clock(given.device)
            seconds = compare_loops(size, given.device, steps, clock, precision="bf16", micro=micro)
            break
        except torch.OutOfMemoryError:
            micro = size.batch // 2 if micro is None else micro // 2
        del_cache(given.device)
    detail = {"seconds": medians(seconds), "batch": size.batch, "micro_batch": micro}
    overhead = [a / b - 1 for a, b in zip(seconds["kdkit"], seconds["by hand"], strict=True)]
    yield row("training step, ViT-B/16 + BERT, bf16: overhead", "hand-written loop", overhead, unit="of a step",
              most=0.02, detail=detail)  # fmt: skip
    ceiling, work = matmul_rate(given), flops_of_step(size, given.device)
    used = [work / s / ceiling for s in seconds["kdkit"]]
    detail |= {"ceiling_tflops": ceiling / 1e12, "step_tflop": work / 1e12}
    yield row("model FLOP utilization", "matmul ceiling of this run", used, unit="of it", least=0.5, detail=detail)


def matmul_rate(given: Given) -> float:
    """bf16 operations per second of a large product; the best of ten."""
    side = 128 if given.tiny else 8192
    a, b = (torch.randn(side, side, device=given.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = take_turns({"matmul": lambda: [a @ b for _ in range(10)]}, 10, device_clock(given.device))
    return 10 * 2 * side**3 / max(min(seconds["matmul"]), 1e-9)


def extraction(given: Given) -> Iterator[Row]:
    """kdkit's extraction of a teacher against its bare forwards of prepared inputs, in wall-clock time."""
    import extraction as bench

    count, model = (8, "test_vit") if given.tiny else (2048, "vit_base_patch16_224")
    with tempfile.TemporaryDirectory() as folder:
        index = bench.make_images(Path(folder), count)
        models = [bench.Vision(model, 0, distinct=False).to(given.device)]
        made = bench.extractions(
            models, index, Path(folder) / "store", bench.prepared(models, index), device=str(given.device),
            batch=4 if given.tiny else 256, block=8 if given.tiny else 512,
        )  # fmt: skip
        contenders = {name: made[name] for name in ("bare forward", "one pass")}
        seconds = take_turns(contenders, 1 if given.tiny else 3, device_clock(given.device))
    detail = {"seconds": medians(seconds), "images": count, "precision": "float32"}
    values = ratios(seconds, "one pass", "bare forward")
    yield row("extraction, ViT-B/16, 512-pixel JPEGs", "bare forwards", values, least=0.95, detail=detail)


ROWS: dict[str, Callable[[Given], Iterator[Row]]] = {
    "crd": crd,
    "step": step,
    "largest-batch": largest_batch,
    "extraction": extraction,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(ROWS), nargs="+", default=list(ROWS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=420)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU: torch finds no CUDA device on this machine, so nothing was measured", file=sys.stderr)
        print("'--device cpu --tiny' runs every row in small, to test the code", file=sys.stderr)
        return NO_GPU
    return measure(Given(torch.device(options.device), options.tiny), options.only, options.seconds, options.json)


def measure(given: Given, names: list[str], seconds: float, path: Path | None) -> int:
    """Print each row when it is known, then everything as JSON."""
    begun, found, problems = time.monotonic(), [], {}
    facts = machine()
    print(json.dumps(facts), HEADER, sep="\n", flush=True)
    for name in names:
        if time.monotonic() - begun > seconds:
            problems[name] = f"not started: {seconds:g} s were over"
            continue
        try:
            for line in ROWS[name](given):
                found.append(line)
                print(line.line(), flush=True)
        except Exception as error:  # a rented GPU is not wasted for one row
            problems[name] = f"{type(error).__name__}: {error}"
        del_cache(given.device)
    for name, problem in problems.items():
        print(f"{name}: {problem}", file=sys.stderr)
    report = {"machine": facts, "tiny": given.tiny, "seconds": time.monotonic() - begun, "problems": problems}
    text = json.dumps({**report, "rows": [line.as_json() for line in found]}, indent=1)
    print(text)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")
    missed = not given.tiny and any(line.reached is False for line in found)
    return FAILED if problems or missed else 0


if __name__ == "__main__":
    sys.exit(main())
