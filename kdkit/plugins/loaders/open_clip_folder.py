"""An open_clip folder, read and built without network.

Stock open_clip fetches the text tower's config from the Hub even for a local folder, uses random weights if it finds
none, and falls back from safetensors to pickle. Here the config comes from the folder (``text/config.json``, or
``config.json`` beside the weights), and weights are required.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from open_clip import create_model, get_model_config, list_models
from safetensors.torch import save_file
from torch import nn

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.tensors import read_header, read_tensors
from kdkit.plugins.loaders.hugging_face import read_tokenizer_files
from kdkit.plugins.loaders.layouts import Shapes, describe_mismatch, how_to_load, unwrapped
from kdkit.plugins.loaders.open_clip_architectures import OPENAI_SIZES, find_architecture
from kdkit.plugins.loaders.own_files import require_own_parts, require_own_towers
from kdkit.plugins.loaders.unimed_clip import is_unimed_clip, open_clip_name, unimed_clip_config

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
OTHER_WEIGHTS = (
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pt",
    "pytorch_model.bin",
)
TEXT_CONFIG = ("text/config.json", "config.json")
_MODEL_CFG = {"embed_dim", "vision_cfg", "text_cfg"}
T = TypeVar("T")


@dataclass(frozen=True)
class OpenClipParts:
    """Everything of an open_clip model but its weights.

    Attributes:
        model_cfg: open_clip's ``model_cfg``.
        preprocess_cfg: open_clip's ``preprocess_cfg``; may be incomplete, open_clip has defaults.
        text_config: ``config.json`` of a Hugging Face text tower, if there is one.
        tokenizer_files: file name -> content; empty for open_clip's own BPE tokenizer.
    """

    model_cfg: Mapping[str, Any]
    preprocess_cfg: Mapping[str, Any]
    text_config: Mapping[str, Any] | None
    tokenizer_files: Mapping[str, bytes]

    @property
    def text_cfg(self) -> Mapping[str, Any]:
        """The ``text_cfg`` inside ``model_cfg``."""
        text: Mapping[str, Any] = self.model_cfg["text_cfg"]
        return text


def read_parts(folder: Path, *, arch: str | None = None, weights: str | None = None) -> OpenClipParts:
    """Read a folder.

    Args:
        folder: with ``open_clip_config.json``; with a ``model_cfg`` in a JSON file of any name; or with weights alone.
        arch: a built-in open_clip architecture, for a folder that holds only weights. Weights of UniMed-CLIP, MMKD-CLIP
            and OpenAI need none, nor those that only one architecture fits.
        weights: the weights' file name, if it is not one of the usual.

    Raises:
        KdkitError: the folder has no valid config, or lacks the text tower's config or the tokenizer.
    """
    config: Mapping[str, Any]
    if (folder / CONFIG).is_file():
        config = _read_json(folder / CONFIG)
    elif arch is not None:
        config = {"model_cfg": builtin_model_cfg(arch)}
    elif (model_cfg := _find_model_cfg(folder)) is not None:
        config = {"model_cfg": model_cfg}
    elif is_unimed_clip(shapes := weight_shapes(folder, weights)):
        config = {"model_cfg": unimed_clip_config(shapes)}
    elif (found := find_architecture(shapes, str(folder))) is not None:
        config = {"model_cfg": builtin_model_cfg(found)}
    else:
        config = _read_json(folder / CONFIG)
    model_cfg = config.get("model_cfg", config)
    if not isinstance(model_cfg, dict) or not model_cfg.keys() >= _MODEL_CFG:
        raise KdkitError(
            "KD-LOAD-020",
            "not an open_clip model",
            where=str(folder / CONFIG),
            why="it has no 'model_cfg' with embed_dim, vision_cfg and text_cfg",
            fix="choose another loader: --loader LOADER",
        )
    text_cfg = model_cfg["text_cfg"]
    tower, tokenizer = text_cfg.get("hf_model_name"), text_cfg.get("hf_tokenizer_name")
    files = find_tokenizer(folder, str(tokenizer)) if tokenizer else {}
    text_config = find_text_config(folder, str(tower)) if tower else None
    return OpenClipParts(model_cfg, config.get("preprocess_cfg") or {}, text_config, files)


def _find_model_cfg(folder: Path) -> Mapping[str, Any] | None:
    """A ``model_cfg`` as open_clip registers it, in the only JSON file of ``folder`` that holds one."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with suppress(KdkitError):
            config = _read_json(path)
            found += [config] if config.keys() >= _MODEL_CFG else []
    return found[0] if len(found) == 1 else None


