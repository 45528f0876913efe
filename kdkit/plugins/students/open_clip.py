"""The student family ``open_clip``: any architecture of open_clip, saved as a stock open_clip folder."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from open_clip.transform import PreprocessCfg
from PIL.Image import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import Sample
from kdkit.plugins.loaders.hugging_face import read_tokenizer_files
from kdkit.plugins.loaders.open_clip import OpenClipEncoder
from kdkit.plugins.loaders.open_clip_folder import (
    CONFIG,
    WEIGHTS,
    OpenClipParts,
    build_model,
    builtin_model_cfg,
    find_weights,
    read_parts,
)
from kdkit.plugins.loaders.word_tokenizer import word_tokenizer_files, words_of
from kdkit.plugins.students.altered_inputs import alter_images, alter_tokens
from kdkit.plugins.students.towers import TowerOptions, at_resolution, decided_elsewhere, join_towers

_MAX_LOG_SCALE = math.log(100)
_TRAINING = "kdkit"
"""Key of ``open_clip_config.json`` for settings that do not change the model."""


class OpenClipStudent(OpenClipEncoder):
    """A trainable open_clip model; fulfils ``contracts.Student`` and ``contracts.DualEncoder``."""

    def __init__(
        self,
        parts: OpenClipParts,
        model: nn.Module,
        tokenizer: Mapping[str, Any] | None,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(parts, model)
        self._checkpoints = gradient_checkpointing
        if gradient_checkpointing:
            _switch_on_checkpointing(model)
        # Complete, and as JSON gives it back, so that a student and its saved copy have the same config.
        preprocess_cfg = json.loads(json.dumps(self.preprocess_cfg))
        self.parts = replace(parts, preprocess_cfg=preprocess_cfg)
        self._tokenizer_config = tokenizer
        bias: Any = model.logit_bias
        if bias is not None:
            bias.requires_grad_(False)  # SigLIP's; it is no output, so nothing could train it

    @property
    def outputs(self) -> Mapping[str, int]:
        """``image`` and ``text``, both of the embedding's width."""
        return {"image": self.embed_dim, "text": self.embed_dim}

    @property
    def config(self) -> Mapping[str, Any]:
        """What :func:`create_student` needs to make the same architecture again."""
        config: dict[str, Any] = {
            "model_cfg": dict(self.parts.model_cfg),
            "preprocess_cfg": dict(self.parts.preprocess_cfg),
        }
        if self._tokenizer_config is not None:
            config["tokenizer"] = dict(self._tokenizer_config)
        if self.parts.text_config is not None:
            config["text_config"] = dict(self.parts.text_config)
        if self._checkpoints:
            config["gradient_checkpointing"] = True
        return config

    def prepare(self, image: Image, sample: Sample) -> Mapping[str, Tensor]:
        """One sample's ``pixels`` (3, H, W) float32 and ``tokens`` (L,) int64; deterministic, thread-safe."""
        return {"pixels": self.preprocess(image), "tokens": self.tokenizer([sample.text])[0]}

    def forward(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """``pixels`` (B, 3, H, W), ``tokens`` (B, L) -> ``image``, ``text`` (B, D) and ``logit_scale`` ().

        Features are not normalized. While training, the learnt scale is kept in [1, 100] as CLIP does
        (Radford et al. 2021, section 2.5; open_clip's training loop).
        """
        log_scale: Any = self.model.logit_scale
        if self.training:
            with torch.no_grad():
                log_scale.clamp_(0, _MAX_LOG_SCALE)
        return {
            "image": self.image_features(inputs["pixels"]),
            "text": self.text_features(inputs["tokens"]),
            "logit_scale": log_scale.exp().reshape(()),
        }

    def alter(self, inputs: Mapping[str, Tensor], seeds: Tensor) -> Mapping[str, Tensor]:
        """``contracts.AltersInputs``: other views and colors of images, random words in texts."""
        special = set(self.tokenizer([""])[0].tolist())  # start, end, padding
        tokens = alter_tokens(inputs["tokens"], seeds, size=len(self.tokenizer), kept=special)
        return {"pixels": alter_images(inputs["pixels"], seeds), "tokens": tokens}

    def save(self, folder: Path) -> None:
        """Write a folder that stock open_clip loads as ``local-dir:``.

        A Hugging Face text tower's config goes to ``text/``; stock open_clip still asks the Hub for it by
        ``hf_model_name``, until export points that name at the folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        for name, content in self.parts.tokenizer_files.items():
            (folder / name).write_bytes(content)
        if self.parts.text_config is not None:
            (folder / "text").mkdir(exist_ok=True)
            _write_json(folder / "text" / "config.json", self.parts.text_config)
        cfg = {"model_cfg": self.parts.model_cfg, "preprocess_cfg": self.parts.preprocess_cfg}
        own = {_TRAINING: {"gradient_checkpointing": True}} if self._checkpoints else {}  # open_clip reads over it
        _write_json(folder / CONFIG, {**cfg, **own})


def create_student(
    model_cfg: Mapping[str, Any] | None = None,
    preprocess_cfg: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    text_config: Mapping[str, Any] | None = None,
    *,
    arch: str | None = None,
    init: str | Mapping[str, str] | None = None,
    embed_dim: int | None = None,
    text_pooling: str | None = None,
    text_projection: str | None = None,
    context_length: int | None = None,
    resolution: int | None = None,
    gradient_checkpointing: bool = False,
) -> OpenClipStudent:
    """A new student, in training mode; give exactly one of ``model_cfg``, ``arch`` and ``init``.

    Args:
        model_cfg: open_clip's model config; random weights from torch's global generator.
        preprocess_cfg: open_clip's ``preprocess_cfg`` (mean, std, interpolation, resize_mode, fill_color).
        tokenizer: ``{"words": [...]}`` for a word-level tokenizer, ``{"folder": PATH}`` for Hugging Face
            tokenizer files, or None for open_clip's own BPE (or for what ``init`` brings).
        text_config: the ``config.json`` of a Hugging Face text tower, where ``model_cfg`` names one.
        arch: a built-in open_clip architecture, such as ``ViT-B-16``, instead of ``model_cfg``.
        init: an open_clip folder to start from: architecture, preprocessing, tokenizer and weights are its. Or
            ``image`` and ``text``: folders of two towers. In a project, models of the catalogue by name.
        embed_dim, text_pooling, text_projection, context_length: of two towers; see :class:`TowerOptions`.
        resolution: side of the images in pixels; position embeddings are interpolated.
        gradient_checkpointing: compute activations again in the backward pass: less memory, more time.

    Raises:
        KdkitError: when the arguments do not describe a model that can be built without network.
    """
    if sum(given is not None for given in (model_cfg, arch, init)) != 1:
        raise KdkitError(
            "KD-STUD-050",
            "the student needs exactly one of model_cfg, arch and init",
            where="student.config",
            fix="for example 'config: {arch: ViT-B-16}'",
        )
    if init is not None and any(given is not None for given in (preprocess_cfg, tokenizer, text_config)):
        raise KdkitError(
            "KD-STUD-051",
            "'init' brings its own preprocessing, tokenizer and text tower",
            where="student.config",
            fix="remove preprocess_cfg, tokenizer and text_config",
        )
    options = TowerOptions(embed_dim, text_pooling, text_projection, context_length)
    if options.given and not isinstance(init, Mapping):
        raise decided_elsewhere(options.given, "init" if init else "the architecture")
    if isinstance(init, Mapping):
        parts, model = join_towers(init, options, resolution)
        return _student(parts, model, Path(init["text"]), gradient_checkpointing).train()
    if init is not None:
        return load_student(Path(init), resolution, gradient_checkpointing).train()
    _check_preprocessing(preprocess_cfg or {})
    chosen = dict(model_cfg) if model_cfg is not None else builtin_model_cfg(str(arch))
    files = _tokenizer_files(tokenizer)
    parts = at_resolution(_complete(OpenClipParts(chosen, preprocess_cfg or {}, text_config, files)), resolution)
    model = build_model(parts, where="student.config")
    student = OpenClipStudent(parts, model, tokenizer, gradient_checkpointing=gradient_checkpointing)
    _check_vocabulary(student)
    return student.train()


def create_mmkd(init: Mapping[str, str] | None = None, **config: Any) -> OpenClipStudent:
    """The student of MMKD-CLIP: two towers with a common space of 512, an MLP after the text tower's first token, and
    texts of 256 tokens (its configs ``b16_400m`` and ``b16_kd``).

    Args:
        init: ``image``: the folder of MetaCLIP ViT-B/16 400M; ``text``: that of BiomedBERT (abstracts).
        config: ``resolution`` and ``gradient_checkpointing``, as for :func:`create_student`; or the config of such a
            student, with ``model_cfg``, which replaces ``init``.
    """
    if init is None or "model_cfg" in config:
        return create_student(**config)
    mmkd: dict[str, Any] = {"embed_dim": 512, "text_pooling": "cls", "text_projection": "mlp", "context_length": 256}
    return create_student(init=init, **mmkd, **config)


def load_student(
    folder: Path, resolution: int | None = None, gradient_checkpointing: bool | None = None
) -> OpenClipStudent:
    """A saved student (or any complete open_clip folder) in eval mode, every parameter trainable.

    Args:
        folder: of open_clip.
        resolution: side of the images, if it is not the folder's.
        gradient_checkpointing: by default as it was saved.
    """
    folder = Path(folder)
    parts = at_resolution(read_parts(folder), resolution)
    with torch.random.fork_rng(devices=[]):
        model = build_model(parts, find_weights(folder), where=str(folder))
    if gradient_checkpointing is None:
        saved = json.loads((folder / CONFIG).read_text(encoding="utf-8-sig"))
        gradient_checkpointing = bool(saved.get(_TRAINING, {}).get("gradient_checkpointing", False))
    return _student(parts, model, folder, gradient_checkpointing).eval()


def _student(parts: OpenClipParts, model: nn.Module, folder: Path, gradient_checkpointing: bool) -> OpenClipStudent:
    """A student with the tokenizer files of ``folder``."""
    tokenizer = _tokenizer_config(parts.tokenizer_files, folder)
    student = OpenClipStudent(parts, model, tokenizer, gradient_checkpointing=gradient_checkpointing)
    _check_vocabulary(student)
    return student


def _switch_on_checkpointing(model: nn.Module) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # open_clip calls transformers by an older name
            model.set_grad_checkpointing(True)  # type: ignore[operator]
    except Exception as error:  # each tower raises its own error
        raise KdkitError(
            "KD-STUD-069",
            "a tower of this student cannot checkpoint gradients",
            where="student.config.gradient_checkpointing",
            why=" ".join(str(error).split())[:200],
            fix="set it to false",
        ) from error


def _check_preprocessing(preprocess_cfg: Mapping[str, Any]) -> None:
    known = list(PreprocessCfg.__dataclass_fields__)
    for name in preprocess_cfg:
        if name not in known:
            raise KdkitError(
                "KD-STUD-052",
                f"unknown key '{name}'",
                where="student.config.preprocess_cfg",
                fix=did_you_mean(name, known),
            )


def _tokenizer_files(tokenizer: Mapping[str, Any] | None) -> dict[str, bytes]:
    if tokenizer is None:
        return {}
    if set(tokenizer) == {"words"}:
        return word_tokenizer_files(tokenizer["words"])
    if set(tokenizer) == {"folder"}:
        files = read_tokenizer_files(Path(tokenizer["folder"]))
        if files:
            return files
        raise KdkitError(
            "KD-STUD-053",
            "no tokenizer files in this folder",
            where=str(tokenizer["folder"]),
            code=ExitCode.MISSING,
            fix="name the folder of a Hugging Face tokenizer",
        )
    raise KdkitError(
        "KD-STUD-054",
        f"not a tokenizer: {', '.join(map(repr, tokenizer)) or 'empty'}",
        where="student.config.tokenizer",
        fix="give {words: [...]} or {folder: PATH}, or leave it out for open_clip's own",
    )


def _tokenizer_config(files: Mapping[str, bytes], folder: Path) -> Mapping[str, Any] | None:
    if not files:
        return None
    words = words_of(files)
    if words is not None:
        return {"words": words}
    return {"folder": str(folder if read_tokenizer_files(folder) else folder / "text")}


def _complete(parts: OpenClipParts) -> OpenClipParts:
    """Name the tokenizer as open_clip expects it; refuse what would need the Hub."""
    text_cfg = dict(parts.model_cfg.get("text_cfg") or {})
    tower, named = text_cfg.get("hf_model_name"), text_cfg.get("hf_tokenizer_name")
    if tower and parts.text_config is None:
        raise _needs("text_config", f"the config.json of the text tower '{tower}'")
    if named and not parts.tokenizer_files:
        raise _needs("tokenizer", f"the files of the tokenizer '{named}', as {{folder: PATH}}")
    if parts.tokenizer_files and not named:
        # open_clip wants a name here, and with local-dir: it always reads the folder itself.
        text_cfg["hf_tokenizer_name"] = "tokenizer-in-this-folder"
    return replace(parts, model_cfg={**parts.model_cfg, "text_cfg": text_cfg})


def _check_vocabulary(student: OpenClipStudent) -> None:
    size, needed = int(student.model.vocab_size), len(student.tokenizer)  # type: ignore[arg-type]
    if size < needed:
        raise KdkitError(
            "KD-STUD-055",
            f"the text tower has {size} token embeddings, the tokenizer {needed} tokens",
            where="student.config.model_cfg.text_cfg.vocab_size",
            fix=f"set vocab_size: {needed}",
        )


def _needs(key: str, what: str) -> KdkitError:
    return KdkitError(
        "KD-STUD-056",
        f"the student needs {what}",
        where=f"student.config.{key}",
        why="models are built without network",
        fix="give it, or start from a complete folder with 'init'",
        code=ExitCode.MISSING,
    )


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
