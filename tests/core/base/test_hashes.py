"""Hashes of files, alone and of copies."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from kdkit.core.base.hashes import copy_hashed, sha256_of


@pytest.mark.parametrize("size", [0, 1, 10**6])
def test_a_copy_has_the_content_the_times_and_the_hash_of_its_source(tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(content := os.urandom(size))
    os.utime(source, ns=(10**18, 10**18))
    assert copy_hashed(source, target) == sha256_of(source) == hashlib.sha256(content).hexdigest()
    assert target.read_bytes() == content
    assert target.stat().st_mtime_ns == 10**18


def test_the_hash_is_that_of_the_copy_if_the_source_changes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"before")
    copy = shutil.copy2

    def copy_and_change(one: Path, other: Path) -> None:
        copy(one, other)
        source.write_bytes(b"after it")

    monkeypatch.setattr(shutil, "copy2", copy_and_change)
    assert copy_hashed(source, target) == hashlib.sha256(b"before").hexdigest() == sha256_of(target)