def weight_shapes(folder: Path, name: str | None = None) -> Shapes:
    """Name -> shape of the weights that :func:`find_weights` finds as safetensors; empty if there are none."""
    try:
        return weight_shapes_of(find_weights(folder, name))
    except KdkitError:
        return {}


def weight_shapes_of(path: Path | None) -> Shapes:
    """Name -> shape of the weights in a safetensors file; empty for none, and for other files."""
    return read_header(path).shapes if path is not None and path.suffix == ".safetensors" else {}


def builtin_model_cfg(arch: str) -> dict[str, Any]:
    """The ``model_cfg`` that open_clip ships under the name ``arch``."""
    model_cfg: dict[str, Any] | None = get_model_config(arch) if ":" not in arch else None
    if model_cfg is None:
        raise KdkitError(
            "KD-LOAD-021", f"open_clip has no architecture '{arch}'", fix=did_you_mean(arch, list_models())
        )
    return model_cfg


def build_model(
    parts: OpenClipParts, weights: Path | None = None, *, precision: str = "fp32", where: str = "model_cfg"
) -> nn.Module:
    """The model, in eval mode and on the CPU; with random weights if ``weights`` is None, else loaded strictly.

    Args:
        parts: what to build.
        weights: a safetensors file, or one that ``torch.load(weights_only=True)`` reads.
        precision: ``fp32``, ``bf16``, ``fp16``, ``pure_bf16`` or ``pure_fp16``, as open_clip means them.
        where: for messages.

    Raises:
        KdkitError: open_clip cannot build it, or the weights do not fit exactly.
    """
    require_own_towers(parts.model_cfg, where)
    require_own_parts(parts.text_config or {}, where)
    with tempfile.TemporaryDirectory() as name:
        stage = Path(name)
        model_cfg = deepcopy(dict(parts.model_cfg))
        if parts.text_config is not None:
            # Without auto_map, transformers uses its own class instead of remote code.
            text_config = {key: value for key, value in parts.text_config.items() if key != "auto_map"}
            (stage / "text").mkdir()
            (stage / "text" / "config.json").write_text(json.dumps(text_config), encoding="utf-8")
            model_cfg["text_cfg"]["hf_model_name"] = str(stage / "text")
        config = {"model_cfg": model_cfg, "preprocess_cfg": dict(parts.preprocess_cfg)}
        (stage / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        try:
            if weights is not None:
                _stage_weights(weights, stage)
            with _quiet():
                model: nn.Module = create_model(
                    f"local-dir:{stage}",
                    precision=precision,
                    load_weights=weights is not None,
                    require_pretrained=weights is not None,
                    pretrained_text=False,
                )
        except pickle.UnpicklingError as error:
            raise KdkitError(
                "KD-LOAD-027",
                "these weights are a pickle that contains code",
                where=str(weights),
                why="reading them would run that code",
                fix="ask the authors for .safetensors, or convert the file in a disposable sandbox",
                code=ExitCode.DENIED,
            ) from error
        except (RuntimeError, TypeError, ValueError, KeyError, AssertionError) as error:
            raise KdkitError(
                "KD-LOAD-028",
                "open_clip cannot build this model" if weights is None else "the weights do not fit the model",
                where=str(weights or where),
                why=_explain(error, parts, weights, where),
                fix=how_to_load(weight_shapes_of(weights)),
            ) from error
    return model.eval()


def _explain(error: Exception, parts: OpenClipParts, weights: Path | None, where: str) -> str:
    """What differs between weights and model, where that can be compared; else open_clip's words."""
    said = " ".join(str(error).split())[:600]
    found = weight_shapes_of(weights)
    if not found or not isinstance(error, RuntimeError):
        return said
    expected = {name: tuple(value.shape) for name, value in build_model(parts, where=where).state_dict().items()}
    return describe_mismatch(expected, _staged_names(found)) or said


def find_weights(folder: Path, name: str | None = None) -> Path:
    """The weights file of ``folder``: ``name``, or the first of the known names, safetensors before pickle, or the only
    safetensors file.

    Raises:
        KdkitError: there is none.
    """
    for candidate in (name,) if name else (WEIGHTS, *OTHER_WEIGHTS):
        path = folder / candidate
        if ".." not in path.parts and path.is_relative_to(folder) and path.is_file():  # nothing outside the folder
            return path
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if not name and len(others) == 1:
        return folder / others[0]
    raise KdkitError(
        "KD-LOAD-022",
        "no weights under that name in this folder" if others else "no weights in this folder",
        where=str(folder),
        why=f"looked for {name or ', '.join((WEIGHTS, *OTHER_WEIGHTS))}"
        + (f"; there are {', '.join(others)}" if others else ""),
        fix=f"name the file: --option weights={others[0]}" if others else "put the weights there",
        code=ExitCode.MISSING,
    )


def _stage_weights(weights: Path, stage: Path) -> None:
    """Link the weights to where open_clip finds them, or write them under the names that it expects."""
    if weights.suffix != ".safetensors":
        # open_clip reads pickles with weights_only=True, unwraps them and drops position ids of BERT.
        os.symlink(weights.resolve(), stage / "open_clip_pytorch_model.bin")
        return
    shapes = read_header(weights).shapes
    if _staged_names(shapes).keys() == shapes.keys():
        os.symlink(weights.resolve(), stage / WEIGHTS)
    else:
        save_file(_staged_names(read_tensors(weights)), stage / WEIGHTS)


def _staged_names(weights: Mapping[str, T]) -> dict[str, T]:
    """``weights`` under open_clip's names, without position ids, which transformers no longer has, and sizes."""
    weights = unwrapped(weights)
    fork = is_unimed_clip(weights)
    kept = {
        name: value
        for name, value in weights.items()
        if not (name.endswith("embeddings.position_ids") or name in OPENAI_SIZES)
    }
    return {open_clip_name(name) if fork else name: value for name, value in kept.items()}


def find_tokenizer(folder: Path, name: str) -> dict[str, bytes]:
    """The tokenizer's files, at the top or in ``text/``. Raises: KdkitError without any; ``name`` is its repository."""
    files = read_tokenizer_files(folder) or read_tokenizer_files(folder / "text")
    if not files:
        raise _incomplete(folder, "the tokenizer", name, "tokenizer.json")
    return files


def find_text_config(folder: Path, name: str) -> Mapping[str, Any]:
    """The config of a Hugging Face text tower. Raises: KdkitError without one; ``name`` is its repository."""
    from open_clip.hf_configs import arch_dict

    for file in TEXT_CONFIG:
        # A config.json beside the weights may also be that of a whole CLIPModel.
        if (folder / file).is_file():
            config = _read_json(folder / file)
            if config.get("model_type") in arch_dict:
                return config
    raise _incomplete(folder, "the config of the text tower", name, "text/config.json")


def _incomplete(folder: Path, what: str, source: str, name: str) -> KdkitError:
    return KdkitError(
        "KD-LOAD-023",
        f"{what} '{source}' is not in this folder",
        where=str(folder),
        why="models are loaded from complete folders only, never from the network",
        fix=f"put it there as {name}, or add the teacher again to fetch all its files",
        code=ExitCode.MISSING,
    )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise KdkitError(
            "KD-LOAD-024",
            "this folder is not an open_clip model",
            where=str(path.parent),
            why=f"it has no {path.name}",
            fix="choose another loader, or give the option 'arch' if it holds only weights",
            code=ExitCode.MISSING,
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        fix = "fetch the file again"
        raise KdkitError("KD-LOAD-025", "not valid JSON", where=str(path), why=str(error), fix=fix) from error
    if not isinstance(data, dict):
        raise KdkitError("KD-LOAD-026", "not a JSON object", where=str(path), fix="fetch the file again")
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide open_clip's warning about random weights, which are intended here."""
    root = logging.getLogger()
    silent = logging.NullHandler()

    def keep(record: logging.LogRecord) -> bool:
        return "No pretrained weights" not in record.getMessage()

    root.addHandler(silent)  # keeps logging.warning() from installing a handler of its own
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)
        root.removeHandler(silent)
