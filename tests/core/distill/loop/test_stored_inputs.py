"""Student inputs on disk: equal to those that are prepared anew, kept up to date, and repaired."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL.Image import Image
from torch import Tensor

from kdkit.core.base.locks import file_lock
from kdkit.core.contracts import Sample
from kdkit.core.data.images import open_image
from kdkit.core.distill.loop.inputs import InputCache
from kdkit.core.distill.loop.stored_inputs import BLOCK_ROWS, StoredInputs, store_inputs, stored_bytes
from kdkit.core.features.store.shard import Shard
from tests.core.features.small import index_of, paint, picture_samples
from tests.errors import raises_error
from tests.recorder import Recorder
from tests.toys import SIDE, ToyEncoder

COUNT = BLOCK_ROWS + 10
TRAIN = np.arange(1, COUNT)


class Other(ToyEncoder):
    """The same student with other preprocessing."""

    def identity(self) -> Mapping[str, str]:
        return {**super().identity(), "preprocess": "another"}


class Patches(ToyEncoder):
    """Inputs that are no images."""

    def prepare(self, image: Image, sample: Sample) -> Mapping[str, Tensor]:
        row = super().prepare(image, sample)
        return {**row, "pixels": row["pixels"].flatten()}


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder, self.reporter = folder, Recorder()
        self.samples = picture_samples(folder, COUNT)

    def store(self, student: ToyEncoder) -> StoredInputs:
        self.index = index_of(self.samples, self.folder)
        return store_inputs(self.folder / ".kdkit", student, self.index, TRAIN, self.reporter)

    @property
    def shards(self) -> list[Path]:
        return sorted(self.folder.glob(".kdkit/inputs/student/*/shard-*.h5"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def require_same(stored: StoredInputs, samples: list[Sample]) -> None:
    for number in TRAIN.tolist():
        wanted, found = ToyEncoder().prepare(open_image(samples[number]), samples[number]), stored.row(number)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], x) for name, x in wanted.items())


def test_stored_inputs_are_those_of_the_student(project: Project) -> None:
    student = ToyEncoder()
    stored = project.store(student)
    require_same(stored, project.samples)
    assert [stored.has(number) for number in (0, 1, COUNT - 1, COUNT)] == [False, True, True, False]
    (shard,) = project.shards
    assert Shard(shard).header.row_bytes == stored_bytes(student, project.samples[0]) == 3 * SIDE * SIDE + 26 * 4
    inputs = InputCache(student, project.index, stored=stored)
    assert inputs.expected_bytes(TRAIN) == 0
    for number in TRAIN.tolist():
        (project.folder / f"{number:03d}.png").unlink()
    batch = inputs.batch(np.array([0, 5, 5]))
    assert torch.equal(batch["pixels"][1], stored.row(5)["pixels"])
    inputs.close()


def test_only_what_is_new_or_damaged_is_stored_again(project: Project) -> None:
    project.store(ToyEncoder())
    before = project.shards[0].stat().st_mtime_ns
    project.store(ToyEncoder())
    assert (len(project.shards), project.shards[0].stat().st_mtime_ns) == (1, before)
    paint(project.folder / "003.png", seed=999)
    stored = project.store(ToyEncoder())
    assert [len(Shard(path)) for path in project.shards] == [COUNT - 1, 1]
    require_same(stored, project.samples)
    assert project.reporter.warnings == []
    content = bytearray(project.shards[0].read_bytes())
    content[content.index(stored.row(5)["pixels"].mul(255).round().byte().numpy().tobytes())] ^= 1
    project.shards[0].write_bytes(content)
    require_same(project.store(ToyEncoder()), project.samples)
    assert len(project.reporter.warnings) == 1


def test_other_preprocessing_replaces_the_cache(project: Project) -> None:
    project.store(ToyEncoder())
    (first,) = project.shards
    project.store(Other())
    (second,) = project.shards
    assert first.parent != second.parent


def test_a_cache_that_somebody_reads_stays(project: Project) -> None:
    read = project.store(ToyEncoder())
    project.store(Other())
    require_same(read, project.samples)
    assert len(project.shards) == 2
    del read
    project.store(Other())
    assert len(project.shards) == 1


def test_one_process_stores_at_a_time(project: Project) -> None:
    busy = project.folder / ".kdkit" / "inputs" / "writer.busy"
    busy.parent.mkdir(parents=True)
    with ThreadPoolExecutor(1) as other:
        with file_lock(busy):
            waiting = other.submit(project.store, ToyEncoder())
            while not project.reporter.lines:
                assert not waiting.done()
        require_same(waiting.result(), project.samples)
    assert len(project.shards) == 1


def test_inputs_that_are_no_bytes_are_refused(project: Project) -> None:
    with raises_error("KD-DIST-220", mentions=("s001",)):
        project.store(Patches())
    with raises_error("KD-DIST-220"):
        stored_bytes(Patches(), project.samples[0])
