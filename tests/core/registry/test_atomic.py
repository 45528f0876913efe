"""What a disk can say becomes one clear error, whoever was writing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kdkit.core.errors import ExitCode, KdkitError
from kdkit.core.registry.atomic import disk_errors, write_atomically
from kdkit.core.workspace import Workspace

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_full_disk() -> None:
    with pytest.raises(KdkitError, match="no disk space left") as caught, disk_errors("here"):
        FULL.write_text("a", encoding="utf-8")
    assert caught.value.code is ExitCode.MISSING


@pytest.mark.parametrize(
    ("words", "what", "code"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", "no disk space left", 3),
        ("Unable to write (file write failed: errno = 28, error message = 'No space')", "no disk space left", 3),
        ("I/O error: Permission denied (os error 13)", "no permission to read or write here", 4),
    ],
)
def test_libraries_that_give_the_reason_in_words(words: str, what: str, code: int) -> None:
    with pytest.raises(KdkitError) as caught, disk_errors("the/project"):
        raise RuntimeError(words)
    assert (caught.value.what, caught.value.where, caught.value.code) == (what, "the/project", code)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(FileNotFoundError), disk_errors("here"):
        Path("nowhere").read_text(encoding="utf-8")
    with pytest.raises(KdkitError, match="mine"), disk_errors("here"):
        raise KdkitError("mine")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_safetensors_in_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(KdkitError, match="no permission"), disk_errors("here"):
        save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors")


def test_every_command_that_writes_is_covered(tmp_path: Path) -> None:
    with pytest.raises(KdkitError, match="no disk space left"), Workspace(tmp_path).exclusive("kdkit distill"):
        raise OSError(28, "No space left on device")


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
