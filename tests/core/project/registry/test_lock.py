"""registry.lock: equal content gives equal bytes, and nothing but kdkit's own content is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.project.registry.lock import FileFact, LicenseSeen, Lock, LockedTeacher, MadeFrom, SignalFact
from tests.errors import raises_error

SHA = "0123456789abcdef" * 4


def facts(**changes: Any) -> LockedTeacher:
    given: dict[str, Any] = {
        "provider": "kdkit@0.1.0",
        "source": "hf:org/repo",
        "commit": "a" * 40,
        "loader": "open_clip",
        "options": {"b": [1, 2.5], "a": {"deep": None}},
        "files": {
            "model.safetensors": FileFact(size=7, sha256=SHA, made_from=MadeFrom(file="model.bin", sha256=SHA)),
            "text/config.json": FileFact(size=2, sha256=SHA),
        },
        "also": {"text": "hf:org/text@" + "b" * 40},
        "license": LicenseSeen(name="mit", evidence="README.md"),
        "gated": False,
        "signals": {
            "image": SignalFact(shape=(512,), dtype="float16"),
            "answer": SignalFact(shape=(9, 5), dtype="float16"),
        },
        "identity": {"tokenizer": "bpe"},
        "fingerprint": SHA,
        "locked_at": "2026-11-22T12:00:00+00:00",
    }
    return LockedTeacher(**{**given, **changes})


def test_saving_round_trips_and_is_deterministic(tmp_path: Path) -> None:
    one, other = tmp_path / "one.lock", tmp_path / "other.lock"
    Lock().with_teacher("b", facts()).with_teacher("a", facts(commit=None, license=None)).save(one)
    Lock().with_teacher("a", facts(commit=None, license=None)).with_teacher("b", facts()).save(other)
    assert one.read_bytes() == other.read_bytes()
    loaded = Lock.load(one)
    assert loaded.teacher("b") == facts()
    assert loaded.teacher("b").dims == {"image": 512, "answer": 5}
    loaded.save(other)
    assert other.read_bytes() == one.read_bytes()
    assert loaded.without_teacher("a").without_teacher("b").teachers == {}


def test_without_a_file_nothing_is_locked(tmp_path: Path) -> None:
    with raises_error("KD-REG-013", where="registry.lock") as caught:
        Lock.load(tmp_path / "registry.lock").teacher("plip")
    assert "plip" in caught.value.what
    assert caught.value.fix.split() == ["kdkit", "lock", "plip"]
    assert caught.value.code == ExitCode.MISSING


def _saved(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    path = tmp_path / "registry.lock"
    Lock().with_teacher("plip", facts()).save(path)
    return path, json.loads(path.read_text("utf-8"))


def test_a_manual_edit_is_an_error_that_names_the_teacher(tmp_path: Path) -> None:
    path, raw = _saved(tmp_path)
    raw["teachers"]["plip"]["files"]["text/config.json"]["sha256"] = "f" * 64
    path.write_text(json.dumps(raw), encoding="utf-8")
    with raises_error("KD-REG-014", where="registry.lock", mentions=("'plip'",)):
        Lock.load(path)


def test_a_changed_pin_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "registry.lock"
    Lock(providers={"loss": {"fd": "kdkit"}}).save(path)
    path.write_text(path.read_text().replace('"loss"', '"lost"'))
    with raises_error("KD-REG-014", where="registry.lock", mentions=("providers",)):
        Lock.load(path)


def test_locks_of_two_branches_merge(tmp_path: Path) -> None:
    """Each teacher carries its own checksum, so teachers from two lock files can stand side by side."""
    path, raw = _saved(tmp_path)
    raw["teachers"]["copy"] = raw["teachers"]["plip"]
    path.write_text(json.dumps(raw), encoding="utf-8")
    assert set(Lock.load(path).teachers) == {"plip", "copy"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a kdkit lock"),
        ('{"lockfileVersion": 3}', "not a kdkit lock"),
        ('{"lock_version": 2, "teachers": {}}', "newer kdkit"),
        ('{"lock_version": 1, "teachers": {}, "packages": []}', "packages"),
        ('{"lock_version": 1, "teachers": {"a": 1}}', "'a'"),
        ('{"lock_version": 1, "teachers": []}', "teachers"),
        ("\xff", "not"),
    ],
)
def test_foreign_and_newer_files_are_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "registry.lock"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(KdkitError) as caught:
        Lock.load(path)
    assert words in f"{caught.value.what} {caught.value.why}"
    assert caught.value.where == "registry.lock"
    assert caught.value.fix


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "", "a\\..\\b"])
def test_paths_in_a_lock_cannot_lead_outside(name: str) -> None:
    with pytest.raises(ValueError, match="outside"):
        facts(files={name: FileFact(size=1, sha256=SHA)})
