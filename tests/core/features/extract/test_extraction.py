"""Extraction: stored equals computed, one decode per image, the same bytes after any kill."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample, SignalSpec
from kdkit.core.data.images import decode, open_image
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.locations import file_of
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract import extraction
from kdkit.core.features.extract.column_plan import ColumnPlan
from kdkit.core.features.extract.extraction import extract
from kdkit.core.teachers.open import OpenTeacher
from tests.conftest import REPOSITORY, Cli
from tests.core.features.small import index_of, open_as, paint, picture_samples
from tests.errors import raises_error
from tests.toys import ToyEncoder


def open_toy(name: str, seed: int = 0, width: int = 8) -> OpenTeacher:
    torch.manual_seed(seed)
    return open_as(name, ToyEncoder(width), {"weights": str(seed)})


def toy(teacher: OpenTeacher) -> Any:
    """The toy encoder behind a teacher."""
    return teacher.model


class TopAnswers:
    """A teacher that is no dual encoder: top-3 logits of two tokens, values and ids."""

    signals = (SignalSpec("answer", (2, 3), "float32"), SignalSpec("index", (2, 3), "int64"))

    def identity(self) -> Mapping[str, str]:
        return {}

    def prepare(self, image: Image.Image, sample: Sample) -> tuple[int, int]:
        return sum(image.tobytes()), len(sample.text)

    def compute(self, items: Sequence[tuple[int, int]]) -> Mapping[str, Tensor]:
        sums = torch.tensor([[a + b * 2**40] for a, b in items]).expand(-1, 6).reshape(-1, 2, 3)
        return {"index": sums, "answer": sums.double().sqrt()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


def stored(tmp_path: Path, name: str, signal: str, index: SampleIndex) -> np.ndarray[Any, Any]:
    column = FeatureStore(tmp_path).column(name)
    rows = column.locate(index)
    assert (rows >= 0).all()
    return column.gather(signal, rows)


def test_cached_equals_live(tmp_path: Path, folder: Path) -> None:
    samples = picture_samples(folder, 23)
    index = index_of(samples, tmp_path)
    teachers = [open_toy("one", 1, width=8), open_toy("two", 2, width=5)]
    answers = TopAnswers()
    extract(
        FeatureStore(tmp_path),
        [*teachers, open_as("talker", answers)],
        index,
        batch_size=4,
        block_rows=10,
        workers=3,
    )
    for teacher in teachers:
        with torch.no_grad():
            pixels = torch.stack([toy(teacher).preprocess(decode(sample.image)) for sample in samples])
            live = {
                "image": toy(teacher).encode_image(pixels),
                "text": toy(teacher).encode_text([sample.text for sample in samples]),
            }
        for signal, features in live.items():
            got = stored(tmp_path, teacher.name, signal, index)
            assert got.dtype == np.float16
            np.testing.assert_allclose(got, features.numpy(), rtol=2**-10, atol=1e-6)
    expected = [sum(decode(s.image).tobytes()) + len(s.text) * 2**40 for s in samples]
    tokens = stored(tmp_path, "talker", "index", index)
    assert tokens.shape == (23, 2, 3)
    assert tokens[:, 1, 2].tolist() == expected


def test_each_image_is_decoded_once_for_all_teachers(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of(picture_samples(folder, 20), tmp_path)
    store, one, two = FeatureStore(tmp_path), open_toy("one", 1), open_toy("two", 2)
    extract(store, [one], index_of(index.samples[5:9], tmp_path), block_rows=4)
    decoded = []

    def counting(sample: Sample) -> Image.Image:
        decoded.append(sample.id)
        return open_image(sample)

    monkeypatch.setattr("kdkit.core.features.extract.prefetch.open_image", counting)
    reports = extract(store, [one, two], index, block_rows=4, batch_size=3)
    assert sorted(decoded) == sorted(index.ids)
    assert [(r.teacher, r.new, r.kept) for r in reports] == [("one", 16, 4), ("two", 20, 0)]
    decoded.clear()
    assert [r.new for r in extract(store, [one, two], index)] == [0, 0]
    assert decoded == []
    assert len(list(store.column("two").folder.glob("shard-*"))) == 1


def test_only_changed_samples_are_extracted_again(tmp_path: Path, folder: Path) -> None:
    samples = picture_samples(folder, 10)
    store, teacher = FeatureStore(tmp_path), open_toy("one", 1)
    before = index_of(samples, tmp_path)
    extract(store, [teacher], before)
    paint(file_of(samples[3].image), seed=77)
    samples[6] = dataclasses.replace(samples[6], text="another caption")
    changed = index_of(samples, tmp_path)
    column = store.column("one")
    assert np.flatnonzero(column.locate(changed) < 0).tolist() == [3, 6]
    (report,) = extract(store, [teacher], changed)
    assert (report.new, report.kept) == (2, 8)
    pixels = toy(teacher).preprocess(decode(samples[3].image))[None]
    got = stored(tmp_path, "one", "image", changed)[3]
    np.testing.assert_allclose(got, toy(teacher).encode_image(pixels)[0].detach(), rtol=2**-10, atol=1e-6)
    assert (store.column("one").locate(before) >= 0).all()


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (1e6, "float16")])
def test_values_beyond_the_dtype_are_refused(tmp_path: Path, folder: Path, value: float, kind: str) -> None:
    index = index_of(picture_samples(folder, 12), tmp_path)
    teacher = open_toy("broken", 1)
    real: Callable[[Tensor], Tensor] = toy(teacher).encode_image
    poison = toy(teacher).preprocess(decode(index.samples[7].image))

    def encode_image(pixels: Tensor) -> Tensor:
        features = real(pixels)
        features[(pixels == poison).flatten(1).all(dim=1)] = value
        return features

    toy(teacher).encode_image = encode_image
    with raises_error("KD-FEAT-001", mentions=(kind,)):
        extract(FeatureStore(tmp_path), [teacher], index, block_rows=4, batch_size=4)
    located = FeatureStore(tmp_path).column("broken").locate(index)
    assert (located >= 0).tolist() == [True] * 4 + [False] * 8


def test_unreadable_images_are_reported_after_all_others_are_stored(tmp_path: Path, folder: Path) -> None:
    samples = picture_samples(folder, 12)
    for i in (2, 5, 6, 9):
        file_of(samples[i].image).write_bytes(b"no image")
    store, teacher = FeatureStore(tmp_path), open_toy("one", 1)
    index = index_of(samples, tmp_path)
    for _ in range(2):
        with raises_error("KD-FEAT-005", mentions=("4", "12", "cannot identify")):
            extract(store, [teacher], index, block_rows=4, batch_size=3)
    column = store.column("one")
    assert np.flatnonzero(column.locate(index) < 0).tolist() == [2, 5, 6, 9]
    assert len(column.shards) == 1
    skipping = index_of(samples, tmp_path, skip_unreadable=True)
    (report,) = extract(store, [teacher], skipping)
    assert report.unreadable == 4
    paint(file_of(samples[5].image), seed=5)
    (report,) = extract(store, [teacher], index_of(samples, tmp_path, skip_unreadable=True))
    assert (report.new, report.unreadable) == (1, 3)


def test_a_part_of_the_samples_leaves_an_interrupted_shard_open(tmp_path: Path, folder: Path) -> None:
    samples = picture_samples(folder, 12)
    store, teacher, whole = FeatureStore(tmp_path), open_toy("one", 1), index_of(samples, tmp_path)
    again = np.zeros(len(samples), dtype=bool)
    ColumnPlan(store.create(extraction._header(teacher)), whole, again).add_shard(4)
    part = whole.part(np.array([1, 2, 9]))
    (report,) = extract(store, [teacher], part, resume=False)
    assert (report.new, len(store.column("one").shards)) == (3, 2)
    (report,) = extract(store, [teacher], whole, batch_size=4)
    assert (report.new, report.kept, len(store.column("one").shards)) == (9, 3, 2)
    assert int(store.column("one").present.sum()) == 12


def test_prompts_are_stored_once(tmp_path: Path, folder: Path) -> None:
    index = index_of(picture_samples(folder, 2), tmp_path)
    teacher = open_toy("one", 1)
    texts = ["normal ct", "abnormal ct", "normal ct"]
    (report,) = extract(FeatureStore(tmp_path), [teacher], index, prompts=texts)
    assert report.prompts == 2
    (report,) = extract(FeatureStore(tmp_path), [teacher], index, prompts=[*texts, "fundus"])
    assert report.prompts == 1
    got = FeatureStore(tmp_path).column("one").text_features(texts)
    np.testing.assert_allclose(got, toy(teacher).encode_text(texts).detach(), rtol=1e-5)


def test_a_full_disk_is_reported_before_extraction(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of(picture_samples(folder, 3), tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with raises_error("KD-FEAT-003", mentions=("67.1 MB", "1.0 kB")):
        extract(FeatureStore(tmp_path), [open_toy("one", 1)], index)
    assert not list(tmp_path.rglob("*.h5"))


def test_an_unusable_device_is_refused(tmp_path: Path, folder: Path) -> None:
    index = index_of(picture_samples(folder, 1), tmp_path)
    for device in ("cuda:99", "nonsense"):
        with raises_error("KD-FEAT-004", mentions=(device,)):
            extract(FeatureStore(tmp_path), [open_toy("one", 1)], index, device=device)


def test_ctrl_c_keeps_committed_blocks(tmp_path: Path, folder: Path) -> None:
    index = index_of(picture_samples(folder, 12), tmp_path)
    teacher = open_toy("one", 1)
    real: Callable[[Tensor], Tensor] = toy(teacher).encode_image
    calls = 0

    def encode_image(pixels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(pixels)

    toy(teacher).encode_image = encode_image
    with pytest.raises(KeyboardInterrupt):
        extract(FeatureStore(tmp_path), [teacher], index, block_rows=4, batch_size=4)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]
    column = FeatureStore(tmp_path).column("one")
    assert (column.locate(index) >= 0).tolist() == [True] * 8 + [False] * 4
    assert not column.complete
    (report,) = extract(FeatureStore(tmp_path), [teacher], index, block_rows=4, batch_size=4)
    assert (report.new, report.kept, calls) == (4, 8, 4)


def test_an_unfinished_shard_resumes_after_samples_are_reordered(tmp_path: Path, folder: Path) -> None:
    """The data changed between the interruption and the next run: samples moved, one was removed."""
    samples = picture_samples(folder, 12)
    store, teachers = FeatureStore(tmp_path), [open_toy("one", 1), open_toy("two", 2)]

    for teacher in teachers:
        again = np.zeros(len(samples), dtype=bool)
        begun = ColumnPlan(store.create(extraction._header(teacher)), index_of(samples, tmp_path), again)
        begun.add_shard(4)
    later = index_of([*samples[6:], *samples[:5]], tmp_path)
    extract(store, teachers, later, batch_size=3)
    fresh = FeatureStore(tmp_path / "fresh")
    extract(fresh, teachers, later, batch_size=3)
    for teacher in teachers:
        np.testing.assert_allclose(
            stored(tmp_path, teacher.name, "image", later),
            stored(fresh.root, teacher.name, "image", later),
            atol=1e-3,
        )
    assert len(store.column("one").shards) == 1


KILLED = '''
"""Forks extractions that kill themselves at their n-th write, for every n."""
import os, signal, sys
from pathlib import Path
import torch
from kdkit.core.features.extract.extraction import extract
from kdkit.core.features import FeatureStore
from kdkit.core.features.store import shard
from tests.core.features.small import picture_samples, index_of
from tests.core.features.extract.test_extraction import open_toy

torch.set_num_threads(1)
root = Path(sys.argv[1])
samples = picture_samples(root / "images", 9)
index = index_of(samples, root)

def run(name, kill_at=None, names=("one",)):
    """Run in a child process; False if it was killed."""
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        assert status in (0, signal.SIGKILL), status
        return status == 0
    writes = 0
    def before(real):
        def wrapped(*args, **options):
            nonlocal writes
            writes += 1
            if writes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)
        return wrapped
    os.fsync = before(os.fsync)
    shard._write_at = before(shard._write_at)
    os.replace = before(os.replace)
    shard._reserve = before(shard._reserve)
    teachers = [open_toy(teacher, seed) for seed, teacher in enumerate(names)]
    extract(FeatureStore(root / name), teachers, index, batch_size=3, block_rows=5, workers=1, prompts=["a", "b"])
    os._exit(0)

def contents(name):
    folder = root / name
    files = [p for p in folder.rglob("*") if p.is_file() and ".draft-" not in str(p)]  # drafts of the killed
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}

assert run("whole")
whole = contents("whole")
points = 0
while not run(f"at-{points + 1}", kill_at=points + 1):
    points += 1
    assert run(f"at-{points}")
    assert contents(f"at-{points}") == whole, f"killed at write {points}"
steps, both = 0, ("one", "two")
while not run("often", kill_at=20 + steps, names=both):
    steps += 1
assert run("both", names=both)
assert contents("often") == contents("both")
print(points, steps)
'''


def test_a_run_killed_at_any_write_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    done = Cli(REPOSITORY).warm("-c", KILLED, str(tmp_path), timeout=600)
    assert done.code == 0, done.stderr
    points, steps = (int(number) for number in done.stdout.split())
    assert points > 20
    assert steps > 1


def test_an_error_of_prepare_names_teacher_and_sample(tmp_path: Path, folder: Path) -> None:
    class Choosy(TopAnswers):
        def prepare(self, image: Image.Image, sample: Sample) -> tuple[int, int]:
            raise KdkitError(
                "X-001", f"'{sample.id}' is too long for {image.size}", where="data:7", fix="max_tokens: 9"
            )

    choosy, index = Choosy(), index_of(picture_samples(folder, 4), tmp_path)
    with raises_error("KD-FEAT-019", where="data:7", mentions=("'b'", "7")) as caught:
        extract(FeatureStore(tmp_path), [open_toy("a"), open_as("b", choosy)], index)
    assert caught.value.fix == "max_tokens: 9"
