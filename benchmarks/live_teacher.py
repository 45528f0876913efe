"""A training step with a teacher's stored signals, and with the same teacher asked live; it is as large as the student.

    python benchmarks/live_teacher.py [--steps 12] [--only clinkd|adapters|dual]

Both ways train in this process, a step of one and a step of the other by turns. A step is what the engine does: rows
or teacher, prepared images (the student's are kept in memory after the first epoch, which is not counted), forward,
backward, optimizer. Times are of the processor, over all threads: in wall-clock time a live teacher hides behind the
student's step where cores are free. Nothing is downloaded; weights are random.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from kdkit.core.contracts import Silent, Student
from kdkit.core.distill.loop.optimizer import make_optimizer
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.model.build import build
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.project.project import Project
from kdkit.core.teachers import add_teacher

SAMPLES, BATCH, SIDE, ANSWER = 32, 8, 224, 20
"""Samples, samples of a batch, pixels of an image's side, words of an answer."""
WORDS = [f"w{number}" for number in range(8000)]
SIZES = {"hidden": 384, "layers": 8, "heads": 6, "kv_heads": 2, "words": WORDS}
SIZES |= {"vision_hidden": 256, "vision_layers": 10, "vision_heads": 4}
CLINKD: dict[str, Any] = {"sizes": SIZES, "max_tokens": 192, "max_answer": 48, "max_pixels": SIDE * SIDE}
DUAL: dict[str, Any] = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": SIDE, "layers": 6, "width": 256, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4},
}
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """A family, its config (given the folder of its first weights), its loader and recipe."""

    family: str
    config: Callable[[str], Config]
    first: Config
    loader: str
    recipe: str


SETTINGS = {
    "clinkd": Setting("clinkd", lambda _: CLINKD, CLINKD, "image-text-to-text", "clinkd"),
    "adapters": Setting(
        "clinkd",
        lambda folder: {"init": folder, "lora": {"r": 16}, "max_tokens": 192, "max_answer": 48},
        CLINKD,
        "image-text-to-text",
        "clinkd",
    ),
    "dual": Setting("open_clip", lambda _: {"model_cfg": DUAL}, {"model_cfg": DUAL}, "open_clip", "kdkit"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", choices=list(SETTINGS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| student | parameters | stored, s | live, s | live / stored |\n|---|---|---|---|---|")
    for name in [arguments.only] if arguments.only else SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            print(row(name, Path(folder), arguments.steps), flush=True)


def row(name: str, root: Path, steps: int) -> str:
    """A line of the table."""
    size = make_project(root, SETTINGS[name])
    ways = {way: steps_of(root, live=way == "live", steps=steps) for way in ("stored", "live")}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(SAMPLES // BATCH + steps):
        for way, timed in ways.items():
            seconds[way].append(next(timed))
    stored, live = (seconds[way][SAMPLES // BATCH :] for way in ("stored", "live"))
    ratios = [b / a for a, b in zip(stored, live, strict=True)]
    return f"| {name} | {size / 1e6:.1f} million | {spread(stored)} | {spread(live)} | {spread(ratios)} |"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def make_project(root: Path, setting: Setting) -> int:
    """A project with one teacher, whose architecture is the student's; its parameters."""
    images, noise = root / "images", random.Random(0)
    images.mkdir()
    rows = []
    for number in range(SAMPLES):
        pixels = np.frombuffer(noise.randbytes(SIDE * SIDE * 3), dtype=np.uint8).reshape(SIDE, SIDE, 3)
        Image.fromarray(pixels).save(images / f"{number}.png")
        text = " ".join(noise.choices(WORDS, k=ANSWER))
        rows.append({"id": f"s{number}", "image": f"{number}.png", "text": text, "domain": "ct", "split": "train"})
    (images / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    torch.manual_seed(1)
    made: Any = Project(root).catalogue.make("student", setting.family, **setting.first)
    first = root / "models" / "first"
    first.parent.mkdir()
    cast(Student, made).save(first)
    registry = {
        "version": 1,
        "student": {"family": setting.family, "config": setting.config("./models/first")},
        "teachers": None,
        "data": [{"source": "jsonl", "path": "images/samples.jsonl"}],
        "recipe": setting.recipe,
        "trust": {"policy": "all", "options": {"unmeasured": True}},
        "optimizer": {"batch_size": BATCH, "steps": 1000, "lr": 1e-5},
    }
    # JSON is YAML, but a teacher is added to a block alone.
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in registry.items() if value is not None)
    (root / "registry.yaml").write_text(text + "teachers:\n", encoding="utf-8")
    fields = {"from": "local:models/first", "loader": setting.loader, "license": "mit"}
    add_teacher(Project(root), "teacher", fields)
    return sum(p.numel() for p in cast(nn.Module, made).parameters())


def steps_of(root: Path, *, live: bool, steps: int) -> Iterator[float]:
    """Seconds of each step, which is made when it is asked for."""
    path = root / "registry.yaml"
    text = path.read_text(encoding="utf-8").replace("\n    signals: live", "")
    path.write_text(text + ("    signals: live\n" if live else ""), encoding="utf-8")
    project = Project(root)
    prepared = prepare(project, Options(cpu=True), Silent())
    plan = prepared.plan
    assert [teacher.live for teacher in plan.teachers] == [live]
    made = build(
        plan,
        prepared.inventory,
        prepared.student,
        scratch=project.state / "previous-version",
        reporter=Silent(),
    )
    schedule = BatchSampler(plan.pools, batch_size=plan.batch_size, steps=steps + SAMPLES, seed=0)
    feed = made.dataloader(plan, schedule, Accelerator(cpu=True))
    made.task.train()
    return timed_steps(made.task, feed, make_optimizer(made.task, plan.settings))


def timed_steps(task: nn.Module, feed: Any, optimizer: torch.optim.Optimizer) -> Iterator[float]:
    """Runs for ever."""
    number = 0
    while True:
        begun = time.process_time()
        task(**feed.make(number).to(torch.device("cpu")))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        number += 1
        yield time.process_time() - begun


if __name__ == "__main__":
    main()
