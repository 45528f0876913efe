"""Teachers that answer in words: ClinKD's (arXiv 2502.05928)."""

from __future__ import annotations

from kdkit.core.contracts import TeacherSpec

TEACHERS: tuple[TeacherSpec, ...] = (
    TeacherSpec(
        name="qwen2-vl-7b",
        summary="Qwen2-VL-7B-Instruct",
        source="hf:Qwen/Qwen2-VL-7B-Instruct",
        loader="qwen2-vl",
        paper="arXiv:2502.05928",
        notes="the most consistent reading of ClinKD's paper, not confirmed by its authors or code",
    ),
)
