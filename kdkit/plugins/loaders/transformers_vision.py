"""Vision models of transformers without a text tower: DINOv2, DINOv3, ViT, Swin, ConvNeXt, ..."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image
from torch import Tensor, nn

from kdkit.core.base.tensors import require_readable
from kdkit.plugins.loaders import VISION_POOLER, VISION_TOKENS
from kdkit.plugins.loaders.hugging_face import missing_packages, require_processors, wrong_weights
from kdkit.plugins.loaders.image_encoder import POOLINGS, ImageEncoder, pool_tokens, require_pooling, vision_error
from kdkit.plugins.loaders.model_types import require_known_type
from kdkit.plugins.loaders.own_files import require_own_files
from kdkit.plugins.loaders.precision import dtype_of
from kdkit.plugins.loaders.preprocessing import Overrides, open_processor, read_overrides
from kdkit.plugins.loaders.transformers_model import LOCAL, open_model

_LIBRARY = "transformers"


def load_transformers_vision(
    folder: Path,
    *,
    pooling: str | None = None,
    precision: str = "float32",
    mean: Any = None,
    std: Any = None,
    interpolation: str | None = None,
    resize_mode: str | None = None,
    image_size: int | None = None,
) -> ImageEncoder:
    """A frozen teacher from a folder as ``save_pretrained`` writes it, offline and strictly.

    Args:
        folder: ``config.json``, weights and ``preprocessor_config.json``.
        pooling: ``cls``: the class token after the last norm; ``mean``: the mean of the patch tokens; ``cls+mean``:
            both, side by side; ``pooler``: the model's ``pooler_output``. By default ``cls``, or ``pooler`` for models
            without a class token.
        precision: name of a torch dtype: ``float32``, ``bfloat16`` or ``float16``.
        mean, std, interpolation, resize_mode, image_size: as in ``preprocessing.Overrides``; by default the files'.

    Raises:
        KdkitError: the folder is another model, its weights are incomplete, or a pickle with code.
    """
    folder, dtype = Path(folder), dtype_of(precision)
    wanted = read_overrides(
        folder, mean=mean, std=std, interpolation=interpolation, resize_mode=resize_mode, image_size=image_size
    )
    require_readable(folder)
    require_own_files(folder)
    require_known_type(folder, (*VISION_TOKENS, *VISION_POOLER), "this loader takes vision models without a text tower")
    require_processors(folder, tokenizer=False)
    try:
        model, info = open_model(folder, dtype)
        processor = open_processor(folder, wanted, **LOCAL)
    except pickle.UnpicklingError as error:
        raise vision_error(folder, "its weights are a pickle that contains code", _LIBRARY) from error
    except ImportError as error:
        raise missing_packages(folder, error) from error
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise vision_error(folder, str(error).splitlines()[0] if str(error) else repr(error), _LIBRARY) from error
    config = model.config
    has_tokens = config.model_type in VISION_TOKENS
    known = (*POOLINGS, "pooler") if has_tokens else ("pooler",)
    pooling = pooling or known[0]
    require_pooling(pooling, known, str(folder))
    _require_weights(folder, info, pooling)
    wanted.require_patches(getattr(config, "patch_size", None), folder)
    prefix = 1 + int(getattr(config, "num_register_tokens", 0) or 0)
    return (
        ImageEncoder(
            model,
            width=_width(config) * (2 if pooling == "cls+mean" else 1),
            preprocess=partial(_preprocess, processor),
            features=partial(_features, prefix=prefix, pooling=pooling, options=_size_options(model, wanted)),
            identity=_identity(processor, pooling, str(dtype).removeprefix("torch.")),
        )
        .requires_grad_(False)
        .eval()
    )


def _preprocess(processor: Any, image: Image) -> Tensor:
    pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
    return pixels.float()


def _size_options(model: nn.Module, wanted: Overrides) -> Mapping[str, bool]:
    """What a model needs for images of another size; some models (DINOv2) take any size by themselves."""
    asks = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    return {"interpolate_pos_encoding": True} if wanted.image_size is not None and asks else {}


def _features(model: nn.Module, pixels: Tensor, *, prefix: int, pooling: str, options: Mapping[str, bool]) -> Tensor:
    output = model(pixel_values=pixels, **options)
    if pooling == "pooler":
        pooled: Tensor = output.pooler_output
        return pooled.flatten(1)
    return pool_tokens(output.last_hidden_state, prefix, pooling)


def _identity(processor: Any, pooling: str, precision: str) -> Mapping[str, str]:
    settings = json.dumps(processor.to_dict(), sort_keys=True, default=str)
    return {
        "preprocessing": f"{type(processor).__name__} {settings}",
        "pooling": pooling,
        "precision": precision,
    }


def _width(config: Any) -> int:
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1] if sizes else config.hidden_size)


def _require_weights(folder: Path, info: Mapping[str, Any], pooling: str) -> None:
    """Weights that the features need; a pooler that is not used may be missing."""
    missing = [name for name in info["missing_keys"] if pooling == "pooler" or not name.startswith("pooler.")]
    if wrong := wrong_weights(missing, info["mismatched_keys"]):
        raise vision_error(folder, wrong, _LIBRARY)
