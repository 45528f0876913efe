"""Models of timm, from folders as timm's ``push_to_hf_hub`` writes them, or from bare weights with an architecture."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from PIL.Image import Image
from timm.data import create_transform, resolve_data_config
from timm.layers import SwiGLUPacked
from timm.models import PretrainedCfg
from torch import Tensor, nn

from kdkit.core.base.errors import did_you_mean
from kdkit.core.base.tensors import read_tensors
from kdkit.plugins.loaders.image_encoder import POOLINGS, ImageEncoder, pool_tokens, require_pooling, vision_error
from kdkit.plugins.loaders.precision import dtype_of
from kdkit.plugins.loaders.preprocessing import Overrides, read_overrides

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.safetensors")
OWN = "model"
"""The pooling of the model itself, before its classifier."""
MLPS: Mapping[str, type[nn.Module]] = {"swiglu-packed": SwiGLUPacked}
"""Layers that some authors pass in code, not in their config."""
_DATA = ("input_size", "fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
"""Keys of ``pretrained_cfg`` that describe preprocessing; none of them names a place."""
_CROP_MODES = {"shortest": "center", "longest": "border", "squash": "squash"}
_LIBRARY = "timm"


def load_timm(
    folder: Path,
    *,
    pooling: str = OWN,
    arch: str | None = None,
    args: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    mlp: str | None = None,
    weights: str | None = None,
    ignore: Sequence[str] = (),
    precision: str = "float32",
    mean: Any = None,
    std: Any = None,
    interpolation: str | None = None,
    resize_mode: str | None = None,
    image_size: int | None = None,
) -> ImageEncoder:
    """A frozen teacher from a folder, offline and strictly.

    Args:
        folder: ``config.json`` with ``architecture``, ``pretrained_cfg`` and ``model_args``, and the weights.
        pooling: ``model``: as the model pools before its classifier; ``cls``, ``mean`` and ``cls+mean``: of the last
            tokens, after the last norm.
        arch: an architecture of timm, for a folder without ``config.json``, or with that of another library.
        args: further arguments of the architecture, over those of the config: ``{init_values: 1.0e-5}``. With
            ``in_chans: 1``, images are made gray first; ``data`` then has one mean and std.
        data: preprocessing, over that of the config: ``input_size``, ``interpolation``, ``crop_pct``, ``crop_mode``,
            ``mean`` and ``std``.
        mlp: ``swiglu-packed``: the feed-forward layer, where the authors pass it in code.
        weights: the weights' file name, if it is not ``model.safetensors``.
        ignore: prefixes of weights that the features do not need: ``[decoder_]``.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        mean, std, interpolation, resize_mode, image_size: as in ``preprocessing.Overrides``; by default the files'.

    Raises:
        KdkitError: the folder is another model, or its weights do not fit exactly.
    """
    folder, dtype = Path(folder), dtype_of(precision)
    wanted = read_overrides(
        folder, mean=mean, std=std, interpolation=interpolation, resize_mode=resize_mode, image_size=image_size
    )
    config = _read_config(folder, arch)
    name = str(config["architecture"])
    if not timm.is_model(name):
        meant = did_you_mean(name, timm.list_models())
        raise vision_error(folder, f"timm has no architecture '{name}'; {meant}", _LIBRARY)
    require_pooling(pooling, (OWN, *POOLINGS), str(folder))
    if unknown := [key for key in data or {} if key not in _DATA]:
        raise vision_error(folder, f"option 'data' has no key '{unknown[0]}': {', '.join(_DATA)}", _LIBRARY)
    state = read_tensors(_find_weights(folder, weights))
    given = {**(config.get("model_args") or {}), **(args or {}), "num_classes": 0}
    if mlp is not None:
        given["mlp_layer"] = _mlp(mlp, folder)
    if wanted.image_size is not None and _has_fixed_size(name):
        given["img_size"] = wanted.image_size
    try:
        with torch.random.fork_rng(devices=[]):
            model: nn.Module = timm.create_model(name, pretrained=False, **given)
        _load(model, state, ignore)
        described = {**_data_config(config, model), **(data or {}), **_data_of(wanted)}
        settings = resolve_data_config({}, pretrained_cfg=described, model=model)
        transform: Callable[[Any], Tensor] = create_transform(**settings, is_training=False)
    except (RuntimeError, TypeError, ValueError, KeyError, AssertionError, AttributeError) as error:
        raise vision_error(folder, " ".join(str(error).split())[:600], _LIBRARY) from error
    model.to(dtype)
    return (
        ImageEncoder(
            model,
            width=_width(model, pooling, folder),
            preprocess=partial(_gray, transform) if given.get("in_chans") == 1 else transform,
            features=_own if pooling == OWN else partial(_tokens, pooling=pooling),
            identity={
                "preprocessing": "timm "
                + "gray " * (given.get("in_chans") == 1)
                + json.dumps(settings, sort_keys=True, default=str),
                "pooling": pooling,
                "precision": str(dtype).removeprefix("torch."),
            },
        )
        .requires_grad_(False)
        .eval()
    )


def _gray(transform: Callable[[Any], Tensor], image: Image) -> Tensor:
    """(1, H, W) of a model of one channel."""
    return transform(image.convert("L"))


def _read_config(folder: Path, arch: str | None) -> Mapping[str, Any]:
    path = folder / CONFIG
    if arch is not None and not path.is_file():
        return {"architecture": arch}
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise vision_error(folder, f"{CONFIG}: {error}; or give the option 'arch'", _LIBRARY) from error
    if arch is not None and isinstance(config, dict) and "architecture" not in config:
        return {"architecture": arch}  # the config of another library
    if not isinstance(config, dict) or "architecture" not in config:
        raise vision_error(folder, f"{CONFIG} has no 'architecture'", _LIBRARY)
    return {**config, **({"architecture": arch} if arch else {})}


def _find_weights(folder: Path, name: str | None) -> Path:
    for candidate in (name,) if name else WEIGHTS:
        path = folder / candidate
        if path.name == candidate and path.is_file():  # a bare name, so that nothing outside the folder is read
            return path
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if not name and len(others) == 1:
        return folder / others[0]
    why = f"no weights {name or ' or '.join(WEIGHTS)}"
    raise vision_error(folder, f"{why}; name one: --option weights={others[0]}" if others else why, _LIBRARY)


def _mlp(name: str, folder: Path) -> type[nn.Module]:
    if name not in MLPS:
        raise vision_error(folder, f"no feed-forward layer '{name}'; known: {', '.join(MLPS)}", _LIBRARY)
    return MLPS[name]


def _load(model: nn.Module, state: Mapping[str, Tensor], ignore: Sequence[str]) -> None:
    """Strictly, after the conversions that timm makes for the architecture. The classifier is left out."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    fitting = dict(convert(dict(state), model) if convert else state)
    classifier: Any = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    unused = (*((classifier,) if isinstance(classifier, str) else classifier), *ignore)
    own = model.state_dict()
    for key in [key for key in fitting if key not in own and key.startswith(unused)]:
        del fitting[key]
    model.load_state_dict(fitting, strict=True)


