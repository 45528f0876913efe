"""Reading images: kdkit's loader against a hand-written torch DataLoader, and tar shards against loose files.

    python benchmarks/reading.py [--images 256] [--rounds 9] [--from FOLDER]

JPEGs of 512 pixels become inputs of 224 pixels for an open_clip student. All contenders read the same images in this
process and take turns, so that whatever else the machine does hits all of them alike. A figure is the median over the
rounds with the quartiles beside it; a ratio is the median of the ratios within a round. Processor time is of all
threads and worker processes. Files are in the page cache: the first round is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from kdkit.core.contracts import ImageLocation, ImageOptions, Sample, Silent, Student
from kdkit.core.data import SampleIndex
from kdkit.core.data.images import decode
from kdkit.core.data.locations import read_content
from kdkit.core.distill.loop.dataloader import DistillDataLoader
from kdkit.core.distill.loop.inputs import InputCache
from kdkit.core.distill.loop.stored_inputs import store_inputs

SIDE, TARGET, BATCH, WORKERS, LONG_BATCH = 512, 224, 32, 2, 256
CFG = PreprocessCfg(size=TARGET, mode="RGB", interpolation="bicubic", resize_mode="shortest")
Contender = Callable[[], tuple[int, float]]
"""Reads all images; returns their number, and processor seconds of other processes."""


class Reader:
    """What a student's ``prepare`` does, without its model."""

    def __init__(self) -> None:
        self.transform: Any = image_transform_v2(CFG, is_train=False)

    def prepare(self, image: Image.Image, sample: Sample) -> dict[str, torch.Tensor]:
        del sample
        return {"pixels": self.transform(image), "tokens": torch.zeros(77, dtype=torch.int64)}

    def identity(self) -> dict[str, str]:
        return {"preprocess": str(CFG)}


