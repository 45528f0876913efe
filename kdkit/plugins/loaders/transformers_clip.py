"""Teachers of transformers: CLIP, SigLIP and other dual encoders, without remote code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoTokenizer

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.tensors import require_readable
from kdkit.plugins.loaders import DUAL_ENCODERS, VISION_POOLER, VISION_TOKENS
from kdkit.plugins.loaders.adapter_base import ADAPTERS
from kdkit.plugins.loaders.adapters import base_folder, merge_adapters
from kdkit.plugins.loaders.hugging_face import (
    digest_files,
    missing_packages,
    read_tokenizer_files,
    require_processors,
    wrong_weights,
)
from kdkit.plugins.loaders.model_types import CUSTOM_CODE, model_type, needs_own_code, require_known_type
from kdkit.plugins.loaders.naflex import NaFlexEncoder
from kdkit.plugins.loaders.own_files import require_own_files
from kdkit.plugins.loaders.precision import dtype_of
from kdkit.plugins.loaders.preprocessing import Overrides, open_processor, read_overrides
from kdkit.plugins.loaders.transformers_encoder import TransformersEncoder
from kdkit.plugins.loaders.transformers_model import LOCAL, open_model

NAFLEX = "siglip2"
"""The model type whose images are patches of a variable number."""


def load_transformers_clip(
    folder: Path,
    *,
    precision: str = "float32",
    mean: Any = None,
    std: Any = None,
    interpolation: str | None = None,
    resize_mode: str | None = None,
    image_size: int | None = None,
) -> TransformersEncoder:
    """A frozen teacher from a folder as ``save_pretrained`` writes it, offline and strictly.

    Args:
        folder: ``config.json``, weights, ``preprocessor_config.json`` and tokenizer files; or adapters of peft, with
            these files of their base model in ``base/``.
        precision: name of a torch dtype: ``float32``, ``bfloat16`` or ``float16``.
        mean, std, interpolation, resize_mode, image_size: as in ``preprocessing.Overrides``; by default the files'.

    Raises:
        KdkitError: the folder is another model, or one that needs code of its own; its weights are incomplete, or a
            pickle with code; adapters do not fit their base.
    """
    folder = Path(folder)
    dtype = dtype_of(precision)
    wanted = read_overrides(
        folder, mean=mean, std=std, interpolation=interpolation, resize_mode=resize_mode, image_size=image_size
    )
    if (folder / ADAPTERS).is_file():
        encoder = _load(base_folder(folder), dtype, wanted)
        encoder.model = merge_adapters(encoder.model, folder)
    else:
        encoder = _load(folder, dtype, wanted)
    return encoder.requires_grad_(False).eval()


def _load(folder: Path, dtype: torch.dtype, wanted: Overrides) -> TransformersEncoder:
    if not (folder / "config.json").is_file():
        raise _not_a_model(folder, "it has no config.json", ExitCode.MISSING)
    require_readable(folder)
    require_own_files(folder)
    kind = model_type(folder)
    if kind in (*VISION_TOKENS, *VISION_POOLER):
        raise _not_a_model(folder, f"a model of type '{kind}' reads no text: --loader transformers-vision")
    require_known_type(folder, CONFIG_MAPPING, f"transformers {transformers.__version__} has no such model")
    if kind in DUAL_ENCODERS:
        require_processors(folder, tokenizer=True)
    try:
        model, info = open_model(folder, dtype)
        # Pillow, as the authors of CLIP and their followers used it: torchvision resizes to other gray levels.
        image_processor = open_processor(folder, wanted, **LOCAL)
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
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
    if wrong := wrong_weights(info["missing_keys"], info["mismatched_keys"]):
        raise _not_a_model(folder, wrong)
    encoder = NaFlexEncoder if model.config.model_type == NAFLEX else TransformersEncoder
    digest = digest_files(read_tokenizer_files(folder))
    wanted.require_patches(getattr(getattr(model.config, "vision_config", None), "patch_size", None), folder)
    return encoder(model, image_processor, tokenizer, digest, interpolate=wanted.image_size is not None)


def _not_a_model(folder: Path, why: str, code: ExitCode = ExitCode.USAGE) -> KdkitError:
    return KdkitError(
        "KD-LOAD-031",
        "this folder is not a dual encoder of transformers",
        where=str(folder),
        why=why,
        fix="check the folder, or choose another loader: --loader LOADER",
        code=code,
    )
