"""Extraction: cached equals live, decoded once, and the same bytes however often it is killed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
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
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract import extraction
from kdkit.core.features.extract.extraction import extract
from kdkit.core.project.project import Project
from kdkit.core.teachers.signals import as_signal_source
from tests.core.features.small import Opened, paint, picture_samples, table_of
from tests.errors import raises_error
from tests.toys import ToyEncoder


def opened(name: str, seed: int = 0, width: int = 8) -> Opened:
    torch.manual_seed(seed)
    model = ToyEncoder(width)
    return Opened(name, model, as_signal_source(model), {"weights": str(seed)})


class TopAnswers:
    """A teacher of another kind: top-3 logits over two tokens, as values and indices."""

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


def stored(tmp_path: Path, name: str, signal: str, table: SampleIndex) -> np.ndarray[Any, Any]:
    column = FeatureStore(Project(tmp_path).features).column(name)
    rows = column.locate(table)
    assert (rows >= 0).all()
    return column.gather(signal, rows)


def test_cached_equals_live(tmp_path: Path, folder: Path) -> None:
    samples = picture_samples(folder, 23)
    table = table_of(samples, tmp_path)
    teachers = [opened("one", 1, width=8), opened("two", 2, width=5)]
    answers = TopAnswers()
    extract(
        Project(tmp_path),
        [*teachers, Opened("talker", answers, answers)],
        table,
        batch_size=4,
        block_rows=10,
        workers=3,
    )
    for teacher in teachers:
        with torch.no_grad():
            pixels = torch.stack([teacher.model.preprocess(decode(sample.image)) for sample in samples])
            live = {
                "image": teacher.model.encode_image(pixels),
                "text": teacher.model.encode_text([sample.text for sample in samples]),
            }
        for signal, features in live.items():
            got = stored(tmp_path, teacher.name, signal, table)
            assert got.dtype == np.float16
            np.testing.assert_allclose(got, features.numpy(), rtol=2**-10, atol=1e-6)
    expected = [sum(decode(s.image).tobytes()) + len(s.text) * 2**40 for s in samples]
    index = stored(tmp_path, "talker", "index", table)
    assert index.shape == (23, 2, 3)
    assert index[:, 1, 2].tolist() == expected


def test_each_image_is_decoded_once_for_teachers_that_lack_different_samples(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(picture_samples(folder, 20), tmp_path)
    project, one, two = Project(tmp_path), opened("one", 1), opened("two", 2)
    extract(project, [one], table_of(table.samples[5:9], tmp_path), block_rows=4)
    decoded = []

    def counting(sample: Sample) -> Image.Image:
        decoded.append(sample.id)
        return open_image(sample)

    monkeypatch.setattr("kdkit.core.features.extract.readahead.open_image", counting)
    reports = extract(project, [one, two], table, block_rows=4, batch_size=3)
    assert sorted(decoded) == sorted(table.ids)
    assert [(r.teacher, r.new, r.kept) for r in reports] == [("one", 16, 4), ("two", 20, 0)]
    decoded.clear()
    assert [r.new for r in extract(project, [one, two], table)] == [0, 0]
    assert decoded == []
    assert len(list(FeatureStore(project.features).column("two").folder.glob("shard-*"))) == 1


def test_only_what_changed_is_extracted_again(tmp_path: Path, folder: Path) -> None:
    samples = picture_samples(folder, 10)
    project, teacher = Project(tmp_path), opened("one", 1)
    before = table_of(samples, tmp_path)
    extract(project, [teacher], before)
    paint(samples[3].image, seed=77)
    samples[6] = dataclasses.replace(samples[6], text="another caption")
    changed = table_of(samples, tmp_path)
    column = FeatureStore(project.features).column("one")
    assert np.flatnonzero(column.locate(changed) < 0).tolist() == [3, 6]
    (report,) = extract(project, [teacher], changed)
    assert (report.new, report.kept) == (2, 8)
    pixels = teacher.model.preprocess(decode(samples[3].image))[None]
    got = stored(tmp_path, "one", "image", changed)[3]
    np.testing.assert_allclose(got, teacher.model.encode_image(pixels)[0].detach(), rtol=2**-10, atol=1e-6)
    assert (FeatureStore(project.features).column("one").locate(before) >= 0).all()


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN or infinite"), (1e6, "values beyond float16")])
def test_a_teacher_that_gives_nan(tmp_path: Path, folder: Path, value: float, kind: str) -> None:
    table = table_of(picture_samples(folder, 12), tmp_path)
    teacher = opened("broken", 1)
    real: Callable[[Tensor], Tensor] = teacher.model.encode_image
    poison = teacher.model.preprocess(decode(table.samples[7].image))

    def encode_image(pixels: Tensor) -> Tensor:
        features = real(pixels)
        features[(pixels == poison).flatten(1).all(dim=1)] = value
        return features

    teacher.model.encode_image = encode_image
    with raises_error("KD-FEAT-001", mentions=(str(kind),)):
        extract(Project(tmp_path), [teacher], table, block_rows=4, batch_size=4)
    located = FeatureStore(Project(tmp_path).features).column("broken").locate(table)
    assert (located >= 0).tolist() == [True] * 4 + [False] * 8


def test_unreadable_images_are_named_and_the_rest_is_stored(tmp_path: Path, folder: Path) -> None:
    samples = picture_samples(folder, 12)
    for i in (2, 5, 6, 9):
        samples[i].image.write_bytes(b"no image")
    project, teacher = Project(tmp_path), opened("one", 1)
    table = table_of(samples, tmp_path)
    for _ in range(2):  # the second time without trying again
        with raises_error("KD-FEAT-005", mentions=("4", "12")):
            extract(project, [teacher], table, block_rows=4, batch_size=3)
    column = FeatureStore(project.features).column("one")
    assert np.flatnonzero(column.locate(table) < 0).tolist() == [2, 5, 6, 9]
    assert len(column.shards) == 1
    skipping = table_of(samples, tmp_path, skip_unreadable=True)
    (report,) = extract(project, [teacher], skipping)
    assert report.unreadable == 4
    paint(samples[5].image, seed=5)
    (report,) = extract(project, [teacher], table_of(samples, tmp_path, skip_unreadable=True))
    assert (report.new, report.unreadable) == (1, 3)


def test_prompts_outlive_their_teacher(tmp_path: Path, folder: Path) -> None:
    table = table_of(picture_samples(folder, 2), tmp_path)
    teacher = opened("one", 1)
    texts = ["normal ct", "abnormal ct", "normal ct"]
    (report,) = extract(Project(tmp_path), [teacher], table, prompts=texts)
    assert report.prompts == 2
    (report,) = extract(Project(tmp_path), [teacher], table, prompts=[*texts, "fundus"])
    assert report.prompts == 1
    got = FeatureStore(Project(tmp_path).features).column("one").text_features(texts)
    np.testing.assert_allclose(got, teacher.model.encode_text(texts).detach(), rtol=1e-5)


def test_no_room_on_the_disk(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(picture_samples(folder, 3), tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with raises_error("KD-FEAT-003", mentions=("0.00",)):
        extract(Project(tmp_path), [opened("one", 1)], table)
    assert not list(tmp_path.rglob("*.h5"))


def test_a_device_that_is_not_there(tmp_path: Path, folder: Path) -> None:
    table = table_of(picture_samples(folder, 1), tmp_path)
    for device in ("cuda:99", "nonsense"):
        with raises_error("KD-FEAT-004", mentions=(str(device),)):
            extract(Project(tmp_path), [opened("one", 1)], table, device=device)


def test_interrupted_by_ctrl_c_it_keeps_what_is_committed(tmp_path: Path, folder: Path) -> None:
    table = table_of(picture_samples(folder, 12), tmp_path)
    teacher = opened("one", 1)
    real: Callable[[Tensor], Tensor] = teacher.model.encode_image
    calls = 0

    def encode_image(pixels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(pixels)

    teacher.model.encode_image = encode_image
    with pytest.raises(KeyboardInterrupt):
        extract(Project(tmp_path), [teacher], table, block_rows=4, batch_size=4)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]
    column = FeatureStore(Project(tmp_path).features).column("one")
    assert (column.locate(table) >= 0).tolist() == [True] * 8 + [False] * 4
    assert not column.complete
    (report,) = extract(Project(tmp_path), [teacher], table, block_rows=4, batch_size=4)
    assert (report.new, report.kept, calls) == (4, 8, 4)


def test_a_shard_begun_with_another_order_of_the_table(tmp_path: Path, folder: Path) -> None:
    """A new data entry in front, a sample gone, while an extraction was interrupted."""
    samples = picture_samples(folder, 12)
    project, teachers = Project(tmp_path), [opened("one", 1), opened("two", 2)]

    for teacher in teachers:
        begun = extraction._Plan(
            FeatureStore(project.features).create(extraction._header(teacher)), table_of(samples, tmp_path)
        )
        begun.begin(4)
    later = table_of([*samples[6:], *samples[:5]], tmp_path)
    extract(project, teachers, later, batch_size=3)
    fresh = Project(tmp_path / "fresh")
    extract(fresh, teachers, later, batch_size=3)
    for teacher in teachers:
        np.testing.assert_allclose(
            stored(tmp_path, teacher.name, "image", later),
            stored(fresh.root, teacher.name, "image", later),
            atol=1e-3,
        )
    assert len(FeatureStore(project.features).column("one").shards) == 1


KILLED = '''
"""Forks runs of an extraction that kill themselves at their n-th write, for every n."""
import os, signal, sys
from pathlib import Path
import torch
from kdkit.core.features.extract.extraction import extract
from kdkit.core.features import shard
from kdkit.core.project.project import Project
from tests.core.features.small import picture_samples, table_of
from tests.core.features.extract.test_extraction import opened

torch.set_num_threads(1)
root = Path(sys.argv[1])
samples = picture_samples(root / "images", 9)
table = table_of(samples, root)

def run(name, kill_at=None, names=("one",)):
    """In a process of its own; whether it ended by itself."""
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
    shard._put = before(shard._put)
    os.replace = before(os.replace)
    shard._reserve = before(shard._reserve)
    teachers = [opened(teacher, seed) for seed, teacher in enumerate(names)]
    extract(Project(root / name), teachers, table, batch_size=3, block_rows=5, workers=1, prompts=["a", "b"])
    os._exit(0)

def contents(name):
    folder = root / name / "features"
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


def test_killed_at_any_write_it_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=Path(__file__).parents[4],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    points, steps = (int(number) for number in done.stdout.split())
    assert points > 20
    assert steps > 1


def test_a_sample_that_a_teacher_cannot_read_names_both(tmp_path: Path, folder: Path) -> None:
    class Choosy(TopAnswers):
        def prepare(self, image: Image.Image, sample: Sample) -> tuple[int, int]:
            raise KdkitError(
                "X-001", f"'{sample.id}' is too long for {image.size}", where="data:7", fix="raise max_tokens"
            )

    choosy, table = Choosy(), table_of(picture_samples(folder, 4), tmp_path)
    with raises_error("KD-FEAT-019", where="data:7", mentions=("'b'", "7")) as caught:
        extract(Project(tmp_path), [opened("a"), Opened("b", choosy, choosy)], table)
    assert caught.value.fix == "raise max_tokens"
