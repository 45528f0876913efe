"""Pieces of the build that need no project."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.distill.model.build import TASK_FILE, anchored, saved_task
from kdkit.core.project.versions import Version
from tests.errors import raises_error


@pytest.mark.parametrize("content", [b"", b"\x80" * 64, None])
def test_damaged_heads_are_one_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / TASK_FILE).write_bytes(content)
    where = str(tmp_path / TASK_FILE)
    with raises_error("KD-BASE-040", where=where, mentions=("v1", "kdkit rollback"), code=ExitCode.MISSING):
        saved_task(Version("v1", tmp_path), cast(Any, None))


def test_paths_of_the_students_config_are_relative_to_the_registry() -> None:
    config = {"init": "./models/x", "tokenizer": {"folder": "../t"}, "arch": "ViT-B-16", "list": ["./a", 3]}
    assert anchored(config, Path("/p")) == {
        "init": "/p/models/x",
        "tokenizer": {"folder": "/p/../t"},
        "arch": "ViT-B-16",
        "list": ["/p/a", 3],
    }
