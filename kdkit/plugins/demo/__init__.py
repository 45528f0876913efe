"""The demo without downloads: procedural images, captions and questions, tiny teachers and students."""

from __future__ import annotations

from kdkit.core.contracts import SourceSpec, StudentSpec, TeacherSpec
from kdkit.core.contracts.hookspecs import hookimpl
from kdkit.plugins.demo.teachers import ANSWERERS, SPECIALISTS, TASKS, Answerer, Specialist
from kdkit.plugins.students import MAX_ASPECT

STAND_IN = (
    "A stand-in for a real specialist: a network of 0.1 million parameters, trained on procedural pictures by "
    "benchmarks/train_demo_teachers.py. It knows nothing about real images."
)
ANSWERING_STAND_IN = (
    "A stand-in for a vision-language specialist: Qwen2-VL's architecture with 0.55 million parameters, trained on "
    "procedural pictures by benchmarks/train_demo_answerers.py. It knows nothing about real images."
)


@hookimpl
def kdkit_teachers() -> tuple[TeacherSpec, ...]:
    return (*map(_teacher, SPECIALISTS), *map(_answerer, ANSWERERS))


def _teacher(specialist: Specialist) -> TeacherSpec:
    return TeacherSpec(
        name=f"demo-{specialist.name}",
        summary=f"stand-in specialist on made-up pictures: {', '.join(specialist.domains)}",
        source=f"package:kdkit.plugins.demo/weights/{specialist.name}",
        loader="open_clip",
        image_dim=specialist.embed_dim,
        text_dim=specialist.embed_dim,
        image_size=48,
        context_length=16,
        domains=specialist.domains,
        license="apache-2.0",
        distillation="allowed",
        notes=STAND_IN,
    )


def _answerer(answerer: Answerer) -> TeacherSpec:
    return TeacherSpec(
        name=f"demo-{answerer.name}",
        summary=f"stand-in that answers questions about made-up pictures: {', '.join(answerer.modalities)}",
        source=f"package:kdkit.plugins.demo/weights/{answerer.name}",
        loader="image-text-to-text",
        kind="answers",
        domains=tuple(f"{task}/{modality}" for modality in answerer.modalities for task in TASKS),
        license="apache-2.0",
        distillation="allowed",
        notes=ANSWERING_STAND_IN,
    )


@hookimpl
def kdkit_students() -> tuple[StudentSpec, ...]:
    return (
        StudentSpec(
            name="demo-student",
            summary="the demo's student: an open_clip dual encoder of 0.3 million parameters",
            factory="kdkit.plugins.demo.student:create_student",
            loader="kdkit.plugins.students.open_clip:load_student",
            publisher="kdkit.plugins.students.open_clip_publish:publish",
        ),
        StudentSpec(
            name="demo-answerer",
            summary="the demo's student that answers questions: Qwen2-VL's architecture, 0.3 million parameters",
            factory="kdkit.plugins.demo.student:create_answerer",
            loader="kdkit.plugins.students.clinkd.create:load_student",
            max_aspect=MAX_ASPECT,
            task="answers",
            names={"rope": "rope", "vision_rope": "rope"},
            publisher="kdkit.plugins.students.clinkd.publish:publish",
        ),
    )


@hookimpl
def kdkit_sources() -> tuple[SourceSpec, ...]:
    return (
        SourceSpec(
            name="procedural",
            summary="made-up pictures of nine imaging modalities, drawn on first use (the demo's data)",
            factory="kdkit.plugins.demo.source:read_procedural",
            inputs="kdkit.plugins.demo.source:drawn_files",
        ),
        SourceSpec(
            name="procedural-questions",
            summary="questions with boxes about made-up pictures of seven modalities (the data of 'kdkit demo clinkd')",
            factory="kdkit.plugins.demo.source:read_questions",
            inputs="kdkit.plugins.demo.source:drawn_files",
        ),
    )
