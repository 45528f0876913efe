"""Text encoders of transformers without an image tower: BERT, RoBERTa, and sentence encoders made of them."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.tensors import require_readable
from kdkit.plugins.loaders import TEXT_ENCODERS
from kdkit.plugins.loaders.hugging_face import (
    digest_files,
    missing_packages,
    open_tokenizer,
    read_tokenizer_files,
    require_processors,
    wrong_weights,
)
from kdkit.plugins.loaders.model_types import require_known_type
from kdkit.plugins.loaders.own_files import require_own_files
from kdkit.plugins.loaders.precision import dtype_of
from kdkit.plugins.loaders.transformers_model import LOCAL, open_model

POOLINGS = ("cls", "mean", "pooler")
_MODULES = "modules.json"
"""In folders of sentence-transformers: the steps from a text to its features."""
_STEPS = ("Transformer", "Pooling", "Normalize")
"""Steps that change nothing here: all features are compared by their direction."""
_OFFSET = ("camembert", "mpnet", "roberta", "xlm-roberta")
"""Types whose positions begin behind that of the padding."""
_FLAGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


class TransformersText(nn.Module):
    """A text model with its own tokenizer; fulfils ``contracts.TextEncoder``.

    Args:
        model: in eval mode; moved with ``.to(device)``.
        files: of the tokenizer, by name.
        pooling: ``cls``, ``mean`` (of all tokens of the text, special ones included) or ``pooler``.
        context_length: tokens of a text, with special ones; None: as many as the model and its tokenizer take.
    """

    def __init__(
        self, model: nn.Module, files: Mapping[str, bytes], *, pooling: str, context_length: int | None = None
    ) -> None:
        super().__init__()
        self.model, self.pooling = model, pooling
        self._config: Any = model.config
        self._digest = digest_files(files)
        self._tokenizer = open_tokenizer(files, str(getattr(model.config, "model_type", "")), _load_tokenizer)
        self._wanted, self._reads = context_length, frozenset(inspect.signature(model.forward).parameters)
        self._lock = Lock()  # truncation and padding are set on the shared tokenizer

    @property
    def embed_dim(self) -> int:
        return int(self._config.hidden_size)

    @property
    def context_length(self) -> int:
        """Tokens of a text, with special ones; longer texts are truncated."""
        return self._wanted or self.longest

    @property
    def longest(self) -> int:
        """The most tokens that the model and its tokenizer take."""
        positions = int(getattr(self._config, "max_position_embeddings", 0) or 0)
        if positions and self._config.model_type in _OFFSET:
            positions -= int(self._config.pad_token_id) + 1
        return min(n for n in (positions, int(self._tokenizer.model_max_length)) if n > 0)

    def shorten(self, length: int) -> None:
        """Take texts of at most so many tokens, where the model takes more."""
        self._wanted = min(length, self.longest)

    def identity(self) -> Mapping[str, str]:
        """Everything that determines the features, except the weights."""
        return {
            "tokenizer": f"{self._digest} context {self.context_length}",
            "pooling": self.pooling,
            "precision": str(next(self.model.parameters()).dtype).removeprefix("torch."),
        }

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D) float32, not normalized. Padding is masked."""
        with self._lock:
            tokens = self._tokenizer(
                list(texts), padding=True, truncation=True, max_length=self.context_length, return_tensors="pt"
            )
        device = next(self.model.parameters()).device
        inputs = {name: value.to(device) for name, value in tokens.items() if name in self._reads}
        output = self.model(**inputs)
        if self.pooling == "pooler":
            pooled: Tensor = output.pooler_output.float()
            return pooled
        states: Tensor = output.last_hidden_state.float()
        words: Tensor = inputs["attention_mask"].unsqueeze(-1).to(states)
        mean: Tensor = (states * words).sum(1) / words.sum(1)
        return states[:, 0] if self.pooling == "cls" else mean


