"""Errors of the operating system become messages; other errors pass."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.system_errors import as_kdkit_error, system_errors
from kdkit.core.project.project import Project
from tests.errors import raises_error

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_full_disk() -> None:
    with raises_error("KD-BASE-002", where="here") as caught, system_errors("here"):
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
def test_the_errno_is_read_from_messages_of_libraries(words: str, what: str, code: int) -> None:
    with raises_error("KD-BASE-002", where="the/project") as caught, system_errors("the/project"):
        raise RuntimeError(words)
    assert (caught.value.what, caught.value.where, caught.value.code) == (what, "the/project", code)


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(FileNotFoundError), system_errors("here"):
        Path("nowhere").read_text(encoding="utf-8")
    with raises_error("X-001", mentions=("mine",)), system_errors("here"):
        raise KdkitError("X-001", "mine")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_safetensors_in_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(KdkitError, match="no permission"), system_errors("here"):
        save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors")


def test_every_command_that_writes_is_covered(tmp_path: Path) -> None:
    with raises_error("KD-BASE-002"), Project(tmp_path).exclusive("kdkit distill"):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, ExitCode.MISSING),
        (errno.EROFS, ExitCode.DENIED),
        (errno.EIO, ExitCode.MISSING),
        (errno.ENOLCK, ExitCode.MISSING),
        (errno.EMFILE, ExitCode.MISSING),
        (errno.ECONNRESET, ExitCode.MISSING),
        (errno.ENAMETOOLONG, ExitCode.USAGE),
        (errno.ENOTDIR, ExitCode.USAGE),
    ],
)
def test_the_file_the_reason_and_a_remedy_are_named(number: int, code: ExitCode) -> None:
    found = as_kdkit_error(OSError(number, os.strerror(number), "/data/x.png"), "elsewhere")
    assert found is not None
    assert (found.where, found.why, found.code) == ("/data/x.png", os.strerror(number), code)
    assert found.fix


def test_memory() -> None:
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")):
        found = as_kdkit_error(error, "here")
        assert found is not None
        assert "ulimit" in found.fix


def test_the_current_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with raises_error("KD-BASE-002", code=ExitCode.MISSING), system_errors(""):
        Path.cwd()
    monkeypatch.undo()
    assert as_kdkit_error(FileNotFoundError(errno.ENOENT, "no", "file")) is None