class Files(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The hand-written data set."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files, self.transform = files, image_transform_v2(CFG, is_train=False)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(self.files[place]) as image:
            return self.transform(image.convert("RGB")), torch.zeros(77, dtype=torch.int64)


class TorchLoader:
    """A DataLoader with persistent workers."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.loader = DataLoader(Files(files), BATCH, num_workers=WORKERS, persistent_workers=True)

    def __call__(self) -> tuple[int, float]:
        batches = iter(self.loader)
        before = sum(map(_seconds_of, self._workers(batches)))
        count = sum(len(pixels) for pixels, _ in batches)
        return count, sum(map(_seconds_of, self._workers(batches))) - before

    @staticmethod
    def _workers(batches: Any) -> list[int]:
        return [worker.pid for worker in batches._workers]


class OwnLoader:
    """kdkit's, with nothing kept in memory."""

    def __init__(self, samples: Sequence[Sample], cache: Path | None = None) -> None:
        index, student = index_of(samples), cast(Student, Reader())
        rows, stored = np.arange(len(samples)), None
        if cache is not None:
            stored = store_inputs(cache, student, index, rows, Silent())
        self.inputs = InputCache(student, index, budget=0, threads=WORKERS, stored=stored)
        steps = np.arange(len(samples)).reshape(-1, BATCH)
        domain = np.zeros(len(samples), np.int64)
        self.loader = DistillDataLoader(steps, self.inputs, (), domain, one_teacher=False, seed=0)  # type: ignore[arg-type]

    def __call__(self) -> tuple[int, float]:
        return sum(len(batch.inputs["pixels"]) for _, batch in self.loader.batches(0)), 0.0


def index_of(samples: Sequence[Sample]) -> SampleIndex:
    """An index without digests of contents."""
    return SampleIndex(tuple(samples), np.arange(len(samples), dtype=np.uint64), np.zeros(len(samples), bool))


def main() -> None:
    """Write the images, let the contenders take turns, print the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=256)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--from", dest="source", type=Path, help="folder of images to enlarge, instead of noise")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(Path(folder), chosen.images // BATCH * BATCH, chosen.source)
        size = statistics.mean(file.stat().st_size for file in files)
        print(f"{len(files)} JPEGs of {SIDE} pixels, {size / 1e3:.0f} kB each; load before: {os.getloadavg()[0]:.1f}")
        samples = [Sample(str(n), file, "a scan", "ct") for n, file in enumerate(files)]
        reduced = [replace(sample, image_options=ImageOptions(jpeg_min_side=TARGET)) for sample in samples]
        compare(
            f"decode and preprocess to {TARGET} pixels, {WORKERS} workers",
            {
                "torch DataLoader, processes, PIL": TorchLoader(files),
                "kdkit, threads": OwnLoader(samples),
                f"kdkit, jpeg_min_side: {TARGET}": OwnLoader(reduced),
                "kdkit, cache: uint8": OwnLoader(samples, Path(folder)),
            },
            chosen.rounds,
        )
        rows = [f"{n}" for n in range(len(files))]
        shards = write_shards(Path(folder), files)
        drawn = [np.random.default_rng(n).choice(len(rows), min(LONG_BATCH, len(rows)), False) for n in range(4)]
        compare(
            f"random batches of {len(drawn[0])}: bytes of JPEGs",
            {"loose files": reading(files, drawn), "members of tar shards": reading(shards, drawn)},
            chosen.rounds,
        )
        compare(
            f"random batches of {len(drawn[0])}: decoded",
            {"loose files": decoding(files, drawn[:1]), "members of tar shards": decoding(shards, drawn[:1])},
            chosen.rounds,
        )
        print(f"load after: {os.getloadavg()[0]:.1f}")


def write_images(folder: Path, count: int, source: Path | None) -> list[Path]:
    """JPEGs of quality 90: enlarged images of ``source``, or smooth noise."""
    found = sorted(source.rglob("*.jpg"))[:: max(1, len(list(source.rglob("*.jpg"))) // count)] if source else []
    files = []
    for number in range(count):
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8))
        image = Image.open(found[number % len(found)]).convert("RGB") if found else small
        pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) + rng.normal(0, 4, (SIDE, SIDE, 1))
        files.append(folder / f"{number:05d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(files[-1], quality=90)
    return files


def write_shards(folder: Path, files: Sequence[Path], each: int = 64) -> list[ImageLocation]:
    """The files as members of tar files."""
    found = []
    for start in range(0, len(files), each):
        path = folder / f"{start:05d}.tar"
        with tarfile.open(path, "w") as archive:
            for file in files[start : start + each]:
                archive.add(file, file.name)
        with tarfile.open(path) as archive:
            found += [ImageLocation("tar", path, (m.offset_data, m.size), m.name) for m in archive]
    return found


def reading(places: Sequence[Any], batches: Sequence[Any]) -> Contender:
    """The bytes of each image."""

    def read() -> tuple[int, float]:
        return sum(len([read_content(places[row]) for row in batch]) for batch in batches), 0.0

    return read


def decoding(places: Sequence[Any], batches: Sequence[Any]) -> Contender:
    """The pixels of each image."""

    def read() -> tuple[int, float]:
        return sum(len([decode(places[row]) for row in batch]) for batch in batches), 0.0

    return read


def compare(title: str, contenders: dict[str, Contender], rounds: int) -> None:
    """Take turns; the first contender is the baseline."""
    speed: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        order = list(contenders) if number % 2 else list(contenders)[::-1]
        for name in order:
            own, begun = time.process_time(), time.perf_counter()
            count, others = contenders[name]()
            if number:
                speed[name].append(count / (time.perf_counter() - begun))
                cpu[name].append(1e3 * (time.process_time() - own + others) / count)
    first = next(iter(contenders))
    print(f"\n{title}, {rounds} rounds\n\n| way | images/s | ratio | processor, ms per image | ratio |")
    print("|---|---|---|---|---|")
    for name in contenders:
        faster = [mine / base for mine, base in zip(speed[name], speed[first], strict=True)]
        less = [base / mine for mine, base in zip(cpu[name], cpu[first], strict=True)]
        print(f"| {name} | {_spread(speed[name], 0)} | {_spread(faster)} | {_spread(cpu[name])} | {_spread(less)} |")


def _spread(values: Sequence[float], digits: int = 2) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def _seconds_of(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
