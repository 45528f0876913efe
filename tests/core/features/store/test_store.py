"""The store against a plain dictionary, and against files that are not what they should be."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kdkit.core.base.journal import Journal, JournalEntry
from kdkit.core.contracts import SignalSpec
from kdkit.core.data import stamps
from kdkit.core.features import Column, FeatureStore, Header
from kdkit.core.features.store.shard import ABSENT, PRESENT, UNREADABLE, Shard
from tests.core.features.small import keyed_index
from tests.errors import raises_error

SIGNALS = (SignalSpec("image", (3,)), SignalSpec("answer", (2, 2), "int32"))
HEADER = Header("tiny", "ab" * 32, {"weights": "one", "preprocess": "resize 8"}, SIGNALS)
Keys = list[tuple[str, int]]


def add_rows(
    store: FeatureStore, keys: Keys, status: NDArray[np.uint8] | None = None, seed: int = 0, block_rows: int = 4
) -> dict[str, NDArray[Any]]:
    """A complete shard of random rows; returns what was written."""
    column = store.create(HEADER)
    shard = Shard(
        column.add_shard([k for k, _ in keys], np.array([d for _, d in keys], np.uint64), block_rows),
        writable=True,
    )
    status = np.full(len(keys), PRESENT, np.uint8) if status is None else status
    rng = np.random.default_rng(seed)
    values: dict[str, NDArray[Any]] = {
        "image": rng.normal(size=(len(keys), 3)).astype(np.float16),
        "answer": rng.integers(0, 1000, (len(keys), 2, 2), dtype=np.int32),
    }
    for array in values.values():
        array[status != PRESENT] = 0
    for block in shard.pending():
        rows = shard.rows_of(block)
        shard.commit(block, {name: array[rows] for name, array in values.items()}, status[rows])
    return values


keys = st.tuples(st.sampled_from([f"id-{c}" for c in "abcdefghé漢"]), st.integers(0, 2))
statuses = st.sampled_from([ABSENT, PRESENT, UNREADABLE])
shards = st.lists(
    st.lists(st.tuples(keys, statuses), min_size=1, max_size=14, unique_by=lambda row: row[0]), max_size=4
)


@settings(max_examples=60, deadline=None)
@given(shards=shards, wanted=st.lists(keys, max_size=20, unique=True), seed=st.integers(0, 99))
def test_the_store_is_a_dictionary_of_id_and_content(
    tmp_path_factory: pytest.TempPathFactory, shards: list[Any], wanted: Keys, seed: int
) -> None:
    store = FeatureStore(tmp_path_factory.mktemp("store"))
    store.create(HEADER)
    reference: dict[tuple[str, int], dict[str, NDArray[Any]]] = {}
    unreadable = set()
    for number, rows in enumerate(shards):
        status = np.array([s for _, s in rows], np.uint8)
        values = add_rows(store, [key for key, _ in rows], status, seed=number)
        for i, (key, code) in enumerate(rows):
            if code == PRESENT:
                reference[key] = {name: array[i] for name, array in values.items()}
            elif code == UNREADABLE:
                unreadable.add(key)
    column = store.column("tiny")
    index = keyed_index(wanted)
    located = column.locate(index)
    assert [row >= 0 for row in located] == [key in reference for key in wanted]
    assert column.unreadable(index).tolist() == [key in unreadable - reference.keys() for key in wanted]
    order = np.random.default_rng(seed).permutation(np.flatnonzero(located >= 0))
    order = np.concatenate([order, order[:3]])
    for spec in SIGNALS:
        expected = np.array([reference[wanted[i]][spec.name] for i in order], spec.dtype).reshape(-1, *spec.shape)
        got = column.gather(spec.name, located[order])
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == spec.dtype
    assert column.verify() == []
    assert column.complete


def test_rows_are_not_found_before_their_block_is_committed(tmp_path: Path) -> None:
    column = FeatureStore(tmp_path).create(HEADER)
    shard = Shard(column.add_shard(list("abcde"), np.arange(5, dtype=np.uint64), 2), writable=True)
    values: dict[str, NDArray[Any]] = {"image": np.ones((2, 3), np.float16), "answer": np.ones((2, 2, 2), np.int32)}
    shard.commit(1, values, np.full(2, PRESENT, np.uint8))
    column = FeatureStore(tmp_path).column("tiny")
    index = keyed_index([(name, i) for i, name in enumerate("abcde")])
    assert column.locate(index).tolist() == [-1, -1, 2, 3, -1]
    assert not column.complete
    assert Shard(shard.path).pending() == [0, 2]


def test_any_hdf5_tool_reads_a_shard(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    values = add_rows(store, [("pé", 7), ("q", 8), ("r", 9), ("s", 10), ("t", 11)])
    with h5py.File(store.column("tiny").shards[0].path) as file:
        for name, array in values.items():
            dataset = file[f"signals/{name}"]
            np.testing.assert_array_equal(dataset[...], array)
            assert dataset.chunks is None
            assert dataset.id.get_offset() % 4096 == 0
        assert [name.decode() for name in file["ids"]] == ["pé", "q", "r", "s", "t"]
        assert file["digests"][...].tolist() == [7, 8, 9, 10, 11]
        assert file["status"][...].tolist() == [PRESENT] * 5


@pytest.mark.parametrize("bad", [[-1], [0, 5], [2, -3]])
@pytest.mark.parametrize("shard_count", [1, 2])
def test_missing_rows_cannot_be_gathered(tmp_path: Path, bad: list[int], shard_count: int) -> None:
    store = FeatureStore(tmp_path)
    for number, keys_ in enumerate([[("a", 0), ("b", 0), ("c", 0)], [("d", 0), ("e", 0)]][:shard_count]):
        add_rows(store, keys_, seed=number)
    with pytest.raises(IndexError, match=r"0\.\."):
        store.column("tiny").gather("image", np.array(bad))


def test_an_unknown_signal_is_reported_with_a_proposal(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    add_rows(store, [("a", 0)])
    with raises_error("KD-FEAT-009", mentions=("'images'", "'image'")):
        store.column("tiny").gather("images", np.array([0]))


def one_shard(tmp_path: Path) -> tuple[FeatureStore, Path]:
    store = FeatureStore(tmp_path)
    add_rows(store, [(f"sample-{i}", i) for i in range(100)], block_rows=16)
    return store, store.column("tiny").shards[0].path


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: float) -> None:
    store, path = one_shard(tmp_path)
    size = path.stat().st_size
    os.truncate(path, int(keep * size) if isinstance(keep, float) else keep)
    with raises_error("KD-FEAT-012", where=str(path)):
        store.column("tiny")


def test_a_foreign_hdf5_file_is_refused(tmp_path: Path) -> None:
    store, path = one_shard(tmp_path)
    with h5py.File(path, "w") as file:
        file["image"] = np.zeros((3, 3))
    with raises_error("KD-FEAT-012"):
        store.column("tiny")


def test_a_shard_of_another_column_is_refused(tmp_path: Path) -> None:
    _, path = one_shard(tmp_path / "a")
    other = FeatureStore(tmp_path / "b")
    column = other.create(Header("tiny", "cd" * 32, {}, SIGNALS))
    shutil.copy(path, column.folder / path.name)
    with raises_error("KD-FEAT-012", mentions=("abababababab", "cdcdcdcdcdcd")):
        other.column("tiny")


def flip(path: Path, offset: int) -> None:
    """Change one bit of a byte, in a new file of the same name."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.unlink()
    path.write_bytes(data)


