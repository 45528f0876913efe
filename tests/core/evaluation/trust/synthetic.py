"""A project whose teachers' features are made by formula, in a real feature store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdkit.core.contracts import SPLITS, Reporter, Sample, SignalSpec, TrustTable
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.prompts import all_prompts, prompt_sets
from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.evaluation.trust.measure import measure_trust
from kdkit.core.features import Column, FeatureStore, Header
from kdkit.core.features.store.shard import PRESENT, Shard
from kdkit.core.project.project import Project
from kdkit.core.project.registry.lock import Lock

WIDTH = 16
CLASSES = {"ct": ("cyst", "nodule", "stone"), "oct": ("drusen", "healthy"), "skin": ("nevus", "melanoma")}


@dataclass
class Warned:
    """Records messages."""

    warnings: list[str]

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def progress(self, label: str, done: int, total: int, note: str = "") -> None: ...


def make_table(per_class: int = 20, classes: Mapping[str, tuple[str, ...]] = CLASSES) -> SampleIndex:
    """``per_class`` samples of every class in each split; no files, since nothing decodes them."""
    return table_of(
        [
            Sample(
                id=f"{domain}-{label}-{split}-{number}",
                image=Path("/nowhere.png"),
                text=f"{label} in {domain}",
                domain=domain,
                label=label,
                split=split,
            )
            for domain, labels in classes.items()
            for split in SPLITS
            for label in labels
            for number in range(per_class)
        ]
    )


def table_of(samples: list[Sample]) -> SampleIndex:
    digests = np.array([_number(sample.id) for sample in samples], dtype=np.uint64)
    return SampleIndex(tuple(samples), digests, np.zeros(len(samples), dtype=bool))


def make_project(root: Path, text: str = "version: 1\n") -> Project:
    (root / "registry.yaml").write_text(text, encoding="utf-8")
    return Project(root)


def measure(
    project: Project, table: SampleIndex, teachers: Sequence[str], *, reporter: Reporter | None = None
) -> TrustTable:
    evaluator = make_evaluator(project.registry, project.catalogue, table)
    store, lock = FeatureStore(project.features), Lock.load(project.lock_path)
    return measure_trust(evaluator, store, lock, teachers, reporter=reporter)


def add_teacher(
    project: Project,
    table: SampleIndex,
    name: str,
    *,
    noise: Mapping[str, float],
    rows: np.ndarray[Any, Any] | None = None,
    seed: int = 0,
    images_alone: bool = False,
    texts_alone: bool = False,
    image: np.ndarray[Any, Any] | None = None,
) -> Column:
    """Put a teacher's column into the store.

    Image features are the direction of the class plus noise of the domain's length (default 100: chance);
    prompts and captions have the direction of the class that they name. ``rows``: the samples that it has, by default
    all. ``images_alone``: without text features; ``texts_alone``: without image features. ``image``: other image
    features.
    """
    rng = np.random.default_rng([seed, _number(name) % 2**32])
    chosen = np.arange(len(table)) if rows is None else rows
    noisy = np.stack(
        [
            10 * direction(str(s.label)) + noise.get(s.domain, 100.0) * 10 * rng.normal(size=WIDTH) / WIDTH**0.5
            for s in (table.samples[row] for row in chosen)
        ]
    )
    store = FeatureStore(project.features)
    signals = (SignalSpec("image", (WIDTH,)), SignalSpec("text", (WIDTH,)))[
        1 if texts_alone else 0 : 1 if images_alone else 2
    ]
    fingerprint = hashlib.sha256(f"{name} {noise} {seed}".encode()).hexdigest()
    column = store.create(Header(name, fingerprint, {"weights": fingerprint}, signals))
    path = column.add_shard([table.ids[row] for row in chosen], table.digests[chosen], block_rows=len(chosen))
    text = np.stack([caption_direction(table.samples[row]) for row in chosen]).astype(np.float16)
    values = (noisy if image is None else image).astype(np.float16)
    status = np.full(len(chosen), PRESENT, dtype=np.uint8)
    arrays = {"image": values, "text": text}
    Shard(path, writable=True).commit(0, {spec.name: arrays[spec.name] for spec in signals}, status)
    if images_alone:
        return store.column(name)
    sets = prompt_sets(project.registry, table)
    texts = {
        prompt: 3 * direction(label) + 0.1 * direction(prompt)
        for labels in sets.values()
        for label, prompts in labels.items()
        for prompt in prompts
    }
    assert set(texts) == set(all_prompts(sets))
    store.put_texts(name, fingerprint, texts)
    return store.column(name)


def without(table: SampleIndex, *, split: str, label: str | None = None, domain: str | None = None) -> SampleIndex:
    """The table, less the labels of the chosen samples."""
    return table_of(
        [
            replace(s, label=None)
            if s.split == split and (label in (None, s.label)) and (domain in (None, s.domain))
            else s
            for s in table.samples
        ]
    )


def caption_direction(sample: Sample) -> np.ndarray[Any, Any]:
    """Near the direction of the class that the text names."""
    named = [label for label in CLASSES.get(sample.domain, ()) if label in sample.text]
    return 3 * direction(named[0] if named else sample.text) + 0.1 * direction(sample.text)


def direction(word: str) -> np.ndarray[Any, Any]:
    """A unit vector that belongs to the word."""
    vector = np.random.default_rng(_number(word)).normal(size=WIDTH)
    return np.asarray(vector / np.linalg.norm(vector))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
