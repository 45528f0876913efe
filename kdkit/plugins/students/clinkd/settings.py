"""Settings of a ``clinkd`` student's config, except the origin of its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import MAX_ANSWER

WHERE = "student.config"
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")
"""Implementations of attention that transformers has; those after the second need a GPU."""
TOWERS = ("language", "vision", "projector")
FOUR_BIT = ("nf4", "fp4")
"""Kinds of 4-bit weights of bitsandbytes."""


@dataclass(frozen=True)
class Choice:
    """A RoPE variant: its name in the catalogue and its options."""

    name: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, given: str | Mapping[str, Any] | Choice) -> Choice:
        """From ``mcg-rope`` or ``{name: mcg-rope, options: {alpha: 2}}``."""
        if isinstance(given, Choice):
            return given
        if isinstance(given, str):
            return cls(given, {})
        if "name" not in given or set(given) - {"name", "options"}:
            raise KdkitError(
                "KD-STUD-039",
                f"not a RoPE variant: {dict(given)}",
                where=WHERE,
                fix="write {name: mcg-rope, options: {alpha: 2}}",
            )
        return cls(str(given["name"]), dict(given.get("options") or {}))

    def __str__(self) -> str:
        return f"{self.name} {json.dumps(dict(self.options), sort_keys=True)}" if self.options else self.name


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (PEFT); everything else is frozen.

    Attributes:
        r: rank; ``alpha``: the update is scaled by alpha / r; ``dropout``: of the adapters' input, in [0, 1).
        targets: names of linear layers of the language tower.
        towers: where adapters are: ``language``; ``vision`` and ``projector``, in all of their linear layers.
        quantize: 4-bit weights of the language tower below the adapters, ``nf4`` or ``fp4``; None for whole weights.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    towers: tuple[str, ...] = ("language",)
    quantize: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything but the weights; see docs/reference/clinkd-student.md.

    Attributes:
        rope: variant of the language tower; ``vision_rope``: of the vision tower; None for the model's own.
        lora: adapters to train instead of the weights.
        freeze_vision: freeze the vision tower except its merger.
        gradient_checkpointing: recompute activations instead of storing them.
        dtype: of the weights. With bfloat16 updates are rounded too; ``kdkit distill --precision bf16`` keeps
            float32 weights instead.
        attn_implementation: of transformers; None for its default.
        max_tokens, max_answer, max_images, min_pixels, max_pixels: inputs of all samples have the shapes that follow
            from these. ``max_tokens`` counts prompt, image tokens and answer.
        square: resample images to squares of as many pixels before all else, as ClinkD does (w = h).
        system: system message of samples without one; empty for none; None for the family's.
        question: prompt of samples without messages.
        boxes: family of :class:`BoxCodec` for the model's boxes; ``as-is`` keeps the texts of the data; None: the
            family of its pretraining.
    """

    rope: Choice | None = None
    vision_rope: Choice | None = None
    lora: Lora | None = None
    freeze_vision: bool = True
    gradient_checkpointing: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    attn_implementation: str | None = None
    max_tokens: int = 2048
    max_answer: int = MAX_ANSWER
    max_images: int = 1
    min_pixels: int | None = None
    max_pixels: int | None = None
    square: bool = False
    system: str | None = None
    question: str = "Describe this image."
    boxes: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """Check and complete what a config says.

        Raises:
            KdkitError: unknown names or invalid values.
        """
        _known(given, cls, WHERE)
        made: dict[str, Any] = dict(given)
        for name in ("rope", "vision_rope"):
            if made.get(name) is not None:
                made[name] = Choice.of(made[name])
        if (lora := made.get("lora")) is not None and not isinstance(lora, Lora):
            _known(lora, Lora, f"{WHERE}.lora")
            lists = {name: tuple(lora.get(name, getattr(Lora, name))) for name in ("targets", "towers")}
            made["lora"] = Lora(**{**lora, **lists})
        settings = cls(**made)
        for name in ("max_tokens", "max_answer", "max_images"):
            if getattr(settings, name) < 1:
                raise KdkitError(
                    "KD-STUD-040", f"{name} must be at least 1", where=WHERE, fix="give a whole number from 1 on"
                )
        if settings.dtype not in ("float32", "bfloat16"):
            raise KdkitError(
                "KD-STUD-041",
                f"dtype is float32 or bfloat16, not '{settings.dtype}'",
                where=WHERE,
                fix="choose one of them",
            )
        if settings.attn_implementation not in (None, *ATTENTION):
            raise KdkitError(
                "KD-STUD-435",
                f"unknown attn_implementation '{settings.attn_implementation}'",
                where=WHERE,
                fix=did_you_mean(str(settings.attn_implementation), ATTENTION),
            )
        towers = () if settings.lora is None else settings.lora.towers
        if unknown := [tower for tower in towers if tower not in TOWERS]:
            raise KdkitError(
                "KD-STUD-436",
                f"unknown tower '{unknown[0]}'",
                where=f"{WHERE}.lora.towers",
                fix=did_you_mean(unknown[0], TOWERS),
            )
        quantize = None if settings.lora is None else settings.lora.quantize
        if quantize is not None and quantize not in FOUR_BIT:
            raise KdkitError(
                "KD-STUD-553",
                f"unknown 4-bit weights '{quantize}'",
                where=f"{WHERE}.lora.quantize",
                fix=did_you_mean(quantize, FOUR_BIT),
            )
        if settings.lora is not None and (settings.lora.r < 1 or not settings.lora.targets or not towers):
            raise KdkitError(
                "KD-STUD-042",
                "lora needs a rank of at least 1, targets and towers",
                where=f"{WHERE}.lora",
                fix="for example lora: {r: 8, targets: [q_proj, v_proj]}",
            )
        return settings

    def config(self) -> dict[str, Any]:
        """Plain JSON data; the inverse of :meth:`of`."""
        made: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return made


def _known(given: Mapping[str, Any], kind: type[Any], where: str) -> None:
    known = [field.name for field in fields(kind)]
    for name in given:
        if name not in known:
            raise KdkitError("KD-STUD-043", f"unknown key '{name}'", where=where, fix=did_you_mean(name, known))
