"""Strings -> token ids exactly as open_clip does it, from tokenizer files held in memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer, default_bpe
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.loaders.open_clip_folder import OpenClipParts
from kdkit.plugins.loaders.tokenizer_files import digest_files


class TextTokenizer:
    """open_clip's tokenizer of a model, safe to call from several threads.

    Copies share the tokenizer (it has no state of its own); pickling carries the files.

    Raises:
        KdkitError: when the files are no tokenizer.
    """

    def __init__(self, parts: OpenClipParts) -> None:
        self._parts = parts
        self.context_length = int(parts.text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH))
        self._tokenize: Callable[[list[str]], Tensor] = _stock_tokenizer(parts, self.context_length)
        self._lock = Lock()  # transformers sets truncation and padding on the one shared tokenizer

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, context_length) int64 token ids, truncated and padded."""
        with self._lock:
            return self._tokenize(list(texts))

    def __len__(self) -> int:
        """The number of token ids, special ones included."""
        inner = getattr(self._tokenize, "tokenizer", None)
        return len(inner) if inner is not None else int(self._tokenize.vocab_size)  # type: ignore[attr-defined]

    def identity(self) -> str:
        """Changes whenever some text may get other ids: files, special handling, context length."""
        files = self._parts.tokenizer_files or {"bpe": Path(default_bpe()).read_bytes()}
        handling = {key: self._parts.text_cfg.get(key) for key in ("tokenizer_mode", "tokenizer_kwargs")}
        digest = digest_files({**files, "handling": json.dumps(handling, sort_keys=True).encode()})
        return f"{digest} context {self.context_length}"

    def __deepcopy__(self, memo: Mapping[int, Any]) -> TextTokenizer:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (TextTokenizer, (self._parts,))


def _stock_tokenizer(parts: OpenClipParts, context_length: int) -> Callable[[list[str]], Tensor]:
    options = dict(parts.text_cfg.get("tokenizer_kwargs") or {})
    if not parts.tokenizer_files:
        simple: Callable[[list[str]], Tensor] = SimpleTokenizer(context_length=context_length, **options)
        return simple
    files = dict(parts.tokenizer_files)
    declared = json.loads(files.get("tokenizer_config.json", b"{}"))
    if parts.text_config is not None and "tokenizer_class" not in declared:
        # Old repositories do not say which tokenizer it is; transformers then goes by the model type.
        files["config.json"] = json.dumps({"model_type": parts.text_config["model_type"]}).encode()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            tokenizer: Callable[[list[str]], Tensor] = HFTokenizer(
                folder,
                context_length=context_length,
                tokenizer_mode=parts.text_cfg.get("tokenizer_mode"),
                **{**options, "trust_remote_code": False, "local_files_only": True},
            )
        except Exception as error:  # transformers raises nearly anything for a broken file
            raise KdkitError(
                "KD-LOAD-029", "not a usable tokenizer", where=", ".join(sorted(files)), why=str(error)
            ) from error
    return tokenizer
