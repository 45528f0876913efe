"""Reflective correction against the same run without it, and against a plain run of as much processor time.

    python benchmarks/correction.py [--seeds 24] [--steps 160] [--longer 1.7]

A tiny student (no teacher, recipe ``sft`` in small) learns from 96 noisy pictures where a square is. The answers are
unbalanced (70, 12, 10 and 8 %), so some are hard; it is judged on 120 other pictures with all four alike. The data are
the same for all seeds; a seed draws first weights and batches. Every other epoch the student answers all 96, and what
is wrong is fed back with the reference's text. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project

PLACES = {"left": (0, 21), "right": (42, 21), "top": (21, 0), "bottom": (21, 42)}
SHARES = (0.7, 0.12, 0.1, 0.08)
TRAIN, JUDGED, SIDE = 96, 120, 56
SIZES = {"hidden": 64, "layers": 2, "heads": 2, "kv_heads": 1, "words": [*PLACES, "Where", "is", "it"]}
STUDENT = {"sizes": SIZES, "max_tokens": 64, "max_answer": 8, "max_pixels": 3136, "system": "", "freeze_vision": False}
RECIPE = """\
name: small
summary: small
losses: [{{name: answer-ce}}]
trust: {{policy: all}}
optimizer: {{lr: 0.002, batch_size: 16, steps: {steps}}}
"""


def write_data(folder: Path) -> None:
    """Pictures of noise with a bright square, and where it is."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for number in range(TRAIN + JUDGED):
        train = number < TRAIN
        word = str(rng.choice(list(PLACES), p=SHARES if train else None))
        x, y = PLACES[word]
        pixels = rng.integers(0, 120, (SIDE, SIDE, 3)).astype(np.uint8)
        pixels[y : y + 14, x : x + 14] = rng.integers(150, 255)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        extra = {"task": "vqa", "messages": [{"role": "user", "content": "<image>Where is it"}]}
        about = {"domain": "vqa/ct", "split": "train" if train else "calibration", "extra": extra}
        rows.append({"id": f"s{number}", "image": f"{number}.png", "text": word, **about})
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(root: Path, seed: int, steps: int, correction: Mapping[str, Any] | None) -> tuple[float, float]:
    """(accuracy in %, seconds of the processor) of one student."""
    registry = f"version: 1\nstudent: {{family: clinkd, config: {json.dumps(STUDENT)}}}\nteachers: {{}}\n"
    registry += "data: [{source: jsonl, path: data/samples.jsonl}]\nrecipe: ./small.yaml\n"
    (root / "registry.yaml").write_text(registry, encoding="utf-8")
    part = "" if correction is None else f"correction: {json.dumps(correction)}\n"
    (root / "small.yaml").write_text(RECIPE.format(steps=steps) + part, encoding="utf-8")
    begun = time.process_time()
    outcome = distill(Project(root), Options(cpu=True, seed=seed))
    assert outcome is not None
    return 100 * outcome.evaluation.model("student").means["accuracy"], time.process_time() - begun


def told(values: np.ndarray[Any, Any], base: np.ndarray[Any, Any]) -> str:
    """Mean, spread, and the difference from the base with its bootstrap interval over seeds."""
    text = f"{values.mean():5.1f} +- {values.std(ddof=1):4.1f}"
    if values is base:
        return text
    change = values - base
    drawn = np.random.default_rng(0).choice(change, (10_000, len(change))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    signs = f"better {(change > 0).sum()}, worse {(change < 0).sum()}"
    return f"{text}   {change.mean():+5.1f} ({low:+.1f} to {high:+.1f}), {signs}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--longer", type=float, default=1.7, help="steps of the longer plain run, as a multiple")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, tuple[int, Mapping[str, Any] | None]] = {
        "plain": (arguments.steps, None),
        "corrected": (arguments.steps, {"every": 2}),
        f"plain, {arguments.longer:g} x as long": (round(arguments.longer * arguments.steps), None),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            write_data(Path(folder) / "data")
            for name, (steps, correction) in ways.items():
                found[name].append(run(Path(folder), seed, steps, correction))
                print(f"# seed {seed}, {name}: {found[name][-1][0]:.1f} %, {found[name][-1][1]:.1f} s", flush=True)
    base = np.array([accuracy for accuracy, _ in found["plain"]])
    for name, pairs in found.items():
        values = base if name == "plain" else np.array([accuracy for accuracy, _ in pairs])
        print(f"{name:22s} {np.median([seconds for _, seconds in pairs]):5.1f} s   {told(values, base)}")


if __name__ == "__main__":
    main()
