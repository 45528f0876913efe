"""Built-in student families. Light: declares, imports no library."""

from __future__ import annotations

from kdkit.core.contracts import StudentSpec
from kdkit.core.contracts.hookspecs import hookimpl

MAX_ASPECT = 200
"""The most that one side of an image may exceed the other; Qwen's own limit."""


@hookimpl
def kdkit_students() -> tuple[StudentSpec, ...]:
    return (
        StudentSpec(
            name="open_clip",
            summary="a dual encoder of any open_clip architecture, saved as a stock open_clip folder",
            factory="kdkit.plugins.students.open_clip:create_student",
            loader="kdkit.plugins.students.open_clip:load_student",
            default=True,
            task_without_labels="retrieval",
            weights=("init",),
            publisher="kdkit.plugins.students.open_clip_publish:publish",
        ),
        StudentSpec(
            name="mmkd",
            summary="MMKD-CLIP's student: MetaCLIP ViT-B/16 and BiomedBERT with an MLP; complete by its name",
            factory="kdkit.plugins.students.open_clip:create_mmkd",
            loader="kdkit.plugins.students.open_clip:load_student",
            weights=("init",),
            options={"init": {"image": "metaclip-b16", "text": "biomedbert"}},
            publisher="kdkit.plugins.students.open_clip_publish:publish",
        ),
        StudentSpec(
            name="clinkd",
            summary="a vision-language model (Qwen-VL, Gemma 3, LLaVA, InternVL, SmolVLM, Mllama); whole or LoRA",
            factory="kdkit.plugins.students.clinkd.create:create_student",
            loader="kdkit.plugins.students.clinkd.create:load_student",
            max_aspect=MAX_ASPECT,
            task="answers",
            names={"rope": "rope", "vision_rope": "rope"},
            weights=("init",),
            publisher="kdkit.plugins.students.clinkd.publish:publish",
        ),
    )