def offset_of(path: Path, dataset: str) -> int:
    with h5py.File(path) as file:
        found: int = file[dataset].id.get_offset()
    return found


def test_verify_names_a_damaged_block(tmp_path: Path) -> None:
    store, path = one_shard(tmp_path)
    flip(path, offset_of(path, "signals/image") + 37 * 6)
    assert store.column("tiny").verify(deep=False) == []
    (problem,) = store.column("tiny").verify()
    assert problem.startswith(f"{path}: block 2 (rows 32..47)")


@pytest.mark.parametrize("dataset", ["signals/image", "signals/answer", "status", "checksums"])
@pytest.mark.parametrize("shard_count", [1, 2])
def test_rows_of_a_damaged_block_are_never_gathered(tmp_path: Path, dataset: str, shard_count: int) -> None:
    store, path = one_shard(tmp_path)
    if shard_count == 2:
        add_rows(store, [("more", 0)])
    width = {"signals/image": 6, "signals/answer": 16, "status": 1, "checksums": 1}[dataset]
    flip(path, offset_of(path, dataset) + 37 * width)
    column = store.column("tiny")
    assert len(column.gather("image", np.arange(32))) == 32
    with raises_error("KD-FEAT-020", where=str(path), mentions=("block 2", "kdkit features extract tiny")):
        column.gather("image", np.array([3, 40]))
    index = keyed_index([(f"sample-{i}", i) for i in range(100)])
    assert np.flatnonzero(store.column("tiny").locate(index) < 0).tolist() == list(range(32, 48))
    assert column.shards[0].pending() == [2]
    assert not column.complete


