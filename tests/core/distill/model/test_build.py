"""Heads of the previous version: a damaged file is one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.distill.model.build import saved_task
from kdkit.core.project.manifest import write_manifest
from kdkit.core.project.versions import TASK, Version
from tests.errors import raises_error


@pytest.mark.parametrize("content", [b"", b"\x80" * 64, None])
def test_changed_heads_are_one_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / TASK
    path.write_bytes(b"the heads")
    write_manifest(tmp_path)
    path.unlink() if content is None else path.write_bytes(content)
    with raises_error("KD-PROJ-014", where=str(path), mentions=("kdkit rollback",), code=ExitCode.FOUND):
        saved_task(Version("v1", tmp_path), cast(Any, None))


def test_heads_that_are_no_safetensors_file_are_one_error(tmp_path: Path) -> None:
    (tmp_path / TASK).write_bytes(b"\x80" * 64)
    write_manifest(tmp_path)
    with raises_error("KD-BASE-040", where=str(tmp_path / TASK)):
        saved_task(Version("v1", tmp_path), cast(Any, None))
