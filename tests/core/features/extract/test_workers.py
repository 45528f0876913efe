"""Which workers live: by lock and by progress, never by the time of day."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kdkit.core.features.extract.workers import WorkerRecord, Workers
from tests.errors import raises_error


class Clock:
    """Monotonic seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def only(workers: Workers) -> WorkerRecord:
    (record,) = workers.others()
    return record


def test_a_worker_without_progress_for_the_lease_counts_as_hung(tmp_path: Path) -> None:
    clock, theirs = Clock(), Clock()
    with Workers(tmp_path / "w", {}, lease=60, clock=clock) as one, Workers(tmp_path / "w", {}, clock=theirs) as two:
        assert one.lives(only(one))
        clock.now = 59
        assert one.lives(only(one))
        clock.now = 61
        assert not one.lives(only(one))
        theirs.now = 5
        assert two.beat(rows=3)
        assert one.lives(only(one))
        assert only(one).rows == 3


def test_a_worker_with_slow_batches_has_a_longer_lease(tmp_path: Path) -> None:
    clock, theirs = Clock(), Clock()
    with Workers(tmp_path / "w", {}, lease=60, clock=clock) as one, Workers(tmp_path / "w", {}, clock=theirs) as two:
        theirs.now = 100
        two.beat()
        assert one.lives(only(one))
        clock.now = 499
        assert one.lives(only(one))
        clock.now = 501
        assert not one.lives(only(one))


def test_the_time_of_day_may_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Workers(tmp_path / "w", {}) as one, Workers(tmp_path / "w", {}):
        assert one.lives(only(one))
        now = time.time()
        for jump in (1e9, -1e9):
            monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
            assert one.lives(only(one))


def test_a_worker_that_has_left_is_gone_and_the_last_one_removes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    with Workers(folder, {}) as one:
        with Workers(folder, {}):
            assert len(one.others()) == 1
        assert one.others() == []
        assert folder.exists()
    assert not folder.exists()


def test_the_record_of_a_killed_worker_does_not_bind_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    with Workers(folder, {"batch size": "8"}) as one:
        (record,) = folder.glob("*.worker")
        with raises_error("KD-FEAT-540", mentions=("batch size", "8", "16")), Workers(folder, {"batch size": "16"}):
            pass
        one.beat()
        content = record.read_text()
    folder.mkdir()
    record.write_text(content)  # as kill -9 leaves it, with a lock that nobody holds
    record.with_suffix(".busy").touch()
    with Workers(folder, {"batch size": "16"}) as two:
        assert two.others() == []


def test_a_torn_record_is_no_worker(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    with Workers(folder, {}) as one:
        (folder / "x.worker").write_text('{"id": "x"')
        (folder / "y.worker").write_text("[]")
        assert one.others() == []


def test_any_error_is_told_to_the_others(tmp_path: Path) -> None:
    with Workers(tmp_path / "w", {}) as one:
        for error, text in ((OSError(28, "No space left on device"), "No space"), (KeyboardInterrupt(), "")):
            with pytest.raises(type(error)), Workers(tmp_path / "w", {}):
                raise error
            assert [text for record in one.others() if text in record.error] == ([text] if text else [])
            for path in one.folder.glob("*.worker"):
                if path.stem != one.id:
                    path.unlink()
