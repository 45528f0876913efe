"""Journals: what a reader gets after a kill, under other settings, and from several writers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdkit.core.base.journal import Journal, JournalEntry, temporary_journal
from tests.errors import raises_error


def entry(number: int, text: str = "left lung") -> JournalEntry:
    return JournalEntry((f"s{number}", number), {"answer": text})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "answers.jsonl"


def test_missing_file_is_empty(path: Path) -> None:
    assert Journal(path).read() == {}
    assert Journal(path).read_all() == []
    assert not path.parent.exists()


def test_appended_entries_are_read_and_the_latest_counts(path: Path) -> None:
    journal = Journal(path)
    journal.append([entry(0), entry(1)])
    journal.append([entry(0, "right lung")])
    assert journal.read() == {("s0", 0): {"answer": "right lung"}, ("s1", 1): {"answer": "left lung"}}
    assert journal.read_all() == [entry(0), entry(1), entry(0, "right lung")]
    assert [list(json.loads(line)) for line in path.read_bytes().splitlines()] == [
        ["settings", "checksum"],
        *[["id", "digest", "value", "checksum"]] * 3,
    ]


def test_torn_last_line_is_ignored_by_readers_and_removed_by_the_next_append(path: Path) -> None:
    Journal(path).append([entry(0), entry(1)])
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        lines = max(0, whole[:cut].count(b"\n") - 1)
        assert len(Journal(path).read()) == lines
        Journal(path).append([entry(number) for number in range(lines, 2)])
        assert path.read_bytes() == whole


def test_other_settings_are_kept_and_not_read(path: Path) -> None:
    greedy, drawn = Journal(path, {"samples": 0}), Journal(path, {"samples": 3})
    greedy.append([entry(0)])
    drawn.append([entry(1)])
    drawn.append([entry(2)])
    greedy.append([entry(3)])
    assert list(greedy.read()) == [("s0", 0), ("s3", 3)]
    assert list(Journal(path, {"samples": 3}).read()) == [("s1", 1), ("s2", 2)]
    assert Journal(path).read_all() == [entry(number) for number in range(4)]
    assert path.read_bytes().count(b"settings") == 3


def test_damaged_line_is_an_error_with_its_number(path: Path) -> None:
    journal = Journal(path)
    journal.append([entry(0), entry(1)])
    whole = path.read_bytes().splitlines(keepends=True)
    for number, damaged in ((1, b"\0\0\n"), (2, b"[1]\n"), (2, b'{"id": "s0"}\n'), (3, b'{"id": "s1", "dig\n')):
        path.write_bytes(b"".join([*whole[: number - 1], damaged, *whole[number:]]))
        for use in (journal.read, lambda: Journal(path).append([entry(2)])):
            with raises_error("KD-BASE-020", where=f"{path}:{number}"):
                use()


def test_removed_journal_starts_again(path: Path) -> None:
    journal = Journal(path)
    journal.append([entry(0)])
    path.unlink()
    journal.append([entry(1)])
    assert list(journal.read()) == [("s1", 1)]


WRITER = """
import sys
from pathlib import Path
from kdkit.core.base.journal import Journal, JournalEntry

journal = Journal(Path(sys.argv[1]))
known = journal.read()
for number in range(100_000):
    key = (f"s{number}", number)
    if key not in known:
        journal.append([JournalEntry(key, {"answer": "x" * 500})])
"""


def test_killed_writer_leaves_a_journal_that_resumes(path: Path) -> None:
    counts = [0]
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
            deadline = time.monotonic() + 60
            while len(Journal(path).read()) < counts[-1] + 20:
                assert writer.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.kill(writer.pid, signal.SIGKILL)
        found = Journal(path).read_all()
        assert [one.key for one in found] == [(f"s{number}", number) for number in range(len(found))]
        counts.append(len(found))
    assert path.read_bytes().count(b"settings") == 1


def _append_many(path: Path, settings: int) -> None:
    journal = Journal(path, {"writer": settings})
    for number in range(50):
        journal.append([entry(number)])


def test_simultaneous_writers_keep_their_settings_apart(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(path, number)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    for number in range(2):
        assert Journal(path, {"writer": number}).read_all() == Journal(path).read_all()
        assert len(Journal(path, {"writer": number}).read()) == 50
    assert len(Journal(path).read_all()) == 100


def write_and_interrupt(path: Path) -> None:
    with temporary_journal(path):
        path.write_text("1\n", encoding="utf-8")
        with raises_error("KD-BASE-045"), temporary_journal(path):
            pass
        raise KeyboardInterrupt


def test_a_temporary_journal_belongs_to_one_process_and_goes_with_its_work(tmp_path: Path) -> None:
    given_up, recent = tmp_path / "b.jsonl", tmp_path / "c.jsonl"
    for path in (given_up, recent):
        path.touch()
    os.utime(given_up, (0, 0))
    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt(path := tmp_path / "a.jsonl")
    assert sorted(tmp_path.iterdir()) == [path, recent]
    with temporary_journal(path):
        assert path.read_text(encoding="utf-8") == "1\n"
    assert list(tmp_path.iterdir()) == [recent]


def test_a_changed_letter_is_noticed(path: Path) -> None:
    Journal(path).append([entry(0), entry(1)])
    path.write_bytes(path.read_bytes().replace(b"left", b"lefd", 1))
    with raises_error("KD-BASE-020", where=f"{path}:2"):
        Journal(path).read()
