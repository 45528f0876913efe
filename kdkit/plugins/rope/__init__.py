"""Built-in RoPE variants of vision-language students: specs only."""

from __future__ import annotations

from kdkit.core.contracts import RopeSpec
from kdkit.core.contracts.hookspecs import hookimpl

_MCG = "ClinKD's MCG-RoPE (= RoPE-TV): an image of n tokens takes n positions, with equal gaps"
_VARIANTS = (
    ("rope-1d", "variants:rope_1d", "every token at its index: image tokens in reading order, like text"),
    ("rope-2d", "variants:rope_2d", "axial: rows and columns of an image on alternate frequencies, no time axis"),
    (
        "rope-mixed",
        "mixed:RopeMixed",
        "vision tower: every plane rotates along a learned direction of the image",
    ),
    ("mrope", "variants:mrope", "M-RoPE of Qwen2-VL: time, row, column; text continues after the longest side"),
    ("mrope-interleaved", "variants:mrope_interleaved", "M-RoPE with the axes interleaved, as in Qwen3-VL"),
    ("videorope", "variants:videorope", "image centered on the diagonal of text, time on the lowest frequencies"),
    ("mcg-rope", "variants:rope_tv", _MCG),
    ("rope-tv", "variants:rope_tv", _MCG),
    ("clinkd-repo", "variants:clinkd_repo", "ClinKD's released MCG-RoPE: M-RoPE with gaps of 2 around an image"),
)


@hookimpl
def kdkit_rope_variants() -> tuple[RopeSpec, ...]:
    return tuple(
        RopeSpec(name=name, summary=summary, factory=f"{__name__}.{factory}") for name, factory, summary in _VARIANTS
    )
