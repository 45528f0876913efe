"""A whole project on disk with toy models: three domains of three classes, two teachers that know part of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from kdkit.core.contracts import LoaderSpec, StudentSpec
from kdkit.core.plugin_system.catalogue import Catalogue, Entry
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.project import Project
from tests.toys import SIDE, ToyEncoder, ToyVision, count_letters

CLASSES = {"ct": ("mass", "cyst", "clear"), "mri": ("lesion", "edema", "plain"), "xray": ("opaque", "fluid", "bright")}
TEMPLATE = "a {domain} image of {label}."
SPECS = (
    ("loader", LoaderSpec(name="toy", summary="toy", factory="tests.toys:load_toy", marks=("toy.json",))),
    (
        "loader",
        LoaderSpec(
            name="toy-vision",
            summary="toy without text",
            factory="tests.toys:load_toy_vision",
            marks=("toy-vision.safetensors",),
        ),
    ),
    (
        "student",
        StudentSpec(
            name="toy",
            summary="toy",
            factory="tests.toys:make_toy",
            loader="tests.toys:load_toy",
            task_without_labels="retrieval",
        ),
    ),
)
RECIPE = """\
name: toy
summary: quick
space: heads
losses:
  - {name: fd, weight: 1.0}
  - {name: crd, weight: 1.0}
trust: {policy: threshold, options: {value: 0.7}}
optimizer: {lr: 0.01, batch_size: 24, steps: 40}
increment: {replay: 0.5, steps: 0.5}
"""


def toy_catalogue() -> Catalogue:
    """The built-ins, and the toy family."""
    catalogue = load_catalogue()
    contents: dict[Any, Any] = dict(catalogue.contents)
    for family, spec in SPECS:
        contents[family] = (*contents[family], Entry(spec, "kdkit-toy", "1.0"))
    return replace(catalogue, contents=contents)


def pattern(domain: str, label: str) -> np.ndarray[Any, Any]:
    """The picture that a class is made of, (SIDE, SIDE) in [0, 1]."""
    seed = sorted(CLASSES).index(domain) * 10 + CLASSES[domain].index(label)
    return np.random.default_rng(seed).random((SIDE, SIDE))


def write_images(folder: Path, domains: Sequence[str], *, train: int, held_out: int, seed: int) -> list[dict[str, Any]]:
    """PNG files and manifest rows: ``train`` and twice ``held_out`` samples of every class."""
    rng = np.random.default_rng(seed)
    splits = ["train"] * train + ["calibration"] * held_out + ["test"] * held_out
    rows = []
    for domain in domains:
        for label in CLASSES[domain]:
            for number, split in enumerate(splits):
                pixels = 0.45 * pattern(domain, label) + 0.55 * rng.random((SIDE, SIDE))
                name = f"{domain}-{label}-{seed}-{number}"
                Image.fromarray((255 * pixels).astype(np.uint8)).save(folder / f"{name}.png")
                text = TEMPLATE.format(domain=domain, label=label)
                rows.append(
                    {"id": name, "image": f"{name}.png", "text": text, "domain": domain, "label": label, "split": split}
                )
    return rows


def train_teacher(domains: Sequence[str], *, width: int, seed: int) -> ToyEncoder:
    """A teacher that classifies ``domains`` well and has never seen the others."""
    torch.manual_seed(seed)  # as if it were trained again
    return deepcopy(_trained(tuple(domains), width, seed))


@cache
def _trained(domains: tuple[str, ...], width: int, seed: int) -> ToyEncoder:
    rng = np.random.default_rng(seed)
    model = ToyEncoder(width=width)
    pairs = [(domain, label) for domain in domains for label in CLASSES[domain]]
    letters = torch.stack([count_letters(TEMPLATE.format(domain=d, label=x)) for d, x in pairs])
    clean = np.stack([pattern(d, x) for d, x in pairs])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        noisy = 0.45 * clean + 0.55 * rng.random(clean.shape)
        pixels = torch.tensor(noisy, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
        out = model({"pixels": pixels, "letters": letters})
        scores = 10 * F.normalize(out["image"]) @ F.normalize(out["text"]).T
        target = torch.arange(len(pairs))
        loss = F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def vision_teacher(known: str, others: Sequence[str], *, width: int = 12) -> ToyVision:
    """A teacher without text that tells the classes of one domain apart, and none of the others.

    Its features are the projections on the differences of the domain's patterns, after all that distinguishes the
    others was removed from them, and on noise.
    """
    blind = np.stack([pattern(domain, label).ravel() for domain in others for label in CLASSES[domain]], axis=1)
    basis = np.linalg.qr(blind)[0]
    patterns = np.stack([pattern(known, label).ravel() for label in CLASSES[known]])
    seen = (patterns - patterns.mean(0)).T
    noise = np.random.default_rng(0).normal(size=(SIDE * SIDE, width - seen.shape[1])) * seen.std()
    columns = np.concatenate([seen, noise], axis=1)
    return ToyVision(torch.tensor(columns - basis @ (basis.T @ columns), dtype=torch.float32))


def make_project(
    root: Path, *, teachers: dict[str, Sequence[str]], domains: Sequence[str], train: int = 12, held_out: int = 10
) -> Project:
    """A project whose teachers are added; ``teachers`` maps a name to the domains that it knows."""
    from kdkit.core.teachers.add import add_teacher

    (root / "images").mkdir(parents=True)
    rows = write_images(root / "images", domains, train=train, held_out=held_out, seed=0)
    (root / "images" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root / "toy.yaml").write_text(RECIPE, encoding="utf-8")
    (root / "registry.yaml").write_text(
        "version: 1\n"
        "student: {family: toy, config: {width: 12}}\n"
        "teachers: {}\n"
        "data:\n  - {source: jsonl, path: images/samples.jsonl}\n"
        "prompts: {default: ['a {domain} image of {label}.']}\n"
        "recipe: ./toy.yaml\n"
        "guard: {tolerance: 10}\n",  # thirty samples a domain, forty steps: single points are noise here
        encoding="utf-8",
    )
    for number, (name, known) in enumerate(teachers.items()):
        train_teacher(known, width=8 + 4 * number, seed=number).save(root / "models" / name)
        add_teacher(open_project(root), name, {"from": f"local:models/{name}", "loader": "toy", "license": "mit"})
    return open_project(root)


def open_project(root: Path) -> Project:
    """The project as a fresh process would see it."""
    return Project(root).with_catalogue(toy_catalogue())  # what a plugin on PyPI would give
