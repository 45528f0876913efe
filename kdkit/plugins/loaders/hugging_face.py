"""Hugging Face tokenizers as files, and the progress bars of transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError

VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json"),
    *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
TOKENIZER_FILES = (
    *VOCABULARIES,
    *("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)


def read_tokenizer_files(folder: Path) -> dict[str, bytes]:
    """Name -> content of the tokenizer files in ``folder``; empty if it has none."""
    return {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}


def digest_files(files: Mapping[str, bytes]) -> str:
    """``sha256:...`` over names and contents, in any order."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return f"sha256:{digest.hexdigest()}"


def missing_packages(folder: Path, error: ImportError) -> KdkitError:
    """The error of a library that a model's files need, with what to install."""
    why = " ".join(str(error).split())
    needs = "sentencepiece" in why.lower() or "protobuf" in why.lower()
    return KdkitError(
        "KD-LOAD-033",
        "this model needs packages that are not installed",
        where=str(folder),
        why=why.partition(" Check out ")[0],
        fix="pip install 'kdkit[sentencepiece]' (sentencepiece and protobuf)" if needs else "install what it names",
        code=ExitCode.MISSING,
    )


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide transformers' progress bars, which would mix with kdkit's."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
