"""Extraction of several teachers in one pass, against the sum of their bare forward passes.

    python benchmarks/extraction.py [--samples 64] [--model vit_small_patch16_224] [--teachers 4] [--rounds 3]

The teachers are timm's models with random weights, in float32, with timm's own preprocessing; the images are JPEGs of
512 x 512. The contenders take turns:

- ``bare forward``: the models on batches that are prepared before the clock starts, nothing else
- ``one pass``: kdkit's extraction of all teachers: decoding, preprocessing, forward, writing with checksums and fsync
- ``shared``: the same as one of several workers, with claims
- ``one pass per teacher``: one extraction after the other
- ``bfloat16``, ``channels last``, ``compile``: bare forwards of the first teacher, beside ``float32``

Figures are processor seconds of this process (all threads) and wall seconds: median, smallest and largest round.
Processor seconds are those to compare where other jobs use the machine too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor

from kdkit.core.contracts import PREPROCESSING, Sample
from kdkit.core.data.collect import to_table
from kdkit.core.data.digests import DigestCache, file_digest
from kdkit.core.data.entries import LoadedEntry
from kdkit.core.data.images import open_image
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.load import build_index
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.extraction import extract
from kdkit.core.teachers.open import OpenTeacher
from kdkit.core.teachers.signals import as_signal_source

BATCH, BLOCK = 16, 32
Times = dict[str, list[tuple[float, float]]]


class Vision(torch.nn.Module):
    """A model of timm as a dual encoder; a text's feature is its length."""

    def __init__(self, name: str, seed: int, *, distinct: bool) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = timm.create_model(name, num_classes=0).eval()
        self._config = timm.data.resolve_model_data_config(self.model)
        self._transform = timm.data.create_transform(**self._config, is_training=False)
        self._stated = f"{self._config} {seed if distinct else 0}"
        self.embed_dim = int(self.model.num_features)

    def identity(self) -> Mapping[str, str]:
        return {PREPROCESSING: self._stated}

    def preprocess(self, image: Image.Image) -> Tensor:
        pixels: Tensor = self._transform(image)
        return pixels

    def encode_image(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.model(pixels)
        return features

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(len(text))] * self.embed_dim for text in texts])


def main() -> None:
    """Time all contenders and print the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--samples", type=int, default=64)
    options.add_argument("--model", default="vit_small_patch16_224")
    options.add_argument("--teachers", type=int, default=4)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--distinct", action="store_true", help="teachers that state different preprocessing")
    options.add_argument("--variants", action="store_true", help="bfloat16, channels last, torch.compile")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    times: Times = {}
    with tempfile.TemporaryDirectory() as folder:
        index = make_images(Path(folder), given.samples)
        models = [Vision(given.model, seed, distinct=given.distinct) for seed in range(given.teachers)]
        if given.variants:
            contenders = variants(models[0], prepared(models[:1], index)[0])
        else:
            contenders = extractions(models, index, Path(folder) / "store", prepared(models, index))
        for run in contenders.values():  # warm up: files, allocator, compilation
            run()
        for _ in range(given.rounds):
            for name, run in contenders.items():
                cpu, wall = time.process_time(), time.perf_counter()
                run()
                times.setdefault(name, []).append((time.process_time() - cpu, time.perf_counter() - wall))
    show(times, as_json=given.json)


def make_images(folder: Path, count: int) -> SampleIndex:
    """JPEGs of smooth noise, about as large as photographs."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        small.resize((512, 512), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)
        samples.append(Sample(f"s{i}", folder / f"{i}.jpg", "a picture", "domain"))
    cache = DigestCache(folder / "digests.arrow", file_digest)
    return build_index([LoadedEntry(to_table(samples), False)], cache)


def prepared(models: Sequence[Vision], index: SampleIndex) -> list[list[Tensor]]:
    """Each model's inputs."""
    return [[model.preprocess(open_image(sample)) for sample in index.samples] for model in models]


def extractions(
    models: Sequence[Vision],
    index: SampleIndex,
    root: Path,
    items: Sequence[Sequence[Tensor]],
    *,
    device: str = "cpu",
    batch: int = BATCH,
    block: int = BLOCK,
) -> dict[str, Callable[[], Any]]:
    """Bare forwards and extractions of all teachers, each into an empty store."""
    teachers = [OpenTeacher(f"t{i}", m, as_signal_source(m), f"{i:064x}", {}) for i, m in enumerate(models)]

    def bare() -> None:
        for model, prepared_items in zip(models, items, strict=True):
            for start in range(0, len(prepared_items), batch):
                with torch.inference_mode():
                    model.encode_image(torch.stack(list(prepared_items[start : start + batch])).to(device))

    def run(groups: Sequence[Sequence[OpenTeacher]], *, shared: bool = False) -> None:
        shutil.rmtree(root, ignore_errors=True)
        for group in groups:
            extract(FeatureStore(root), group, index, batch_size=batch, block_rows=block, device=device, shared=shared)

    return {
        "bare forward": bare,
        "one pass": lambda: run([teachers]),
        "shared": lambda: run([teachers], shared=True),
        "one pass per teacher": lambda: run([[teacher] for teacher in teachers]),
    }


def variants(model: Vision, items: Sequence[Tensor]) -> dict[str, Callable[[], Any]]:
    """Ways to run one model."""
    batches = [torch.stack(list(items[start : start + BATCH])) for start in range(0, len(items), BATCH)]
    last = [batch.to(memory_format=torch.channels_last) for batch in batches]
    half = [batch.to(torch.bfloat16) for batch in batches]
    plain = model.model

    def forward(network: Callable[[Tensor], Any], inputs: Sequence[Tensor]) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                for batch in inputs:
                    network(batch)

        return run

    copies = [timm.create_model(plain.default_cfg["architecture"], num_classes=0).eval() for _ in range(3)]
    for copy in copies:
        copy.load_state_dict(plain.state_dict())
    return {
        "float32": forward(plain, batches),
        "bfloat16": forward(copies[0].to(torch.bfloat16), half),
        "channels last": forward(copies[1].to(memory_format=torch.channels_last), last),
        "compile": forward(torch.compile(copies[2]), batches),
    }


def show(times: Times, *, as_json: bool) -> None:
    """The first contender is the baseline; ratios are the medians of the rounds' ratios, of processor seconds."""
    base = next(iter(times.values()))
    rows = {}
    for name, rounds in times.items():
        cpu, wall = zip(*rounds, strict=True)
        ratio = [b / max(c, 1e-9) for (b, _), c in zip(base, cpu, strict=True)]
        rows[name] = {
            "cpu": statistics.median(cpu), "cpu_range": [min(cpu), max(cpu)], "wall": statistics.median(wall),
            "share": statistics.median(ratio), "share_range": [min(ratio), max(ratio)],
        }  # fmt: skip
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'':22} {'CPU s':>8} {'range':>14} {'wall s':>8} {'speed against the first':>24}")
    for name, row in rows.items():
        low, high = row["cpu_range"]
        share = f"{row['share']:.3f} ({row['share_range'][0]:.3f} to {row['share_range'][1]:.3f})"
        print(f"{name:22} {row['cpu']:8.2f} {low:6.2f} - {high:5.2f} {row['wall']:8.2f} {share:>24}")


if __name__ == "__main__":
    main()
