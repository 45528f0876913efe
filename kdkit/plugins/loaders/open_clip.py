"""Teachers of open_clip: dual encoders from a materialized folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from open_clip.model import get_input_dtype
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer, default_bpe
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL.Image import Image
from torch import Tensor, nn

from kdkit.plugins.loaders.hugging_face import count_tokens, digest_files, open_tokenizer
from kdkit.plugins.loaders.open_clip_folder import OpenClipParts, build_model, find_weights, read_parts
from kdkit.plugins.loaders.precision import open_clip_precision
from kdkit.plugins.loaders.preprocessing import Overrides, read_overrides


class OpenClipEncoder(nn.Module):
    """An open_clip model with its own preprocessing and tokenizer; fulfils ``contracts.DualEncoder``.

    Move it with ``.to(device)``; inputs follow. ``encode_*`` need eval mode, as :func:`load_open_clip` returns it, and
    keep no graph.
    """

    def __init__(self, parts: OpenClipParts, model: nn.Module, *, precision: str = "fp32") -> None:
        super().__init__()
        self.parts = parts
        self.model = model
        self.tokenizer = TextTokenizer(parts)
        visual: Any = model.visual
        self.preprocess_cfg: Mapping[str, Any] = dict(visual.preprocess_cfg)
        self._transform: Callable[[Image], Tensor] = image_transform_v2(
            PreprocessCfg(**self.preprocess_cfg), is_train=False
        )
        self._input_dtype: torch.dtype = get_input_dtype(precision) or torch.float32

    @property
    def embed_dim(self) -> int:
        return int(self.parts.model_cfg["embed_dim"])

    @property
    def context_length(self) -> int:
        return self.tokenizer.context_length

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text before it is truncated, including special ones."""
        return self.tokenizer.count(texts)

    def identity(self) -> Mapping[str, str]:
        """Everything that determines the features, except the weights."""
        precision = str(self._input_dtype).removeprefix("torch.")
        return {
            "preprocessing": "open_clip " + json.dumps(self.preprocess_cfg, sort_keys=True),
            "tokenizer": self.tokenizer.identity(),
            "precision": precision,
        }

    def preprocess(self, image: Image) -> Tensor:
        """RGB image -> (3, H, W) float32 by the model's own evaluation transform."""
        return self._transform(image)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) float32, not normalized."""
        device = next(self.model.parameters()).device
        return self.image_features(pixels.to(device, self._input_dtype)).float()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D) float32, not normalized; longer texts are truncated at the context length."""
        device = next(self.model.parameters()).device
        return self.text_features(self.tokenizer(texts).to(device)).float()

    def image_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D), with the graph."""
        features: Tensor = self.model.encode_image(pixels)  # type: ignore[operator]
        return features

    def text_features(self, tokens: Tensor) -> Tensor:
        """(B, L) int64 -> (B, D), with the graph."""
        features: Tensor = self.model.encode_text(tokens)  # type: ignore[operator]
        return features


class TextTokenizer:
    """open_clip's tokenizer of a model, for use in several threads.

    Copies share the tokenizer, which has no state; a pickle contains its files.

    Raises:
        KdkitError: the files are no tokenizer.
    """

    def __init__(self, parts: OpenClipParts) -> None:
        self._parts = parts
        self.context_length = int(parts.text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH))
        self._tokenize: Callable[[list[str]], Tensor] = _stock_tokenizer(parts, self.context_length)
        self._lock = Lock()  # transformers sets truncation and padding on the shared tokenizer

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, context_length) int64 token ids, truncated and padded."""
        with self._lock:
            return self._tokenize(list(texts))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before it is truncated, including special ones."""
        tokenize: Any = self._tokenize
        inner = getattr(tokenize, "tokenizer", None)
        if inner is None:
            return [len(tokenize.encode(text)) + 2 for text in texts]  # start and end
        return count_tokens(inner, [tokenize.clean_fn(text) for text in texts], self._lock)

    def __len__(self) -> int:
        """Number of token ids, including special ones."""
        inner = getattr(self._tokenize, "tokenizer", None)
        return len(inner) if inner is not None else int(self._tokenize.vocab_size)  # type: ignore[attr-defined]

    def identity(self) -> str:
        """Digest of everything that determines the ids: files, special handling, context length."""
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
    kind = str(parts.text_config["model_type"]) if parts.text_config is not None else None

    def load(folder: str) -> Callable[[list[str]], Tensor]:
        tokenizer: Callable[[list[str]], Tensor] = HFTokenizer(
            folder,
            context_length=context_length,
            tokenizer_mode=parts.text_cfg.get("tokenizer_mode"),
            **{**options, "trust_remote_code": False, "local_files_only": True},
        )
        return tokenizer

    return open_tokenizer(parts.tokenizer_files, kind, load)


def load_open_clip(
    folder: Path,
    *,
    precision: str = "fp32",
    weights: str | None = None,
    arch: str | None = None,
    mean: Any = None,
    std: Any = None,
    interpolation: str | None = None,
    resize_mode: str | None = None,
    image_size: int | None = None,
) -> OpenClipEncoder:
    """A frozen teacher from a folder, offline and strictly.

    Args:
        folder: with ``open_clip_config.json``, weights and tokenizer files, and ``text/`` for the config of a Hugging
            Face text tower.
        precision: ``fp32``, ``bf16``, ``fp16``, ``pure_bf16``, ``pure_fp16``, or torch's names; features are float32 in
            any case.
        weights: the weights' file name, if it is not one of the usual.
        arch: a built-in open_clip architecture, for a folder that holds only weights.
        mean, std, interpolation, resize_mode, image_size: as in ``preprocessing.Overrides``; by default the files'.

    Raises:
        KdkitError: the folder is incomplete, or its weights do not fit exactly.
    """
    folder, precision = Path(folder), open_clip_precision(precision)
    wanted = read_overrides(
        folder, mean=mean, std=std, interpolation=interpolation, resize_mode=resize_mode, image_size=image_size
    )
    parts = _with_overrides(read_parts(folder, arch=arch, weights=weights), wanted, folder)
    with torch.random.fork_rng(devices=[]):  # building draws random weights
        model = build_model(parts, find_weights(folder, weights), precision=precision, where=str(folder))
    encoder = OpenClipEncoder(parts, model, precision=precision)
    return encoder.requires_grad_(False).eval()


def _with_overrides(parts: OpenClipParts, wanted: Overrides, folder: Path) -> OpenClipParts:
    """The parts of a model with other preprocessing; position embeddings follow the image size when they are loaded."""
    vision = {**parts.model_cfg["vision_cfg"]}
    wanted.require_patches(vision.get("patch_size"), folder)
    given = asdict(wanted)
    size = given.pop("image_size")
    changes = {key: value for key, value in given.items() if value is not None}
    if size is not None:
        vision["image_size"] = changes["size"] = size
    preprocess_cfg = {**parts.preprocess_cfg, **changes}
    return replace(parts, model_cfg={**parts.model_cfg, "vision_cfg": vision}, preprocess_cfg=preprocess_cfg)
