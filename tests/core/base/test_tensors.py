"""Damaged safetensors files: one error with the file's name, exit code 3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kdkit.core.base.errors import ExitCode
from kdkit.core.base.tensors import read_array, read_header, read_tensors, require_readable
from tests.errors import raises_error

READERS: dict[str, Callable[[Path], Any]] = {
    "tensors": read_tensors,
    "array": lambda path: read_array(path, "a"),
    "header": read_header,
    "folder": lambda path: require_readable(path.parent),
}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.arange(12.0).view(3, 4), "b": torch.zeros(5)}, path, metadata={"format": "pt"})
    return path


def test_a_whole_file(whole: Path) -> None:
    assert set(read_tensors(whole)) == {"a", "b"}
    np.testing.assert_array_equal(read_array(whole, "a"), np.arange(12, dtype=np.float32).reshape(3, 4))
    header = read_header(whole)
    assert (header.shapes["a"], header.metadata["format"], header.parameters) == ((3, 4), "pt", 17)
    require_readable(whole.parent)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", ["truncated", "garbage", "html", "empty"])
def test_a_damaged_file_is_one_error(whole: Path, damage: str, reader: str) -> None:
    content = {"truncated": whole.read_bytes()[:-9], "garbage": b"\x80" * 99, "html": b"<html>" * 20, "empty": b""}
    whole.write_bytes(content[damage])
    with raises_error("KD-BASE-040", where=str(whole), code=ExitCode.MISSING) as caught:
        READERS[reader](whole)
    assert caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize("reader", ["tensors", "array", "header"])
def test_a_missing_file_is_the_same_error_with_the_callers_remedy(tmp_path: Path, reader: str) -> None:
    with raises_error("KD-BASE-040", where=str(tmp_path / "absent"), code=ExitCode.MISSING):
        READERS[reader](tmp_path / "absent")
    with raises_error("KD-BASE-040", mentions=("kdkit rollback",)):
        read_tensors(tmp_path / "absent", fix="kdkit rollback")


def test_an_absent_tensor(whole: Path) -> None:
    with raises_error("KD-BASE-040", mentions=("digests",)):
        read_array(whole, "digests")
