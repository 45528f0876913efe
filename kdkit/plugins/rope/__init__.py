"""Built-in RoPE variants of vision-language students: specs only."""

from __future__ import annotations

from kdkit.core.contracts import RopeSpec
from kdkit.core.contracts.hookspecs import hookimpl

_VARIANTS = "kdkit.plugins.rope.variants:"


@hookimpl
def kdkit_rope_variants() -> tuple[RopeSpec, ...]:
    return (
        RopeSpec(
            name="rope-1d",
            summary="every token at its index: image tokens in reading order, like text",
            factory=_VARIANTS + "rope_1d",
        ),
        RopeSpec(
            name="rope-2d",
            summary="axial: rows and columns of an image on alternate frequencies, no time axis",
            factory=_VARIANTS + "rope_2d",
        ),
        RopeSpec(
            name="rope-mixed",
            summary="vision tower: every rotary plane rotates along a learned direction of the image",
            factory="kdkit.plugins.rope.mixed:RopeMixed",
        ),
        RopeSpec(
            name="mrope",
            summary="M-RoPE of Qwen2-VL: time, row, column; text continues after the longest side",
            factory=_VARIANTS + "mrope",
        ),
        RopeSpec(
            name="mrope-interleaved",
            summary="M-RoPE with the axes interleaved over the frequencies, as in Qwen3-VL",
            factory=_VARIANTS + "mrope_interleaved",
        ),
        RopeSpec(
            name="videorope",
            summary="image centered on the diagonal of text, time on the lowest frequencies, steps of delta",
            factory=_VARIANTS + "videorope",
        ),
        *(
            RopeSpec(
                name=name,
                summary="ClinKD's MCG-RoPE (= RoPE-TV): an image of n tokens takes n positions, with equal gaps",
                factory=_VARIANTS + "rope_tv",
            )
            for name in ("mcg-rope", "rope-tv")
        ),
        RopeSpec(
            name="clinkd-repo",
            summary="what ClinKD released as MCG-RoPE: M-RoPE with gaps of 2 around an image",
            factory=_VARIANTS + "clinkd_repo",
        ),
    )
