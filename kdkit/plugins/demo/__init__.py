"""A self-contained demonstration world: procedural images, captions, five tiny specialists and a student."""

from __future__ import annotations

from kdkit.core.contracts import SourceSpec, StudentSpec, TeacherSpec
from kdkit.core.hookspecs import hookimpl
from kdkit.plugins.demo.teachers import SPECIALISTS, Specialist

STAND_IN = (
    "A stand-in for a real specialist: a network of 0.1 million parameters, trained on procedural pictures by "
    "benchmarks/train_demo_teachers.py. It knows nothing about real images."
)


@hookimpl
def kdkit_teachers() -> tuple[TeacherSpec, ...]:
    return tuple(_teacher(specialist) for specialist in SPECIALISTS)


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


@hookimpl
def kdkit_students() -> tuple[StudentSpec, ...]:
    return (
        StudentSpec(
            name="demo-student",
            summary="the demo's student: an open_clip dual encoder of 0.3 million parameters",
            factory="kdkit.plugins.demo.student:create_student",
            loader="kdkit.plugins.students.open_clip:load_student",
        ),
    )


@hookimpl
def kdkit_sources() -> tuple[SourceSpec, ...]:
    return (
        SourceSpec(
            name="procedural",
            summary="made-up pictures of nine imaging modalities, drawn on first use (the demo's data)",
            factory="kdkit.plugins.demo.source:read_procedural",
        ),
    )