def _data_config(config: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """What describes preprocessing in the folder's ``pretrained_cfg``; the architecture's own, if it has none."""
    given = config.get("pretrained_cfg")
    if given is None:
        own: Any = getattr(model, "pretrained_cfg", {})
        return {key: own[key] for key in _DATA if key in own}
    return dict(PretrainedCfg(**{key: value for key, value in given.items() if key in _DATA}).to_dict())


def _has_fixed_size(name: str) -> bool:
    """Whether the architecture is built for one image size, such as a vision transformer."""
    return bool(getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False))


def _data_of(wanted: Overrides) -> dict[str, Any]:
    """The overrides under timm's names."""
    found: dict[str, Any] = {"mean": wanted.mean, "std": wanted.std, "interpolation": wanted.interpolation}
    if wanted.resize_mode is not None:
        found["crop_mode"] = _CROP_MODES[wanted.resize_mode]
        if wanted.resize_mode != "shortest":
            found["crop_pct"] = 1.0
    if wanted.image_size is not None:
        found["input_size"] = (3, wanted.image_size, wanted.image_size)
    return {key: value for key, value in found.items() if value is not None}


def _own(model: nn.Module, pixels: Tensor) -> Tensor:
    features: Tensor = model(pixels)
    return features


def _tokens(model: nn.Module, pixels: Tensor, *, pooling: str) -> Tensor:
    tokens: Tensor = model.forward_features(pixels)  # type: ignore[operator]
    return pool_tokens(tokens, int(getattr(model, "num_prefix_tokens", 1)), pooling)


def _width(model: Any, pooling: str, folder: Path) -> int:
    if pooling != OWN:
        if not hasattr(model, "num_prefix_tokens"):
            raise vision_error(folder, f"its features are no tokens, so pooling '{pooling}' has no meaning", _LIBRARY)
        return int(model.num_features) * (2 if pooling == "cls+mean" else 1)
    if getattr(model, "global_pool", None) == "":
        raise vision_error(folder, "it does not pool its tokens: --option pooling=cls, mean or cls+mean", _LIBRARY)
    return int(getattr(model, "head_hidden_size", model.num_features))
