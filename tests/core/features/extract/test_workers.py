"""Which workers live: by lock and by progress, never by the time of day."""

from __future__ import annotations

import errno
import fcntl
import json
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from socket import gethostname

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


def test_of_two_workers_that_leave_together_the_second_one_removes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one leaves right after the first one has found that it lives."""
    folder = tmp_path / "w"
    with ExitStack() as second, Workers(folder, {}) as one:
        second.enter_context(Workers(folder, {}))
        leaving = threading.Thread(target=second.close)
        real = one.lives

        def lives(other: WorkerRecord) -> bool:
            found = real(other)
            leaving.start()
            leaving.join(0.5)  # it waits for us, so this may end at any time
            return found

        monkeypatch.setattr(one, "lives", lives)
    leaving.join()
    assert not folder.exists()


def test_without_file_locks_there_is_one_worker_and_a_killed_one_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = tmp_path / "w"
    with Workers(folder, {}) as one:
        with raises_error("KD-FEAT-505", mentions=("no file locks", one.own.name)), Workers(folder, {}):
            pass
        assert {path.stem for path in folder.glob("*.busy")} == {"planning", one.id}
        (record,) = folder.glob("*.worker")
        content = json.loads(record.read_text())
    assert not folder.exists()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder.mkdir()
    record.write_text(json.dumps({**content, "name": f"{gethostname()}:{ended.pid}"}))
    record.with_suffix(".busy").touch()
    with Workers(folder, {}) as two:
        assert two.others() == []


def test_a_full_disk_stops_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    clock = Clock()
    with Workers(tmp_path / "w", {}, clock=clock) as one:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_text", full)
            clock.now = 5
            assert one.beat(rows=3)
        assert one.own.rows == 3


def test_a_record_names_no_file_elsewhere(tmp_path: Path) -> None:
    with Workers(tmp_path / "w", {}) as one:
        (own,) = one.folder.glob("*.worker")
        (one.folder / "x.worker").write_text(json.dumps({**json.loads(own.read_text()), "id": "../../kept"}))
        assert one.others() == []


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
