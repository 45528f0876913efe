"""QLoRA: adapters over a base whose language tower has 4-bit weights (Dettmers et al., arXiv 2305.14314)."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.settings import WHERE

_KEPT = ("lm_head", "model.multi_modal_projector", "model.connector")
"""Layers that stay whole in every family, beside the vision tower: losses read the output embedding."""


def whole_layers(family: FamilySpec) -> list[str]:
    """Names of modules that are not quantized."""
    return [f"model.{family.vision}", *_KEPT]


def quantization(kind: str, family: FamilySpec, dtype: str) -> Any:
    """The ``quantization_config`` of transformers: NF4 or FP4 with double quantization, computing in ``dtype``.

    Linear layers of the language tower are quantized. The output embedding, the projector and the vision tower are not.

    Raises:
        KdkitError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise KdkitError(
            "KD-STUD-551",
            "4-bit weights need the library bitsandbytes",
            where=f"{WHERE}.lora.quantize",
            fix="pip install 'kdkit[qlora]'",
            code=ExitCode.MISSING,
        )
    import transformers

    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=whole_layers(family),
    )


def require_quantized(network: Any, family: FamilySpec, where: str) -> None:
    """Check that the language tower's linear layers have 4-bit weights, and all others whole ones; freeze all.

    Raises:
        KdkitError: a layer that is not as it should be.
    """
    inside = f"model.{family.language}."
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    wrong = [name for name, module in linear.items() if (type(module) is nn.Linear) == name.startswith(inside)]
    if wrong:
        raise KdkitError(
            "KD-STUD-552",
            f"{len(wrong)} layers were quantized, or left whole, that should not be",
            where=where,
            why=f"transformers treated {', '.join(wrong[:3])} otherwise than the language tower's 4-bit weights need",
            fix="remove quantize from student.config.lora, or update transformers and bitsandbytes",
        )
    network.requires_grad_(False)


def with_values_of(whole: Any, quantized: Any) -> Any:
    """``whole`` with the values of the 4-bit weights of ``quantized``, a network of the same architecture."""
    from bitsandbytes.functional import dequantize_4bit

    with torch.no_grad():
        for name, module in quantized.named_modules():
            state = getattr(getattr(module, "weight", None), "quant_state", None)
            if state is not None:
                weight = whole.get_submodule(name).weight
                weight.copy_(dequantize_4bit(module.weight.data, state).to(weight))
    return whole
