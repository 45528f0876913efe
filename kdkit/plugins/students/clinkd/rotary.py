"""The language tower's RoPE variant: the rotary module is exchanged on the instance, nothing is patched."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import RopeVariant
from kdkit.core.plugin_system.discovery import BUILT_IN, current_catalogue, resolve
from kdkit.plugins.rope.designs import reading_order
from kdkit.plugins.rope.layouts import LAYOUTS, Layout
from kdkit.plugins.rope.variants import LanguageRope
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.settings import WHERE, Choice

AXES = 3
"""Rows of position ids that the model takes: time, row, column."""


def complete(choice: Choice) -> Choice:
    """The choice with all options and the provider of its variant: a saved student depends on no default, and a
    variant of the same name that another plugin brings later is not taken for its own."""
    entry = current_catalogue().get("rope", choice.name)
    spec, name = entry.spec, choice.name if entry.provider == BUILT_IN else entry.qualified
    parameters = inspect.signature(resolve(spec.factory)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return Choice(name, {**defaults, **spec.options, **choice.options})


def own_layout(family: FamilySpec) -> Layout | None:
    """How the family's rotary module shares planes among time, row and column; None for one number per token."""
    return LAYOUTS.get(family.positions)


def make_variant(choice: Choice, network: Any, family: FamilySpec) -> tuple[RopeVariant, Choice]:
    """The variant, and the choice with all its options; M-RoPE's sections are the model's own unless given."""
    whole = complete(choice)
    options, make = dict(whole.options), current_catalogue().make
    variant: RopeVariant = make("rope", whole.name, **options)
    shared = own_layout(family) is not None and isinstance(variant, LanguageRope) and variant.section is None
    if shared and variant.layout in (LAYOUTS["sections"], own_layout(family)):  # type: ignore[attr-defined]
        options["section"] = own_section(network)
        variant = make("rope", whole.name, **options)
    return variant, Choice(whole.name, options)


def own_section(network: Any) -> list[int]:
    """How many rotary planes the model gives to time, rows and columns."""
    return list(network.config.text_config.rope_parameters["mrope_section"])


def exchange(network: Any, variant: RopeVariant, name: str, family: FamilySpec) -> None:
    """Let the language tower turn as ``variant`` says. A layout that is the model's own changes nothing.

    Raises:
        KdkitError: a variant that this model cannot take.
    """
    layout = own_layout(family)
    if layout is None:
        _require_index(variant, name, family)
        return
    rotary = network.model.language_model.rotary_emb
    inverse = rotary.inv_freq.detach().float().cpu()
    if variant.tower != "language":
        raise refused(name, "it belongs to a vision tower", "name it as vision_rope")
    if variant.trainable:
        raise refused(name, "learnt frequencies are for the vision tower alone")
    found = variant.frequencies(inverse)
    axes = len(found)
    if found.shape != (axes, len(inverse)) or axes > AXES:
        raise refused(name, f"its frequencies are {tuple(found.shape)}, the model takes (1 to {AXES}, {len(inverse)})")
    frequencies = torch.cat([found, torch.zeros(AXES - axes, len(inverse))])
    axis = layout(len(inverse), own_section(network))
    own = torch.where(axis == torch.arange(AXES)[:, None], inverse, 0.0)
    if torch.equal(frequencies, own) or (axes == 1 and torch.equal(found[0], inverse)):
        return
    if rotary.rope_type in ("dynamic", "longrope"):
        raise refused(name, f"the model's frequencies change with the length of the text ({rotary.rope_type})")
    network.model.language_model.rotary_emb = AxisRotary(
        rotary, frequencies, split_later=family.positions == "sections"
    )


def _require_index(variant: RopeVariant, name: str, family: FamilySpec) -> None:
    """Refuse what a rotary module of one number per token cannot do."""
    if variant.tower == "language" and isinstance(variant, LanguageRope) and variant.design is reading_order:
        return
    raise KdkitError(
        "KD-STUD-425",
        f"models of the family {family.name} cannot take the RoPE variant '{name}'",
        where=f"{WHERE}.rope",
        why="their positions are one number for each token, the variant gives rows and columns of images; the rotary "
        "module and transformers' generate take no others here",
        fix="leave rope out, or write rope: rope-1d; variants need a family of Qwen2-VL, Qwen2.5-VL or Qwen3-VL",
    )


def position_rows(positions: Tensor) -> Tensor:
    """(axes, S) of a variant -> (3, S) as the model takes them: int64, or float32 for broken numbers.

    Every integer and half below 2 ** 23 is exact in float32. (bfloat16 is not enough: it has no 257.)
    """
    rows = positions.float() if positions.is_floating_point() else positions
    return torch.cat([rows, rows[-1:].expand(AXES - len(rows), -1)])


class AxisRotary(nn.Module):
    """Takes the place of a model's rotary module: plane f turns by ``sum over axes p[a] * frequencies[a, f]``.

    Args:
        own: the replaced module.
        frequencies: (3, F) float32.
        split_later: whether transformers before 5.18 picks each plane's axis after this module (Qwen2-VL's do).
    """

    def __init__(self, own: Any, frequencies: Tensor, *, split_later: bool = True) -> None:
        super().__init__()
        # No buffer: casting the model to bfloat16 must not touch the frequencies.
        self.frequencies = frequencies
        self.inv_freq, self.rope_type = own.inv_freq, own.rope_type
        self.attention_scaling: float = own.attention_scaling
        self._split_later = split_later and not hasattr(own, "recomposition_frequencies")

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Position ids (3, B, S) -> cosines and sines (B, S, 2F), in the dtype of ``x``."""
        frequencies = self.frequencies.to(x.device)
        angle = sum(
            p.float()[..., None] * f for p, f in zip(position_ids.expand(AXES, -1, -1), frequencies, strict=True)
        )
        angle = torch.cat([angle, angle], dim=-1)
        if self._split_later:  # transformers < 5.18 picks each plane's axis itself: all three are alike
            angle = angle.expand(AXES, *angle.shape)
        return (
            (angle.cos() * self.attention_scaling).to(x.dtype),
            (angle.sin() * self.attention_scaling).to(x.dtype),
        )


def refused(name: str, why: str, fix: str = "") -> KdkitError:
    return KdkitError("KD-STUD-038", f"the model cannot take the RoPE variant '{name}'", why=why, fix=fix)
