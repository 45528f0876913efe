"""What an open_clip folder needs of its text tower's repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.plugins.loaders.open_clip_companions import find_companions

CONFIG = '{"model_cfg": {"text_cfg": {"hf_model_name": "org/bert", "hf_tokenizer_name": "%s"}}}'
REPOSITORIES = {
    "hf:org/bert": ("config.json", "vocab.txt", "tokenizer_config.json"),
    "hf:org/bpe": ("vocab.json", "merges.txt", "config.json"),
}
BERT = {"text/config.json", "text/vocab.txt", "text/tokenizer_config.json"}


def complete(folder: Path) -> set[str]:
    """Put the companions in place, as kdkit does; returns the new files."""
    before = set(folder.rglob("*"))
    for companion in find_companions(folder):
        for name in REPOSITORIES[companion.source]:
            if not companion.names or name in companion.names:
                path = folder / companion.subfolder / name
                path.parent.mkdir(exist_ok=True)
                path.write_text('{"model_type": "bert"}', encoding="utf-8")
    return {path.relative_to(folder).as_posix() for path in set(folder.rglob("*")) - before if path.is_file()}


@pytest.mark.parametrize(
    ("own", "tokenizer", "expected"),
    [
        ({}, "org/bert", BERT),
        ({}, "org/bpe", BERT | {"merges.txt", "vocab.json"}),
        ({"vocab.txt": "b"}, "org/bpe", BERT),
        ({"text/config.json": "{}", "tokenizer.json": "{}"}, "org/bert", set()),
        ({"config.json": '{"model_type": "bert"}', "vocab.txt": ""}, "org/bert", set()),
        ({"config.json": '{"model_type": "clip", "vision_config": {}}'}, "org/bert", BERT),
    ],
)
def test_missing_files_of_the_text_tower_are_named(
    tmp_path: Path, own: dict[str, str], tokenizer: str, expected: set[str]
) -> None:
    for name, content in {"open_clip_config.json": CONFIG % tokenizer, **own}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert complete(tmp_path) == expected


@pytest.mark.parametrize("config", ["{", "[]", '{"model_cfg": {"text_cfg": {}}}'])
def test_other_folders_need_nothing(tmp_path: Path, config: str) -> None:
    assert list(find_companions(tmp_path)) == []
    (tmp_path / "open_clip_config.json").write_text(config, encoding="utf-8")
    assert list(find_companions(tmp_path)) == []