def test_damage_that_a_check_finds_is_not_located(tmp_path: Path) -> None:
    store, path = one_shard(tmp_path)
    flip(path, offset_of(path, "signals/image") + 37 * 6)
    index, column = keyed_index([(f"sample-{i}", i) for i in range(100)]), store.column("tiny")
    located = column.locate(index)
    assert column.check(located[:32]) == []
    assert len(column.check(located)) == 1
    assert np.flatnonzero(column.locate(index) < 0).tolist() == list(range(32, 48))


@pytest.mark.parametrize("name", ["shard-0000.h5", "column.json", "texts.safetensors"])
def test_an_error_of_the_disk_is_no_damage(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, path = one_shard(tmp_path)
    store.put_texts("tiny", HEADER.fingerprint, {"a photo": np.ones(4)})

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path.with_name(name)))

    reader = {"shard-0000.h5": (h5py, "File"), "column.json": (Path, "read_text")}.get(name, (safetensors, "safe_open"))
    monkeypatch.setattr(*reader, fails)
    with raises_error("KD-BASE-002", where=str(path.with_name(name))):
        store.set_aside_damage("tiny")
    monkeypatch.undo()
    assert store.set_aside_damage("tiny") == []
    assert path.exists()


def test_a_damaged_journal_keeps_its_intact_lines(tmp_path: Path) -> None:
    store, path = one_shard(tmp_path)
    journal = Journal(path.with_name("answers.jsonl"))
    journal.append([JournalEntry((name, 1), {"answer": name}) for name in "abc"])
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"answer": "b"', b'"answer": "x"'))
    assert store.set_aside_damage("tiny") == [journal.path]
    assert [key for key, _ in journal.read()] == ["a", "c"]
    header, *entries = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(header.replace(b"settings", b"settinks") + b"".join(entries))
    store.set_aside_damage("tiny")
    assert not journal.path.exists()


def test_a_new_shard_never_takes_the_name_of_another(tmp_path: Path) -> None:
    store, path = one_shard(tmp_path)
    add_rows(store, [("more", 0)])
    path.write_bytes(b"")
    assert store.set_aside_damage("tiny") == [path]
    add_rows(store, [("again", 0)])
    assert [shard.path.name for shard in store.column("tiny").shards] == ["shard-0001.h5", "shard-0002.h5"]
    assert path.with_name("shard-0000.h5.damaged").exists()


def test_damaged_ids_are_refused(tmp_path: Path) -> None:
    store, path = one_shard(tmp_path)
    data = path.read_bytes()
    assert data.count(b"sample-57") == 1
    path.write_bytes(data.replace(b"sample-57", b"sample-58"))
    with raises_error("KD-FEAT-012", mentions=("checksum",)):
        store.column("tiny")


def test_another_fingerprint_is_reported_with_both(tmp_path: Path) -> None:
    store, _ = one_shard(tmp_path)
    assert store.column("tiny", "ab" * 32).fingerprint == "ab" * 32
    with raises_error("KD-FEAT-018", mentions=("abababababab", "efefefefefef")):
        store.column("tiny", "ef" * 32)


