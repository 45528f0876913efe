"""Teachers of transformers: CLIP, SigLIP and other dual encoders, without remote code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import transformers
from PIL.Image import Image
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoImageProcessor, AutoModel, AutoTokenizer

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.tensors import require_readable
from kdkit.plugins.loaders.hugging_face import digest_files, missing_packages, read_tokenizer_files, without_bars
from kdkit.plugins.loaders.model_types import CUSTOM_CODE, needs_own_code, require_known_type
from kdkit.plugins.loaders.own_files import require_own_files

READS_PADDING = ("siglip", "siglip2")
"""Model types that were trained with padding as ordinary tokens: they get no attention mask, all others do. What the
tokenizer returns by default differs between checkpoints of one family."""
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class TransformersEncoder(nn.Module):
    """A CLIP-style model of transformers; fulfils ``contracts.DualEncoder``. Move it with ``.to(device)``."""

    def __init__(self, model: nn.Module, image_processor: Any, tokenizer: Any, tokenizer_digest: str) -> None:
        super().__init__()
        self.model = model
        self._image_processor, self._tokenizer = image_processor, tokenizer
        self._tokenizer_digest = tokenizer_digest
        config: Any = model.config
        self._text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
        self._lock = Lock()

    @property
    def context_length(self) -> int:
        """Tokens of a text, including special ones: the limit of both the positions and the tokenizer."""
        positions = getattr(self._text_config, "max_position_embeddings", None)
        lengths = [int(n) for n in (positions, self._tokenizer.model_max_length) if n]
        return min(lengths)

    @property
    def embed_dim(self) -> int:
        config: Any = self.model.config
        width = getattr(config, "projection_dim", None)
        if width is None:  # SigLIP projects inside the towers
            width = getattr(self._text_config, "projection_size", None) or config.vision_config.hidden_size
        return int(width)

    def identity(self) -> Mapping[str, str]:
        """Everything that determines the features, except the weights."""
        settings = json.dumps(self._image_processor.to_dict(), sort_keys=True, default=str)
        return {
            "preprocessing": f"{type(self._image_processor).__name__} {settings}",
            "tokenizer": f"{self._tokenizer_digest} context {self.context_length}",
            "precision": str(next(self.model.parameters()).dtype).removeprefix("torch."),
        }

    def preprocess(self, image: Image) -> Tensor:
        """RGB image -> (3, H, W) float32 by the model's own image processor."""
        pixels: Tensor = self._image_processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels.float()

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) float32, not normalized."""
        like = next(self.model.parameters())
        return _pooled(self.model.get_image_features(pixels.to(like)))  # type: ignore[operator]

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D) float32, not normalized.

        Texts are padded to the context length, as SigLIP was trained; with a mask it changes nothing.
        """
        masked = getattr(self.model.config, "model_type", "") not in READS_PADDING
        with self._lock:  # truncation and padding are set on the shared tokenizer
            tokens = self._tokenizer(
                list(texts),
                padding="max_length",
                truncation=True,
                max_length=self.context_length,
                return_attention_mask=masked,
                return_tensors="pt",
            )
        device = next(self.model.parameters()).device
        names = ("input_ids", "attention_mask") if masked else ("input_ids",)
        inputs = {name: tokens[name].to(device) for name in names}
        return _pooled(self.model.get_text_features(**inputs))  # type: ignore[operator]


def _pooled(output: Any) -> Tensor:
    """The features: transformers 4 returns them, 5 returns an output with ``pooler_output``."""
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features.float()


def load_transformers_clip(folder: Path, *, precision: str = "float32") -> TransformersEncoder:
    """A frozen teacher from a folder as ``save_pretrained`` writes it, offline and strictly.

    Args:
        folder: ``config.json``, weights, ``preprocessor_config.json`` and tokenizer files.
        precision: name of a torch dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        KdkitError: the folder is another model, or one that needs code of its own; its weights are incomplete, or a
            pickle with code.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise _not_a_model(folder, "it has no config.json", ExitCode.MISSING)
    require_readable(folder)
    require_own_files(folder)
    require_known_type(folder, CONFIG_MAPPING, f"transformers {transformers.__version__} has no such model")
    try:
        with torch.random.fork_rng(devices=[]), without_bars():
            model, info = AutoModel.from_pretrained(
                folder, dtype=getattr(torch, precision), output_loading_info=True, **_LOCAL
            )
        image_processor = AutoImageProcessor.from_pretrained(folder, **_LOCAL)
        tokenizer = AutoTokenizer.from_pretrained(folder, **_LOCAL)
    except pickle.UnpicklingError as error:
        raise KdkitError(
            "KD-LOAD-030",
            "these weights are a pickle that contains code",
            where=str(folder),
            fix="ask the authors for .safetensors",
            code=ExitCode.DENIED,
        ) from error
    except ImportError as error:
        raise missing_packages(folder, error) from error
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        if CUSTOM_CODE in str(error):
            raise needs_own_code(folder) from error
        raise _not_a_model(folder, str(error).splitlines()[0] if str(error) else repr(error)) from error
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise _not_a_model(folder, f"{type(model).__name__} has no image and text features")
    missing = sorted(info["missing_keys"]) + [str(key) for key in info["mismatched_keys"]]
    if missing:
        raise _not_a_model(folder, f"weights are missing or of another shape: {', '.join(missing[:5])}")
    digest = digest_files(read_tokenizer_files(folder))
    return TransformersEncoder(model, image_processor, tokenizer, digest).requires_grad_(False).eval()


def _not_a_model(folder: Path, why: str, code: ExitCode = ExitCode.USAGE) -> KdkitError:
    return KdkitError(
        "KD-LOAD-031",
        "this folder is not a dual encoder of transformers",
        where=str(folder),
        why=why,
        fix="check the folder, or choose another loader: --loader LOADER",
        code=code,
    )
