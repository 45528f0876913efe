"""The lock of a project against a second command, with and without locks of the file system."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextvars import Context
from pathlib import Path
from socket import gethostname

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.base.locks import file_lock
from kdkit.core.project.project import Project
from tests.errors import raises_error


def lock_again(root: Path) -> None:
    """In a new context: as another command."""
    with Project(root).exclusive("kdkit distill"):
        pass


def test_one_command_at_a_time(tmp_path: Path) -> None:
    with Project(tmp_path).exclusive("kdkit lock"):
        with raises_error("KD-PROJ-002", mentions=("kdkit lock", str(os.getpid())), code=ExitCode.FOUND):
            Context().run(lock_again, tmp_path)
        lock_again(tmp_path)  # a part of the command that holds the lock
        with raises_error("KD-PROJ-002"):
            Context().run(lock_again, tmp_path)
    Context().run(lock_again, tmp_path)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    project = Project(tmp_path)
    with (
        pytest.warns(UserWarning, match=str(tmp_path)),
        project.exclusive("kdkit lock"),
        raises_error("KD-PROJ-002", mentions=("kdkit lock",)),
    ):
        Context().run(lock_again, tmp_path)
    busy = project.state / "busy"
    assert busy.read_text() == ""
    busy.write_text(json.dumps({"pid": 2**22 + 1, "host": gethostname(), "command": "killed"}))
    with pytest.warns(UserWarning, match=str(tmp_path)), project.exclusive("kdkit lock"):
        pass


def test_what_killed_commands_left_is_removed_and_what_others_hold_stays(tmp_path: Path) -> None:
    project = Project(tmp_path)
    left = [
        tmp_path / "versions" / ".v2.draft-0123abc_",
        tmp_path / ".kdkit" / "runs" / "1f-no" / ".step-1.draft-0123abc_",
    ]
    for folder in (*left, project.features, project.state / "answers"):
        folder.mkdir(parents=True)
    (project.features / "trust.busy").touch()
    with file_lock(project.state / "answers" / "1f.busy"):
        project.remove_abandoned_drafts()
        assert [path for path in (*left, project.features / "trust.busy") if path.exists()] == []
        assert (project.state / "answers" / "1f.busy").exists()
