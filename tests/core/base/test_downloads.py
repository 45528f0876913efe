"""Files in the place of a model's: named as what they are; whole files pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kdkit.core.base.downloads import find_damage, find_missing_shards


@pytest.fixture(params=["w.safetensors", "w.pt", "config.json"])
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    if path.suffix == ".json":
        path.write_text('{"a": 1}')
    elif path.suffix == ".pt":
        torch.save({"a": torch.zeros(100)}, path)
    else:
        save_file({"a": torch.zeros(100)}, path)
    return path


def test_whole_files_pass_and_other_contents_are_named(whole: Path) -> None:
    assert find_damage(whole) is None
    content = whole.read_bytes()
    for start, word in ((b"<html>", "page"), (b"version https://git-lfs.github.com/spec/v1\n", "LFS")):
        whole.write_bytes(start + content)
        found = find_damage(whole)
        assert found is not None
        assert word in found.what
        assert found.fix
    whole.write_bytes(b"")
    assert find_damage(whole) is not None


def test_every_cut_of_weights_is_found(whole: Path) -> None:
    content = whole.read_bytes()
    for size in range(8, len(content)):
        whole.write_bytes(content[:size])
        assert (find_damage(whole) is not None) == (whole.suffix != ".json"), size


def test_texts_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").touch()
    assert find_damage(tmp_path / "merges.txt") is None


def test_missing_shards_are_named_unless_none_is_there(tmp_path: Path) -> None:
    shards = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    weight_map = {"a": shards[0], "b": shards[1], "c": shards[2]}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert find_missing_shards(tmp_path) == []  # weights of another format
    (tmp_path / shards[0]).touch()
    assert find_missing_shards(tmp_path) == shards[1:]
    (tmp_path / "model.safetensors.index.json").write_text("[")
    assert find_missing_shards(tmp_path) == []