def load_transformers_text(
    folder: Path, *, pooling: str | None = None, context_length: int | None = None, precision: str = "float32"
) -> TransformersText:
    """A frozen teacher of texts from a folder as ``save_pretrained`` writes it, offline and strictly.

    Args:
        folder: ``config.json``, weights and tokenizer; also a folder of sentence-transformers.
        pooling: ``cls``: the first token of the last layer; ``mean``: the mean of the tokens; ``pooler``: the model's
            ``pooler_output``. By default what the folder's ``1_Pooling/config.json`` says, else ``mean``.
        context_length: tokens of a text, at most those of the model. By default as many as the folder's
            ``sentence_bert_config.json`` says, else as many as the model takes.
        precision: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        KdkitError: the folder is another model, its weights are incomplete, or it has steps that are not read.
    """
    folder, dtype = Path(folder), dtype_of(precision)
    require_readable(folder)
    require_own_files(folder)
    require_known_type(folder, TEXT_ENCODERS, "this loader takes text encoders without an image tower")
    require_processors(folder, image=False, tokenizer=True)
    chosen = pooling or _described_pooling(folder) or "mean"
    if chosen not in POOLINGS:
        raise KdkitError(
            "KD-LOAD-170",
            f"text encoders have no pooling '{chosen}'",
            where=str(folder),
            fix="choose one: " + " or ".join(f"--option pooling={name}" for name in POOLINGS),
        )
    try:
        model, info = open_model(folder, dtype)
    except pickle.UnpicklingError as error:
        raise _not_a_text_model(folder, "its weights are a pickle that contains code") from error
    except ImportError as error:
        raise missing_packages(folder, error) from error
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise _not_a_text_model(folder, str(error).splitlines()[0] if str(error) else repr(error)) from error
    missing = [name for name in info["missing_keys"] if chosen == "pooler" or not name.startswith("pooler.")]
    if wrong := wrong_weights(missing, info["mismatched_keys"]):
        raise _not_a_text_model(folder, wrong)
    encoder = TransformersText(model, read_tokenizer_files(folder), pooling=chosen, context_length=context_length)
    if context_length is not None and not 2 < context_length <= encoder.longest:
        raise KdkitError(
            "KD-LOAD-172",
            f"this text encoder cannot read {context_length} tokens",
            where=str(folder),
            fix=f"--option context_length=N with N from 3 to {encoder.longest}, or leave the option out",
        )
    if context_length is None and (described := _described_length(folder)):
        encoder.shorten(described)
    return encoder.requires_grad_(False).eval()


def _described_pooling(folder: Path) -> str:
    """The pooling of a folder of sentence-transformers; empty for others.

    Raises:
        KdkitError: the folder has further layers, or pools in another way.
    """
    steps = _read(folder / _MODULES)
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return ""
    kinds = [str(step.get("type", "")).rpartition(".")[2] for step in steps]
    others = [kind for kind in kinds if kind not in _STEPS]
    place = next((str(step.get("path", "")) for step, kind in zip(steps, kinds, strict=True) if kind == "Pooling"), "")
    settings = _read(folder / place / "config.json") if Path(place).name == place else None
    settings = settings if isinstance(settings, dict) else {}
    flags = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    modes = [_FLAGS.get(flag, flag) for flag in flags] or [str(settings.get("pooling_mode", "mean"))]
    if others or len(modes) != 1 or modes[0] not in POOLINGS:
        raise KdkitError(
            "KD-LOAD-171",
            "this sentence encoder has steps that kdkit does not read",
            where=str(folder / _MODULES),
            why=f"its steps are {', '.join(kinds)}; it pools by {', '.join(modes)}",
            fix="use an encoder with cls or mean pooling and no further layers, or write a loader plugin",
        )
    return str(modes[0])


def _described_length(folder: Path) -> int:
    """Tokens of a text in a folder of sentence-transformers, special ones included; 0 if it does not say."""
    for path in sorted(folder.glob("sentence_*_config.json")):
        settings = _read(path)
        length = settings.get("max_seq_length") if isinstance(settings, dict) else None
        if isinstance(length, int) and length > 2:
            return length
    return 0


def _read(path: Path) -> Any:
    """Parsed JSON; None without the file, or for one that is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _load_tokenizer(folder: str) -> Any:
    return AutoTokenizer.from_pretrained(folder, **LOCAL)


def _not_a_text_model(folder: Path, why: str) -> KdkitError:
    return KdkitError(
        "KD-LOAD-173",
        "this folder is not a text encoder of transformers",
        where=str(folder),
        why=why,
        fix="check the folder and the options, or choose another loader: --loader LOADER",
    )
