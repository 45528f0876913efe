"""Files of a Hugging Face tokenizer, and their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json"),
    *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
TOKENIZER_FILES = (
    *VOCABULARIES,
    *("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)


def read_tokenizer_files(folder: Path) -> dict[str, bytes]:
    """Name -> content of the tokenizer files in ``folder``; empty when it has none."""
    return {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}


def digest_files(files: Mapping[str, bytes]) -> str:
    """``sha256:...`` over names and contents, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return f"sha256:{digest.hexdigest()}"
