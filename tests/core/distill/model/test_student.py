"""The student of a run: paths of its config."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.distill.model.student import anchored


def test_paths_of_the_students_config_are_relative_to_the_registry() -> None:
    config = {"init": "./models/x", "tokenizer": {"folder": "../t"}, "arch": "ViT-B-16", "list": ["./a", 3]}
    assert anchored(config, Path("/p")) == {
        "init": "/p/models/x",
        "tokenizer": {"folder": "/p/../t"},
        "arch": "ViT-B-16",
        "list": ["/p/a", 3],
    }
