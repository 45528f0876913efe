"""Several workers on one store: the bytes of one process, whatever happens to one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.extraction import extract
from kdkit.core.features.extract.shared import FOLDER
from kdkit.core.features.extract.workers import Workers
from tests.conftest import REPOSITORY, Cli
from tests.core.features.extract.test_extraction import open_toy
from tests.core.features.small import index_of, picture_samples
from tests.errors import raises_error

ROWS = 24
SCRIPT = "tests.core.features.extract.worker_scenarios"
SCENARIOS = ("three", "killed", "hung", "failing", "everywhere")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The scenarios of ``worker_scenarios.py``, which compares the stores byte by byte."""
    done = Cli(REPOSITORY).warm("-m", SCRIPT, str(tmp_path_factory.mktemp("stores")), *SCENARIOS, timeout=900)
    assert done.code == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_three_workers_store_what_one_process_does(ran: dict[str, Any]) -> None:
    results = ran["three"]["results"]
    assert [result["new"] for result in results] == [[ROWS, ROWS]] * 3
    assert any("3 workers" in note for result in results for note in result["notes"])


def test_a_worker_killed_in_a_block_is_replaced(ran: dict[str, Any]) -> None:
    survivor = ran["killed"]["survivor"]
    assert survivor["new"] == [ROWS, ROWS]
    assert any("was killed" in warning for warning in survivor["warnings"])


def test_a_hung_worker_is_replaced_and_may_wake_up(ran: dict[str, Any]) -> None:
    assert ran["hung"]["survivor"]["new"] == [ROWS, ROWS]
    assert ran["hung"]["woken"]["new"] == [ROWS, ROWS]


def test_the_error_of_one_worker_is_known_to_the_others(ran: dict[str, Any]) -> None:
    broken, other = ran["failing"]["results"]
    assert broken["error"] == "KD-FEAT-001"
    assert other["new"] == [ROWS, ROWS]
    assert any("NaN" in warning and "'one'" in warning for warning in other["warnings"])


def test_a_worker_killed_at_any_write_leaves_what_the_next_one_finishes(ran: dict[str, Any]) -> None:
    assert ran["everywhere"]["points"] > 1


def test_workers_with_other_options_are_refused(tmp_path: Path) -> None:
    index = index_of(picture_samples(tmp_path / "images", 6), tmp_path)
    store, folder = FeatureStore(tmp_path / "store"), tmp_path / "store" / FOLDER
    for settings, named in (
        ({"batch size": "32"}, ("batch size", "there 32, here 4")),
        ({"set of samples": "7 with digest 0"}, ("set of samples",)),
        ({"fingerprint of teacher 'one'": "0"}, ("fingerprint", "'one'")),
    ):
        with Workers(folder, settings), raises_error("KD-FEAT-540", mentions=named):
            extract(store, [open_toy("one", 1)], index, batch_size=4, shared=True)
    with Workers(folder, {"fingerprint of teacher 'two'": "0"}):
        (done,) = extract(store, [open_toy("one", 1)], index, batch_size=4, shared=True)
    assert done.new == 6
    assert not folder.exists()


def test_teachers_that_lack_different_samples(tmp_path: Path) -> None:
    """Blocks of several teachers share images in part; a damaged block is computed again."""
    samples = picture_samples(tmp_path / "images", 30)
    index = index_of(samples, tmp_path)
    stores = [FeatureStore(tmp_path / name) for name in ("alone", "shared")]
    for store in stores:
        extract(store, [open_toy("one", 1)], index.part(np.array([3, 4, 11, 20])), block_rows=4)
        shard = next((store.root / "one").rglob("*.h5"))
        content = bytearray(shard.read_bytes())
        features = FeatureStore(store.root).column("one").shards[0].arrays["image"][:4].tobytes()
        content[content.find(features)] ^= 1
        shard.write_bytes(content)
        column = FeatureStore(store.root).column("one")
        assert column.verify()
    for store, shared in zip(stores, (False, True), strict=True):
        teachers = [open_toy("one", 1), open_toy("two", 2)]
        done = extract(store, teachers, index, block_rows=4, batch_size=3, shared=shared)
        assert [d.new for d in done] == [30, 30]
    for name in ("one", "two"):
        alone, shared_ = (FeatureStore(store.root).column(name) for store in stores)
        assert not shared_.verify()
        for signal in ("image", "text"):
            one, other = (column.gather(signal, column.locate(index)) for column in (alone, shared_))
            np.testing.assert_array_equal(one, other)
