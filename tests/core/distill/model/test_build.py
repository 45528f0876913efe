"""Pieces of the build that need no project."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.distill.model.build import TASK_FILE, saved_task
from kdkit.core.project.versions import Version
from tests.errors import raises_error


@pytest.mark.parametrize("content", [b"", b"\x80" * 64, None])
def test_damaged_heads_are_one_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / TASK_FILE).write_bytes(content)
    where = str(tmp_path / TASK_FILE)
    with raises_error("KD-BASE-040", where=where, mentions=("v1", "kdkit rollback"), code=ExitCode.MISSING):
        saved_task(Version("v1", tmp_path), cast(Any, None))