def test_the_column_of_the_last_extraction_is_current(tmp_path: Path) -> None:
    store, _ = one_shard(tmp_path)
    newer = Header("tiny", "01" * 32, {}, SIGNALS)
    store.create(newer)
    assert store.column("tiny").fingerprint == newer.fingerprint
    store.create(HEADER)
    assert [header.fingerprint for header in store.headers("tiny")] == ["ab" * 32, "01" * 32]


def test_an_open_column_is_shared_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = one_shard(tmp_path)
    column = store.column("tiny")
    assert store.column("tiny") is not column  # the file has just changed and may change again in the same instant
    monkeypatch.setattr(stamps, "RECENT_NS", 0)
    column = store.column("tiny")
    assert store.column("tiny") is column
    os.utime(column.shards[0].path, (0, 0))
    assert store.column("tiny") is not column
    column = store.column("tiny")
    add_rows(store, [("later", 1)])
    assert len(store.column("tiny")) == len(column) + 1


def test_a_missing_column_is_reported_with_a_proposal(tmp_path: Path) -> None:
    store, _ = one_shard(tmp_path)
    with raises_error("KD-FEAT-015", mentions=("'tinny'", "'tiny'")):
        store.column("tinny")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "A"])
def test_a_name_cannot_leave_the_store(tmp_path: Path, name: str) -> None:
    with raises_error("KD-FEAT-016"):
        FeatureStore(tmp_path).create(Header(name, "ab" * 32, {}, SIGNALS))
    store, _ = one_shard(tmp_path)
    with raises_error("KD-FEAT-014"):
        store.column("tiny").put_scores(name, np.array([0]), np.array([1.0]))


def test_a_full_disk_leaves_no_shard_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    column = FeatureStore(tmp_path).create(HEADER)
    with raises_error("KD-FEAT-013", mentions=("2",)):
        column.add_shard(["a", "b"], np.zeros(2, np.uint64))
    assert sorted(p.name for p in column.folder.iterdir()) == ["column.json"]


def test_texts_are_kept_beside_the_column(tmp_path: Path) -> None:
    store, _ = one_shard(tmp_path)
    rng = np.random.default_rng(0)
    first = {"a photo": rng.normal(size=4), "un été": rng.normal(size=4)}
    store.put_texts("tiny", HEADER.fingerprint, first)
    store.put_texts("tiny", HEADER.fingerprint, {"a photo": np.ones(4)})
    column = store.column("tiny")
    got = column.text_features(["un été", "a photo", "un été"])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.array([first["un été"], np.ones(4), first["un été"]], np.float32))
    with raises_error("KD-FEAT-010", mentions=("'x'", "2")):
        column.text_features(["x", "a photo", "y", "x"])
    path = column.folder / "texts.safetensors"
    content = path.read_bytes()
    for damaged in (b"no", content[:-1] + bytes([content[-1] ^ 1]), content.replace(b"a photo", b"a phoso")):
        path.write_bytes(damaged)
        with raises_error("KD-FEAT-012", where=str(path), mentions=("kdkit features extract",)):
            store.column("tiny").text_features(["a photo"])


def test_scores_survive_new_shards(tmp_path: Path) -> None:
    store, _ = one_shard(tmp_path)
    store.column("tiny").put_scores("agreement", np.array([3, 99]), np.array([0.25, 0.5]))
    add_rows(store, [("new", 0)])
    column = store.column("tiny")
    column.put_scores("agreement", np.array([100]), np.array([0.75]))
    scores = store.column("tiny").scores("agreement")
    assert scores[[3, 99, 100]].tolist() == [0.25, 0.5, 0.75]
    assert np.isnan(scores).sum() == 98
    assert np.isnan(column.scores("other")).all()
    with pytest.raises(IndexError):
        column.put_scores("agreement", np.array([101]), np.array([1.0]))


def test_a_column_without_shards(tmp_path: Path) -> None:
    column: Column = FeatureStore(tmp_path).create(HEADER)
    assert column.locate(keyed_index([("a", 1)])).tolist() == [-1]
    assert column.gather("image", np.zeros(0, np.int64)).shape == (0, 3)
    assert column.complete
    assert len(column) == 0
