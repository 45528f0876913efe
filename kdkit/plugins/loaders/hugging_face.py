"""Hugging Face tokenizers as files, and what transformers prints."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.plugins.loaders.model_types import CUSTOM_CODE, needs_own_code

T = TypeVar("T")

VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json"),
    *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = (
    *VOCABULARIES,
    *("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)


def read_tokenizer_files(folder: Path) -> dict[str, bytes]:
    """Name -> content of the tokenizer files in ``folder``; empty if it has none."""
    return {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}


def require_processors(folder: Path, *, image: bool = True, tokenizer: bool) -> None:
    """Check that a folder of transformers has an image processor (``image``) and a vocabulary (``tokenizer``).

    Raises:
        KdkitError: it lacks one, with the names of its files.
    """
    needed = {"image processor": PROCESSORS if image else (), "tokenizer": VOCABULARIES if tokenizer else ()}
    for what, names in needed.items():
        if names and not any((folder / name).is_file() for name in names):
            raise KdkitError(
                "KD-TEACH-032",
                f"this folder has no {what}",
                where=str(folder),
                why=f"none of {', '.join(names)} is there",
                fix=f"copy the {what}'s files from the model that it was made from",
                code=ExitCode.MISSING,
            )


def wrong_weights(missing: Iterable[str], mismatched: Iterable[tuple[str, Any, Any]]) -> str:
    """What is wrong with loaded weights, the first few by name; empty if nothing is.

    Args:
        missing: names that the model has and the file has not.
        mismatched: name, shape in the file, shape in the model.
    """
    absent = sorted(missing)
    other = [f"{name} is {tuple(found)}, the model needs {tuple(wanted)}" for name, found, wanted in sorted(mismatched)]
    parts = [f"{len(absent)} weights are missing: {', '.join(absent[:5])}"] if absent else []
    parts += [f"{len(other)} weights have another shape: {'; '.join(other[:3])}"] if other else []
    return "; ".join(parts)


def digest_files(files: Mapping[str, bytes]) -> str:
    """``sha256:...`` over names and contents, in any order."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return f"sha256:{digest.hexdigest()}"


def open_tokenizer(files: Mapping[str, bytes], model_type: str | None, load: Callable[[str], T]) -> T:
    """What ``load`` makes of a folder with ``files`` alone; transformers follows no path that they name.

    Args:
        files: name -> content.
        model_type: of the text tower; old repositories do not name the tokenizer's class, it follows from this.
        load: folder -> tokenizer.

    Raises:
        KdkitError: the files are no tokenizer, or need code of their own.
    """
    files = dict(files)
    if model_type is not None and "tokenizer_class" not in json.loads(files.get("tokenizer_config.json", b"{}")):
        files["config.json"] = json.dumps({"model_type": model_type}).encode()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            return load(folder)
        except Exception as error:  # transformers raises any error for a damaged file
            if CUSTOM_CODE in str(error):
                raise needs_own_code(Path(folder), where=", ".join(sorted(files))) from error
            raise KdkitError(
                "KD-LOAD-029",
                "damaged tokenizer files",
                where=", ".join(sorted(files)),
                why=str(error),
                fix="fetch the tokenizer again",
            ) from error


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


@contextmanager
def without_reports() -> Iterator[None]:
    """Hide transformers' bars, and its reports on weights, which kdkit checks itself."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with without_bars():
            yield
    finally:
        logging.set_verbosity(level)


def count_tokens(tokenizer: Any, texts: Sequence[str], lock: AbstractContextManager[Any]) -> list[int]:
    """Tokens of each text of a tokenizer of transformers, not truncated, including special ones.

    Args:
        tokenizer: shared by threads; ``lock`` guards the truncation that is set on it.
        texts: as the model reads them.
        lock: of the tokenizer.
    """
    if not texts:
        return []
    with lock:
        found = tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
    return [len(ids) for ids in found]
